"""The governor against a world whose cost of staleness is known: leaves bad levels, keeps good
ones, in small steps."""

import random
from unittest.mock import patch

import pytest

from paramserver.bounds import PaceLevel
from paramserver.clocks import governor as under_test
from paramserver.clocks.governor import (
    DOWN_MAX,
    Decision,
    Estimate,
    Governor,
    estimate,
    pace_levels,
)

BAND, ERROR, LEARNERS = 0.005, 0.0003, 8


def staleness(level: PaceLevel) -> float:
    """Of learners that are always busy, each with as many batches under way as its bound admits."""
    at_once = LEARNERS * (1 + (16 if level.staleness < 0 else level.staleness))
    return (min(level.concurrency, at_once) or at_once) - 1.0


def closed_loops(seeds: int) -> None:
    for seed in range(seeds):
        closed_loop(seed)


class Violation(AssertionError):
    pass


def closed_loop(seed: int) -> None:
    """One run of 120 estimates. The cost of an update's staleness and the wish for speed change
    half-way."""
    rng = random.Random(seed)
    levels = pace_levels(rng.choice((-1, 0, 1, 4, 16)), LEARNERS)
    governor = Governor(levels, BAND, at=rng.randrange(len(levels)))
    costs = [rng.choice((0.0, 0.0001, 0.0005, 0.002, 0.01)) for _ in range(2)]
    wanted = [rng.random() < 0.5 for _ in range(2)]
    for half in range(2):
        for step in range(60):
            before = governor.at
            true = costs[half] * staleness(levels[before])
            decision = governor.decide(Estimate(rng.gauss(true, ERROR), ERROR, 24), wanted[half])
            moved = governor.at - before
            if not -1 <= moved <= DOWN_MAX or decision.level != levels[governor.at]:
                raise Violation(
                    f"bounded actions: seed {seed} moves {moved} levels, and says {decision}"
                )
            if moved > 0 and true < BAND - 2 * ERROR:
                raise Violation(f"left a good level: seed {seed}, true cost {true}, {decision}")
            if moved < 0 and (not wanted[half] or true > BAND):
                raise Violation(
                    f"went faster at cost {true}, speed wanted {wanted[half]}: seed {seed}, "
                    f"{decision}"
                )
            stays_bad = costs[half] * staleness(levels[governor.at]) > BAND + 5 * ERROR
            if (
                step >= len(levels)
                and stays_bad
                and moved <= 0
                and governor.at == before < len(levels) - 1
            ):
                raise Violation(f"stays in a bad level: seed {seed}, {decision}")
        best = costs[half] * staleness(levels[0])
        if wanted[half] and best < BAND / 2 - 5 * ERROR and governor.at != 0:
            raise Violation(
                f"did not come back: seed {seed}, at {levels[governor.at]} of {levels[0]}"
            )


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_it_leaves_the_bad_keeps_the_good_and_comes_back_in_small_steps(first: int):
    for seed in range(first, first + 100):
        closed_loop(seed)


def caught(change: object) -> bool:
    decide = Governor.decide

    def bad(self: Governor, found: Estimate, speed_wanted: bool) -> Decision:
        return change(self, decide, found, speed_wanted)  # type: ignore[operator]

    with patch.object(Governor, "decide", bad):
        try:
            closed_loops(100)
        except Violation:
            return True
    return False


PLANTED = {
    "noise taken for a cost": lambda self, decide, e, w: decide(
        self, Estimate(e.excess + 3 * e.error, 0.0, 24), w
    ),
    "cost not looked at": lambda self, decide, e, w: decide(self, Estimate(0.0, e.error, 24), w),
    "faster though nobody wants it": lambda self, decide, e, w: decide(self, e, True),
    "never comes back": lambda self, decide, e, w: decide(self, e, False),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_caught(name: str):
    assert caught(PLANTED[name])


def test_a_planted_leap_is_caught():
    with patch.object(under_test, "DOWN_MAX", 5), pytest.raises(Violation, match="bounded actions"):
        closed_loops(100)


def test_a_level_that_was_left_for_its_cost_is_not_tried_again_at_once():
    governor = Governor(pace_levels(0, 8), BAND)
    assert governor.decide(Estimate(0.007, 0.0005, 24), True).action == "slower"
    again = [governor.decide(Estimate(0.0, 0.0005, 24), True).action for _ in range(8)]
    assert again == ["hold"] * 7 + ["faster"]


def test_the_ladder_goes_from_what_is_allowed_to_the_sequence():
    assert pace_levels(2, 4) == (
        PaceLevel(2),
        PaceLevel(1),
        PaceLevel(0),
        PaceLevel(0, 2),
        PaceLevel(0, 1),
    )
    assert pace_levels(-1, 1)[0] == PaceLevel(-1)
    levels = pace_levels(-1, LEARNERS)
    assert sorted(map(staleness, levels), reverse=True) == [staleness(r) for r in levels]
    with pytest.raises(ValueError, match="bound -2"):
        pace_levels(-2, 4)


def test_the_ladder_stays_below_an_operators_concurrency():
    assert pace_levels(1, 8, concurrency=3) == (
        PaceLevel(1, 3),
        PaceLevel(0, 3),
        PaceLevel(0, 2),
        PaceLevel(0, 1),
    )
    assert pace_levels(0, 8, concurrency=1) == (PaceLevel(0, 1),)


@pytest.mark.parametrize(
    ("at", "levels", "level"),
    [
        (0, pace_levels(16, 8), PaceLevel(16)),  # at the top it follows the operator up
        (1, pace_levels(16, 8), PaceLevel(0)),  # else it keeps what it has found
        (2, pace_levels(0, 2), PaceLevel(0, 1)),  # the nearest one that is no looser
        (1, pace_levels(0, 4, concurrency=2), PaceLevel(0, 2)),
        (3, pace_levels(0, 1), PaceLevel(0)),  # nothing is tighter there
    ],
)
def test_on_another_ladder_it_keeps_its_place(
    at: int, levels: tuple[PaceLevel, ...], level: PaceLevel
):
    governor = Governor(pace_levels(1, 8), BAND, at=at)
    governor.stand_on(levels)
    assert governor.level == level


def test_an_estimate_is_the_ratio_of_sums_and_its_error_that_of_repeated_draws():
    rng = random.Random(1)

    def draw() -> Estimate:
        sequence = [rng.gauss(100, 10) for _ in range(50)]
        return estimate([b * 1.01 + rng.gauss(0, 2) for b in sequence], sequence)

    found = [draw() for _ in range(400)]
    mean = sum(e.excess for e in found) / len(found)
    spread = (sum((e.excess - mean) ** 2 for e in found) / len(found)) ** 0.5
    assert mean == pytest.approx(0.01, abs=0.0005)
    assert sum(e.error for e in found) / len(found) == pytest.approx(spread, rel=0.1)
    with pytest.raises(ValueError, match="two pairs"):
        estimate([1.0], [1.0])
