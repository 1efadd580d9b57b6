"""One contract for both implementations of the ports: in memory, and over gRPC on unix sockets."""

import hashlib
import re
from dataclasses import replace

import numpy as np
import pytest
from any_ports import BEGIN, MAP, SPEC, Ports, a_pull, a_push, keys_of

from paramserver.messages import (
    Epoch,
    Outcome,
)
from paramserver.parts import decode_part
from paramserver.ports import PortRefused


def test_a_model_begins_once(ports: Ports):
    assert ports.shards[0].progress("clicks").progress is None
    ports.begin()
    ports.begin()
    progress = ports.shards[0].progress("clicks").progress
    assert {chain: at.end for chain, at in progress.chains.items()} == BEGIN
    with pytest.raises(PortRefused, match="began at"):
        ports.shards[0].begin(SPEC, {"label/0": 1}, {})
    with pytest.raises(PortRefused, match="d1"):
        ports.shards[0].begin(replace(SPEC, digest="d2"), BEGIN, {})


def test_a_batch_is_pulled_pushed_and_seen(ports: Ports):
    ports.begin()
    epoch = ports.join("a").epoch
    before = ports.shards[0].pull(a_pull(epoch))
    assert before.outcome is Outcome.APPLIED
    assert before.rows["item"].dtype == np.float32
    assert before.rows["item"].shape == (5, 4)
    assert 0 < np.abs(before.rows["item"]).max() < 0.5
    reply = ports.shards[0].push(a_push(epoch))
    assert (reply.outcome, reply.end, reply.version, reply.staleness) == (Outcome.APPLIED, 10, 1, 0)
    after = ports.shards[0].pull(a_pull(epoch, dense=False))
    np.testing.assert_array_equal(after.rows["item"], before.rows["item"] + 1)
    assert after.dense == {}
    progress = ports.shards[0].progress("clicks").progress
    assert progress.chains["label/0"].row_hash == (1 << 127) + 3
    assert progress.chains["label/0"].rows == 9
    assert progress.next_record == {0: 5}
    assert progress.event_time_max_ms == 1_000


def test_dense_arrays_live_on_one_shard_each(ports: Ports):
    ports.begin()
    epoch = ports.join("a").epoch
    pulled = {n: shard.pull(a_pull(epoch, n)).dense for n, shard in ports.shards.items()}
    assert sorted(name for dense in pulled.values() for name in dense) == ["b", "w"]
    owner = MAP.owner_of_name("w")
    np.testing.assert_array_equal(pulled[owner]["w"], np.arange(6).reshape(3, 2))
    push = a_push(epoch, owner, dense={"w": np.ones((3, 2), np.float32)})
    assert ports.shards[owner].push(push).outcome is Outcome.APPLIED
    after = ports.shards[owner].pull(a_pull(epoch, owner)).dense["w"]
    np.testing.assert_array_equal(after, np.arange(6).reshape(3, 2) - 1)


def test_a_push_starts_where_the_shard_ends(ports: Ports):
    ports.begin()
    epoch = ports.join("a").epoch
    push = ports.shards[0].push
    assert push(a_push(epoch)).outcome is Outcome.APPLIED
    assert push(a_push(epoch)).outcome is Outcome.DUPLICATE
    assert push(a_push(epoch, start=5, end=15)).outcome is Outcome.OVERLAP
    gap = push(a_push(epoch, start=15, end=20))
    assert (gap.outcome, gap.end) == (Outcome.GAP, 10)
    empty = a_push(
        epoch, start=10, end=20, keys={}, gradients={}, reason="nan gradient in feature item"
    )
    assert push(empty).end == 20
    assert push(a_push(epoch, chain="late/0")).outcome is Outcome.NOT_BEGUN


def test_who_may_not_push_is_told_so(ports: Ports):
    ports.begin()
    epoch = ports.join("a").epoch
    push, pull = ports.shards[0].push, ports.shards[0].pull
    stranger = Epoch(epoch.era, epoch.n + 100)
    assert push(a_push(stranger)).outcome is Outcome.FENCED
    assert pull(a_pull(stranger)).outcome is Outcome.FENCED
    assert push(a_push(Epoch(epoch.era + 1, 1))).outcome is Outcome.NO_ERA
    assert push(a_push(epoch, incarnation=2)).outcome is Outcome.WRONG_INCARNATION
    assert push(a_push(epoch, map_epoch=MAP.epoch + 1)).outcome is Outcome.WRONG_MAP
    assert ports.shards[0].progress("clicks").progress.version == 0


