"""Deltas: what changed since a parent cut, put together again to exactly what the shards hold
(X2, X3)."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointer.tables import ModelTables
from paramserver.messages import DenseSpec, Epoch, ModelSpec, Outcome, PushRequest, TableSpec
from paramserver.parts.delta import _among, patched, whole
from paramserver.parts.part import merge, weights
from paramserver.parts.safetensors_file import decode_part, encode_part, part_info
from paramserver.parts.serving_file import decode_serving, serving_files
from paramserver.ports import AllowRequest, PortRefused
from paramserver.shard import Shard
from paramserver.slots import SlotMap

SPEC = ModelSpec(
    "m",
    "1",
    (TableSpec("t", 3, "adagrad", init_scale=0.1), TableSpec("z", 1, "ftrl")),
    DenseSpec({"bias": (2,), "w": (3, 2)}),
)
EPOCH = Epoch(1, 1)


class System:
    """Two shards that take the same ranges, and a chain of cuts of them."""

    def __init__(self, seed, policy=None):
        self.rng = np.random.default_rng(seed)
        self.map = SlotMap.even(2)
        self.shards = [self.begin(index, 1) for index in range(2)]
        first, *others = SPEC.tables
        spec = self.spec = replace(SPEC, tables=(replace(first, policy=policy or {}), *others))
        for shard in self.shards:
            shard.begin(
                spec, {"c": 0}, {"bias": np.ones(2, np.float32), "w": np.zeros((3, 2), np.float32)}
            )
        self.end, self.chain = 0, []

    def begin(self, index, incarnation):
        shard = Shard(index, incarnation, self.map)
        shard.allow(AllowRequest(1, incarnation, (EPOCH,)))
        return shard

    def push(self):
        tables = {
            name: np.unique(self.rng.integers(0, 300, 40).astype(np.uint64)) for name in ("t", "z")
        }
        for index, shard in enumerate(self.shards):
            keys = {name: all_of[self.map.split(all_of)[index]] for name, all_of in tables.items()}
            dims = {"t": 3, "z": 1}
            gradients = {
                n: self.rng.normal(size=(len(k), dims[n])).astype(np.float32)
                for n, k in keys.items()
            }
            reply = shard.push(
                PushRequest(
                    "m",
                    EPOCH,
                    1,
                    shard.incarnation,
                    "c",
                    self.end,
                    self.end + 1,
                    0,
                    self.end + 1,
                    0,
                    7,
                    1,
                    event_time_max_ms=self.end * 1_000,
                    keys=keys,
                    gradients=gradients,
                )
            )
            assert reply.outcome is Outcome.APPLIED
        self.end += 1

    def cut(self, name, upon=None, between=0):
        for shard in self.shards:
            assert shard.mark("m", name, {"c": self.end}).marked
        for _ in range(between):
            self.push()
        parts = [decode_part(encode_part(shard.marked("m", name, upon))) for shard in self.shards]
        for shard in self.shards:
            shard.settle("m", name, name)
        self.chain.append((name, parts))
        return parts


def same(found, wanted):
    """Weights and state of `found`, a snapshot, are those of a shard's snapshot, in any order."""
    for name in wanted.tables:
        a, b = found.tables[name], wanted.tables[name]
        first, second = np.argsort(a.keys), np.argsort(b.keys)
        for one, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(one[first], other[second])
    for name, seen in wanted.sightings.items():
        for one, other in zip(found.sightings[name], seen, strict=True):
            np.testing.assert_array_equal(one, other)
    assert found.progress.chains == wanted.progress.chains
    assert found.dense.keys() == wanted.dense.keys()
    for name, row in wanted.dense.items():
        np.testing.assert_array_equal(found.dense[name], row)


