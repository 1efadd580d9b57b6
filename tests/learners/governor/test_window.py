"""What follows a cut, in the order in which it was scored, folded as learners fold it."""

import pytest

from learners.governor.checkpoint_source import CompleteCut
from learners.governor.window import (
    SCORED_PER_PAIR_MAX,
    ComparisonWindow,
    Scored,
    ShadowBatch,
    scored,
)
from learners.pacing import Batch
from paramserver import ChainProgress, Progress

CHAINS = {"label/0": 10, "late/0": 0, "retract/0": 0, "label/1": 20, "late/1": 0, "retract/1": 0}
CUT = CompleteCut(
    3,
    "c",
    Progress({c: ChainProgress(end, rows=end) for c, end in CHAINS.items()}, {0: 5, 1: 7}),
    {},
)


def batch(chain: str, start: int, end: int, record: int, rows: int = 1) -> Batch:
    return Batch(int(chain[-1]), chain, start, end, record, record + 1, rows)


def named(steps: list[ShadowBatch]) -> list[tuple[str, int, int, float | None]]:
    return [(step.batch.chain, step.batch.start, step.batch.end, step.live) for step in steps]


def test_batches_stand_in_the_order_of_their_scores_and_what_was_not_scored_before_them():
    window = ComparisonWindow(CUT, 3)
    for one in [
        Scored("label/1", 15, 20, 9.0),  # before the cut
        Scored("label/1", 20, 30, 1.0),
        Scored("label/0", 18, 25, 2.0),
        Scored("late/1", 0, 30, 7.0),
        Scored("label/1", 30, 35, 3.0),
        Scored("label/1", 35, 40, 4.0),  # more than is wanted
    ]:
        window.add(one)
    assert window.complete
    assert (window.pairs, window.wants(0), window.wants(1)) == (3, True, True)
    for one in [
        batch("label/0", 0, 12, 5),  # reaches over the cut: trimmed
        batch("retract/0", 0, 4, 6, rows=0),
        batch("label/0", 12, 18, 7, rows=0),
        batch("label/0", 18, 25, 8),
        batch("label/0", 25, 31, 9),  # not wanted any more
        batch("label/1", 20, 30, 7),
        batch("label/1", 20, 30, 8),  # a repeat
        batch("late/1", 0, 30, 9),
        batch("label/1", 30, 35, 10),
    ]:
        window.read(one)
    assert not window.wants(0)
    assert not window.wants(1)
    assert named(window.steps()) == [
        ("label/1", 20, 30, 1.0),
        ("label/0", 10, 12, None),
        ("retract/0", 0, 4, None),
        ("label/0", 12, 18, None),
        ("label/0", 18, 25, 2.0),
        ("late/1", 0, 30, None),  # learned, and not compared
        ("label/1", 30, 35, 3.0),
    ]


def test_a_batch_that_was_scored_with_other_ends_is_not_compared():
    window = ComparisonWindow(CUT, 2)
    window.add(Scored("label/0", 10, 13, 1.0))
    window.add(Scored("label/0", 12, 13, 1.0))
    window.read(batch("label/0", 10, 15, 5))
    assert named(window.steps()) == [("label/0", 10, 15, None)]


def test_a_window_in_which_rows_were_replaced_says_so():
    window = ComparisonWindow(CUT, 2)
    window.add(Scored("label/0", 10, 15, 1.0))
    window.read(batch("retract/0", 0, 4, 5, rows=0))
    assert not window.rewritten
    window.read(batch("retract/0", 4, 8, 6))
    assert window.rewritten


def test_a_window_ends_even_where_few_batches_can_be_compared():
    window = ComparisonWindow(CUT, 2)
    for n in range(2 * SCORED_PER_PAIR_MAX):
        window.add(Scored("late/0", n, n + 1, 1.0))
    assert window.complete
    assert window.pairs == 0


def test_records_of_evaluations():
    said = {"model": "m", "chain": "label/0", "start": 1, "end": 2, "log_loss_sum": 3.5, "rows": 7}
    assert scored("m", said) == Scored("label/0", 1, 2, 3.5)
    assert scored("other", said) is None
    with pytest.raises(ValueError, match="start"):
        scored("m", {"model": "m", "chain": "label/0"})
