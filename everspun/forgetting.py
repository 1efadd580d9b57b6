"""Forgetting a person: the verdicts that say so, where the person still stands, and how far it is
taken back.

Pure but for the logs it is given. A person is a source, as it stands in the events.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow.compute as pc

from everspun.audit import read_all
from labeler.fraud import pair_key
from stream import RETRACT, Chain, Partition, StreamConfig, kind_of, position, retract_chain
from stream.internal_topics import (
    FORGET,
    REJECT,
    BatchHeader,
    MalformedRecord,
    Verdict,
    decode_examples,
    decode_verdict,
)
from stream.log import Reader


@dataclass
class ForgetStatus:
    """Where a source stands in the logs. `said`: the end of the last verdict of rule `forget` on
    it, ms of event time, 0 = none; `offset`: where the last of them stands in `verdicts`."""

    rows: dict[str, int] = field(
        default_factory=dict
    )  # of `examples`, by kind of chain; repeats count again
    ends: dict[int, int] = field(default_factory=dict)  # partition -> end of its `retract` chain
    last: dict[int, int] = field(
        default_factory=dict
    )  # partition -> offset of the last record with rows of it
    said_from_ms: int = 0
    said_ms: int = 0
    offset: int = -1
    verdicts: int = 0

    @property
    def behind(self) -> list[int]:
        """Partitions whose retractions have not passed the verdicts."""
        return sorted(p for p, end in self.ends.items() if end < position(self.offset + 1))


def orders(source: str, from_ms: int, to_ms: int, longest_ms: int) -> Iterator[Verdict]:
    """Verdicts that reject everything of a source between these event times, each no longer than
    `longest_ms` (C4)."""
    while from_ms < to_ms:
        end_ms = min(to_ms, from_ms + longest_ms)
        id = f"{FORGET}/{from_ms}/{end_ms}/{pair_key(source, '*')}"
        yield Verdict(id, FORGET, REJECT, source, None, from_ms, end_ms, "to be forgotten")
        from_ms = end_ms


def standing(reader: Reader, stream: StreamConfig, source: str) -> ForgetStatus:
    """Read `verdicts` and `examples` as they are now. Raises what logs raise, and AuditError."""
    found = ForgetStatus()
    for record in read_all(reader, Partition(stream.verdicts, 0)):
        try:
            said = decode_verdict(record.value)
        except ValueError:
            continue
        if not isinstance(said, Verdict) or said.source != source:
            continue
        found.verdicts += 1
        if said.rule == FORGET:
            found.said_from_ms = min(found.said_from_ms or said.from_ms, said.from_ms)
            found.said_ms, found.offset = max(found.said_ms, said.to_ms), record.offset
    for p in range(stream.partitions):
        _examples(reader, stream, p, source, found)
    return found


def _examples(
    reader: Reader, stream: StreamConfig, p: int, source: str, found: ForgetStatus
) -> None:
    chain = Chain(0)
    for record in read_all(reader, Partition(stream.examples, p)):
        try:
            header = BatchHeader.from_headers(record.headers)
            rows = decode_examples(record.value) if record.value else None
        except MalformedRecord:
            continue  # nobody learns of it
        if header.chain == retract_chain(p):
            chain.end = max(chain.end or 0, header.end)
        if rows is not None:
            count = int(pc.sum(pc.equal(rows.column("source"), source)).as_py() or 0)
            if count:
                kind = kind_of(header.chain)
                found.rows[kind] = found.rows.get(kind, 0) + count
                found.last[p] = record.offset
    found.ends[p] = chain.end or 0


def taken_back(reader: Reader, stream: StreamConfig, source: str) -> int:
    """Rows of a source that retractions in the log take back."""
    total = 0
    for p in range(stream.partitions):
        chain = Chain(0)
        for record in read_all(reader, Partition(stream.examples, p)):
            try:
                header = BatchHeader.from_headers(record.headers)
            except MalformedRecord:
                continue
            if (
                kind_of(header.chain) != RETRACT
                or not header.rejected
                or header.end <= (chain.end or 0)
            ):
                continue
            chain.end = header.end
            try:
                rows = decode_examples(record.value or b"")
            except MalformedRecord:
                continue
            mine = pc.and_(
                pc.equal(rows.column("source"), source),
                pc.greater_equal(rows.column("position"), 0),
            )
            total += int(pc.sum(mine).as_py() or 0)
    return total
