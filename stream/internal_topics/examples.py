"""A training batch as it stands in `examples`: columns in the value, the resume point in the
headers (C4).

The bytes are canonical: a function of the rows alone, whatever chunks, slices or dictionaries they
were assembled from, so that two labelers with one config write the same record (C3, I7).
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stream.chain import RETRACT, kind_of, partition_of
from stream.columns import FEATURE_PREFIX, FeatureColumn, Impressions, check_offsets
from stream.hashing import string_buffers
from stream.internal_topics.malformed import HeaderFields, MalformedRecord, read_rows, shown
from stream.internal_topics.watermarks import pack_watermarks, unpack_watermarks
from stream.log import Headers
from stream.record import BARRIER

NO_CLICK = -1  # click_delay_ms of an impression without a click
_FORMAT = "1"
#: Of each row: position, ts_ms, arrival_ms, label, click_delay_ms and weight, which an impression
#: does not carry.
FIXED_BYTES = 3 * 8 + 1 + 8 + 4
_CANONICAL_NAN = np.float32("nan")


def examples_schema(features: Iterable[FeatureColumn]) -> pa.Schema:
    """The columns of `examples`, in their order. None holds a null."""
    fixed: list[tuple[str, pa.DataType]] = [
        ("position", pa.int64()),
        ("ts_ms", pa.int64()),
        ("arrival_ms", pa.int64()),
        ("label", pa.int8()),
        ("click_delay_ms", pa.int64()),  # NO_CLICK without a click
        ("weight", pa.float32()),
        ("source", pa.string()),
        ("vendor", pa.string()),
        ("item", pa.string()),
        ("shown_at", pa.int32()),
        ("prediction", pa.float32()),
        ("model_version", pa.string()),
    ]
    columns = fixed + [(f.column, f.type) for f in features]
    return pa.schema([pa.field(name, type_, nullable=False) for name, type_ in columns])


_TOPIC = "examples"
_FIXED = examples_schema(())
_TYPES = {pa.string(), pa.binary(), pa.int64(), pa.int32(), pa.int8(), pa.float32()}
_LISTS = {pa.list_(pa.string()), pa.list_(pa.float32())}


def schema_id(schema: pa.Schema) -> str:
    """16 hex digits that name a schema: its columns' names and types, in order."""
    described = ",".join(f"{f.name}:{f.type}" for f in schema)
    return hashlib.blake2b(described.encode(), digest_size=8).hexdigest()


def example_batch(
    impressions: Impressions,
    label: npt.NDArray[np.int8],
    click_delay_ms: npt.NDArray[np.int64],
    weight: npt.NDArray[np.float32],
) -> pa.RecordBatch:
    """The rows of `examples` for these labelled impressions; all arrays are (n,)."""
    table = impressions.table
    features = [f for f in table.schema if f.name.startswith(FEATURE_PREFIX)]
    arrays = [
        impressions.position,
        impressions.ts_ms,
        impressions.arrival_ms,
        label,
        click_delay_ms,
        weight,
    ]
    travelling = [
        "source",
        "vendor",
        "item",
        "shown_at",
        "prediction",
        "model_version",
        *(f.name for f in features),
    ]
    schema = pa.schema([*examples_schema(()), *features])
    columns = [pa.array(a) for a in arrays] + [
        _one_chunk(table.column(name)) for name in travelling
    ]
    return pa.record_batch(columns, schema=schema)


def encode_examples(batch: pa.RecordBatch, compression: str | None = None) -> bytes:
    """One Arrow IPC stream of one record batch; no rows give no bytes. Raises ValueError on
    nulls."""
    if batch.num_rows == 0:
        return b""
    for i, f in enumerate(batch.schema):  # Parquet calls what a list holds by another name
        if pa.types.is_list(f.type):
            named = f.with_type(pa.list_(f.type.value_type))
            batch = batch.set_column(i, named, batch.column(i).cast(named.type))
    columns = [_canonical(batch.column(i), f) for i, f in enumerate(batch.schema)]
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(pa.record_batch(columns, schema=batch.schema))
    return bytes(sink.getvalue())


def decode_examples(value: bytes) -> pa.RecordBatch:
    """The rows of a record of `examples`. Raises MalformedRecord for an empty value (an empty range
    has no rows to read) and for one that is not one Arrow IPC batch of the fixed columns and of
    features, without a null."""
    batch = read_rows(_TOPIC, value)
    _check_columns(batch.schema)
    kept = [column for column in batch.columns if not pa.types.is_dictionary(column.type)]
    try:
        check_offsets([column for column in kept if not pa.types.is_list(column.type)])
        for column in kept:
            if pa.types.is_list(column.type):
                check_offsets([column.flatten()])
    except ValueError as error:
        raise MalformedRecord(_TOPIC, "value", str(error)) from error
    return batch


