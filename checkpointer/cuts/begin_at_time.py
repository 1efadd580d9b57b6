"""From a moment to the place in every chain where the records of that moment begin (S5).

A label record belongs to the moment that the arrivals of its range have reached (`arrival_max_ms`).
So what is learned from T1 to T2 and from T2 to T3 is, record for record, what is learned from T1 to
T3.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from stream import (
    LABEL,
    Chain,
    Fold,
    Partition,
    Record,
    StreamConfig,
    begin_vector,
    kind_of,
    label_chain,
    position,
    retract_chain,
    show_ms,
)
from stream.internal_topics import BatchHeader
from stream.log import OffsetOutOfRange, Reader, Unavailable

_RECORDS_MAX, _POLL_MS = 200, 100
#: So many polls in a row that give nothing are no slow broker any more.
_SILENT_POLLS_MAX = 600


@dataclass
class EndsAtTime:
    """The ends at which the records from `at_ms` on begin: feed it `examples[partition]` from its
    beginning, which is the record at offset `first`."""

    partition: int
    at_ms: int
    first: int = 0
    chains: dict[str, Chain] = field(default_factory=dict)
    reached: bool = False
    offset: int = 0  # of the first record from then on, or behind the last one read
    verdicts_offset: int = 0  # up to here labels have obeyed `verdicts`
    # the first records that are missing between two that are there, as where an archive ends too
    # early
    hole: str = ""
    # a record of an earlier moment was seen: nothing from `at_ms` on is missing before it
    _before: bool = False
    _oldest_ms: int = 0

    def add(self, record: Record) -> bool:
        """Take a record; True once the place is found, and no more records are needed."""
        if self.reached:
            return True
        behind, self.offset = max(self.first, self.offset), record.offset
        if self._reaches(record, behind):
            self.reached = True
        else:
            self.offset += 1
        return self.reached

    @property
    def lacks(self) -> str:
        """Which records from `at_ms` on are gone, as far as those that were fed tell; "" = none.
        What is missing before a record of an earlier moment is of an earlier moment too."""
        if self.hole:
            return self.hole
        if self.first == 0 or self._before:
            return ""
        until = show_ms(self._oldest_ms) if self._oldest_ms else "the end: nothing is left"
        return f"records 0 to {self.first - 1}, from {show_ms(self.at_ms)} to {until}"

    def _reaches(self, record: Record, behind: int) -> bool:
        try:
            header = BatchHeader.from_headers(record.headers)
        except ValueError:
            return False  # extends no chain
        chain = self.chains.setdefault(header.chain, Chain())
        if kind_of(header.chain) == LABEL:
            self._oldest_ms = self._oldest_ms or header.arrival_max_ms
            self._before |= header.arrival_max_ms < self.at_ms
        fold = chain.judge(header.start, header.end, header.barrier or None)
        if fold is Fold.DANGLES and record.offset > behind and not self.hole:
            self.hole = f"records {behind} to {record.offset - 1}"
        if fold is not Fold.EXTENDS:
            return False
        if kind_of(header.chain) == LABEL:
            if header.arrival_max_ms >= self.at_ms:
                chain.end = header.start if chain.end is None else chain.end
                self.verdicts_offset = self.verdicts_offset or header.verdicts_offset
                return True
            self.verdicts_offset = header.verdicts_offset
        chain.fold(header.start, header.end)
        return False

    @property
    def label_end(self) -> int | None:
        """The first position of `impressions` to learn; None = the partition holds no record."""
        found = self.chains.get(label_chain(self.partition))
        return None if found is None else found.end

    @property
    def retract_end(self) -> int:
        """What verdicts below took back is taken from older rows, or was never labelled."""
        found = self.chains.get(retract_chain(self.partition))
        return max(position(self.verdicts_offset), (found.end or 0) if found is not None else 0)


def vector_at(spans: Iterable[EndsAtTime], otherwise: dict[int, int]) -> dict[str, int]:
    """The vector to begin with. `otherwise`: partition -> position, where `examples` holds
    nothing yet."""
    found = list(spans)
    impressions = {
        s.partition: otherwise[s.partition] if s.label_end is None else s.label_end for s in found
    }
    vector = begin_vector(impressions, 0)
    for span in found:
        vector[retract_chain(span.partition)] = span.retract_end
    return vector


def find_spans(
    reader: Reader, stream: StreamConfig, at_ms: int, between: Callable[[], None]
) -> list[EndsAtTime]:
    """Read `examples` from its beginning to the records of a moment, or to its end if they are
    still to come.

    `between` is called between polls, and may raise. Raises LogError, also where nothing comes any
    more. One pass over what lies before, headers alone looked at; the reader's assignment is taken.
    """
    partitions = [Partition(stream.examples, p) for p in range(stream.partitions)]
    ends = reader.end_offsets(partitions)
    first = reader.beginning_offsets(partitions)
    wanted = {at: EndsAtTime(at.partition, at_ms, first[at]) for at in partitions}
    reader.assign(wanted)
    for partition in wanted:
        reader.seek(partition, first[partition])
    left = {p for p in wanted if first[p] < ends[p]}
    reader.pause(p for p in wanted if p not in left)
    silent = 0
    while left:
        between()
        try:
            polled = reader.poll(_RECORDS_MAX, _POLL_MS)
        except OffsetOutOfRange as error:  # between archive and log, or retention was faster
            wanted[error.partition].hole = f"records {error.offset} to {error.first - 1}"
            left.discard(error.partition)
            reader.seek(error.partition, error.first)
            reader.pause([error.partition])
            continue
        silent = 0 if polled else silent + 1
        if silent > _SILENT_POLLS_MAX:
            raise Unavailable(
                f"{stream.examples}: nothing comes, and the end of {sorted(left)} was not reached"
            )
        for partition, records in polled.items():
            if partition in left and any(wanted[partition].add(record) for record in records):
                left.discard(partition)
                reader.pause([partition])
        left -= {p for p in left if reader.position(p) >= ends[p]}
    return list(wanted.values())
