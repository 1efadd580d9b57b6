"""The next incarnation of a shard in the making: what complete cuts say of the slots of one map
(S6).

It has no effect until it is taken. Brought to the head again and again, it costs what has changed
in between.
"""

from collections.abc import Callable

from paramserver.parts import HeadCut
from paramserver.shard.shard import Shard
from paramserver.slots import SlotMap


class Standby:
    """`shard` is what the cut of manifest `held` makes of it; "" = empty, of a model that has not
    begun, or standing by."""

    def __init__(self, slot_map: SlotMap, make: Callable[[SlotMap], Shard]) -> None:
        """`make`: a shard of one new incarnation, empty, under this map."""
        self.slot_map, self._make = slot_map, make
        self.shard, self.held = make(slot_map), ""

    def bring(self, head: HeadCut) -> Shard:
        """To the head cut: from the cut that is held where what builds on it leads there, else anew
        (X3). What reading raises leaves a cut that is held, or none."""
        if self.shard.stands_by or head.manifest_sha256 == self.held:
            return self.shard
        for cut in head.chain(self.held):
            held, self.held = self.held, ""  # in the midst of a cut it holds none
            if cut.is_full:
                self.shard = self._make(self.slot_map)
                self.shard.restore(cut.read(), cut.manifest_sha256)
            else:
                assert held, "a chain begins at what is held, or with a full cut"
                self.shard.follow(cut.read(), cut.manifest_sha256)
            self.held = cut.manifest_sha256
        return self.shard

    def fits(self, slot_map: SlotMap) -> bool:
        """Whether it was made for this very map. An epoch alone says little: what is to come may
        still change."""
        return self.slot_map == slot_map


class StandbyReader:
    """At most one standby of a shard, read ahead for a map to come, and taken for that map or
    for none."""

    def __init__(self, make: Callable[[SlotMap], Standby]) -> None:
        """`make`: a standby of a new incarnation."""
        self._make = make
        self._standby: Standby | None = None

    def prepare(self, slot_map: SlotMap, head: HeadCut) -> None:
        """Hold what the head gives the shard under this map. What was read for another map goes
        first."""
        if self._standby is None or not self._standby.fits(slot_map):
            self._standby = None
            self._standby = self._make(slot_map)
        self._standby.bring(head)

    def take(self, slot_map: SlotMap, head: HeadCut) -> Shard:
        """The next incarnation, which stands at the head and its map."""
        self.prepare(slot_map, head)
        assert self._standby is not None
        shard, self._standby = self._standby.shard, None
        return shard

    def forget(self) -> None:
        """That map is not to come."""
        self._standby = None
