"""A replica whose store fails, hangs, or says nonsense for a while: it serves what it has, says
so, and goes on."""

import contextlib
import json
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from checkpointer.config import ServingConfig
from checkpointer.serving import Replica, ReplicaServer
from checkpointer.store.catalogue import Catalogue
from checkpointer.store.fsspec_store import Directory
from stream import Backoff
from stream.monitoring import TimeLimit

ROWS = [{"source": "u1", "item": "i1"}]
FAST = ServingConfig(poll_ms=5, retry_ms=10_000, store_timeout_ms=200)


class DriverError(Exception):
    """As the drivers of object stores raise it: no OSError."""


@pytest.fixture
def root(tmp_path):
    return str(tmp_path)


@pytest.fixture
def catalogue(root):
    return Catalogue(Directory(root), "clicks")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("checkpointer.serving.replica_client._RETRY_MS_MAX", 100)


def wait(reached):
    for _ in range(4_000):
        if reached():
            return
        threading.Event().wait(0.005)
    raise AssertionError("never")


def sample(replica, name):
    return replica.metrics.registry.get_sample_value(name)


@pytest.mark.parametrize(
    "fault",
    [
        DriverError("503"),
        OSError(5, "i/o"),
        PermissionError("no"),
        TimeoutError("late"),
        MemoryError(),
        KeyError("x"),
        AssertionError(),
        RecursionError(),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_no_error_of_the_store_ends_the_following(root, catalogue, train, monkeypatch, fault):
    train(catalogue, 0, ROWS)
    with Replica(root, "clicks", FAST) as replica:
        read, down = Directory.read, threading.Event()

        def failing(self, path):
            if down.is_set():
                raise fault
            return read(self, path)

        monkeypatch.setattr(Directory, "read", failing)
        down.set()
        wait(lambda: replica.following.fault)
        assert replica.following.failing_s > 0
        assert sample(replica, "everspun_replica_failing_s") > 0
        assert replica.predict_rows(ROWS)["model_version"] == "00000000-c"
        down.clear()
        second = train(catalogue, 1, ROWS)
        wait(lambda: replica.served.version == second.name)
        wait(lambda: not replica.following.fault)
        assert sample(replica, "everspun_replica_failing_s") == 0
        assert second.name not in replica.describe()["refused"]


def test_a_store_that_fails_while_a_checkpoint_is_loaded_costs_it_nothing(
    root, catalogue, train, monkeypatch
):
    """A refused checkpoint is left alone for `retry_ms`; one that could not be fetched is not
    refused."""
    train(catalogue, 0, ROWS)
    read, down = Directory.read, threading.Event()

    def failing(self, path):
        if down.is_set() and path.endswith(".safetensors"):
            raise DriverError("reset by peer")
        return read(self, path)

    monkeypatch.setattr(Directory, "read", failing)
    with Replica(root, "clicks", FAST) as replica:
        down.set()
        second = train(catalogue, 1, ROWS)
        wait(lambda: "reset by peer" in replica.following.fault)
        down.clear()
        wait(lambda: replica.served.version == second.name)
        assert sample(replica, "everspun_replica_refused_total") == 0


def test_a_store_that_hangs_is_given_up_and_asked_again(root, catalogue, train, monkeypatch):
    train(catalogue, 0, ROWS)
    read, answers = Directory.read, threading.Event()
    answers.set()
    monkeypatch.setattr(Directory, "read", lambda self, path: answers.wait(60) and read(self, path))
    with Replica(root, "clicks", FAST) as replica:
        answers.clear()
        wait(lambda: "no answer within 0.2 s" in replica.following.fault)
        answers.set()
        second = train(catalogue, 1, ROWS)
        wait(lambda: replica.served.version == second.name)


@pytest.mark.parametrize("name", ["published.json", "hold.json", "successor.json"])
@pytest.mark.parametrize(
    "said",
    ["", "{}", "[]", "null", "5", '"x"', "{", '{"ref": 3, "revision": "1", "model": 7}', "\0" * 90],
)
def test_a_pointer_file_of_a_wrong_shape_is_read_again(root, catalogue, train, name, said):
    train(catalogue, 0, ROWS)
    with Replica(root, "clicks", FAST) as replica:
        path = f"clicks/{name}"
        before = None
        if name == "published.json":
            before = catalogue.files.read(path)
        catalogue.files.write(path, said.encode())
        wait(lambda: replica.following.fault)
        catalogue.files.delete(path) if before is None else catalogue.files.write(path, before)
        second = train(catalogue, 1, ROWS)
        wait(lambda: replica.served.version == second.name)
        wait(lambda: not replica.following.fault)


def test_a_pointer_that_cannot_be_read_hides_no_published_checkpoint(root, catalogue, train):
    train(catalogue, 0, ROWS)
    second = train(catalogue, 1, ROWS)
    catalogue.files.write("clicks/published.json", b"")
    with Replica(root, "clicks", FAST) as replica:
        wait(lambda: replica.served is not None and replica.served.version == second.name)
        assert "published.json" in replica.following.fault


def test_ages_are_those_of_the_moment_that_asks(root, catalogue, train, monkeypatch):
    train(catalogue, 0, ROWS)
    now = [1_000_000]
    monkeypatch.setattr("checkpointer.serving.replica_client.now_ms", lambda: now[0])
    with Replica(root, "clicks", ServingConfig(poll_ms=600_000)) as replica:
        before = sample(replica, "everspun_served_model_age_s")
        now[0] += 5_000
        assert sample(replica, "everspun_served_model_age_s") == before + 5
        assert sample(replica, "everspun_replica_ready") == 1
    with Replica(root, "clicks", ServingConfig(ready_age_max_s=1.0)) as old:
        assert "more than ready_age_max_s" in old.not_ready()


def test_a_child_of_a_fork_follows_on_its_own(root, catalogue, train):
    train(catalogue, 0, ROWS)
    with Replica(root, "clicks", FAST) as replica:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                replica.predict_rows(ROWS)
                wait(lambda: replica.served.version == "00000001-c")
                os.write(writer, b"follows")
            finally:
                os._exit(0)
        os.close(writer)
        train(catalogue, 1, ROWS)
        assert os.read(reader, 10) == b"follows"
        os.waitpid(child, 0)
        os.close(reader)


# --- over HTTP
# --------------------------------------------------------------------------------------------------


def ask(server, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def test_a_replica_without_a_model_lives_and_is_not_ready(root, catalogue, train):
    with Replica(root, "clicks", FAST) as replica, ReplicaServer(replica, FAST, 0) as server:
        assert ask(server, "/livez")[0] == 200
        assert ask(server, "/healthz")[0] == 503
        status, told = ask(server, "/readyz")
        assert (status, told["ready"]) == (503, False)
        assert "no model yet" in told["why"]
        train(catalogue, 0, ROWS)
        wait(lambda: ask(server, "/readyz")[0] == 200)


def test_connections_that_trickle_are_bounded_and_end(root, catalogue, train):
    train(catalogue, 0, ROWS)
    config = ServingConfig(poll_ms=5, connections_max=8, request_timeout_s=0.5)
    with Replica(root, "clicks", config) as replica, ReplicaServer(replica, config, 0) as server:
        slow = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(20)]
        wait(lambda: sample(replica, "everspun_replica_connections_refused_total") >= 12)
        assert len(server._connections) <= 8
        limit = TimeLimit(60)
        while server._connections and not limit.over:  # a byte now and then keeps none of them open
            for one in slow:
                with contextlib.suppress(OSError):
                    one.send(b"G")
            time.sleep(0.05)
        assert not server._connections
        assert ask(server, "/healthz")[0] == 200
        for one in slow:
            one.close()


def test_pauses_grow_to_a_limit_and_begin_anew():
    backoff = Backoff(100, 1_000)
    assert [backoff.failed(0.999_999) for _ in range(6)] == [99, 199, 399, 799, 999, 999]
    assert [backoff.failed(0.0) for _ in range(2)] == [500, 500]
    backoff.worked()
    assert backoff.failed(0.0) == 50
    with pytest.raises(ValueError, match="first <= max"):
        Backoff(10, 5)


def test_a_store_that_is_gone_is_a_failed_look_where_a_model_is_served(root, catalogue, train):
    first = train(catalogue, 0, ROWS)
    with Replica(root, "clicks", FAST) as replica:
        assert replica.predict_rows(ROWS)["model_version"] == first.name
        away = Path(f"{root}-away")
        Path(root).rename(away)
        for empty in (False, True):  # no folder, or one that nothing is mounted at
            if empty:
                Path(root).mkdir()
            wait(lambda: "nothing is published there any more" in replica.following.fault)
            assert replica.following.failing_s > 0
            assert replica.predict_rows(ROWS)["model_version"] == first.name
        Path(root).rmdir()
        away.rename(root)
        wait(lambda: not replica.following.fault)