def _check_columns(schema: pa.Schema) -> None:
    for column in _FIXED:
        at = schema.get_field_index(column.name)  # -1 also where it stands there twice
        if at < 0 or _plain(schema.field(at).type) != column.type:
            found = "is not there once" if at < 0 else f"is {shown(schema.field(at).type)}"
            raise MalformedRecord(
                _TOPIC, column.name, f"the column {found}, expected {column.type}"
            )
    if len(set(schema.names)) < len(schema):
        raise MalformedRecord(_TOPIC, "columns", f"{shown(schema.names)}: one stands there twice")
    for column in schema:
        if _plain(column.type) not in _TYPES and column.type not in _LISTS:
            raise MalformedRecord(_TOPIC, shown(column.name), f"the column is {shown(column.type)}")


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def trim(batch: pa.RecordBatch, from_position: int) -> pa.RecordBatch:
    """The rows at or above a position: what a range that overlaps its chain's end still adds
    (C2)."""
    return batch.slice(int(np.searchsorted(batch.column("position").to_numpy(), from_position)))


def rows_of(
    batch: pa.RecordBatch, chain: str, record_end: int, start: int, end: int
) -> pa.RecordBatch:
    """The rows of a record that the piece `[start, end)` of its range holds (C1, C2).

    Rows of `label` and `late` stand at their impression's position, which is a position of the
    chain. Rows of `retract` all stand at the last position of their record's range, whose own `end`
    is `record_end`: their column `position` names an impression, and the chain runs over
    `verdicts`.
    """
    if kind_of(chain) == RETRACT:
        return batch if start < record_end <= end else batch.slice(0, 0)
    positions = batch.column("position").to_numpy()
    first, last = (int(at) for at in np.searchsorted(positions, (start, end)))
    return batch.slice(first, last - first)


def rows_from(batch: pa.RecordBatch, position: int) -> pa.RecordBatch:
    """The rows of impressions at or above a position, in whatever order they stand: what a model
    keeps of a retraction, having learned nothing below where it began (C1). Its clean rows have no
    position, and stay."""
    at = batch.column("position").to_numpy()
    keep = (at >= position) | (at < 0)
    return batch if keep.all() else batch.filter(pa.array(keep))


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _canonical(array: pa.Array, column: pa.Field) -> pa.Array:
    """The same values in buffers of exactly their size, without offset, validity or dictionary."""
    if array.null_count:
        raise ValueError(
            f"examples column {column.name}: {array.null_count} nulls, allowed are none"
        )
    if pa.types.is_list(column.type):
        offsets = array.offsets.to_numpy()
        values = _canonical(array.flatten(), column.with_type(column.type.value_type))
        return pa.Array.from_buffers(
            column.type, len(array), [None, pa.py_buffer(offsets - offsets[0])], children=[values]
        )
    if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
        data, offsets = string_buffers(array)
        first, last = int(offsets[0]), int(offsets[-1])
        buffers = [
            None,
            pa.py_buffer(offsets - np.int32(first)),
            pa.py_buffer(data[first:last].copy()),
        ]
        return pa.Array.from_buffers(column.type, len(array), buffers)
    values = array.to_numpy().copy()
    if values.dtype == np.float32:
        values[np.isnan(values)] = _CANONICAL_NAN
    return pa.Array.from_buffers(column.type, len(array), [None, pa.py_buffer(values)])