@pytest.mark.parametrize("seed", range(4))
def test_a_chain_of_deltas_is_what_a_full_cut_holds(seed):
    system = System(seed)
    served = None
    upon = None
    for number in range(5):
        for _ in range(3):
            system.push()
        parts = system.cut(
            f"cut-{number}", upon, between=2
        )  # pushed after the mark: of the next delta
        assert all((part.parent is None) == (number == 0) for part in parts)
        served = patched(served, upon or "", parts)
        upon = f"cut-{number}"
    fulls = system.cut("full")
    system.chain.pop()
    system.push()
    system.cut("last", "full")  # a chain may begin at any full cut
    end = whole([("full", fulls), system.chain.pop()])
    for shard in system.shards:
        everything = shard.snapshot("m")
        mine = replace(
            end,
            tables={
                n: i.take(np.isin(i.keys, everything.tables[n].keys)) for n, i in end.tables.items()
            },
        )
        mine = replace(mine, dense={n: end.dense[n] for n in everything.dense})
        same(mine, everything)
    again = weights(whole(system.chain))
    for name, (keys, rows) in served.tables.items():
        np.testing.assert_array_equal(keys, again.tables[name][0])
        np.testing.assert_array_equal(rows, again.tables[name][1])
    for name, array in served.dense.items():
        np.testing.assert_array_equal(array, again.dense[name])


def test_a_delta_is_smaller_and_says_what_it_is():
    system = System(1)
    for _ in range(12):
        system.push()
    full = system.cut("a")[0]
    system.push()
    delta = system.cut("b", "a")[0]
    assert len(delta.tables["t"].keys) < len(full.tables["t"].keys) / 2
    assert [part_info(p, "u", encode_part(p)).kind for p in (full, delta)] == ["full", "delta"]
    assert (
        part_info(full, "u", encode_part(full)).bytes
        > part_info(delta, "u", encode_part(delta)).bytes
    )
    assert delta.parent == "a"


def test_a_shard_that_does_not_know_the_parent_writes_all_and_one_cut_may_mix_both():
    system = System(2)
    system.push()
    system.cut("a")
    system.push()
    system.shards[1] = system.begin(1, 2)
    system.shards[1].restore([whole(system.chain)], "a")
    assert system.shards[1].marked is not None
    system.end = 1
    fresh = system.begin(0, 2)
    fresh.restore([whole(system.chain)], "of another history")
    system.shards[0] = fresh
    system.push()
    parts = system.cut("b", "a")
    assert [part.parent for part in parts] == [None, "a"], (
        "only the second shard's last cut is the parent (X2)"
    )
    end = whole(system.chain)
    for shard in system.shards:
        everything = shard.snapshot("m")
        found = end.tables["t"].take(np.isin(end.tables["t"].keys, everything.tables["t"].keys))
        np.testing.assert_array_equal(
            found.rows[np.argsort(found.keys)],
            everything.tables["t"].rows[np.argsort(everything.tables["t"].keys)],
        )
    assert sum(len(s.snapshot("m").tables["t"].keys) for s in system.shards) == len(
        end.tables["t"].keys
    )


def test_tombstones_apply_before_rows():
    system = System(3)
    system.push()
    base = system.cut("a")
    keys = base[0].tables["t"].keys
    system.push()
    delta = system.cut("b", "a")
    again = delta[0].tables["t"].keys[:1]  # evicted, and then seen once more
    gone = np.unique(np.concatenate([keys[~np.isin(keys, delta[0].tables["t"].keys)][:2], again]))
    told = decode_part(encode_part(replace(delta[0], tombstones={"t": gone, "z": keys[:0]})))
    assert part_info(told, "u", b"").tombstones == len(gone)
    held = patched(patched(None, "", base), "a", [told, delta[1]]).tables["t"][0]
    assert again[0] in held
    assert not np.isin(gone[gone != again[0]], held).any()


