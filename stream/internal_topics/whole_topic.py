"""All partitions of one topic, read on and on, whatever becomes of it: a topic that is not there
yet is waited for, and one that was made anew is read from its first record."""

from collections.abc import Sequence

from stream.log import Log, LogError, OffsetOutOfRange, Reader
from stream.record import Partition, Record


class WholeTopic:
    """Belongs to one thread."""

    def __init__(self, log: Log, topic: str, at_end: bool = False) -> None:
        """`at_end`: what stands there when it is first opened is passed over."""
        self._log, self._topic, self._at_end = log, topic, at_end
        self._reader: Reader | None = None
        self._id = ""
        self.gaps = 0  # how often records were missed: by retention, or with a former topic

    def poll(self, max_records: int, timeout_ms: int) -> dict[Partition, Sequence[Record]]:
        """The next records. Raises LogError, also where there is no such topic; it may be tried
        again."""
        if self._reader is None:
            self._reader = self._open()
        try:
            polled = self._reader.poll(max_records, timeout_ms)
        except OffsetOutOfRange as error:
            self._reader.seek(error.partition, error.first)
            polled = {}
            self.gaps += 1
        topic_id = self._reader.topic_id(self._topic)
        if topic_id and self._id and topic_id != self._id:
            self.close()
            self._at_end = False
            self.gaps += 1
            polled = {}
        self._id = topic_id or self._id
        return polled

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def _open(self) -> Reader:
        count = self._log.partitions(self._topic)
        if not count:
            raise LogError(f"there is no topic {self._topic}")
        partitions = [Partition(self._topic, p) for p in range(count)]
        reader = self._log.reader()
        try:
            reader.assign(partitions)
            ask = reader.end_offsets if self._at_end else reader.beginning_offsets
            for partition, offset in ask(partitions).items():
                reader.seek(partition, offset)
        except LogError:
            reader.close()
            raise
        return reader
