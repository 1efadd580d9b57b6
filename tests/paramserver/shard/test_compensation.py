"""Compensation of stale gradients, against the papers' formulas in plain numpy over a random
schedule of batches."""

from collections.abc import Callable

import numpy as np
import pytest

from paramserver.clocks import Clocks
from paramserver.compensation import Compensation
from paramserver.messages import (
    DenseSpec,
    Epoch,
    ModelSpec,
    Outcome,
    PullRequest,
    PushRequest,
    TableSpec,
)
from paramserver.ports import AllowRequest, PortRefused
from paramserver.shard.delay_compensation import Compensator, GradientHistory, Update
from paramserver.shard.shard import Shard
from paramserver.slots import SlotMap

ME = Epoch(1, 1)
RATE, START, DIM, KEYS = 0.1, 0.1, 3, 40
Numbers = np.ndarray


def a_shard(optimizer: str, compensation: Compensation) -> Shard:
    options = {"rate": RATE} if optimizer != "ftrl" else {"alpha": RATE}
    if optimizer in ("adagrad", "adaptive_revision"):
        options["accumulator"] = START
    spec = ModelSpec(
        "m",
        "1",
        (TableSpec("t", DIM, optimizer, options),),
        DenseSpec({"d": (2, DIM)}, optimizer, options),
    )
    shard = Shard(0, 1, SlotMap.even(1), compensation)
    shard.allow(AllowRequest(1, 1, (ME,)))
    shard.begin(spec, {"c": 0}, {"d": np.zeros((2, DIM), np.float32)})
    return shard


def push(shard: Shard, at: int, read: int, keys: Numbers, rows: Numbers, dense: Numbers) -> int:
    request = PushRequest(
        "m", ME, 1, 1, "c", at, at + 1, 0, at + 1, read, 0, 1,
        keys={"t": keys}, gradients={"t": rows}, dense={"d": dense},
    )  # fmt: skip
    reply = shard.push(request)
    assert reply.outcome is Outcome.APPLIED
    return reply.staleness


def weights(shard: Shard) -> Numbers:
    """(KEYS + 2, DIM): the table's rows, then the dense array."""
    pulled = shard.pull(PullRequest("m", ME, 1, {"t": np.arange(KEYS, dtype=np.uint64)}))
    return np.vstack([pulled.rows["t"], pulled.dense["d"]]).astype(np.float64)


def run(
    optimizer: str, compensation: Compensation, step: Callable[..., None], state: int, seed: int
) -> None:
    """Push 200 batches, each read up to eight updates ago, and compare all weights with the
    oracle's after each.

    `step(w, state, g, rows, applied, moved, tau)` changes (n, DIM) float64 `w` and `state[k]` at
    `rows`.
    """
    rng, shard = np.random.default_rng(seed), a_shard(optimizer, compensation)
    w, kept = np.zeros((KEYS + 2, DIM)), np.full((state, KEYS + 2, DIM), START)
    if optimizer == "ftrl":
        kept[:] = 0.0
    past, gradients = [w.copy()], [np.zeros_like(w)]
    for version in range(200):
        read = max(0, version - int(rng.integers(0, 8)))
        keys = np.flatnonzero(rng.random(KEYS) < 0.3)
        rows = np.concatenate([keys, [KEYS, KEYS + 1]])
        g = np.zeros_like(w)
        g[rows] = rng.normal(0, 2, (len(rows), DIM)).astype(np.float32)
        tau = push(
            shard,
            version,
            read,
            keys.astype(np.uint64),
            g[keys].astype(np.float32),
            g[KEYS:].astype(np.float32),
        )
        assert tau == version - read
        applied = sum(gradients[read + 1 :], np.zeros_like(w))
        step(w, kept, g, rows, applied, w - past[read], tau)
        past.append(w.copy())
        gradients.append(g)
        assert weights(shard) == pytest.approx(w, rel=2e-5, abs=2e-5), f"update {version}"
    shard.validate()


def adagrad(w: Numbers, state: Numbers, g: Numbers, rows: Numbers, rate: float) -> None:
    state[0, rows] += g[rows] ** 2
    w[rows] -= rate * g[rows] / (np.sqrt(state[0, rows]) + 1e-8)


@pytest.mark.parametrize("seed", [1, 2])
def test_staleness_aware_rate_divides_the_rate_of_the_step(seed: int):
    def step(w, state, g, rows, applied, moved, tau):
        adagrad(w, state, g, rows, RATE / max(1, tau))

    run("adagrad", Compensation("staleness_rate"), step, 1, seed)


def test_staleness_aware_rate_of_ftrl_leaves_its_accumulator_whole():
    def step(w, state, g, rows, applied, moved, tau):
        """With l1 = l2 = 0 the weight moves by the rate alone: w -= alpha / tau / (beta +
        sqrt(n)) g."""
        state[0, rows] += g[rows] ** 2
        w[rows] -= RATE / max(1, tau) * g[rows] / (1.0 + np.sqrt(state[0, rows]))

    run("ftrl", Compensation("staleness_rate"), step, 1, 3)


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_delay_compensation_adds_the_guess_of_what_the_gradient_would_be_now(optimizer: str):
    def step(w, state, g, rows, applied, moved, tau):
        guess = g + 0.05 * g * g * moved
        if optimizer == "sgd":
            w[rows] -= RATE * guess[rows]
        else:
            adagrad(w, state, guess, rows, RATE)

    run(optimizer, Compensation("dc_asgd", 0.05), step, 1, 4)