# --- headers
# --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BatchHeader:
    """All that stands beside the rows: range, classes, and the resume point (C4).

    Every field is a function of range and logs, never of how far the writer had read.
    """

    chain: str
    start: int  # positions of `impressions[p]`; [start, end)
    end: int
    schema_id: str
    config_hash: str  # of the label config
    barrier: int = 0  # period k of an empty range that answers a barrier (E3); 0 = none

    # Impressions of the range by class (L6)
    labelled: int = 0
    rejected: int = 0
    duplicate: int = 0
    withheld: int = 0
    quarantined: int = 0
    lost: int = 0  # read, but clicks or verdicts that might have decided on them are gone (C7)
    positives: int = 0  # of the labelled
    sampled: int = 0  # labelled without a click, and left out of the rows by `negative_rate`
    # Clicks that the joining reader passed while handling the range (L6)
    clicks_read: int = 0
    clicks_joined: int = 0
    clicks_duplicate: int = 0
    clicks_quarantined: int = 0
    # Of this range and of these clicks: offsets that were gone unread, on an operator's override
    # (C7); what stood there, and how many events, nobody knows
    lost_offsets: int = 0  # of `impressions[p]`
    clicks_lost_offsets: int = 0  # of `clicks[p]`
    clicks_too_early: int = (
        0  # of the unmatched: too long before the impression that they name (L1)
    )
    # Event times of the labelled rows; 0, 0 without rows
    ts_ms_min: int = 0
    ts_ms_max: int = 0

    # The resume point: what a labeler needs that goes on at `end`
    arrival_max_ms: int = 0  # of `impressions[p]` at `end` (T1)
    clicks_offset: int = 0  # of `clicks[p]`, to re-read from
    clicks_arrival_max_ms: int = 0  # just before it
    ids_offset: int = 0  # of `impressions[p]`, to re-read ids from (L2)
    ids_arrival_max_ms: int = 0  # just before it
    verdicts_offset: int = 0  # of `verdicts`, to re-read from
    watermarks: Mapping[str, int] = field(default_factory=dict)  # input -> watermark just before it
    counts_offset: int = 0  # of `counts`, to re-read from, where counters are declared (J4)
    topic_ids: Mapping[str, str] = field(
        default_factory=dict
    )  # input topic -> id: positions are of these (C7)
    # Of a `late` chain: its clicks that were late, and those that were in time, counted less the
    # longer ago
    late_micro: int = 0
    on_time_micro: int = 0
    # Of a `retract` chain: what is to be learned again (`stream.internal_topics.retracted.Again`)
    again: str = ""
    hash_key: str = ""  # of the system that wrote it (`stream.hashing.key_id`, C9); "" = not said

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(
                f"batch of {self.chain}: range [{self.start}, {self.end}), expected 0 <= start <= "
                f"end"
            )
        if not 0 <= self.positives <= self.labelled:
            raise ValueError(
                f"batch of {self.chain}: {self.positives} positives of {self.labelled} labelled"
            )

    @property
    def impressions(self) -> int:
        """All impressions of the range that were read, whatever their class (I1)."""
        decided = self.labelled + self.sampled + self.rejected + self.duplicate + self.withheld
        return decided + self.quarantined + self.lost

    def to_headers(self) -> Headers:
        """Each a short ASCII value, in a fixed order. A 0 is left out where most records have
        it."""
        headers = [("format", _FORMAT.encode())]
        for name in _FIELDS:
            value = getattr(self, name)
            if name == "watermarks":
                value = pack_watermarks(self.watermarks)
            if name == "topic_ids":
                value = ",".join(f"{name}={id}" for name, id in sorted(self.topic_ids.items()))
            if value or name not in _MAY_BE_LEFT_OUT:
                headers.append((name, str(value).encode("ascii")))
        return tuple(headers)

    @classmethod
    def from_headers(cls, headers: Headers) -> "BatchHeader":
        """Raises MalformedRecord naming the header that is missing, unreadable or of a newer
        format."""
        read = HeaderFields(_TOPIC, headers)
        if (found := read.text("format", "")) != _FORMAT:
            read.wrong("format", f"{shown(found)}, this version reads {_FORMAT!r}")
        values: dict[str, object] = {}
        for name in _FIELDS:
            if name == "watermarks":
                values[name] = _parse_watermarks(read)
            elif name == "topic_ids":
                values[name] = _parse_ids(read)
            elif name in _TEXTS:
                values[name] = read.text(name, "" if name in _MAY_BE_LEFT_OUT else None)
            else:
                values[name] = read.integer(name, 0 if name in _LEFT_OUT else None)
        try:
            partition_of(str(values["chain"]))
            return cls(**values)  # type: ignore[arg-type]
        except ValueError as error:
            raise MalformedRecord(_TOPIC, "headers", str(error)) from error


_LEFT_OUT = (
    BARRIER,
    "sampled",
    "clicks_too_early",
    "late_micro",
    "on_time_micro",
    "lost",
    "lost_offsets",
    "clicks_lost_offsets",
    "counts_offset",
)


_TEXTS = ("chain", "schema_id", "config_hash", "again", "hash_key")
_MAY_BE_LEFT_OUT = (*_LEFT_OUT, "again", "topic_ids", "hash_key")
_FIELDS = tuple(f.name for f in fields(BatchHeader))


def _parse_watermarks(read: HeaderFields) -> dict[str, int]:
    try:
        return unpack_watermarks(read.text("watermarks"))
    except ValueError as error:
        read.wrong("watermarks", str(error))


def _parse_ids(read: HeaderFields) -> dict[str, str]:
    pairs = [part.rpartition("=") for part in read.text("topic_ids", "").split(",") if part]
    found = {name: id for name, _, id in pairs}
    if len(found) < len(pairs):
        read.wrong("topic_ids", "a topic stands there twice")
    return found
