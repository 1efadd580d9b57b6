"""When a governor compares, what it may spend, and what it says to the clock holder."""

from collections.abc import Sequence

import pytest

from learners.governor.checkpoint_source import CompleteCut
from learners.governor.controller import Governing, LeaseRequest
from learners.governor.window import Scored
from learners.governor_config import GovernorConfig
from paramserver import Bounds, ChainProgress, PaceLevel, Progress
from paramserver.clocks import SLOWEST

CONFIG = GovernorConfig(window_batches=2, lease_ms=30_000, share_max=0.1, backlog_min=10)
FREE = Bounds(PaceLevel(4), False, 4)
GOOD, BAD = ([100.0, 101.0], [100.0, 101.0]), ([110.0, 111.0], [100.0, 101.0])


def cut(number: int, rows: int = 0, name: str = "") -> CompleteCut:
    chains = {"label/0": ChainProgress(number * 10, rows=rows)}
    return CompleteCut(number, name or f"c{number}", Progress(chains, {0: number}), {})


class Holder:
    """A clock holder that grants every request."""

    def __init__(self, core: Governing, bounds: Bounds = FREE):
        self.core, self.bounds, self.words = core, bounds, list[LeaseRequest]()
        core.bounded(bounds)

    def run_once(self, now_ms: int) -> None:
        self.core.bounded(self.bounds)
        while (lease_request := self.core.lease_request(now_ms)) is not None:
            self.words.append(lease_request)
            held = lease_request.lease_ms > 0
            self.bounds = self.bounds._replace(
                governor=self.core.name if held else "",
                governed=lease_request.level if held else None,
                sequence=lease_request.sequence,
            )
            self.core.answered(lease_request, self.bounds)


def begun(config: GovernorConfig = CONFIG, bounds: Bounds = FREE) -> tuple[Governing, Holder]:
    core = Governing(config, "g")
    holder = Holder(core, bounds)
    core.saw(cut(0), 0)
    return core, holder


def judge(
    core: Governing, losses: tuple[Sequence[float], Sequence[float]], backlog: int | None = None
) -> str:
    return core.judged(*losses, rows=100, backlog=backlog).action


def test_it_compares_from_the_first_cut_after_its_beginning():
    core, _ = begun()
    core.saw(cut(0), 0)
    assert core.window is None
    core.saw(cut(1), 0)
    assert core.window is not None


def test_scores_heard_before_a_cut_was_seen_count():
    core, _ = begun()
    for n in range(4):
        core.add(Scored("label/0", n * 5, n * 5 + 5, 1.0))
    core.saw(cut(1), 0)
    assert core.window is not None
    assert [one.start for one in core.window.order] == [10, 15]
    assert core.window.complete


def test_at_the_loosest_level_nothing_is_said():
    core, holder = begun()
    core.saw(cut(1), 0)
    assert judge(core, GOOD) == "hold"
    holder.run_once(1)
    assert holder.words == []


def test_a_level_is_said_renewed_and_given_back():
    core, holder = begun()
    core.saw(cut(1), 0)
    assert judge(core, BAD) == "slower"
    holder.run_once(10)
    assert holder.words == [LeaseRequest(1, PaceLevel(1), 30_000)]
    holder.run_once(10_009)
    assert len(holder.words) == 1
    holder.run_once(10_010)
    assert holder.words[1:] == [LeaseRequest(2, PaceLevel(1), 30_000)]
    assert core.farewell(11_000) == LeaseRequest(3, PaceLevel(1), 0)


def test_after_a_change_only_a_cut_that_stopped_starts_after_it_counts():
    core, holder = begun()
    core.saw(cut(1), 0)
    judge(core, BAD)
    holder.bounds = holder.bounds._replace(cut="c2")  # under way when the word came
    holder.run_once(1)
    core.saw(cut(1, 10_000), 2)
    core.saw(cut(2, 10_000), 2)
    assert core.window is None
    core.saw(cut(3, 10_000), 3)
    assert core.window is not None


@pytest.mark.parametrize("changed", [{"ordered": PaceLevel(0)}, {"governor": "", "governed": None}])
def test_a_change_by_another_gives_a_comparison_up(changed: dict[str, object]):
    core, holder = begun()
    core.saw(cut(1), 0)
    judge(core, BAD)
    holder.run_once(1)
    core.saw(cut(2, 10_000), 2)
    assert core.window is not None
    holder.bounds = holder.bounds._replace(**changed)
    holder.run_once(3)
    assert core.window is None
    assert core.counts["window changed"] == 1


def test_a_lost_lease_is_taken_again_and_counted():
    core, holder = begun()
    core.saw(cut(1), 0)
    judge(core, BAD)
    holder.run_once(1)
    holder.bounds = FREE
    holder.run_once(2)
    assert holder.words[-1] == LeaseRequest(2, PaceLevel(1), 30_000)
    assert core.counts["leases lost"] == 1


