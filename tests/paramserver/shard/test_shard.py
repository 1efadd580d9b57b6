"""The shard core: S1-S5 and K5's allow list, as a table of judgements."""

import re
from dataclasses import replace

import numpy as np
import pytest
from clicks_shard import (
    CHAINS,
    DENSE,
    LEARNER,
    SPEC,
    assert_same,
    barrier_of,
    frozen,
    new_shard,
    push_of,
)

from paramserver import slots
from paramserver.messages import (
    ChainProgress,
    Epoch,
    Outcome,
    PullRequest,
    TableSpec,
)
from paramserver.optim import kernels as optimizer_kernels
from paramserver.ports import AllowRequest, PortRefused
from paramserver.process import warm_up
from paramserver.shard import state
from paramserver.shard.shard import Shard
from paramserver.slots import SlotMap
from paramserver.tables import admission, ages
from paramserver.tables import cow_copy as copying
from paramserver.tables import float16 as halves
from paramserver.tables import hash_index as index
from paramserver.tables import initializer as init
from paramserver.tables import row_header as record
from paramserver.tables import row_store as row_store

# --- judgement
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "barrier", "outcome"),
    [
        (10, 15, 0, Outcome.APPLIED),
        (5, 10, 0, Outcome.DUPLICATE),
        (3, 7, 0, Outcome.DUPLICATE),
        (5, 12, 0, Outcome.OVERLAP),
        (9, 11, 0, Outcome.OVERLAP),
        (11, 15, 0, Outcome.GAP),
        (10, 10, 0, Outcome.DUPLICATE),
        (10, 10, 1, Outcome.APPLIED),
        (9, 9, 1, Outcome.DUPLICATE),
        (11, 11, 1, Outcome.GAP),
    ],
)
def test_ranges_against_e_of_10(start, end, barrier, outcome):
    shard = new_shard()
    before = frozen(shard.snapshot("clicks"))
    request = (
        barrier_of("label/0", start, barrier) if start == end else push_of("label/0", start, end)
    )
    reply = shard.push(request)
    assert reply.outcome is outcome
    if outcome is Outcome.APPLIED:
        assert (reply.end, reply.version) == (end, 1)
    else:
        assert (reply.end, reply.version) == (10, 0)
        assert_same(shard.snapshot("clicks"), before)
    assert (reply.incarnation, reply.map_epoch) == (1, 1)
    shard.validate()


def test_a_barrier_is_taken_once_and_rises():
    shard = new_shard()
    assert shard.push(barrier_of("label/0", 10, 3)).outcome is Outcome.APPLIED
    assert shard.push(barrier_of("label/0", 10, 3)).outcome is Outcome.DUPLICATE
    assert shard.push(barrier_of("label/0", 10, 2)).outcome is Outcome.DUPLICATE
    assert shard.progress("clicks").progress.chains["label/0"] == ChainProgress(10, 0, 3, 0)
    assert shard.push(push_of("label/0", 10, 12)).outcome is Outcome.APPLIED
    assert shard.progress("clicks").progress.chains["label/0"].barrier == 3


def test_order_of_the_checks():
    """Every fault but the last: each is told before the next is looked at, and nothing changes."""
    shard = Shard(0, 2, SlotMap.even(1, epoch=4))
    bad = push_of(
        "nowhere/7", 99, 100, model="other", epoch=Epoch(1, 9), map_epoch=3, incarnation=1
    )
    assert shard.push(bad).outcome is Outcome.WRONG_MAP
    bad = replace(bad, map_epoch=4)
    assert shard.push(bad).outcome is Outcome.NO_ERA
    shard.allow(AllowRequest(1, 1, (LEARNER,)))
    assert shard.push(replace(bad, epoch=Epoch(2, 1))).outcome is Outcome.NO_ERA, (
        "a younger era than it was told"
    )
    assert shard.push(bad).outcome is Outcome.FENCED
    bad = replace(bad, epoch=LEARNER)
    assert shard.push(bad).outcome is Outcome.WRONG_INCARNATION
    bad = replace(bad, incarnation=2)
    assert shard.push(bad).outcome is Outcome.NOT_BEGUN
    shard.begin(SPEC, CHAINS, DENSE)
    assert shard.push(bad).outcome is Outcome.NOT_BEGUN
    bad = replace(bad, model="clicks")
    reply = shard.push(bad)
    assert reply.outcome is Outcome.NOT_BEGUN
    assert "nowhere/7" in reply.detail
    bad = replace(bad, chain="label/0", keys={"shop": np.array([1], np.uint64)})
    assert shard.push(bad).outcome is Outcome.GAP, "content is looked at last"
    shard.validate()


