"""What a follower tells workers, in one process: versions, holds, faults, and who comes late."""

import socket
import sys
from collections.abc import Iterator

import pytest

from checkpointer import ServingConfig
from checkpointer.serving import Replica
from checkpointer.store import Catalogue, Directory, Hold
from checkpointer.workers import FedReplica
from checkpointer.workers.board import Board
from checkpointer.workers.fed_replica import Feed
from checkpointer.workers.follower import Handover
from stream.monitoring import TimeLimit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memfd_create")
ROWS = [{"source": "u1", "item": "i1"}, {"source": "u2", "item": "i2"}]
CONFIG = ServingConfig(poll_ms=5, retry_ms=50, workers=2)
WAIT_S = 60.0


class Handing:
    """A follower and the workers that come to it."""

    def __init__(self, root: str) -> None:
        self.root, self.board = root, Board(2)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind("")
        self.listener.listen()
        self.listener.setblocking(False)
        self.follow()

    def follow(self) -> None:
        self.replica = Replica(self.root, "clicks", CONFIG)
        self.handover = Handover(self.replica, self.board, self.listener)
        self.replica.start()

    def worker(self, number: int) -> tuple[FedReplica, Feed]:
        replica = FedReplica(self.root, "clicks", CONFIG)
        address = self.listener.getsockname()
        return replica, Feed(address, self.board, self.board.workers[number], replica)

    def until(self, feeds: list[Feed], condition) -> None:
        limit = TimeLimit(WAIT_S)
        while not condition():
            assert not limit.over
            self.handover.accept()
            for feed in feeds:
                feed.turn(0.01)

    def oldest(self) -> int:
        served = self.replica.served
        assert served is not None
        assert served.tables is not None
        return served.tables.memory.oldest_read()


@pytest.fixture
def catalogue(tmp_path) -> Catalogue:
    return Catalogue(Directory(str(tmp_path)), "clicks")


@pytest.fixture
def handing(tmp_path, catalogue, train) -> Iterator[Handing]:
    train(catalogue, 4, ROWS)
    made = Handing(str(tmp_path))
    yield made
    made.replica.close()
    made.listener.close()


def version(replica: Replica) -> str:
    return replica.served.version if replica.served is not None else ""


def test_workers_answer_as_the_follower_does(handing, catalogue, train):
    workers = [handing.worker(n) for n in range(2)]
    feeds = [feed for _, feed in workers]
    assert "not said anything" in workers[0][0].not_ready()
    handing.until(feeds, lambda: all(version(r) == "00000004-c" for r, _ in workers))
    parent = catalogue.manifest("00000004-c")
    for number in range(5, 9):
        step = number / 10
        parent = train(catalogue, number, ROWS, step, parent=parent, delta=True, serving=True)
        name = parent.name
        handing.until(feeds, lambda name=name: all(version(r) == name for r, _ in workers))
        expected = handing.replica.predict_rows(ROWS * 3)["probabilities"]
        for replica, _ in workers:
            assert replica.predict_rows(ROWS * 3)["probabilities"] == expected
            assert replica.following.fault == ""
            told, own = replica.describe(), handing.replica.describe()
            same = ("model_version", "manifest_sha256", "vector", "rows", "features", "held")
            assert {key: told[key] for key in same} == {key: own[key] for key in same}


def test_a_worker_that_reads_an_earlier_cut_keeps_it_and_others_go_on(handing, catalogue, train):
    (slow, slow_feed), (quick, quick_feed) = handing.worker(0), handing.worker(1)
    handing.until([slow_feed, quick_feed], lambda: version(slow) == version(quick) != "")
    reading = slow.served
    before = reading.answer_given(given_of(reading), None).probabilities.tolist()
    parent = catalogue.manifest("00000004-c")
    for number in range(5, 12):
        parent = train(catalogue, number, ROWS, parent=parent, delta=True, serving=True)
        name = parent.name
        handing.until([quick_feed, slow_feed], lambda n=name: version(quick) == version(slow) == n)
        assert handing.oldest() <= 1
        again = reading.answer_given(given_of(reading), None).probabilities.tolist()
        assert again == before
    del reading
    handing.until([slow_feed, quick_feed], lambda: handing.oldest() == 8)


def given_of(served):
    from checkpointer.serving.request import given_rows

    return given_rows(ROWS, served.features)


def test_a_follower_that_comes_anew_is_followed_without_a_stop(handing, catalogue, train):
    replica, feed = handing.worker(0)
    handing.until([feed], lambda: version(replica) == "00000004-c")
    expected = replica.predict_rows(ROWS)["probabilities"]
    first = handing.replica.served.tables.memory.generation
    handing.replica.close()
    for connection, _ in handing.handover._readers.values():
        connection.close()
    for _ in range(3):
        feed.turn(0.01)
    assert replica.predict_rows(ROWS)["probabilities"] == expected
    handing.follow()
    assert handing.replica.served.tables.memory.generation > first
    handing.until([feed], lambda: handing.oldest() > 0)
    assert replica.predict_rows(ROWS)["probabilities"] == expected
    train(catalogue, 5, ROWS, step=0.3)
    handing.until([feed], lambda: version(replica) == "00000005-c")


def test_silence_holds_and_faults_are_told(handing, catalogue, train, monkeypatch):
    replica, feed = handing.worker(0)
    handing.until([feed], lambda: version(replica) == "00000004-c")
    held = catalogue.published()
    assert held is not None
    train(catalogue, 5, ROWS, step=0.3)
    handing.until([feed], lambda: version(replica) == "00000005-c")
    catalogue.write_hold(Hold(1, held, "it was better"))
    handing.until([feed], lambda: version(replica) == "00000004-c")
    assert replica.describe()["held"] == {"name": "00000004-c", "reason": "it was better"}
    assert replica.not_ready() == ""
    monkeypatch.setattr("checkpointer.workers.fed_replica.SILENT_S", -1.0)
    assert "says nothing" in replica.following.fault
    assert replica.not_ready() == ""  # an old model is better than none


def test_without_a_model_workers_answer_the_prior(tmp_path):
    made = Handing(str(tmp_path))
    replica, feed = made.worker(0)
    made.until([feed], lambda: replica.told_s > 0)
    assert replica.served is None
    assert replica.predict_rows(ROWS)["fallback"] is True
    assert replica.not_ready().startswith("no model yet")
    made.replica.close()
    made.listener.close()


def test_who_is_no_worker_is_told_nothing(handing):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(handing.listener.getsockname())
        stranger.send((7).to_bytes(4, "little"))
        handing.handover.accept()
        stranger.settimeout(10)
        assert stranger.recv(8) == b""
    assert handing.handover._readers == {}
