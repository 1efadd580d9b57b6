"""The HTTP server of a replica: who is let in, and whose turn it is (shell). See docs/serving.md.

One thread runs an event loop (libuv, by uvloop), and answers in it: what one request takes is some
hundred microseconds, and no two threads fight for the interpreter. Between two predictions the loop
looks at its connections, so one that comes when too many wait is told so at once. Requests of many
rows, and `/metrics`, are answered by a second thread.
"""

import asyncio
import logging
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import uvloop
from prometheus_client import Counter

from checkpointer.config import ServingConfig
from checkpointer.serving.admission import Allowance, RequestAdmission
from checkpointer.serving.grpc_service import InferenceServer, tls_of
from checkpointer.serving.http_api import Api, refused
from checkpointer.serving.http_connection import (
    HttpConnection,
    HttpRequest,
    Limits,
    Response,
    encoded,
)
from checkpointer.serving.replica_client import Replica
from stream import PortTaken, start_metrics
from stream.credentials import TokenFile

_log = logging.getLogger(__name__)

#: Of the files that a process may open, those that are not for connections: libraries, log, store.
_FILES_KEPT = 96
_CONNECTIONS_MIN = 8
_BACKLOG = 1_024
#: Connections that are late are looked for so often.
_SWEEP_S = 0.25
#: A connection may be closed for a new one once it has been sending one request for so long.
_SLOW_S = 0.5
#: Predictions are answered for so long before the loop looks at its connections again; and, where
#: that takes it longer, for so many times as long as it took: who is told 503 takes no more than a
#: tenth from who is answered. But for so long at most: a 503 comes soon too.
_TURN_S, _TURN_SHARE, _TURN_S_MAX = 0.001, 9.0, 0.015
#: The least while one more would wait too long: who comes then is told 503, and of those who are
#: told so together each costs less.
_TURN_FULL_S = 0.008
#: Answers without the model, to requests that cannot wait, take at most this share of the thread,
#: and so much of it at once, s.
_FALLBACK_SHARE, _FALLBACK_S = 0.2, 0.01
#: Bodies above this are answered beside the loop.
_LARGE_BYTES = 262_144
#: CPU time of those that wait there, s; further ones are told 503.
_BESIDE_S_MAX = 2.0
_CLOSE_S = 5.0
#: A loop that has not gone round for so long hangs, where further looks say so too: after a pause
#: of the whole process it goes on between two looks.
_HUNG_S, _SILENT_LOOKS = 60.0, 3

Asked = tuple[HttpConnection, HttpRequest]
_SHED = refused(503, "more is asked than can be answered in time; come again")


