"""Columns read from Kafka's record batches, against kafka-python's own reader of the same bytes."""

import random
import tracemalloc
from collections.abc import Iterable
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from crc32c import crc32c
from kafka.errors import CorruptRecordError
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatchBuilder

from stream.config import StreamConfig
from stream.decoding import decode_clicks, decode_impressions
from stream.log import broken_batches
from stream.log.kafka_fetch_columns import FetchedColumns
from stream.log.record_batches import (
    AbortedTransaction,
    BatchReader,
    DamagedBatch,
    DamagedOffsets,
)
from stream.log.record_columns import RecordColumns
from stream.log.unpacking import CannotUnpack, unpack
from stream.record import CONTROL, Record


class Parsed(NamedTuple):
    """The records of a fetch, the offset behind its last batch, and that batch's leader epoch."""

    records: RecordColumns
    next_offset: int
    leader_epoch: int


def parse_batches(
    data: bytes | bytearray | memoryview,
    from_offset: int,
    check: bool,
    aborted: Iterable[AbortedTransaction] = (),
) -> Parsed:
    """All that a `BatchReader` reads of `data`, at once, where every batch can be read; a cut-off
    one at its end is left out. With `check` checksums are compared. Raises CorruptRecordError for a
    batch that cannot be read."""
    reader, parts = (
        BatchReader(data, from_offset, aborted, damaged=DamagedOffsets() if check else None),
        [],
    )
    while not reader.is_done:
        parts.append(reader.read())
        for i in np.flatnonzero(parts[-1].entries["batch_fault"])[:1]:
            raise CorruptRecordError(
                f"record batch {broken_batches.batch_fault(parts[-1][int(i)])[1]}"
            )
    return Parsed(RecordColumns.concat(parts), reader.next_offset, reader.leader_epoch)


def batch(records: list[Record], codec: int = 0, base: int = 0) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 30)
    for record in records:
        builder.append(
            record.offset - base,
            record.timestamp_ms,
            record.key,
            record.value,
            list(record.headers),
        )
    built = bytearray(builder.build())
    built[0:8] = base.to_bytes(8, "big")  # as the broker does; the checksum begins behind it
    return built


def theirs(data: bytes) -> list[Record]:
    records, out = MemoryRecords(bytes(data)), []
    while (one := records.next_batch()) is not None:
        out += [
            Record(r.offset, r.timestamp, r.key or None, r.value, tuple(r.headers)) for r in one
        ]
    return out


def random_records(rng: random.Random, first: int) -> list[Record]:
    def some(size: int) -> bytes | None:
        return rng.choice([None, b"", rng.randbytes(rng.randrange(1, size))])

    offsets = sorted(rng.sample(range(first, first + 300), 200))
    stamp = 1_700_000_000_000
    records = []
    for offset in offsets:
        stamp += rng.randrange(-5_000, 10_000)
        names = rng.choices([CONTROL, "producer", "ü", ""], k=rng.randrange(4))
        headers = tuple((name, rng.choice([b"heartbeat", b"x" * 200, b""])) for name in names)
        records.append(Record(offset, stamp, some(40), some(2_000), headers))
    return records


@pytest.mark.parametrize("codec", [0, 1])
def test_batches_are_read_as_kafka_python_reads_them(codec):
    rng = random.Random(codec)
    data, wanted = bytearray(), []
    for base in (0, 1_000, 1 << 40):
        records = random_records(rng, base)
        data += batch(records, rng.choice([0, codec]), base)
        wanted += records
    parsed = parse_batches(data, 0, check=True)
    assert list(parsed.records) == theirs(data)
    assert parsed.records.heartbeat.tolist() == [record.is_heartbeat for record in theirs(data)]
    assert any(parsed.records.heartbeat)
    assert parsed.next_offset == wanted[-1].offset + 1
    later = parse_batches(data, 1_100, check=True).records
    assert list(later) == [record for record in theirs(data) if record.offset >= 1_100]


