"""A whole learner over the log in memory and the ports in memory: real threads, real gradient."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from learners.config import LearnerConfig, ModelConfig
from learners.models import make_model
from learners.process.metrics import LearnerMetrics
from learners.process.worker import Stopped, Worker
from paramserver import SlotMap
from paramserver.clocks import Clocks
from paramserver.server import LocalClock, LocalShard
from paramserver.shard import Shard
from stream import Partition, StreamConfig
from stream.internal_topics import BatchHeader, encode_examples, examples_schema, row_hash_sum
from stream.log import MemoryLog
from stream.monitoring import TimeLimit

STREAM = StreamConfig(partitions=2)
MODEL = make_model(ModelConfig(prior_rate=0.5))
FAST = LearnerConfig(retry_ms=5, wait_ms=1)


class Locked:
    """A port whose calls do not run beside each other."""

    def __init__(self, port: Any, lock: Any):
        self._port, self._lock = port, lock

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        def call(*arguments: Any) -> Any:
            with self._lock:
                return method(*arguments)

        return call


def rows(
    partition: int, start: int, count: int, version: str = "", seed: int = 0
) -> pa.RecordBatch:
    rng = np.random.default_rng(seed + start)
    users = rng.integers(0, 20, count)
    columns = {
        "position": np.arange(start, start + count),
        "ts_ms": np.arange(start, start + count) * 10 + 1,
        "arrival_ms": np.arange(start, start + count) * 10 + 1,
        "label": (users % 2).astype(np.int8),
        "click_delay_ms": np.where(users % 2, 5, -1),
        "weight": np.ones(count, np.float32),
        "source": [f"u{partition}-{u}" for u in users],
        "vendor": ["v"] * count,
        "item": [f"i{i}" for i in rng.integers(0, 10, count)],
        "shown_at": np.zeros(count, np.int32),
        "prediction": np.full(count, 0.25, np.float32),
        "model_version": [version] * count,
    }
    return pa.record_batch(columns, schema=examples_schema(()))


class Meeting:
    """A computation that goes on only once the next batch is being pulled, and a push that returns
    only once the next computation has begun: batches that do not overlap stand still."""

    WAIT_S = 15.0

    def __init__(self, batches: int):
        self.batches = batches
        self.pulled, self.computing = (
            [threading.Event() for _ in range(batches)] for _ in range(2)
        )
        self.pulls, self.computed = itertools.count(), itertools.count()

    def of(self, port: Any) -> Any:
        meeting = self

        class Port:
            def __getattr__(self, name: str) -> Any:
                return getattr(port, name)

            def pull(self, request: Any) -> Any:
                meeting.pulled[min(next(meeting.pulls), meeting.batches - 1)].set()
                return port.pull(request)

            def push(self, request: Any) -> Any:
                meeting.await_(meeting.computing, request.start // 10 + 1)
                return port.push(request)

        return Port()

    def watch(self, worker: Worker) -> None:
        result = worker._result

        def compute(it: Any) -> Any:
            number = next(self.computed)
            self.computing[number].set()
            self.await_(self.pulled, number + 1)
            return result(it)

        worker._result = compute  # type: ignore[method-assign]

    def await_(self, events: list[threading.Event], number: int) -> None:
        assert number >= self.batches or events[number].wait(self.WAIT_S), (
            f"batch {number} waits for the one before"
        )


class System:
    """Two shards, clocks, a log with `examples`; learners as threads."""

    def __init__(self, lease_ms: int = 2_000) -> None:
        self.log = MemoryLog(lambda: time.time_ns() // 1_000_000)
        for topic, count in (
            (STREAM.examples, 2),
            (STREAM.evaluations, 2),
            (STREAM.checkpoints, 1),
        ):
            self.log.create(topic, count)
        self.lock = threading.RLock()
        self.shards = [Shard(i, 1, SlotMap.even(2)) for i in range(2)]
        self.ports = {i: LocalShard(shard) for i, shard in enumerate(self.shards)}
        self.clock = LocalClock(
            Clocks(1, 2, staleness=1, lease_ms=lease_ms), lambda: time.monotonic_ns() // 1_000_000
        )
        for port in self.ports.values():
            port.begin(MODEL.spec, {"label/0": 0, "label/1": 0}, dict(MODEL.initial_dense()))
        self.all: dict[int, list[pa.RecordBatch]] = {0: [], 1: []}
        self.stops: list[threading.Event] = []
        self.threads: list[threading.Thread] = []
        self.failures: list[BaseException] = []
        self.over = threading.Event()
        self.beat = threading.Thread(target=self._beat)
        self.beat.start()

    def _beat(self) -> None:
        while not self.over.wait(0.005):
            with self.lock:
                self.clock.tell(self.ports)

    def append(
        self, partition: int, batch: pa.RecordBatch | None, start: int, end: int, **header: int
    ) -> None:
        value = None if batch is None else encode_examples(batch)
        count = 0 if batch is None else batch.num_rows
        if batch is not None:
            self.all[partition].append(batch)
        said = BatchHeader(f"label/{partition}", start, end, "s", "c", labelled=count, **header)
        self.log.append(Partition(STREAM.examples, partition), value, headers=said.to_headers())

    def learner(self, index: int = 0, meeting: "Meeting | None" = None) -> Worker:
        shards: Any = {i: Locked(port, self.lock) for i, port in self.ports.items()}
        if meeting is not None:
            shards[0] = meeting.of(shards[0])
        clock: Any = Locked(self.clock, self.lock)
        log = self.log
        worker = Worker(
            STREAM, MODEL, FAST, shards, clock, log, LearnerMetrics(), f"learner-{index}"
        )
        if meeting is not None:
            meeting.watch(worker)
        stop = threading.Event()

        def body() -> None:
            try:
                worker.run(stop)
            except BaseException as error:
                self.failures.append(error)

        thread = threading.Thread(target=body)
        self.stops.append(stop)
        self.threads.append(thread)
        thread.start()
        return worker

    def until(self, ends: dict[str, int]) -> None:
        limit = TimeLimit(20)
        while any(
            shard.progress("clicks").progress.chains[c].end < e
            for shard in self.shards
            for c, e in ends.items()
        ):
            assert not self.failures, self.failures
            assert not limit.over, [s.progress("clicks") for s in self.shards]
            time.sleep(0.005)

    def evaluations(self) -> list[dict[str, Any]]:
        found = [
            json.loads(r.value)
            for p in range(2)
            for r in self.log.records(Partition(STREAM.evaluations, p))
        ]
        return sorted(found, key=lambda e: (e["chain"], e["start"]))

    def close(self) -> None:
        for stop in self.stops:
            stop.set()
        for thread in self.threads:
            thread.join(20)
        self.over.set()
        self.beat.join()


@pytest.fixture
def system() -> Iterator[System]:
    one = System()
    yield one
    one.close()


def test_two_learners_learn_every_row_once_and_score_it_before(system: System) -> None:
    for p in (0, 1):
        for k in range(30):
            system.append(p, rows(p, 100 * k, 64), 100 * k, 100 * k + 100)
    system.learner(0)
    system.learner(1)
    system.until({"label/0": 3000, "label/1": 3000})
    for shard in system.shards:
        progress = shard.progress("clicks").progress
        assert progress is not None
        for p in (0, 1):
            chain = progress.chains[f"label/{p}"]
            assert chain.rows == 30 * 64
            assert chain.row_hash == sum(row_hash_sum(b) for b in system.all[p]) % (1 << 128)  # S7
        assert progress.next_record == {0: 30, 1: 30}
    system.close()
    assert not system.failures
    found = system.evaluations()
    assert len({(e["chain"], e["start"]) for e in found}) == 60
    first, last = found[0], found[-1]
    assert first["log_loss_sum"] / first["rows"] == pytest.approx(np.log(2), abs=1e-6), (
        "untrained: the prior rate"
    )
    assert last["log_loss_sum"] / last["rows"] < 0.4
    assert last["served_rows"] == 0, "no version was announced"


@pytest.fixture
def steady() -> Iterator[System]:
    """A machine that stands still for seconds fences nobody: batches that are counted would be
    taken for others."""
    one = System(lease_ms=20_000)
    yield one
    one.close()


def test_the_next_pull_and_the_last_push_run_beside_a_computation(steady: System) -> None:
    """s = 1: each batch meets the one before and the one after."""
    system, meeting = steady, Meeting(8)
    for n in range(8):
        system.append(0, rows(0, 10 * n, 10), 10 * n, 10 * n + 10)
    worker = system.learner(meeting=meeting)
    system.until({"label/0": 80})
    assert min(worker._overlap.seconds.values()) > 0


def test_without_staleness_nothing_runs_beside_a_computation(system: System) -> None:
    system.clock.set_staleness(MODEL.name, 0)
    for n in range(8):
        system.append(0, rows(0, 10 * n, 10), 10 * n, 10 * n + 10)
    worker = system.learner()
    system.until({"label/0": 80})
    assert worker._overlap.seconds == {"pull": 0.0, "push": 0.0}


def test_served_predictions_count_once_their_version_was_announced(system: System) -> None:
    said = {
        "kind": "published",
        "model": "clicks",
        "name": "v1",
        "created_ms": 0,
        "event_time_max_ms": 0,
    }
    system.log.append(Partition(STREAM.checkpoints, 0), json.dumps(said).encode())
    system.append(0, rows(0, 0, 10, "v1"), 0, 10)
    system.append(0, rows(0, 10, 10, "v2"), 10, 20)
    system.learner()
    system.until({"label/0": 20})
    system.close()
    assert [e["served_rows"] for e in system.evaluations()] == [10, 0]


def test_a_batch_that_cannot_be_read_or_is_not_finite_is_pushed_empty(system: System) -> None:
    bad = rows(0, 10, 5).set_column(5, "weight", pa.array(np.full(5, np.nan, np.float32)))
    system.append(0, rows(0, 0, 10), 0, 10)
    system.append(0, bad, 10, 20)
    header = BatchHeader("label/0", 20, 30, "s", "c", labelled=3)
    system.log.append(Partition(STREAM.examples, 0), b"not arrow", headers=header.to_headers())
    system.append(0, None, 30, 30, barrier=1)
    system.append(0, rows(0, 30, 10), 30, 40)
    worker = system.learner()
    system.until({"label/0": 40})
    system.close()
    assert not system.failures
    assert worker._metrics.unusable.labels("not_finite")._value.get() == 1
    assert worker._metrics.unusable.labels("unreadable")._value.get() == 1
    assert worker._metrics.unusable_rows.labels("not_finite")._value.get() == 5
    assert worker._metrics.unusable_rows.labels("unreadable")._value.get() == 3
    for shard in system.shards:
        progress = shard.progress("clicks").progress
        assert progress is not None
        assert progress.chains["label/0"].barrier == 1
        assert progress.chains["label/0"].rows == 25
    assert [e["start"] for e in system.evaluations()] == [0, 30]


class Gate:
    """The system's log, whose writers wait before they append evaluations."""

    def __init__(self, log: MemoryLog):
        self._log, self.open = log, threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def writer(self) -> Any:
        writer = self._log.writer()
        append = writer.append

        def wait(*arguments: Any, **named: Any) -> Any:
            assert self.open.wait(60)
            return append(*arguments, **named)

        writer.append = wait  # type: ignore[method-assign]
        return writer


def test_a_log_that_takes_no_evaluations_holds_up_no_training(system: System) -> None:
    """As Kafka's client waits where the topic was deleted."""
    gate: Any = Gate(system.log)
    system.log = gate
    for k in range(5):
        system.append(0, rows(0, 10 * k, 10), 10 * k, 10 * k + 10)
    system.learner()
    try:
        system.until({"label/0": 50})
    finally:
        gate.open.set()
    system.close()
    assert not system.failures
    assert [e["start"] for e in system.evaluations()] == [0, 10, 20, 30, 40]


def test_a_rewind_below_what_is_retained_ends_the_learner(system: System) -> None:
    system.append(0, rows(0, 0, 10), 0, 10)
    system.append(0, rows(0, 10, 10), 10, 20)
    system.log.delete_below(Partition(STREAM.examples, 0), 1)
    system.learner()
    system.threads[0].join(10)
    (failure,) = system.failures
    assert isinstance(failure, Stopped)
    assert "restore checkpoint X or replay from the archive" in str(failure)
