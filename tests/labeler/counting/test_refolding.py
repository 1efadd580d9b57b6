"""After a rebalance or a failed send, `signals` is read on from what was folded, not anew (C2)."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from labelled_shop import IMPRESSIONS, LABELER, STREAM, ZERO, Clock, beat, fill, memory_log, work

import labeler.counting.runner as runner
from labeler.counting.runner import Head
from labeler.counting.signals import decode_signal
from labeler.fraud_config import FraudConfig
from stream import Chain, Fold, Partition
from stream.log import MemoryLog

SIGNALS = Partition("signals", 0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Offsets of the signals that folds have decoded."""
    found: list[int] = []

    def decoded(record):
        found.append(record.offset)
        return decode_signal(record)

    monkeypatch.setattr(runner, "decode_signal", decoded)
    return found


def head_of(log: MemoryLog, clock: Clock) -> Head:
    head = Head(STREAM, replace(LABELER, await_verdicts=True), FraudConfig(), log)
    head.own([0])
    work(head, clock)
    return head


def own_again(head: Head, clock: Clock) -> None:
    """Another labeler had the partition meanwhile."""
    head.own([])
    head.own([0])
    work(head, clock)


def kinds(log: MemoryLog) -> set[Fold]:
    """How the signals of impressions fold, from the first one there."""
    chain = Chain()
    signals = [decode_signal(record) for record in log.records(SIGNALS)]
    return {chain.fold(s.start, s.end)[0] for s in signals if s.input == "impressions/0"}


def shop() -> tuple[MemoryLog, Clock]:
    clock = Clock()
    log = memory_log(clock=clock)
    fill(log)
    return log, clock


def test_what_was_folded_is_not_read_again(read: list[int]):
    log, clock = shop()
    head = head_of(log, clock)
    stood = log.end(SIGNALS)
    assert stood > 20
    beat(log, ZERO + 20_000)
    own_again(head, clock)
    assert read == list(range(stood))
    beat(log, ZERO + 40_000)
    own_again(head, clock)
    assert read == list(range(log.end(SIGNALS)))[: len(read)]
    assert kinds(log) == {Fold.EXTENDS}


def test_what_another_counted_meanwhile_is_not_counted_again(read: list[int]):
    log, clock = shop()
    head = head_of(log, clock)
    head.own([])
    beat(log, ZERO + 20_000)
    beat(log, ZERO + 40_000)
    head_of(log, clock)
    beat(log, ZERO + 60_000)
    own_again(head, clock)
    assert kinds(log) == {Fold.EXTENDS}


def retention(log: MemoryLog) -> None:
    log.delete_below(SIGNALS, log.end(SIGNALS))
    log.append(SIGNALS, b"junk")


def made_anew(log: MemoryLog) -> None:
    signals = log.records(SIGNALS)
    log.delete("signals")
    log.create("signals", 1)
    for record in signals:
        log.append(SIGNALS, record.value, record.key, record.headers, record.timestamp_ms)


@pytest.mark.parametrize("changed", [retention, made_anew])
def test_a_log_that_is_another_is_folded_anew(
    read: list[int], changed: Callable[[MemoryLog], None]
):
    log, clock = shop()
    head = head_of(log, clock)
    if changed is retention:
        log.append(SIGNALS, b"junk")  # which this head has not folded when it is gone
    changed(log)
    read.clear()
    own_again(head, clock)
    assert read[0] == log.first(SIGNALS)
    assert log.end(IMPRESSIONS)
