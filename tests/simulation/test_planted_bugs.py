"""Every planted bug is caught within 100 seeds; a bug that is not means that the simulator is
too weak."""

from pathlib import Path
from typing import Any

import pytest
from planted import SEEDS_MAX, caught_by, known
from sim_bug import BROKEN, CALLED, Bug, replaced
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


class Right:
    def add(self, n: int, m: int) -> int:
        return n + m

    def scale(self, n: int, by: int = 1) -> int:
        return n * by


def test_a_bug_whose_target_has_changed_cannot_be_planted():
    with pytest.raises(TypeError, match="too many positional arguments"):
        replaced(Right.add, lambda self, n: n)
    with pytest.raises(AttributeError):
        replaced(Right.subtract, lambda self, n, m: n)


def test_a_bug_that_is_called_with_what_it_does_not_take_fails_by_itself():
    """Its TypeError would else count as a run that failed, and so as a bug that is caught."""
    BROKEN.clear()
    with replaced(Right.scale, lambda self, n: n), pytest.raises(TypeError):
        Right().scale(2, by=3)
    assert len(BROKEN) == 1
    BROKEN.clear()


def test_what_a_bug_stands_in_for_is_told_when_it_is_called():
    CALLED.clear()
    with replaced(Right.add, lambda self, n, m: 0):
        assert not CALLED
        assert Right().add(1, 2) == 0
    assert set(CALLED) == {"Right.add"}


def test_a_bug_that_fails_by_itself_is_told_from_one_that_is_caught(tmp_path: Path):
    """As one does that reaches for a field that was renamed; elsewhere the error would only count
    as a run that failed."""
    source = tmp_path / "sim_bugs_of_this_test.py"
    source.write_text("def bad(self, n, m):\n    return self.gone\n")
    found: dict[str, Any] = {}
    exec(compile(source.read_text(), str(source), "exec"), found)
    BROKEN.clear()
    with replaced(Right.add, found["bad"]), pytest.raises(AttributeError):
        Right().add(1, 2)
    assert len(BROKEN) == 1
    assert "Right.add" in BROKEN[0]
    BROKEN.clear()
    with replaced(Right.add, lambda self, n, m: n - m):
        assert Right().add(1, 2) == -1
    assert Right().add(1, 2) == 3
    assert not BROKEN
