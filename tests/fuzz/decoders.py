"""The table of decoders that are fuzzed. Add a line to DECODERS for one of your own.

A decoder takes a batch of inputs at once, as production does, and must not raise; what it has to be
right in (good records beside bad ones come out, reasons are UTF-8 and short) it asserts itself. An
input is one value given to one reader: a batch that three readers read is three times its values.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
from crc32c import crc32c
from events_made import TS, arrow_value, headers, json_value, large_streams, long_values
from internal_records import internal_record, odd_records, read_internal
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatchBuilder
from produced_events import produced, read_produced
from registered_made import AnySchema, long_registered, registered_value
from requests_made import large_requests, read_requests, request

from everspun.replay import IMPRESSIONS, OwnFile
from stream import Record, StreamConfig
from stream.columns import (
    FIELD_CHARS_MAX,
    REASON_CHARS_MAX,
    Feature,
    Impressions,
    is_missing,
    pixels,
    slice_values,
)
from stream.decoding import (
    NAMES_MAX,
    count_undeclared,
    decode,
    decode_activity,
    decode_clicks,
    decode_impressions,
    fitting,
)
from stream.decoding.cloud_events import unwrapped
from stream.hashing import partition_of_key
from stream.internal_topics import decode_examples, encode_examples, example_batch, schema_id
from stream.log import RecordColumns
from stream.log.record_batches import AbortedTransaction, BatchReader, DamagedBatch, DamagedOffsets
from stream.log.unpacking import CODECS, CannotUnpack, unpack
from stream.registry import with_schemas

CONFIG = StreamConfig(
    partitions=3,
    categorical_features=("user",),
    numeric_features=("price",),
    declared={
        "tags": Feature("list", weighted=True),
        "seen": Feature("list", type="integer"),
        "title": Feature("text", alias="name"),
        "made": Feature("time"),
        "picture": Feature("vector", width=2),
        "shelf": Feature(type="integer"),
        "quality": Feature("component"),
        "photo": Feature("image"),
        "cover": Feature("image", unreadable="missing"),
        "thumb": Feature("image", store="/none"),
    },
    record_bytes_max=1 << 19,
    decoded_bytes_max=1 << 22,
)
PLACE = partition_of_key(b"s", CONFIG.partitions)
KEYS = (b"s",) * 9 + (None, b"\xff", b"other")
GOOD = b'{"id":"good","ts_ms":1700000000000,"session":"s","source":"u","vendor":"v","item":"x"}'
UNFORESEEN = "please report it"
_FAULTS = (0,) * 95 + (1, 2, 3, 4, 9)
GOOD_EACH = 8  # a good event stands before each so many values


@dataclass(frozen=True)
class Decoder:
    """`make` gives one structured input. `read` takes a batch of them and the batch's number, by
    which it chooses its readers, and answers how many inputs it read; it raises for none."""

    make: Callable[[random.Random], bytes]
    read: Callable[[Sequence[bytes], int], int]
    #: inputs that cost too much to be changed: each reader reads them once, in the beginning
    edges: Callable[[], list[bytes]] = list
    #: so many it has, of which the batch's number chooses one
    readers: int = 1


def _read_events(values: Sequence[bytes], turn: int) -> int:
    """The values stand among good events, which all come out, whatever they are."""
    rng = random.Random(turn)
    records, good = [], []
    for i, value in enumerate(values):
        if i % GOOD_EACH == 0:
            good.append(len(records))
            records.append(Record(len(records), TS, b"s", GOOD))
        fault = rng.choice(_FAULTS)
        records.append(Record(len(records), TS, rng.choice(KEYS), value, headers(rng), fault))
    _EVENT_READERS[turn % len(_EVENT_READERS)](records, set(good))
    return len(values)


def _laid_out(records: list[Record]) -> RecordColumns:
    return with_schemas(RecordColumns.of(records), AnySchema())


def _read_rows(decode: Callable[..., Any]) -> Callable[[list[Record], set[int]], None]:
    def read(records: list[Record], good: set[int]) -> None:
        columns, arrival_ms = _laid_out(records), np.full(len(records), TS)
        assert 1 <= fitting(columns, CONFIG) <= len(columns)
        assert fitting(columns[:1], CONFIG) == 1
        assert len(decode(columns[:0], PLACE, arrival_ms[:0], CONFIG)[0]) == 0
        rows, bad = decode(columns, PLACE, arrival_ms, CONFIG)
        positions = set((rows.position >> 20).tolist())
        assert good <= positions, "a good event is missing"
        assert not positions & {one.record.offset for one in bad}, "a record is good and bad"
        for one in bad:
            assert len(one.field) <= 6 * FIELD_CHARS_MAX
            assert len(one.reason) <= 6 * REASON_CHARS_MAX
            one.field.encode(), one.reason.encode()
            assert UNFORESEEN not in one.reason, one.reason
        if isinstance(rows, Impressions):
            _read_features(rows)

    return read


def _read_features(rows: Impressions) -> None:
    """What is made of an event reads as an example, and what its features lack is found."""
    rows = rows.slice(0, 100)
    n = len(rows)
    batch = example_batch(rows, np.zeros(n, np.int8), np.full(n, -1), np.ones(n, np.float32))
    if n:
        assert decode_examples(encode_examples(batch)).num_rows == n
    assert len(schema_id(batch.schema)) == 16
    for feature in CONFIG.features:
        column = rows.table.column(feature.column).combine_chunks()
        assert len(is_missing(column)) == len(slice_values(column)) == n
        if feature.column == "f_photo":
            assert len(pixels(column)[1]) == n


def _read_unforeseen(records: list[Record], good: set[int]) -> None:
    """As if the decoder raised for some of them: the others come out all the same."""

    def raising(columns: RecordColumns, *more: Any) -> Any:
        if any(len(one.value or b"") % 7 == 1 and one.value != GOOD for one in columns):
            raise OverflowError("nobody foresaw it")
        return unwrapped(columns, *more)

    columns, arrival_ms = _laid_out(records), np.full(len(records), TS)
    with mock.patch.object(decode, "unwrapped", raising):
        rows, bad = decode_impressions(columns, PLACE, arrival_ms, CONFIG)
    assert good <= set((rows.position >> 20).tolist()), "a good event is missing"
    assert all(len(one.reason) <= 6 * REASON_CHARS_MAX for one in bad)


def _read_lines(records: list[Record], good: set[int]) -> None:
    """As lines of a log of a user's own."""
    for number, record in enumerate(records):
        lines = OwnFile(Path("log.jsonl"), IMPRESSIONS)
        text = (record.value or b"").replace(b"\n", b" ").strip()
        found = list(lines.line(text, number)) if text else []
        assert record.offset not in good or [one.rows for one in found] == [1]