class ReplicaServer:
    """Serves `replica` from construction on; `close` (or `with`) ends it, after what is being
    answered. Implements `http_connection.Server`."""

    def __init__(
        self,
        replica: Replica,
        config: ServingConfig,
        port: int,
        api: Api | None = None,
        shares_port: bool = False,
    ) -> None:
        """`api`: another one than the replica's. `shares_port`: with other processes of this user,
        each with its own queue (SO_REUSEPORT). OSError where the address is taken."""
        self.replica, self.config = replica, config
        self.limits = Limits(
            config.request_bytes_max, config.request_timeout_s, config.keep_alive_s
        )
        self.admission: RequestAdmission[Asked] = RequestAdmission(
            config.requests_max, config.queue_ms_max / 1_000
        )
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = config.connections_max if files == resource.RLIM_INFINITY else files - _FILES_KEPT
        self.connections_max = max(_CONNECTIONS_MIN, min(config.connections_max, room))
        self._api = api or Api(replica, TokenFile.named(config.token_file, "serving.token_file"))
        self._connections: set[HttpConnection] = set()
        self._counters: dict[tuple[str, int], Counter] = {}
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="large requests")
        self._beside.submit(int)  # starts its thread: where none can be had, not later either
        self._besides, self._besides_s = 0, 0.0
        self._turn_due = self._ending = False
        self._turn_ended_s, self._were_left = 0.0, False
        self._fallbacks = Allowance(_FALLBACK_SHARE, _FALLBACK_S)
        #: the 503 as bytes, for a connection that goes on and one that does not, and what it says
        self._shed_bytes: tuple[bytes, bytes] = (b"", b"")
        self._shed_says: tuple[int, int] = (0, 0)
        self._looked_s = time.monotonic()
        self._socket = bound(config.host, port, shares_port)
        self._socket.listen(_BACKLOG)
        tls = tls_of(config)
        self._tls = None if tls is None else tls.context
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def turns_within(self, seconds: float) -> bool:
        """Whether its thread has gone round that lately."""
        return time.monotonic() - self._looked_s < seconds

    def close(self) -> None:
        """Take no more connections, finish what was asked, and end."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end)
            self._thread.join(self.config.request_timeout_s + _CLOSE_S)
        self._beside.shutdown(wait=False, cancel_futures=True)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    # --- what connections ask -------------------------------------------------------------------

    def opened(self, connection: HttpConnection) -> bool:
        if len(self._connections) >= self.connections_max and not self._make_room():
            self.replica.metrics.turned_away.inc()
            return False
        self._connections.add(connection)
        self.replica.metrics.connections.set(len(self._connections))
        return True

    def closed(self, connection: HttpConnection) -> None:
        self._connections.discard(connection)
        self.replica.metrics.connections.set(len(self._connections))

    @property
    def is_full(self) -> bool:
        return self.admission.is_full

    def shed(self, head: HttpRequest, keep_alive: bool) -> bytes | None:
        if self._ending or not self._api.is_prediction(head):
            return None
        if self._api.has_fallback(head) and self._fallbacks.may(time.monotonic()):
            return None
        return self._shed_as(self._api.counted_as(head), keep_alive)

    def refuses_as(self, head: HttpRequest) -> str:
        return "" if self._api.has_fallback(head) else self._api.counted_as(head)

    def shed_again(self, counted_as: str) -> bytes:
        return self._shed_as(counted_as, not self._ending)

    def _shed_as(self, counted_as: str, keep_alive: bool) -> bytes:
        self._count(counted_as, 503)
        self.replica.metrics.shed.inc()
        says = (self.admission.retry_after_s(), int(time.time()))
        if says != self._shed_says:
            said = self._shed_response()
            self._shed_says = says
            self._shed_bytes = (encoded(said, False), encoded(said, True))
        return self._shed_bytes[keep_alive]

    def whole(self, connection: HttpConnection, request: HttpRequest) -> None:
        nbytes = len(request.body)
        if not self._api.is_prediction(request):
            if self._api.is_slow(request):
                self._answer_beside(connection, request)
            else:
                self._answer(connection, request, self._api.answer(request))
        elif self.admission.answered_in_s(nbytes) > self._api.within_s(request):
            self._fall_back(connection, request)
        elif self.admission.admit((connection, request), nbytes, request.arrived_s):
            self._take_turns()
        else:
            self._shed(connection, request)

    def refused(self, status: int, why: str) -> Response:
        self._count("other", status)
        return refused(status, why)

    # --- answers --------------------------------------------------------------------------------

    def _take_turns(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Answer some of those who wait, then let the loop look at its connections."""
        self._turn_due = False
        began_s = now_s = time.monotonic()
        looked_s = began_s - self._turn_ended_s if self._were_left else 0.0
        least_s = _TURN_FULL_S if self.admission.is_full else _TURN_S
        end_s = began_s + min(max(least_s, _TURN_SHARE * looked_s), _TURN_S_MAX)
        cpu_s = began_cpu_s = time.thread_time()
        while now_s < end_s and (turn := self.admission.next(now_s)) is not None:
            (connection, request), in_time = turn
            is_measured = self._take(connection, request, in_time, now_s)
            before_s, cpu_s = cpu_s, time.thread_time()
            if is_measured:
                self.admission.cost.measured(len(request.body), cpu_s - before_s)
            now_s = time.monotonic()
        self.admission.progressed(now_s - began_s + looked_s, cpu_s - began_cpu_s)
        self._turn_ended_s, self._were_left = now_s, len(self.admission) > 0
        if self._were_left:
            self._take_turns()
        elif self._ending:
            self._end()

    def _take(
        self, connection: HttpConnection, request: HttpRequest, in_time: bool, now_s: float
    ) -> bool:
        """Whose turn it is. Returns whether the model has answered."""
        if connection.is_closing:
            return False
        if not in_time:
            self._shed(connection, request)
        elif now_s - request.arrived_s > self._api.within_s(request):
            self._fall_back(connection, request)
        elif len(request.body) > _LARGE_BYTES:
            self._answer_beside(connection, request)
        else:
            response = self._api.answer(request)
            self.replica.metrics.seconds.observe(time.monotonic() - request.arrived_s)
            self._answer(connection, request, response)
            return True
        return False

    def _fall_back(self, connection: HttpConnection, request: HttpRequest) -> None:
        """Answer without the model, while that takes little."""
        began_s = time.monotonic()
        if not self._fallbacks.may(began_s):
            self._shed(connection, request)
            return
        cpu_s = time.thread_time()
        self._answer(connection, request, self._api.fallback(request))
        self._fallbacks.took(time.thread_time() - cpu_s)

    def _answer_beside(self, connection: HttpConnection, request: HttpRequest) -> None:
        takes_s = self.admission.cost.seconds(len(request.body))
        if self._besides >= self.config.requests_max or self._besides_s > _BESIDE_S_MAX:
            self._shed(connection, request)
            return
        self._besides += 1
        self._besides_s += takes_s

        def done(response: Response) -> None:
            self._besides -= 1
            self._besides_s = self._besides_s - takes_s if self._besides else 0.0
            self.replica.metrics.seconds.observe(time.monotonic() - request.arrived_s)
            self._answer(connection, request, response)
            if self._ending:
                self._end()

        def work() -> None:
            response = self._api.answer(request)
            self._loop.call_soon_threadsafe(done, response)

        self._beside.submit(work)

    def _shed(self, connection: HttpConnection, request: HttpRequest) -> None:
        self.replica.metrics.shed.inc()
        self._answer(connection, request, self._shed_response())

    def _shed_response(self) -> Response:
        after = str(self.admission.retry_after_s())
        return _SHED._replace(headers=(("Retry-After", after),))

    def _answer(self, connection: HttpConnection, request: HttpRequest, response: Response) -> None:
        self._count(self._api.counted_as(request), response.status)
        if self._ending:
            connection.end_soon()  # with this answer, which says so
        connection.answer(response, head_only=request.method == b"HEAD")

    def _count(self, path: str, status: int) -> None:
        counter = self._counters.get((path, status))
        if counter is None:
            labels = {"path": path, "status": str(status)}
            counter = self._counters[path, status] = self.replica.metrics.requests.labels(**labels)
        counter.inc()

    # --- life -----------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
            self._loop.call_later(_SWEEP_S, self._sweep)
            self._loop.run_forever()
        finally:
            for connection in list(self._connections):
                connection.end()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    async def _listen(self) -> None:
        self._server = await self._loop.create_server(
            lambda: HttpConnection(self), sock=self._socket, ssl=self._tls, backlog=_BACKLOG
        )

    def _sweep(self) -> None:
        """End connections that are late, and tell how many wait."""
        self._loop.call_later(_SWEEP_S, self._sweep)  # first: whatever comes of this one
        now_s = self._looked_s = time.monotonic()
        late = [connection for connection in self._connections if connection.is_late(now_s)]
        for connection in late:
            connection.end()
        self.replica.metrics.late.inc(len(late))
        self.replica.metrics.waiting.set(len(self.admission))

    def _make_room(self) -> bool:
        """Close the connection that has been sending its request the longest, if long enough; else
        the one that has been idle the longest."""
        now_s = time.monotonic()
        silent = [c for c in self._connections if not c.is_answering]
        slow = [c for c in silent if (not c.is_idle or c.is_new) and now_s - c.since_s > _SLOW_S]
        found = min(slow or [c for c in silent if c.is_idle], key=lambda c: c.since_s, default=None)
        if found is None:
            return False
        found.end()
        self._connections.discard(found)
        self.replica.metrics.turned_away.inc()
        return True

    def _end(self) -> None:
        if not self._ending:
            self._ending = True
            self._server.close()
            self._loop.call_later(self.config.request_timeout_s, self._loop.stop)
        for connection in list(self._connections):
            connection.end_soon()
        if not len(self.admission) and not self._besides:
            self._loop.call_later(0.05, self._loop.stop)  # what is written is sent