@pytest.mark.long
@pytest.mark.parametrize("seed", [5, 6])
def test_adaptive_revision_revises_what_was_applied_meanwhile(seed: int):
    def step(w, state, g, rows, applied, moved, tau):
        before = RATE / np.sqrt(state[1, rows])
        state[0, rows] += g[rows] ** 2 + 2 * g[rows] * applied[rows]
        state[1, rows] = np.maximum(state[0, rows], state[1, rows])
        after = RATE / np.sqrt(state[1, rows])
        w[rows] -= after * g[rows] - (before - after) * applied[rows]

    run("adaptive_revision", Compensation("adaptive_revision"), step, 2, seed)


def test_adaptive_revision_without_delay_is_adagrad():
    def step(w, state, g, rows, applied, moved, tau):
        state[0, rows] += g[rows] ** 2
        w[rows] -= RATE * g[rows] / np.sqrt(state[0, rows])

    run("adaptive_revision", Compensation("none"), step, 1, 7)


def test_nothing_is_compensated_where_nothing_was_applied_meanwhile():
    fresh = [a_shard("adagrad", Compensation(way)) for way in ("none", "staleness_rate", "dc_asgd")]
    rng = np.random.default_rng(8)
    keys = np.arange(KEYS, dtype=np.uint64)
    for version in range(20):
        rows, dense = (
            rng.normal(size=(KEYS, DIM)).astype(np.float32),
            rng.normal(size=(2, DIM)).astype(np.float32),
        )
        for shard in fresh:
            push(shard, version, version, keys, rows, dense)
    first, *others = (weights(shard) for shard in fresh)
    assert all(np.array_equal(first, other) for other in others)


def test_history_forgets_by_bytes_and_says_how_far_it_reaches():
    keys, rows = np.arange(10, dtype=np.uint64), np.ones((10, 1), np.float32)
    history = GradientHistory(bytes_max=3 * (keys.nbytes + rows.nbytes))
    for version in range(1, 6):
        history.add(Update(version, {"t": (keys, rows)}, {}))
    assert [u.version for u in history.updates] == [3, 4, 5]
    assert history.forgotten == 2
    assert history.nbytes == 3 * (keys.nbytes + rows.nbytes)
    wanted = np.array([0, 3, 99], np.uint64)
    assert history.rows_since(3, "t", wanted, 1).ravel().tolist() == [2, 2, 0]
    assert history.rows_since(5, "t", wanted, 1).ravel().tolist() == [0, 0, 0]
    assert history.rows_since(0, "other", wanted, 1).ravel().tolist() == [0, 0, 0]


def test_a_push_that_read_before_the_history_is_counted():
    shard = a_shard("sgd", Compensation("dc_asgd", bytes_max=0))
    keys, rows = np.arange(4, dtype=np.uint64), np.ones((4, DIM), np.float32)
    dense = np.ones((2, DIM), np.float32)
    push(shard, 0, 0, keys, rows, dense)
    assert shard.beyond_history("m") == 0
    push(shard, 1, 0, keys, rows, dense)
    assert shard.beyond_history("m") == 1


def test_a_guess_that_is_not_finite_is_the_gradient_itself():
    shard = a_shard("sgd", Compensation("dc_asgd", 1e20))
    keys, rows = np.arange(4, dtype=np.uint64), np.full((4, DIM), 1e14, np.float32)
    dense = np.ones((2, DIM), np.float32)
    for version in range(3):
        push(shard, version, 0, keys, rows, dense)
    shard.validate()


def test_an_operator_changes_the_way_while_training_goes_on():
    clocks, shard = Clocks(1, 1), a_shard("sgd", Compensation("none"))
    clocks.set_compensation("m", "staleness_rate")
    allow = clocks.allow_list()
    shard.allow(AllowRequest(1, allow.sequence, (ME,), ways=clocks.ways()))
    keys, rows, dense = (
        np.arange(1, dtype=np.uint64),
        np.ones((1, DIM), np.float32),
        np.zeros((2, DIM), np.float32),
    )
    for version in range(4):
        push(shard, version, 0, keys, rows, dense)  # of staleness 0, 1, 2, 3
    assert weights(shard)[0] == pytest.approx(np.full(DIM, -RATE * (1 + 1 + 1 / 2 + 1 / 3)))
    clocks.set_compensation("m", "")
    assert clocks.ways() == {}
    shard.allow(AllowRequest(1, clocks.allow_list().sequence, (ME,), ways=clocks.ways()))
    push(shard, 4, 0, keys, rows, dense)
    assert weights(shard)[0] == pytest.approx(np.full(DIM, -RATE * (2 + 1 / 2 + 1 / 3 + 1)))
    with pytest.raises(PortRefused, match="expected one of none, staleness_rate"):
        clocks.set_compensation("m", "hope")


def test_a_way_that_is_none_of_ours_is_refused_by_name():
    with pytest.raises(ValueError, match="compensation 'hope'"):
        Compensator(Compensation("hope"), 0)
