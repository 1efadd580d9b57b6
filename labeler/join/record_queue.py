"""The records of a stretch of one log, without their contents: where each stands, when it came, how
many rows it has.

Batch boundaries (C3) and the offsets to re-read from (C4) are found here, record by record, because
they must be the same however the records were polled.
"""

import numpy as np
import numpy.typing as npt

from stream.kernels import I32, I64

#: 20 bytes a record. `rows` counts events of any class.
RECORD = np.dtype([("offset", np.int64), ("arrival_ms", np.int64), ("rows", np.int32)])
_ROOM_MIN = 64

#: Arrival maximum of a log before its first record.
NO_ARRIVAL = 0


class RecordQueue:
    """A first-in, first-out queue of records; offsets rise and arrivals never fall.

    `arrival_max_ms` is the running maximum (T1) just before the first record held.
    """

    def __init__(self, arrival_max_ms: int = NO_ARRIVAL):
        self.arrival_max_ms = arrival_max_ms
        self._data = np.empty(_ROOM_MIN, RECORD)
        self._start = 0
        self._stop = 0

    def __len__(self) -> int:
        return self._stop - self._start

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        return int(self._data.nbytes)

    @property
    def records(self) -> npt.NDArray[np.void]:
        """A view of what is held, dtype RECORD; valid until the next `append`."""
        return self._data[self._start : self._stop]

    @property
    def last_arrival_ms(self) -> int:
        """The running maximum after the last record held."""
        return int(self._data["arrival_ms"][self._stop - 1]) if len(self) else self.arrival_max_ms

    def append(self, offset: I64, arrival_ms: I64, rows: I32 | I64) -> None:
        """Add records at the end."""
        n = len(offset)
        if self._stop + n > len(self._data):
            self._make_room(n)
        new = self._data[self._stop : self._stop + n]
        new["offset"], new["arrival_ms"], new["rows"] = offset, arrival_ms, rows
        self._stop += n

    def first_at(self, arrival_ms: int) -> int:
        """Index of the first record held that arrived at or after this; `len(self)` if there is
        none."""
        return int(np.searchsorted(self.records["arrival_ms"], arrival_ms))

    def drop(self, count: int) -> None:
        """Let the first `count` records go."""
        if count:
            self.arrival_max_ms = int(self._data["arrival_ms"][self._start + count - 1])
            self._start += count

    def _make_room(self, n: int) -> None:
        held = self.records
        room = max(_ROOM_MIN, len(held) + n)
        data = (
            self._data
            if room * 9 <= len(self._data) * 8 <= room * 16
            else np.empty(room + room // 8, RECORD)
        )
        data[: len(held)] = held
        self._data, self._start, self._stop = data, 0, len(held)
