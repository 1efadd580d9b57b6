"""Records fetched from one partition and not yet handed to a core: a short queue with two
limits."""

from collections import deque
from collections.abc import Iterable

from stream import Record, StreamConfig
from stream.decoding import fitting
from stream.log import NO_RECORDS, RecordColumns


class FetchQueue:
    """First in, first out. Fetching pauses when full and goes on when half empty, so that it
    does not flutter."""

    def __init__(self, stream: StreamConfig, records_max: int, bytes_max: int):
        self._fetched: deque[RecordColumns] = deque()
        self._stream, self._records_max, self._bytes_max = stream, records_max, bytes_max
        self._full = False
        self._records = 0
        self.bytes = 0

    def __len__(self) -> int:
        return self._records

    @property
    def full(self) -> bool:
        """Whether fetching should pause."""
        if self._full:
            self._full = self._records * 2 > self._records_max or self.bytes * 2 > self._bytes_max
        else:
            self._full = self._records >= self._records_max or self.bytes >= self._bytes_max
        return self._full

    def put(self, records: Iterable[Record]) -> None:
        fetched = RecordColumns.of(records)
        if len(fetched):
            self._fetched.append(fetched)
            self._records += len(fetched)
            self.bytes += fetched.value_bytes

    def take(self, count: int) -> RecordColumns:
        """The next records of one fetch, at most `count`, and of these as many as may be decoded
        at once."""
        if not self._fetched:
            return NO_RECORDS
        fetched = self._fetched.popleft()
        count = fitting(fetched[:count], self._stream)
        out, rest = fetched[:count], fetched[count:]
        if len(rest):
            self._fetched.appendleft(rest)
        self._records -= len(out)
        self.bytes -= out.value_bytes
        return out
