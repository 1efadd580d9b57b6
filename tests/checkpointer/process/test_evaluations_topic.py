"""What the checkpointer reads of `evaluations`, whenever the topic comes to be."""

import json
import threading

import pytest

from checkpointer.config import CheckpointerConfig
from checkpointer.metrics import CheckpointerMetrics
from checkpointer.process.process import ProcessShell
from stream import Partition, StreamConfig
from stream.log import MemoryLog
from stream.monitoring import TimeLimit


class Clean:
    def close(self): ...


@pytest.fixture
def log():
    return MemoryLog(lambda: 0)


@pytest.fixture
def shell(log):
    stop = threading.Event()
    made = ProcessShell(
        StreamConfig(), CheckpointerConfig(), log, Clean(), CheckpointerMetrics(), stop
    )
    yield made
    made.close()


def read(shell, wanted):
    found, limit = [], TimeLimit(60)
    while len(found) < wanted and limit.left_s:
        found += [body["i"] for body in shell.read_evaluations()]
    return found


def write(log, count):
    for i in range(count):
        log.append(Partition("evaluations", 0), json.dumps({"i": i}).encode())


def test_evaluations_are_read_where_their_topic_is_made_later_and_anew(shell, log):
    assert list(shell.read_evaluations()) == []
    log.create("evaluations", 1)
    write(log, 20)
    assert read(shell, 20) == list(range(20))
    log.delete("evaluations")
    log.create("evaluations", 1)
    write(log, 50)
    assert read(shell, 50) == list(range(50))
