"""What one partition needs of the totals, and when (J4)."""

from labeler.counts.joined import JoinedCounts
from stream.columns import Impressions


class PartitionCounts:
    """Of totals that all partitions of a labeler share."""

    def __init__(
        self, counts: JoinedCounts, partition: int, arrival_max_ms: int, offset: int, begins: bool
    ) -> None:
        """From a resume point on (C4). `begins`: nothing of the partition was labelled before; what
        others are given waits for that, so its first range waits for nothing."""
        self._counts, self._partition = counts, partition
        self._begins, self._offset = begins, offset
        self._said_ms = arrival_max_ms  # how far its labels, and its silences, say that it is
        self.left_behind = False  # whether others have passed what it needs: it begins again
        counts.need(partition, arrival_max_ms)

    def wants(self, arrival_ms: int) -> bool:
        """Whether more must be read for a range that ends with this arrival."""
        return not self._begins and self._counts.lacks(arrival_ms)

    def waits(self, arrival_ms: int) -> bool:
        """Whether the range must wait."""
        if self._begins or self._counts.covers(arrival_ms):
            return False
        self.left_behind = not self._counts.lacks(arrival_ms)
        return True

    def silence(self, first_ms: int, arrival_ms: int) -> bool:
        """Whether it must be said, once, that nothing arrived until `first_ms`, when the first
        record of a range did (J4b): what the range needs, which ends with `arrival_ms`, waits for a
        label of this partition behind it, and that would be its own."""
        needed, said_ms = self._counts.bucket_of(arrival_ms), self._said_ms
        if self._begins or first_ms <= said_ms or needed < self._counts.bucket_at(said_ms):
            return False
        self._said_ms = first_ms
        return True

    def joined(self, rows: Impressions) -> Impressions:
        """KeyTotals of the range with the columns of all counters behind their own."""
        return self._counts.joined(rows, self._begins)

    def move(self, arrival_ms: int) -> int:
        """The range that ends with this arrival is done: where to read on from behind it (C4)."""
        self._said_ms = arrival_ms
        if not self._begins:
            self._offset = self._counts.point(arrival_ms)
        self._begins = False
        return self._offset

    def on_acknowledged(self, arrival_ms: int) -> None:
        """The range that ends with this arrival is in the log: nobody labels it again. Raises
        RowsFailed."""
        self._counts.need(self._partition, arrival_ms)