def test_another_incarnation_is_told_so_before_e_is_looked_at():
    """S2: to a shard restored behind, a push of the former incarnation is no gap to be sent
    again."""
    shard = new_shard(incarnation=7)
    for start, end in ((10, 12), (50, 60), (0, 5), (5, 12)):
        reply = shard.push(push_of("label/0", start, end, incarnation=6))
        assert (reply.outcome, reply.incarnation) == (Outcome.WRONG_INCARNATION, 7)


# --- K5
# --------------------------------------------------------------------------------------------------


def test_only_the_allowed_epochs_of_the_present_era_push_and_pull():
    shard = new_shard(incarnation=5)
    pull = PullRequest("clicks", LEARNER, 1, {})
    assert shard.allow(AllowRequest(1, 3, (Epoch(1, 2),))).incarnation == 5
    assert shard.push(push_of("label/0", 10, 11, incarnation=5)).outcome is Outcome.FENCED
    assert shard.pull(pull).outcome is Outcome.FENCED
    shard.allow(AllowRequest(1, 2, (LEARNER,)))
    assert shard.pull(pull).outcome is Outcome.FENCED, (
        "an older word delivered late does not unfence"
    )
    shard.allow(AllowRequest(2, 1, (Epoch(2, 1),)))
    assert shard.pull(pull).outcome is Outcome.FENCED, "an epoch of an older era"
    assert shard.pull(replace(pull, epoch=Epoch(2, 1))).outcome is Outcome.APPLIED
    with pytest.raises(PortRefused, match="era 1 is over"):
        shard.allow(AllowRequest(1, 99, (LEARNER,)))
    assert shard.era == 2


def test_a_new_incarnation_remembers_no_epochs():
    assert Shard(0, 2, SlotMap.even(1)).era is None
    assert (
        Shard(0, 2, SlotMap.even(1)).pull(PullRequest("clicks", LEARNER, 1, {})).outcome
        is Outcome.NO_ERA
    )


# --- S3, S4, S5
# --------------------------------------------------------------------------------------------------


def test_a_pull_creates_nothing_and_answers_initial_values():
    shard = new_shard()
    before = frozen(shard.snapshot("clicks"))
    keys = np.arange(50, dtype=np.uint64)
    request = PullRequest("clicks", LEARNER, 1, {"user": keys, "item": keys})
    reply = shard.pull(request)
    assert reply.rows["user"].shape == (50, 2)
    assert not reply.rows["user"].any()
    assert reply.rows["item"].all()
    np.testing.assert_array_equal(reply.dense["hidden"], DENSE["hidden"])
    assert_same(shard.snapshot("clicks"), before)
    assert shard.rows("clicks") == 0
    np.testing.assert_array_equal(shard.pull(request).rows["item"], reply.rows["item"])
    assert shard.pull(replace(request, dense=False)).dense == {}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"shop": np.array([1], np.uint64)}, "no table 'shop'"),
        ({"user": np.array([1], np.int64)}, "int64"),
    ],
)
def test_a_pull_that_makes_no_sense_is_refused(keys, words):
    with pytest.raises(PortRefused, match=words):
        new_shard().pull(PullRequest("clicks", LEARNER, 1, keys))


def u64(*keys: int) -> np.ndarray:
    return np.array(keys, np.uint64)


def f32(rows: int, dim: int, value: float = 0.1) -> np.ndarray:
    return np.full((rows, dim), value, np.float32)


