"""The counting readers: what arrives at the head of an input, counted by source and vendor for the
fraud filter (F1).

One reader an input (`impressions/p`, `clicks/p`), bound by nothing but its log (L5): it does not
wait for labels, and what it cannot read counts as unknown. A bucket of arrival closes at the first
record, heartbeats included, whose arrival lies in a later bucket: boundaries are a function of the
log, and a restarted reader counts the same again.

The chain of an input's signals is its own commit record: `SignalEnds` folds it, and the reader goes
on at its end.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from labeler.counting.signals import SESSION_SIGNAL_SCHEMA, Signal
from labeler.fraud_config import FraudConfig
from stream import ROW_BITS, Chain, Fold, Record, StreamConfig, offset_of, position
from stream.decoding import (
    TIME_FINE,
    ArrivalClock,
    Arrived,
    DecodedActivity,
    arrival_clock,
    decode_activity,
    judge_event_times,
)
from stream.hashing import key_id, session_of
from stream.internal_topics import ClockOverride, cuts, input_name, maximum_set_back, string_lengths
from stream.kernels import I64, U64
from stream.log import RecordColumns

logger = logging.getLogger(__name__)

#: A row of SIGNAL_SCHEMA without its names: two offsets and eight numbers.
SIGNAL_BYTES = 2 * 4 + 8 * 8
#: The gap of a group's first event, above all others.
NO_GAP = np.iinfo(np.int64).max


#: Reads the events of records with their arrivals (n,), ms. Raises nothing: what is bad is unknown
#: (L5).
ReadActivity = Callable[[RecordColumns, I64], DecodedActivity]


def activity_reader(stream: StreamConfig, topic: str, partition: int) -> ReadActivity:
    """Reads what counting needs of `impressions[partition]` or `clicks[partition]`; the rest is
    passed over."""
    is_click = topic == stream.clicks

    def read(records: RecordColumns, arrival_ms: I64) -> DecodedActivity:
        events = decode_activity(records, partition, arrival_ms, is_click, stream)
        stamp_ms = records.timestamp_ms[
            np.searchsorted(records.offset, events.position >> ROW_BITS)
        ]
        limits = (stream.skew_ms, stream.age_max_ms)
        fine = judge_event_times(events.ts_ms, events.arrival_ms, *limits, stamp_ms) == TIME_FINE
        if fine.all():
            return events
        rows = pa.array(np.flatnonzero(fine))
        return DecodedActivity(
            events.position[fine],
            events.ts_ms[fine],
            events.arrival_ms[fine],
            events.source.take(rows),
            events.vendor.take(rows),
            events.id[fine],
            np.sort(np.concatenate([events.unknown, events.position[~fine] >> ROW_BITS])),
        )

    return read


class CountingPoint(NamedTuple):
    """Where a counting reader goes on: the end of its chain, and the arrival maximum there (T1)."""

    end: int
    arrival_max_ms: int


class SignalEnds:
    """Folds the chains of all inputs from the records of `signals` (C2). Begin at the first one
    retained."""

    def __init__(self) -> None:
        self._chains: dict[str, Chain] = {}
        self._arrival_max_ms: dict[str, int] = {}
        self.dangling = 0  # records above the end of their chain: an alarm (C5)

    def on_signal(self, signal: Signal) -> None:
        kind, _ = self._chains.setdefault(signal.input, Chain()).fold(signal.start, signal.end)
        if kind is Fold.EXTENDS:
            self._arrival_max_ms[signal.input] = signal.arrival_max_ms
        elif kind is Fold.DANGLES:
            self.dangling += 1

    def resume_point(self, input: str, first_offset: int) -> CountingPoint:
        """Where to go on; at `first_offset`, the first one still in the input, if nothing was
        ever counted."""
        chain = self._chains.get(input)
        if chain is None or chain.end is None:
            return CountingPoint(position(first_offset), 0)
        return CountingPoint(chain.end, self._arrival_max_ms[input])


class _Bucket:
    """The open bucket: events of the records from position `start` on, whose arrivals lie in
    bucket `number`."""

    def __init__(self, number: int, start: int) -> None:
        self.number = number
        self.start = start
        self.parts: list[DecodedActivity] = []
        self.rows = self.bytes = 0  # of the events
        self.unknown = 0


class CountingReader:
    """One input, counted. Feed it the records of the partition from `offset` on, in order.

    What it answers is to be appended to `signals` in order, one unacknowledged at a time (C5).
    After a failed send make a new reader at the chain's end in the log.
    """

    def __init__(
        self,
        stream: StreamConfig,
        fraud: FraudConfig,
        topic: str,
        partition: int,
        at: CountingPoint,
        overrides: Collection[ClockOverride] = (),
    ) -> None:
        """`words`: what operators said of this partition's times (T3)."""
        self.input = input_name(topic, partition)
        at = at._replace(
            arrival_max_ms=maximum_set_back(overrides, offset_of(at.end), at.arrival_max_ms)
        )
        self._bucket_ms = stream.signal_ms
        self._fraud = fraud
        self._hash_key = key_id(stream.hash_secret)
        self._read = activity_reader(stream, topic, partition)
        self._clock = arrival_clock(stream, at.arrival_max_ms, overrides)
        #: A part of a bucket ends behind the record with which its events reach this; a record of
        #: more is cut itself. So what `group` makes of a part, which is no larger than its events,
        #: fits a record.
        self._part_bytes = stream.record_bytes_max // 3
        self._begin = at.end
        self._end = at.end  # of the signals given out
        self._arrival_max_ms = at.arrival_max_ms  # of the last record taken into a bucket
        self._open: _Bucket | None = None
        self._passed = 0  # records that are gone, to be counted as unknown with the next one
        self._empty: Signal | None = None  # closed buckets without activity, to be given out as one

    @property
    def offset(self) -> int:
        """Where a reader that goes on from here must seek to: the first record not counted into
        a signal."""
        return offset_of(self._end)

    @property
    def held(self) -> int:
        """Records that wait for a jump of time to be confirmed or contradicted (T3)."""
        return self._clock.held

    @property
    def clock(self) -> ArrivalClock:
        """What time it is in this input."""
        return self._clock

    def on_records(self, records: Sequence[Record]) -> list[Signal]:
        """The next records in; out, in order, the buckets that they close.

        Closed buckets without activity that follow one another come as one signal: it counts
        nothing, so it does not matter where it is cut. All other boundaries are a function of the
        log.
        """
        arrived = self._clock.admit(records)
        if not arrived.records:
            return []
        batch = _CountedBatch(arrived, self._read, self._begin, self._part_bytes)
        buckets = arrived.arrival_ms // self._bucket_ms
        cuts = [0, *(np.flatnonzero(np.diff(buckets)) + 1).tolist(), len(buckets)]
        signals: list[Signal] = []
        for low, high in pairwise(cuts):
            bucket = self._enter(int(buckets[low]), batch.offset(low), signals)
            while low < high:
                if bucket.rows >= self._fraud.signal_rows_max or bucket.bytes >= self._part_bytes:
                    # Only now, with more of the bucket to come: a part that ended with its bucket
                    # would leave an empty range behind it, which no fold extends, and with it the
                    # bucket's watermark.
                    bucket = self._cut(bucket, position(batch.offset(low)), signals)
                if batch.is_large(low):
                    bucket, low = self._add_large(bucket, batch, low, signals), low + 1
                    continue
                left = self._fraud.signal_rows_max - bucket.rows, self._part_bytes - bucket.bytes
                end = batch.full_at(low, high, *left)
                self._add(bucket, batch, low, end)
                low = end
        self._give_empty(signals)
        return signals

    def pass_over(self, records: int) -> None:
        """So many records before the next one are gone (C7): unknown, like whatever cannot be
        read (L5)."""
        self._passed += records

    def _enter(self, number: int, offset: int, signals: list[Signal]) -> _Bucket:
        """The bucket that the record at `offset` lies in; the one before it is closed."""
        if self._open is None:
            self._open = _Bucket(number, self._end)
        elif number > self._open.number:
            self._close(self._open, position(offset), number, signals)
            self._open = _Bucket(number, position(offset))
        return self._open

    def _cut(self, bucket: _Bucket, at: int, signals: list[Signal]) -> _Bucket:
        """Send a full bucket's first part, up to position `at`; its end is its start, for more
        of it is to come."""
        self._close(bucket, at, bucket.number, signals)
        self._open = _Bucket(bucket.number, at)
        return self._open

    def _add_large(
        self, bucket: _Bucket, batch: "_CountedBatch", index: int, signals: list[Signal]
    ) -> _Bucket:
        """A record whose events alone are more than a part holds, in as many parts as it takes."""
        self._arrival_max_ms = batch.arrival_ms(index)
        for at, part in batch.pieces(index):
            if bucket.rows:
                bucket = self._cut(bucket, at, signals)
            self._count(bucket, part, 0)
        return bucket

    def _add(self, bucket: _Bucket, batch: "_CountedBatch", low: int, high: int) -> None:
        if low == high:
            return
        self._count(bucket, *batch.part(low, high))
        self._arrival_max_ms = batch.arrival_ms(high - 1)

    def _count(self, bucket: _Bucket, part: DecodedActivity, unknown: int) -> None:
        bucket.unknown, self._passed = bucket.unknown + self._passed, 0
        if len(part.ts_ms):
            bucket.parts.append(part)
            bucket.rows += len(part.ts_ms)
            bucket.bytes += int(event_bytes(part).sum())
        bucket.unknown += unknown

    def _close(self, bucket: _Bucket, end: int, next_number: int, signals: list[Signal]) -> None:
        empty = not bucket.rows and not bucket.unknown
        if not empty or (self._empty is not None and self._empty.end != bucket.start):
            self._give_empty(signals)
        start, first = bucket.start, bucket.number
        if empty and self._empty is not None:
            start, first = self._empty.start, self._empty.bucket_start_ms // self._bucket_ms
        signal = Signal(
            input=self.input,
            start=start,
            end=end,
            bucket_start_ms=first * self._bucket_ms,
            bucket_end_ms=next_number * self._bucket_ms,
            arrival_max_ms=self._arrival_max_ms,
            unknown=bucket.unknown,
            rows=group(bucket.parts, self._fraud.cell_ms, self._fraud.gap_fast_ms)
            if bucket.rows
            else None,
            hash_key=self._hash_key,
        )
        self._end = end
        if empty:
            self._empty = signal
        else:
            signals.append(signal)

    def _give_empty(self, signals: list[Signal]) -> None:
        if self._empty is not None:
            signals.append(self._empty)
            self._empty = None


