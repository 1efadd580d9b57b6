"""Totals and sequences on disk: however little is in memory, and however often who keeps them is
dropped, the bits are those of a run that keeps all in memory (J4a, I7)."""

import random

import pytest
from counted_examples import (
    BUCKET_MS,
    START_MS,
    Partition,
    add_all,
    closed,
    impressions,
    random_partitions,
    records_of,
    stream_config,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler.counts.adder import Adder
from labeler.counts.joined import JoinedCounts
from labeler.counts.stored_counts import kept_state
from stream.internal_topics import CountRecord, encode_counts
from stream.log.rows import MemoryStorage, RocksStorage, RowStorage

BYTES = st.sampled_from((0, 2_000, 1 << 20))


def written(counts: list[CountRecord]) -> list[object]:
    """The bytes of each in the log."""
    return [encode_counts(record, 1 << 20) for record in counts if not record.quiet]


@settings(max_examples=settings.default.max_examples // 5, deadline=None)
@given(st.integers(0, 1 << 30), BYTES, st.booleans())
def test_an_adder_that_is_dropped_writes_the_same(seed: int, bytes_max: int, lost: bool):
    """Before or after what it wrote was acknowledged; `lost`: what lies on disk now and then too,
    or is of an earlier time."""
    rng, stream, storage = random.Random(seed), stream_config(), MemoryStorage()
    partitions = random_partitions(rng, 12)
    whole = add_all(partitions, rng)
    out: list[CountRecord] = []
    earlier: dict[bytes, bytes] = {}
    while True:
        adder = Adder(stream, (), kept_state(stream, storage, bytes_max))
        if adder.written and adder.written not in {record.number for record in out}:
            adder.written = 0
            adder.state.clear()
        for record in out:
            adder.restore(record)
        for one in partitions:
            for record in one.records[adder.next_offset(one.number) :]:
                adder.take(one.number, record)
        more = adder.step()
        if not more:
            break
        if rng.random() < 0.8:
            out += more
            if rng.random() < 0.8:
                adder.commit()
        if lost and rng.random() < 0.3:
            storage.rows = dict(earlier)
        earlier = dict(storage.rows)
    assert written(out) == written(whole)


@settings(max_examples=settings.default.max_examples // 5, deadline=None)
@given(st.integers(0, 1 << 30), BYTES)
def test_a_reading_that_is_dropped_gives_the_same(seed: int, bytes_max: int):
    rng, stream, storage = random.Random(seed), stream_config(), MemoryStorage()
    records = records_of(add_all(random_partitions(rng, 25), rng))
    plain = JoinedCounts(stream, 0)
    plain.need(0, START_MS)
    plain.read(records)
    one, at, point, gone_on = None, START_MS, 0, 0
    while not plain.lacks(at := at + rng.choice((1, 400, 3_000))):
        if one is None or rng.random() < 0.2:  # of what it had read nothing is left
            state = kept_state(stream, storage, bytes_max)
            one = JoinedCounts(stream, point, state, at)
            gone_on += one.next_offset > point
            one.need(0, at)
        while one.lacks(at):
            one.read(records[one.next_offset : one.next_offset + 1])
        rows = impressions(
            [at] * 7, item=[f"item-{k}" for k in range(7)], source=[f"user-{k}" for k in range(7)]
        )
        assert one.joined(rows).table.equals(plain.joined(rows).table)
        point = one.point(at)
        assert point == plain.point(at)
        one.need(0, at)


def test_a_state_of_part_of_a_round_is_begun_anew():
    rng, stream, storage = random.Random(4), stream_config(), MemoryStorage()
    records = records_of(add_all(random_partitions(rng, 25), rng))
    far = START_MS + 60_000
    for read, goes_on in ((records[4:6], False), (records[4:], True)):
        one = JoinedCounts(stream, 4, kept_state(stream, storage))
        one.need(0, far)
        one.read(read)
        again = JoinedCounts(stream, 4, kept_state(stream, storage), far)
        assert (again.next_offset > 4) is goes_on
        assert bool(storage.rows) is goes_on


def many_keys(keys: int, records: int) -> list[Partition]:
    """Each record shows, and clicks, other items; some come again."""
    rng, out = random.Random(1), [Partition(p) for p in range(2)]
    each = keys // records
    for n in range(records):
        new = [(f"item-{n * each + k}", int(k % 3 == 0)) for k in range(each)]
        again = [(f"item-{rng.randrange((n + 1) * each)}", 1) for _ in range(each // 10)]
        out[n % 2].label(new + again, BUCKET_MS)
        out[1 - n % 2].label([], BUCKET_MS)
    return out


def run_through(storage: RowStorage, bytes_max: int, partitions: list[Partition], drops: int):
    """(what is written to `counts`, totals of a slice)."""
    out = list[CountRecord]()
    steps = max(len(p.records) for p in partitions)
    for n in range(steps):
        if n % (steps // drops) == 0:
            adder = Adder(stream_config(), out, kept_state(stream_config(), storage, bytes_max))
        for one in partitions:
            for record in one.records[adder.next_offset(one.number) : n + 1]:
                adder.take(one.number, record)
        out += closed(adder)
    return written(out), adder.state.totals["item/0"].of_slice(1).negatives.tolist()


@pytest.mark.long
def test_fifty_thousand_keys_of_which_few_are_in_memory(tmp_path):
    partitions = many_keys(50_000, 50)
    in_memory = run_through(MemoryStorage(), 1 << 24, partitions, drops=1)
    storage = RocksStorage(tmp_path / "counts")
    bounded = run_through(storage, 250_000, partitions, drops=4)
    storage.close()
    assert bounded == in_memory
