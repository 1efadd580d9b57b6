"""Columns read from Kafka's record batches, against kafka-python's own reader of the same bytes."""

import random

import pytest
from crc32c import crc32c
from kafka.errors import CorruptRecordError, KafkaError
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatchBuilder

from stream.record import CONTROL, Record
from stream.record_batches import AbortedTransaction, parse_batches
from stream.record_columns import RecordColumns


def batch(records: list[Record], codec: int = 0, base: int = 0) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 20)
    for record in records:
        builder.append(record.offset - base, record.timestamp_ms, record.key, record.value, list(record.headers))
    built = bytearray(builder.build())
    built[0:8] = base.to_bytes(8, "big")  # as the broker does; the checksum begins behind it
    return built


def theirs(data: bytes) -> list[Record]:
    records, out = MemoryRecords(bytes(data)), []
    while (one := records.next_batch()) is not None:
        out += [Record(r.offset, r.timestamp, r.key or None, r.value, tuple(r.headers)) for r in one]
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
    first, second = batch(random_records(random.Random(1), 0)), batch(random_records(random.Random(2), 400), base=400)
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
    data = batch(random_records(random.Random(6), 0))
    data[16] = 1
    with pytest.raises(KafkaError, match="format 1"):
        parse_batches(data, 0, check=True)


def written(rng: random.Random, producers: int, steps: int) -> tuple[bytearray, list[tuple[int, int, int]], set[int]]:
    """A log that transactional producers and plain ones write to in turns: its bytes, the aborted transactions as
    (producer, first offset, last offset), and the offsets that a consumer is to see."""
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
        builder = DefaultRecordBatchBuilder(2, 0, not plain, -1 if plain else producer, 0, 0, 1 << 20)
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
    for producer, offsets in pending.items():  # a broker gives nothing from the first open one on: none here
        data += marker(producer, at, False)
        seen |= set(offsets)
        at += 1
    return data, aborted, seen


def marker(producer: int, offset: int, abort: bool) -> bytearray:
    """A control batch."""
    builder = DefaultRecordBatchBuilder(2, 0, True, producer, 0, -1, 1 << 20)
    builder.append(0, 1_000, (0).to_bytes(2, "big") + (0 if abort else 1).to_bytes(2, "big"), b"\0" * 6, [])
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