def test_a_governor_that_starts_again_goes_on_where_its_lease_stands():
    left = FREE._replace(governor="g", governed=PaceLevel(0, 2), left_ms=100, sequence=41)
    _core, holder = begun(bounds=left)
    holder.run_once(1)
    assert holder.words == [LeaseRequest(42, PaceLevel(0, 2), 30_000)]


def test_while_another_governor_holds_the_lease_it_says_nothing():
    _core, holder = begun(
        GovernorConfig(begin="slowest"), FREE._replace(governor="other", governed=PaceLevel(0))
    )
    holder.run_once(1)
    assert holder.words == []


def test_it_may_begin_slowest():
    _core, holder = begun(GovernorConfig(begin="slowest"))
    holder.run_once(1)
    assert holder.words == [LeaseRequest(1, PaceLevel(0, 1), 60_000)]


def test_it_waits_for_a_learner():
    core, holder = begun(bounds=FREE._replace(learners=0))
    core.saw(cut(1), 0)
    assert core.window is None
    holder.bounds = FREE
    holder.run_once(1)
    core.saw(cut(2), 0)
    assert core.window is not None


def test_an_operator_who_tightens_is_followed_and_one_who_loosens_at_the_top_too():
    core, holder = begun()
    holder.bounds = FREE._replace(ordered=PaceLevel(16))
    holder.run_once(1)
    assert core.governor is not None
    assert core.governor.level == PaceLevel(16)
    core.saw(cut(1), 0)
    judge(core, BAD)
    holder.run_once(2)
    assert core.governor.level == PaceLevel(4)
    holder.bounds = holder.bounds._replace(ordered=PaceLevel(0))
    holder.run_once(3)
    assert core.governor.level == PaceLevel(0)
    assert holder.words[-1].lease_ms == 0  # nothing is tightened any more


def test_a_batch_scored_twice_gives_a_comparison_up():
    core, _ = begun()
    core.saw(cut(1), 0)
    core.add(Scored("label/0", 10, 15, 1.0))
    core.add(Scored("label/0", 10, 15, 1.0))
    assert core.window is None
    assert core.counts["window disturbed"] == 1
    core.saw(cut(1), 0)
    assert core.window is None
    core.saw(cut(2), 0)
    assert core.window is not None


def test_a_comparison_that_does_not_come_to_an_end_is_given_up():
    core, _ = begun()
    core.saw(cut(1), 1_000)
    core.saw(cut(1), 601_001)
    assert core.window is None
    assert core.counts["window timeout"] == 1


def test_what_is_spent_is_bounded_by_what_was_learned():
    core, _ = begun()
    core.saw(cut(1), 0)
    judge(core, GOOD)  # 100 rows, of at most a tenth
    core.saw(cut(2, 999), 0)
    assert core.window is None
    core.saw(cut(3, 1_000), 0)
    assert core.window is not None


@pytest.mark.parametrize(
    ("backlogs", "wanted"),
    [
        ([20, 30], True),
        ([20, 19], True),
        ([20, 18], False),
        ([5, 9], False),
        ([None, 30], False),
        ([20, None], False),
    ],
)
def test_speed_is_wanted_where_what_waits_does_not_shrink(backlogs: list[int | None], wanted: bool):
    core, _holder = begun(GovernorConfig(begin="slowest", backlog_min=10, share_max=1.0))
    for number, backlog in enumerate(backlogs, start=1):
        core.saw(cut(number, 100_000 * number), 0)
        action = judge(core, GOOD, backlog)
    assert action == ("faster" if wanted else "hold")


def test_at_the_slowest_level_it_says_that_it_is_at_its_end():
    core, _ = begun(GovernorConfig(begin="slowest"))
    core.saw(cut(1), 0)
    assert not core.at_its_end
    assert judge(core, BAD) == "hold"
    assert core.decision is not None
    assert core.decision.why == SLOWEST
    assert core.at_its_end


def test_pairs_that_say_nothing_decide_nothing():
    core, _ = begun()
    core.saw(cut(1), 0)
    with pytest.raises(ValueError, match="two pairs"):
        core.judged([1.0], [1.0], 100, None)
    assert core.decision is None
    assert core.counts["window says nothing"] == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("band", 0.0),
        ("certainty", float("inf")),
        ("begin", "fast"),
        ("window_batches", 1),
        ("share_max", 1.5),
        ("patience", 0),
        ("lease_ms", 2_999),
        ("lease_ms", 600_001),
        ("poll_ms", 0),
    ],
)
def test_a_config_that_cannot_be_names_its_key(key: str, value: object):
    with pytest.raises(ValueError, match=key):
        GovernorConfig(**{key: value})
