"""When a shard looks at the head cut, takes its map, reads ahead and lets go again (S6)."""

import pytest

from paramserver.parts import HeadCut
from paramserver.shard.shard import Shard
from paramserver.shard.slot_map_updater import SlotMapUpdater
from paramserver.shard.standby import Standby, StandbyReader
from paramserver.slots import SlotMap

OLD = SlotMap.even(1)
NEW = OLD.resized(2)
THREE = OLD.resized(3)


def head(slot_map: SlotMap | None = OLD, manifest: str = "m1") -> HeadCut:
    return HeadCut(slot_map, manifest, lambda held: ())


class Made:
    """An updater of a shard that stands by, and the successors that it makes: shard 5 has nothing
    in any of these maps, so nothing is read for it."""

    def __init__(self) -> None:
        self.maps: list[SlotMap] = []
        self.updater = SlotMapUpdater(OLD, StandbyReader(self.succeed), kept_ms=100, again_ms=10)

    def succeed(self, slot_map: SlotMap) -> Standby:
        self.maps.append(slot_map)
        incarnation = 1 + len(self.maps)
        return Standby(slot_map, lambda own: Shard(5, incarnation, own))


def test_a_shard_that_holds_nothing_takes_up_the_head_once():
    made = Made()
    made.updater.restore()
    assert made.updater.look(head(OLD, manifest=""), 1_000) == (None, False), "there is no cut yet"
    made.updater.restore()
    taken = made.updater.look(head(OLD), 1_001).taken
    assert taken is not None
    assert (taken.slot_map, taken.incarnation) == (OLD, 2)
    assert made.updater.look(head(OLD), 1_002) == (None, False)


def test_a_map_is_taken_only_once_the_head_names_it():
    made = Made()
    assert not made.updater.on_epoch(OLD.epoch)
    assert made.updater.on_epoch(NEW.epoch)
    assert made.updater.look(head(), 1_000) == (None, False)
    taken = made.updater.look(head(NEW), 1_001).taken
    assert taken is not None
    assert (taken.slot_map, taken.incarnation) == (NEW, 2)
    assert not made.updater.on_epoch(NEW.epoch)
    assert made.updater.look(head(NEW), 1_002) == (None, False)
    assert made.updater.look(head(None), 1_003) == (None, False)


def test_it_reads_ahead_once_a_head_and_says_what_it_holds():
    made = Made()
    waits, look = made.updater.prepare(NEW, "m1", 1_000)
    assert (waits != "", look) == (True, True)
    assert made.updater.look(head(), 1_001).ahead
    assert made.updater.prepare(NEW, "m1", 1_002) == ("", False)
    assert not made.updater.look(head(), 1_003).ahead, "it is held"
    assert made.updater.prepare(NEW, "m2", 1_004).look, "a later head"
    assert made.updater.look(head(manifest="m2"), 1_005).ahead
    assert made.updater.prepare(THREE, "m2", 1_006).look, "another map"
    assert made.updater.look(head(manifest="m2"), 1_007).ahead
    assert made.maps == [NEW, THREE], "one incarnation a map"
    taken = made.updater.look(head(THREE, "m3"), 1_008).taken
    assert taken is not None
    assert (taken.incarnation, made.maps) == (3, [NEW, THREE]), "what was read ahead serves"


def test_what_nobody_asked_for_in_a_while_is_let_go():
    made = Made()
    made.updater.prepare(NEW, "m1", 1_000)
    made.updater.look(head(), 1_000)
    assert made.updater.coming(1_099) == NEW
    assert made.updater.prepare(NEW, "m1", 1_099) == ("", False)
    assert made.updater.coming(1_198) == NEW, "asked again since"
    assert made.updater.coming(1_199) is None
    assert not made.updater.look(head(), 1_200).ahead
    assert made.updater.prepare(NEW, "m1", 1_201).waits != ""
    made.updater.look(head(), 1_202)
    assert made.maps == [NEW, NEW], "it was read anew"


def test_a_map_that_came_into_force_is_not_read_ahead_any_more():
    made = Made()
    made.updater.prepare(NEW, "m1", 1_000)
    made.updater.look(head(NEW), 1_001)
    assert made.updater.coming(1_002) is None
    assert not made.updater.look(head(NEW, "m2"), 1_003).ahead


def test_what_could_not_be_read_is_said_and_tried_again_after_a_pause():
    made = Made()
    made.updater.failed("OSError: the store is gone", 1_000)
    assert made.updater.prepare(NEW, "m1", 1_009) == ("OSError: the store is gone", False)
    assert made.updater.prepare(NEW, "m1", 1_010) == ("OSError: the store is gone", True)
    made.updater.look(head(), 1_011)
    assert made.updater.prepare(NEW, "m1", 1_012) == ("", False)
    assert "gone" not in made.updater.prepare(NEW, "m2", 1_013).waits


def test_what_reading_raises_leaves_the_map_in_force():
    made = Made()

    def broken(held: str):
        raise OSError("the store is gone")

    updater = SlotMapUpdater(OLD, StandbyReader(lambda m: Standby(m, lambda own: Shard(1, 2, own))))
    with pytest.raises(OSError, match="gone"):
        updater.look(HeadCut(NEW, "m1", broken), 1_000)
    assert updater.slot_map == OLD
    assert updater.on_epoch(NEW.epoch)
    assert made.maps == []
