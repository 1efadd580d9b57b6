"""The audit's own fold of `examples`: what the output log says happened, computed from nothing else
(C2, S7).

Where the first records are gone (retention), a chain's fold begins at what is still there, and its
row hash is that of the rows since: the difference of what two claims say must be the difference of
what the fold says.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from checkpointer.archive import FORGOTTEN
from stream import RETRACT, Chain, Fold, Record, kind_of
from stream.internal_topics import BatchHeader, decode_examples, row_hash_sum, rows_from, rows_of
from stream.kernels import HASH_MODULUS

#: Counts that are summed over the records which extend a chain.
IMPRESSION_CLASSES = (
    "labelled",
    "sampled",
    "rejected",
    "duplicate",
    "withheld",
    "quarantined",
    "lost",
)
CLICK_CLASSES = (
    "clicks_read",
    "clicks_joined",
    "clicks_duplicate",
    "clicks_quarantined",
    "clicks_too_early",
)
COUNTED = (*IMPRESSION_CLASSES, "positives", *CLICK_CLASSES)


@dataclass
class HeaderCounts:
    """Counts of the headers from the first place on behind which an input is still whole.

    `first` and `start` are positions of `impressions[p]`, or offsets of `clicks[p]`. `start` is
    None until a record ends at or behind `first`: behind it the input's arrival maximum is known
    too (C4).
    """

    first: int
    start: int | None = None
    arrival_max_ms: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*COUNTED, FORGOTTEN), 0))

    def add(self, header: BatchHeader, end: int, arrival_max_ms: int, forgotten: int) -> None:
        """A record that extends the chain; `end` and `arrival_max_ms` are the input's behind it."""
        if self.start is not None:
            for name in COUNTED:
                self.counts[name] += getattr(header, name)
            self.counts[FORGOTTEN] += forgotten
        elif end >= self.first:
            self.start, self.arrival_max_ms = end, arrival_max_ms


@dataclass
class ChainAudit:
    """One chain, folded record by record. `marks` are the ends at which somebody claims to stand.

    `begin` is where the fold begins: None while earlier records are gone and no record has come.
    `hash_at` holds the row hash of the rows from `hash_from` to each mark; `whole` says that these
    are all that were ever learned.
    """

    chain: str
    marks: set[int]
    fold: Chain
    begin: int | None
    floor: int = 0  # rows of impressions below are not learned from a retraction (C1)
    model_begin: int | None = None  # where the model began, if it has
    least: int = 0  # the chain has certainly reached this before the first record
    impressions: HeaderCounts = field(default_factory=lambda: HeaderCounts(0, 0))
    clicks: HeaderCounts = field(default_factory=lambda: HeaderCounts(0, 0))
    whole: bool = True
    hash_from: int = 0
    rows: int = 0
    labelled: int = 0
    lost_offsets: int = (
        0  # of the inputs, passed over on an override (C7): unknown what stood there
    )
    clicks_lost_offsets: int = 0
    row_hash: int = 0
    records: int = 0
    repeats: int = 0
    dangling: int = 0
    first_dangling: str = ""
    first_offset: int = -1  # of the first record of this chain
    clicks_offset: int = 0  # of the last record: clicks below have been read (C4)
    overlaps: int = (
        0  # records that had to be trimmed, whose class counts cover more than they added
    )
    unreadable: list[int] = field(
        default_factory=list
    )  # offsets of records that extend it, and hold no rows to read
    hash_at: dict[int, int] = field(default_factory=dict)

    @classmethod
    def begin_at(cls, chain: str, begin: int, marks: Iterable[int], floor: int = 0) -> "ChainAudit":
        """A chain of which everything is still there."""
        audit = cls(
            chain, set(marks), Chain(begin), begin, floor if kind_of(chain) == RETRACT else 0, begin
        )
        audit._start_hash(begin)
        return audit

    @classmethod
    def begin_retained(
        cls, chain: str, model_begin: int | None, least: int, marks: Iterable[int], floor: int = 0
    ) -> "ChainAudit":
        """A chain whose first record there is says where its fold begins."""
        floor = floor if kind_of(chain) == RETRACT else 0
        return cls(chain, set(marks), Chain(None), None, floor, model_begin, least, whole=False)

    @property
    def end(self) -> int | None:
        """None: no record of it is there, and earlier ones are gone."""
        return self.fold.end

    def add(self, record: Record) -> None:
        """Raises ValueError for a record that is none of a chain."""
        header = BatchHeader.from_headers(record.headers)
        if self.begin is None:
            self._begin_with(header.start)
        self.first_offset = record.offset if self.first_offset < 0 else self.first_offset
        kind, before = self.fold.fold(header.start, header.end, header.barrier or None)
        self.records += 1
        if kind is Fold.REPEAT:
            self.repeats += 1
        elif kind is Fold.DANGLES:
            if not self.dangling:
                self.first_dangling = (
                    f"{self.chain} ends at {before}, and record {record.offset} "
                    f"begins at {header.start}"
                )
            self.dangling += 1
        elif kind is Fold.EXTENDS:
            self._extend(record, header, before)

    def _begin_with(self, start: int) -> None:
        """The first record there is, where earlier ones may be gone. What certainly was reached
        before it makes it a repeat up to there; one that starts at the model's beginning or below
        has nothing missing before it."""
        self.begin = max(start, self.least, self.model_begin or 0)
        self.whole = (
            self.model_begin is not None
            and self.begin == self.model_begin
            and self.least <= self.begin
        )
        self.fold.end = self.begin
        self._start_hash(self.begin)

    def _start_hash(self, at: int) -> None:
        self.hash_from = at
        if at in self.marks:
            self.hash_at[at] = 0

    def _extend(self, record: Record, header: BatchHeader, before: int) -> None:
        self.overlaps += header.start < before
        self.clicks_offset = header.clicks_offset
        self.labelled += header.labelled
        self.lost_offsets += header.lost_offsets
        self.clicks_lost_offsets += header.clicks_lost_offsets
        forgotten = int(record.header(FORGOTTEN) or 0)
        self.impressions.add(header, header.end, header.arrival_max_ms, forgotten)
        self.clicks.add(header, header.clicks_offset, header.clicks_arrival_max_ms, forgotten)
        self._hash(record, header, before)
        if forgotten:  # its rows cannot be hashed any more: what is learned from here on can
            self.whole, self.row_hash = False, 0
            self.hash_at.clear()
            self._start_hash(header.end)

    def _hash(self, record: Record, header: BatchHeader, before: int) -> None:
        inside = sorted(m for m in self.marks if before < m < header.end)
        rows = self._rows(record)
        if rows is not None:
            batch = rows_of(rows, self.chain, header.end, before, header.end)
            for mark in inside:  # a shard may stand inside a record that it got in pieces
                part = rows_of(rows, self.chain, header.end, before, mark)
                self.hash_at[mark] = (self.row_hash + row_hash_sum(part)) % HASH_MODULUS
            self.rows += batch.num_rows
            self.row_hash = (self.row_hash + row_hash_sum(batch)) % HASH_MODULUS
        else:
            self.hash_at.update(dict.fromkeys(inside, self.row_hash))
        if header.end in self.marks:
            self.hash_at[header.end] = self.row_hash

    def _rows(self, record: Record) -> pa.RecordBatch | None:
        if not record.value:
            return None
        try:
            return rows_from(decode_examples(record.value), self.floor)
        except (ValueError, pa.ArrowException):
            self.unreadable.append(record.offset)
            return None
