"""A shard, and the clocks where they are held, as gRPC services; pulls and pushes over lanes too.

No handler waits for another caller (K4): pulls and pushes over gRPC beyond `data_threads` are told
to come again, and a lane has a thread of its own, so the threads for control calls are never taken
by data. The shard has one lock, the clocks have another, and both are held only while the core
runs; decoding and encoding happen outside.
"""

import hmac
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from paramserver.config import ParamServerConfig
from paramserver.messages import Epoch, Keys
from paramserver.ports import AllowReply, Refused
from paramserver.server.clock_service import ClockService, number
from paramserver.server.metrics import Metrics
from paramserver.server.part_writer import PartWriter
from paramserver.shard.shard import Shard
from paramserver.slots import SlotMap
from paramserver.wire import codec, frames, payload
from paramserver.wire import wire_pb2 as wire
from paramserver.wire.data_socket import LaneServer, refusal
from paramserver.wire.frames import Body, Buffer
from paramserver.wire.key_cache import KeyLists
from paramserver.wire.payload import Lists, Payload, UnknownKeys
from paramserver.wire.staging import StageFull, StageIncomplete, Staging

log = logging.getLogger(__name__)

#: method -> the message of its header. Their requests and answers are frames.
DATA: dict[str, Any] = {
    "Pull": wire.PullRequest,
    "Stage": wire.StageRequest,
    "Push": wire.PushRequest,
}
METHOD_NAMES = {code: method for method, code in frames.METHODS.items()}
#: Calls accepted at once, handled or not yet; gRPC turns further ones away.
CALLS_MAX = 1_024
Status = grpc.StatusCode


class TooLarge(Exception):
    """A pull whose answer would not fit a message: the caller asks for fewer keys at a time."""


