"""Pushes and pulls beyond the size of a message: in parts, put together once, with a limit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest
from served_shard import ME, SMALL, a_push, served

from paramserver.encoding import Encoding
from paramserver.messages import (
    Epoch,
    Outcome,
    PullRequest,
)
from paramserver.ports import AllowRequest
from paramserver.wire import payload
from paramserver.wire.staging import StageFull, StageIncomplete, Staging, slices, split


def test_a_push_and_a_pull_beyond_a_message_go_in_several(tmp_path: Path):
    push = a_push(10_000)
    with served(tmp_path, SMALL) as (service, client):
        assert client.push(push).outcome is Outcome.APPLIED
        assert service.staging.nbytes == 0
        pulled = client.pull(PullRequest("m", ME, 1, {"t": push.keys["t"]}))
        np.testing.assert_array_equal(pulled.rows["t"], -push.gradients["t"])
        np.testing.assert_array_equal(pulled.dense["w"], -np.ones(4))
        assert service.shard.progress("m").progress.version == 1
        text = generate_latest(service.metrics.registry).decode()
    assert 'everspun_pushes_total{outcome="applied"} 1.0' in text
    assert "everspun_staleness_updates_count 1.0" in text
    assert 'everspun_rows_total{method="push"} 10000.0' in text


def test_staged_parts_go_with_the_fence(tmp_path: Path):
    parts, last = split(a_push(10_000), SMALL.message_bytes_max)
    with served(tmp_path, SMALL) as (service, client):
        for number, tables in enumerate(parts):
            staged = payload.encode_stage("m", ME, 1, number, tables, Encoding.FLOAT32)
            client._exchange("Stage", staged)
        assert service.staging.nbytes > 0
        client.allow(AllowRequest(1, 2, (Epoch(1, 2),), 1))
        assert service.staging.nbytes == 0
        assert client.push(replace(last, epoch=ME)).outcome is Outcome.FENCED


def test_staging_puts_a_push_together_once_and_keeps_the_newest():
    push = a_push(1_000)
    parts, last = split(push, 10_000)
    assert len(parts) > 1
    staging = Staging(1_000_000)
    for number, tables in enumerate(parts):
        staging.add("m", ME, 7, number, tables)
        staging.add("m", ME, 7, number, tables)
    staging.add("m", ME, 6, 0, parts[0])  # late, from an attempt that was given up
    with pytest.raises(StageIncomplete):
        staging.complete(last, 6, len(parts))
    whole, refusal = staging.complete(last, 7, len(parts))
    assert not refusal
    np.testing.assert_array_equal(whole.keys["t"], push.keys["t"])
    np.testing.assert_array_equal(whole.gradients["t"], push.gradients["t"])
    assert staging.nbytes == 0
    with pytest.raises(StageIncomplete):
        staging.complete(last, 7, len(parts))


def test_staging_has_a_limit():
    parts, _ = split(a_push(1_000), 10_000)
    staging = Staging(15_000)
    staging.add("m", ME, 1, 0, parts[0])
    with pytest.raises(StageFull):
        staging.add("m", Epoch(1, 2), 1, 0, parts[0])
    with pytest.raises(ValueError, match="a row of 40 bytes"):
        split(a_push(1_000), 32)


def test_a_push_that_no_room_is_large_enough_for_ends_as_an_empty_one(tmp_path: Path):
    """S4: a chain never stops at a batch."""
    with served(tmp_path, replace(SMALL, staged_bytes_max=70_000)) as (service, client):
        reply = client.push(a_push(10_000))
        assert (reply.outcome, reply.end) == (Outcome.PARTLY_APPLIED, 1)
        assert "staged_bytes_max = 70000" in reply.detail
        assert (service.staging.nbytes, service.shard.rows("m")) == (0, 0)
        assert client.push(a_push(5, start=1, end=2)).outcome is Outcome.APPLIED


def test_slices_cover_all_keys_in_order():
    keys = {
        "a": np.arange(10, dtype=np.uint64),
        "b": np.empty(0, np.uint64),
        "c": np.arange(5, dtype=np.uint64),
    }
    pieces = slices(keys, 4)
    assert all(sum(len(k) for k in piece.values()) <= 4 for piece in pieces)
    for name, array in keys.items():
        found = [piece[name] for piece in pieces if name in piece]
        np.testing.assert_array_equal(np.concatenate(found), array)
