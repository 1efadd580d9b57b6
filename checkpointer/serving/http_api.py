"""What a replica answers to each path: `POST /predict`, `GET /model`, `/livez`, `/healthz`,
`/readyz`, `/metrics` (shell). See docs/serving.md."""

import hmac
import logging
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from prometheus_client import generate_latest

from checkpointer.serving.http_connection import HttpRequest, Response
from checkpointer.serving.replica_client import Replica
from checkpointer.serving.request import BadRequest

_log = logging.getLogger(__name__)
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_OPEN = frozenset({"/livez", "/healthz", "/readyz"})  # probes carry no token
_READ = "GET, HEAD, OPTIONS"
_ASK = "POST, OPTIONS"

Route = Callable[[HttpRequest], Response]


class Api:
    """Routes of one replica. `predictions`: paths whose answers wait for their turn."""

    def __init__(self, replica: Replica, token: str = "") -> None:
        self._replica, self._token = replica, token.encode()
        self._reads: Mapping[str, Route] = {
            "/model": lambda _: _json(200, replica.describe()),
            "/livez": self._live,
            "/healthz": self._health,
            "/readyz": self._ready,
            "/metrics": lambda _: Response(200, generate_latest(replica.metrics.registry), _TEXT),
        }
        self._asks: Mapping[str, Route] = {"/predict": self._predict}

    def is_prediction(self, request: HttpRequest) -> bool:
        return request.method == b"POST" and request.path in self._asks

    def is_slow(self, request: HttpRequest) -> bool:
        """Whether it would keep others waiting."""
        return request.path == "/metrics"

    def counted_as(self, path: str) -> str:
        """The path by which answers are counted."""
        return path if path in self._reads or path in self._asks else "other"

    def answer(self, request: HttpRequest) -> Response:
        """Never raises."""
        refusal = self._may(request)
        if refusal is not None:
            return refusal
        route = (self._asks if request.method == b"POST" else self._reads)[request.path]
        try:
            return route(request)
        except BadRequest as error:
            return refused(400, str(error))
        except Exception:
            _log.exception("an answer to %s failed", request.path)
            return refused(500, "the replica failed to answer; its log says why")

    def _may(self, request: HttpRequest) -> Response | None:
        """Why it is not answered, None if it is."""
        path, method = request.path, request.method
        if path not in self._reads and path not in self._asks:
            known = ", ".join(sorted({*self._reads, *self._asks}))
            return refused(404, f"path {path}: known are {known}")
        allowed = ", ".join(
            way for way, at in ((_READ, self._reads), (_ASK, self._asks)) if path in at
        )
        if method == b"OPTIONS":
            return Response(204, b"", headers=(("Allow", allowed),))
        if path not in (self._asks if method == b"POST" else self._reads) or method not in (
            b"POST",
            b"GET",
            b"HEAD",
        ):
            said = refused(405, f"{method.decode('latin-1')} {path}: allowed are {allowed}")
            return said._replace(headers=(("Allow", allowed),))
        if self._token and path not in _OPEN:
            sent = request.headers.get(b"authorization", b"")
            if not hmac.compare_digest(sent, b"Bearer " + self._token):
                said = refused(401, "Authorization: send 'Bearer ' and the token of token_file")
                return said._replace(headers=(("WWW-Authenticate", "Bearer"),))
        return None

    def _predict(self, request: HttpRequest) -> Response:
        return _json(200, self._replica.predict(request.body))

    def _live(self, _: HttpRequest) -> Response:
        return _json(200, {"status": "ok"})

    def _health(self, _: HttpRequest) -> Response:
        """Whether it has a model."""
        body = self._state()
        return _json(503 if body["fallback"] else 200, body)

    def _ready(self, _: HttpRequest) -> Response:
        """Whether requests should come here."""
        why = self._replica.not_ready()
        return _json(503 if why else 200, self._state() | {"ready": not why, "why": why})

    def _state(self) -> dict[str, Any]:
        served, following = self._replica.served, self._replica.following
        return {
            "status": "following fails" if following.fault else "ok",
            "fallback": served is None,
            "model_version": served.version if served else "",
            "fault": following.fault,
            "failing_s": round(following.failing_s, 1),
        }


def refused(status: int, error: str) -> Response:
    return _json(status, {"error": error})


def _json(status: int, body: Mapping[str, Any]) -> Response:
    return Response(status, orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))