def _read_activity(records: list[Record], good: set[int]) -> None:
    columns, arrival_ms = _laid_out(records), np.full(len(records), TS)
    for is_click in (False, True):
        assert not len(decode_activity(columns[:0], PLACE, arrival_ms[:0], is_click, CONFIG).id)
        unknown = decode_activity(columns, PLACE, arrival_ms, is_click, CONFIG).unknown
        assert not good & set(unknown.tolist()), "a good event is unknown"


def _read_undeclared(records: list[Record], good: set[int]) -> None:
    found: Counter[str] = Counter()
    count_undeclared(found, _laid_out(records), CONFIG)
    assert len(found) <= NAMES_MAX
    for name in found:
        name.encode()


_EVENT_READERS = (
    _read_rows(decode_impressions),
    _read_rows(decode_clicks),
    _read_activity,
    _read_undeclared,
    _read_lines,
    _read_unforeseen,
)


def _batch(rng: random.Random) -> bytes:
    builder = DefaultRecordBatchBuilder(
        2, rng.randrange(5), rng.random() < 0.2, -1, -1, -1, 1 << 20
    )
    for offset in range(rng.choice((1, 2, 20))):
        key = rng.choice((None, b"", b"s"))
        value = rng.choice((None, b"", GOOD, b"0" * 5000))
        builder.append(offset, TS + rng.randrange(-5, 5), key, value, list(headers(rng)))
    made = bytearray(builder.build())
    if rng.random() < 0.2:  # of a transaction, or its marker
        made[22] |= rng.choice((0x10, 0x10, 0x20, 0x30, 0x30))
        made[43:51] = rng.choice((0, 0, 1)).to_bytes(8, "big")
    if rng.random() < 0.05:
        made[16] = rng.choice((0, 1))
    if rng.random() < 0.1:
        made += _batch(rng)
    return bytes(made)


