"""What a replica answers to each path (shell): our own, the Open Inference Protocol below `/v2`,
TensorFlow Serving's below `/v1`. See docs/serving.md."""

import logging
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson
from prometheus_client import generate_latest

from checkpointer.serving import arrow_request, open_inference, tensorflow_serving
from checkpointer.serving.http_connection import HttpRequest, Response
from checkpointer.serving.replica_client import Replica
from checkpointer.serving.request import BadRequest, Given
from stream.columns import Features
from stream.credentials import TokenFile

_log = logging.getLogger(__name__)
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
#: How many ms the client waits for its answer.
WITHIN = b"request-timeout-ms"
_BYTES = "application/octet-stream"
#: Probes carry no token.
_OPEN = frozenset({"/livez", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
_V2 = re.compile(
    r"/v2/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?(?P<what>/infer|/ready)?"
)
_V1 = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(/versions/(?P<version>[^/:]+)|/labels/(?P<label>[^/:]+))?"
    r"(?P<what>:predict)?"
)
_PARTS = ("name", "version", "label", "what")

Route = Callable[[HttpRequest], Response]
#: Reads a request for the features that are served; the most rows that it may have.
Asked = Callable[[Features, int], Given]


class FoundRoute(NamedTuple):
    """What stands at a path."""

    counted_as: str  # the path by which answers are counted
    read: Route | None = None  # GET
    ask: Route | None = None  # POST, a prediction
    fallback: Route | None = None  # the same where the model's answer would come too late

    @property
    def allowed(self) -> str:
        """The methods that it takes, as the header `Allow` says them."""
        ways = ["GET, HEAD"] * (self.read is not None) + ["POST"] * (self.ask is not None)
        return ", ".join((*ways, "OPTIONS"))

    def takes(self, method: bytes) -> bool:
        """Whether a request of this method is answered by a route."""
        if method == b"POST":
            return self.ask is not None
        return method in (b"GET", b"HEAD") and self.read is not None


class Api:
    """Routes of one replica."""

    def __init__(
        self,
        replica: Replica,
        tokens: TokenFile | None = None,
        metrics: Callable[[], bytes] | None = None,
    ) -> None:
        """`tokens`: of which requests must show one; None = none. `metrics`: what `/metrics` says;
        None = what this process does."""
        self._replica, self._tokens = replica, tokens
        said = metrics or (lambda: generate_latest(replica.metrics.registry))
        reads: dict[str, Route] = {
            "/model": lambda _: _json(200, replica.describe()),
            "/livez": self._live,
            "/healthz": self._health,
            "/readyz": self._ready,
            "/metrics": lambda _: Response(200, said(), _TEXT),
            "/v2": self._v2_server,
            "/v2/health/live": self._live,
            "/v2/health/ready": self._ready,
        }
        self._found = {path: FoundRoute(path, route) for path, route in reads.items()}
        self._found["/predict"] = FoundRoute(
            "/predict", None, self._predict, lambda r: self._predict(r, in_time=False)
        )

    def find(self, request: HttpRequest) -> FoundRoute | None:
        found = self._found.get(request.path)
        return found if found is not None else self._find_model(unquote(request.path))

    def is_prediction(self, request: HttpRequest) -> bool:
        """Whether its answer waits for its turn."""
        found = self.find(request) if request.method == b"POST" else None
        return found is not None and found.ask is not None

    def is_slow(self, request: HttpRequest) -> bool:
        """Whether it would keep others waiting."""
        return request.path == "/metrics"

    def counted_as(self, request: HttpRequest) -> str:
        found = self.find(request)
        return found.counted_as if found is not None else "other"

    def within_s(self, request: HttpRequest) -> float:
        """How long the client waits for the answer, s: what its header says in ms."""
        said = request.headers.get(WITHIN)
        if said is None:
            return math.inf
        return int(said) / 1_000 if said.isdigit() and len(said) < 10 else math.inf

    def has_fallback(self, request: HttpRequest) -> bool:
        """Whether it may be answered without the model: it says how long it waits."""
        return self.is_prediction(request) and self.within_s(request) < math.inf

    def fallback(self, request: HttpRequest) -> Response:
        """The answer to a prediction where the model's would come too late. Never raises."""
        return self._answer(request, lambda found: found.fallback)

    def answer(self, request: HttpRequest) -> Response:
        """Never raises."""
        is_post = request.method == b"POST"
        return self._answer(request, lambda found: found.ask if is_post else found.read)

    def _answer(self, request: HttpRequest, way: Callable[[FoundRoute], Route | None]) -> Response:
        try:
            found = self.find(request)
            if found is None:
                known = ", ".join(sorted(self._found))
                return refused(404, f"path {request.path}: known are {known} and models below /v1")
            refusal = self._may(request, found)
            if refusal is not None:
                return refusal
            route = way(found)
            assert route is not None
            return route(request)
        except BadRequest as error:
            return refused(400, str(error))
        except _NoModel as error:
            return refused(404, str(error))
        except Exception:
            _log.exception("an answer to %s failed", request.path)
            return refused(500, "the replica failed to answer; its log says why")

    def _may(self, request: HttpRequest, found: FoundRoute) -> Response | None:
        """Why it is not answered, None if it is."""
        method = request.method
        if not found.takes(method):
            allowed = found.allowed
            if method == b"OPTIONS":
                return Response(204, b"", headers=(("Allow", allowed),))
            said = refused(405, f"{method.decode('latin-1')} {request.path}: allowed are {allowed}")
            return said._replace(headers=(("Allow", allowed),))
        sent = request.headers.get(b"authorization", b"")
        if self._tokens and found.counted_as not in _OPEN and not self._tokens.lets_in(sent):
            said = refused(401, "Authorization: send 'Bearer ' and the token of token_file")
            return said._replace(headers=(("WWW-Authenticate", "Bearer"),))
        return None

    # --- models of other APIs -------------------------------------------------------------------

    def _find_model(self, path: str) -> FoundRoute | None:
        parts = _V2.fullmatch(path) or _V1.fullmatch(path)
        if parts is None:
            return None
        name, version, label, what = (parts.groupdict().get(k) for k in _PARTS)
        served = self._replica.served
        there = served.version if served else ""
        numbers = {there, str(served.manifest.number)} if served else set()

        def checked(route: Route) -> Route:
            def answer(request: HttpRequest) -> Response:
                if name != self._replica.follower.model:
                    raise _NoModel(f"model {name!r}: served is {self._replica.follower.model!r}")
                if version is not None and version not in numbers:
                    raise _NoModel(f"version {version!r}: served is {there!r}")
                if label is not None and label not in tensorflow_serving.LABELS:
                    known = ", ".join(tensorflow_serving.LABELS)
                    raise _NoModel(f"label {label!r}: known are {known}")
                return route(request)

            return answer

        if parts.re is _V2:
            if what == "/infer":
                late = checked(lambda r: self._v2_infer(r, in_time=False))
                return FoundRoute("/v2/infer", None, checked(self._v2_infer), late)
            return FoundRoute("/v2/model", checked(self._ready if what else self._v2_model))
        if what == ":predict":
            late = checked(lambda r: self._v1_predict(r, in_time=False))
            return FoundRoute("/v1/predict", None, checked(self._v1_predict), late)
        return FoundRoute("/v1/model", checked(self._v1_model))

    def _v2_server(self, _: HttpRequest) -> Response:
        return _json(200, open_inference.server_metadata())

    def _v2_model(self, _: HttpRequest) -> Response:
        served = self._replica.served
        versions = [served.version] if served else []
        model = self._replica.follower.model
        return _json(200, open_inference.metadata(model, versions, self._replica.features))

    def _v2_infer(self, request: HttpRequest, in_time: bool = True) -> Response:
        head_length = request.headers.get(b"inference-header-content-length", b"").decode("latin-1")
        infer = open_inference.read_infer(request.body, head_length)
        answer = self._answered(
            lambda features, rows_max: open_inference.given_of(infer.tensors, features, rows_max),
            in_time,
        )
        body, size = open_inference.write_infer(self._replica.follower.model, infer, answer)
        if not size:
            return Response(200, body)
        return Response(200, body, _BYTES, ((open_inference.HEAD_LENGTH, str(size)),))

    def _v1_model(self, _: HttpRequest) -> Response:
        served = self._replica.served
        return _json(200, tensorflow_serving.status(str(served.manifest.number) if served else ""))

    def _v1_predict(self, request: HttpRequest, in_time: bool = True) -> Response:
        name = ""

        def asked(features: Features, rows_max: int) -> Given:
            nonlocal name
            given, name = tensorflow_serving.read_predict(request.body, features, rows_max)
            return given

        answer = self._answered(asked, in_time)
        return _json(200, {name: answer.pop("probabilities"), **answer})

    def _answered(self, asked: Asked, in_time: bool) -> dict[str, Any]:
        """By what is served when it begins (I6), or without the model."""
        replica = self._replica
        served = replica.served
        features = replica.features if served is None else served.features
        given = asked(features, replica.config.request_rows_max)
        return replica.predict_given(given, served) if in_time else replica.fallback_given(given)

    # --- our own --------------------------------------------------------------------------------

    def _predict(self, request: HttpRequest, in_time: bool = True) -> Response:
        replica = self._replica
        if arrow_request.MEDIA_TYPE.encode() not in request.headers.get(b"content-type", b""):
            answer = (replica.predict if in_time else replica.fallback)(request.body)
            return _json(200, answer)
        bytes_max = replica.config.request_bytes_max
        answer = self._answered(
            lambda features, rows: arrow_request.read_table(
                request.body, features, rows, bytes_max
            ),
            in_time,
        )
        return Response(200, arrow_request.write_table(answer), arrow_request.MEDIA_TYPE)

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


class _NoModel(LookupError):
    """Another model or version than is served."""


def refused(status: int, error: str) -> Response:
    return _json(status, {"error": error})


def _json(status: int, body: Mapping[str, Any]) -> Response:
    return Response(status, orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))