class _CountedBatch:
    """Records with their arrivals and events, addressed by index of the record. Events below
    position `begin` are left out: a part that ended within their record counts them."""

    def __init__(self, arrived: Arrived, read: ReadActivity, begin: int, part_bytes: int) -> None:
        records, arrival_ms, _ = arrived
        self._part_bytes = part_bytes
        activity = _read_each(records, arrival_ms, read)
        counted = int(np.searchsorted(activity.position, begin))
        self._activity = _slice(activity, counted, len(activity.position)) if counted else activity
        self._arrival_ms = arrival_ms
        self._offsets = np.ascontiguousarray(records.offset)
        self._unknown = self._activity.unknown
        starts = np.append(self._offsets, self._offsets[-1] + 1) << ROW_BITS
        self._rows_before = np.searchsorted(self._activity.position, starts)  # (records + 1,)
        self._sizes = event_bytes(self._activity)
        self._bytes_before = np.append(0, np.cumsum(self._sizes))[
            self._rows_before
        ]  # (records + 1,)

    def offset(self, index: int) -> int:
        return int(self._offsets[index])

    def arrival_ms(self, index: int) -> int:
        return int(self._arrival_ms[index])

    def is_large(self, index: int) -> bool:
        """Whether a record's events are more than a part holds."""
        return bool(self._bytes_before[index + 1] - self._bytes_before[index] > self._part_bytes)

    def full_at(self, low: int, high: int, rows: int, size: int) -> int:
        """The index behind the record with which `[low, ...)` holds `rows` events or `size` bytes
        or more, before the first large record and `high`; above `low`."""
        by_rows = int(np.searchsorted(self._rows_before, self._rows_before[low] + rows))
        by_bytes = int(np.searchsorted(self._bytes_before, self._bytes_before[low] + size))
        end = max(low + 1, min(by_rows, by_bytes, high))
        large = np.flatnonzero(np.diff(self._bytes_before[low : end + 1]) > self._part_bytes)
        return low + int(large[0]) if len(large) else end

    def pieces(self, index: int) -> Iterator[tuple[int, DecodedActivity]]:
        """A large record's events in pieces that a part holds, each with the position of its
        first one."""
        first, last = int(self._rows_before[index]), int(self._rows_before[index + 1])
        for start, end in pairwise(cuts(self._sizes[first:last], last - first, self._part_bytes)):
            part = _slice(self._activity, first + start, first + end)
            yield int(part.position[0]), part

    def part(self, low: int, high: int) -> tuple[DecodedActivity, int]:
        """The events of records `[low, high)`, and how many could not be read."""
        activity = _slice(self._activity, int(self._rows_before[low]), int(self._rows_before[high]))
        offsets = self._offsets[[low, high - 1]]
        unknown = np.searchsorted(self._unknown, [offsets[0], offsets[1] + 1])
        return activity, int(unknown[1] - unknown[0])


