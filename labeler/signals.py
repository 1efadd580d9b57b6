"""A record of `signals`: what every source did to every vendor in one closed bucket of arrival of one input (F1).

Value: one Arrow IPC stream of `SIGNAL_SCHEMA`, or nothing where nobody did anything. Headers: the chain, the range of
positions counted, the bucket, and the arrival maximum at `end`, which makes each record a complete resume point for
the reader that wrote it.
"""

from dataclasses import dataclass

import pyarrow as pa

from stream.record import Record

#: One row a (source, vendor, cell of event time). `""` = not given, or not readable (L5). Gaps are those between
#: consecutive events of the group in event time; `gap_ms_min` is -1 where the group has one event only. `ids` has, of
#: 64 bits, those that the ids of the events fall on: how many different ones there are, whatever is sent again.
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

#: The same by session (`stream.keys.session_of`), as the counting readers write it.
SESSION_SIGNAL_SCHEMA = SIGNAL_SCHEMA.append(pa.field("session", pa.int64(), nullable=False))

_PREFIX = "signal/"
_NUMBERS = ("start", "end", "bucket_start_ms", "bucket_end_ms", "arrival_max_ms", "unknown")


def signal_chain(input: str) -> str:
    """The chain of an input's signals: `signal/impressions/0`."""
    return _PREFIX + input


@dataclass(frozen=True)
class Signal:
    """The range `[start, end)` of `input`, counted. All its arrivals lie in `[bucket_start_ms, bucket_end_ms)`.

    `bucket_end_ms` is exclusive and the watermark that follows once this is judged. A bucket too large for one record
    is sent in several; all but the last carry its own start there, for the bucket is not yet over.
    """

    input: str
    start: int
    end: int
    bucket_start_ms: int
    bucket_end_ms: int
    arrival_max_ms: int  # of the input at `end` (T1): where a restarted reader goes on from
    unknown: int  # records that could not be read (L5)
    rows: pa.RecordBatch | None  # SESSION_SIGNAL_SCHEMA; None = nobody did anything

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
        return (("chain", signal_chain(self.input).encode()), *numbers)


def decode_signal(record: Record) -> Signal:
    """Raises ValueError naming the header that is missing or wrong, or what Arrow says of the value."""
    chain = (record.header("chain") or b"").decode()
    if not chain.startswith(_PREFIX):
        raise ValueError(f"signals[{record.offset}]: header chain = {chain!r}, expected 'signal/<input>'")
    numbers: dict[str, int] = {}
    for name in _NUMBERS:
        raw = record.header(name)
        try:
            numbers[name] = int((raw or b"").decode())
        except ValueError:
            raise ValueError(f"signals[{record.offset}]: header {name} = {raw!r}, expected a decimal number") from None
    return Signal(input=chain.removeprefix(_PREFIX), rows=_rows(record), **numbers)


def _rows(record: Record) -> pa.RecordBatch | None:
    if not record.value:
        return None
    try:
        batch = pa.ipc.open_stream(record.value).read_next_batch()
    except (pa.ArrowInvalid, StopIteration, OSError) as error:
        raise ValueError(f"signals[{record.offset}]: the value is no Arrow stream: {error}") from error
    if batch.schema not in (SESSION_SIGNAL_SCHEMA, SIGNAL_SCHEMA):
        raise ValueError(
            f"signals[{record.offset}]: columns {batch.schema.names}, expected {SESSION_SIGNAL_SCHEMA.names}"
        )
    return batch
