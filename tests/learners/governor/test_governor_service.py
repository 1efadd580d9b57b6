"""The governor's process over twins in memory: real learners, clocks and shard on virtual time."""

import itertools
from typing import Any

import pytest

from bench.learning.virtual_governor import STREAM, VirtualGovernor
from bench.learning.virtual_training import Setting, Trained, VirtualTraining, draw_work
from learners.config import ModelConfig
from learners.governor_config import GovernorConfig
from learners.models import make_model
from paramserver import PaceLevel, PortUnreachable
from stream import Partition


def a_model(rate: float) -> Any:
    options = {"rate": rate, "accumulator": 0.1}
    return make_model(
        ModelConfig(kind="lr", categorical=("source", "item"), bias=True, table_optimizer="adagrad",
                    table_options=options)
    )  # fmt: skip


WORKS = draw_work(a_model(0.3), examples=24_000, batch_rows=100, seed=5)
CONFIG = GovernorConfig(window_batches=12, share_max=1.0, lease_ms=10_000)


def run(learners: int, staleness: int, config: GovernorConfig = CONFIG, rate: float = 0.1):
    governor = VirtualGovernor(config, cut_every=10)
    world = VirtualTraining(
        a_model(rate), WORKS, Setting(learners, staleness), on_trained=governor.take
    ).run()
    assert governor.service is not None
    return governor, world, governor.service.core


def test_of_a_sequence_the_estimate_is_nothing():
    governor, _, core = run(1, 0)
    assert len(governor.decisions) > 5
    assert {d["action"] for d in governor.decisions} == {"hold"}
    assert max(abs(d["excess"]) for d in governor.decisions) <= 1e-5
    assert core.counts["window judged"] == len(governor.decisions)
    assert sum(core.decided.values()) == len(governor.decisions)
    assert governor.service is not None
    exported = governor.service._metrics.registry.get_sample_value
    for (action, why), count in core.decided.items():
        assert exported("everspun_governor_decisions", {"action": action, "why": why}) == count
    assert exported("everspun_governor_band_share") == CONFIG.band
    assert core.rows_spent <= core.rows_live + 100 * CONFIG.window_batches


@pytest.mark.long
def test_it_leaves_a_bad_setting_and_the_clocks_obey_until_it_dies():
    governor, world, core = run(8, 16, rate=0.4)
    slower = [d for d in governor.decisions if d["action"] == "slower"]
    assert slower
    assert core.governor is not None
    assert core.governor.level.staleness < 16
    name, now_ms = world.model.name, int(world.now_ms)
    bounds = world.clocks.bounds(name, now_ms)
    assert (bounds.ordered, bounds.in_force, bounds.governor) == (
        PaceLevel(16),
        core.governor.level,
        "governor-0",
    )
    assert world.clocks.bounds(name, now_ms + CONFIG.lease_ms).in_force == PaceLevel(
        16
    )  # nobody renews it
    late = [t.staleness for t in world.trained[-40:]]
    early = [t.staleness for t in world.trained[40:80]]
    assert sum(late) < sum(early) / 2


@pytest.mark.long
def test_it_comes_back_while_data_age_grows():
    def grow(governor: VirtualGovernor) -> None:
        assert governor.service is not None
        governor.service._backlog = lambda: 1_000  # type: ignore[method-assign]

    config = GovernorConfig(window_batches=12, share_max=1.0, begin="slowest")
    governor = Interrupted(config, cut_every=10, at=2, what=grow)
    world = VirtualTraining(a_model(0.1), WORKS, Setting(4, 0), on_trained=governor.take).run()
    assert governor.service is not None
    core = governor.service.core
    assert governor.decisions[0]["concurrency"] == 1
    assert [d["action"] for d in governor.decisions].count("faster") == 2
    assert core.governor is not None
    assert core.governor.at == 0
    assert world.clocks.bounds(world.model.name, int(world.now_ms)).governor == ""


