"""What a labeler holds of verdicts, and what becomes of a moment without memory."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from labelled_shop import IMPRESSIONS, LABELER, STREAM, ZERO, Clock, beat, fill, folded, memory_log
from labelled_shop import work as labels

import labeler.counting.reader
import labeler.join.intake
import labeler.labels.emitter
from labeler.counting import Head, decode_signal
from labeler.fraud_config import FraudConfig
from labeler.labels.runner import Labelling
from stream import Partition
from stream.internal_topics import Watermark, encode_verdict, input_name


def fails_once(works: int, does: Callable[..., Any]) -> Callable[..., Any]:
    """After so many calls there is no memory for one."""
    calls = 0

    def call(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == works + 1:
            raise MemoryError("no memory")
        return does(*given, **named)

    return call


@pytest.mark.parametrize("works", [0, 2])
@pytest.mark.parametrize(
    ("module", "name"),
    [(labeler.join.intake, "decode_impressions"), (labeler.labels.emitter, "encode_examples")],
)
def test_a_moment_without_memory_is_no_records_fault(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, works: int
):
    clock = Clock()
    log = memory_log(clock=clock)
    fill(log)
    monkeypatch.setattr(module, name, fails_once(works, getattr(module, name)))
    labelling = Labelling(STREAM, replace(LABELER, retry_ms=1), log)
    labelling.own([0])
    labels(labelling, clock)
    assert labelling.tasks[0].core.stopped is None
    views = [r.offset for r in log.records(IMPRESSIONS) if r.value]
    assert [position >> 20 for position, _ in folded(log)[0]] == views


def test_a_moment_without_memory_is_counted_again(monkeypatch: pytest.MonkeyPatch):
    stream, clock = replace(STREAM, replayed=True), Clock()
    log = memory_log(stream, clock)
    fill(log)
    reading = labeler.counting.reader
    monkeypatch.setattr(reading, "_read_each", fails_once(1, reading._read_each))
    head = Head(stream, replace(LABELER, await_verdicts=True, retry_ms=1), FraudConfig(), log)
    head.own([0])
    for _ in range(200):
        head.run_once(clock(), 0)
    head.close()
    counted = sum(
        sum(signal.rows.column("count").to_pylist())
        for record in log.records(Partition("signals", 0))
        if (signal := decode_signal(record)).rows is not None and "impressions" in signal.input
    )
    assert counted == sum(bool(r.value) for r in log.records(IMPRESSIONS))


def test_verdicts_are_not_held_for_a_partition_that_another_has():
    stream, clock = replace(STREAM, partitions=2), Clock()
    log = memory_log(stream, clock)
    labelling = Labelling(stream, replace(LABELER, await_verdicts=True), log)
    inputs = [input_name(topic, p) for topic in ("impressions", "clicks") for p in (0, 1)]

    def seconds(first: int, end: int, owned: list[int]) -> int:
        """Steps of watermarks that are held then."""
        for at in range(ZERO + 1_000 * first, ZERO + 1_000 * end, 100):
            for p in (0, 1):
                beat(log, at, p)
            for name in inputs:
                said = encode_verdict(Watermark(name, at, 1))
                log.append(Partition("verdicts", 0), said, None, (), at)
            labelling.own(owned)
            for _ in range(4):
                labelling.run_once(clock(), 0)
        assert labelling.verdict_index is not None
        return len(labelling.verdict_index._step_offsets)

    both = seconds(0, 20, [0, 1])
    assert seconds(20, 60, [0]) <= both + 70
    labelling.close()
