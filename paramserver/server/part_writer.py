"""Writes the part of a marked cut on a thread of its own: rows are copied between pushes, the
file beside them (X1)."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from paramserver.ports import PartInfo, PortRefused
from paramserver.server.metrics import Metrics
from paramserver.server.state_dir import write_part
from paramserver.shard import COPY_ROWS, Shard, StateCopy

#: Between two steps of a copy: a lock goes to whoever asks first, so a push that waits needs a
#: moment to ask.
PAUSE_S = 0.000_5


class PartWriter:
    """One part at a time. `lock` is the shard's: held for a step of a copy, never while a file
    is written."""

    def __init__(
        self, shard: Shard, lock: threading.Lock, metrics: Metrics, serving_bits: int = 32
    ) -> None:
        self._shard, self._lock, self._metrics = shard, lock, metrics
        self._bits = serving_bits
        self._thread = ThreadPoolExecutor(1, "part-writer")
        self._writing: dict[tuple[str, str, str], Future[PartInfo]] = {}

    def begin(self, model: str, cut: str, url: str, parent: str | None) -> Future[PartInfo]:
        """Asked again meanwhile, the same writing is answered. The caller holds the lock. Raises
        Refused."""
        copy = self._shard.copying(model, cut, parent)
        key = (model, cut, url)
        writing = self._writing.get(key)
        if writing is None or (writing.done() and writing.exception() is not None):
            for other, running in self._writing.items():
                if not running.done():
                    raise PortRefused(
                        f"shard {self._shard.index} still writes cut {other[1]!r}: ask again later"
                    )
            writing = self._thread.submit(self.write, copy, url)
            self._writing = {key: writing}
        return writing

    def write(self, copy: StateCopy, url: str) -> PartInfo:
        """Copy what is left, and write it into the folder `url`. Raises Refused if the cut was
        given up meanwhile."""
        began = time.perf_counter()
        while self.copy_more(copy):
            time.sleep(PAUSE_S)
        info = write_part(copy.snapshot(), self._shard.index, url, self._bits)
        self._metrics.part_seconds.observe(time.perf_counter() - began)
        self._metrics.part_bytes.inc(info.bytes)
        return info

    def copy_more(self, copy: StateCopy) -> bool:
        """Copy some rows while no push is at work; False once all are copied."""
        with self._lock:
            if copy.dropped:
                raise PortRefused(
                    f"shard {self._shard.index}: the cut was given up while its part was written"
                )
            return not copy.advance(COPY_ROWS)

    def take(self, shard: Shard) -> None:
        """From now on parts are of this incarnation (S6). The caller holds the lock."""
        self._shard.retire()
        self._shard, self._writing = shard, {}

    def forget(self) -> None:
        """The cut is complete: nobody asks for its part again."""
        self._writing = {}

    def close(self) -> None:
        self._thread.shutdown(wait=True)
