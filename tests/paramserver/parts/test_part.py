"""A part says exactly what its shard was, to any number of shards."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_bytes
from safetensors.numpy import save as save_bytes

from paramserver.messages import (
    DenseSpec,
    Epoch,
    ModelSpec,
    Outcome,
    PullRequest,
    PushRequest,
    TableSpec,
)
from paramserver.parts.part import (
    from_arrays,
    merge,
    progress_from_json,
    progress_to_json,
    select,
    to_arrays,
    weights,
)
from paramserver.ports import AllowRequest, PortRefused
from paramserver.shard import Shard
from paramserver.slots import SlotMap

LEARNER = Epoch(1, 1)
SPEC = ModelSpec(
    "clicks",
    "sha256:1",
    (
        TableSpec("user", 2, "ftrl", {"alpha": 0.4, "l1": 0.05}, init_scale=0.01, seed=3),
        TableSpec("item", 3, "adagrad", {"rate": 0.1}, init_scale=0.1, seed=5),
    ),
    DenseSpec({"bias": (1,), "hidden": (2, 3), "scale": (), "output": (3,)}, "adam"),
)
DENSE = {name: np.full(shape, 0.5, np.float32) for name, shape in SPEC.dense.shapes.items()}
ALL_KEYS = np.arange(40, dtype=np.uint64)


class Cluster:
    """N shards that all get every batch, each its keys."""

    def __init__(self, shards: int, incarnation: int = 1) -> None:
        self.slot_map = SlotMap.even(shards)
        self.shards = [Shard(i, incarnation, self.slot_map) for i in range(shards)]
        for shard in self.shards:
            shard.allow(AllowRequest(1, 1, (LEARNER,)))

    @classmethod
    def begun(cls, shards: int) -> "Cluster":
        cluster = cls(shards)
        for shard in cluster.shards:
            shard.begin(SPEC, {"label/0": 0}, DENSE)
        return cluster

    def push(self, start: int) -> None:
        rng = np.random.default_rng(start)
        keys = {t.name: np.unique(rng.integers(0, 40, 9).astype(np.uint64)) for t in SPEC.tables}
        gradients = {
            t.name: rng.normal(0, 1, (len(keys[t.name]), t.dim)).astype(np.float32)
            for t in SPEC.tables
        }
        dense = {
            name: rng.normal(0, 1, shape).astype(np.float32)
            for name, shape in SPEC.dense.shapes.items()
        }
        for shard in self.shards:
            mine = {name: self.slot_map.split(k)[shard.index] for name, k in keys.items()}
            request = PushRequest(
                model="clicks",
                epoch=LEARNER,
                map_epoch=1,
                incarnation=shard.incarnation,
                chain="label/0",
                start=start,
                end=start + 1,
                partition=0,
                next_record=start + 1,
                read_version=0,
                row_hash=(1 << 120) + start,
                rows=1,
                event_time_max_ms=start,
                keys={name: k[mine[name]] for name, k in keys.items()},
                gradients={name: g[mine[name]] for name, g in gradients.items()},
                dense={
                    n: g for n, g in dense.items() if self.slot_map.owner_of_name(n) == shard.index
                },
            )
            assert shard.push(request).outcome is Outcome.APPLIED

    def parts(self):
        return [through_bytes(shard.snapshot("clicks")) for shard in self.shards]

    def pull(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        rows = {t.name: np.zeros((len(ALL_KEYS), t.dim), np.float32) for t in SPEC.tables}
        dense: dict[str, np.ndarray] = {}
        for shard in self.shards:
            mine = self.slot_map.split(ALL_KEYS)[shard.index]
            reply = shard.pull(
                PullRequest("clicks", LEARNER, 1, dict.fromkeys(rows, ALL_KEYS[mine]))
            )
            for name, values in reply.rows.items():
                rows[name][mine] = values
            assert not dense.keys() & reply.dense.keys()
            dense |= reply.dense
        return rows, dense


def through_bytes(snapshot):
    """As a checkpoint does: into a safetensors file and back."""
    arrays, metadata = to_arrays(snapshot)
    return from_arrays(load_bytes(save_bytes(arrays, metadata)), metadata)


def same_arrays(a, b) -> bool:
    (arrays_a, metadata_a), (arrays_b, metadata_b) = to_arrays(a), to_arrays(b)
    equal = arrays_a.keys() == arrays_b.keys() and metadata_a == metadata_b
    return equal and all(
        array.tobytes() == arrays_b[name].tobytes() for name, array in arrays_a.items()
    )


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 12), st.integers(0, 6))
@settings(max_examples=settings.default.max_examples * 40 // 100, deadline=None)
def test_parts_of_n_shards_load_into_m_and_go_on(n, m, before, after):
    """Rows, optimizer state and progress go with their slots: M shards continue as N would have,
    bit for bit."""
    cluster, straight = Cluster.begun(n), Cluster.begun(n)
    for start in range(before):
        cluster.push(start)
        straight.push(start)
    restored = Cluster(m, incarnation=2)
    parts = cluster.parts()
    for shard in restored.shards:
        reply = shard.restore(parts, "aa")
        assert reply.incarnation == 2
        assert reply.progress == cluster.shards[0].progress("clicks").progress
        shard.validate()
    for start in range(before, before + after):
        straight.push(start)
        restored.push(start)
    (rows, dense), (rows2, dense2) = straight.pull(), restored.pull()
    for name in rows:
        np.testing.assert_array_equal(rows[name], rows2[name])
    assert dense.keys() == dense2.keys() == SPEC.dense.shapes.keys()
    for name in dense:
        np.testing.assert_array_equal(dense[name], dense2[name])
    if n == m:
        for a, b in zip(straight.shards, restored.shards, strict=True):
            assert same_arrays(a.snapshot("clicks"), b.snapshot("clicks"))


def test_a_part_is_sorted_and_says_what_it_is():
    cluster = Cluster.begun(2)
    for start in range(6):
        cluster.push(start)
    arrays, metadata = to_arrays(cluster.shards[1].snapshot("clicks"))
    assert (np.diff(arrays["table/user/keys"].astype(np.float64)) > 0).all()
    assert arrays["table/user/rows"].shape == (len(arrays["table/user/keys"]), 4)
    assert metadata["format"] == "everspun-part/1"
    assert metadata["slots"] == "512-1023"
    assert all(isinstance(value, str) for value in metadata.values())
    progress = progress_from_json(metadata["progress"])
    assert progress.chains["label/0"].row_hash == 6 * (1 << 120) + 15
    assert progress_from_json(progress_to_json(progress)) == progress
    back = from_arrays(arrays, metadata)
    assert back.spec == SPEC
    assert same_arrays(back, cluster.shards[1].snapshot("clicks"))


def test_serving_weights_are_what_a_pull_answers():
    cluster = Cluster.begun(3)
    for start in range(9):
        cluster.push(start)
    served = weights(merge(cluster.parts()))
    rows, dense = cluster.pull()
    for name, (keys, values) in served.tables.items():
        assert len(keys) > 9
        np.testing.assert_array_equal(values, rows[name][keys.astype(np.int64)])
    assert (served.tables["user"][1] == 0).any(), (
        "l1 makes some weights exactly 0, which only a derived w shows"
    )
    for name, value in served.dense.items():
        assert value.shape == SPEC.dense.shapes[name]
        np.testing.assert_array_equal(value, dense[name])


def test_restore_refuses_what_is_not_one_whole_cut():
    cluster = Cluster.begun(2)
    cluster.push(0)
    parts = cluster.parts()
    cluster.push(1)
    later = cluster.parts()
    with pytest.raises(PortRefused, match=r"lack slots 512-1023"):
        Shard(0, 2, SlotMap.even(1)).restore(parts[:1], "aa")
    with pytest.raises(PortRefused, match="two cuts"):
        Shard(0, 2, SlotMap.even(1)).restore([parts[0], later[1]], "aa")
    with pytest.raises(PortRefused, match="slot 0 stands in two parts"):
        Shard(0, 2, SlotMap.even(1)).restore([parts[0], parts[0]], "aa")
    with pytest.raises(PortRefused, match="no parts"):
        Shard(0, 2, SlotMap.even(1)).restore([], "aa")
    with pytest.raises(PortRefused, match="needs a new incarnation"):
        cluster.shards[0].restore(parts, "aa")
    own = Shard(1, 2, cluster.slot_map)
    assert own.restore([parts[1]], "aa").progress.version == 1, (
        "a shard of the same map needs its own part only"
    )
    assert own.parent("clicks").manifest_sha256 == "aa"


def test_parts_that_differ_in_next_record_are_read_from_the_lowest():
    """One shard got a piece of a split batch as its own push: reading a record again is
    harmless, skipping is not."""
    a, b = Cluster.begun(2).parts()
    a = replace(
        a, progress=replace(a.progress, next_record={0: 7, 1: 3}, version=9, event_time_max_ms=5)
    )
    b = replace(b, progress=replace(b.progress, next_record={0: 6}, version=8, event_time_max_ms=6))
    progress = merge([a, b]).progress
    assert progress.next_record == {0: 6, 1: 0}
    assert (progress.version, progress.event_time_max_ms) == (9, 6)


def test_begin_after_a_restore_is_harmless():
    cluster = Cluster.begun(1)
    cluster.push(0)
    shard = Shard(0, 2, SlotMap.even(1))
    shard.restore(cluster.parts(), "aa")
    assert shard.begin(SPEC, {"label/0": 0}, DENSE).progress.chains["label/0"].end == 1


def broken(change):
    cluster = Cluster.begun(1)
    cluster.push(0)
    arrays, metadata = to_arrays(cluster.shards[0].snapshot("clicks"))
    change(arrays, metadata)
    return arrays, metadata


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda a, m: m.update(format="everspun-part/9"),
            "everspun-part/9.*reads 'everspun-part/1'",
        ),
        (lambda a, m: m.pop("progress"), "'progress' is missing"),
        (lambda a, m: a.pop("table/user/rows"), "'table/user/rows' is missing"),
        (
            lambda a, m: a.update({"table/user/rows": a["table/user/rows"][:, :2]}),
            "rows is float32",
        ),
        (
            lambda a, m: a.update({"table/user/keys": a["table/user/keys"][::-1]}),
            "not unique and rising",
        ),
        (lambda a, m: m.update(slots="0-10"), "outside its slots 0-10"),
        (lambda a, m: a.pop("dense/hidden"), "'hidden' is missing"),
        (
            lambda a, m: a.update({"dense/hidden": a["dense/hidden"][:6]}),
            r"expected float32 \(19,\)",
        ),
    ],
)
def test_a_broken_part_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        from_arrays(*broken(change))


def test_select_takes_exactly_the_slots_of_a_shard():
    cluster = Cluster.begun(1)
    for start in range(6):
        cluster.push(start)
    whole = cluster.shards[0].snapshot("clicks")
    slot_map = SlotMap.even(4)
    pieces = [select(whole, shard, slot_map) for shard in range(4)]
    assert sum(len(piece.tables["item"].keys) for piece in pieces) == len(whole.tables["item"].keys)
    assert sorted(name for piece in pieces for name in piece.dense) == sorted(SPEC.dense.shapes)
    assert same_arrays(select(merge(pieces), 0, SlotMap.even(1)), whole)