def _slice(rows: DecodedActivity, first: int, last: int) -> DecodedActivity:
    """Its events `[first, last)`, and nothing that is unknown."""
    return DecodedActivity(
        rows.position[first:last],
        rows.ts_ms[first:last],
        rows.arrival_ms[first:last],
        rows.source.slice(first, last - first),
        rows.vendor.slice(first, last - first),
        rows.id[first:last],
        rows.unknown[:0],
    )


def event_bytes(events: DecodedActivity) -> I64:
    """What a row of SIGNAL_SCHEMA for each event alone takes, (n,)."""
    return SIGNAL_BYTES + string_lengths(events.source) + string_lengths(events.vendor)


def _read_each(records: RecordColumns, arrival_ms: I64, read: ReadActivity) -> DecodedActivity:
    """What `read` makes of the records; of one that it cannot read, that it is unknown (L5),
    whatever it raised."""
    try:
        return read(records, arrival_ms)
    except MemoryError:
        raise
    except Exception as error:
        if len(records) <= 1:
            logger.error("offset %d is counted as unknown: %r", int(records.offset[0]), error)
            none, names = np.zeros(0, np.int64), pa.array([], pa.string())
            return DecodedActivity(
                none,
                none,
                none,
                names,
                names,
                none.view(np.uint64),
                np.ascontiguousarray(records.offset),
            )
    middle = len(records) // 2
    halves = [
        _read_each(records[at], arrival_ms[at], read) for at in (slice(middle), slice(middle, None))
    ]
    columns = zip(*halves, strict=True)
    return DecodedActivity(
        *(pa.concat_arrays(c) if isinstance(c[0], pa.Array) else np.concatenate(c) for c in columns)
    )


