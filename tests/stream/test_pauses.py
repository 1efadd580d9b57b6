"""Whoever reads an idle log looks at it less and less often, and at once again when it moves."""

import pytest

from stream import IdleWait


def test_the_wait_doubles_while_nothing_moves_up_to_its_limit():
    idle = IdleWait(50, 180)
    waits = []
    for _ in range(40):
        waits.append(idle.wait_ms)
        idle.turned(moved=False)
    assert waits[:4] == [50, 100, 180, 180]
    assert set(waits[4:]) == {180}
    idle.turned(moved=True)
    assert idle.wait_ms == 50


@pytest.mark.parametrize(("first_ms", "max_ms"), [(0, 1), (2, 1)])
def test_what_can_not_be_is_refused(first_ms: int, max_ms: int):
    with pytest.raises(ValueError, match=f"first_ms = {first_ms}, max_ms = {max_ms}"):
        IdleWait(first_ms, max_ms)
