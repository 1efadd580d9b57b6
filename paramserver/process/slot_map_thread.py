"""The thread of a shard that reads the head complete cut, and carries out what the updater of the
slot map decides (S6)."""

import logging
import threading
import time
from collections.abc import Callable

from paramserver.parts import HeadCut
from paramserver.server import ShardService
from paramserver.shard import KEPT_MS, Shard, SlotMapUpdater
from paramserver.slots import SlotMap

log = logging.getLogger(__name__)


class SlotMapThread:
    """`find_head` reads the store; `remapped` is told of the map just before the service goes over
    to it. `kept_ms`: as the updater's, whose memory it frees."""

    def __init__(
        self,
        service: ShardService,
        find_head: Callable[[], HeadCut],
        updater: SlotMapUpdater,
        remapped: Callable[[SlotMap], None],
        kept_ms: int = KEPT_MS,
    ) -> None:
        self._service, self._find_head, self._remapped = service, find_head, remapped
        self._updater, self._kept_ms = updater, kept_ms
        self._heard, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="map", daemon=True)

    def start(self) -> None:
        self._service.newer_map, self._service.map_to_come = self.on_epoch, self.prepare
        self._service.restore = self.restore
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._heard.set()
        self._thread.join()

    def on_epoch(self, epoch: int) -> None:
        """There is a map of this epoch."""
        if self._updater.on_epoch(epoch):
            self._heard.set()

    def restore(self) -> None:
        """The shard holds nothing, and there is a head cut."""
        self._updater.restore()
        self._heard.set()

    def prepare(self, slot_map: SlotMap, manifest_sha256: str) -> str:
        """`ShardPort.prepare`."""
        answer = self._updater.prepare(slot_map, manifest_sha256, monotonic_ms())
        if answer.look:
            self._heard.set()
        return answer.waits

    def _run(self) -> None:
        while True:
            heard = self._heard.wait(self._kept_ms / 1_000)
            self._heard.clear()
            if self._stopped.is_set():
                return
            try:
                if heard:
                    self._look()
                else:
                    self._updater.coming(monotonic_ms())
            except Exception as error:  # a store has errors of its own kind; tried again when asked
                self._service.metrics.maps_failed.inc()
                self._updater.failed(f"{type(error).__name__}: {error}", monotonic_ms())
                log.exception("shard %d keeps its map for now", self._service.shard.index)

    def _look(self) -> None:
        began = time.monotonic()
        looked = self._updater.look(self._find_head(), monotonic_ms())
        if looked.taken is not None:
            self._take(looked.taken, began)
        elif looked.ahead:
            self._service.metrics.ahead_seconds.observe(time.monotonic() - began)

    def _take(self, shard: Shard, began: float) -> None:
        self._remapped(shard.slot_map)
        self._service.replace(shard)
        seconds = time.monotonic() - began
        self._service.metrics.map_seconds.observe(seconds)
        log.info(
            "shard %d takes the map of epoch %d (%d shards) as incarnation %d, in %.0f ms",
            shard.index,
            shard.slot_map.epoch,
            shard.slot_map.shards,
            shard.incarnation,
            1_000 * seconds,
        )


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