@pytest.mark.parametrize("policy", [{"ttl_ms": 6_000.0}, {"rows_max": 60.0}])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_evicted_goes_from_replicas_too(seed, policy):
    system = System(seed, policy)
    system.push()
    served, upon, gone = patched(None, "", system.cut("cut-0")), "cut-0", 0
    for number in range(1, 9):
        for _ in range(4):
            system.push()
        parts = system.cut(f"cut-{number}", upon, between=1)
        assert all(part.parent == upon for part in parts)
        gone += sum(len(part.tombstones["t"]) for part in parts)
        served, upon = patched(served, upon, parts), f"cut-{number}"
    assert gone
    for shard in system.shards:
        shard.mark("m", "last", {"c": system.end})
    parts = [shard.marked("m", "last", upon) for shard in system.shards]
    assert all(part.parent == upon for part in parts)
    served = patched(served, upon, parts)
    with pytest.raises(PortRefused, match="copied as a delta upon cut-8 already"):
        system.shards[0].marked("m", "last")
    for shard in system.shards:
        shard.mark("m", "all", {"c": system.end})
    fulls = weights(whole([("all", [shard.marked("m", "all") for shard in system.shards])]))
    np.testing.assert_array_equal(served.tables["t"][0], fulls.tables["t"][0])
    np.testing.assert_array_equal(served.tables["t"][1], fulls.tables["t"][1])


@pytest.mark.parametrize("policy", [{}, {"ttl_ms": 6_000.0}, {"rows_max": 60.0}])
@pytest.mark.parametrize("seed", range(3))
def test_a_full_part_says_what_has_changed_since_the_last_cut(seed, policy):
    """X3: who holds the parent and takes that has what a full part says."""
    system = System(seed, policy)
    tables = ModelTables(system.spec, {})
    for number in range(7):
        for _ in range(3):
            system.push()
        name, told = f"cut-{number}", []
        for shard in system.shards:
            assert shard.mark("m", name, {"c": system.end}).marked
        system.push()
        for shard in system.shards:
            snapshot = shard.marked("m", name)
            files = {file.parent: b"".join(pieces) for file, pieces in serving_files(snapshot)}
            assert files.keys() == ({""} if number == 0 else {"", f"cut-{number - 1}"})
            told.append({p: decode_serving(data, snapshot.spec) for p, data in files.items()})
            shard.settle("m", name, name)
        tables.apply([one["" if number == 0 else f"cut-{number - 1}"] for one in told])
        served = tables.publish()
        for table in ("t", "z"):
            whole_ = [one[""].tables[table] for one in told]
            keys = np.concatenate([keys for keys, _ in whole_])
            rows = np.concatenate([rows for _, rows in whole_])
            found = served.tables[table].items()
            np.testing.assert_array_equal(found[0], np.sort(keys))
            np.testing.assert_array_equal(found[1], rows[np.argsort(keys)])
        for one in told:
            for dense, array in one[""].dense.items():
                np.testing.assert_array_equal(served.dense[dense], array)


@pytest.mark.parametrize("policy", [{}, {"ttl_ms": 6_000.0}, {"rows_max": 60.0}])
@pytest.mark.parametrize("upon", [None, "base"])
@pytest.mark.parametrize("seed", range(3))
def test_a_part_is_of_its_mark_however_copying_and_pushes_take_turns(seed, upon, policy):
    """X1: rows are copied a few at a time while pushes change, create and evict them."""
    system = System(seed, policy)
    for _ in range(6):
        system.push()
    base = system.cut("base")
    for _ in range(3):
        system.push()
    at = {"c": system.end}
    for shard in system.shards:
        shard.mark("m", "cut", at)
    expected = [shard.snapshot("m") for shard in system.shards]
    copies = [shard.copying("m", "cut", upon) for shard in system.shards]
    assert not any(copy.begun or copy.done for copy in copies), "a mark copies no row"
    while not all(copy.done for copy in copies):
        if system.rng.random() < 0.7:
            system.push()
        for copy in copies:
            if system.rng.random() < 0.7:
                copy.advance(int(system.rng.integers(1, 40)))
    for _ in range(3):
        system.push()
    parts = [decode_part(encode_part(copy.snapshot())) for copy in copies]
    assert all(part.parent == upon for part in parts)
    found = whole([("base", base), ("cut", parts)] if upon else [("cut", parts)])
    same(found, merge(expected))
    for shard in system.shards:
        shard.settle("m", "cut", "cut")
        assert not any(table._row_store._copies for table in shard._models["m"].tables.values()), (
            "pushes save for nobody"
        )
        shard.validate()


