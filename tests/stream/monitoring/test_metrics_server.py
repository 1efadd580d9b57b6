"""What a process answers to those who watch it, before and after its role has begun."""

import errno
import json
import socketserver
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from stream.monitoring import metrics_server
from stream.monitoring.liveness import TURN_MAX_S, Liveness
from stream.monitoring.metrics import RoleMetrics
from stream.monitoring.metrics_server import (
    BEGINNING,
    CALLERS_MAX,
    INSTANCE,
    PROCESS,
    REFUSED_S,
    MetricsServer,
    PortTaken,
)


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    server = MetricsServer("127.0.0.1", 0, "labeler-3")
    yield server
    server.close()


def ask(server: MetricsServer, path: str) -> tuple[int, bytes, dict[str, str]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def test_a_process_lives_before_its_role_has_begun_and_is_ready_after(server: MetricsServer):
    assert ask(server, "/live")[0] == 200
    status, said, _ = ask(server, "/ready")
    assert (status, json.loads(said)["why"]) == (503, BEGINNING)
    assert ask(server, "/metrics")[:2] == (200, b"")
    metrics = RoleMetrics()
    metrics.not_ready = "no partitions"
    server.attach(metrics.registry, lambda: metrics.not_ready)
    assert json.loads(ask(server, "/ready")[1])["why"] == "no partitions"
    metrics.not_ready = ""
    assert ask(server, "/ready")[0] == 200
    assert b"everspun_data_time_ms" in ask(server, "/metrics")[1]


def test_every_answer_says_which_process_and_which_start_of_it(server: MetricsServer):
    for path in ("/live", "/ready", "/metrics", "/nowhere"):
        headers = ask(server, path)[2]
        assert (headers[PROCESS], headers[INSTANCE]) == ("labeler-3", server.instance)
    assert ask(server, "/nowhere")[0] == 404


def test_a_port_in_use_is_named_with_what_to_do(server: MetricsServer):
    with pytest.raises(PortTaken, match=rf"labeler-4: .*127\.0\.0\.1:{server.port}: .*metrics_p"):
        MetricsServer("127.0.0.1", server.port, "labeler-4")


def test_a_host_that_is_not_this_machines_is_named():
    with pytest.raises(PortTaken, match=r"192\.0\.2\.1:.*metrics_host") as error:
        MetricsServer("192.0.2.1", 0, "shard-0")
    assert "another process" not in str(error.value)


def test_an_address_may_stand_in_brackets():
    server = MetricsServer("[::1]", 0, "shard-0")
    assert server.place() == {"metrics_port": server.port, "metrics_host": "::1"}
    server.close()


def test_a_thread_that_cannot_be_started_costs_no_place(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(CALLERS_MAX):
            with pytest.raises(OSError, match=r"closed|reset"):
                ask(server, "/live")
    assert ask(server, "/live")[0] == 200


def test_a_caller_that_cannot_be_taken_on_is_looked_at_again_after_a_pause(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
):
    take_on, refused, pauses = socketserver.TCPServer.get_request, list(range(3)), []

    def get_request(http: Any) -> Any:
        if refused:
            refused.pop()
            raise OSError(errno.EMFILE, "too many open files")
        return take_on(http)

    monkeypatch.setattr(metrics_server, "time", SimpleNamespace(sleep=pauses.append))
    monkeypatch.setattr(socketserver.TCPServer, "get_request", get_request)
    assert ask(server, "/live")[0] == 200
    assert pauses == [REFUSED_S] * 3


def test_a_process_whose_loop_hangs_does_not_live_and_says_which(server: MetricsServer):
    metrics, now_s = RoleMetrics(), [0.0]
    metrics.liveness = Liveness(lambda: now_s[0])
    loop = metrics.liveness.loop("label")
    server.attach(metrics.registry, str, metrics.liveness)
    assert metrics.liveness.turn_max_s == TURN_MAX_S, "of the server, which the configuration told"
    loop.turn()
    assert ask(server, "/live")[0] == 200
    now_s[0] = TURN_MAX_S + 1
    status, said, _ = ask(server, "/live")
    assert (status, json.loads(said)["process"]) == (503, "labeler-3")
    assert "loop label has not turned for 301 s" in json.loads(said)["why"]
    loop.turn()
    assert ask(server, "/live")[0] == 200
