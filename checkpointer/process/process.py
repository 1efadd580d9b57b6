"""The checkpointer process: the driver over the log, the shards' ports, a store and a clean
process (shell)."""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple, TypeVar

from checkpointer.config import CheckpointerConfig
from checkpointer.cuts import CutStep, Driver, find_spans, vector_at
from checkpointer.gates import CleanProcess, Evaluations, Findings
from checkpointer.metrics import CheckpointerMetrics
from checkpointer.process.counts_writer import CountsWriter
from checkpointer.process.served_watch import ServedWatch
from checkpointer.store import (
    Announcement,
    Catalogue,
    Damaged,
    Definition,
    Ref,
    RememberedStore,
    StoreTimeouts,
    open_store,
)
from learners.models import Model, stated_correction
from paramserver import ClockPort, PortRefused, ShardPort
from stream import (
    LABEL,
    Backoff,
    IdleWait,
    Partition,
    Record,
    StreamConfig,
    begin_vector,
    parse_ms,
    position,
    start_metrics,
)
from stream.internal_topics import MalformedRecord, PassedOver, WholeTopic, json_object
from stream.log import Log, LogError, Writer, wall_clock_ms
from stream.monitoring import bounded_wait, got_on

T = TypeVar("T")
R = TypeVar("R")
_log = logging.getLogger(__name__)

#: Announcements that may wait for the log, one a checkpoint. Beyond it the oldest go: the pointer
#: files say the same.
UNSENT_MAX = 1_000
_EVALUATIONS_MAX = 5_000
#: Between two looks for evaluations that cannot be read, the first and the longest, ms.
_RETRY_MS = (100, 5_000)
#: A fault of the store that lasts is said again this often.
SAID_EVERY_S = 60.0
#: Pause after a topic that failed, doubled up to the second: where one was deleted, each attempt
#: waits for it.
_TOPIC_RETRY_MS, _TOPIC_RETRY_MAX_MS = 500, 60_000
#: Pause before a shard that does not answer, or has not restored, is looked at again.
_PATIENCE_MS = 100
#: Longest pause between two looks at shards where nothing is due.
_IDLE_MAX_MS = 200


class Stopping(Exception):
    """The process was told to stop. A hold runs out by itself, a mark is replaced by the next
    one (X1)."""


@dataclass
class RetriedTopic:
    """When a topic that failed is tried again."""

    backoff: Backoff = field(default_factory=lambda: Backoff(_TOPIC_RETRY_MS, _TOPIC_RETRY_MAX_MS))
    again_s: float = 0.0

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self.again_s

    def failed(self) -> None:
        self.again_s = time.monotonic() + self.backoff.failed(random.random()) / 1_000


