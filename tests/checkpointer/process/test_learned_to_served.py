"""How long what was learned waits to be served: the core, and the thread that looks."""

import http.client
import http.server
import json
import threading
import time
from types import SimpleNamespace

import pytest

from checkpointer.config import CheckpointerConfig
from checkpointer.metrics import CheckpointerMetrics
from checkpointer.process.learned_to_served import (
    PUBLISHED_MAX,
    SEEN_MAX,
    LearnedToServed,
    highest,
)
from checkpointer.process.served_watch import ServedWatch, served_by
from paramserver import PortUnreachable
from stream.monitoring import TimeLimit


def test_a_state_waits_until_a_checkpoint_at_or_above_it_answers():
    waits = LearnedToServed()
    waits.learned({"label/0": 10, "label/1": 5}, 1.0)
    waits.learned({"label/0": 10, "label/1": 5}, 1.5)  # the same: seen before
    waits.learned({"label/0": 10, "label/1": 9}, 2.0)
    waits.learned({"label/0": 20, "label/1": 9}, 3.0)
    waits.published(1, {"label/0": 12, "label/1": 9})
    assert waits.served(7, 4.0) == []  # one that nobody has heard of
    assert waits.served(1, 4.0) == [3.0, 2.0]
    assert waits.served(1, 5.0) == []
    waits.published(2, {"label/0": 25, "label/1": 8})  # below on one chain
    assert waits.served(2, 6.0) == []
    waits.published(3, {"label/0": 25, "label/1": 9, "late/0": 4})
    assert waits.served(3, 7.0) == [4.0]
    assert len(waits) == 0


def test_a_chain_that_a_checkpoint_lacks_is_not_served_by_it():
    waits = LearnedToServed()
    waits.learned({"label/0": 0, "late/0": 0}, 1.0)
    waits.published(1, {"label/0": 5})
    assert waits.served(1, 2.0) == []


def test_what_a_restored_shard_has_not_learned_again_is_not_waited_for():
    waits = LearnedToServed()
    for end in range(10):
        waits.learned({"label/0": end}, float(end))
    waits.learned({"label/0": 4}, 20.0)
    waits.published(1, {"label/0": 9})
    assert waits.served(1, 21.0) == [1.0]


def test_memory_is_bounded_and_the_oldest_is_kept():
    waits = LearnedToServed()
    for end in range(3 * SEEN_MAX):
        waits.learned({"label/0": end}, float(end))
    assert len(waits) <= SEEN_MAX
    for number in range(2 * PUBLISHED_MAX):
        waits.published(number, {"label/0": 3 * SEEN_MAX})
    assert waits.served(0, 1e6) == []  # forgotten
    found = waits.served(2 * PUBLISHED_MAX - 1, 1e6)
    assert found[0] == 1e6
    assert found == sorted(found, reverse=True)


def test_shards_that_differ_count_by_the_one_that_is_ahead():
    assert highest([{"a": 3, "b": 1}, {"a": 2, "b": 4, "c": 0}]) == {"a": 3, "b": 4, "c": 0}


class ShardAt:
    """One that says how far it is, or does not answer (None)."""

    end: int | None = 1

    def progress(self, model):
        assert model == "clicks"
        if self.end is None:
            raise PortUnreachable("gone")
        chains = {"label/0": SimpleNamespace(end=self.end)}
        return SimpleNamespace(progress=SimpleNamespace(chains=chains))


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    version = ""

    def do_GET(self):
        assert self.path == "/healthz"
        body = json.dumps({"model_version": self.version}).encode()
        self.send_response(200 if self.version else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def replica():
    """(port, what it answers with)."""
    answering = type("A", (Answering,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), answering) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1], answering
        server.shutdown()
        thread.join()


def count_of(metrics):
    return metrics.registry.get_sample_value("everspun_learned_to_served_seconds_count")


def until(holds):
    limit = TimeLimit(20)
    while not holds():
        assert not limit.over
        time.sleep(0.01)


def test_the_thread_finds_replicas_by_their_role_files_and_outlives_faults(tmp_path, replica):
    port, answering = replica
    (tmp_path / "roles").mkdir()
    ports = ("null", '"x"', "Infinity", "NaN", "70000", "-1")
    for number, odd in enumerate(("{", "[]", "\xff", *(f'{{"http_port": {p}}}' for p in ports))):
        path = tmp_path / "roles" / f"replica-0{number}.json"  # half written, or anything
        path.write_bytes(odd.encode("latin-1"))
    (tmp_path / "roles" / "replica-1.json").write_text(json.dumps({"http_port": port}))
    metrics, stop, shard = CheckpointerMetrics(), threading.Event(), ShardAt()
    watch = ServedWatch("clicks", {0: shard}, "", str(tmp_path), metrics, stop)
    unserved = lambda: metrics.registry.get_sample_value("everspun_learned_unserved")  # noqa: E731
    try:
        until(lambda: unserved() == 1)
        watch.published(7, {"label/0": 1})
        answering.version = "00000007-abc"
        until(lambda: count_of(metrics) == 1)
        shard.end, answering.version = None, "what is this"
        time.sleep(0.2)
        shard.end = 2
        until(lambda: unserved() == 1)
        watch.published(8, {"label/0": 2})
        answering.version = "00000008-abd"
        until(lambda: count_of(metrics) == 2)
        assert watch.is_alive
    finally:
        stop.set()


@pytest.mark.parametrize("wrong", ["here", "host:", ":80", "host:port", "a:1, b", "a:65536"])
def test_an_address_that_is_none_is_refused_before_anything_starts(wrong):
    with pytest.raises(ValueError, match="allowed is host:port"):
        CheckpointerConfig(root="r", replicas=wrong)
    assert CheckpointerConfig(root="r", replicas="a:1, [::1]:2").replicas


@pytest.mark.parametrize(
    "said", [b"[" * 60_000, b'{"model_version":1e999}', b"\xff", b"[]", b'{"model_version":"x"}']
)
def test_a_replica_that_answers_something_else_answers_nothing(said):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_): ...

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        place = f"127.0.0.1:{server.server_address[1]}"
        assert served_by(place, http.client.HTTPConnection(place, timeout=30)) is None
        thread.join()
