"""What an operator pins stays; what two checkpoints differ in."""

from dataclasses import replace

import pytest

from checkpointer.process import operator_actions
from checkpointer.process.operator_actions import diff, find, list_checkpoints, pin, unpin
from checkpointer.retention import Keep
from checkpointer.store import Catalogue, Damaged
from checkpointer.store.files import MemoryFiles

ROWS = [{"source": f"u{n}", "item": f"i{n}"} for n in range(4)]


@pytest.fixture
def catalogue():
    return Catalogue(MemoryFiles(), "clicks")


def test_what_is_pinned_stays_with_what_it_builds_on_until_it_is_unpinned(catalogue, train):
    base = train(catalogue, 1, ROWS)
    delta = train(catalogue, 2, ROWS[:1], parent=base, delta=True)
    others = [train(catalogue, number, ROWS) for number in range(3, 6)]
    pin(catalogue, "2", "before the sale")
    assert catalogue.pins() == {delta.name: "before the sale"}
    assert list_checkpoints(catalogue)[1].marks == ("pinned",)
    gone = [one.name for one in others[:-1]]
    assert catalogue.sweep(Keep(1), only_look=True) == gone
    assert catalogue.names() == [one.name for one in (base, delta, *others)]
    assert catalogue.sweep(Keep(1)) == gone
    assert catalogue.names() == [base.name, delta.name, others[-1].name]
    assert unpin(catalogue, "2") == delta.name
    assert catalogue.sweep(Keep(1)) == [base.name, delta.name]


def test_pins_that_cannot_be_read_delete_nothing(catalogue, train):
    base, _ = train(catalogue, 1, ROWS), train(catalogue, 2, ROWS)
    pin(catalogue, "1", "")
    for name in ("pins.json", "pins.json.copy"):
        catalogue.files.write(f"clicks/{name}", b"\0\0")
    with pytest.raises(Damaged, match=r"pins\.json"):
        catalogue.sweep(Keep(1))
    assert base.name in catalogue.names()


def test_one_that_is_not_whole_is_not_pinned(catalogue, train):
    base = train(catalogue, 1, ROWS)
    catalogue.files.delete(f"clicks/{base.name}/part-1.safetensors")
    with pytest.raises(Damaged, match=r"part-1\.safetensors: missing"):
        pin(catalogue, "1", "")
    with pytest.raises(ValueError, match="is not pinned; these are: none"):
        unpin(catalogue, "1")


def test_two_checkpoints_are_compared_key_by_key(catalogue, train):
    train(catalogue, 1, ROWS[:3], step=1.0, serving=True)
    train(catalogue, 2, ROWS[1:], step=3.0, serving=True)
    found = diff(catalogue, "1", "head")
    assert (found.created, found.evicted, found.changed) == (2, 2, 4)
    assert found.weight_change == pytest.approx(2.0)
    assert (found.number, found.rows_learned, found.event_time_ms) == (1, 0, 1000)


def test_from_a_checkpoint_that_learned_nothing_no_time_has_passed(catalogue, train, monkeypatch):
    empty = train(catalogue, 1, [], serving=True)
    train(catalogue, 2, ROWS, serving=True)
    monkeypatch.setattr(
        operator_actions,
        "find",
        lambda _, which: (
            replace(empty, event_time_max_ms=0) if which == "1" else find(catalogue, which)
        ),
    )
    assert diff(catalogue, "1", "head").event_time_ms is None
    assert diff(catalogue, "head", "1").event_time_ms is None


def test_of_many_checkpoints_the_nearest_are_named(catalogue, train):
    made = [train(catalogue, number, []).name for number in range(1, 10)]
    for which, near in (("77", made[-5:]), ("00000003-d", [made[2]])):
        with pytest.raises(ValueError, match="the nearest of 9 complete ones are") as told:
            find(catalogue, which)
        said = [name for name in made if name in str(told.value)]
        assert set(near) <= set(said)
        assert len(said) == 5
    with pytest.raises(ValueError, match="0 match"):
        find(catalogue, "²")
