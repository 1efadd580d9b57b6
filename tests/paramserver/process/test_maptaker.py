"""A shard's process reads ahead of a move, and goes over to a map (S6)."""

import time
from dataclasses import replace

import numpy as np
import pytest

from paramserver.config import ParamServerConfig
from paramserver.messages import DenseSpec, Epoch, ModelSpec, PushRequest, TableSpec
from paramserver.parts.head_cut import CutParts, HeadCut
from paramserver.ports import AllowRequest
from paramserver.process.map_taker import MapTaker
from paramserver.server.metrics import Metrics
from paramserver.server.server import ShardService
from paramserver.shard.shard import Shard
from paramserver.shard.slot_map_updater import SlotMapUpdater
from paramserver.shard.successor import Succession, Successor
from paramserver.slots import SlotMap

SPEC = ModelSpec("m", "1", (TableSpec("t", 1, "sgd", {"rate": 1.0}),), DenseSpec({}))
OLD, EPOCH = SlotMap.even(1), Epoch(1, 1)
NEW = OLD.resized(2)


class House:
    """One shard that learns and is cut; another that stands by and is to have half of it. `read`
    counts parts."""

    def __init__(self, kept_ms=60_000):
        self.learning = Shard(0, 1, OLD)
        self.learning.allow(AllowRequest(1, 1, (EPOCH,)))
        self.learning.begin(SPEC, {"c": 0}, {})
        self.end, self.cuts, self.read, self.broken = 0, [], [], False
        self.head_map = OLD
        self.incarnations = 1
        self.remapped = []
        self.service = ShardService(Shard(1, 1, OLD), ParamServerConfig(), Metrics())
        self.succession = Succession(self.succeed)
        self.updater = SlotMapUpdater(OLD, self.succession, kept_ms, again_ms=10)
        self.taker = MapTaker(
            self.service, self.find_head, self.updater, self.remapped.append, kept_ms
        )
        self.taker.start()

    def succeed(self, slot_map):
        self.incarnations += 1
        number = self.incarnations
        return Successor(slot_map, lambda own: Shard(1, number, own))

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
        until = time.monotonic() + 10
        while not done():
            assert time.monotonic() < until
            time.sleep(0.002)

    def prepared(self, slot_map=NEW):
        self.until(lambda: self.taker.prepare(slot_map, self.cuts[-1][0]) == "")

    def rows(self):
        table = self.service.shard.snapshot("m").tables["t"]
        return dict(zip(table.keys.tolist(), table.rows[:, 0].tolist(), strict=True))

    def expected(self, slot_map=NEW):
        table = self.learning.snapshot("m").tables["t"].take
        whole = self.learning.snapshot("m").tables["t"]
        mine = table(slot_map.split(whole.keys)[1])
        return dict(zip(mine.keys.tolist(), mine.rows[:, 0].tolist(), strict=True))


@pytest.fixture
def house():
    house = House()
    yield house
    house.taker.stop()
    house.service.close()


def test_a_move_reads_what_changed_since_it_was_read_ahead(house):
    house.cut(range(100))
    house.prepared()
    assert house.service.shard.stands_by, "what was read ahead has no effect"
    house.cut(range(50, 120))
    house.prepared()
    house.cut([7])
    house.head_map = NEW
    house.taker.hear(2)
    house.until(lambda: not house.service.shard.stands_by)
    assert house.read == ["cut-1", "cut-2", "cut-3"], "each once"
    assert house.rows() == house.expected()
    assert (house.service.shard.incarnation, house.service.shard.slot_map) == (2, NEW)
    assert house.remapped == [NEW]
    house.service.shard.validate()


def test_what_was_read_for_another_map_is_read_again(house):
    """An operator changes his mind: the next map has the epoch of the one that was to come."""
    house.cut(range(100))
    house.prepared(OLD.resized(3))
    house.head_map = NEW
    house.taker.hear(2)
    house.until(lambda: not house.service.shard.stands_by)
    assert house.read == ["cut-1", "cut-1"]
    assert house.rows() == house.expected()
    assert house.service.shard.incarnation == 3


def test_a_head_that_does_not_build_on_what_was_read_is_read_from_its_base(house):
    """Training was rolled back meanwhile (X4)."""
    house.cut(range(100))
    house.prepared()
    house.cut(range(50))
    house.prepared()
    first, gone = house.cuts
    house.cuts = [
        ("other-0", True, first[2]),
        ("other-1", False, replace(gone[2], parent="other-0")),
    ]
    house.prepared()
    assert house.read == ["cut-1", "cut-2", "other-0", "other-1"]
    house.head_map = NEW
    house.taker.hear(2)
    house.until(lambda: not house.service.shard.stands_by)
    assert house.rows() == house.expected()


def test_what_cannot_be_read_is_said_and_tried_again(house):
    house.cut(range(10))
    house.broken = True
    house.until(lambda: "OSError: the store is gone" in house.taker.prepare(NEW, "cut-1"))
    assert house.service.metrics.maps_failed._value.get() >= 1
    house.broken = False
    house.prepared()


def test_the_thread_lets_go_of_what_nobody_asks_for_any_more():
    house = House(kept_ms=30)
    house.cut(range(10))
    house.until(lambda: house.taker.prepare(NEW, "cut-1") == "" or not house.read)
    house.until(lambda: house.succession._successor is None)
    assert house.service.shard.stands_by
    house.taker.stop()
    house.service.close()
