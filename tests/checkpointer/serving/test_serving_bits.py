"""Replicas of rounded weights: whoever serves a cut answers the same, by whichever way it came."""

import pytest

from checkpointer.serving import load
from checkpointer.store import Catalogue, Directory, Manifest
from paramserver import parts

ROWS = [{"source": f"u{n}", "item": f"i{n}"} for n in range(8)]


@pytest.fixture
def catalogue(tmp_path) -> Catalogue:
    return Catalogue(Directory(str(tmp_path)), "clicks")


@pytest.fixture
def cut(catalogue, train, config_of, monkeypatch):
    """A checkpoint whose files for replicas hold so many bits a weight."""
    import checkpoint_maker

    config = config_of(kind="fm", dim=7)

    def made(number: int, bits: int, parent: Manifest | None = None, delta: bool = True):
        monkeypatch.setattr(
            checkpoint_maker, "serving_files", lambda snapshot: parts.serving_files(snapshot, bits)
        )
        step = number / 7
        return train(
            catalogue, number, ROWS, step, config, "published", parent, delta and bool(parent), True
        )

    return made


def answers(served) -> bytes:
    from checkpointer.serving.request import given_rows

    return served.answer_given(given_rows(ROWS, served.features)).probabilities.tobytes()


@pytest.mark.parametrize("bits", [8, 16])
def test_deltas_and_bases_of_one_width_are_followed_and_agree(catalogue, cut, bits):
    first = cut(1, bits)
    held = load(catalogue, first.name)
    parent, upon = first, []
    for number in range(2, 7):
        parent = cut(number, bits, parent, delta=number % 2 == 0)
        held = load(catalogue, parent.name, held=held)
        upon.append(bool(held.upon))
        assert held.tables.bits == bits
        assert answers(held) == answers(load(catalogue, parent.name))
    assert all(upon)


def test_after_a_change_of_width_the_next_base_is_read_and_all_agree(catalogue, cut):
    first = cut(1, 32)
    held = load(catalogue, first.name)
    second = cut(2, 8, first)
    held = load(catalogue, second.name, held=held)
    assert held.upon
    assert held.tables.bits == 0
    assert answers(held) == answers(load(catalogue, second.name))
    third = cut(3, 8, second, delta=False)
    held = load(catalogue, third.name, held=held)
    assert not held.upon
    assert held.tables.bits == 8
    assert answers(held) == answers(load(catalogue, third.name))
    fourth = cut(4, 8, third)
    held = load(catalogue, fourth.name, held=held)
    assert held.upon
    assert answers(held) == answers(load(catalogue, fourth.name))
