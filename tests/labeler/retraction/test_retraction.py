"""Which trained rows late verdicts take, what is clean beside them, and what a record of it
holds (L3, C1)."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeler.labels import VerdictPoint
from labeler.retraction.late_verdicts import Run
from labeler.retraction.rows import (
    Gathered,
    Held,
    Late,
    aligned,
    covered,
    held_columns,
    record_rows,
    values_of,
)
from stream.columns import GrowingColumns
from stream.internal_topics import (
    ALLOW,
    FORGET,
    REJECT,
    WITHHOLD,
    Again,
    Verdict,
    encode_examples,
    examples_schema,
    rows_from,
    taken,
)

ROWS = pa.record_batch(
    {
        "position": np.array([7, 8, 9, 10]),
        "ts_ms": np.array([10, 20, 30, 40]),
        "arrival_ms": np.array([11, 21, 31, 41]),
        "label": np.array([1, 0, 1, 1], np.int8),
        "weight": np.array([1.0, 2.0, 0.5, 1.0], np.float32),
        "source": ["a", "a", "b", "a"],
        "vendor": ["v", "v", "v", "w"],
        "item": ["i", "j", "i", "k"],
        "f_language": ["de", "fi", "", "de"],
    }
)
LATE_MS = 1_000


def verdict(decision=REJECT, **scope):
    named = {"source": None, "vendor": None, "from_ms": 10, "to_ms": 40} | scope
    return Verdict("id", "rule", decision, reason="late", **named)


def held(*verdicts, low_ms=LATE_MS):
    return [Held(said, offset, low_ms) for offset, said in enumerate(verdicts)]


def late(verdicts, first=0, end=99):
    return Late(GrowingColumns(held_columns, verdicts), first, end)


def judged(verdicts, first=0, end=99, wait_ms=5):
    by_run, clean = late(verdicts, first, end).judge(ROWS, wait_ms)
    assert late(verdicts, first, end).taken(ROWS, wait_ms).tolist() == by_run.tolist()
    return np.flatnonzero(by_run).tolist(), np.flatnonzero(clean).tolist()


@pytest.mark.parametrize(
    ("said", "rows"),
    [
        (verdict(source="a"), [0, 1]),
        (verdict(vendor="v"), [0, 1, 2]),
        (verdict(source="b", vendor="v"), [2]),
        (verdict(feature="language", value="de"), [0]),
        (verdict(feature="country", value="de"), []),
    ],
)
def test_a_verdict_covers_its_scope_within_its_interval_and_its_end_is_excluded(said, rows):
    assert np.flatnonzero(covered(ROWS, said)).tolist() == rows
    assert judged(held(said))[0] == rows


def test_rows_that_arrived_before_a_verdict_can_mean_them_are_not_taken():
    said = Held(verdict(source="a"), 0, LATE_MS, arrived_from_ms=15)
    assert judged([said]) == ([1], [0, 2, 3])


def test_of_rows_that_happened_before_the_horizon_nothing_is_known():
    """They may have been taken by a verdict that is held no more, however late they arrived."""
    said = held(verdict(source="a", from_ms=0, to_ms=25), verdict(source="a", from_ms=0, to_ms=99))
    columns = GrowingColumns(held_columns, said)
    for over_ms, now, left in ((10, [3], [2]), (25, [3], [2]), (30, [3], [2]), (31, [3], [])):
        a_run = Late(columns, 1, 2, over_ms)
        by_run, clean = a_run.judge(ROWS, 5)
        assert np.flatnonzero(by_run).tolist() == now, over_ms
        assert np.flatnonzero(clean).tolist() == left, over_ms
        assert a_run.taken(ROWS, 5).tolist() == by_run.tolist()


def test_a_run_is_looked_for_from_the_first_arrival_that_it_can_mean():
    heard = [Held(verdict(from_ms=at), n, LATE_MS, at - 3) for n, at in enumerate((5, 30, 20))]
    run = Run(1, 3, LATE_MS, VerdictPoint(0, {}), tuple(heard[1:]))
    assert run.arrived_from_ms == 17


NAMES = st.sampled_from(("a", "ab", "b", "café", "日", "v"))


@given(
    st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=4),
    st.lists(st.tuples(st.none() | NAMES, st.none() | NAMES), min_size=1, max_size=3),
)
def test_a_record_that_a_run_takes_rows_of_is_told_by_its_bytes(rows, scopes):
    names = {
        "source": [r[0] for r in rows],
        "vendor": [r[1] for r in rows],
        "item": ["i"] * len(rows),
    }
    columns = [
        pa.array(names.get(f.name) or ([""] if f.type == pa.string() else [20]) * len(rows), f.type)
        for f in examples_schema(())
    ]
    batch = pa.RecordBatch.from_arrays(columns, schema=examples_schema(()))
    verdicts = tuple(held(*(verdict(source=s, vendor=v) for s, v in scopes)))
    run = Run(0, len(verdicts), LATE_MS, VerdictPoint(0, {}), verdicts)
    takes = late(verdicts, 0, len(verdicts)).taken(batch, 5).any()
    may_take = run.may_take_of()
    if may_take is None:
        assert any(s is v is None for s, v in scopes), "it names nobody: all are read"
    elif takes:
        assert may_take(encode_examples(batch))


def test_a_record_without_the_names_of_a_run_need_not_be_read():
    value = encode_examples(pa.record_batch({"source": ["alice"], "vendor": ["v"]}))
    for said, may in (
        (verdict(source="alice"), True),
        (verdict(source="bob"), False),
        (verdict(source="alice", vendor="w"), False),
    ):
        run = Run(1, 2, LATE_MS, VerdictPoint(0, {}), (Held(said, 1, LATE_MS),))
        may_take = run.may_take_of()
        assert may_take is not None
        assert may_take(value) is may


def test_what_is_not_taken_is_clean():
    assert judged(held(verdict(source="a"))) == ([0, 1], [2, 3])


def test_only_rows_whose_label_was_closed_before_the_verdict_are_taken():
    assert judged(held(verdict(source="a"), low_ms=16)) == ([], [0, 1, 2, 3]), (
        "16 has not passed 11 + 5"
    )
    assert judged(held(verdict(source="a"), low_ms=17)) == ([0], [1, 2, 3])


def test_a_row_is_taken_by_the_first_that_covers_it_and_by_no_later_one():
    twice = held(verdict(source="a"), verdict(vendor="v"))
    assert judged(twice, 0, 1) == ([0, 1], [2, 3])
    assert judged(twice, 1, 2) == ([2], [3])
    assert judged(held(verdict(source="a"), verdict(source="a")), 1, 2) == ([], [2, 3])


def test_an_allowance_before_it_beats_a_rejection_and_one_after_it_changes_nothing():
    assert judged(held(verdict(ALLOW, source="a"), verdict(source="a")))[0] == []
    assert judged(held(verdict(source="a"), verdict(ALLOW, source="a")))[0] == [0, 1]


def test_no_allowance_beats_that_somebody_is_to_be_forgotten():
    forgotten = replace(verdict(source="a"), rule=FORGET)
    assert judged(held(verdict(ALLOW, source="a"), forgotten))[0] == [0, 1]


def test_withholding_takes_nothing():
    assert judged(held(verdict(WITHHOLD, vendor="v"))) == ([], [0, 1, 2, 3])


def gathered(share_min=0.0, rows_max=100, batches=1):
    by_run, clean = late(held(verdict(source="a", vendor="v")), 0, 1).judge(ROWS, 5)
    back = ROWS.filter(pa.array(by_run))
    found = Gathered(values_of(back), rows_max)
    for n in reversed(range(batches)):  # partitions come in any order
        found.add((n, 0, n), ROWS, by_run & (n == 0), clean)
    return record_rows(back, found, share_min)


def test_a_record_holds_the_rows_turned_round_and_the_clean_ones_of_their_source_vendor_and_items():
    record, again = gathered()
    assert record.column("weight").to_pylist() == [-1.0, -2.0, 0.5, 1.0]
    assert record.column("position").to_pylist() == [7, 8, -1, -1]
    assert taken(record).tolist() == [True, True, False, False]
    assert again.named == {"source": ["a"], "vendor": ["v"], "item": ["i", "j"]}
    assert again.batch_rows == [4]
    assert Again.decode(again.encode()) == again
    assert again.without(["a"]).named["source"] == []


def test_clean_rows_are_numbered_by_the_batch_in_which_they_were_learned_oldest_first():
    assert gathered(batches=3)[0].column("position").to_pylist() == [7, 8, -1, -1, -2, -2, -3, -3]


def test_only_the_newest_clean_rows_are_kept_in_whole_batches():
    record, _ = gathered(batches=50, rows_max=5)
    assert record.num_rows == 2 + 6
    assert record.equals(gathered(batches=50, rows_max=6)[0])


def test_a_value_of_which_hardly_a_row_is_taken_is_not_learned_again():
    _, again = gathered(batches=50, share_min=0.03)
    assert again.named == {"source": ["a"], "vendor": ["v"], "item": ["j"]}, (
        "of i it is 1 row in 51"
    )


def test_a_model_that_began_later_keeps_the_clean_rows_and_what_it_learned():
    assert rows_from(gathered()[0], 8).column("position").to_pylist() == [8, -1, -1]


def test_rows_of_another_schema_get_what_they_lack_as_missing():
    other = ROWS.drop_columns(["f_language"])
    assert aligned(other, ROWS.schema).column("f_language").to_pylist() == [""] * 4
    assert aligned(ROWS, other.schema).equals(other)


def test_a_verdict_without_a_source_looks_at_every_row():
    said = [
        Held(verdict(vendor="v"), 0, LATE_MS),
        Held(replace(verdict(), source="zz"), 1, LATE_MS),
    ]
    assert judged(said)[0] == [0, 1, 2]
