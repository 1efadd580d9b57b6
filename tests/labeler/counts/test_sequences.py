"""Sequences are a function of `examples`, equal a slow recount of it, and are given as of arrival
(J6)."""

import json
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from counted_examples import (
    BUCKET_MS,
    IDLE_MS,
    SLICES,
    START_MS,
    WAIT_MS,
    Partition,
    add_all,
    clicks_of,
    closed,
    impressions,
    random_partitions,
    records_of,
    stream_config,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler.counts.adder import Adder
from labeler.counts.fitting import fitting, list_bytes_max
from labeler.counts.joined import JoinedCounts
from stream import Record, StreamConfig
from stream.columns import Feature
from stream.columns.counters import KeyClicks, KeySequences, Sequences, no_sequences, updated
from stream.decoding import count_undeclared
from stream.hashing import derived_key, hash_strings
from stream.internal_topics import (
    CountParts,
    CountRecord,
    MalformedRecord,
    apply_sequences,
    decode_counts,
    encode_counts,
    examples_schema,
)

FOREVER = 2_592_000_000
KEPT = {f"source/item/2/{FOREVER}": (2, FOREVER), f"source/item/3/{IDLE_MS}": (3, IDLE_MS)}


def key_of(source: str) -> int:
    return int(hash_strings(pa.array([source]), derived_key(0, "counter", "source"))[0])


def said(rows: KeySequences) -> list[tuple[int, int, list[tuple[int, str]]]]:
    """(key, bucket, clicks) of each row."""
    ends = rows.ends.tolist()
    clicks = list(zip(rows.times.tolist(), rows.values.to_pylist(), strict=True))
    return [
        (key, bucket, clicks[a:b])
        for key, bucket, a, b in zip(
            rows.keys.tolist(), rows.bucket.tolist(), ends, ends[1:], strict=False
        )
    ]


def kept(records: list[CountRecord]) -> list[object]:
    return [
        (r.number, r.bucket, {name: said(rows) for name, rows in r.sequences.items()})
        for r in records
        if not r.quiet
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30))
def test_buckets_are_a_function_of_examples_and_equal_a_recount(seed: int):
    partitions = random_partitions(random.Random(seed), 25)
    first, second = (add_all(partitions, random.Random(seed + k)) for k in (1, 2))
    assert kept(first) == kept(second)
    state: dict[str, Sequences] = {}
    for record in first:
        if record.quiet:
            continue
        apply_sequences(state, record)
        for name, (most, idle_ms) in KEPT.items():
            true = clicks_of(partitions, record.bucket, most, idle_ms)
            got = {
                key: clicks
                for key, bucket, clicks in said(state[name].rows)
                if clicks and (record.bucket - bucket) * BUCKET_MS <= idle_ms
            }
            assert got == {key_of(source): clicks for source, clicks in true.items()}