class ProcessShell:
    """`driver.Outside` and `driver.Time` over real things. Belongs to one thread."""

    def __init__(
        self,
        stream: StreamConfig,
        config: CheckpointerConfig,
        log: Log,
        clean: CleanProcess,
        metrics: CheckpointerMetrics,
        stop: threading.Event,
    ) -> None:
        self.stream, self.config, self.log, self.clean, self.metrics, self.stop = (
            stream,
            config,
            log,
            clean,
            metrics,
            stop,
        )
        self.unsent: deque[Announcement] = deque()
        self.watch: ServedWatch | None = None  # told what is published
        self.told_published = False  # whether metrics say what was published before
        self.waits = ""  # for shards that are wanted, as last said
        self.idle = IdleWait(config.poll_ms, max(config.poll_ms, _IDLE_MAX_MS))
        self.health = StoreHealth(Backoff(max(1, config.retry_ms), config.retry_max_ms))
        metrics.store_failing_s.set_function(lambda: self.health.failing_s(time.monotonic()))
        self._writer: Writer | None = None
        self._evaluations = WholeTopic(log, stream.evaluations)
        self._evaluated = RetriedTopic(Backoff(*_RETRY_MS))
        self._announced = RetriedTopic()
        self._passed_over = PassedOver(_log, metrics.on_malformed)
        self._bad_evaluations = 0  # of those whose fields say nothing, as last looked at
        self._forgotten_evaluations = 0
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix="shards")

    def now_ms(self) -> int:
        return wall_clock_ms()

    def steady_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def sleep_ms(self, ms: int) -> None:
        got_on()
        if self.stop.wait(ms / 1_000):
            raise Stopping

    def idle_ms(self, left_ms: int) -> int:
        """Between two looks at shards: the longer, the longer nothing was due. A replay waits at
        its barriers. `left_ms`: until something is due by time, 0 = it may be now."""
        pause_ms = self.config.poll_ms if self.stream.replayed else self.idle.wait_ms
        return min(pause_ms, max(left_ms, self.config.poll_ms)) if left_ms else pause_ms

    def each(self, call: Callable[[T], R], items: list[T]) -> list[R]:
        with bounded_wait():  # a call to a shard has a deadline
            if len(items) == 1:
                return [call(items[0])]
            futures = [self._pool.submit(call, item) for item in items]
            for future in futures:
                # let all end: a part half written must not outlive its cut's verdict
                future.exception()
            return [future.result() for future in futures]

    def check(self, ref: Ref) -> Findings:
        with bounded_wait():
            return self.clean.check(ref)

    def first_vector(self) -> dict[str, int]:
        """Every chain's first (or next) position in the log that it runs over. Raises Unavailable,
        and Refused where records of the time to begin with are gone: a model must not begin later
        than it was told without a word."""
        topic = self.stream.impressions
        partitions = [Partition(topic, p) for p in range(self.stream.partitions)]
        verdicts = Partition(self.stream.verdicts, 0)
        reader = self.log.reader()
        try:
            ask = reader.end_offsets if self.config.begin == "end" else reader.beginning_offsets
            offsets = ask([*partitions, verdicts])
            first = {p.partition: position(offsets[p]) for p in partitions}
            if self.config.begin in ("beginning", "end"):
                return begin_vector(first, position(offsets[verdicts]))
            spans = find_spans(
                reader, self.stream, parse_ms(self.config.begin), lambda: self.sleep_ms(0)
            )
            if lacks := [
                f"{self.stream.examples}[{s.partition}]: {s.lacks}" for s in spans if s.lacks
            ]:
                raise PortRefused(
                    f"checkpointer.begin = {self.config.begin!r}: gone by retention: "
                    f"{'; '.join(lacks)}; give a later "
                    "time, or 'beginning' for all that is left, or set archive.read = true where "
                    "an archive holds them"
                )
            return vector_at(spans, first)
        finally:
            reader.close()

    # --- checkpoints ---

    def announce(self, announcement: Announcement) -> None:
        self.unsent.append(announcement)
        if len(self.unsent) > UNSENT_MAX:
            _log.error(
                "%d announcements wait for the log %s",
                len(self.unsent),
                self.stream.bootstrap_servers,
            )
            self.unsent.popleft()
        self.send()

    def send(self) -> None:
        """Say what was not said yet, in order. After a failed send it is said again by a new
        writer: a repeat changes nothing."""
        while self.unsent and self._announced.is_due:
            said = self.unsent[0]
            headers = (("model", said.model.encode()), ("barrier", str(said.barrier).encode()))
            try:
                if self._writer is None:
                    self._writer = self.log.writer()
                partition = Partition(self.stream.checkpoints, 0)
                self._writer.append(
                    partition, said.encode(), said.model.encode(), headers, self.now_ms()
                )
                self._writer.flush(self.stream.request_timeout_ms)
            except LogError as error:
                _log.warning("checkpoints topic: %s; said again later", error)
                if self._writer is not None:
                    self._writer.close()
                self._writer = None
                self._announced.failed()
                break
            self._announced.backoff.worked()
            self.unsent.popleft()
        self.metrics.unsent.set(len(self.unsent))

    # --- evaluations ---

    def read_evaluations(self) -> Iterator[Mapping[str, Any]]:
        """New records; the first read begins at the beginning, since what a head has counted is
        told by its vector."""
        if not self._evaluated.is_due:
            return
        try:
            polled = self._evaluations.poll(_EVALUATIONS_MAX, 1)
        except LogError as error:
            if not self._evaluated.backoff.failures:
                _log.warning("evaluations topic, tried again: %s", error)
            self._evaluated.failed()
            return
        self._evaluated.backoff.worked()
        for at, records in polled.items():
            for record in records:
                yield from self._evaluation(at, record)

    def _evaluation(self, at: Partition, record: Record) -> Iterator[Mapping[str, Any]]:
        try:
            body = json_object("evaluations", record.value).body
        except MalformedRecord as error:
            self.metrics.evaluations.labels(outcome="unreadable").inc()
            self._passed_over.add(at, record, error)
            return
        self.metrics.evaluations.labels(outcome="read").inc()
        yield body

    def look_at(self, evaluations: Evaluations) -> None:
        """Say so where some of them said nothing."""
        if new := evaluations.records_bad - self._bad_evaluations:
            self._bad_evaluations = evaluations.records_bad
            self.metrics.malformed.labels(topic=self.stream.evaluations).inc(new)
            _log.error("%d evaluations count for nothing (%d so far), the last one: %s",
                       new, evaluations.records_bad, evaluations.last_bad)  # fmt: skip
        if new := evaluations.forgotten - self._forgotten_evaluations:
            self._forgotten_evaluations = evaluations.forgotten
            self.metrics.evaluations.labels(outcome="forgotten").inc(new)
            _log.warning("%d evaluations far from any cut are forgotten (%d so far)",
                         new, evaluations.forgotten)  # fmt: skip

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.clean.close()
        for end in (self._writer, self._evaluations):
            if end is not None:
                end.close()


