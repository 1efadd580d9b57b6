"""Every planted bug is caught within 100 seeds; a bug that is not means that the simulator is
too weak."""

import pytest
from planted import SEEDS_MAX, caught_by, known
from sim_bug import Bug
from sim_bugs import BUGS


@pytest.mark.planted
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_is_caught(bug: Bug):
    """The seed that caught it last is tried first; `python tests/simulation/planted.py` finds
    new ones."""
    assert caught_by(bug, known().get(bug.name)) is not None, (
        f"{bug.name} ({bug.what}) is not caught within {SEEDS_MAX} seeds"
    )


def test_known_seeds_are_of_bugs_that_there_are():
    assert set(known()) <= {bug.name for bug in BUGS}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_is_gone_again(bug: Bug):
    """A patch that stayed would make every later test worthless."""
    with bug.planted():
        planted = [
            getattr(one.target, one.attribute) for one in bug.plant() if hasattr(one, "target")
        ]
    now = [getattr(one.target, one.attribute) for one in bug.plant() if hasattr(one, "target")]
    assert not set(map(id, planted)) & set(map(id, now))
