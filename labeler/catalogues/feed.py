"""Where the partitions of a labeler read catalogues: one reading for all of them, as far as one of
them needs (A3)."""

import logging
from collections.abc import Callable, Mapping, Sequence

from labeler.catalogues.joined import JoinedCatalogues
from labeler.catalogues.of_partition import PartitionCatalogues
from labeler.catalogues.versions import CatalogueBegin
from stream import Partition, Record, StreamConfig
from stream.log.rows import MemoryStorage, RowStorage, StoredRows

logger = logging.getLogger(__name__)


class CatalogueFeed:
    """Without declared features of catalogues nothing is read, and `joined` stays None."""

    def __init__(self, stream: StreamConfig, bytes_max: int) -> None:
        """`bytes_max`: of the rows of each in memory."""
        self.on = bool(stream.catalogues)
        self.names = {Partition(topic, 0): name for name, topic in stream.catalogues.items()}
        self.joined: JoinedCatalogues | None = None
        self._stream, self._bytes_max = stream, bytes_max
        #: Where the rows of a catalogue lie; None = in memory.
        self.disk: Callable[[str], RowStorage] | None = None
        self._anew = False  # whether what is held is of no use: it has gone too far, or failed

    def _hold(self, name: str) -> StoredRows:
        """Room for the rows of a catalogue. Raises RowsFailed."""
        held = StoredRows(self.disk(name) if self.disk else MemoryStorage(), self._bytes_max)
        if self._anew:
            held.clear()
        return held

    def start(self, begins: Mapping[Partition, CatalogueBegin]) -> None:
        """Begin, or go on with what is held, unless it has gone too far for a partition. `begins`:
        where each begins. Raises RowsFailed."""
        if self.on and (self.joined is None or self._anew):
            self.close()
            by_name = {name: begins[at] for at, name in self.names.items()}
            self.joined = JoinedCatalogues(self._stream, self._hold, by_name)
            self._anew = False

    def left_behind(self, part: PartitionCatalogues | None) -> bool:
        """Whether this partition must begin again, and with it the reading."""
        if part is None or not part.left_behind:
            return False
        self._anew = True
        return True

    @property
    def offsets(self) -> dict[Partition, int]:
        """Where each is read on from."""
        if self.joined is None:
            return {}
        return {at: self.joined.of[name].next_offset for at, name in self.names.items()}

    def take(self, at: Partition, records: Sequence[Record]) -> None:
        """The next ones. Raises RowsFailed."""
        assert self.joined is not None
        self.joined.read(self.names[at], records)

    def rests(self, arrivals_ms: Sequence[int]) -> set[Partition]:
        """Those not to read on: nobody waits for what stands behind, or too much is held.
        `arrivals_ms`: of the ranges that are to be handled next; 0 = none is known."""
        if self.joined is None:
            return set()
        latest, of = max(arrivals_ms, default=0), self.joined.of
        return {
            at
            for at, name in self.names.items()
            if of[name].is_full or not latest or not of[name].lacks(latest)
        }

    def forget(self) -> None:
        """All partitions begin again."""
        if self.joined is not None:
            self.joined.forget()

    def drop(self, partition: int) -> None:
        """It is another process's, or begins again."""
        if self.joined is not None:
            self.joined.done(partition)

    def stands(self, partition: int, still: bool) -> None:
        """For a partition that stands still nothing is held: it begins again where it goes on."""
        if still:
            self.drop(partition)

    def begin_anew(self) -> None:
        """What was read is of no use."""
        self._anew = True
        self.close()

    def close(self) -> None:
        """What was read, and not written, is dropped."""
        if self.joined is not None:
            self.joined.close()
        self.joined = None
