"""The HTTP server of a replica: `POST /predict`, `GET /model`, `/healthz`, `/readyz`, `/metrics`
(shell). See docs/serving.md."""

import errno
import json
import logging
import resource
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import generate_latest

from checkpointer.config import ServingConfig
from checkpointer.serving.replica_client import Replica
from checkpointer.serving.request import BadRequest, parse
from stream.columns.events import Features
from stream.log.log import Log
from stream.metrics import start_metrics

_log = logging.getLogger(__name__)
_JSON = "application/json"


#: Of the files that a process may open, those that are not for connections: libraries, log, store,
#: metrics.
_FILES_KEPT = 96
_CONNECTIONS_MIN = 8
#: Pause when no file can be opened any more; without it the loop would turn as fast as it can.
_FULL_PAUSE_S = 0.05
_TURNED_AWAY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class ReplicaServer(ThreadingHTTPServer):
    """A thread a connection, at most `connections_max` of them, and no more than there are files to
    open; further ones are told 503 and closed. At most `requests_max` predictions at once, the
    others are told 503 at once. A request that is not whole within `request_timeout_s` of its
    connection, or of the answer before it, ends its connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, replica: Replica, config: ServingConfig, port: int) -> None:
        self.replica, self.config = replica, config
        self.slots = threading.BoundedSemaphore(config.requests_max)
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = config.connections_max if files == resource.RLIM_INFINITY else files - _FILES_KEPT
        self.connections_max = max(_CONNECTIONS_MIN, min(config.connections_max, room))
        self.unread: dict[
            socket.socket, float
        ] = {}  # connection -> since when its request is not whole, monotonic s
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        handler = type("TimedHandler", (Handler,), {"timeout": config.request_timeout_s})
        if ":" in config.host:
            self.address_family = socket.AF_INET6
        super().__init__((config.host.strip("[]"), port), handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self.replica.metrics.turned_away.inc()
                time.sleep(_FULL_PAUSE_S)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self._lock:
            if len(self._open) < self.connections_max:
                self._open.add(request)
                self.unread[request] = time.monotonic()
                self.replica.metrics.connections.set(len(self._open))
                return True
        self.replica.metrics.turned_away.inc()
        request.settimeout(0)
        with suppress(OSError):
            request.send(_TURNED_AWAY)
        return False

    def close_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
            self.unread.pop(request, None)
            self.replica.metrics.connections.set(len(self._open))
        super().close_request(request)

    def read_until(self, request: socket.socket, whole: bool) -> None:
        """Its request has been read, or the next one is waited for."""
        with self._lock:
            if whole:
                self.unread.pop(request, None)
            elif request in self._open:
                self.unread[request] = time.monotonic()

    def service_actions(self) -> None:
        """Ends connections that send too slowly. Their threads then find the end of what they
        read."""
        before = time.monotonic() - self.config.request_timeout_s
        with self._lock:
            late = [connection for connection, since in self.unread.items() if since < before]
        for connection in late:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Handler(BaseHTTPRequestHandler):
    server: ReplicaServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # header and body in one segment: with two, a delayed acknowledgement costs 40 ms

    def handle_one_request(self) -> None:
        self.server.read_until(self.connection, whole=False)
        super().handle_one_request()

    def do_GET(self) -> None:
        self.server.read_until(self.connection, whole=True)
        replica, path = self.server.replica, self.path.split("?")[0]
        if path == "/model":
            self._answer(200, replica.describe())
        elif path in ("/healthz", "/readyz"):
            self._health(ready=path == "/readyz")
        elif path == "/metrics":
            self._send(
                200,
                generate_latest(replica.metrics.registry),
                "text/plain; version=0.0.4; charset=utf-8",
            )
        else:
            self._refuse(
                404,
                f"path {path}: known are GET /model, /healthz, /readyz, /metrics and POST /predict",
            )

    def _health(self, ready: bool) -> None:
        """Whether the process lives (and should not be started again), or whether requests
        should come here."""
        replica, served, following = (
            self.server.replica,
            self.server.replica.served,
            self.server.replica.following,
        )
        body = {
            "status": "following fails" if following.fault else "ok",
            "fallback": served is None,
            "model_version": served.version if served else "",
            "fault": following.fault,
            "failing_s": round(following.failing_s, 1),
        }
        why = replica.not_ready() if ready else ""
        self._answer(503 if why else 200, body | ({"ready": not why, "why": why} if ready else {}))

    def do_POST(self) -> None:
        if self.path.split("?")[0] != "/predict":
            self.close_connection = True  # its body stays unread
            self._refuse(404, f"path {self.path}: only /predict takes a POST")
            return
        body = self._body()
        if body is None:
            return
        if not self.server.slots.acquire(blocking=False):
            self._refuse(
                503, f"{self.server.config.requests_max} requests are being answered; try again"
            )
            return
        metrics = self.server.replica.metrics
        metrics.in_flight.inc()
        try:
            self._predict(body)
        except OSError:
            self.close_connection = True  # the caller went away
        except Exception:
            _log.exception("a prediction failed")
            self._refuse(500, "the replica failed to answer; its log says why")
        finally:
            metrics.in_flight.dec()
            self.server.slots.release()

    def _predict(self, body: bytes) -> None:
        began = time.perf_counter()
        replica = self.server.replica
        served = replica.served  # this one answers, whatever is swapped meanwhile (I6)
        features = replica.features if served is None else served.features
        try:
            request = parse(body, features, self.server.config.request_rows_max)
        except BadRequest as error:
            self._refuse(400, str(error))
            return
        self._answer(200, replica.answer(request, served))
        replica.metrics.seconds.observe(time.perf_counter() - began)

    def _body(self) -> bytes | None:
        """The request's body, or None after having answered why not."""
        length, limit = self.headers.get("Content-Length", ""), self.server.config.request_bytes_max
        if not length.isdigit():
            self.close_connection = True
            self._refuse(411, "Content-Length: missing; send it with the body's length in bytes")
            return None
        if int(length) > limit:
            self.close_connection = True
            self._refuse(413, f"body: {length} bytes; send at most {limit} in one request")
            return None
        body = self.rfile.read(int(length))
        self.server.read_until(self.connection, whole=True)
        if len(body) < int(length):
            self.close_connection = True
            return None
        return body

    def _refuse(self, status: int, error: str) -> None:
        self._answer(status, {"error": error})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self._send(status, json.dumps(body).encode(), _JSON)

    def _send(self, status: int, data: bytes, kind: str) -> None:
        path = self.path.split("?")[0]
        known = (
            path if path in ("/predict", "/model", "/healthz", "/readyz", "/metrics") else "other"
        )
        self.server.replica.metrics.requests.labels(path=known, status=str(status)).inc()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)


