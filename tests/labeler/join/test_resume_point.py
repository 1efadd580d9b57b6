"""Where a labeler goes on (C2, C4, E3b)."""

import pytest

from labeler.join import ExamplesFold
from stream import Record
from stream.internal_topics import BatchHeader


def record(n: int, start: int, end: int, clicks_offset: int, barrier: int = 0) -> Record:
    header = BatchHeader(
        "label/0", start, end, "s", "c", barrier=barrier, clicks_offset=clicks_offset
    )
    return Record(n, 0, None, b"", header.to_headers())


@pytest.mark.parametrize("from_first", [True, False])
def test_of_a_barrier_below_the_end_only_its_number_is_taken(from_first: bool):
    fold = ExamplesFold("label/0", from_first)
    fold.add([record(0, 0, 10, 3), record(1, 10, 20, 7), record(2, 10, 10, 3, barrier=1)])
    point = fold.point
    assert point is not None
    assert (point.start, point.clicks_offset, point.barrier) == (20, 7, 1)
    assert (fold.repeats, fold.dangling) == (0, 0)


@pytest.mark.parametrize("from_first", [True, False])
def test_a_barrier_may_be_the_first_record(from_first: bool):
    fold = ExamplesFold("label/0", from_first)
    fold.add([record(0, 10, 10, 3, barrier=4)])
    point = fold.point
    assert point is not None
    assert (point.start, point.clicks_offset, point.barrier) == (10, 3, 4)