def run(
    replica: Replica,
    config: ServingConfig,
    stop: threading.Event,
    *,
    run_dir: str = "",
    index: int = 0,
) -> None:
    """Serve what `replica` holds until `stop` is set; then finish what is being answered, and
    close it."""
    port = config.port + index if config.port else 0
    with replica, ReplicaServer(replica, config, port) as server:
        rpc = None
        if config.grpc_port:
            rpc = InferenceServer(replica, config, config.grpc_port + index)
        if run_dir:
            start_metrics(run_dir, "replica", index, replica.metrics, http_port=server.port)
        _log.info("replica of %s at %s", replica.follower.model, url_of(config, server.port))
        try:
            silent = 0
            while not stop.wait(1.0):
                if not server.is_alive:
                    raise RuntimeError("the thread that answers requests has ended")
                silent = 0 if server.turns_within(_HUNG_S) else silent + 1
                if silent > _SILENT_LOOKS:
                    raise RuntimeError(f"the thread that answers requests hangs for {_HUNG_S:g} s")
        finally:
            if rpc is not None:
                rpc.close()


def url_of(config: ServingConfig, port: int) -> str:
    """Of a server, as people write it."""
    scheme, host = "https" if config.tls_cert_file else "http", config.host.strip("[]")
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def bound(host: str, port: int, shares_port: bool = False) -> socket.socket:
    """A socket at this address; `shares_port` as of `ReplicaServer`. PortTaken where somebody else
    has it, or the host is none of this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shares_port:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        made.bind((host.strip("[]"), port))
    except OSError as error:
        made.close()
        raise PortTaken(
            f"requests cannot be answered at {host}:{port}: {error.strerror}; does another process "
            "listen there? See serving.host, serving.port"
        ) from None
    return made
