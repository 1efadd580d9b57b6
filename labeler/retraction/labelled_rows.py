"""The rows of `examples`, as every reader folds them, read back from an arrival on (C2)."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pyarrow as pa

from labeler.io import EMPTY_POLLS_MAX, POLL_MS, TailReader
from labeler.join import ExamplesFold, LabelStrategy
from stream import LABEL, Chain, Fold, Partition, Record, StreamConfig, offset_of
from stream.internal_topics import BatchHeader, MalformedRecord, decode_examples, trim
from stream.log import Log, Reader, Unavailable

#: Records of a partition of `examples` between which is not searched any more.
NEAR_RECORDS = 64
#: Records that are looked through for the first label behind a place.
LOOK_RECORDS = 256


class Labelled(NamedTuple):
    """The rows that a record adds to its chain."""

    kind: str  # LABEL or LATE
    partition: int
    offset: int
    arrival_max_ms: int
    rows: pa.RecordBatch


def reached_ms(
    log: Log,
    impressions: Partition,
    examples: Partition,
    strategy: LabelStrategy,
    stream: StreamConfig,
) -> int:
    """All arrivals below this have been labelled by a reading of a partition; 0 where that is not
    to be seen among its last records. It is the arrival of the first record that is not labelled
    yet, if that is there and believed as it stands (T3). Raises Unavailable."""
    tail = TailReader(log, stream.poll_records_max)
    try:
        start, _ = tail.span(examples, LOOK_RECORDS)
        fold = ExamplesFold(f"{strategy.kind}/{examples.partition}", from_first=start == 0)
        tail.read(examples, LOOK_RECORDS, fold.add)
    finally:
        tail.close()
    if fold.point is None:
        return 0
    reached, offset = fold.point.arrival_max_ms, offset_of(fold.point.start)
    reader = log.reader()
    try:
        if offset >= reader.end_offsets([impressions])[impressions]:
            return reached
        reader.assign([impressions])
        for record in _records(reader, impressions, offset, offset + 1, 1):
            if record.timestamp_ms <= reached + stream.jump_max_ms:
                reached = max(reached, record.timestamp_ms)
    finally:
        reader.close()
    return reached


def labelled(
    log: Log,
    examples: Partition,
    label_strategies: tuple[LabelStrategy, ...],
    from_ms: int,
    poll_records: int,
    wanted: Callable[[bytes], bool] | None = None,
) -> Iterator[Labelled]:
    """Records with rows that arrived at or after `from_ms`, and a few before them, in the order of
    the log, up to its present end. `wanted`: by its value, whether a record has to be read. Raises
    Unavailable."""
    reader = log.reader()
    try:
        first = reader.beginning_offsets([examples])[examples]
        end = reader.end_offsets([examples])[examples]
        reader.assign([examples])
        start = _search(reader, examples, first, end, from_ms)
        chains = {f"{r.kind}/{examples.partition}": Chain() for r in label_strategies}
        for record in _records(reader, examples, start, end, poll_records):
            name = (record.header("chain") or b"").decode("ascii", "replace")
            if name in chains:
                yield from _added(chains[name], record, examples.partition, start == 0, wanted)
    finally:
        reader.close()


def _added(
    chain: Chain,
    record: Record,
    partition: int,
    from_first: bool,
    wanted: Callable[[bytes], bool] | None,
) -> Iterator[Labelled]:
    try:
        header = BatchHeader.from_headers(record.headers)
    except MalformedRecord:
        return  # extends no chain
    if chain.judge(header.start, header.end) is Fold.DANGLES and not from_first:
        chain.end = header.start  # what lies between is not read
    kind, before = chain.fold(header.start, header.end)
    if kind is Fold.EXTENDS and record.value and (wanted is None or wanted(record.value)):
        try:
            rows = trim(decode_examples(record.value), before)
        except MalformedRecord:
            return  # nobody learned a row of it
        yield Labelled(
            header.chain.partition("/")[0], partition, record.offset, header.arrival_max_ms, rows
        )


def _records(
    reader: Reader, at: Partition, start: int, end: int, poll_records: int
) -> Iterator[Record]:
    reader.seek(at, start)
    empty = 0
    while reader.position(at) < end:
        records = reader.poll(poll_records, POLL_MS).get(at, [])
        empty = 0 if records else empty + 1
        if empty > EMPTY_POLLS_MAX:
            raise Unavailable(f"{at.topic}[{at.partition}]: no answer while reading back to {end}")
        yield from (record for record in records if record.offset < end)


def _search(reader: Reader, at: Partition, first: int, end: int, from_ms: int) -> int:
    """An offset at or before the first label that arrived at or after `from_ms`; arrivals rise
    along a chain."""
    low, high = first, end
    while high - low > NEAR_RECORDS:
        middle = (low + high) // 2
        arrival_ms = _arrival(reader, at, middle, high)
        if arrival_ms is not None and arrival_ms < from_ms:
            low = middle
        else:
            high = middle
    return low


def _arrival(reader: Reader, at: Partition, start: int, end: int) -> int | None:
    """Of the first label at or after an offset."""
    for record in _records(reader, at, start, min(end, start + LOOK_RECORDS), NEAR_RECORDS):
        if (record.header("chain") or b"").startswith(LABEL.encode()):
            try:
                return BatchHeader.from_headers(record.headers).arrival_max_ms
            except MalformedRecord:
                continue
    return None
