"""What a connection may send: strict framing, limits before work, and an end for who is slow."""

import contextlib
import json
import random
import socket
import threading
import time
from itertools import pairwise

import pytest

from checkpointer.config import ServingConfig
from checkpointer.serving.admission import Allowance, RequestAdmission, RequestCost
from checkpointer.serving.http_connection import Response, refused_head
from checkpointer.serving.http_server import ReplicaServer, run
from checkpointer.serving.replica_client import Replica

BODY = b'{"rows": [{}]}'


def configured(**changes):
    return ServingConfig(
        **{"poll_ms": 1_000, "request_bytes_max": 2_000_000, "request_rows_max": 100} | changes
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    config = configured()
    with (
        Replica(str(tmp_path_factory.mktemp("empty")), "clicks", config) as replica,
        ReplicaServer(replica, config, 0) as made,
    ):
        yield made


def sent(server, data, wait_s=10.0):
    """All that comes back, until the connection is closed or nothing comes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=wait_s) as one:
        one.sendall(data)
        one.shutdown(socket.SHUT_WR)
        found = b""
        while some := one.recv(65_536):
            found += some
    return found


def request(head, body=b""):
    return (head.replace("\n", "\r\n") + "\r\n\r\n").encode() + body


def status_of(answer):
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(f"POST /predict HTTP/1.1\nHost: a\nContent-Length: {len(BODY)}", BODY), 200),
        (
            request("POST /predict HTTP/1.1\nHost: a\nTransfer-Encoding: chunked",
                    b"e\r\n" + BODY + b"\r\n0\r\n\r\n"),
            200,
        ),
        (
            request(
                f"POST /predict HTTP/1.1\nHost: a\nContent-Length: {len(BODY)}\n"
                "Transfer-Encoding: chunked", b"e\r\n" + BODY + b"\r\n0\r\n\r\n"
            ),
            400,
        ),
        (
            request("POST /predict HTTP/1.1\nHost: a\nContent-Length: 14\nContent-Length: 3", BODY),
            400,
        ),
        (request("POST /predict HTTP/1.1\nHost: a\nContent-Length: +14", BODY), 400),
        (request("POST /predict HTTP/1.1\nHost: a\nContent-Length: 2000001"), 413),
        (
            request("POST /predict HTTP/1.1\nHost: a\nTransfer-Encoding: chunked",
                    b"1e8481\r\n" + b" " * 2_000_001 + b"\r\n0\r\n\r\n"),
            413,
        ),
        (request("POST /predict HTTP/1.1\nHost: a"), 411),
        (request("GET /model HTTP/1.1\nHost: a\nContent-Length: 2", b"{}"), 400),
        (request("GET /model HTTP/1.1\nHost: a\nContent-Length: 0"), 200),
        (request("GET /model HTTP/1.1\nHost : a"), 400),
        (request("GET /model HTTP/1.1\nHost: a\nX: " + "y" * 70_000), 431),
        (request("HELLO"), 400),
        (request("PUT /predict HTTP/1.1\nHost: a\nContent-Length: 2", b"{}"), 405),
        (request("DELETE /predict HTTP/1.1\nHost: a"), 405),
        (request("GET /predict HTTP/1.1\nHost: a"), 405),
        (request("POST /model HTTP/1.1\nHost: a\nContent-Length: 2", b"{}"), 405),
        (request("OPTIONS /predict HTTP/1.1\nHost: a"), 204),
        (request("HEAD /livez HTTP/1.1\nHost: a"), 200),
        (request("HEAD /healthz HTTP/1.1\nHost: a"), 503),
        (request("GET /livez HTTP/1.1\nHost: a\nUpgrade: h2c\nConnection: Upgrade"), 200),
        (request("GET /livez HTTP/1.0"), 200),
    ],
)  # fmt: skip
def test_framing(server, data, status):
    answer = sent(server, data)
    assert status_of(answer) == status, answer
    assert answer.count(b"HTTP/1.1 ") == 1
    if data.startswith(b"HEAD"):
        assert answer.endswith(b"\r\n\r\n")
    if status == 405:
        assert b"\r\nAllow: " in answer


def test_requests_sent_together_are_answered_in_their_order(server):
    one = request(f"POST /predict HTTP/1.1\nHost: a\nContent-Length: {len(BODY)}", BODY)
    other = request("GET /livez HTTP/1.1\nHost: a")
    answer = sent(server, one + other + one + other)
    kinds = [b"probabilities" in part for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
    assert kinds == [True, False, True, False]


def test_curl_waits_to_be_told_to_go_on(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as one:
        head = f"POST /predict HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: {len(BODY)}"
        one.sendall(request(head))
        assert one.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        one.sendall(BODY)
        assert status_of(one.recv(65_536)) == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[" * 100_000, "not JSON"),
        (b'{"rows": [{"features": ' + b'{"a":' * 2_000 + b"1" + b"}" * 2_000 + b"}]}", "not JSON"),
        (b"[" * 1_900_000, "objects and lists"),
        (b'{"rows": [' + b"{}," * 600_000 + b"{}]}", "at most 100 rows"),
        (b'{"rows": [{"features": {' + b'"a":1,' * 300_000 + b'"b":1}}]}', "4096 fields"),
        (b'{"rows": [' + b"{}," * 100 + b"{}]}", "at most 100"),
    ],
)
def test_what_would_make_too_much_is_refused_before_it_is_made(server, body, words):
    head = f"POST /predict HTTP/1.1\nHost: a\nContent-Length: {len(body)}"
    answer = sent(server, request(head, body))
    assert status_of(answer) == 400
    assert words in json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]


@pytest.mark.long
def test_who_sends_slowly_is_closed_for_who_is_new_and_the_others_are_answered(tmp_path):
    config = configured(connections_max=8, request_timeout_s=1.0)
    with (
        Replica(str(tmp_path), "clicks", config) as replica,
        ReplicaServer(replica, config, 0) as server,
    ):
        slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(30)]
        for one in slow:
            one.sendall(b"POST /predict HTTP/1.1\r\n")
        time.sleep(0.6)
        one = request(f"POST /predict HTTP/1.1\nHost: a\nContent-Length: {len(BODY)}", BODY)
        assert status_of(sent(server, one)) == 200
        for other in slow:
            other.settimeout(20)
            with other, contextlib.suppress(ConnectionError):
                while other.recv(1_000):
                    pass


@pytest.mark.long
def test_who_does_not_read_is_not_read_either(tmp_path):
    """A client that sends and reads nothing fills its own buffers, and not the replica's memory."""
    config = configured(request_rows_max=100_000)
    body = b'{"rows": [' + b"{}," * 20_000 + b"{}]}"
    one = request(f"POST /predict HTTP/1.1\nHost: a\nContent-Length: {len(body)}", body)
    with (
        Replica(str(tmp_path), "clicks", config) as replica,
        ReplicaServer(replica, config, 0) as server,
        socket.create_connection(("127.0.0.1", server.port)) as greedy,
    ):
        greedy.settimeout(1.0)
        with pytest.raises(TimeoutError):
            greedy.sendall(one * 2_000)  # 120 MB of requests, 200 MB of answers
        assert status_of(sent(server, request("GET /livez HTTP/1.1\nHost: a"))) == 200
        answered = replica.metrics.records_out._value.get() / 20_001
        assert answered < 500


def test_what_is_being_answered_is_finished_at_the_end(tmp_path):
    config = configured()
    with Replica(str(tmp_path), "clicks", config) as replica:
        server = ReplicaServer(replica, config, 0)
        one = request(f"POST /predict HTTP/1.1\nHost: a\nContent-Length: {len(BODY)}", BODY)
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(one)
            assert status_of(connection.recv(65_536)) == 200
            closing = threading.Thread(target=server.close)
            closing.start()
            assert connection.recv(1) == b""
            closing.join(timeout=20)
            assert not closing.is_alive()


class Held:
    """An API whose answers wait, beside the loop, until they are let go."""

    def __init__(self):
        self.asked, self.go = threading.Event(), threading.Event()

    def is_prediction(self, request):
        return False

    def is_slow(self, request):
        return True

    def counted_as(self, request):
        return "/held"

    def answer(self, request):
        self.asked.set()
        assert self.go.wait(30)
        return Response(200, b"{}")


def test_an_answer_at_the_end_says_that_the_connection_closes(tmp_path):
    config, held = configured(), Held()
    with Replica(str(tmp_path), "clicks", config) as replica:
        server = ReplicaServer(replica, config, 0, held)
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(request("GET /held HTTP/1.1\nHost: a"))
            assert held.asked.wait(30)
            closing = threading.Thread(target=server.close)
            closing.start()
            while not server._ending:
                time.sleep(0.01)
            held.go.set()
            found = b""
            while some := connection.recv(65_536):
                found += some
            closing.join(timeout=30)
        assert status_of(found) == 200
        assert b"\r\nConnection: close\r\n" in found


def test_who_would_wait_too_long_is_not_let_in():
    admission: RequestAdmission[int] = RequestAdmission(
        waiting_max=100, wait_max_s=0.0105, cost=RequestCost(0.001)
    )
    assert [admission.admit(n, 0, 0.0) for n in range(14)] == [True] * 11 + [False] * 3
    assert admission.next(0.001) == (0, True)
    assert admission.admit(99, 0, 0.002)
    assert admission.retry_after_s() == 1
    assert admission.next(1.0) == (1, False)
    while admission.next(1.0) is not None:
        assert admission.wait_s >= 0
    assert admission.wait_s == 0
    admission.cost.base_s = 30.0
    assert admission.admit(1, 0, 1.0)  # nobody waits: whatever it costs
    assert admission.is_full
    assert admission.retry_after_s() == 30


def test_a_queue_that_stands_may_be_a_quarter_as_long_as_a_burst():
    admission: RequestAdmission[int] = RequestAdmission(
        waiting_max=100, wait_max_s=0.0405, cost=RequestCost(0.001)
    )

    def filled(now_s):
        while admission.admit(0, 0, now_s):
            pass
        return len(admission)

    assert filled(0.0) == 41
    for turn in range(1, 101):  # one is answered each millisecond, and as many as may come
        admission.next(turn / 1_000)
        assert filled(turn / 1_000) == 41
    for turn in range(101, 201):
        admission.next(turn / 1_000)
    assert filled(0.2) == 41  # it was empty
    for turn in range(201, 302):
        admission.next(turn / 1_000)
        admission.admit(0, 0, turn / 1_000)
    for turn in range(302, 400):
        admission.next(turn / 1_000)
        filled(turn / 1_000)
    assert len(admission) == 11


def test_where_the_machine_is_shared_fewer_may_wait():
    admission: RequestAdmission[int] = RequestAdmission(
        waiting_max=100, wait_max_s=0.0105, cost=RequestCost(0.001)
    )
    for _ in range(100):
        admission.progressed(wall_s=0.004, cpu_s=0.001)
    assert 3.9 < admission.pace <= 4.0
    assert sum(admission.admit(n, 0, 0.0) for n in range(14)) == 3
    for _ in range(100):
        admission.progressed(wall_s=0.001, cpu_s=0.001)
    assert admission.pace < 1.01


def test_what_a_request_costs_is_learned_by_its_length():
    cost = RequestCost()
    for n in range(400):
        nbytes = (400, 25_000, 100_000)[n % 3]
        cost.measured(nbytes, 0.0001 + 1e-8 * nbytes)
    assert cost.seconds(50_000) == pytest.approx(0.0006, rel=0.01)
    for _ in range(500):  # all of one length: the slope says nothing, the sum does
        cost.measured(25_000, 0.0002)
    assert cost.seconds(25_000) == pytest.approx(0.0002, rel=0.05)
    assert cost.seconds(0) >= 0


def test_an_allowance_is_a_share_of_the_time():
    allowance, took = Allowance(share=0.2, burst_s=0.01), 0.0
    for n in range(1_000):
        if allowance.may(n / 1_000):
            allowance.took(0.005)
            took += 0.005
    assert 0.2 <= took <= 0.2 + 0.015


def test_a_server_that_hangs_ends_its_process(tmp_path, monkeypatch):
    class Stop(threading.Event):
        looks = 0

        def wait(self, timeout=None):
            self.looks += 1
            return self.looks > 30

    monkeypatch.setattr(ReplicaServer, "turns_within", lambda self, seconds: False)
    with pytest.raises(RuntimeError, match="hangs"):
        run(Replica(str(tmp_path), "clicks"), configured(), Stop())
    stop = Stop()
    monkeypatch.setattr(ReplicaServer, "turns_within", lambda self, seconds: stop.looks % 3 > 0)
    run(Replica(str(tmp_path), "clicks"), configured(), stop)  # once or twice is a pause


def send_without_end(one):
    while True:
        one.sendall(b"100000\r\n" + b" " * 2**20 + b"\r\n")


def test_above_what_can_be_answered_the_head_alone_is_told_503(server):
    """The next request of the connection is read as ever; who waits to send a body is closed."""
    head = f"POST /predict HTTP/1.1\nHost: a\nContent-Length: {len(BODY)}"
    chunked = request("POST /predict HTTP/1.1\nHost: a\nTransfer-Encoding: chunked")
    wait_max_s, server.admission.wait_max_s = server.admission.wait_max_s, -1.0
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as one:
            one.sendall(request(head))
            assert status_of(one.recv(65_536)) == 503  # before the body came
            one.sendall(BODY + request("GET /livez HTTP/1.1\nHost: a"))
            assert status_of(one.recv(65_536)) == 200
            one.sendall(chunked + b"e\r\n" + BODY + b"\r\n0\r\n\r\n")
            assert b"\r\nRetry-After: 1\r\n" in one.recv(65_536)
            server.admission.wait_max_s = wait_max_s
            one.sendall(request(head, BODY))
            assert status_of(one.recv(65_536)) == 200
            server.admission.wait_max_s = -1.0
        for more, count in ((request(head + "\nExpect: 100-continue"), 1),
                            (request(head + "\nConnection: close", BODY), 1),
                            (request(head, BODY) * 3, 3)):  # fmt: skip
            answer = sent(server, more)
            assert answer.count(b"HTTP/1.1 503 ") == answer.count(b"HTTP/1.1 ") == count
            assert (b"\r\nConnection: close\r\n" in answer) == (
                b"Expect" in more or b"close" in more
            )
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as one:
            one.sendall(chunked)
            assert status_of(one.recv(65_536)) == 503
            with pytest.raises(ConnectionError):
                send_without_end(one)
        other = sent(server, request("POST /model HTTP/1.1\nHost: a\nContent-Length: 2", b"{}"))
        assert status_of(other) == 405  # no prediction
    finally:
        server.admission.wait_max_s = wait_max_s


def test_only_heads_that_differ_in_the_digits_of_their_length_are_alike():
    data = request("POST /predict HTTP/1.1\nHost: a\ncontent-LENGTH: 14\nX: 1", BODY)
    refused = refused_head(data, "/predict")
    assert refused is not None
    assert refused.length(data) == (len(data) - 14, 14)
    longer = data.replace(b": 14", b": 123456789")
    assert refused.length(longer) == (len(data) - 14 + 7, 123456789)
    for other in (
        data[:40],
        data.replace(b": 14", b": 1234567890"),
        data.replace(b": 14", b": "),
        data.replace(b": 14", b": +4"),
        data.replace(b": 14", b": 1 4"),
        data.replace(b": 14", b":  14"),
        data.replace(b"X: 1", b"X: 2"),
        data.replace(b"X: 1", b"X: 1\r\nContent-Length: 3"),
        data.replace(b"X: 1", b"X: 1\r\nTransfer-Encoding: chunked"),
        data.replace(b"/predict", b"/model"),
        data.replace(b"POST", b" POST"),
    ):
        assert refused.length(other) is None, other
    assert refused_head(data[:30], "/predict") is None
    assert refused_head(request("POST / HTTP/1.1\nTransfer-Encoding: chunked"), "/predict") is None
    inside = request("POST / HTTP/1.1\nX: a\r Content-Length: 3", b"\r\nContent-Length: 3\r\n")
    assert refused_head(inside, "/predict") is None


@pytest.mark.parametrize("seed", range(6))
def test_a_head_that_was_told_503_is_told_so_again_however_it_comes(server, seed):
    """And what comes behind it is framed as ever."""
    draw = random.Random(seed)
    parsed = server.replica.metrics.shed._value.get()
    wait_max_s, server.admission.wait_max_s = server.admission.wait_max_s, -1.0
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as one:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for n in range(12):
                body = b'{"rows": [{}]}' + b" " * draw.choice((0, 1, 200, 150_000))
                more = "\nX: other" * (n == 7)
                head = f"POST /predict HTTP/1.1\nHost: a\nContent-Length: {len(body)}{more}"
                data = request(head, body)
                cuts = sorted(draw.sample(range(1, len(data)), draw.choice((0, 0, 1, 2))))
                for first, end in pairwise((0, *cuts, len(data))):
                    one.sendall(data[first:end])
                assert status_of(one.recv(65_536)) == 503
            one.sendall(request(head, body) * 2 + request("GET /livez HTTP/1.1\nHost: a"))
            found = b""
            while found.count(b"HTTP/1.1 ") < 3:
                found += one.recv(65_536)
            assert found.count(b"HTTP/1.1 503 ") == 2
            assert found.count(b"HTTP/1.1 200 ") == 1
            server.admission.wait_max_s = wait_max_s
            one.sendall(request(head, body))
            assert status_of(one.recv(65_536)) == 200
            server.admission.wait_max_s = -1.0
            one.sendall(request(head, body)[:-3])
            assert status_of(one.recv(65_536)) == 503
            one.sendall(body[-3:] + b"no HTTP\r\n\r\n")
            assert status_of(one.recv(65_536)) == 400
    finally:
        server.admission.wait_max_s = wait_max_s
    assert server.replica.metrics.shed._value.get() == parsed + 15


def test_who_cannot_wait_gets_the_prior_and_is_told(server):
    head = f"POST /predict HTTP/1.1\nHost: a\nContent-Length: {len(BODY)}\nRequest-Timeout-Ms: "
    server.admission.cost.base_s = 0.05
    try:
        late = sent(server, request(head + "10", BODY))
        in_time = sent(server, request(head + "10000", BODY))
        wrong = sent(server, request(head.replace("14", "2") + "10", b"{]"))
    finally:
        server.admission.cost.base_s = 0.0005
    for answer, reason in ((late, "no time"), (in_time, "no model")):
        assert status_of(answer) == 200
        body = json.loads(answer.split(b"\r\n\r\n", 1)[1])
        assert (body["probabilities"], body["fallback"], body["reason"]) == ([0.5], True, reason)
    assert status_of(wrong) == 400
    assert sent(server, request(head + "-1", BODY)).startswith(b"HTTP/1.1 200")


def test_where_no_thread_can_be_had_it_does_not_begin(tmp_path, monkeypatch):
    """Else who asks for many rows is answered never, and its connection is held for good."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    config = configured()
    with Replica(str(tmp_path), "clicks", config) as replica:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="new thread"):
                ReplicaServer(replica, config, 0)
        with ReplicaServer(replica, config, 0) as server:
            assert status_of(sent(server, request("GET /livez HTTP/1.1\nHost: a"))) == 200
