"""When a shard goes over to a newer map, and what it reads ahead of one to come (S6). Pure: it is
told what was heard and asked and what the head complete cut is, and answers what to do.

Until a map is taken the former incarnation answers. A map to come is announced by `prepare`: what
the head gives the shard under it is then read ahead, again whenever there is a later head. So for a
while the rows of both are in memory, and no longer than somebody asks.
"""

from typing import NamedTuple

from paramserver.parts import HeadCut
from paramserver.shard.shard import Shard
from paramserver.shard.standby import StandbyReader
from paramserver.slots import SlotMap

#: What was read ahead is let go when nobody has asked for it this long. Longer than a move stops
#: starts.
KEPT_MS = 120_000
#: Pause after what could not be read.
AGAIN_MS = 2_000


class PrepareAnswer(NamedTuple):
    """What `ShardPort.prepare` answers ("" = it is held), and whether to look at the head now."""

    waits: str
    look: bool


class Looked(NamedTuple):
    """What a look at the head has led to."""

    taken: Shard | None = None  # the next incarnation, which serves from now on
    ahead: bool = False  # something was read ahead


class SlotMapUpdater:
    """Of one shard process. `succession` makes the next incarnation, durably numbered.

    One thread looks; `hear` and `prepare` may be called from others meanwhile.
    """

    def __init__(
        self,
        slot_map: SlotMap,
        standby_reader: StandbyReader,
        kept_ms: int = KEPT_MS,
        again_ms: int = AGAIN_MS,
    ) -> None:
        self.slot_map = slot_map  # in force
        self._standby_reader, self._kept_ms, self._again_ms = standby_reader, kept_ms, again_ms
        #: the map that was asked for last, and when
        self._asked: tuple[SlotMap, int] | None = None
        #: what is held, and of which manifest
        self._held: tuple[SlotMap, str] | None = None
        self._fault, self._again_at_ms = "", 0
        self._restores = False

    def on_epoch(self, epoch: int) -> bool:
        """A map of this epoch was heard of. Whether to look at the head now."""
        return epoch > self.slot_map.epoch

    def restore(self) -> None:
        """The shard holds nothing, and there is a head cut: it began before that was complete. It
        takes it up at the next look (X2)."""
        self._restores = True

    def prepare(self, slot_map: SlotMap, manifest_sha256: str, now_ms: int) -> PrepareAnswer:
        """Slots are to move to this map; the head is the cut of this manifest."""
        self._asked = slot_map, now_ms
        if self._held == (slot_map, manifest_sha256):
            return PrepareAnswer("", False)
        waits = self._fault or "it reads what the last cut gives it"
        return PrepareAnswer(waits, now_ms >= self._again_at_ms)

    def coming(self, now_ms: int) -> SlotMap | None:
        """The map to read ahead for, if somebody still asks. Else what was read is let go."""
        asked = self._asked
        if (
            asked is not None
            and now_ms - asked[1] < self._kept_ms
            and self.on_epoch(asked[0].epoch)
        ):
            return asked[0]
        self._held = None
        self._standby_reader.forget()
        return None

    def look(self, head: HeadCut, now_ms: int) -> Looked:
        """Take the head's map if it is newer, else read ahead for the one to come. A map that was
        heard of before it is there to be seen is neither. What reading raises goes through: tell
        `failed` of it."""
        slot_map = self.slot_map if head.slot_map is None else head.slot_map
        restores, self._restores = self._restores and bool(head.manifest_sha256), False
        if restores or slot_map.epoch > self.slot_map.epoch:
            self._held = None
            shard = self._standby_reader.take(slot_map, head)
            self.slot_map, self._fault = slot_map, ""
            return Looked(taken=shard)
        coming, ahead = self.coming(now_ms), False
        if coming is not None and self._held != (coming, head.manifest_sha256):
            self._held, ahead = None, True
            self._standby_reader.prepare(coming, head)
            self._held = coming, head.manifest_sha256
        self._fault = ""
        return Looked(ahead=ahead)

    def failed(self, reason: str, now_ms: int) -> None:
        """The head could not be read: who asks is told why, and it is tried again in a while."""
        self._fault, self._again_at_ms = reason, now_ms + self._again_ms