BAD_CONTENT = {
    "unsorted": ({"user": u64(2, 1)}, {"user": f32(2, 2)}, {}, "unique and rising"),
    "repeated": ({"user": u64(2, 2)}, {"user": f32(2, 2)}, {}, "unique and rising"),
    "signed": ({"user": np.array([1])}, {"user": f32(1, 2)}, {}, "int64"),
    "dim": ({"user": u64(1)}, {"user": f32(1, 3)}, {}, r"expected float32 \(1, 2\)"),
    "double": ({"user": u64(1)}, {"user": f32(1, 2).astype(np.float64)}, {}, "float64"),
    "nan": ({"user": u64(1, 2)}, {"user": f32(2, 2, np.nan)}, {}, "key 1 is not finite"),
    "inf": ({"user": u64(1)}, {"user": f32(1, 2, np.inf)}, {}, "not finite"),
    "huge": ({"user": u64(1)}, {"user": f32(1, 2, -1e20)}, {}, "not finite, or beyond"),
    "unknown table": ({"shop": u64(1)}, {"shop": f32(1, 2)}, {}, "'shop' is not in model"),
    "second table": (
        {"user": u64(1), "item": u64(1)},
        {"user": f32(1, 2), "item": f32(1, 3, np.nan)},
        {},
        "'item'",
    ),
    "no gradients": ({"user": u64(1)}, {}, {}, "gradients of"),
    "dense nan": (
        {"user": u64(1)},
        {"user": f32(1, 2)},
        {"bias": f32(1, 1, np.nan)[0]},
        "'bias': gradient is not",
    ),
    "dense shape": ({}, {}, {"bias": f32(1, 2)[0]}, r"expected float32 \(1,\)"),
    "dense unknown": ({}, {}, {"bios": f32(1, 1)[0]}, "'bios' is not in the model"),
}


@pytest.mark.parametrize("case", BAD_CONTENT)
def test_refused_content_ends_as_an_empty_push(case):
    """S4: progress, hash and version move as for an empty push; no row, weight or state changes."""
    keys, gradients, dense, words = BAD_CONTENT[case]
    shard, copy_of_it = new_shard(), new_shard()
    for s in (shard, copy_of_it):
        s.push(push_of("label/0", 10, 20))
    reply = shard.push(push_of("label/0", 20, 25, keys=keys, gradients=gradients, dense=dense))
    assert reply.outcome is Outcome.PARTLY_APPLIED
    assert reply.end == 25
    assert re.search(words, reply.detail), reply.detail
    copy_of_it.push(push_of("label/0", 20, 25, keys={}, gradients={}, dense={}, reason="bad"))
    assert_same(replace(shard.snapshot("clicks"), refused=0), copy_of_it.snapshot("clicks"))
    assert shard.snapshot("clicks").refused == 1
    assert shard.push(push_of("label/0", 25, 30)).outcome is Outcome.APPLIED, "the chain goes on"
    shard.validate()


def test_a_key_or_array_of_another_shard_is_refused_for_content():
    shards = [new_shard(index, shards=2) for index in range(2)]
    slot_map = shards[0].slot_map
    keys = np.arange(20, dtype=np.uint64)
    foreign = keys[slot_map.split(keys)[1]][:1]
    reply = shards[0].push(
        push_of("label/0", 10, 11, keys={"user": foreign}, gradients={"user": f32(1, 2)}, dense={})
    )
    assert reply.outcome is Outcome.PARTLY_APPLIED
    assert "belongs to another shard" in reply.detail
    with pytest.raises(PortRefused, match="belongs to another shard"):
        shards[0].pull(PullRequest("clicks", LEARNER, 1, {"user": foreign}))
    for name, shape in SPEC.dense.shapes.items():
        owner = slot_map.owner_of_name(name)
        dense = {name: np.zeros(shape, np.float32)}
        reply = shards[1 - owner].push(push_of("label/1", 0, 1, keys={}, gradients={}, dense=dense))
        assert "lives on another shard" in reply.detail
        assert name not in shards[1 - owner].pull(PullRequest("clicks", LEARNER, 1, {})).dense
        assert name in shards[owner].pull(PullRequest("clicks", LEARNER, 1, {})).dense
        shards[1 - owner] = new_shard(1 - owner, shards=2)


@pytest.mark.parametrize(
    ("keys", "dense"),
    [
        ({"user": u64(1)}, {}),
        ({}, {"bias": np.zeros(1, np.float32)}),
        ({"user": u64(1)}, {"bias": np.zeros(1, np.float32)}),
    ],
)
def test_an_empty_range_carries_no_gradients(keys, dense):
    gradients = {name: f32(1, 2) for name in keys}
    request = push_of("label/0", 10, 10, barrier=1, keys=keys, gradients=gradients, dense=dense)
    reply = new_shard().push(request)
    assert (reply.outcome, reply.detail) == (
        Outcome.PARTLY_APPLIED,
        "an empty range carries no gradients",
    )


