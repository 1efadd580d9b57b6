"""The checkpointer process whole: local shards, a log in memory, a directory, a clean process, a
replica beside it."""

import json
import threading
from collections.abc import MutableMapping
from pathlib import Path

import numpy as np
import pytest

from checkpointer.config import CheckpointerConfig, ServingConfig
from checkpointer.process.process import CheckpointedSystem, run
from checkpointer.serving import Replica, of_rows
from checkpointer.store import Catalogue, Directory, decode
from learners.models import make_model
from paramserver import Outcome, PortRefused, PushRequest, SlotMap
from paramserver.clocks import Clocks
from paramserver.server import LocalClock, LocalShard
from paramserver.shard import Shard
from stream import Partition, StreamConfig, position
from stream.internal_topics import BatchHeader
from stream.log import MemoryLog

pytestmark = pytest.mark.processes
ROWS = [{"source": "u1", "item": "i1"}]


class Disk(MutableMapping):
    """Where local shards write: a path is its own key."""

    def __setitem__(self, path, data):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)

    def __getitem__(self, path):
        return Path(path).read_bytes()

    __delitem__ = __iter__ = __len__ = None


class Serial:
    """One call at a time to everything of the parameter server: `local` is for one thread."""

    lock = threading.RLock()

    def __init__(self, port):
        self.port = port

    def __getattr__(self, name):
        method = getattr(self.port, name)

        def call(*arguments, **named):
            with self.lock:
                return method(*arguments, **named)

        return call


class System:
    def __init__(self, tmp_path, config_of):
        self.root = str(tmp_path / "checkpoints")
        self.run_dir = str(tmp_path / "run")
        self.model = make_model(config_of())
        self.stream = StreamConfig(partitions=1)
        self.log = MemoryLog(lambda: 0)
        for topic in ("impressions", "verdicts", "evaluations", "checkpoints"):
            self.log.create(topic, 1)
        writer = self.log.writer()
        for _ in range(3):
            writer.append(Partition("impressions", 0), b"{}", timestamp_ms=0)
        self.log.delete_below(
            Partition("impressions", 0), 2
        )  # retention: the beginning is offset 2
        slot_map = SlotMap.even(2)
        self.locals = {i: LocalShard(Shard(i, 1, slot_map), Disk()) for i in range(2)}
        clock = LocalClock(Clocks(1, 2, 0), lambda: 0)
        self.epoch = clock.join("clicks", "l").epoch
        clock.tell(self.locals)
        self.slot_map = slot_map
        self.ports = {i: Serial(shard) for i, shard in self.locals.items()}
        self.clock = Serial(clock)
        self.catalogue = Catalogue(Directory(self.root), "clicks")

    def start(self):
        self.stop = threading.Event()
        config = CheckpointerConfig(
            root=self.root, interval_ms=10, poll_ms=1, evaluation_wait_ms=20
        )
        self.failure = []

        def process():
            try:
                run(
                    config,
                    self.model,
                    self.stream,
                    CheckpointedSystem(self.ports, self.clock, self.log),
                    self.stop,
                    run_dir=self.run_dir,
                )
            except Exception as error:
                self.failure.append(error)

        self.thread = threading.Thread(target=process)
        self.thread.start()

    def end(self):
        self.stop.set()
        self.thread.join(timeout=60)
        assert not self.failure

    def push(self, start, end, barrier=0):
        request = of_rows(ROWS, self.model.encoder.features)
        (keys,) = self.model.kind.keys(self.model.encoder.encode(request.columns, True)).values()
        keys = np.unique(keys)
        for i, port in self.ports.items():
            mine = keys[self.slot_map.split(keys)[i]] if start < end else keys[:0]
            assert (
                port.push(
                    PushRequest(
                        "clicks",
                        self.epoch,
                        self.slot_map.epoch,
                        1,
                        "label/0",
                        start,
                        end,
                        0,
                        1,
                        0,
                        end,
                        int(start < end),
                        event_time_max_ms=end,
                        barrier=barrier,
                        keys={"weights": mine} if len(mine) else {},
                        gradients={"weights": np.full((len(mine), 1), -0.5, np.float32)}
                        if len(mine)
                        else {},
                    )
                ).outcome
                is Outcome.APPLIED
            )

    def announced(self):
        return [decode(record.value) for record in self.log.records(Partition("checkpoints", 0))]

    def wait(self, reached):
        for _ in range(6_000):
            if reached():
                return
            assert not self.failure, self.failure
            threading.Event().wait(0.01)
        raise AssertionError("never")


def test_from_a_new_model_to_a_served_prediction_and_on_after_a_restart(tmp_path, config_of):
    system = System(tmp_path, config_of)
    system.start()
    system.wait(lambda: len(system.announced()) == 1)
    zero = system.announced()[0]
    assert (zero.kind, zero.number, zero.vector) == (
        "published",
        0,
        {"label/0": position(2), "late/0": position(2), "retract/0": 0},
    )
    with Replica(system.root, "clicks", ServingConfig(poll_ms=5), log=system.log) as replica:
        assert replica.predict_rows(ROWS)["probabilities"] == pytest.approx([0.25])
        start = position(2)
        evaluation = {
            "model": "clicks",
            "chain": "label/0",
            "start": start,
            "end": start + 1,
            "rows": 1,
            "prediction_sum": 0.25,
            "log_loss_sum": 0.3,
            "base_log_loss_sum": 0.4,
        }
        system.log.writer().append(
            Partition("evaluations", 0), json.dumps(evaluation).encode(), timestamp_ms=0
        )
        system.log.writer().append(Partition("evaluations", 0), b"?", timestamp_ms=0)
        system.push(start, start + 1)
        system.wait(lambda: replica.served.manifest.number == 1)
        assert replica.predict_rows(ROWS)["probabilities"] == pytest.approx([0.4753], abs=1e-3)
        assert replica.served.manifest.evaluation.rows == 1
        system.end()
        system.push(start + 1, start + 1, barrier=1)
        system.start()
        system.wait(lambda: replica.served.manifest.barrier == 1)
        system.end()
    manifests = [entry.manifest for entry in system.catalogue.entries()]
    assert [m.number for m in manifests] == [0, 1, 2]
    assert [m.parent for m in manifests[1:]] == [m.sha256 for m in manifests[:-1]]
    said = system.announced()
    assert [a.number for a in said] == [0, 1, 1, 2]  # the head is said again after the restart
    assert said[-1].barrier == 1
    role = json.loads((tmp_path / "run" / "roles" / "checkpointer-0.json").read_text())
    assert role["metrics_port"] > 0


def test_a_beginning_at_a_time_that_is_gone_is_refused_in_one_line(tmp_path, config_of):
    system = System(tmp_path, config_of)
    system.log.create("examples", 1)
    header = BatchHeader("label/0", 0, 5, "s", "c", arrival_max_ms=1_700_000_000_000)
    for _ in range(3):
        system.log.append(Partition("examples", 0), None, None, header.to_headers(), 0)
    system.log.delete_below(Partition("examples", 0), 3)
    config = CheckpointerConfig(root=system.root, begin="2020-01-01")
    with pytest.raises(PortRefused) as refused:
        run(
            config,
            system.model,
            system.stream,
            CheckpointedSystem(system.ports, system.clock, system.log),
            threading.Event(),
        )
    said = str(refused.value)
    assert "checkpointer.begin = '2020-01-01'" in said
    assert "examples[0]: records 0 to 2, from 2020-01-01T00:00:00" in said
    assert "\n" not in said
    assert system.catalogue.begun() is None