def _marker(rng: random.Random) -> bytes:
    """The end of a transaction of producer 0."""
    builder = DefaultRecordBatchBuilder(2, 0, True, 0, -1, -1, 1 << 20)
    builder.append(rng.randrange(9), TS, bytes([0, 0, 0, rng.randrange(2)]), b"\0" * 6, [])
    made = bytearray(builder.build())
    made[22] |= 0x30
    return bytes(made)


def _fetched(rng: random.Random) -> bytes:
    """A batch or a few, markers among them."""
    return b"".join(
        rng.choice((_batch, _batch, _marker))(rng) for _ in range(rng.choice((1, 1, 2, 3)))
    )


def _resealed(data: bytes) -> bytes:
    """With its length and checksum right, so that what is behind them is reached."""
    if len(data) < 61:
        return data
    whole = bytearray(data)
    whole[0:3], whole[8:12], whole[16] = b"\0\0\0", (len(whole) - 12).to_bytes(4, "big"), 2
    whole[17:21] = crc32c(bytes(whole[21:])).to_bytes(4, "big")
    return bytes(whole)


def _read_batches(values: Sequence[bytes], turn: int) -> int:
    parts = []
    for i, value in enumerate(values):
        offsets, found = _read_fetch(value if i % 4 == 0 else _resealed(value), i + turn)
        if i % 4:  # it is one batch
            assert all(a < b for a, b in pairwise(offsets)), "offsets do not rise"
        parts += found
    joined = RecordColumns.concat(parts)
    entries = joined.entries.copy()
    entries["offset"] = np.arange(len(entries))
    together = RecordColumns(joined.data, entries)
    rising = np.flatnonzero(~together.heartbeat)
    assert together == together.stamped(together.timestamp_ms)
    assert together.take(rising).value_bytes <= together.value_bytes
    decode_clicks(together, PLACE, together.timestamp_ms, CONFIG)
    return len(values)


def _read_fetch(data: bytes, turn: int) -> tuple[list[int], list[RecordColumns]]:
    """Offsets and records of a fetch of a partition; twice, where checksums are compared and the
    first was wrong."""
    aborted = [AbortedTransaction(turn % 4 - 1, 0)] if turn % 2 else []
    damaged = DamagedOffsets() if turn % 3 == 0 else None
    for _ in range(2):
        reader = BatchReader(data, turn % 5, aborted, 1 << 20, damaged)
        parts, offsets = [], list[int]()
        try:
            while not reader.is_done:
                records = reader.read()
                offsets += records.offset.tolist()
                for name in ("key", "value", "headers"):
                    assert (records.entries[name] >= 0).all()
                assert (records.entries["end"] <= len(records.data)).all()
                parts.append(records)
        except DamagedBatch:
            continue  # it is fetched again, and is to stay as it is if it comes again
        except CorruptRecordError:
            return [], parts  # a length that leads nowhere: nothing behind it can be found
        return offsets, parts
    return [], []


def _packed(rng: random.Random) -> bytes:
    batch = b""
    while not batch:
        builder = DefaultRecordBatchBuilder(2, 1 + rng.randrange(4), False, -1, -1, -1, 1 << 20)
        builder.append(0, TS, b"s", b"0" * rng.choice((10, 1000, 100_000)), [])
        batch = bytes(builder.build())
    return bytes([batch[22] & 7]) + batch[61:]


def _unpack_all(values: Sequence[bytes], turn: int) -> int:
    done = 0
    for value in values:
        for codec in {value[0] & 7 if value else 0, *CODECS}:
            done += 1
            try:
                assert len(unpack(codec, memoryview(value)[1:], 1 << 18)) <= 1 << 18
            except CannotUnpack as error:
                str(error).encode()
    return done


DECODERS: dict[str, Decoder] = {
    "json": Decoder(json_value, _read_events, long_values, len(_EVENT_READERS)),
    "arrow": Decoder(arrow_value, _read_events, large_streams, len(_EVENT_READERS)),
    "batches": Decoder(_fetched, _read_batches),
    "packed": Decoder(_packed, _unpack_all),
    "internal": Decoder(internal_record, read_internal, odd_records, 2),
    "producer": Decoder(produced, read_produced),
    "registered": Decoder(registered_value, _read_events, long_registered, len(_EVENT_READERS)),
    "requests": Decoder(request, read_requests, large_requests),
}


def allocated() -> int:
    """Bytes that Arrow holds."""
    return int(pa.total_allocated_bytes())