def age_of(ms: int) -> str:
    return str((ms // 1_000).bit_length()) if ms >= 0 else "-1"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30))
def test_values_are_as_of_arrival_whatever_was_read_beyond(seed: int):
    rng = random.Random(seed)
    partitions = random_partitions(rng, 25)
    records = records_of(add_all(partitions, rng))
    counts = JoinedCounts(stream_config(), 0)
    counts.need(0, START_MS)
    counts.read(records)
    known = (counts.bucket + 1) * BUCKET_MS + WAIT_MS
    arrivals = sorted(rng.randrange(START_MS, max(known, START_MS + 1)) for _ in range(12))
    arrivals = [at for at in arrivals if not counts.lacks(at)]
    sources = [rng.choice(["user-0", "user-1", "user-2", "user-9", ""]) for _ in arrivals]
    table = counts.joined(impressions(arrivals, 250, source=sources)).table
    for at, source, row in zip(arrivals, sources, table.to_pylist(), strict=True):
        bucket = (at - WAIT_MS) // BUCKET_MS - 1
        clicks = clicks_of(partitions, bucket, 2, FOREVER).get(source, [])[:2]
        assert row["f_clicked"] == [item for _, item in clicks]
        assert row["f_ages"] == [age_of(at - 250 - time) for time, _ in clicks]
        lately = clicks_of(partitions, bucket, 3, IDLE_MS).get(source, [])[:3]
        assert row["f_lately"] == [item for _, item in lately]


def clicks(*told: tuple[int, int, str, int]) -> KeyClicks:
    keys, times, values, signs = zip(*told, strict=True)
    columns = np.array(keys, np.uint64), np.array(times), pa.array(values), np.array(signs)
    return KeyClicks(columns[0], columns[1], columns[2], columns[3])


def test_what_is_taken_back_uncovers_what_stood_before():
    none = no_sequences().find(np.array([1, 2], np.uint64))
    told = ((1, 10, "a", 1), (1, 30, "c", 1), (1, 20, "b", 1), (1, 20, "b", 1), (2, 5, "z", 1))
    first = updated(none, clicks(*told), 7, 4)
    assert said(first) == [(1, 7, [(30, "c"), (20, "b"), (20, "b"), (10, "a")]), (2, 7, [(5, "z")])]
    back = clicks((1, 20, "b", -1), (1, 30, "c", -1), (2, 5, "other", -1), (2, 5, "z", -1))
    second = updated(first, back, 9, 4)
    assert said(second) == [(1, 7, [(20, "b"), (10, "a")]), (2, 7, [])]
    both = updated(none, clicks(*told, (1, 10, "a", -1), (1, 9, "x", 1), (2, 5, "y", 1)), 9, 3)
    assert said(both) == [
        (1, 9, [(30, "c"), (20, "b"), (20, "b")]),
        (2, 9, [(5, "y"), (5, "z")]),
    ]


def test_who_clicked_longest_ago_makes_room():
    room = 3 * (24 + 12 + 7)  # of one slice: three keys of a click
    stream = stream_config(sequences_bytes_max=room * SLICES)
    one, other = Partition(0), Partition(1)
    for k in range(60):
        one.label([(f"item-{k:02}", 1)], BUCKET_MS)
        other.label([], BUCKET_MS)
    other.label([], 10 * BUCKET_MS)
    adder = Adder(_by_item(stream))
    for p in (one, other):
        for record in p.records:
            adder.take(p.number, record)
    state: dict[str, Sequences] = {}
    for record in closed(adder):
        apply_sequences(state, record)
    (rows,) = [sequences.rows for sequences in state.values()]
    assert said(rows) == said(adder.state.sequences["item/item/1/2592000000"].find(rows.keys))
    assert len(adder.state.sequences["item/item/1/2592000000"]) == len(rows.keys)
    assert 3 * SLICES <= len(rows.keys) < 60 // 2
    assert max(rows.bucket.tolist()) == adder.bucket


def _by_item(stream: StreamConfig) -> StreamConfig:
    declared = {"own": Feature(kind="sequence", by="item", of="item", max_values=1)}
    return replace(stream, declared=declared)


def test_records_travel_in_parts_and_come_back_as_they_were(monkeypatch: pytest.MonkeyPatch):
    whole = add_all(random_partitions(random.Random(5), 25), random.Random(1))
    monkeypatch.setattr("stream.internal_topics.counts.HEADER_BYTES", 0)
    records = records_of(whole, 100)
    parts = CountParts(BUCKET_MS, SLICES)
    found = [one for r in records if (one := parts.add(decode_counts(r), r.offset))]
    assert len(records) > 2 * len(whole)
    assert kept([one for one, _ in found]) == kept(whole)


@pytest.mark.parametrize(
    ("column", "values", "named"),
    [
        ("kept", [0, 2], "kept"),
        ("bucket", [-1, 1], "bucket"),
        ("key", [9, 3], "key"),
        ("times", [[1], [2, 3]], "values"),
        ("times", [[-1], [2]], "times"),
        ("values", [["x" * 1_025], ["b"]], "values"),
    ],
)
def test_a_record_that_says_nothing_names_why(column: str, values: list[object], named: str):
    rows = KeySequences(
        np.array([3, 9], np.uint64),
        np.array([1, 1]),
        np.array([0, 1, 2]),
        np.array([5, 6]),
        pa.array(["a", "b"]),
    )
    record = CountRecord(1, 1, 1_000, 3, {}, {}, sequences={"source/item/2/1": rows})
    ((value, headers),) = encode_counts(record, 1 << 20)
    decoded = decode_counts(Record(0, 0, None, value, headers)).record
    assert said(decoded.sequences["source/item/2/1"]) == said(rows)
    with pa.ipc.open_stream(value) as reader:
        batch = reader.read_next_batch()
    at = batch.schema.get_field_index(column)
    wrong = pa.array(values, batch.schema.field(at).type)
    batch = batch.set_column(at, batch.schema.field(at), wrong)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(MalformedRecord, match=named):
        decode_counts(Record(0, 0, None, bytes(sink.getvalue()), headers))


def test_records_from_before_a_feature_was_declared_count_nothing():
    stream = stream_config(categorical_features=("user", "shelf"))
    declared = {
        "clicked": Feature(kind="sequence", by="user", of="shelf", max_values=2),
        "rate": Feature(kind="counter", of="user"),
    }
    stream = replace(stream, declared=declared)
    columns = [pa.array([0] * 2, f.type) if f.type != pa.string() else pa.array(["x"] * 2)
               for f in examples_schema(())]  # fmt: skip
    rows = pa.RecordBatch.from_arrays(columns, schema=examples_schema(()))
    at = rows.schema.get_field_index("label")
    rows = rows.set_column(at, rows.schema.field(at), pa.array([1, 1], pa.int8()))
    (clicked,) = stream.sequence_columns.clicks(rows, 1).values()
    assert len(clicked.keys) == 0
    (keys,) = stream.counter_columns.keys(rows).values()
    assert keys.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"of": "item"}, "by"),
        ({"by": "source"}, "of"),
        ({"by": "ts_ms", "of": "item"}, "by"),
        ({"by": "source", "of": "item", "max_values": 257}, "max_values"),
        ({"by": "source", "of": "item", "idle_ms": 0}, "idle_ms"),
        ({"by": "source", "of": "item", "ages": True, "shares": "item"}, "ages"),
        ({"by": "source", "of": "item", "half_life_ms": 5}, "half_life_ms"),
    ],
)
def test_what_cannot_be_declared_is_named(said: dict[str, object], named: str):
    with pytest.raises(ValueError, match=named):
        Feature(kind="sequence", **said)  # type: ignore[arg-type]


