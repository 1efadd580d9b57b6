"""The Open Inference Protocol by gRPC (shell): the same answers as by REST (`open_inference`)."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np

from checkpointer.config import ServingConfig
from checkpointer.serving.admission import RequestCost
from checkpointer.serving.inference_messages import MESSAGES, SERVICE
from checkpointer.serving.open_inference import (
    BYTES,
    OUTPUT,
    Tensor,
    given_of,
    metadata,
    outputs_of,
    server_metadata,
    told,
)
from checkpointer.serving.replica_client import Replica
from checkpointer.serving.request import BadRequest
from paramserver.wire import ServerTls
from stream import PortTaken
from stream.credentials import TokenFile

_log = logging.getLogger(__name__)
_THREADS = 4
_CONTENTS = {
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents",
    "UINT32": "uint_contents", "UINT64": "uint64_contents", "FP32": "fp32_contents",
    "FP64": "fp64_contents", BYTES: "bytes_contents",
}  # fmt: skip

Context = Any


class InferenceServer:
    """Serves `replica` from construction on, until `close`. At most `requests_max` calls wait."""

    def __init__(
        self,
        replica: Replica,
        config: ServingConfig,
        port: int,
        shares_port: bool = False,
    ) -> None:
        """`port` 0 = any free one. `shares_port`: with other processes of this user. PortTaken
        where somebody else has it."""
        self._replica, self._config = replica, config
        self._tokens = TokenFile.named(config.token_file, "serving.token_file")
        #: seconds of an answer by the bytes of the request
        self.cost, self._cost_lock = RequestCost(), threading.Lock()
        options = [
            ("grpc.max_receive_message_length", config.request_bytes_max),
            ("grpc.so_reuseport", int(shares_port)),
        ]
        self._server = grpc.server(
            ThreadPoolExecutor(_THREADS, thread_name_prefix="grpc"),
            options=options,
            maximum_concurrent_rpcs=config.requests_max,
        )
        calls = {
            "ServerLive": lambda *_: {"live": True},
            "ServerReady": lambda *_: {"ready": not replica.not_ready()},
            "ModelReady": lambda request, _: self._model_ready(request),
            "ServerMetadata": lambda *_: server_metadata(),
            "ModelMetadata": lambda request, _: self._model_metadata(request),
            "ModelInfer": self._infer,
        }
        handlers = {name: self._handler(name, call) for name, call in calls.items()}
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(SERVICE, handlers)]
        )
        at, tls = f"{config.host}:{port}", tls_of(config)
        try:
            self.port = (
                self._server.add_insecure_port(at)
                if tls is None
                else self._server.add_secure_port(at, tls.credentials())
            )
        except RuntimeError:
            raise PortTaken(
                f"gRPC cannot be served at {at}: does another process listen there? See "
                "serving.host, serving.grpc_port"
            ) from None
        self._server.start()

    def close(self) -> None:
        self._server.stop(self._config.request_timeout_s).wait()

    def _handler(self, name: str, call: Callable[[Any, Context], Any]) -> Any:
        asked, answer = MESSAGES[f"{name}Request"], MESSAGES[f"{name}Response"]

        def handled(request: Any, context: Context) -> Any:
            self._check_token(context)
            try:
                found = call(request, context)
                status = "200"
                return answer(**found) if isinstance(found, dict) else found
            except _NoGrpcModel as error:
                status = "404"
                context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            except BadRequest as error:
                status = "400"
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except Exception:
                status = "500"
                _log.exception("an answer to %s failed", name)
                context.abort(grpc.StatusCode.INTERNAL, "the replica failed; its log says why")
            finally:
                self._replica.metrics.requests.labels(path=f"grpc {name}", status=status).inc()

        return grpc.unary_unary_rpc_method_handler(
            handled, asked.FromString, lambda message: message.SerializeToString()
        )

    def _check_token(self, context: Context) -> None:
        if self._tokens is None:
            return
        sent = dict(context.invocation_metadata()).get("authorization", "")
        if not self._tokens.lets_in(str(sent).encode()):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "authorization: send the bearer token")

    def _check_model(self, name: str, version: str) -> None:
        served = self._replica.served
        there = served.version if served else ""
        if name != self._replica.follower.model:
            raise _NoGrpcModel(f"model {name!r}: served is {self._replica.follower.model!r}")
        if version and version != there:
            raise _NoGrpcModel(f"version {version!r}: served is {there!r}")

    def _model_ready(self, request: Any) -> dict[str, Any]:
        self._check_model(request.name, request.version)
        return {"ready": not self._replica.not_ready()}

    def _model_metadata(self, request: Any) -> dict[str, Any]:
        self._check_model(request.name, request.version)
        served = self._replica.served
        versions = [served.version] if served else []
        return metadata(request.name, versions, self._replica.features)

    def _infer(self, request: Any, context: Context) -> Any:
        self._check_model(request.model_name, request.model_version)
        served = self._replica.served
        features = self._replica.features if served is None else served.features
        asked = given_of(_tensors(request), features, self._config.request_rows_max)
        if self._is_late(request, context):
            answer = self._replica.fallback_given(asked)
        else:
            began_s = time.monotonic()
            answer = self._replica.predict_given(asked, served)
            with self._cost_lock:
                self.cost.measured(request.ByteSize(), time.monotonic() - began_s)
        probabilities = np.ascontiguousarray(answer["probabilities"], "<f4")
        (output,) = outputs_of()
        reply = MESSAGES["ModelInferResponse"](
            model_name=request.model_name, model_version=answer["model_version"], id=request.id
        )
        for name, value in told(answer).items():
            parameter = reply.parameters[name]
            field = {bool: "bool_param", float: "double_param"}.get(type(value), "string_param")
            setattr(parameter, field, value)
        reply.outputs.add(name=OUTPUT, datatype=output["datatype"], shape=[len(probabilities)])
        reply.raw_output_contents.append(probabilities.tobytes())
        return reply

    def _is_late(self, request: Any, context: Context) -> bool:
        """Whether the model's answer would come after the call's deadline, if it has one."""
        left_s = context.time_remaining()
        return left_s is not None and left_s < self.cost.seconds(request.ByteSize())


class _NoGrpcModel(LookupError):
    """Another model or version than is served."""


def _tensors(request: Any) -> list[Tensor]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadRequest(f"raw_input_contents: {len(raw)}, and {len(request.inputs)} inputs")
    found = []
    for number, tensor in enumerate(request.inputs):
        data: Any
        if raw:
            data = raw[number]
        else:
            field = _CONTENTS.get(tensor.datatype)
            data = list(getattr(tensor.contents, field)) if field else []
            if tensor.datatype == BYTES:
                data = [_text(tensor.name, value) for value in data]
        found.append(Tensor(tensor.name, tensor.datatype, tuple(tensor.shape), data))
    return found


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"input {name}: not UTF-8 ({error})") from error


def tls_of(config: ServingConfig) -> ServerTls | None:
    """None = no TLS is spoken, here and over HTTP. Raises ValueError, naming the settings, for what
    is no certificate."""
    if not config.tls_cert_file:
        return None
    settings = ("serving.tls_cert_file", "tls_key_file")
    return ServerTls(config.tls_cert_file, config.tls_key_file, settings=settings)