def group(parts: list[DecodedActivity], cell_ms: int, gap_fast_ms: int) -> pa.RecordBatch:
    """Count events by (source, vendor, session, cell of event time), in order of first appearance,
    then of session and cell: `SESSION_SIGNAL_SCHEMA`. Needs at least one event."""
    source = pa.chunked_array([part.source for part in parts]).combine_chunks().dictionary_encode()
    vendor = pa.chunked_array([part.vendor for part in parts]).combine_chunks().dictionary_encode()
    ts_ms = np.concatenate([part.ts_ms for part in parts])
    sources, vendors = (np.asarray(names.indices).astype(np.int64) for names in (source, vendor))
    cells = ts_ms // cell_ms
    cell_min = int(cells.min())
    span = int(cells.max()) - cell_min + 1
    ids = np.concatenate([part.id for part in parts])
    sessions, session = np.unique(session_of(ids), return_inverse=True)
    group = ((sources * len(vendor.dictionary) + vendors) * len(sessions) + session) * span + (
        cells - cell_min
    )
    order = _order(group, ts_ms)
    group = group[order]
    begins = np.append(True, group[1:] != group[:-1])
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(order)) - 1
    one = order[first]
    ts_ms = ts_ms[order]
    gaps = np.diff(ts_ms, prepend=ts_ms[:1])
    gaps[begins] = NO_GAP
    shortest = np.minimum.reduceat(gaps, first)
    columns = [
        source.dictionary.take(pa.array(sources[one])),
        vendor.dictionary.take(pa.array(vendors[one])),
        pa.array(cells[one] * cell_ms),
        pa.array(last - first + 1),
        pa.array(ts_ms[first]),
        pa.array(ts_ms[last]),
        pa.array(np.where(shortest == NO_GAP, -1, shortest)),
        pa.array(np.add.reduceat((gaps < gap_fast_ms).astype(np.int64), first)),
        pa.array(np.bitwise_or.reduceat(_id_bit(ids)[order], first)),
        pa.array(sessions[session[one]]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SESSION_SIGNAL_SCHEMA)


def _order(group: I64, ts_ms: I64) -> I64:
    """The order by group, then by time, then as they stand. Times of a log rise nearly, so rows are
    first brought into theirs, and then one sort of group and place together does it, without a
    second key."""
    by_time = np.argsort(ts_ms, kind="stable")
    n = len(group)
    if int(group.max()) >= np.iinfo(np.int64).max // n:
        return np.lexsort((ts_ms, group))
    placed: I64 = group[by_time] * n + np.arange(n)
    placed.sort()
    return by_time[placed % n]


def _id_bit(ids: U64) -> I64:
    """The one of 64 bits that each id falls on: by bits that the session has no part in."""
    return (np.uint64(1) << (ids >> np.uint64(42) & np.uint64(63))).view(np.int64)
