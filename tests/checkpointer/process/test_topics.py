"""The topics of a checkpointer where they are not there, or take nothing."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from checkpointer.config import CheckpointerConfig
from checkpointer.metrics import CheckpointerMetrics
from checkpointer.process import process
from checkpointer.process.process import ProcessShell
from checkpointer.store import Announcement
from stream import Partition, StreamConfig
from stream.log import MemoryLog
from stream.log.memory import Fate
from stream.monitoring import TimeLimit

STREAM = StreamConfig(partitions=1)


class AskedLog(MemoryLog):
    """Counts what it is asked."""

    asked = 0

    def partitions(self, topic: str) -> int:
        self.asked += 1
        return super().partitions(topic)


def shell(log: MemoryLog) -> ProcessShell:
    clean: Any = None
    metrics = CheckpointerMetrics()
    return ProcessShell(STREAM, CheckpointerConfig(), log, clean, metrics, threading.Event())


def until(true: Callable[[], object]) -> None:
    limit = TimeLimit(20)
    while not true():
        assert not limit.over
        time.sleep(0.002)


def test_announcements_are_not_sent_again_at_once_and_once_the_topic_takes_them():
    log, asked = MemoryLog(lambda: 1), []
    log.create(STREAM.checkpoints, 1)
    log.on_append = lambda at: asked.append(at) or Fate.LOST
    one = shell(log)
    for number in range(3):
        one.announce(Announcement("published", "clicks", number, f"v{number}", "u", "s"))
    assert (len(asked), len(one.unsent)) == (1, 3), "where it is deleted, each attempt waits"
    log.on_append = None
    until(lambda: one.send() or not one.unsent)
    said = [json.loads(r.value) for r in log.records(Partition(STREAM.checkpoints, 0))]
    assert [one["number"] for one in said] == [0, 1, 2]


def test_evaluations_are_read_once_their_topic_is_there(monkeypatch: pytest.MonkeyPatch):
    log = AskedLog(lambda: 1)
    one = shell(log)
    for _ in range(20):
        assert list(one.read_evaluations()) == []
    assert log.asked == 1
    log.create(STREAM.evaluations, 1)
    log.append(Partition(STREAM.evaluations, 0), b'{"a": 1}')
    until(lambda: list(one.read_evaluations()) == [{"a": 1}])


def test_a_topic_that_failed_rests_longer_each_time(monkeypatch: pytest.MonkeyPatch):
    now_s = [0.0]
    monkeypatch.setattr(process.time, "monotonic", lambda: now_s[0])
    topic, pauses = process.RetriedTopic(), []
    for _ in range(12):
        topic.failed()
        pauses.append(topic.again_s - now_s[0])
        assert not topic.is_due
        now_s[0] = topic.again_s
        assert topic.is_due
    assert 30 <= pauses[-1] <= 60
