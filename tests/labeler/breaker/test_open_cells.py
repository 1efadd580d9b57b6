"""Cells of tallies: what they count is a function of the log, wherever a reader stood when they
were settled (L9)."""

import random

import numpy as np
import pyarrow as pa
import pytest

from labeler.breaker.cells import OpenCells, people
from labeler.breaker.early_join import GROUPS, TALLY_SCHEMA
from stream.internal_topics import BatchHeader

CELL, SETTLE, WAIT = 100, 20, 50


def tally(p, n, arrival_ms, counts):
    """A record with so many impressions of cells by number, half of them clicked."""
    rows = [["", "", cell * CELL, n % GROUPS, seen, seen // 2] for cell, seen in counts.items()]
    columns = [
        pa.array(c, t.type) for c, t in zip(zip(*rows, strict=True), TALLY_SCHEMA, strict=True)
    ]
    header = BatchHeader(
        f"label/{p}", n << 20, n + 1 << 20, "s", "c", arrival_max_ms=arrival_ms, clicks_read=3
    )
    return header, pa.RecordBatch.from_arrays(columns, schema=TALLY_SCHEMA)


def logs(seed):
    """Two partitions; events come up to two cells late, and one partition is often far ahead."""
    rng = random.Random(seed)
    out = []
    for p in range(2):
        arrival, records = 1_000, []
        for n in range(40):
            arrival += rng.randrange(60)
            now = arrival // CELL
            records.append(
                tally(p, n, arrival, {max(0, now - late): rng.randrange(1, 9) for late in range(3)})
            )
        out.append(records)
    return out


def settled(seed, read, restart=0.0):
    """{cell: counts} of all that settles, if partitions are read in an order drawn from `read`."""
    rng, records = random.Random(read), logs(seed)
    cells, out = OpenCells(CELL, SETTLE, WAIT, 2, {}, None), {}
    while any(cells.next_offset(p) < len(records[p]) for p in range(2)):
        p = rng.randrange(2)
        for offset in range(
            cells.next_offset(p), min(len(records[p]), cells.next_offset(p) + rng.randrange(1, 12))
        ):
            cells.take(p, offset, *records[p][offset])
        for number, cell in cells.settle():
            counts = cell.counts()
            out[number] = (
                cell.raw,
                counts.impressions.tolist(),
                counts.clicks.tolist(),
                counts.squares.tolist(),
            )
        if out and rng.random() < restart:
            cells = OpenCells(CELL, SETTLE, WAIT, 2, cells.points(), cells.next_cell)
    return out


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_a_cell_counts_the_same_however_far_it_was_read_and_whoever_settles_it(seed):
    straight = settled(seed, 0)
    assert len(straight) > 5
    for read in range(1, 6):
        assert settled(seed, read) == straight
        assert settled(seed, read, restart=0.5) == straight


def test_a_barrier_says_that_its_partition_has_passed():
    """E3: nothing comes before it is lifted, so it must take the judge as far as labels that
    wait for it need."""
    cells = OpenCells(CELL, SETTLE, WAIT, 1, {}, None)
    cells.take(0, 0, *tally(0, 0, 1_000, {10: 4}))
    assert cells.settle() == []
    header = BatchHeader(
        "label/0", 1 << 20, 1 << 20, "s", "c", barrier=1, arrival_max_ms=1_000, ts_ms_max=1_400
    )
    cells.take(0, 1, header, None)
    assert cells.low_ms == 1_400 - WAIT
    assert [number for number, _ in cells.settle()] == [10, 11, 12]


def test_a_barrier_below_the_end_says_so_too():
    """E3b: of a labeler with other batch boundaries."""
    cells = OpenCells(CELL, SETTLE, WAIT, 1, {}, None)
    cells.take(0, 0, *tally(0, 0, 1_000, {10: 4}))
    header = BatchHeader("label/0", 0, 0, "s", "c", barrier=1, ts_ms_max=1_400)
    cells.take(0, 1, header, None)
    assert cells.low_ms == 1_400 - WAIT
    assert cells.end(0) == 1 << 20


def test_people_are_told_from_groups_of_them():
    """Few who look at much, and many who look at little, with the same impressions in all."""
    rng = np.random.default_rng(3)
    for many, each in ((4, 100), (400, 1)):
        seen = []
        for _ in range(200):
            group = rng.integers(0, GROUPS, many)
            impressions = np.bincount(group, minlength=GROUPS)[None, :] * each
            seen.append(400**2 / people(impressions, impressions // 2)[2][0])
        assert np.median(seen) == pytest.approx(many, rel=0.6)


def test_people_who_differ_deviate_by_the_square_of_what_they_look_at():
    rng = np.random.default_rng(4)
    share = rng.choice(
        [0.1, 0.5], (2_000, 64)
    )  # each a person with 10 impressions, tau = 2/3 around 0.3
    group = rng.integers(0, GROUPS, share.shape)
    clicks = rng.binomial(10, share)
    cells = [
        (np.bincount(g, minlength=GROUPS) * 10, np.bincount(g, c, GROUPS))
        for g, c in zip(group, clicks, strict=True)
    ]
    impressions, clicked = (np.array([cell[k] for cell in cells], np.int64) for k in range(2))
    _, _, squares, deviation = people(impressions, clicked)
    expected = 640 * 0.3 * 0.7 + (0.09 * 4 / 9) * (6_400 - 640)
    assert np.mean(deviation) == pytest.approx(expected, rel=0.05)
    assert np.mean(squares) == pytest.approx(6_400, rel=0.2)
