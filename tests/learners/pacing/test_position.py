"""Where a learner stands in a partition: each chain is folded on its own."""

from hypothesis import given
from hypothesis import strategies as st

from learners.pacing.events import Batch
from learners.pacing.position import Position
from paramserver import ChainProgress, Progress, ProgressReply, SlotMap
from stream import Fold


def test_chains_of_a_partition_are_folded_each_on_its_own_and_only_labels_are_scored():
    at = {chain: ChainProgress(10) for chain in ("label/0", "late/0", "retract/0")}
    told = {
        0: ProgressReply(1, 1, Progress(at, {0: 4}), {"label/0": 10, "late/0": 10, "retract/0": 0})
    }
    position = Position.sought(0, 1, told, SlotMap.even(1))
    label, late, back = (Batch(0, c, 10, 20, n, n + 1, 3) for n, c in enumerate(at, 4))
    assert [position.fold(batch) for batch in (label, late, back)] == [Fold.EXTENDS] * 3
    assert [position.scored(batch) for batch in position.queue] == [True, True, False]
    assert [batch.floor for batch in position.queue] == [0, 0, 10], (
        "a retraction may name what was never learned"
    )
    assert {batch.record_end for batch in position.queue} == {20}
    assert position.fold(late) is Fold.REPEAT


def sought_at(begin: int, next_record: dict[int, int]) -> Position:
    progress = Progress({"label/0": ChainProgress(begin)}, next_record)
    told = {0: ProgressReply(1, 1, progress, {"label/0": begin})}
    return Position.sought(0, 1, told, SlotMap.even(1))


def test_a_record_that_dangles_is_not_taken_where_a_model_is_to_begin():
    position = sought_at(13, {})
    records = ((0, 8), (13, 14), (8, 13), (13, 15))
    folds = [
        position.fold(Batch(0, "label/0", start, end, n, n + 1, 1))
        for n, (start, end) in enumerate(records)
    ]
    assert folds == [Fold.REPEAT, Fold.DANGLES, Fold.REPEAT, Fold.EXTENDS]
    assert [(one.start, one.end) for one in position.queue] == [(13, 15)]


@given(
    st.integers(0, 30),
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)), max_size=20),
)
def test_a_model_begins_with_what_the_log_folds_to(begin, drawn):
    """Whatever repeats, overlaps and dangles, and wherever a model begins: it learns each position
    behind its beginning that the log's own fold has, once."""
    records = [(0, 1), *((start, start + length) for start, length in drawn)]
    end = 0
    for start, stop in records:
        end = max(end, stop) if start <= end else end
    position = sought_at(begin, {})
    for n, (start, stop) in enumerate(records):
        position.fold(Batch(0, "label/0", start, stop, n, n + 1, 1))
    learned = [at for one in position.queue for at in range(one.start, one.end)]
    assert learned == list(range(begin, end))


def test_a_barrier_below_the_end_is_pushed_at_the_end():
    """E3b: shards take a barrier at their end alone."""
    position = sought_at(10, {0: 4})
    records = ((10, 20, 0), (12, 12, 1), (20, 20, 1), (12, 12, 0), (20, 30, 0))
    folds = [
        position.fold(Batch(0, "label/0", start, end, n, n + 1, 0, barrier))
        for n, (start, end, barrier) in enumerate(records, 4)
    ]
    repeats = [Fold.REPEAT] * 2
    assert folds == [Fold.EXTENDS, Fold.BARRIER, *repeats, Fold.EXTENDS]
    assert [(one.start, one.end, one.barrier) for one in position.queue] == [
        (10, 20, 0),
        (20, 20, 1),
        (20, 30, 0),
    ]


def test_a_barrier_below_a_models_beginning_counts_there():
    """A replay waits for it, also where the model began above what is replayed (E3)."""
    position = sought_at(10, {})
    records = ((0, 8, 0), (8, 8, 1), (8, 14, 0))
    for n, (start, end, barrier) in enumerate(records):
        position.fold(Batch(0, "label/0", start, end, n, n + 1, 0, barrier))
    assert [(one.start, one.end, one.barrier) for one in position.queue] == [
        (10, 10, 1),
        (10, 14, 0),
    ]