class ShardService:
    """`everspun.Shard` over a shard core."""

    def __init__(self, shard: Shard, config: ParamServerConfig, metrics: Metrics) -> None:
        self.shard, self.config, self.metrics = shard, config, metrics
        self.lock = threading.Lock()  # the one writer of the core (S1)
        self.staging = Staging(config.staged_bytes_max)
        self.lanes: LaneServer | None = None
        self._key_lists, self._lists_lock = KeyLists(config.key_lists_bytes_max), threading.Lock()
        self._lists = Lists(self._find_keys, self._keep_keys)
        self.parts = PartWriter(shard, self.lock, metrics)
        #: is told of a newer incarnation of this shard than this one: its folder was lost, or
        #: another process took over
        self.behind: Callable[[int], None] = lambda incarnation: None
        #: is told of the epoch of every map heard of; whoever runs the service takes it from the
        #: head (S6)
        self.newer_map: Callable[[int], None] = lambda epoch: None
        #: reads ahead for a map to come, up to the cut of a manifest; "" = that is held
        self.map_to_come: Callable[[SlotMap, str], str] = lambda slot_map, manifest: (
            "it takes no other map"
        )

    def begin(self, message: wire.BeginRequest) -> wire.ProgressReply:
        spec, vector, dense = codec.decode_begin(message)
        with self.lock:
            return codec.encode_progress_reply(self.shard.begin(spec, vector, dense))

    def progress(self, message: wire.ModelRequest) -> wire.ProgressReply:
        with self.lock:
            reply = self.shard.progress(message.model)
        return codec.encode_progress_reply(reply)

    def lane(self, message: wire.ModelRequest) -> wire.LaneReply:
        if self.lanes is None:
            return wire.LaneReply()
        return wire.LaneReply(address=self.lanes.address, token=self.lanes.token)

    def pull(self, message: wire.PullRequest, body: Body) -> Payload:
        began = time.perf_counter()
        request, encoding = payload.decode_pull(message, body, self._lists)
        with self.lock:
            reply = self.shard.pull(request, encoding)
        answer = payload.encode_pull_reply(reply, encoding)
        if answer.nbytes > self.config.message_bytes_max:
            raise TooLarge(
                f"the answer has {answer.nbytes} bytes, a message at most "
                f"{self.config.message_bytes_max}"
            )
        self.metrics.pulled(reply, body.nbytes + answer.nbytes, time.perf_counter() - began)
        return answer

    def stage(self, message: wire.StageRequest, body: Body) -> Payload:
        tables = payload.decode_stage(message, body, self._lists)
        with self.lock:
            self.staging.add(
                message.model, codec.decode_epoch(message.epoch), message.push, message.part, tables
            )
            self.metrics.staged_bytes.set(self.staging.nbytes)
        return Payload(number(1), [], [])

    def push(self, message: wire.PushRequest, body: Body) -> Payload:
        began = time.perf_counter()
        request = payload.decode_push(message, body, self._lists)
        refusal = ""
        with self.lock:
            if message.staged:
                request, refusal = self.staging.complete(request, message.push, message.staged)
            reply = self.shard.push(request, refusal)
        self.metrics.pushed(request, reply, body.nbytes, time.perf_counter() - began)
        return payload.encode_push_reply(reply)

    def _find_keys(self, digest: bytes) -> Keys | None:
        with self._lists_lock:
            found = self._key_lists.get(digest)
        self.metrics.key_lists.labels("unknown" if found is None else "known").inc()
        return found

    def _keep_keys(self, digest: bytes, keys: Keys) -> None:
        with self._lists_lock:
            self._key_lists.keep(digest, keys)
        self.metrics.key_lists.labels("sent").inc()

    def mark(self, message: wire.CutRequest) -> wire.MarkReply:
        with self.lock:
            reply = self.shard.mark(message.model, message.cut, dict(message.vector))
        return codec.encode_mark_reply(reply)

    def unmark(self, message: wire.CutRequest) -> wire.Number:
        with self.lock:
            self.shard.unmark(message.model, message.cut)
        return number(1)

    def write_part(self, message: wire.CutRequest) -> wire.PartInfo:
        parent = message.sha256 if message.HasField("sha256") else None
        with self.lock:
            writing = self.parts.begin(message.model, message.cut, message.url, parent)
        return codec.encode_part_info(writing.result(self.config.write_timeout_ms / 1_000))

    def settle(self, message: wire.CutRequest) -> wire.Number:
        with self.lock:
            self.shard.settle(message.model, message.cut, message.sha256)
            self.parts.forget()
        return number(1)

    def allow(self, message: wire.AllowRequest) -> wire.AllowReply:
        epochs = [codec.decode_epoch(epoch) for epoch in message.epochs]
        incarnation = message.incarnation if message.HasField("incarnation") else None
        map_epoch = message.map_epoch if message.HasField("map_epoch") else None
        answer = self.allow_here(
            message.era, message.sequence, epochs, incarnation, dict(message.ways), map_epoch
        )
        return wire.AllowReply(incarnation=answer.incarnation, map_epoch=answer.map_epoch)

    def allow_here(
        self,
        era: int,
        sequence: int,
        epochs: list[Epoch],
        incarnation: int | None,
        ways: Mapping[str, str] | None = None,
        map_epoch: int | None = None,
    ) -> AllowReply:
        """`ShardPort.allow`, for a clock holder in this very process too."""
        if map_epoch is not None:
            self.newer_map(map_epoch)
        if incarnation is not None and incarnation > self.shard.incarnation:
            self.behind(incarnation)
        with self.lock:
            own = AllowReply(self.shard.incarnation, self.shard.slot_map.epoch)
            if own == (incarnation or own.incarnation, map_epoch or own.map_epoch):
                self.shard.allow(era, sequence, epochs, ways)
                self.staging.keep(epochs)
            return own

    def remap(self, message: wire.Number) -> wire.Number:
        self.newer_map(message.value)
        with self.lock:
            return number(self.shard.slot_map.epoch)

    def prepare(self, message: wire.PrepareRequest) -> wire.PrepareReply:
        return wire.PrepareReply(waits=self.map_to_come(*codec.decode_prepare(message)))

    def replace(self, shard: Shard) -> None:
        """Another incarnation of the shard serves from now on (S6)."""
        with self.lock:
            self.shard = shard
            self.parts.take(shard)
            self.staging.keep([])
        self.metrics.incarnation.set(shard.incarnation)

    def close(self) -> None:
        self.parts.close()


