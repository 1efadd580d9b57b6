"""Whether all that a retraining asks for is still there: the records of `examples` from one moment
to another (S5).

Looked at before anything is started or written. Headers alone are looked at; the archive's files
are not decoded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from checkpointer.archive import Archive, first_offset_of
from checkpointer.cuts import EndsAtTime
from checkpointer.store import Damaged
from everspun.audit.records import read_all
from stream import (
    LABEL,
    Chain,
    Fold,
    Partition,
    Record,
    StreamConfig,
    kind_of,
    label_chain,
    show_ms,
)
from stream.internal_topics import BatchHeader
from stream.log import Reader

#: The beginning: no record of a label chain is of an earlier moment.
BEGINNING_MS = 100_000_000_000


@dataclass
class Asked:
    """One partition of `examples`: feed it records in their order until it wants no more. `first`
    is the offset of the first record there is, `next_record` where a model that has begun already
    reads on (-1: it has not)."""

    name: str
    partition: int
    first: int
    from_ms: int
    to_ms: int | None
    next_record: int = -1
    span: EndsAtTime = field(init=False)
    until: EndsAtTime | None = field(init=False)
    rows: int = 0  # of the label chain, from `from_ms` to `to_ms`
    lacks: list[str] = field(default_factory=list)
    _chains: dict[str, Chain] = field(default_factory=dict)
    _before: bool = (
        False  # a record of an earlier moment was seen: nothing of `from_ms` is missing before it
    )
    _oldest_ms: int = 0

    def __post_init__(self) -> None:
        self.span = EndsAtTime(self.partition, self.from_ms)
        self.until = None if self.to_ms is None else EndsAtTime(self.partition, self.to_ms)

    def add(self, record: Record, archived: bool) -> bool:
        """True once no more records are needed."""
        reached = self.span.add(record)
        ended = self.until.add(record) if self.until is not None else reached
        try:
            header = BatchHeader.from_headers(record.headers)
        except ValueError:
            return False  # extends no chain
        chain = self._chains.setdefault(header.chain, Chain())
        kind, at = chain.fold(header.start, header.end, header.barrier or None)
        if (
            kind is Fold.DANGLES and archived
        ):  # a reader that looks for `from_ms` comes through here, too
            if self.to_ms is None or header.arrival_max_ms < self.to_ms:
                self.lacks.append(
                    f"{self.name}: {header.chain} from {at} to {header.start}, before record "
                    f"{record.offset} of "
                    f"{show_ms(header.arrival_max_ms)}: records are in neither archive nor log"
                )
            chain.end = header.end
        if kind_of(header.chain) != LABEL:
            return False
        self._oldest_ms = self._oldest_ms or header.arrival_max_ms
        self._before |= header.arrival_max_ms < self.from_ms
        if kind is Fold.EXTENDS and reached and not ended:
            self.rows += header.labelled
        return ended

    @property
    def is_known(self) -> bool:
        """Whether the place where `from_ms` begins is seen."""
        return self.first == 0 or self._before

    def finish(self) -> None:
        """All records there are were fed, or no more were wanted: what is missing before the
        first of them?"""
        if self.next_record >= 0:
            if self.first > self.next_record:
                self._lack(self.next_record)
        elif not self.is_known:
            self._lack(0)

    def _lack(self, offset: int) -> None:
        since = "the beginning" if self.from_ms <= BEGINNING_MS else show_ms(self.from_ms)
        until = show_ms(self._oldest_ms) if self._oldest_ms else "the end: nothing is left"
        self.lacks.append(
            f"{self.name}: records {offset} to {self.first - 1}, from {since} to {until}"
        )

    @property
    def oldest_whole_ms(self) -> int:
        """The earliest moment of which everything is there; 0 = none is."""
        return self._oldest_ms + 1 if self._oldest_ms else 0


def look(
    reader: Reader,
    archive: Archive | None,
    stream: StreamConfig,
    from_ms: int,
    to_ms: int | None,
    next_record: Mapping[int, int],
) -> list[Asked]:
    """Every partition, looked at; `archive` is for what the log has no more. Raises what logs
    raise."""
    found: list[Asked] = []
    for p in range(stream.partitions):
        partition = Partition(stream.examples, p)
        first = reader.beginning_offsets([partition])[partition]
        paths = (
            [path for path in archive.paths(p) if first_offset_of(path) < first]
            if archive is not None
            else []
        )
        there = min(first, first_offset_of(paths[0])) if paths else first
        asked = Asked(f"{stream.examples}[{p}]", p, there, from_ms, to_ms, next_record.get(p, -1))
        if not any(asked.add(record, True) for record in _archived(archive, paths, first, asked)):
            for record in read_all(reader, partition):
                if asked.add(record, bool(paths)):
                    break
        asked.finish()
        found.append(asked)
    return found


def _archived(
    archive: Archive | None, paths: list[str], first: int, asked: Asked
) -> Iterator[Record]:
    at = 0
    for path in paths:
        assert archive is not None
        try:
            records = archive.record_headers(path)
        except Damaged as error:
            asked.lacks.append(str(error))
            continue
        for record in records:
            if at <= record.offset < first:
                at = record.offset + 1
                yield record


def begun_otherwise(begun: Mapping[str, int], asked: list[Asked]) -> str:
    """Where a model that has begun did so elsewhere than it is asked for now: a chain with both
    ends; "" if nowhere."""
    for one in asked:
        chain, end = label_chain(one.partition), one.span.label_end
        if end is not None and one.is_known and chain in begun and begun[chain] != end:
            return f"{chain} at {begun[chain]}, and --from would begin at {end}"
    return ""