def test_columns_of_records_are_the_records():
    rng = random.Random(7)
    records = [r._replace(key=r.key or None) for r in random_records(rng, 5)]
    columns = RecordColumns.of(records)
    assert list(columns) == records
    assert columns.heartbeat.tolist() == [record.is_heartbeat for record in records]
    assert columns.offset.tolist() == [record.offset for record in records]
    assert columns.value_bytes == sum(len(record.value or b"") for record in records)
    assert list(columns[10:20]) == records[10:20]
    parts = [columns[:7], columns[7:7], columns[50:60], RecordColumns.of(records[60:])]
    assert list(RecordColumns.concat(parts)) == records[:7] + records[50:]
    assert bytes(columns.value(3)) == (records[3].value or b"")


def test_a_cut_off_batch_is_left_out():
    first, second = (
        batch(random_records(random.Random(1), 0)),
        batch(random_records(random.Random(2), 400), base=400),
    )
    parsed = parse_batches(bytes(first + second[:-1]), 0, check=True)
    assert list(parsed.records) == theirs(first)
    assert parsed.next_offset == parsed.records.offset[-1] + 1


def test_a_wrong_checksum_is_refused():
    data = batch(random_records(random.Random(3), 0))
    data[200] ^= 1
    with pytest.raises(CorruptRecordError, match="offset 0: its checksum"):
        parse_batches(data, 0, check=True)


def test_broken_records_are_refused_and_read_nothing_beyond():
    data = batch(random_records(random.Random(4), 0))
    rng = random.Random(5)
    for _ in range(300):
        broken = bytearray(data)
        for _ in range(3):
            broken[rng.randrange(57, len(broken))] = rng.randrange(256)
        try:
            records = parse_batches(broken, 0, check=False).records
        except CorruptRecordError:
            continue
        assert all(0 <= end <= len(broken) for end in records.entries["end"].tolist())


def test_an_old_format_is_named():
    good = batch([Record(400, 1, b"k", b"v")], base=400)
    data = batch(random_records(random.Random(6), 0))
    data[16] = 1
    old, after = BatchReader(data + good, 0, damaged=DamagedOffsets()).read()
    with pytest.raises(CorruptRecordError, match="old format"):
        parse_batches(data, 0, check=True)
    assert after.offset == 400
    assert (old.offset, old.value, old.headers) == (0, bytes(data), ())
    field, reason = broken_batches.batch_fault(old)
    assert field == "batch"
    assert "old format" in reason


def written(
    rng: random.Random, producers: int, steps: int
) -> tuple[bytearray, list[tuple[int, int, int]], set[int]]:
    """A log that transactional producers and plain ones write to in turns: its bytes, the aborted
    transactions as (producer, first offset, last offset), and the offsets that a consumer is to
    see."""
    data, at = bytearray(), 0
    opened: dict[int, int] = {}  # producer -> first offset
    pending: dict[int, list[int]] = {}
    aborted: list[tuple[int, int, int]] = []
    seen: set[int] = set()
    for _ in range(steps):
        producer = rng.randrange(producers)
        if producer in opened and rng.random() < 0.4:
            abort = rng.random() < 0.5
            data += marker(producer, at, abort)
            if abort:
                aborted.append((producer, opened.pop(producer), at))
                pending.pop(producer)
            else:
                del opened[producer]
                seen |= set(pending.pop(producer))
            at += 1
            continue
        n, plain = rng.randrange(1, 4), rng.random() < 0.2
        builder = DefaultRecordBatchBuilder(
            2, 0, not plain, -1 if plain else producer, 0, 0, 1 << 20
        )
        for k in range(n):
            builder.append(k, 1_000, b"k", str(at + k).encode(), [])
        built = bytearray(builder.build())
        built[0:8] = at.to_bytes(8, "big")
        data += built
        if plain:
            seen |= set(range(at, at + n))
        else:
            opened.setdefault(producer, at)
            pending.setdefault(producer, []).extend(range(at, at + n))
        at += n
    for (
        producer,
        offsets,
    ) in pending.items():  # a broker gives nothing from the first open one on: none here
        data += marker(producer, at, False)
        seen |= set(offsets)
        at += 1
    return data, aborted, seen


def marker(producer: int, offset: int, abort: bool) -> bytearray:
    """A control batch."""
    builder = DefaultRecordBatchBuilder(2, 0, True, producer, 0, -1, 1 << 20)
    builder.append(
        0, 1_000, (0).to_bytes(2, "big") + (0 if abort else 1).to_bytes(2, "big"), b"\0" * 6, []
    )
    built = bytearray(builder.build())
    built[0:8] = offset.to_bytes(8, "big")
    attributes = int.from_bytes(built[21:23], "big") | 0x20
    built[21:23] = attributes.to_bytes(2, "big")
    built[17:21] = crc32c(bytes(built[21:])).to_bytes(4, "big")
    return built


