"""Totals are a function of `examples`, and equal a slow recount of it (J1 to J3)."""

import random

import numpy as np
import pyarrow as pa
import pytest
from counted_examples import (
    BUCKET_MS,
    SLICES,
    Partition,
    add_all,
    closed,
    random_partitions,
    records_of,
    recount,
    stream_config,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler.counts.adder import Adder
from stream import Record
from stream.columns.counters import CounterTotals, Fading, faded
from stream.hashing import derived_key, hash_strings
from stream.internal_topics import (
    CountParts,
    CountRecord,
    MalformedRecord,
    apply,
    decode_counts,
    encode_counts,
)


def key_of(item: str) -> int:
    return int(hash_strings(pa.array([item]), derived_key(0, "counter", "item"))[0])


def counted(records: list[CountRecord]) -> list[tuple[int, int, dict[str, list[list[float]]]]]:
    return [
        (r.number, r.bucket, {name: [c.tolist() for c in rows] for name, rows in r.rows.items()})
        for r in records
        if not r.quiet
    ]


@settings(max_examples=settings.default.max_examples * 30 // 100, deadline=None)
@given(st.integers(0, 1 << 30))
def test_buckets_are_a_function_of_examples_and_equal_a_recount(seed: int):
    partitions = random_partitions(random.Random(seed), 25)
    first, second = (add_all(partitions, random.Random(seed + k)) for k in (1, 2))
    assert counted(first) == counted(second)
    totals: dict[str, CounterTotals] = {}
    for record in first:
        if record.quiet:
            continue
        apply(totals, record)
        for name, half_life_ms in (("item/4000", 4_000), ("item/0", 0)):
            true = recount(partitions, record.bucket, half_life_ms)
            rows = totals[name].find(np.array([key_of(item) for item in true], np.uint64))
            got = faded(rows, record.bucket, Fading(half_life_ms, BUCKET_MS))
            for k in range(2):
                expected = [counts[k] for counts in true.values()]
                assert got[k] == pytest.approx(expected, abs=0.0101)


@settings(max_examples=settings.default.max_examples // 5, deadline=None)
@given(st.integers(0, 1 << 30))
def test_an_adder_that_begins_again_goes_on_with_the_same_buckets(seed: int):
    rng = random.Random(seed)
    partitions = random_partitions(rng, 25)
    whole = add_all(partitions, rng)
    if not whole:
        return
    cut = rng.randrange(len(whole) + 1)
    before = whole[:cut]
    kept = [r for r in before if not r.quiet][-SLICES:]
    memory = before[before.index(kept[0]) :] if kept else []
    after = add_all(partitions, rng, memory)
    left = whole[cut:] if kept else whole
    after, left = (
        [encode_counts(r, 1 << 20) for r in some if not r.quiet] for some in (after, left)
    )
    assert after == left


def test_records_travel_in_parts_and_come_back_as_they_were(monkeypatch: pytest.MonkeyPatch):
    partitions = random_partitions(random.Random(5), 25)
    whole = add_all(partitions, random.Random(1))
    monkeypatch.setattr("stream.internal_topics.counts.HEADER_BYTES", 0)
    records = records_of(whole, 100)
    assert len(records) > len(whole)
    parts = CountParts(BUCKET_MS, SLICES)
    twice = [r for record in records for r in (record, record)]  # whoever repeats does no harm
    found = [one for r in records if (one := parts.add(decode_counts(r), r.offset))]
    assert counted([one for one, _ in found]) == counted(whole)
    assert [one.points for one, _ in found] == [one.points for one in whole]
    assert not [r for r in twice if parts.add(decode_counts(r), r.offset) is not None]


def test_what_is_shown_least_is_forgotten():
    stream = stream_config(counts_values_max=SLICES)  # one of a slice
    one, other = Partition(0), Partition(1)
    for k in range(3 * SLICES):
        one.label([(f"item-{i}", 0) for i in range(40) for _ in range(1 + i % 7)], BUCKET_MS)
        other.label([], BUCKET_MS + k // 8)
    adder = Adder(stream)
    for p in (one, other):
        for record in p.records:
            adder.take(p.number, record)
    totals: dict[str, CounterTotals] = {}
    for record in closed(adder):
        apply(totals, record)
    keys = np.array([key_of(f"item-{i}") for i in range(40)], np.uint64)
    found = totals["item/0"].find(keys)
    assert found.negatives.tolist() == adder.state.totals["item/0"].find(keys).negatives.tolist()


def test_a_record_that_says_nothing_is_passed_over():
    one = Partition(0)
    one.label([("a", 1)], 10)
    adder = Adder(stream_config())
    with pytest.raises(MalformedRecord):
        adder.take(0, one.records[0]._replace(headers=()))
    assert adder.next_offset(0) == 1
    headers = (("format", b"1"), ("counted", b""), ("points", b""))
    with pytest.raises(MalformedRecord, match="header number"):
        decode_counts(Record(0, 0, None, b"", headers))