@dataclass
class StoreHealth:
    """Since when the store has failed, and what is to be said of it: each new fault, and the same
    again each minute. A store that took no part of a checkpoint is well once it has taken a whole
    one, not once it could be read."""

    backoff: Backoff
    fault: str = ""
    since_s: float = 0.0
    said_s: float = 0.0
    unwritten: bool = False  # what failed was writing

    def told(
        self, fault: str, now_s: float, unwritten: bool = False, complete: bool = False
    ) -> str:
        """What became of the last step: "" = the store did all it was asked. `unwritten`: it was
        asked to take a checkpoint, and did not; `complete`: it has taken one. Returns what is to be
        logged, or ""."""
        if not fault and self.unwritten and not complete:
            return ""
        self.unwritten = bool(fault) and (self.unwritten or unwritten)
        if not fault:
            was, since_s = self.fault, self.since_s
            self.fault, self.since_s = "", 0.0
            self.backoff.worked()
            return f"going on, after {now_s - since_s:.0f} s" if was else ""
        if self.fault and now_s - self.said_s < SAID_EVERY_S:
            self.fault = fault
            return ""
        self.since_s, self.said_s, self.fault = self.since_s or now_s, now_s, fault
        return f"failing for {now_s - self.since_s:.0f} s, tried again: {fault}"

    def pause_s(self, chance: float) -> float:
        """Before the next attempt."""
        return self.backoff.failed(chance) / 1_000

    def failing_s(self, now_s: float) -> float:
        return now_s - self.since_s if self.fault else 0.0


def definition(
    model: Model,
    schema: str = "",
    barrier_kinds: tuple[str, ...] = (LABEL,),
    correction: dict[str, Any] | None = None,
) -> Definition:
    """What a manifest carries of a model. `correction`:
    `learners.models.model.stated_correction`."""
    config, dense = model.config.to_dict(), dict(model.initial_dense())
    return Definition(model.spec, config, dense, schema, barrier_kinds, correction or {})


class CheckpointedSystem(NamedTuple):
    """What a checkpointer asks and tells."""

    shards: Mapping[int, ShardPort]
    clock: ClockPort
    log: Log


def run(
    config: CheckpointerConfig,
    model: Model,
    stream: StreamConfig,
    system: CheckpointedSystem,
    stop: threading.Event,
    *,
    run_dir: str = "",
    index: int = 0,
) -> None:
    """Take checkpoints of one model until `stop` is set. Raises ValueError if those there are of
    another definition, Refused if records of the time that a new model is to begin with are gone.
    """
    metrics = CheckpointerMetrics()
    if run_dir:
        start_metrics(run_dir, "checkpointer", index, metrics)
    shards, clock, log = system
    what = definition(
        model, barrier_kinds=stream.barrier_kinds, correction=stated_correction(stream)
    )
    clean = CleanProcess(
        config.root, what, config.gate_timeout_ms, config.golden, config.latency_rows
    )
    clean.start()
    shell = ProcessShell(stream, config, log, clean, metrics, stop)
    limits = StoreTimeouts(config.store_timeout_ms, config.transfer_timeout_ms)
    catalogue = Catalogue(open_store(config.root, limits, metrics.store_called), model.name)
    driver = Driver(config, what, shards, clock, catalogue, shell, shell, code_version())
    if run_dir:
        driver.used = RememberedStore(run_dir, config.root, model.name)
    shell.watch = ServedWatch(model.name, shards, config.replicas, run_dir, metrics, stop)
    if stream.keeps:
        files = open_store(config.root, limits, metrics.store_called)
        counts = CountsWriter(stream, log, files, model.name, stop, metrics.on_malformed)
        counts.start(metrics.liveness.loop("counts"))
    loop = metrics.liveness.loop("cuts")
    try:
        _log.info("checkpoints of %s in %s", model.name, config.root)
        while not stop.is_set():
            loop.turn()
            _turn(driver, shell, metrics)
            if not stop.is_set() and not shell.watch.is_alive:
                raise RuntimeError("the thread that watches what is served has ended")
    except Stopping:
        _log.info("stopped within a cut: its hold runs out by itself")
    finally:
        loop.rest()
        shell.close()