@pytest.mark.parametrize("seed", range(60))
def test_what_was_aborted_is_not_read_whatever_stands_between_and_wherever_a_fetch_begins(seed):
    rng = random.Random(seed)
    data, aborted, seen = written(rng, producers=rng.randrange(1, 4), steps=40)
    batches = boundaries(data)
    for start in [0, *rng.sample(batches, min(8, len(batches)))]:
        first = int.from_bytes(data[start : start + 8], "big")
        # As a broker does: the aborted transactions that reach into what it sends, in any order.
        index = [AbortedTransaction(p, begin) for p, begin, end in aborted if end >= first]
        rng.shuffle(index)
        parsed = parse_batches(data[start:], first, True, index)
        assert parsed.records.offset.tolist() == sorted(at for at in seen if at >= first)


def boundaries(data: bytearray) -> list[int]:
    at, found = 0, []
    while at < len(data):
        found.append(at)
        at += 12 + int.from_bytes(data[at + 8 : at + 12], "big")
    return found


# --- what cannot be read costs itself
# -----------------------------------------------------------------------------

CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
GOOD = b'{"id":"i","ts_ms":1700000000000,"session":"s","source":"u","vendor":"v","item":"x"}'


def resealed(data: bytearray) -> bytearray:
    """The same with its length and checksum right."""
    data[8:12] = (len(data) - 12).to_bytes(4, "big")
    data[17:21] = crc32c(bytes(data[21:])).to_bytes(4, "big")
    return data


def bomb(codec: str, mib: int) -> bytearray:
    return batch(
        [Record(10, 5, b"k", b"0" * (mib << 20)), Record(11, 5, b"k", b"x")], CODECS[codec], base=10
    )


def judged(
    data: bytes, unpacked_bytes_max: int = 1 << 20
) -> tuple[list[int], list[tuple[int, str, str]]]:
    """Offsets of the events that were read, and offset, field and reason of the bad records."""
    reader = BatchReader(data, 0, unpacked_bytes_max=unpacked_bytes_max)
    events: list[int] = []
    bad: list[tuple[int, str, str]] = []
    while not reader.is_done:
        records = reader.read()
        arrival_ms = np.full(len(records), 1_700_000_000_000)
        rows, wrong = decode_impressions(records, 0, arrival_ms, StreamConfig(partitions=1))
        assert len(decode_clicks(records, 0, arrival_ms, StreamConfig(partitions=1))[1]) == len(
            wrong
        )
        events += (rows.position >> 20).tolist()
        bad += [(one.record.offset, one.field, one.reason) for one in wrong]
    assert len({*events, *(offset for offset, _, _ in bad)}) == len(events) + len(bad)
    return events, bad


def around(broken: bytes) -> bytes:
    """A good event before the batch of offsets 10 and 11, and one behind it."""
    return bytes(
        batch([Record(0, 5, b"s", GOOD)]) + broken + batch([Record(12, 5, b"s", GOOD)], base=12)
    )


@pytest.mark.long
@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_is_read_up_to_the_bound_and_not_beyond(codec: str):
    data = batch(random_records(random.Random(7), 0), CODECS[codec])
    assert list(parse_batches(data, 0, check=True).records) == theirs(data)
    events, bad = judged(around(bomb(codec, 50)))
    assert events == [0, 12]
    assert [(offset, field) for offset, field, _ in bad] == [(11, "batch")]
    for said in ("offsets 10 to 11", "2 records", codec, "decoded_bytes_max"):
        assert said in bad[0][2]


@pytest.mark.parametrize("codec", CODECS)
def test_what_cannot_be_unpacked_costs_its_batch(codec: str):
    rng = random.Random(8)
    for _ in range(40):
        broken = batch(
            [Record(10, 5, b"s", GOOD), Record(11, 5, b"s", GOOD * 20)], CODECS[codec], base=10
        )
        for _ in range(rng.randrange(1, 4)):
            broken[rng.randrange(61, len(broken))] = rng.randrange(256)
        if rng.random() < 0.3:
            del broken[rng.randrange(70, len(broken)) :]
        events, bad = judged(around(resealed(broken)))
        assert {0, 12} <= set(events) <= {0, 10, 11, 12}
        assert {offset for offset, _, _ in bad} <= {10, 11}
        assert events == sorted(events)


