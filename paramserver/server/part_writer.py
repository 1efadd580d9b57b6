"""Writes the part of a marked cut on a thread of its own: rows are copied between pushes, the
file beside them (X1)."""

import logging
import threading
import time
from concurrent.futures import Future, wait

from paramserver.ports import PartInfo, PortRefused
from paramserver.server.metrics import Metrics
from paramserver.server.state_dir import write_part
from paramserver.shard import COPY_ROWS, Shard, StateCopy

#: Between two steps of a copy: a lock goes to whoever asks first, so a push that waits needs a
#: moment to ask.
PAUSE_S = 0.000_5
#: Parts whose store said nothing within the deadline, and may never: each keeps a thread and a copy
#: of the rows. With so many, no other is begun until one of them ends.
HANGING_MAX = 2
#: At the process's end, what is being written is waited for so long at most.
END_S = 10.0

log = logging.getLogger(__name__)


class PartWriter:
    """One part at a time; one that the store has not answered within `deadline_ms` is left to
    itself when another cut asks. `lock` is the shard's: held for a step of a copy, never while a
    file is written."""

    def __init__(
        self,
        shard: Shard,
        lock: threading.Lock,
        metrics: Metrics,
        serving_bits: int = 32,
        deadline_ms: int = 120_000,
    ) -> None:
        self._shard, self._lock, self._metrics = shard, lock, metrics
        self._bits, self._deadline_s = serving_bits, deadline_ms / 1_000
        self._writing: dict[tuple[str, str, str], Future[PartInfo]] = {}
        self._began_s = 0.0
        self._hanging: list[Future[PartInfo]] = []
        metrics.parts_hanging.set_function(lambda: self.hanging)

    @property
    def hanging(self) -> int:
        """How many parts are left to themselves and have not ended."""
        return sum(not one.done() for one in tuple(self._hanging))

    def begin(self, model: str, cut: str, url: str, parent: str | None) -> Future[PartInfo]:
        """Asked again meanwhile, the same writing is answered. The caller holds the lock. Raises
        Refused."""
        copy = self._shard.copying(model, cut, parent)
        key = (model, cut, url)
        writing = self._writing.get(key)
        if writing is None or (writing.done() and writing.exception() is not None):
            self._make_room()
            writing = self._start(copy, url)
            self._writing, self._began_s = {key: writing}, time.monotonic()
        return writing

    def _make_room(self) -> None:
        """Leave the part that is being written to itself. Raises PortRefused where that may only be
        slow, or too many hang."""
        self._hanging = [one for one in self._hanging if not one.done()]
        late = time.monotonic() - self._began_s > self._deadline_s
        cuts = [cut for (_, cut, _), one in self._writing.items() if not one.done()]
        if (cuts and not late) or len(self._hanging) + len(cuts) > HANGING_MAX:
            waits_for = f"cut {cuts[0]!r}" if cuts else f"{len(self._hanging)} cuts"
            raise PortRefused(
                f"shard {self._shard.index} still writes {waits_for}: ask again later"
            )
        if cuts:
            log.error("cut %r: the store has not taken its part in time; left to itself", cuts[0])
        self.forget()

    def _start(self, copy: StateCopy, url: str) -> Future[PartInfo]:
        """A thread that the process does not wait for: nobody can end a call to a store."""
        writing = Future[PartInfo]()

        def run() -> None:
            try:
                writing.set_result(self.write(copy, url))
            except BaseException as error:
                writing.set_exception(error)

        threading.Thread(target=run, name="part-writer", daemon=True).start()
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
        self._shard = shard
        self.forget()

    def forget(self) -> None:
        """Nobody asks for what was written again; what is not done counts until it is."""
        self._hanging += [one for one in self._writing.values() if not one.done()]
        self._writing = {}

    def close(self) -> None:
        """What is being written ends, or is waited for no longer."""
        wait(self._writing.values(), END_S)
