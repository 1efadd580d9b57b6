"""The audit's own fold of `examples`: what the output log says happened, computed from nothing else (C2, S7)."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from stream.chain import RETRACT, Chain, Fold, kind_of
from stream.examples import BatchHeader, decode_examples, rows_from, rows_of
from stream.record import Record
from stream.rowhash import HASH_MODULUS, row_hash_sum

#: Counts that are summed over the records which extend a chain.
IMPRESSION_CLASSES = ("labelled", "sampled", "rejected", "duplicate", "withheld", "quarantined")
CLICK_CLASSES = ("clicks_read", "clicks_joined", "clicks_duplicate", "clicks_quarantined")


@dataclass
class ChainAudit:
    """One chain, folded record by record. `marks` are the ends at which somebody claims to stand."""

    chain: str
    marks: set[int]
    fold: Chain
    begin: int
    floor: int = 0  # rows of impressions below are not learned from a retraction (C1)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((*IMPRESSION_CLASSES, "positives", *CLICK_CLASSES), 0)
    )
    rows: int = 0
    row_hash: int = 0
    records: int = 0
    repeats: int = 0
    dangling: int = 0
    clicks_offset: int = 0  # of the last record: clicks below have been read (C4)
    overlaps: int = 0  # records that had to be trimmed, whose class counts cover more than they added
    hash_at: dict[int, int] = field(default_factory=dict)

    @classmethod
    def begin_at(cls, chain: str, begin: int, marks: Iterable[int], floor: int = 0) -> "ChainAudit":
        audit = cls(chain, set(marks), Chain(begin), begin, floor if kind_of(chain) == RETRACT else 0)
        if begin in audit.marks:
            audit.hash_at[begin] = 0
        return audit

    @property
    def end(self) -> int:
        assert self.fold.end is not None
        return self.fold.end

    def add(self, record: Record) -> None:
        header = BatchHeader.from_headers(record.headers)
        kind, before = self.fold.fold(header.start, header.end, header.barrier or None)
        self.records += 1
        if kind is Fold.REPEAT:
            self.repeats += 1
        elif kind is Fold.DANGLES:
            self.dangling += 1
        elif kind is Fold.EXTENDS:
            self._extend(header, record.value or b"", before)

    def _extend(self, header: BatchHeader, value: bytes, before: int) -> None:
        self.overlaps += header.start < before
        self.clicks_offset = header.clicks_offset
        for name in self.counts:
            self.counts[name] += getattr(header, name)
        inside = sorted(m for m in self.marks if before < m < header.end)
        if value:
            record = rows_from(decode_examples(value), self.floor)
            batch = rows_of(record, self.chain, header.end, before, header.end)
            for mark in inside:  # a shard may stand inside a record that it got in pieces
                part = rows_of(record, self.chain, header.end, before, mark)
                self.hash_at[mark] = (self.row_hash + row_hash_sum(part)) % HASH_MODULUS
            self.rows += batch.num_rows
            self.row_hash = (self.row_hash + row_hash_sum(batch)) % HASH_MODULUS
        else:
            self.hash_at.update(dict.fromkeys(inside, self.row_hash))
        if header.end in self.marks:
            self.hash_at[header.end] = self.row_hash
