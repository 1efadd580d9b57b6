"""Rows in 16 bits: what they hold, how they are rounded, and that the same pushes give the same
bits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pushed_cluster import LEARNER, Cluster

from paramserver.messages import (
    DenseSpec,
    ModelSpec,
    PullRequest,
    TableSpec,
)
from paramserver.parts.part import weights
from paramserver.tables import Table, make_layout

SIXTEEN = ("float16", "bfloat16")


def as_numbers(bits: np.ndarray, kind: str) -> np.ndarray:
    """What 16-bit patterns mean, by numpy and torch."""
    if kind == "float16":
        return bits.view(np.float16).astype(np.float32)
    return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()


def every_number(kind: str) -> np.ndarray:
    numbers = as_numbers(np.arange(1 << 16, dtype=np.uint16), kind)
    return numbers[np.isfinite(numbers)]


def push(
    table: Table, keys: np.ndarray, gradients: np.ndarray, version: int, seed: int | None = None
) -> None:
    table.reserve(keys)
    table.advance(
        version, 1000 * version, len(keys), 1000 * version - 1000, version if seed is None else seed
    )
    table.apply(keys, gradients, version, 1000 * version)


@pytest.mark.parametrize("kind", SIXTEEN)
def test_every_number_of_16_bits_is_kept(kind):
    """Through a step that changes nothing too: subnormals, both zeros, the largest."""
    numbers = every_number(kind)
    layout = make_layout(TableSpec("t", 1, "sgd", {"rate": 1.0}, storage=kind))
    words, rows = np.zeros((len(numbers), 4 + layout.words), np.uint32), np.arange(len(numbers))
    words[:, 4:] = layout.initialize(numbers[:, None])
    words[:, 0] = rows
    for seed in range(3):
        layout.apply(words, 4, rows, np.zeros((len(rows), 1), np.float32), 1.0, None, seed)
        out = np.empty((len(rows), 1), np.float32)
        layout.weights(words, 4, rows, out)
        np.testing.assert_array_equal(out[:, 0], numbers)
        assert (np.signbit(out[:, 0]) == np.signbit(numbers)).all()


@pytest.mark.parametrize("kind", SIXTEEN)
@given(
    st.lists(st.floats(-60000, 60000, width=32), min_size=1, max_size=20),
    st.integers(0, (1 << 64) - 1),
)
@settings(max_examples=settings.default.max_examples * 60 // 100, deadline=None)
def test_a_number_becomes_one_of_its_neighbours(kind, values, seed):
    numbers, table = (
        every_number(kind),
        Table(TableSpec("t", 1, "sgd", {"rate": 1.0}, storage=kind)),
    )
    keys, numbers = np.arange(len(values), dtype=np.uint64), np.unique(numbers)
    push(table, keys, -np.array(values, np.float32)[:, None], 1, seed)
    for x, kept in zip(values, table.pull(keys)[:, 0].tolist(), strict=True):
        at = np.searchsorted(numbers, x)
        assert kept in numbers[max(at - 1, 0) : at + 1].tolist(), (x, kept)


@pytest.mark.parametrize("kind", SIXTEEN)
@pytest.mark.parametrize("x", [0.1, -1e-3, 3e-6, 1000.7, 1.00002])
def test_roundings_are_right_on_average_and_each_column_draws_for_itself(kind, x):
    table, keys = (
        Table(TableSpec("t", 4, "sgd", {"rate": 1.0}, storage=kind)),
        np.arange(10_000, dtype=np.uint64),
    )
    push(table, keys, np.full((len(keys), 4), -x, np.float32), 1)
    kept, x = table.pull(keys).astype(np.float64), float(np.float32(x))
    low, high = kept.min(), kept.max()
    share = (x - low) / (high - low)
    error = 5 * np.sqrt(share * (1 - share) / len(keys))
    np.testing.assert_allclose((kept == high).mean(axis=0), share, atol=error)
    pairs = (kept[:, 0] == high) & (kept[:, 1] == high)
    assert abs(pairs.mean() - share**2) < error + 0.01


def test_steps_too_small_for_16_bits_add_up():
    """1,000 steps of a 20th of the distance between neighbours: to the nearest, the weight would
    stay for ever."""
    for kind, apart in (("float16", 2.0**-10), ("bfloat16", 2.0**-7)):
        table, keys = (
            Table(TableSpec("t", 8, "sgd", {"rate": 1.0}, storage=kind)),
            np.arange(2000, dtype=np.uint64),
        )
        push(table, keys, np.full((2000, 8), -1.0, np.float32), 1)
        for version in range(2, 1002):
            push(table, keys, np.full((2000, 8), -apart / 20, np.float32), version)
        assert abs(table.pull(keys).astype(np.float64).mean() - (1 + 50 * apart)) < 0.3 * apart


def between(kept: np.ndarray, exact: np.ndarray, kind: str) -> np.ndarray:
    """Whether each kept number is a neighbour of the exact one, or the exact one itself."""
    numbers = np.unique(every_number(kind))
    above = np.searchsorted(numbers, exact)
    return (kept == numbers[above]) | (kept == numbers[np.maximum(above - 1, 0)])


ALLOWED = [
    (s, o)
    for s in SIXTEEN
    for o in ("sgd", "adagrad", "rowwise_adagrad", "adam", "adaptive_revision")
]
ALLOWED += [(f"{s}/bfloat16", o) for s in SIXTEEN for o in ("adagrad", "rowwise_adagrad")]


@pytest.mark.parametrize(("storage", "optimizer"), ALLOWED)
@pytest.mark.parametrize("dim", [1, 5, 16])
def test_a_step_is_that_of_float32_rounded(storage, optimizer, dim):
    """From the row as it stands, by the optimizer itself: state in float32 is what it gives, 16
    bits are neighbours."""
    weight, _, state = storage.partition("/")
    layout, plain = (
        make_layout(TableSpec("t", dim, optimizer, storage=s)) for s in (storage, "float32")
    )
    rng, rows = np.random.default_rng(7), np.array([3, -1, 0, 7])
    words, wide = (
        np.zeros((9, 4 + layout.words), np.uint32),
        np.zeros((9, 4 + plain.words), np.uint32),
    )
    words[:, 4:] = layout.initialize(rng.normal(0, 1, (9, dim)).astype(np.float32))
    words[:, 0] = np.arange(9)
    behind = 4 + (dim + 1) // 2

    def numbers(kept: np.ndarray) -> np.ndarray:
        head = as_numbers(np.ascontiguousarray(kept.view(np.uint16)[:, 8 : 8 + dim]), weight)
        if state:
            count = plain.words - dim
            tail = as_numbers(
                np.ascontiguousarray(kept.view(np.uint16)[:, 2 * behind :][:, :count]), state
            )
        else:
            tail = kept[:, behind:].view(np.float32)
        return np.concatenate([head, tail], axis=1)

    for seed in range(20):
        wide.view(np.float32)[:, 4:] = before = numbers(words)
        gradients = rng.normal(0, 1, (4, dim)).astype(np.float32)
        layout.apply(words, 4, rows, gradients, 0.5, None, seed)
        plain.apply(wide, 4, rows, gradients, 0.5, None, seed)
        kept, exact = numbers(words), wide.view(np.float32)[:, 4:]
        assert between(kept[:, :dim], exact[:, :dim], weight).all()
        assert (
            between(kept[:, dim:], exact[:, dim:], state).all()
            if state
            else (kept == exact)[:, dim:].all()
        )
        others = np.setdiff1d(np.arange(9), rows)
        np.testing.assert_array_equal(kept[others], before[others])
        assert (kept[[3, 0, 7], :dim] != before[[3, 0, 7], :dim]).any()


@pytest.mark.parametrize("optimizer", ["adagrad", "rowwise_adagrad", "adam"])
@pytest.mark.parametrize("kind", SIXTEEN)
def test_weights_follow_float32s_to_within_their_roundings(kind, optimizer):
    spec = TableSpec("t", 16, optimizer, init_scale=0.1, seed=3)
    exact, rounded = (
        Table(spec),
        Table(TableSpec("t", 16, optimizer, init_scale=0.1, seed=3, storage=kind)),
    )
    rng, keys = np.random.default_rng(11), np.arange(200, dtype=np.uint64)
    for version in range(1, 60):
        gradients = rng.normal(0.2, 1, (len(keys), 16)).astype(np.float32)
        for table in (exact, rounded):
            push(table, keys, gradients, version)
    apart = np.abs(exact.pull(keys) - rounded.pull(keys))
    ulp = (2.0**-10 if kind == "float16" else 2.0**-7) * np.abs(exact.pull(keys)).max()
    assert apart.mean() < 4 * ulp
    np.testing.assert_allclose(rounded.pull(keys).mean(), exact.pull(keys).mean(), atol=ulp / 4)


@pytest.mark.parametrize(
    ("storage", "optimizer", "payload"),
    [
        ("float32", "adagrad", 128),
        ("float16", "adagrad", 96),
        ("float16/bfloat16", "adagrad", 64),
        ("bfloat16", "sgd", 32),
        ("bfloat16", "rowwise_adagrad", 36),
        ("float16", "adam", 32 + 4 * 33),
    ],
)
def test_bytes_of_a_row(storage, optimizer, payload):
    table = Table(TableSpec("t", 16, optimizer, storage=storage))
    assert table.row_bytes == 16 + payload + 15
    keys = np.arange(100, dtype=np.uint64)
    push(table, keys, np.ones((100, 16), np.float32), 1)
    assert table.items().rows.nbytes == 100 * payload


@pytest.mark.parametrize(
    ("storage", "optimizer", "words"),
    [
        ("float16", "ftrl", "keeps sums of gradients and not weights"),
        (
            "float16/bfloat16",
            "adam",
            "state in 16 bits is for adagrad, rowwise_adagrad; use 'float16'",
        ),
        ("float16/float16", "adagrad", "allowed are float32, float16, bfloat16, float16/bfloat16"),
    ],
)
def test_storage_that_cannot_be(storage, optimizer, words):
    with pytest.raises(ValueError, match=words):
        Table(TableSpec("t", 2, optimizer, storage=storage))


def test_what_float16_cannot_hold_is_its_largest():
    table, keys = (
        Table(TableSpec("t", 2, "sgd", {"rate": 1.0}, storage="float16")),
        np.arange(1, dtype=np.uint64),
    )
    for version in range(1, 4):
        push(table, keys, np.array([[-1e6, 1e6]], np.float32), version)
        np.testing.assert_array_equal(table.pull(keys), [[65504, -65504]])


# --- shards
# --------------------------------------------------------------------------------------------------

MODEL = ModelSpec(
    "m",
    "d",
    (
        TableSpec("a", 3, "adagrad", {"decay_ms": 5000.0}, 0.1, 5, {}, "float16"),
        TableSpec("b", 4, "rowwise_adagrad", {}, 0.1, 5, {"ttl_ms": 40_000}, "bfloat16/bfloat16"),
    ),
    DenseSpec({}),
)


def drawn(end: int):
    rng = np.random.default_rng(end)
    keys = np.unique(rng.integers(0, 200, 40).astype(np.uint64))
    return keys, {
        t.name: rng.normal(0, 1, (len(keys), t.dim)).astype(np.float32) for t in MODEL.tables
    }


def cluster_of(shards: int) -> Cluster:
    return Cluster(MODEL, drawn, shards)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 3), (3, 2)])
def test_the_same_pushes_give_the_same_bits_over_restarts_and_on_any_number_of_shards(n, m):
    straight, restarted = cluster_of(1), cluster_of(n)
    for end in range(60):
        if end in (3, 31):
            restarted = restarted.restarted(m if end == 31 else n, incarnation=end)
        straight.push(end)
        restarted.push(end)
    assert straight.rows() == restarted.rows()


def test_a_part_carries_the_bits_and_serves_what_a_pull_answers():
    cluster = cluster_of(1)
    for end in range(20):
        cluster.push(end)
    (part,) = cluster.parts()
    for name, (keys, served) in weights(part).tables.items():
        reply = cluster.shards[0].pull(PullRequest("m", LEARNER, 1, {name: keys}))
        np.testing.assert_array_equal(served, reply.rows[name])
    assert part.tables["a"].rows.dtype == np.uint32
    bits = part.tables["a"].rows.view(np.uint16)[:, :3]
    np.testing.assert_array_equal(
        as_numbers(np.ascontiguousarray(bits), "float16"), weights(part).tables["a"][1]
    )
