"""A running shard goes over to a newer map: as a new incarnation, restored from the head complete
cut (S6).

Whoever hears of a newer epoch calls `hear`, as often as it likes; one thread reads the head and
takes what it names. Until then the former incarnation answers. A map to come is told by `prepare`:
the same thread then reads ahead what the head gives the shard under it, again whenever there is a
later head. So for a while the rows of both are in memory.
"""

import logging
import threading
import time
from collections.abc import Callable

from paramserver.parts.head_cut import HeadCut
from paramserver.server.server import ShardService
from paramserver.shard.successor import Succession
from paramserver.slots import SlotMap

log = logging.getLogger(__name__)

#: What was read ahead is let go when nobody has asked for it this long. Longer than a move stops
#: starts.
KEPT_S = 120.0
#: Pause after what could not be read.
AGAIN_S = 2.0


class MapTaker:
    """`find_head` reads the store; `succession` makes the next incarnation, durably numbered;
    `remapped` is told of the map just before the service goes over to it."""

    def __init__(
        self,
        service: ShardService,
        find_head: Callable[[], HeadCut],
        succession: Succession,
        remapped: Callable[[SlotMap], None],
    ) -> None:
        self._service, self._find_head, self._succession, self._remapped = (
            service,
            find_head,
            succession,
            remapped,
        )
        self._heard, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="map", daemon=True)
        #: the map that was asked for last, and when; what is held, of which manifest; why nothing
        #: could be read
        self._asked: tuple[SlotMap | None, float] = None, 0.0
        self._held: tuple[SlotMap, str] | None = None
        self._fault, self._again_s = "", 0.0

    def start(self) -> None:
        self._service.newer_map, self._service.map_to_come = self.hear, self.prepare
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._heard.set()
        self._thread.join()

    def hear(self, epoch: int) -> None:
        """There is a map of this epoch."""
        if epoch > self._service.shard.slot_map.epoch:
            self._heard.set()

    def prepare(self, slot_map: SlotMap, manifest_sha256: str) -> str:
        """`ShardPort.prepare`."""
        now_s = time.monotonic()
        self._asked = slot_map, now_s
        if self._held == (slot_map, manifest_sha256):
            return ""
        if now_s >= self._again_s:
            self._heard.set()
        return self._fault or "it reads what the last cut gives it"

    def _run(self) -> None:
        while True:
            heard = self._heard.wait(KEPT_S)
            self._heard.clear()
            if self._stopped.is_set():
                return
            coming = self._coming()
            try:
                if heard:
                    self._look(coming)
                self._fault = ""
            except (
                Exception
            ) as error:  # a store has errors of its own kind; it is told again, and tries again
                self._service.metrics.maps_failed.inc()
                self._fault, self._again_s = (
                    f"{type(error).__name__}: {error}",
                    time.monotonic() + AGAIN_S,
                )
                log.exception("shard %d keeps its map for now", self._service.shard.index)

    def _coming(self) -> SlotMap | None:
        """The map to read ahead for, if somebody still asks. Else what was read is let go."""
        slot_map, asked_s = self._asked
        asked = slot_map is not None and time.monotonic() - asked_s < KEPT_S
        if slot_map is not None and asked and slot_map.epoch > self._service.shard.slot_map.epoch:
            return slot_map
        self._held = None
        self._succession.forget()
        return None

    def _look(self, coming: SlotMap | None) -> None:
        """Take the head's map if it is newer, else read ahead. Heard of before it was there to
        be seen: neither."""
        began = time.monotonic()
        head = self._find_head()
        if head.slot_map is not None and head.slot_map.epoch > self._service.shard.slot_map.epoch:
            self._take(head, head.slot_map, began)
        elif coming is not None and self._held != (coming, head.manifest_sha256):
            self._held = None
            self._succession.prepare(coming, head)
            self._held = coming, head.manifest_sha256
            self._service.metrics.ahead_seconds.observe(time.monotonic() - began)

    def _take(self, head: HeadCut, slot_map: SlotMap, began: float) -> None:
        self._held = None
        shard = self._succession.take(slot_map, head)
        self._remapped(slot_map)
        self._service.replace(shard)
        seconds = time.monotonic() - began
        self._service.metrics.map_seconds.observe(seconds)
        log.info(
            "shard %d takes the map of epoch %d (%d shards) as incarnation %d, in %.0f ms",
            *(shard.index, slot_map.epoch, slot_map.shards, shard.incarnation, 1_000 * seconds),
        )
