"""The recovery bench's own judgement: its plan keeps its promise, and its counts can be wrong."""

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from bench.failures import recovery_check
from bench.failures.recovery_check import EVENT, Events, Learnable, Parameters, read_events
from bench.failures.recovery_plan import BROKER, FOLLOWER, STORE_FAULTS, WORKER, plan
from bench.failures.recovery_serving import Answer, Look, counted, followed_after, mixtures
from learners import ModelConfig
from learners.models import make_model
from paramserver.tables import TableRows
from stream import Partition, StreamConfig
from stream.log import MemoryLog

PROCESSES = {
    "labeler": 2,
    "fraud": 1,
    "learner": 2,
    "shard": 2,
    "checkpointer": 1,
    "replica": 1,
    BROKER: 1,
}
MODEL = make_model(ModelConfig(name="coverage", kind="count", categorical=("event",)))


@pytest.mark.parametrize("seed", range(50))
def test_every_role_dies_often_enough_and_most_while_another_recovers(seed: int):
    everything = plan(24, 3, seed, PROCESSES)
    kills = [kill for kill in everything if not kill.frozen_s]
    assert len(everything) == 27
    by_role = Counter(kill.role for kill in kills)
    assert len(kills) == 24
    assert by_role.keys() == PROCESSES.keys()
    assert min(by_role.values()) >= 3
    assert sum(not kill.first for kill in kills) >= 12
    for before, kill in pairwise(everything):
        assert kill.first or kill.role != before.role
    assert all(kill.index < PROCESSES[kill.role] for kill in kills)
    assert plan(24, 3, seed, PROCESSES) == everything


@pytest.mark.parametrize("seed", range(20))
def test_the_store_fails_in_each_way_and_processes_die_meanwhile(seed: int):
    processes = PROCESSES | {WORKER: 2, FOLLOWER: 1}
    everything = plan(24, 3, seed, processes, 3)
    faults = [n for n, kill in enumerate(everything) if kill.role in STORE_FAULTS]
    assert {everything[n].role for n in faults} == set(STORE_FAULTS)
    for n in faults:
        assert everything[n].first
        assert everything[n].down_s > everything[n + 1].after_s
        assert not everything[n + 1].first
    kills = [k for k in everything if k.role not in STORE_FAULTS and not k.frozen_s]
    assert len(kills) == 24
    assert {kill.role for kill in kills} == processes.keys()


def test_answers_that_are_not_what_their_checkpoint_holds_are_found():
    learnable = Learnable([1, 2, 3], ["a", "b", "c"], [0, 0, 1], 4)
    vectors = {"v1": {"label/0": 2}, "v2": {"label/0": 4}}
    right = [
        Answer("v1", ("a", "b", "x"), (1, 0, 0)),
        Answer("v2", ("c", "b", "x"), (1, 1, 0)),
    ]
    wrong = [
        Answer("v1", ("a", "b"), (1, 1)),  # a row of a newer cut
        Answer("v2", ("a", "c"), (0, 1)),  # a row is missing
        Answer("v2", ("a", "c"), (1, 2)),  # learned twice
        Answer("v2", ("x",), (1,)),
        Answer("v3", ("a",), (1,)),  # of no checkpoint
    ]
    assert mixtures([*right, *wrong], vectors, Events({"label/0": learnable})) == wrong


def test_what_an_answer_counts_is_read_from_its_probability():
    for count in range(4):
        probability = float(np.float32(1 - 0.7 / (1 + count)))
        assert counted(probability, 0.3) == count


def test_who_never_follows_again_is_not_taken_for_one_who_did():
    looks = [Look(1.0, True), Look(2.0, False), Look(5.0, True)]
    assert followed_after(looks, 1.5) == 3.5
    assert followed_after(looks, 5.5) is None


def test_a_plan_needs_two_roles():
    with pytest.raises(ValueError, match="burst"):
        plan(4, 0, 0, {"shard": 2})


def test_lost_doubled_and_strange_events_are_found():
    events = Events(
        {"label/0": Learnable([1, 2, 3], ["a", "b", "a"], [0, 0, 1], 4)}, rejected={"b", "c", "x"}
    )
    sent = dict.fromkeys("abcd", 0)
    assert events.lost(sent) == ["d"]
    assert sorted(events.doubled()) == ["a", "b"]
    assert events.strangers(sent) == ["x"]


def record(
    log: MemoryLog,
    start: int,
    end: int,
    rows: list[tuple[int, str, int]],
    chain: bytes = b"label/0",
) -> None:
    columns = {
        "position": [r[0] for r in rows],
        EVENT: [r[1] for r in rows],
        "label": [r[2] for r in rows],
    }
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    headers = (("chain", chain), ("start", str(start).encode()), ("end", str(end).encode()))
    log.append(Partition("examples", 0), bytes(sink.getvalue()), None, headers)


def test_examples_are_folded_and_holes_counted():
    log = MemoryLog(lambda: 0)
    for topic in ("examples", "rejected", "quarantine"):
        log.create(topic, 1)
    record(log, 0, 10, [(1, "a", 0), (5, "b", 1)])
    record(log, 0, 10, [(1, "a", 0), (5, "b", 1)])  # a repeat
    record(log, 0, 99, [(1, "a", 0)], b"retract/0")  # positions of another log
    record(log, 4, 20, [(5, "b", 1), (15, "c", 0)])  # overlaps
    record(log, 30, 40, [(31, "e", 0)])  # a hole
    log.append(Partition("rejected", 0), b'{"id": ["r"]}')
    found = read_events(log.reader(), StreamConfig(partitions=1), {"label/0": 0})
    one = found.partitions["label/0"]
    assert (one.ids, one.labels, one.end, one.holes) == (["a", "b", "c"], [0, 1, 0], 20, 1)
    assert found.rejected == {"r"}


@pytest.mark.parametrize(
    ("learned", "wrong"),
    [
        ({"a": 1.0, "b": 1.0}, (0, 0, 0)),
        ({"a": 1.0}, (1, 0, 0)),
        ({"a": 1.0, "b": 2.0}, (0, 0, 1)),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, (0, 1, 0)),
    ],
)
def test_a_checkpoint_holds_one_row_of_one_for_each_event_below_its_vector(
    monkeypatch: pytest.MonkeyPatch, learned: dict[str, float], wrong: tuple[int, int, int]
):
    events = Events({"label/0": Learnable([1, 5, 15], ["a", "b", "c"], [0, 1, 0], 20)})
    keys = MODEL.encoder.encode(pa.record_batch({EVENT: list(learned)})).keys[:, 0]
    rows = TableRows(keys, np.array([[w] for w in learned.values()], np.float32), keys, keys)
    state = SimpleNamespace(tables={"counts": rows})
    monkeypatch.setattr(recovery_check, "model_state", lambda catalogue, manifest: state)
    manifest = SimpleNamespace(vector={"label/0": 10})
    found = Parameters(MODEL, events).check(None, SimpleNamespace(name="1", manifest=manifest))
    assert (found.missing, found.beyond, found.not_one) == wrong
    assert bool(found.wrong) == any(wrong)
