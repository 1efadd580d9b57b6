"""Versions beyond 32 bits: deltas, copies and restores are the same however many pushes there
have been."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramserver.messages import DenseSpec, Epoch, ModelSpec, Outcome, PushRequest, TableSpec
from paramserver.parts import decode_part, encode_part
from paramserver.ports import AllowRequest
from paramserver.shard.shard import Shard
from paramserver.slots import SlotMap
from paramserver.tables import Table
from paramserver.tables.row_header import BASE_STEP, version_base

KEYS = np.sort(np.arange(1, 65, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
AT_MS = 1_700_000_000_000
SPEC = ModelSpec("m", "d", (TableSpec("e", 1, "sgd", {"rate": 1.0}),), DenseSpec({}))


def push(table, version, chosen):
    keys = KEYS[chosen]
    table.reserve(keys)
    table.advance(version, AT_MS, len(keys), AT_MS, version)
    table.apply(keys, np.ones((len(keys), 1), np.float32), version, AT_MS)


def test_a_base_leaves_room_below_the_version_of_a_free_record():
    for version in (0, 1, BASE_STEP - 1, BASE_STEP, (1 << 32) - 1, 1 << 32, (1 << 60) + 12345):
        assert 0 <= version - version_base(version) < 2 * BASE_STEP < 0xFFFFFFFF
        assert version_base(version) % BASE_STEP == 0


subsets = st.lists(st.integers(0, len(KEYS) - 1), unique=True, max_size=12).map(sorted)


@settings(max_examples=settings.default.max_examples * 60 // 100, deadline=None)
@given(
    before=st.lists(subsets, min_size=1, max_size=4),
    after=st.lists(subsets, min_size=1, max_size=6),
    boundary=st.sampled_from([BASE_STEP, 2 * BASE_STEP, 4 * BASE_STEP, 5 * BASE_STEP]),
    short=st.integers(0, 9),
    copied=st.integers(0, 64),
)
def test_a_table_far_on_changes_like_one_that_begins(before, after, boundary, short, copied):
    """The same pushes at small versions and across a boundary: the same deltas, and the same copy
    of the moment between the two halves, made while the second goes on."""
    outcomes = []
    for first in (1, boundary - short):
        table = Table(SPEC.tables[0])
        for n, chosen in enumerate(before):
            push(table, first + n, chosen)
        parent = first + len(before) - 1
        copy = table.copy()
        table.advance_copy(copy, copied)
        for n, chosen in enumerate(after):
            push(table, parent + 1 + n, chosen)
        while not table.advance_copy(copy, 16):
            pass
        changes, moment, now = table.changes_since(parent).rows, table.copied(copy), table.items()
        table.validate()
        outcomes.append(
            [
                a
                for rows in (changes, moment, now)
                for a in (rows.keys, rows.rows, rows.version - first)
            ]
        )
    for small, large in zip(*outcomes, strict=True):
        assert np.array_equal(small, large)


def test_a_copy_that_began_before_the_base_moved_past_it_is_still_of_its_moment():
    table = Table(SPEC.tables[0])
    push(table, 5, range(64))
    copy, before = table.copy(), table.items()
    push(table, 3 * BASE_STEP, range(10))
    while not table.advance_copy(copy, 16):
        pass
    assert np.array_equal(table.copied(copy).rows, before.rows)
    assert np.array_equal(table.copied(copy).version, before.version)


def test_a_delta_since_a_version_below_the_base_lacks_nothing():
    table = Table(SPEC.tables[0])
    push(table, 5, range(64))
    push(table, 6, range(10))
    push(table, 4 * BASE_STEP, range(20, 30))
    changed = set(table.changes_since(5).rows.keys.tolist())
    assert changed >= set(KEYS[:10].tolist()) | set(KEYS[20:30].tolist())


@pytest.mark.parametrize("boundary", [BASE_STEP, 2 * BASE_STEP, 1 << 32, (1 << 32) + BASE_STEP])
def test_a_shard_restored_from_base_and_delta_across_a_boundary_lacks_nothing(boundary):
    def shard(incarnation):
        made = Shard(0, incarnation, SlotMap.even(1))
        made.allow(AllowRequest(1, 1, (Epoch(1, 1),), map_epoch=1))
        return made

    end = 0

    def learn(one, times):
        nonlocal end
        for _ in range(times):
            request = PushRequest(
                "m",
                Epoch(1, 1),
                1,
                one.incarnation,
                "label/0",
                end,
                end + 1,
                0,
                end + 1,
                0,
                0,
                1,
                event_time_max_ms=1000,
                keys={"e": KEYS},
                gradients={"e": np.full((len(KEYS), 1), -1, np.float32)},
            )
            assert one.push(request).outcome is Outcome.APPLIED
            end += 1

    def cut(one, name, parent=None):
        one.mark("m", name, {"label/0": end})
        part = decode_part(encode_part(one.marked("m", name, parent)))
        one.settle("m", name, name * 64)
        return part

    first = shard(1)
    first.begin(SPEC, {"label/0": 0}, {})
    first._models["m"].version = boundary - 6
    learn(first, 5)
    base = cut(first, "a")
    learn(first, 10)
    delta = cut(first, "b", "a" * 64)
    assert len(delta.tables["e"].keys) == len(KEYS)
    back = shard(2)
    back.restore([base], "a" * 64)
    back.follow([delta], "b" * 64)
    assert back.snapshot("m").tables["e"].rows[0, 0] == 15.0
    assert np.array_equal(
        back.snapshot("m").tables["e"].version, first.snapshot("m").tables["e"].version
    )
    back.validate()
