"""Reading back the end of a partition, to fold it."""

import functools
from collections.abc import Callable, Iterable

from labeler.join import ExamplesFold
from stream import Partition, Record
from stream.internal_topics import PassedOver
from stream.log import Log, Unavailable

#: How long one poll waits, and how many in a row may give nothing before the broker counts as gone.
POLL_MS = 500
EMPTY_POLLS_MAX = 30


class TailReader:
    """Reads the last records of partitions, one after the other. Close it when done."""

    def __init__(self, log: Log, poll_records_max: int, passed_over: PassedOver | None = None):
        """`passed_over` counts records of a chain that say nothing."""
        self._passed_over = passed_over
        self._reader = log.reader()
        self._poll_records_max = poll_records_max

    def read(
        self, partition: Partition, records_max: int, take: Callable[[list[Record]], None]
    ) -> None:
        """Give `take` the last `records_max` records there are now, in order and in pieces.

        Raises Unavailable, and OffsetOutOfRange where retention was faster.
        """
        self.read_between(partition, *self.span(partition, records_max), take)

    def read_between(
        self, partition: Partition, start: int, end: int, take: Callable[[list[Record]], None]
    ) -> None:
        """Give `take` the records of these offsets, as `read` does."""
        if start >= end:
            return
        self._reader.assign([partition])
        self._reader.seek(partition, start)
        empty = 0
        while self._reader.position(partition) < end:
            records = self._reader.poll(self._poll_records_max, POLL_MS).get(partition, [])
            empty = 0 if records else empty + 1
            if empty > EMPTY_POLLS_MAX:
                raise Unavailable(
                    f"{partition.topic}[{partition.partition}]: no answer while reading back to "
                    f"{end}"
                )
            take([record for record in records if record.offset < end])

    def fold(self, examples: Partition, chain: str, records_max: int) -> ExamplesFold:
        """One chain of `examples[p]`, folded from the last `records_max` records (C2). Other chains
        share the partition (C1), so a tail without a record of this one is followed by a longer
        tail, up to all there is."""
        while True:
            start, end = self.span(examples, records_max)
            malformed = (
                None
                if self._passed_over is None
                else functools.partial(self._passed_over.add, examples)
            )
            folded = ExamplesFold(chain, start == 0, malformed)
            self.read(examples, records_max, folded.add)
            if (
                folded.point is not None or start == 0 or end - start < records_max
            ):  # nothing stands before a short one
                return folded
            records_max *= 4

    def span(self, partition: Partition, records_max: int) -> tuple[int, int]:
        """Offsets [start, end) of the last `records_max` records. Raises Unavailable."""
        first = self._reader.beginning_offsets([partition])[partition]
        end = self._reader.end_offsets([partition])[partition]
        return max(first, end - records_max), end

    def first(self, partition: Partition) -> int:
        """The first offset still there. Raises Unavailable."""
        return self._reader.beginning_offsets([partition])[partition]

    def end_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The offset that the next record of each would get. Raises Unavailable."""
        return self._reader.end_offsets(partitions)

    def topic_id(self, partition: Partition) -> str:
        """What tells its topic from a former one of the same name; "" where a broker does not say.
        Raises Unavailable."""
        self.first(partition)
        return self._reader.topic_id(partition.topic)

    def close(self) -> None:
        self._reader.close()
