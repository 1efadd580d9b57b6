"""Rows die by event time and by number, copies are of one moment, and neither depends on how
rows lie in memory."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from paramserver.messages import DenseSpec, Epoch, ModelSpec, Outcome, PushRequest, TableSpec
from paramserver.ports import AllowRequest
from paramserver.shard import Shard
from paramserver.slots import SlotMap
from paramserver.tables.ages import STEP_S
from paramserver.tables.table import Table
from paramserver.tables.tombstones import Tombstones

TTL_S = 40
SPEC = TableSpec(
    "t", 2, "adagrad", {"rate": 0.5}, init_scale=0.1, seed=7, policy={"ttl_ms": 1000 * TTL_S}
)

some_keys = st.lists(st.integers(0, 60), max_size=30).map(
    lambda values: np.array(sorted(set(values)), np.uint64)
)


def push(table: Table, keys: np.ndarray, version: int, now_s: int, gradient: float = 1.0) -> None:
    """As `ModelState.apply` does."""
    table.reserve(keys)
    table.advance(version, 1000 * now_s, len(keys))
    table.apply(
        keys, np.full((len(keys), table.spec.dim), gradient, np.float32), version, 1000 * now_s
    )


class MortalTableAsDict(RuleBasedStateMachine):
    """TTL, deltas and slow copies against a dict of what is alive."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Table(SPEC)
        self.alive: dict[int, tuple[int, int]] = {}  # key -> version, touched s
        self.version, self.now_s = 0, 1000
        self.known = {0: {}}  # version -> what was alive after it
        self.copy = None

    @rule(keys=some_keys, later=st.integers(0, 30))
    def push(self, keys, later):
        self.version += 1
        self.now_s += later
        push(self.table, keys, self.version, self.now_s)
        horizon = (self.now_s - TTL_S) // STEP_S * STEP_S
        self.alive = {key: at for key, at in self.alive.items() if at[1] >= horizon}
        self.alive |= dict.fromkeys(keys.tolist(), (self.version, self.now_s))
        self.known[self.version] = dict(self.alive)

    @rule(keys=some_keys)
    def pull(self, keys):
        fresh = Table(SPEC).pull(keys)
        for key, row, initial in zip(keys.tolist(), self.table.pull(keys), fresh, strict=True):
            assert np.array_equal(row, initial) == (key not in self.alive), (
                "the dead answer what the unknown do"
            )

    @rule()
    def begin_copy(self):
        self.copy = (self.table.copy(), self.table.items(), self.version)

    @rule(rows=st.integers(1, 20))
    def go_on_copying(self, rows):
        if self.copy is not None and self.table.advance_copy(self.copy[0], rows):
            copy, items, _ = self.copy
            for a, b in zip(self.table.copied(copy), items, strict=True):
                np.testing.assert_array_equal(a, b)
            self.copy = None

    @rule(back=st.integers(0, 6))
    def delta(self, back):
        since = max(self.version - back, min(self.known))
        changes = self.table.changes_since(since)
        rows = {key for key, (version, _) in self.alive.items() if version > since}
        assert changes.rows.keys.tolist() == sorted(rows)
        before = self.known[since]
        assert set(before) - set(self.alive) <= set(changes.tombstones.tolist())
        assert not set(self.alive) & set(changes.tombstones.tolist())

    @rule()
    def restart(self):
        items, before = self.table.items(), self.table.changes_since(self.version)
        assert len(before.rows.keys) == len(before.tombstones) == 0
        self.table = Table(SPEC)
        self.table.load(items, self.version)
        self.known = {self.version: dict(self.alive)}
        self.copy = None

    @rule(back=st.integers(1, 6))
    def forgotten_deaths_are_not_denied(self, back):
        if self.version > back:
            self.table.forget(self.version)
            with pytest.raises(ValueError, match="not known any more"):
                self.table.changes_since(self.version - back)
            self.known = {self.version: dict(self.alive)}

    @invariant()
    def holds(self):
        self.table.validate()
        items = self.table.items()
        touches = zip(items.version.tolist(), (items.touched_ms // 1000).tolist(), strict=True)
        assert dict(zip(items.keys.tolist(), touches, strict=True)) == self.alive
        assert len(self.table) == len(self.alive)


TestMortalTableAsDict = MortalTableAsDict.TestCase
TestMortalTableAsDict.settings = settings(
    max_examples=settings.default.max_examples * 60 // 100, stateful_step_count=30, deadline=None
)


@pytest.mark.parametrize("policy", [{"rows_max": 300}, {"rows_max": 300, "ttl_ms": 400_000}])
def test_a_full_table_drops_the_longest_untouched_and_a_restart_leaves_no_trace(policy):
    spec = TableSpec("t", 2, "adagrad", init_scale=0.1, policy=policy)
    straight, restarted = Table(spec), Table(spec)
    rng = np.random.default_rng(3)
    for version in range(1, 60):
        keys = np.unique(rng.zipf(1.3, 80).astype(np.uint64) % np.uint64(5000))
        for table in (straight, restarted):
            push(table, keys, version, 10 * version, 0.1)
            table.validate()
        assert len(straight) <= 300
        if version % 7 == 0:
            items = restarted.items()
            restarted = Table(spec)
            restarted.load(items.take(rng.permutation(len(items.keys))), version)
        for a, b in zip(straight.items(), restarted.items(), strict=True):
            np.testing.assert_array_equal(a, b)
    touched = straight.items().touched_ms
    assert touched.min() > 1000 * 10 * 20, "what has not been touched for long is gone"
    assert len(straight) > 200, "not more is evicted than must be"


def test_a_full_table_that_refuses_keeps_what_it_has():
    table = Table(TableSpec("t", 2, "sgd", {"rate": 1.0}, policy={"rows_max": 5, "refuse": 1}))
    push(table, np.arange(3, dtype=np.uint64), 1, 0)
    push(table, np.arange(10, dtype=np.uint64), 2, 9)
    assert (len(table), table.refused) == (5, 5)
    rows = table.pull(np.arange(10, dtype=np.uint64))
    np.testing.assert_array_equal(rows[:, 0], [-2, -2, -2, -1, -1, 0, 0, 0, 0, 0])


def test_rows_of_the_present_second_are_not_evicted_for_others():
    table = Table(TableSpec("t", 1, "sgd", policy={"rows_max": 4}))
    push(table, np.arange(10, dtype=np.uint64), 1, 5)
    assert (len(table), table.refused) == (4, 6)


def shard_of(memory_bytes_max: int, policy: dict[str, float]) -> Shard:
    shard = Shard(0, 1, SlotMap.even(1), memory_bytes_max=memory_bytes_max)
    tables = (TableSpec("a", 2, "sgd", policy=policy), TableSpec("b", 4, "sgd", policy=policy))
    shard.allow(AllowRequest(1, 1, (Epoch(1, 1),)))
    shard.begin(ModelSpec("m", "d", tables, DenseSpec({})), {"c": 0}, {})
    return shard


def push_to(shard: Shard, end: int, keys: np.ndarray) -> None:
    gradients = {"a": np.ones((len(keys), 2), np.float32), "b": np.ones((len(keys), 4), np.float32)}
    push = PushRequest(
        "m",
        Epoch(1, 1),
        1,
        1,
        "c",
        end,
        end + 1,
        0,
        0,
        0,
        0,
        1,
        10_000 * end,
        keys=dict.fromkeys(gradients, keys),
        gradients=gradients,
    )
    assert shard.push(push).outcome is Outcome.APPLIED


@pytest.mark.parametrize(
    ("policy", "evicts"), [({}, False), ({"ttl_ms": 1e9}, False), ({"rows_max": 1e9}, True)]
)
def test_a_shard_at_its_memory_limit_evicts_or_refuses_and_goes_on(policy, evicts):
    shard, limit = shard_of(20_000, policy), 20_000
    for end in range(30):
        push_to(shard, end, np.arange(50 * end, 50 * end + 50, dtype=np.uint64))
        assert shard.rows_bytes("m") <= limit
        shard.validate()
    assert shard.rows_bytes("m") > 0.8 * limit
    dropped = shard.dropped("m")["room"]
    assert dropped == (0 if evicts else 2 * 30 * 50 - shard.rows("m"))
    known, newest = shard.snapshot("m").tables["a"].keys, 29 * 50 if evicts else 0
    assert newest in known, "evicted are the longest untouched; refused are the new"


def test_dead_rows_give_their_memory_to_new_ones():
    table = Table(SPEC)
    for version in range(1, 300):
        push(
            table,
            np.arange(100 * version, 100 * version + 100, dtype=np.uint64),
            version,
            30 * version,
        )
    table.validate()
    assert len(table) <= 300
    assert table.nbytes < 1000 * 60, "of 30,000 rows that have been"


@pytest.mark.parametrize("policy", [{"ttl_ms": 200_000}, {"rows_max": 1200}])
def test_the_sweep_comes_round_though_every_push_brings_new_rows(policy):
    """Rows that are all new, for longer than a round of the sweep: it must not run behind the
    newest for ever."""
    table = Table(TableSpec("t", 2, "sgd", policy=policy))
    for version in range(1, 400):
        push(
            table,
            np.arange(100 * version, 100 * version + 100, dtype=np.uint64),
            version,
            20 * version,
        )
    table.validate()
    assert len(table) <= 1200
    assert table._row_store._size <= 2 * 1200, "records in use, dead ones included"


def test_too_many_tombstones_are_forgotten_oldest_first(monkeypatch):
    monkeypatch.setattr("paramserver.tables.tombstones.TOMBSTONES_MAX", 50)
    deaths = Tombstones()
    for n in range(20):
        deaths.risen(8 * n + 8, n + 1)
        deaths.swept(np.arange(10 * n, 10 * n + 10, dtype=np.uint64), np.full(10, 8 * n))
    assert deaths.since > 10
    none = (np.zeros(0, np.uint64), np.zeros(0, np.int64))
    assert deaths.after(19, *none).tolist() == list(range(190, 200))
    with pytest.raises(ValueError, match="not known any more"):
        deaths.after(3, *none)