def _turn(driver: Driver, shell: ProcessShell, metrics: CheckpointerMetrics) -> None:
    """One step, its metrics, and the pause after it."""
    try:
        step = driver.step()
    except LogError as error:
        step = CutStep("unreachable", str(error))
    if driver.resharding.waits != shell.waits:
        shell.waits = driver.resharding.waits
        _log.warning("other shards are wanted: %s", shell.waits or "all of them answer")
    shell.idle.turned(moved=step.outcome != "idle")
    shell.send()
    shell.look_at(driver.evaluations)
    if not shell.told_published and driver.recovered:
        shell.told_published = _tell_published(driver.catalogue, metrics)
    _record(step, metrics)
    if step.manifest is not None and step.gates is not None and step.gates.passed and shell.watch:
        shell.watch.published(step.manifest.number, step.manifest.vector)
    store_fault = step.detail if step.outcome == "store" or step.reason == "parts" else ""
    unwritten, complete = step.reason == "parts", step.manifest is not None
    if said := shell.health.told(store_fault, time.monotonic(), unwritten, complete):
        _log.warning("checkpoints in %s: %s", driver.config.root, said)
    if step.outcome == "store":
        shell.sleep_ms(shell.health.backoff.failed(random.random()))
    elif step.outcome == "idle":
        shell.sleep_ms(shell.idle_ms(driver.left_ms))
    elif step.outcome in ("unreachable", "not_restored", "preparing", "moving"):
        _log.log(logging.DEBUG, "%s: %s", step.outcome, step.detail)
        shell.sleep_ms(_PATIENCE_MS)
    elif step.outcome == "abandoned":
        _log.warning("cut abandoned (%s): %s", step.reason, step.detail)


def _tell_published(catalogue: Catalogue, metrics: CheckpointerMetrics) -> bool:
    """What was published before this process began, so that its age is known at once. False =
    ask again."""
    try:
        published = catalogue.published()
        if published is not None:
            manifest = catalogue.manifest(published.name, published.manifest_sha256)
            metrics.number.set(manifest.number)
            metrics.created_ms.set(manifest.created_ms)
            metrics.data_time_ms.set(manifest.event_time_max_ms)
    except (OSError, Damaged) as error:
        _log.warning("what is published is not known yet: %s", error)
        return False
    return True


def _record(step: CutStep, metrics: CheckpointerMetrics) -> None:
    metrics.waits_for(
        "idle" if step.outcome in ("idle", "begun", "published", "rejected") else "cut"
    )
    if step.due is not None:
        metrics.attempts.labels(reason=step.due.reason).inc()
        metrics.cut_hold_ms.observe(step.hold_ms)
        metrics.cut_seconds.observe(step.cut_ms / 1_000)
    if step.shards:
        for phase, ms in step.pause._asdict().items():
            metrics.move_pause_ms.labels(phase=phase).set(ms)
        metrics.moves.inc()
        _log.info(
            "%d shards: slots moved, starts stopped for %d ms: %s",
            step.shards,
            sum(step.pause),
            step.pause,
        )
    if step.outcome == "abandoned":
        metrics.abandoned.labels(reason=step.reason).inc()
    manifest, gates = step.manifest, step.gates
    if manifest is None or gates is None:
        return
    metrics.publish_seconds.observe(step.total_ms / 1_000)
    metrics.checkpoints.labels(outcome=gates.outcome).inc()
    for gate in gates.results:
        metrics.gates.labels(gate=gate.gate, passed=str(gate.passed).lower()).inc()
    metrics.swept.inc(len(step.swept))
    metrics.data_time_ms.set(manifest.event_time_max_ms)
    metrics.barrier.set(manifest.barrier)
    metrics.deltas.set(step.deltas)
    metrics.bytes.set(sum(part.bytes for part in manifest.parts))
    metrics.rows.set(sum(part.rows for part in manifest.parts))
    metrics.records_in.inc(step.rows_learned)
    if gates.passed:
        metrics.records_out.inc(step.rows_learned)
        metrics.number.set(manifest.number)
        metrics.created_ms.set(manifest.created_ms)
    _log.info(
        "checkpoint %s %s in %d ms (cut %d, held %d): %s",
        manifest.name,
        gates.outcome,
        step.total_ms,
        step.cut_ms,
        step.hold_ms,
        gates.reason or f"vector {manifest.vector}",
    )


def code_version() -> str:
    """What manifests say made them: the installed version, or `unknown`."""
    try:
        return version("everspun")
    except PackageNotFoundError:
        return "unknown"
