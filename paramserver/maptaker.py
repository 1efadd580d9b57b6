"""A running shard goes over to a newer map: as a new incarnation, restored from the head complete cut (S6).

Whoever hears of a newer epoch calls `hear`, as often as it likes; one thread reads the head and takes what it names.
Until then the former incarnation answers. So for a moment the rows of both are in memory.
"""

import logging
import threading
import time
from collections.abc import Callable

from paramserver.headcut import HeadCut
from paramserver.server import ShardService
from paramserver.slots import SlotMap
from paramserver.successor import Successor

log = logging.getLogger(__name__)


class MapTaker:
    """`find_head` reads the store; `succeed` makes the next incarnation, durably numbered, under a map; `remapped` is
    told of the map just before the service goes over to it."""

    def __init__(
        self,
        service: ShardService,
        find_head: Callable[[], HeadCut],
        succeed: Callable[[SlotMap], Successor],
        remapped: Callable[[SlotMap], None],
    ) -> None:
        self._service, self._find_head, self._succeed, self._remapped = service, find_head, succeed, remapped
        self._heard, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="map", daemon=True)

    def start(self) -> None:
        self._service.newer_map = self.hear
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._heard.set()
        self._thread.join()

    def hear(self, epoch: int) -> None:
        """There is a map of this epoch."""
        if epoch > self._service.shard.slot_map.epoch:
            self._heard.set()

    def _run(self) -> None:
        while True:
            self._heard.wait()
            self._heard.clear()
            if self._stopped.is_set():
                return
            try:
                self._take()
            except Exception:  # a store has errors of its own kind; it is told again, and tries again
                self._service.metrics.maps_failed.inc()
                log.exception("shard %d keeps its map for now", self._service.shard.index)

    def _take(self) -> None:
        began = time.monotonic()
        head = self._find_head()
        slot_map = head.slot_map
        if slot_map is None or slot_map.epoch <= self._service.shard.slot_map.epoch:
            return  # heard of before it was there to be seen
        shard = self._succeed(slot_map).bring(head)
        self._remapped(slot_map)
        self._service.replace(shard)
        seconds = time.monotonic() - began
        self._service.metrics.map_seconds.observe(seconds)
        log.info(
            "shard %d takes the map of epoch %d (%d shards) as incarnation %d, in %.0f ms",
            *(shard.index, slot_map.epoch, slot_map.shards, shard.incarnation, 1_000 * seconds),
        )
