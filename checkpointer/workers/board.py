"""The memory that all processes of a replica share from before they are forked (shell): how far
readers are (`epochs`), who is alive, who is to end, and everybody's metrics.

Each word has one writer, and is written whole. Metrics lie in two places in turns, with a checksum:
who reads while they are written, or after their writer was killed meanwhile, reads them again.
"""

import mmap
import time
import zlib
from typing import NamedTuple

import numpy as np

from checkpointer.workers.epochs import READS_NONE, Epochs

#: Processes in the order of their rows: the follower, then the workers, then the supervisor.
FOLLOWER, FIRST_WORKER = 0, 1
#: 8-byte words of a row: a line of a processor's cache.
_WORDS = 8
_EPOCH, _BEAT, _PLACE = 0, 1, 2
#: Of the row that is everybody's.
_GENERATION, _STOP = 0, 1
METRICS_BYTES_MAX = 1 << 18
_HEAD = 8
_READ_AGAIN = 20


class StopLevel:
    """How far the end has come."""

    NOT, WORKERS, ALL = range(3)


class BoardRow(NamedTuple):
    """One of a replica's processes, as an index of the board."""

    at: int
    name: str


class Board:
    """Made once, by the supervisor."""

    def __init__(self, workers: int) -> None:
        self.follower = BoardRow(FOLLOWER, "follower")
        self.workers = [BoardRow(FIRST_WORKER + n, f"worker {n}") for n in range(workers)]
        self.supervisor = BoardRow(FIRST_WORKER + workers, "supervisor")
        rows = self.supervisor.at + 1
        self._words = np.frombuffer(mmap.mmap(-1, 8 * _WORDS * (rows + 1)), np.int64)
        self._words = self._words.reshape(rows + 1, _WORDS)
        self._rows, self._common = self._words[:rows], self._words[rows]
        self.epochs = Epochs(self._rows[FIRST_WORKER : self.supervisor.at, _EPOCH])
        self._rows[:, _EPOCH] = READS_NONE
        self._metrics = mmap.mmap(-1, 2 * METRICS_BYTES_MAX * rows)

    def new_generation(self) -> int:
        """Of tables, from 1 on, higher than every one before. The follower's alone."""
        self._common[_GENERATION] += 1
        return int(self._common[_GENERATION])

    # --- life -----------------------------------------------------------------------------------

    def beat(self, process: BoardRow) -> None:
        """It lives."""
        self._rows[process.at, _BEAT] = time.monotonic_ns()

    def silent_s(self, process: BoardRow) -> float | None:
        """How long it has said nothing; None = it has not begun."""
        beat_ns = int(self._rows[process.at, _BEAT])
        return (time.monotonic_ns() - beat_ns) / 1e9 if beat_ns else None

    def ended(self, process: BoardRow) -> None:
        """It has certainly ended: it reads nothing, and says nothing more."""
        if process in self.workers:
            self.epochs.leave(process.at - FIRST_WORKER)
        self._rows[process.at, _BEAT] = 0

    @property
    def stop(self) -> int:
        """One of `StopLevel`."""
        return int(self._common[_STOP])

    def stop_up_to(self, level: int) -> None:
        self._common[_STOP] = level

    # --- metrics --------------------------------------------------------------------------------

    def write_metrics(self, process: BoardRow, data: bytes) -> bool:
        """False where there is no room for them: those of before stand. One thread's."""
        if len(data) > METRICS_BYTES_MAX - _HEAD:
            return False
        place = 1 - int(self._rows[process.at, _PLACE])
        begin = self._begin(process, place)
        head = len(data).to_bytes(4, "little") + zlib.crc32(data).to_bytes(4, "little")
        self._metrics[begin : begin + _HEAD + len(data)] = head + data
        self._rows[process.at, _PLACE] = place
        return True

    def read_metrics(self, process: BoardRow) -> bytes:
        """What it wrote last; empty = nothing yet, or nothing whole."""
        for _ in range(_READ_AGAIN):
            begin = self._begin(process, int(self._rows[process.at, _PLACE]))
            head = self._metrics[begin : begin + _HEAD]
            nbytes = int.from_bytes(head[:4], "little")
            data = self._metrics[begin + _HEAD : begin + _HEAD + nbytes]
            if nbytes <= METRICS_BYTES_MAX and zlib.crc32(data).to_bytes(4, "little") == head[4:]:
                return data
        return b""

    def _begin(self, process: BoardRow, place: int) -> int:
        return METRICS_BYTES_MAX * (2 * process.at + place)