def run(
    config: ServingConfig,
    root: str,
    model: str,
    stop: threading.Event,
    *,
    fallback: float = 0.5,
    features: Features = (),
    log: Log | None = None,
    topic: str = "checkpoints",
    run_dir: str = "",
    index: int = 0,
) -> None:
    """Serve `model` from the store at `root` until `stop` is set; then finish what is being
    answered."""
    replica = Replica(
        root,
        model,
        config,
        fallback=fallback,
        features=features,
        log=log if config.follow_topic else None,
        topic=topic,
    )
    with (
        replica,
        ReplicaServer(replica, config, config.port + index if config.port else 0) as server,
    ):
        thread = threading.Thread(
            target=server.serve_forever, args=(0.1,), name="http", daemon=True
        )
        thread.start()
        if run_dir:
            start_metrics(run_dir, "replica", index, replica.metrics, http_port=server.port)
        _log.info(
            "replica of %s at http://%s:%d",
            model,
            config.host if ":" not in config.host else f"[{config.host}]",
            server.port,
        )
        stop.wait()
        server.shutdown()
        _drain(server, config)


def _drain(server: ReplicaServer, config: ServingConfig) -> None:
    """Take every slot, which is free once its request has been answered; give up after the
    request timeout."""
    end = time.monotonic() + config.request_timeout_s
    for _ in range(config.requests_max):
        if not server.slots.acquire(timeout=max(0.0, end - time.monotonic())):
            _log.warning("stopping with requests unanswered after %g s", config.request_timeout_s)
            return
