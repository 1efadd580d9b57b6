"""The HTTP server of a replica: `POST /predict`, `GET /model`, `/healthz`, `/metrics` (shell). See docs/serving.md."""

import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import generate_latest

from checkpointer.client import Replica
from checkpointer.config import ServingConfig
from checkpointer.request import BadRequest, parse
from stream.events import Features
from stream.log import Log
from stream.metrics import start_metrics

_log = logging.getLogger(__name__)
_JSON = "application/json"


class ReplicaServer(ThreadingHTTPServer):
    """A thread a connection; at most `requests_max` predictions at once, the others are told 503 at once."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, replica: Replica, config: ServingConfig, port: int) -> None:
        self.replica, self.config = replica, config
        self.slots = threading.BoundedSemaphore(config.requests_max)
        handler = type("TimedHandler", (Handler,), {"timeout": config.request_timeout_s})
        super().__init__((config.host, port), handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Handler(BaseHTTPRequestHandler):
    server: ReplicaServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # header and body in one segment: with two, a delayed acknowledgement costs 40 ms

    def do_GET(self) -> None:
        replica, path = self.server.replica, self.path.split("?")[0]
        if path == "/model":
            self._answer(200, replica.describe())
        elif path == "/healthz":
            served = replica.served
            self._answer(
                200, {"status": "ok", "fallback": served is None, "model_version": served.version if served else ""}
            )
        elif path == "/metrics":
            self._send(200, generate_latest(replica.metrics.registry), "text/plain; version=0.0.4; charset=utf-8")
        else:
            self._refuse(404, f"path {path}: known are GET /model, /healthz, /metrics and POST /predict")

    def do_POST(self) -> None:
        if self.path.split("?")[0] != "/predict":
            self.close_connection = True  # its body stays unread
            self._refuse(404, f"path {self.path}: only /predict takes a POST")
            return
        body = self._body()
        if body is None:
            return
        if not self.server.slots.acquire(blocking=False):
            self._refuse(503, f"{self.server.config.requests_max} requests are being answered; try again")
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
        known = path if path in ("/predict", "/model", "/healthz", "/metrics") else "other"
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
    """Serve `model` from the store at `root` until `stop` is set; then finish what is being answered."""
    replica = Replica(
        root, model, config, fallback=fallback, features=features, log=log if config.follow_topic else None, topic=topic
    )
    with replica, ReplicaServer(replica, config, config.port + index if config.port else 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="http", daemon=True)
        thread.start()
        if run_dir:
            start_metrics(run_dir, "replica", index, replica.metrics, http_port=server.port)
        _log.info("replica of %s at http://%s:%d", model, config.host, server.port)
        stop.wait()
        server.shutdown()
        _drain(server, config)


def _drain(server: ReplicaServer, config: ServingConfig) -> None:
    """Take every slot, which is free once its request has been answered; give up after the request timeout."""
    end = time.monotonic() + config.request_timeout_s
    for _ in range(config.requests_max):
        if not server.slots.acquire(timeout=max(0.0, end - time.monotonic())):
            _log.warning("stopping with requests unanswered after %g s", config.request_timeout_s)
            return
