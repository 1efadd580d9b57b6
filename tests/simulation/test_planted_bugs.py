"""Every planted bug is caught within 100 seeds; a bug that is not means that the simulator is too weak."""

import itertools

import pytest
from run import run_seed
from sim_bug import Bug
from sim_bugs import BUGS

SEEDS_MAX = 100


def caught_by(bug: Bug) -> int | None:
    """A seed that catches it: the known one first, then in their order."""
    seeds = itertools.chain([bug.seed], range(bug.first, 1 << 30, bug.step))
    for seed in itertools.islice(seeds, SEEDS_MAX):
        with bug.planted():
            if run_seed(seed).failure:
                return seed
    return None


@pytest.mark.planted
@pytest.mark.timeout(600)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_is_caught(bug: Bug):
    assert caught_by(bug) is not None, f"{bug.name} ({bug.what}) is not caught within {SEEDS_MAX} seeds"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_is_gone_again(bug: Bug):
    """A patch that stayed would make every later test worthless."""
    with bug.planted():
        planted = [getattr(one.target, one.attribute) for one in bug.plant() if hasattr(one, "target")]
    now = [getattr(one.target, one.attribute) for one in bug.plant() if hasattr(one, "target")]
    assert not set(map(id, planted)) & set(map(id, now))