@pytest.mark.parametrize(
    "policy",
    [{}, {"ttl_ms": 6_000.0}, {"rows_max": 60.0}, {"admit_count": 2.0, "admit_bytes": 65_536.0}],
)
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_a_shard_that_follows_cut_by_cut_is_one_that_was_restored_from_the_last(shards, policy):
    """S6: under another map, with deltas, full parts among them, keys that were evicted and came
    back."""
    system, slot_map = System(shards, policy), SlotMap.even(2).resized(shards)
    for _ in range(6):
        system.push()
    system.cut("0")
    after = [Shard(index, 1, slot_map) for index in range(shards)]
    for shard in after:
        shard.restore(system.chain[0][1], "0")
    for number in range(1, 7):
        for _ in range(3):
            system.push()
        if number == 4:  # it has forgotten its last cut, and writes all there is
            system.shards[1]._parents.clear()
        parts = system.cut(str(number), str(number - 1))
        assert [part.parent is None for part in parts] == [False, number == 4]
        for index, shard in enumerate(after):
            shard.follow(iter(parts), str(number))
            shard.validate()
            again = Shard(index, 2, slot_map)
            again.restore([whole(system.chain)], str(number))
            same(shard.snapshot("m"), again.snapshot("m"))
    head = shard.parent("m")
    assert head.manifest_sha256 == "6"
    assert shard.mark("m", "next", {"c": system.end}).marked
    assert shard.marked("m", "next", "6").parent == "6", "its own next part may be a delta"


def test_a_shard_follows_no_cut_but_the_next():
    system = System(1)
    for name, upon in (("a", None), ("b", "a"), ("c", "b")):
        system.push()
        system.cut(name, upon)
    shard = system.begin(0, 2)
    with pytest.raises(PortRefused, match="does not stand at one complete cut"):
        shard.follow(system.chain[1][1], "b")
    shard.restore(system.chain[0][1], "a")
    with pytest.raises(PortRefused, match="a delta upon manifest b, and a is held"):
        shard.follow(system.chain[2][1], "c")
    with pytest.raises(PortRefused, match="lack slots 0-511"):
        shard.follow(system.chain[1][1][1:], "b")
    assert shard.progress("m").progress.chains["c"].end == 1
    shard.follow(system.chain[1][1], "b")
    system.shards[0], system.end = shard, 2
    system.shards[1] = system.begin(1, 2)
    system.shards[1].restore([whole(system.chain[:2])], "b")
    system.push()
    with pytest.raises(PortRefused, match="does not stand at one complete cut"):
        shard.follow(system.chain[2][1], "c")


def test_a_copy_whose_cut_was_given_up_is_dropped():
    system = System(1)
    system.push()
    shard = system.shards[0]
    shard.mark("m", "a", {"c": 1})
    copy = shard.copying("m", "a")
    copy.advance(1)
    shard.mark("m", "b", {"c": 1})
    assert copy.dropped
    assert not shard.copying("m", "b").dropped
    shard.unmark("m", "b")
    assert not any(table._row_store._copies for table in shard._models["m"].tables.values())


def test_a_delta_upon_another_parent_is_refused():
    system = System(4)
    system.push()
    base = system.cut("a")
    system.push()
    delta = system.cut("b", "a")
    with pytest.raises(ValueError, match="a delta upon manifest a, and c is held"):
        patched(patched(None, "", base), "c", delta)
    with pytest.raises(ValueError, match="a delta upon manifest a, and nothing is held"):
        whole([("b", delta)])
    with pytest.raises(PortRefused, match="is a delta upon manifest a: give its base too"):
        system.begin(0, 3).restore(delta, "b")


@given(
    st.lists(st.integers(0, 40), max_size=20),
    st.lists(st.integers(0, 40), max_size=20),
    st.sampled_from([0, 1 << 60]),
)
@settings(max_examples=settings.default.max_examples, deadline=None)
def test_neighbouring_keys_are_told_apart(keys, some, base):
    """Large ones too: as floats, 64 bits would lose their last ten."""
    have, want = (
        np.array(sorted({base + k for k in values}), np.uint64) for values in (keys, some)
    )
    np.testing.assert_array_equal(_among(have, want), np.isin(have, want))