class Server:
    """One listening gRPC server for a shard, and for the clocks if this process holds them; and
    the shard's lanes."""

    def __init__(self, shard: ShardService, clock: ClockService | None, address: str) -> None:
        config, self._metrics, self._shard = shard.config, shard.metrics, shard
        self._data_room = threading.BoundedSemaphore(config.data_threads)
        self._token = Path(config.token_file).read_text().strip() if config.token_file else ""
        self._server = grpc.server(
            ThreadPoolExecutor(config.data_threads + config.control_threads, "rpc"),
            options=config.channel_options(),
            maximum_concurrent_rpcs=CALLS_MAX,
        )
        services = {"everspun.Shard": shard} | ({} if clock is None else {"everspun.Clock": clock})
        for name, service in services.items():
            handlers = {
                method: self._handler(service, method, types)
                for method, types in codec.METHODS[name].items()
            }
            if service is shard:
                handlers |= {method: self._frame_handler(method) for method in DATA}
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(name, handlers),)
            )
        try:
            if config.cert:
                pair = (Path(config.key).read_bytes(), Path(config.cert).read_bytes())
                bound = self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
            else:
                bound = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise RuntimeError(
                f"shard {shard.shard.index} cannot listen at {address}: {error}"
            ) from error
        if address.startswith("unix:"):
            path = Path(address.removeprefix("unix:").replace("%25", "%"))  # as gRPC names it
            path.chmod(0o700)  # whatever the umask: a call needs no token here
        self.address = (
            address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{bound}"
        )
        if config.lanes and not config.cert:
            shard.lanes = LaneServer(
                self._perform_frame,
                lane_address(self.address),
                config.data_timeout_ms,
                config.body_bytes_max,
            )
        self._lanes = shard.lanes

    def start(self) -> None:
        if self._lanes is not None:
            self._lanes.start()
        self._server.start()

    def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those under way end within `grace_s`."""
        stopped = self._server.stop(grace_s)
        if self._lanes is not None:
            self._lanes.stop(grace_s)
        stopped.wait()

    def _handler(
        self, service: object, method: str, types: tuple[Any, Any]
    ) -> grpc.RpcMethodHandler:
        call = getattr(service, snake_case(method))

        def handle(message: Any, context: grpc.ServicerContext) -> Any:
            self._check_token(context)
            try:
                return call(message)
            except Exception as error:
                return context.abort(*self._failure(method, error))

        request, reply = types
        return grpc.unary_unary_rpc_method_handler(
            handle, request.FromString, reply.SerializeToString
        )

    def _frame_handler(self, method: str) -> grpc.RpcMethodHandler:
        """Pulls and pushes as gRPC messages: where there is no lane."""

        def handle(data: bytes, context: grpc.ServicerContext) -> bytes:
            self._check_token(context)
            if not self._data_room.acquire(blocking=False):
                self._metrics.turned_away.labels(method).inc()
                context.abort(Status.RESOURCE_EXHAUSTED, "all data threads are taken")
            try:
                _, header, body = frames.unpack(data, self._shard.config.body_bytes_max)
                return b"".join(self._frame(method, header, body))
            except Exception as error:
                return bytes(context.abort(*self._failure(method, error)))  # abort raises
            finally:
                self._data_room.release()

        return grpc.unary_unary_rpc_method_handler(handle, None, None)

    def _perform_frame(self, code: int, header: bytes, body: Buffer) -> list[memoryview]:
        """The answer to a lane's frame."""
        method = METHOD_NAMES.get(code, f"method {code}")
        try:
            return self._frame(method, header, body)
        except Exception as error:
            return refusal(*self._failure(method, error))

    def _frame(self, method: str, header: bytes, body: Buffer) -> list[memoryview]:
        if method not in DATA:
            raise ValueError(f"{method} is none of {', '.join(DATA)}")
        try:
            message = DATA[method].FromString(header)
        except DecodeError as error:
            raise ValueError(f"the header of {method} is not its message: {error}") from error
        answer: Payload = getattr(self._shard, snake_case(method))(message, Body(body))
        return frames.pieces(frames.OK, answer.header.SerializeToString(), answer.arrays)

    def _failure(self, method: str, error: Exception) -> tuple[grpc.StatusCode, str]:
        """The status and the words for an error. Whatever it is, nothing was changed."""
        text = str(error)
        if isinstance(error, Refused):
            return Status.FAILED_PRECONDITION, text
        if isinstance(error, UnknownKeys):
            return Status.NOT_FOUND, text
        if isinstance(error, TooLarge):
            return Status.OUT_OF_RANGE, text
        if isinstance(error, StageIncomplete):
            return Status.ABORTED, text
        if isinstance(error, StageFull | MemoryError | TimeoutError):  # come again
            self._metrics.turned_away.labels(method).inc()
            return Status.RESOURCE_EXHAUSTED, f"{type(error).__name__}: {text}"
        if isinstance(error, ValueError):
            return Status.INVALID_ARGUMENT, text
        if isinstance(error, OSError):  # a store that is full or away is no fault of the handler's
            log.warning("%s: %s", method, text)
            return Status.INTERNAL, f"{type(error).__name__}: {text}"
        log.error("%s failed", method, exc_info=error)
        self._metrics.faults.inc()
        return Status.INTERNAL, f"{type(error).__name__}: {text}"

    def _check_token(self, context: grpc.ServicerContext) -> None:
        if self._token and not self._authorized(context):
            context.abort(
                Status.UNAUTHENTICATED,
                "bearer token missing or wrong: name the shards' token_file, or their run folder",
            )

    def _authorized(self, context: grpc.ServicerContext) -> bool:
        given = dict(context.invocation_metadata()).get("authorization", "")
        return hmac.compare_digest(str(given), f"Bearer {self._token}")


def lane_address(address: str) -> str:
    """Where the lanes of a shard are that listens at `address`: a socket beside its own, or a
    port that is free."""
    if address.startswith("unix:"):
        return f"{address.removesuffix('.sock')}.lane"
    return f"tcp:{address.rpartition(':')[0]}:0"


def snake_case(method: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in method).lstrip("_")