class Interrupted(VirtualGovernor):
    """Something happens after so many batches."""

    def __init__(self, *arguments: Any, at: int, what: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.at, self.what = at, what

    def take(self, world: VirtualTraining, trained: Trained) -> None:
        if len(world.trained) == self.at:
            self.what(self)
        super().take(world, trained)


def interrupted(at: int, what: Any) -> VirtualGovernor:
    governor = Interrupted(CONFIG, cut_every=10, at=at, what=what)
    VirtualTraining(a_model(0.1), WORKS, Setting(1, 0), on_trained=governor.take).run()
    return governor


def counts(governor: VirtualGovernor) -> Any:
    assert governor.service is not None
    return governor.service.core.counts


def test_evaluations_without_an_end_do_not_hold_a_turn_for_ever(monkeypatch: pytest.MonkeyPatch):
    now_ms = itertools.count()

    def busy(governor: VirtualGovernor) -> None:
        service = governor.service
        assert service is not None
        assert service._evaluations is not None
        with monkeypatch.context() as patched:
            patched.setattr(service, "_now_ms", lambda: next(now_ms))
            patched.setattr(
                service._evaluations, "poll", lambda *_: {Partition(STREAM.evaluations, 0): []}
            )
            service._hear()

    interrupted(25, busy)
    assert next(now_ms) >= CONFIG.poll_ms


@pytest.mark.long
def test_a_cut_that_is_gone_and_records_that_are_gone_cost_one_comparison():
    def lose_cuts(governor: VirtualGovernor) -> None:
        governor.cuts.kept.clear()
        assert governor.service is not None
        assert governor.service.core.window is not None

    lost = interrupted(25, lose_cuts)
    assert counts(lost)["window gone"] == 1
    assert counts(lost)["window judged"] > 3

    def lose_records(governor: VirtualGovernor) -> None:
        for p in range(STREAM.partitions):
            at = Partition(STREAM.examples, p)
            governor.log.delete_below(at, governor.log.reader().end_offsets([at])[at])

    truncated = interrupted(25, lose_records)
    assert counts(truncated)["window gone"] == 1
    assert counts(truncated)["window judged"] > 3


def test_while_the_clock_holder_is_away_it_looks_again():
    def away(governor: VirtualGovernor) -> None:
        assert governor.service is not None
        clock = governor.service._clock
        bounds, silent = clock.bounds, iter(range(3))

        def unanswered(model: str) -> Any:
            if next(silent, None) is None:
                return bounds(model)
            raise PortUnreachable("nobody there")

        clock.bounds = unanswered  # type: ignore[method-assign]

    governor = interrupted(25, away)
    assert governor.service is not None
    assert governor.service._metrics.unanswered._value.get() == 3
    assert counts(governor)["window judged"] > 3


def test_what_waits_is_told_from_the_log_and_the_shards():
    governor = VirtualGovernor(CONFIG, cut_every=10, backlog=True)
    waiting = []

    def ask(world: VirtualTraining, trained: Trained) -> None:
        governor.take(world, trained)
        assert governor.service is not None
        waiting.append(governor.service._backlog())

    VirtualTraining(a_model(0.1), WORKS, Setting(1, 0), on_trained=ask).run()
    assert waiting == [len(WORKS) - n for n in range(1, len(WORKS) + 1)]


@pytest.mark.long
def test_a_word_is_taken_back_at_the_end_of_an_orderly_life():
    governor, world, _ = run(
        4, 0, GovernorConfig(window_batches=12, share_max=1.0, begin="slowest")
    )
    name, now_ms = world.model.name, int(world.now_ms)
    assert world.clocks.bounds(name, now_ms).governed == PaceLevel(0, 1)
    assert governor.service is not None
    governor.service._farewell()
    assert world.clocks.bounds(name, now_ms).governed is None


def test_an_evaluation_that_says_nothing_is_passed_over(caplog: pytest.LogCaptureFixture):
    def nonsense(governor: VirtualGovernor) -> None:
        for value in (b"{", b'{"model": "clicks"}', None):
            governor.log.append(Partition(STREAM.evaluations, 0), value)

    assert counts(interrupted(25, nonsense))["window judged"] > 3
    assert [f"is passed over ({n} so far)" in caplog.text for n in (1, 2, 3)] == [
        True,
        True,
        False,
    ], "1, 2, 4, ..."
