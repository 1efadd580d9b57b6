import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointer.gates.evaluations import Evaluations
from checkpointer.store import Evaluation


def record(start, end, chain="label/0", rows=10, model="clicks", **more):
    return {
        "model": model,
        "chain": chain,
        "start": start,
        "end": end,
        "rows": rows,
        "log_loss_sum": 1.0,
        **more,
    }


def test_a_batch_counts_once_to_the_first_cut_that_covers_it():
    seen = Evaluations("clicks")
    assert seen.add(record(0, 5))
    assert not seen.add(record(0, 5))
    assert not seen.add(record(0, 5, model="other"))
    assert seen.add(record(5, 9))
    assert seen.add(record(0, 7, chain="label/1", served_rows=4))
    vector = {"label/0": 5, "label/1": 7}
    assert seen.rows_within(vector) == 20
    assert seen.take(vector) == Evaluation(2, 20, 2.0, served_rows=4)
    assert seen.take(vector) == Evaluation()
    assert not seen.add(record(0, 5))
    assert seen.take({"label/0": 9}) == Evaluation(1, 10, 1.0)


def test_after_a_restart_what_a_checkpoint_counted_is_not_counted_again():
    seen = Evaluations("clicks")
    seen.skip({"label/0": 5})
    assert not seen.add(record(0, 5))
    assert seen.add(record(5, 6))


def test_memory_is_bounded_and_what_is_forgotten_is_still_a_repeat():
    seen = Evaluations("clicks", starts_max=3)
    for start in range(10):
        assert seen.add(record(start, start + 1))
        seen.take({"label/0": start + 1})
    assert len(seen._starts["label/0"]) == 3
    assert not any(seen.add(record(start, start + 1)) for start in range(10))


def test_records_that_cannot_be_read_are_counted():
    seen = Evaluations("clicks")
    assert not seen.add({"model": "clicks", "chain": "label/0"})
    assert not seen.add(record(0, 1, label_sum=float("nan")))
    assert not seen.add(record(0, 1, prediction_sum="many"))
    assert seen.records_bad == 3


@given(st.lists(st.integers(0, 20), max_size=60), st.lists(st.integers(0, 21), max_size=5))
def test_every_batch_counts_exactly_once_over_all_cuts(starts, cuts):
    seen, total = Evaluations("clicks"), Evaluation()
    for start in starts:
        seen.add(record(start, start + 1))
    for cut in [*sorted(cuts), 21]:
        total += seen.take({"label/0": cut})
    assert total.batches == len(set(starts))


def test_slices_are_summed_and_bounded_and_what_is_none_is_counted_bad():
    evaluations = Evaluations("clicks")

    def record(start, slices):
        return {
            "model": "clicks",
            "chain": "label/0",
            "start": start,
            "end": start + 1,
            "rows": 1,
            "slices": slices,
        }

    assert evaluations.add(record(0, {"country": {"de": [1, 0.5, 0.25, 0], "fr": [2, 1, 1, 1]}}))
    assert evaluations.add(record(1, {"country": {"de": [1, 0.5, 0.25, 1]}}))
    for bad in (
        {"country": {"de": [1, 2]}},
        {"country": 3},
        {"country": {"de": [1, 2, 3, "nan"]}},
        [1],
    ):
        assert not evaluations.add(record(2, bad))
    assert evaluations.records_bad == 4
    summed = evaluations.sums({"label/0": 9}).slices
    assert summed == {"country": {"de": [2, 1, 0.5, 1], "fr": [2, 1, 1, 1]}}
    many = {"country": {f"c{i}": [1.0, 0.0, 0.0, 0.0] for i in range(300)}}
    evaluations.add(record(3, many))
    summed = evaluations.sums({"label/0": 9}).slices["country"]
    assert len(summed) == 257
    assert summed["other"][0] == 300 - 254


def sliced(start, slices):
    return record(start, start + 1, rows=1, slices=slices)


def test_sums_of_slices_stay_finite_and_few_whatever_records_say():
    seen = Evaluations("clicks")
    assert not seen.add(sliced(0, {"vendor": {"v": [1, 1e308, 1, 1]}}))
    assert not seen.add(sliced(0, {f"c{i}": {} for i in range(65)}))
    assert not seen.add(sliced(0, {"c" * 1_025: {}}))
    assert not seen.add(sliced(0, {"vendor": {"\ud800": [1, 1, 1, 1]}}))
    assert seen.records_bad == 4
    for start in range(4):
        values = {"v" * 1_025: [1, 0, 0, 0]} | {f"{start}-{i}": [1, 0, 0, 0] for i in range(300)}
        assert seen.add(sliced(start, {f"c{start}-{i}": values for i in range(20)}))
    kept = seen.sums({"label/0": 9}).slices
    assert len(kept) == 64
    assert {len(values) for values in kept.values()} == {256}
    assert {values["other"][0] for values in kept.values()} == {301 - 255}


@pytest.mark.parametrize("far", [1, 64, 200])
def test_records_far_ahead_hold_back_none_of_those_that_come(far):
    seen = Evaluations("clicks", starts_max=64)
    for k in range(far):
        seen.add(record((1 << 62) + k, (1 << 62) + k + 1))
    for start in range(0, 3_000, 10):
        assert seen.add(record(start, start + 10))
        assert not seen.add(record(start, start + 10))
        assert seen.take({"label/0": start + 10}).rows == 10
    assert seen.forgotten >= far - 64
