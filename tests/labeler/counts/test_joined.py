"""An impression is given the totals as of its arrival, however far they were read (J4)."""

import random

import pytest
from counted_examples import (
    BUCKET_MS,
    START_MS,
    WAIT_MS,
    add_all,
    impressions,
    random_partitions,
    records_of,
    recount,
    stream_config,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler.counts.joined import JoinedCounts
from labeler.counts.of_partition import PartitionCounts


@settings(max_examples=settings.default.max_examples * 30 // 100, deadline=None)
@given(st.integers(0, 1 << 30))
def test_values_are_as_of_arrival_whatever_was_read_beyond(seed: int):
    rng = random.Random(seed)
    stream, partitions = stream_config(), random_partitions(rng, 25)
    records = records_of(add_all(partitions, rng))
    end_ms = min(p.arrival_ms for p in partitions) // BUCKET_MS * BUCKET_MS
    arrivals = sorted(rng.randrange(START_MS, max(end_ms, START_MS + 1)) for _ in range(12))
    arrivals = [at + WAIT_MS for at in arrivals]
    items = [f"item-{rng.randrange(7)}" for _ in arrivals]
    rows = impressions(arrivals, item=items)
    counts = JoinedCounts(stream, 0)
    counts.need(0, arrivals[0])
    read, out = 0, []
    for i, at in enumerate(arrivals):  # one by one, reading as far as needed or further
        while counts.lacks(at) or (read < len(records) and rng.random() < 0.2):
            if read == len(records):
                return  # the last bucket is not closed yet
            counts.read(records[read : read + 1])
            read += 1
        assert counts.covers(at)
        out.append(counts.joined(rows.slice(i, i + 1)).table)
        counts.need(0, at)
    for at, item, row in zip(arrivals, items, out, strict=True):
        bucket = (at - WAIT_MS) // BUCKET_MS - 1
        faded = recount(partitions, bucket, 4_000).get(item, [0.0, 0.0])
        plain = recount(partitions, bucket, 0).get(item, [0.0, 0.0])
        rate = (faded[1] + 1.0) / (sum(faded) + 20.0)
        assert row.column("f_rate")[0].as_py() == pytest.approx(rate, abs=1e-3)
        assert row.column("f_shows")[0].as_py() == pytest.approx(sum(plain), abs=1e-5)


@settings(max_examples=settings.default.max_examples // 5, deadline=None)
@given(st.integers(0, 1 << 30))
def test_a_labeler_that_begins_again_gives_the_same(seed: int):
    """From any resume point, and told of anything that happens to stand behind it."""
    rng = random.Random(seed)
    stream, partitions = stream_config(), random_partitions(rng, 25)
    records = records_of(add_all(partitions, rng))
    first = JoinedCounts(stream, 0)
    first.need(0, START_MS)
    first.read(records)
    at = rng.randrange(START_MS, START_MS + 30_000)
    if first.lacks(at):
        return
    again = JoinedCounts(stream, first.point(at))
    again.need(0, at)
    again.read(records)
    later = [at + k * 700 for k in range(8) if not first.lacks(at + k * 700)]
    items, sources = ([f"{of}-{k % 7}" for k in range(len(later))] for of in ("item", "user"))
    rows = impressions(later, item=items, source=sources)
    assert first.joined(rows).table.equals(again.joined(rows).table)
    assert [first.point(t) for t in later] == [again.point(t) for t in later]


def test_the_first_range_waits_for_nothing_and_is_given_nothing():
    counts = JoinedCounts(stream_config(), 0)
    one = PartitionCounts(counts, 0, 0, 0, begins=True)
    far = START_MS + 10 * WAIT_MS
    assert not one.waits(far)
    assert not one.wants(far)
    table = one.joined(impressions([far], item=["item-1"], source=["user-1"])).table
    assert table.column("f_rate").to_pylist() == pytest.approx([1 / 20])
    assert table.column("f_shows").to_pylist() == [0.0]
    assert table.column("f_clicked").to_pylist() == [[]]
    assert one.move(far) == 0
    assert one.waits(far + 1)
    assert one.wants(far + 1)
    assert not one.left_behind


def test_a_partition_behind_what_is_held_begins_again():
    rng = random.Random(3)
    counts = JoinedCounts(stream_config(), 0)
    counts.read(records_of(add_all(random_partitions(rng, 40), rng)))
    ahead = (counts.bucket + 1) * BUCKET_MS + WAIT_MS
    PartitionCounts(counts, 0, ahead, 0, begins=False)
    behind = PartitionCounts(counts, 1, START_MS, 0, begins=False)
    assert behind.waits(START_MS + WAIT_MS)
    assert behind.left_behind