def test_a_push_refused_for_its_content_ends_as_an_empty_one(ports: Ports):
    ports.begin()
    epoch = ports.join("a").epoch
    bad = a_push(epoch)
    bad.gradients["item"][2, 1] = np.nan
    reply = ports.shards[0].push(bad)
    assert (reply.outcome, reply.end) == (Outcome.PARTLY_APPLIED, 10)
    assert "item" in reply.detail


def test_rows_are_rewritten_whole_and_none_is_made(ports: Ports):
    ports.begin()
    epoch, keys = ports.join("a").epoch, keys_of(0)
    user = a_push(epoch, keys={"user": keys[:4]}, gradients={"user": np.ones((4, 2), np.float32)})
    assert ports.shards[0].push(user).outcome is Outcome.APPLIED
    rows = np.arange(20, dtype=np.float32).reshape(5, 4) + np.float32(1 / 3)
    rewrite = a_push(epoch, 0, 10, 20, keys={"user": keys}, gradients={"user": rows}, rewrites=True)
    assert ports.shards[0].push(rewrite).outcome is Outcome.APPLIED
    again = a_push(
        epoch, 0, 20, 30, keys={"user": keys}, gradients={"user": rows[:, :2]}, rewrites=True
    )
    refused = ports.shards[0].push(again)
    assert refused.outcome is Outcome.PARTLY_APPLIED
    assert "rows are float32 (5, 2), expected float32 (5, 4)" in refused.detail
    pulled = ports.shards[0].pull(a_pull(epoch, keys={"user": keys})).rows["user"]
    z, n = rows[:, :2].astype(np.float64), rows[:, 2:].astype(np.float64)
    expected = -z / ((1.0 + np.sqrt(n)) / 0.05)
    np.testing.assert_allclose(pulled[:4], expected[:4], rtol=1e-5)
    np.testing.assert_array_equal(pulled[4], 0.0)


U64, F32 = np.uint64, np.float32
FOREIGN = {"item": keys_of(1)}
#: What is wrong with a push -> (changes to a good one, what becomes of it, the words that name it).
BAD_PUSHES: dict[str, tuple[dict[str, object], Outcome, str]] = {
    "gap": ({"start": 15, "end": 20}, Outcome.GAP, ""),
    "overlap": ({"start": 5, "end": 15}, Outcome.OVERLAP, ""),
    "dimension": (
        {"gradients": {"item": np.ones((5, 3), F32)}},
        Outcome.PARTLY_APPLIED,
        r"float32 \(5, 4\)",
    ),
    "unsorted": (
        {"keys": {"item": keys_of(0)[::-1].copy()}},
        Outcome.PARTLY_APPLIED,
        "unique and rising",
    ),
    "duplicate": (
        {"keys": {"item": np.repeat(keys_of(0)[:1], 5)}},
        Outcome.PARTLY_APPLIED,
        "unique and rising",
    ),
    "nan": (
        {"gradients": {"item": np.full((5, 4), np.nan, F32)}},
        Outcome.PARTLY_APPLIED,
        "'item'.*not finite",
    ),
    "inf": (
        {"gradients": {"item": np.full((5, 4), np.inf, F32)}},
        Outcome.PARTLY_APPLIED,
        "'item'.*not finite",
    ),
    "unknown table": (
        {"keys": {"shop": keys_of(0)}, "gradients": {"shop": np.ones((5, 4), F32)}},
        Outcome.PARTLY_APPLIED,
        "'shop' is not in model",
    ),
    "another shard's key": ({"keys": FOREIGN}, Outcome.PARTLY_APPLIED, "belongs to another shard"),
    "unknown array": (
        {"dense": {"q": np.ones(2, F32)}},
        Outcome.PARTLY_APPLIED,
        "'q' is not in the model",
    ),
    "fenced": ({"epoch": Epoch(1, 999)}, Outcome.FENCED, ""),
    "incarnation": ({"incarnation": 9}, Outcome.WRONG_INCARNATION, ""),
    "map": ({"map_epoch": 9}, Outcome.WRONG_MAP, ""),
    "chain": ({"chain": "odd/0"}, Outcome.NOT_BEGUN, "did not name chain 'odd/0'"),
}


