"""A record of `signals`: what every source did to every vendor in one closed bucket of arrival of
one input (F1).

Value: one Arrow IPC stream of `SIGNAL_SCHEMA`, or nothing where nobody did anything. Headers: the
chain, the range of positions counted, the bucket, and the arrival maximum at `end`, which makes
each record a complete resume point for the reader that wrote it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from stream import HASH_KEY, Record
from stream.columns import TS_MS_MAX
from stream.internal_topics import HeaderFields, MalformedRecord, read_rows, shown

#: Events that one row may count.
COUNT_MAX = 1 << 40
_TOPIC = "signals"
#: One row a (source, vendor, cell of event time). `""` = not given, or not readable (L5). Gaps are
#: those between consecutive events of the group in event time; `gap_ms_min` is -1 where the group
#: has one event only. `ids` has, of 64 bits, those that the ids of the events fall on: how many
#: different ones there are, whatever is sent again.
SIGNAL_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("vendor", pa.string(), nullable=False),
        pa.field("cell_ms", pa.int64(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("first_ts_ms", pa.int64(), nullable=False),
        pa.field("last_ts_ms", pa.int64(), nullable=False),
        pa.field("gap_ms_min", pa.int64(), nullable=False),
        pa.field("gaps_fast", pa.int64(), nullable=False),
        pa.field("ids", pa.int64(), nullable=False),
    ]
)

#: The same by session (`stream.hashing.keys.session_of`), as the counting readers write it.
SESSION_SIGNAL_SCHEMA = SIGNAL_SCHEMA.append(pa.field("session", pa.int64(), nullable=False))

_PREFIX = "signal/"
_NUMBERS = ("start", "end", "bucket_start_ms", "bucket_end_ms", "arrival_max_ms", "unknown")


def signal_chain(input: str) -> str:
    """The chain of an input's signals: `signal/impressions/0`."""
    return _PREFIX + input


@dataclass(frozen=True)
class Signal:
    """The range `[start, end)` of `input`, counted. All its arrivals lie in `[bucket_start_ms,
    bucket_end_ms)`.

    `bucket_end_ms` is exclusive and the watermark that follows once this is judged. A bucket too
    large for one record is sent in several; all but the last carry its own start there, for the
    bucket is not yet over.
    """

    input: str
    start: int
    end: int
    bucket_start_ms: int
    bucket_end_ms: int
    arrival_max_ms: int  # of the input at `end` (T1): where a restarted reader goes on from
    unknown: int  # records that could not be read (L5)
    rows: pa.RecordBatch | None  # SESSION_SIGNAL_SCHEMA; None = nobody did anything
    hash_key: str = ""  # of the system that wrote it (`stream.hashing.key_id`, C9); "" = not said

    @property
    def key(self) -> bytes:
        return self.input.encode()

    @property
    def value(self) -> bytes:
        if self.rows is None:
            return b""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.rows.schema) as writer:
            writer.write_batch(self.rows)
        return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]

    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]:
        numbers = tuple((name, str(getattr(self, name)).encode()) for name in _NUMBERS)
        key = ((HASH_KEY, self.hash_key.encode()),) if self.hash_key else ()
        return (("chain", signal_chain(self.input).encode()), *numbers, *key)


def decode_signal(record: Record) -> Signal:
    """Raises MalformedRecord naming the header that is missing or wrong, or what is wrong with
    the rows."""
    headers = HeaderFields(_TOPIC, record.headers)
    chain = headers.text("chain")
    if not chain.startswith(_PREFIX):
        headers.wrong("chain", f"{shown(chain)}, expected 'signal/<input>'")
    numbers = {name: headers.integer(name) for name in _NUMBERS}
    if numbers["end"] < numbers["start"] or numbers["bucket_end_ms"] < numbers["bucket_start_ms"]:
        headers.wrong("end", "range or bucket ends before it starts")
    rows = (
        read_rows(_TOPIC, record.value, SESSION_SIGNAL_SCHEMA, SIGNAL_SCHEMA)
        if record.value
        else None
    )
    if rows is not None:
        _check(rows)
    key = headers.text(HASH_KEY, "")
    return Signal(input=chain.removeprefix(_PREFIX), rows=rows, hash_key=key, **numbers)


def contradiction(
    signal: Signal, timestamp_ms: int, ends: Mapping[str, int], ahead_ms: int
) -> MalformedRecord | None:
    """What a signal says that its input's log does not hold: it is set aside, and counts for
    nothing (F3).

    `ends`: input -> the position behind the last record of its log, looked up after the signal was
    read. `timestamp_ms`: of the signal's record, than which a bucket ends at most `ahead_ms` later.
    """
    if signal.input not in ends:
        return MalformedRecord(_TOPIC, "header chain", f"{shown(signal.input)} is no input")
    if signal.end > ends[signal.input]:
        return MalformedRecord(
            _TOPIC, "header end", f"{signal.end}, and the log ends at {ends[signal.input]}"
        )
    if timestamp_ms > 0 and signal.bucket_end_ms > timestamp_ms + ahead_ms:
        return MalformedRecord(
            _TOPIC, "header bucket_end_ms", f"{signal.bucket_end_ms - timestamp_ms} ms ahead"
        )
    return None


def _check(rows: pa.RecordBatch) -> None:
    """Numbers that the filter adds up and divides by."""
    for name in ("cell_ms", "count", "first_ts_ms", "last_ts_ms", "gaps_fast"):
        column = rows.column(name).to_numpy()
        limit = COUNT_MAX if name in ("count", "gaps_fast") else TS_MS_MAX
        if len(column) and not (int(column.min()) >= 0 and int(column.max()) <= limit):
            raise MalformedRecord(_TOPIC, name, f"a number outside [0, {limit}]")
