"""What one partition needs of catalogues, and when (A3)."""

from labeler.catalogues.joined import JoinedCatalogues
from stream.columns import Impressions
from stream.decoding import BadRecord


class PartitionCatalogues:
    """Of catalogues that all partitions of a labeler share."""

    def __init__(
        self,
        catalogues: JoinedCatalogues,
        partition: int,
        arrival_max_ms: int,
        flush_ms: int,
    ) -> None:
        """From a resume point on (C4)."""
        self._catalogues, self._partition = catalogues, partition
        self._flush_ms = flush_ms
        self._arrival_ms = self._acknowledged_ms = arrival_max_ms
        #: others have passed what it needs, or what it has to say (A1): it begins again
        self.left_behind = not partition and arrival_max_ms < catalogues.bad_ms
        # its first range may begin later than it was labelled to (C3): others pass no further
        catalogues.need(partition, max(arrival_max_ms, catalogues.low_ms))

    def waits(self, arrival_ms: int) -> bool:
        """Whether the range that ends with this arrival must wait. Raises RowsFailed."""
        begins_ms = max(self._arrival_ms, arrival_ms // self._flush_ms * self._flush_ms)  # C3
        self.left_behind |= begins_ms < self._catalogues.low_ms
        if self.left_behind:
            return True
        if self._acknowledged_ms == self._arrival_ms:  # else earlier ones may be labelled again
            self._catalogues.need(self._partition, begins_ms)
        self._catalogues.settle()
        return self._catalogues.lacks(arrival_ms)

    def joined(self, rows: Impressions) -> Impressions:
        """Rows of the range with the columns of all catalogues behind their own."""
        return self._catalogues.joined(rows)

    def looked_up(self, rows: Impressions) -> Impressions:
        """The same of impressions that may become no rows: nothing of them is counted."""
        return self._catalogues.looked_up(rows)

    def bad_until(self, arrival_ms: int) -> dict[str, list[BadRecord]]:
        """By topic, what could not be read and arrived in the range that ends with this arrival:
        partition 0 says it (A1)."""
        if self._partition:
            return {}
        return self._catalogues.bad_between(self._arrival_ms, arrival_ms)

    def move(self, arrival_ms: int) -> None:
        """The range that ends with this arrival is done."""
        self._arrival_ms = arrival_ms

    def on_acknowledged(self, arrival_ms: int) -> None:
        """The range that ends with this arrival is in the log: nobody labels it again."""
        self._acknowledged_ms = arrival_ms
        if arrival_ms >= self._catalogues.low_ms:
            self._catalogues.need(self._partition, arrival_ms)
