"""A shard's process reads ahead of a move, and goes over to a map (S6)."""

import time
from dataclasses import replace

import numpy as np
import pytest

from paramserver.config import ParamServerConfig
from paramserver.messages import DenseSpec, Epoch, ModelSpec, PushRequest, TableSpec
from paramserver.parts import CutParts, HeadCut
from paramserver.ports import AllowRequest, RemapRequest
from paramserver.process.slot_map_thread import SlotMapThread
from paramserver.server import Metrics, ShardService
from paramserver.shard import Shard, SlotMapUpdater, Standby, StandbyReader
from paramserver.slots import SlotMap
from stream.monitoring import TimeLimit

SPEC = ModelSpec("m", "1", (TableSpec("t", 1, "sgd", {"rate": 1.0}),), DenseSpec({}))
OLD, EPOCH = SlotMap.even(1), Epoch(1, 1)
NEW = OLD.resized(2)


class System:
    """One shard that learns and is cut; another that stands by and is to have half of it. `read`
    counts parts."""

    def __init__(self, kept_ms=60_000):
        self.learning = Shard(0, 1, OLD)
        self.learning.allow(AllowRequest(1, 1, (EPOCH,)))
        self.learning.begin(SPEC, {"c": 0}, {})
        self.end, self.cuts, self.read, self.broken = 0, [], [], False
        self.head_map = OLD
        self.incarnations, self.index = 1, 1
        self.remapped = []
        self.service = ShardService(Shard(1, 1, OLD), ParamServerConfig(), Metrics())
        self.standby_reader = StandbyReader(self.succeed)
        self.updater = SlotMapUpdater(OLD, self.standby_reader, kept_ms, again_ms=10)
        self.map_thread = SlotMapThread(
            self.service, self.find_head, self.updater, self.remapped.append, kept_ms
        )
        self.map_thread.start()

    def succeed(self, slot_map):
        self.incarnations += 1
        number = self.incarnations
        return Standby(slot_map, lambda own: Shard(self.index, number, own))

    def cut(self, keys):
        keys = np.array(sorted(keys), np.uint64)
        push = PushRequest(
            "m", EPOCH, 1, 1, "c", self.end, self.end + 1, 0, 1, 0, 0, 1,
            keys={"t": keys}, gradients={"t": np.full((len(keys), 1), -1, np.float32)},
        )  # fmt: skip
        self.learning.push(push)
        self.end += 1
        name, upon = f"cut-{self.end}", f"cut-{self.end - 1}" if self.cuts else None
        assert self.learning.mark("m", name, {"c": self.end}).marked
        self.cuts.append((name, upon is None, self.learning.marked("m", name, upon)))
        self.learning.settle("m", name, name)
        return name

    def find_head(self):
        def read(name, part):
            if self.broken:
                raise OSError("the store is gone")
            self.read.append(name)
            yield part

        def chain(held):
            first = next((n for n, cut in enumerate(self.cuts) if cut[0] == held), -1) + 1
            return [
                CutParts(n, full, lambda n=n, p=p: read(n, p)) for n, full, p in self.cuts[first:]
            ]

        return HeadCut(self.head_map, self.cuts[-1][0], chain)

    def until(self, done):
        limit = TimeLimit(10)
        while not done():
            assert not limit.over
            time.sleep(0.002)

    def prepared(self, slot_map=NEW):
        self.until(lambda: self.map_thread.prepare(slot_map, self.cuts[-1][0]) == "")

    def rows(self):
        table = self.service.shard.snapshot("m").tables["t"]
        return dict(zip(table.keys.tolist(), table.rows[:, 0].tolist(), strict=True))

    def expected(self, slot_map=NEW):
        table = self.learning.snapshot("m").tables["t"].take
        whole = self.learning.snapshot("m").tables["t"]
        mine = table(slot_map.split(whole.keys)[1])
        return dict(zip(mine.keys.tolist(), mine.rows[:, 0].tolist(), strict=True))


@pytest.fixture
def system():
    system = System()
    yield system
    system.map_thread.stop()
    system.service.close()


def test_a_move_reads_what_changed_since_it_was_read_ahead(system):
    system.cut(range(100))
    system.prepared()
    assert system.service.shard.stands_by, "what was read ahead has no effect"
    system.cut(range(50, 120))
    system.prepared()
    system.cut([7])
    system.head_map = NEW
    system.map_thread.on_epoch(2)
    system.until(lambda: not system.service.shard.stands_by)
    assert system.read == ["cut-1", "cut-2", "cut-3"], "each once"
    assert system.rows() == system.expected()
    assert (system.service.shard.incarnation, system.service.shard.slot_map) == (2, NEW)
    assert system.remapped == [NEW]
    system.service.shard.validate()


def test_a_shard_that_began_before_the_first_cut_takes_it_up_when_told(system):
    system.index = 0
    system.service.shard = Shard(0, 1, OLD)  # as one that was started again meanwhile
    system.cut(range(100))
    assert system.service.perform(RemapRequest(OLD.epoch)) == OLD.epoch
    system.until(lambda: system.service.shard.models)
    assert system.service.shard.incarnation == 2
    assert len(system.rows()) == 100
    assert system.service.perform(RemapRequest(OLD.epoch)) == OLD.epoch
    assert system.service.shard.incarnation == 2, "it holds the model: nothing is taken up"


def test_what_was_read_for_another_map_is_read_again(system):
    """An operator changes his mind: the next map has the epoch of the one that was to come."""
    system.cut(range(100))
    system.prepared(OLD.resized(3))
    system.head_map = NEW
    system.map_thread.on_epoch(2)
    system.until(lambda: not system.service.shard.stands_by)
    assert system.read == ["cut-1", "cut-1"]
    assert system.rows() == system.expected()
    assert system.service.shard.incarnation == 3


def test_a_head_that_does_not_build_on_what_was_read_is_read_from_its_base(system):
    """Training was rolled back meanwhile (X4)."""
    system.cut(range(100))
    system.prepared()
    system.cut(range(50))
    system.prepared()
    first, gone = system.cuts
    system.cuts = [
        ("other-0", True, first[2]),
        ("other-1", False, replace(gone[2], parent="other-0")),
    ]
    system.prepared()
    assert system.read == ["cut-1", "cut-2", "other-0", "other-1"]
    system.head_map = NEW
    system.map_thread.on_epoch(2)
    system.until(lambda: not system.service.shard.stands_by)
    assert system.rows() == system.expected()


def test_what_cannot_be_read_is_said_and_tried_again(system):
    system.cut(range(10))
    system.broken = True
    system.until(lambda: "OSError: the store is gone" in system.map_thread.prepare(NEW, "cut-1"))
    assert system.service.metrics.maps_failed._value.get() >= 1
    system.broken = False
    system.prepared()


def test_the_thread_lets_go_of_what_nobody_asks_for_any_more():
    system = System(kept_ms=30)
    system.cut(range(10))
    system.until(lambda: system.map_thread.prepare(NEW, "cut-1") == "" or not system.read)
    system.until(lambda: system.standby_reader._standby is None)
    assert system.service.shard.stands_by
    system.map_thread.stop()
    system.service.close()
