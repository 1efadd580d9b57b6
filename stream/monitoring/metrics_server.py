"""The HTTP server of a process for those who watch it: `/metrics`, `/live`, `/ready` (shell).

`/live` answers 200 as soon as the process runs, also while it restores a model, and 503 with a
reason once a loop of its role hangs (`liveness`); a thread that fails ends its process. `/ready`
answers 503 with a reason until the role has begun its work.
"""

import errno
import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from stream.monitoring.liveness import TURN_MAX_S, Liveness

logger = logging.getLogger(__name__)

#: Headers of every answer: `<role>-<index>`, and a name that no other start of a process has.
PROCESS, INSTANCE = "X-Everspun-Process", "X-Everspun-Instance"
#: A caller that says nothing for so long is hung up on, s.
SILENT_S = 10.0
#: Callers answered at once; further ones are hung up on, and come again.
CALLERS_MAX = 32
#: The pause after a caller that cannot be taken on, s.
REFUSED_S = 0.1
BEGINNING = "the role has not begun its work"


class PortTaken(OSError):
    """The configured port is in use; the message names it and what to do."""


class MetricsServer:
    """Answers from a thread of its own, from the moment it is made until `close`."""

    def __init__(self, host: str, port: int, process: str, turn_max_s: float = TURN_MAX_S) -> None:
        """`turn_max_s`: of the role's loops (`Liveness`). Raises PortTaken, and OSError for a host
        that is none of this machine's."""
        self.process, self.instance = process, secrets.token_hex(8)
        self.registry: CollectorRegistry | None = None
        self.not_ready: Callable[[], str] = lambda: BEGINNING
        self.hangs: Callable[[], str] = str
        self._turn_max_s = turn_max_s
        host = host.strip("[]")
        try:
            self._http = _Http((host, port), self)
        except OSError as error:
            held = "; is another process of this role running here?"
            raise PortTaken(
                f"{process}: metrics cannot be served at {host}:{port}: {error.strerror}"
                f"{held if error.errno == errno.EADDRINUSE else ''}; see run.metrics_host, "
                "metrics_port"
            ) from None
        self.port = int(self._http.server_address[1])
        self.host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        threading.Thread(
            target=self._http.serve_forever, args=(0.1,), name="metrics", daemon=True
        ).start()

    def attach(
        self,
        registry: CollectorRegistry,
        not_ready: Callable[[], str],
        liveness: Liveness | None = None,
    ) -> None:
        """The role has begun: these are its series, this says why it is not ready ("" = it is),
        and these are its loops."""
        if liveness is not None:
            liveness.turn_max_s = self._turn_max_s
            self.hangs = lambda: liveness.hang
        self.registry, self.not_ready = registry, not_ready

    def place(self) -> dict[str, Any]:
        """What a role file says of it: its port, and the host that this machine asks, unless that
        is 127.0.0.1."""
        elsewhere = {} if self.host == "127.0.0.1" else {"metrics_host": self.host}
        return {"metrics_port": self.port} | elsewhere

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], owner: MetricsServer) -> None:
        self.owner, self._room = owner, threading.BoundedSemaphore(CALLERS_MAX)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def get_request(self) -> Any:
        """A caller that cannot be taken on, for want of file descriptors, stays first in line: it
        is not looked at again at once."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(REFUSED_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread can be started now
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a caller from %s was not answered", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    timeout = SILENT_S
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        owner, path = self.server.owner, self.path.partition("?")[0]
        if path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            registry = owner.registry
            self._answer(200, b"" if registry is None else encode(registry), kind)
        elif path == "/live":
            why = owner.hangs()
            self._say(503 if why else 200, {"process": owner.process, "why": why})
        elif path == "/ready":
            why = owner.not_ready()
            self._say(503 if why else 200, {"process": owner.process, "why": why})
        else:
            self._say(404, {"why": f"path {path[:100]}: known are /metrics, /live and /ready"})

    def _say(self, status: int, said: dict[str, str]) -> None:
        self._answer(status, json.dumps(said).encode() + b"\n", "application/json")

    def _answer(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header(PROCESS, self.server.owner.process)
        self.send_header(INSTANCE, self.server.owner.instance)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        logger.debug(format, *args)


_own: MetricsServer | None = None


def listen(host: str, port: int, process: str, turn_max_s: float = TURN_MAX_S) -> MetricsServer:
    """Begin to answer for this process, before its role has begun; `serve` attaches to it."""
    global _own
    _own = MetricsServer(host, port, process, turn_max_s)
    return _own


def serve(
    registry: CollectorRegistry,
    process: str,
    not_ready: Callable[[], str] = str,
    liveness: Liveness | None = None,
) -> MetricsServer:
    """Answer with these series: at where this process listens already, else at a free port of
    loopback."""
    server = _own
    if server is None or server.process != process:
        server = MetricsServer("127.0.0.1", 0, process)
    server.attach(registry, not_ready, liveness)
    return server