def test_whatever_is_wrong_with_a_push_is_named_and_changes_no_row(ports: Ports):
    """S1, S2, S4: the outcome says what it is; refused content moves progress and nothing else."""
    ports.begin()
    epoch, shard = ports.join("a").epoch, ports.shards[0]
    assert shard.push(a_push(epoch)).end == 10
    before = shard.pull(a_pull(epoch))
    for case, (changes, outcome, words) in BAD_PUSHES.items():
        at = shard.progress("clicks").progress.chains["label/0"].end
        reply = shard.push(replace(a_push(epoch, start=at, end=at + 10), **changes))
        assert reply.outcome is outcome, case
        assert re.search(words, reply.detail), (case, reply.detail)
        moved = at + 10 if outcome is Outcome.PARTLY_APPLIED else at
        assert shard.progress("clicks").progress.chains["label/0"].end == moved, case
        after = shard.pull(a_pull(epoch))
        for name, rows in before.rows.items():
            np.testing.assert_array_equal(rows, after.rows[name], case)
        for name, array in before.dense.items():
            np.testing.assert_array_equal(array, after.dense[name], case)


def test_a_pull_that_cannot_be_is_refused(ports: Ports):
    ports.begin()
    epoch = ports.join("a").epoch
    with pytest.raises(PortRefused, match="no table 'basket'"):
        ports.shards[0].pull(a_pull(epoch, keys={"basket": keys_of(0)}))
    with pytest.raises(PortRefused, match="another shard"):
        ports.shards[0].pull(a_pull(epoch, keys={"item": keys_of(1)}))


def test_tables_without_keys_have_rows_all_the_same(ports: Ports):
    ports.begin()
    epoch = ports.join("a").epoch
    none = np.empty(0, np.uint64)
    rows = ports.shards[0].pull(a_pull(epoch, keys={"item": none, "user": keys_of(0)})).rows
    assert rows["item"].shape == (0, 4)
    assert rows["user"].shape == (5, 2)
    push = a_push(epoch, keys={"item": none}, gradients={"item": np.empty((0, 4), np.float32)})
    assert ports.shards[0].push(push).outcome is Outcome.APPLIED


def test_a_cut_is_marked_written_and_settled(ports: Ports):
    ports.begin()
    epoch = ports.join("a").epoch
    ports.shards[0].push(a_push(epoch))
    vector = {"label/0": 10, "label/1": 100}
    elsewhere = ports.shards[0].mark("clicks", "c1", {**vector, "label/0": 9})
    assert not elsewhere.marked
    assert elsewhere.progress.chains["label/0"].end == 10
    assert ports.shards[0].mark("clicks", "c1", vector).marked
    ports.shards[0].push(a_push(epoch, start=10, end=20))
    again = ports.shards[0].mark("clicks", "c1", vector)
    assert again.marked
    assert again.progress.chains["label/0"].end == 10
    part = ports.shards[0].write_part("clicks", "c1", ports.files, None)
    assert part == ports.shards[0].write_part("clicks", "c1", ports.files, None)
    data = ports.read(part.url)
    assert part.url.endswith("/part-0.safetensors")
    assert (part.sha256, part.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (part.shard, part.rows, part.kind) == (0, 5, "full")
    snapshot = decode_part(data)
    assert snapshot.progress == part.progress == again.progress
    np.testing.assert_array_equal(snapshot.tables["item"].keys, keys_of(0))
    ports.shards[0].settle("clicks", "c1", "0" * 64)
    ports.shards[0].settle("clicks", "c1", "0" * 64)
    ports.shards[0].unmark("clicks", "c1")
    with pytest.raises(PortRefused, match="not marked"):
        ports.shards[0].write_part("clicks", "c1", ports.files, None)


def test_policy_and_storage_of_a_table_arrive_and_are_in_its_part(ports: Ports):
    ports.begin()
    epoch, shard, keys = ports.join("a").epoch, ports.shards[0], keys_of(0)
    word = {"keys": {"word": keys}, "gradients": {"word": np.ones((5, 2), np.float32)}}
    before = shard.pull(a_pull(epoch, keys={"word": keys})).rows["word"]
    assert shard.push(a_push(epoch, **word)).outcome is Outcome.APPLIED
    np.testing.assert_array_equal(
        shard.pull(a_pull(epoch, keys={"word": keys})).rows["word"], before
    )
    assert shard.push(a_push(epoch, start=10, end=20, **word)).outcome is Outcome.APPLIED
    after = shard.pull(a_pull(epoch, keys={"word": keys})).rows["word"]
    assert (after < before).all(), "admitted with the second push"
    np.testing.assert_array_equal(after, after.astype(np.float16))
    assert shard.mark("clicks", "c1", {"label/0": 20, "label/1": 100}).marked
    snapshot = decode_part(ports.read(shard.write_part("clicks", "c1", ports.files, None).url))
    assert snapshot.tables["word"].rows.dtype == np.uint32
    assert snapshot.sightings["word"].counters.max() == 1