def test_a_codec_that_is_none_costs_its_batch():
    broken = batch([Record(10, 5, b"s", GOOD), Record(11, 5, b"s", GOOD)], base=10)
    broken[22] |= 6
    events, bad = judged(around(resealed(broken)))
    assert (events, [offset for offset, _, _ in bad]) == ([0, 12], [11])


def test_damage_is_asked_for_again_and_then_costs_its_batch():
    broken = batch([Record(10, 5, b"s", GOOD), Record(11, 5, b"s", GOOD)], base=10)
    broken[-3] ^= 1
    damaged = DamagedOffsets()
    reader = BatchReader(around(broken), 0, damaged=damaged)
    assert reader.read().offset.tolist() == [0]
    with pytest.raises(DamagedBatch) as first:
        reader.read()
    assert first.value.retriable
    again = BatchReader(around(broken), 10, damaged=damaged).read()
    assert again.offset.tolist() == [11, 12]
    assert "checksum" in broken_batches.batch_fault(again[0])[1]
    broken[-3] ^= 1  # it was the wire: what comes now is right
    assert BatchReader(around(broken), 10, damaged=damaged).read().offset.tolist() == [10, 11, 12]


@pytest.mark.long
def test_a_bad_batch_is_given_once_wherever_reading_begins():
    data = around(bomb("gzip", 50))
    for begin, expected in ((0, [0, 11, 12]), (10, [11, 12]), (11, [11, 12]), (12, [12])):
        assert (
            BatchReader(data, begin, unpacked_bytes_max=1 << 20).read().offset.tolist() == expected
        )


def test_offsets_that_do_not_rise_cost_their_batch():
    broken = batch([Record(10, 5, b"s", GOOD), Record(11, 5, b"s", GOOD)], base=10)
    at = broken.index(b"\x02s", 62) - 1  # the first record's offset in its batch, 0
    assert broken[at] == 0
    broken[at] = 4
    events, bad = judged(around(resealed(broken)))
    assert (events, [offset for offset, _, _ in bad]) == ([0, 12], [11])


@pytest.mark.parametrize("base", [-1, -(2**63), 2**43 - 2**31, 2**63 - 1])
def test_an_offset_that_no_position_holds_is_refused(base: int):
    """It is no part of the checksum. Behind 2^63 it could not be said, behind 2^43 it would be
    another record's position."""
    data = batch([Record(10, 5, b"s", GOOD), Record(11, 5, b"s", GOOD)], base=10)
    data[0:8] = base.to_bytes(8, "big", signed=True)
    with pytest.raises(CorruptRecordError, match=f"offset {base}: no broker"):
        BatchReader(bytes(data), 0).read()
    data[0:8] = (2**43 - 2**31 - 1).to_bytes(8, "big")
    assert BatchReader(bytes(data), 0).read().offset.tolist()[-1] < 2**43


@pytest.mark.parametrize("codec", CODECS.values())
def test_a_damaged_batch_leaves_no_memory_behind(codec: int):
    head = b"\xff\xff\xff\x0f" if codec == CODECS["snappy"] else b"\x28\xb5\x2f\xfd"
    damaged = memoryview(head + b"\xff" * 30)
    tracemalloc.start()
    try:
        for _ in range(20):
            with pytest.raises(CannotUnpack, match="cannot be unpacked"):
                unpack(codec, damaged, 1 << 26)
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.long
def test_a_fetch_is_unpacked_piece_by_piece():
    one = 6 << 20
    data, drained = bytearray(), []
    for n in range(10):
        data += batch([Record(n, 5, b"k", b"0" * one)], CODECS["gzip"], base=n)
    fetched = FetchedColumns(
        0, ("t", 0), SimpleNamespace(_buffer=bytes(data)), on_drain=drained.append
    )
    seen: list[int] = []
    while fetched:
        (records,) = fetched.take(1_000)
        seen += records.offset.tolist()
        assert records.data.size <= 5 * one
        assert fetched.next_fetch_offset == seen[-1] + 1
    assert seen == list(range(10))
    assert drained == [fetched]