def test_no_memory_for_rows_changes_nothing(monkeypatch):
    """S4: rows of all tables are reserved before any is created."""
    shard = new_shard()
    shard.push(push_of("label/0", 10, 20))
    before = frozen(shard.snapshot("clicks"))

    def no_memory(keys):
        raise MemoryError

    monkeypatch.setattr(shard._models["clicks"].tables["item"], "reserve", no_memory)
    keys = np.arange(100, 200, dtype=np.uint64)
    request = push_of(
        "label/0",
        20,
        21,
        keys={"user": keys, "item": keys},
        gradients={"user": f32(100, 2), "item": f32(100, 3)},
    )
    with pytest.raises(MemoryError):
        shard.push(request)
    assert_same(shard.snapshot("clicks"), before)


def test_begin_sets_first_ends_once():
    shard = Shard(0, 1, SlotMap.even(1))
    assert shard.progress("clicks").progress is None
    reply = shard.begin(SPEC, CHAINS, DENSE)
    assert {chain: at.end for chain, at in reply.progress.chains.items()} == CHAINS
    shard.allow(AllowRequest(1, 1, (LEARNER,)))
    shard.push(push_of("label/0", 10, 20))
    assert shard.begin(SPEC, CHAINS, DENSE).progress.chains["label/0"].end == 20, (
        "the same again is harmless"
    )
    with pytest.raises(PortRefused, match="began at"):
        shard.begin(SPEC, {**CHAINS, "label/0": 11}, DENSE)
    with pytest.raises(PortRefused, match="sha256:2"):
        shard.begin(replace(SPEC, digest="sha256:2"), CHAINS, DENSE)
    other = replace(SPEC, name="orders")
    for dense, words in (
        ({}, "no initial value"),
        ({**DENSE, "bias": np.array([np.nan])}, "finite"),
    ):
        with pytest.raises(PortRefused, match=words):
            shard.begin(other, CHAINS, dense)
    with pytest.raises(PortRefused, match="allowed are sgd"):
        shard.begin(replace(other, tables=(TableSpec("t", 1, "nosuch"),)), CHAINS, DENSE)
    assert shard.models == ["clicks"]


def test_models_do_not_touch_each_other():
    shard = new_shard()
    shard.begin(replace(SPEC, name="orders"), {"label/0": 10}, DENSE)
    before = frozen(shard.snapshot("orders"))
    shard.push(push_of("label/0", 10, 20))
    assert_same(shard.snapshot("orders"), before)
    assert shard.push(push_of("label/0", 10, 20, model="orders")).outcome is Outcome.APPLIED


def test_staleness_counts_updates_between_read_and_write():
    shard = new_shard()
    version = shard.pull(PullRequest("clicks", LEARNER, 1, {})).version
    shard.push(push_of("label/1", 0, 5))
    shard.push(push_of("label/1", 5, 6))
    assert shard.push(push_of("label/0", 10, 20, read_version=version)).staleness == 2
    assert shard.push(push_of("label/0", 20, 21, read_version=3)).staleness == 0


MODULES = (
    admission,
    ages,
    copying,
    halves,
    index,
    init,
    optimizer_kernels,
    record,
    row_store,
    slots,
    state,
)


def test_after_the_warm_up_nothing_is_compiled_whatever_arrays_come():
    kernels = [k for module in MODULES for k in vars(module).values()]
    kernels = [k for k in kernels if hasattr(k, "nopython_signatures")]
    assert len(kernels) > 30
    warm_up()
    compiled = {k.__name__: len(k.nopython_signatures) for k in kernels}
    inlined = {
        "mix64",
        "initial_value",
        "_ftrl_weight",
        "key_of",
        "set_key",
        "ask_for",
        "row_of",
        "add",
        "discard",
    }
    inlined |= {"_chance", "_line_of"}
    inlined |= {"_home", "_in_old", "_cell_of", "_tagged", "_put", "_take_out", "_tag", "heads"}
    assert {name for name, signatures in compiled.items() if not signatures} <= inlined
    shard = new_shard()
    keys = np.arange(40, dtype=np.uint64)[::2]
    gradients = np.asfortranarray(np.ones((20, 3), np.float32))
    gradients.flags.writeable = False
    bias = np.frombuffer(b"xx" + np.ones(1, np.float32).tobytes(), np.float32, offset=2)
    content = {"keys": {"item": keys}, "gradients": {"item": gradients}, "dense": {"bias": bias}}
    assert shard.push(push_of("label/0", 10, 11, **content)).outcome is Outcome.APPLIED
    shard.pull(PullRequest("clicks", LEARNER, 1, {"item": keys}))
    assert {k.__name__: len(k.nopython_signatures) for k in kernels} == compiled
