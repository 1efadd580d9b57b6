"""Records fetched from one partition and not yet handed to a core: a short queue with two limits."""

from collections import deque
from collections.abc import Iterable

from stream.record import Record


class Feed:
    """First in, first out. Fetching pauses when full and goes on when half empty, so that it does not flutter."""

    def __init__(self, records_max: int, bytes_max: int):
        self._records: deque[Record] = deque()
        self._records_max, self._bytes_max = records_max, bytes_max
        self._full = False
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def full(self) -> bool:
        """Whether fetching should pause."""
        if self._full:
            self._full = len(self._records) * 2 > self._records_max or self.bytes * 2 > self._bytes_max
        else:
            self._full = len(self._records) >= self._records_max or self.bytes >= self._bytes_max
        return self._full

    def put(self, records: Iterable[Record]) -> None:
        for record in records:
            self._records.append(record)
            self.bytes += len(record.value or b"")

    def take(self, count: int) -> list[Record]:
        """The next records, at most `count`."""
        out = [self._records.popleft() for _ in range(min(count, len(self._records)))]
        self.bytes -= sum(len(record.value or b"") for record in out)
        return out