def test_a_sequence_by_what_nobody_sends_is_refused():
    one = Feature(kind="sequence", by="user", of="item")
    with pytest.raises(ValueError, match=r"features\.clicked: by = 'user'"):
        replace(stream_config(), declared={"clicked": one})
    with pytest.raises(ValueError, match="sequences are of final labels"):
        replace(
            stream_config(),
            declared={"clicked": Feature(kind="sequence", by="source", of="item")},
            label_strategy="eager",
        )


def test_an_event_that_sends_what_is_kept_is_told_so():
    found: Counter[str] = Counter()
    value = json.dumps({"id": "1", "features": {"clicked": ["a"], "rate": 0.5}}).encode()
    count_undeclared(found, [Record(0, 0, b"s", value)], stream_config())
    assert found == {"clicked": 1, "rate": 1}


def test_what_is_retired_is_kept_no_more():
    declared = {
        name: replace(one, retired="2026-12-01") if name in ("clicked", "ages", "shows") else one
        for name, one in stream_config().declared.items()
    }
    stream = replace(stream_config(), declared=declared)
    assert [one.name for one in stream.sequence_columns.kept] == [f"source/item/3/{IDLE_MS}"]
    assert [one.name for one in stream.counter_columns.counted] == ["item/4000"]
    assert [column.name for column in stream.joined] == ["rate", "lately"]


def test_long_values_fit_into_the_record_of_their_range():
    stream = stream_config(record_bytes_max=1 << 20)
    for rows, length, fits in ((400, 30, 3), (250, 1_000, 1), (5_000, 1_000, 0), (9, 1_000, 3)):
        flat = pa.array(["x" * length] * (3 * rows))
        ends = np.concatenate([[0], np.arange(1, rows) * 3, [3 * rows - 1]])
        column = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), flat.slice(0, 3 * rows - 1))
        most = list_bytes_max(stream, "lately", rows)
        found = fitting(column, most)
        assert found.value_lengths().to_pylist() == [fits] * (rows - 1) + [min(fits, 2)]
        assert found.to_pylist()[0] == column.to_pylist()[0][:fits]
        reckoned = rows * stream.joined_bytes
        assert reckoned > stream.record_bytes_max or len(found.flatten()) * (length + 4) < 2 << 20


def test_a_key_that_no_record_could_hold_is_refused():
    one = Feature(kind="sequence", by="source", of="item", max_values=256)
    with pytest.raises(ValueError, match=r"features\.clicked: max_values = 256"):
        replace(stream_config(), record_bytes_max=600_000, declared={"clicked": one})
