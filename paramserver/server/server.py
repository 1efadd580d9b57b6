"""A shard, and the clocks where they are held, as gRPC services; pulls and pushes over data
channels too.

No handler waits for another caller (K4): pulls and pushes over gRPC beyond `data_threads` are told
to come again, and a data channel has a thread of its own, so the threads for control calls are
never taken by data. The shard has one lock, the clocks have another, and both are held only while
the core runs; decoding and encoding happen outside.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from paramserver.config import ParamServerConfig
from paramserver.messages import Epoch, Keys
from paramserver.ports import (
    AllowReply,
    AllowRequest,
    DataChannelReply,
    DataChannelRequest,
    PortRefused,
    PrepareRequest,
    RemapRequest,
    SettleRequest,
    ShardRequest,
    WritePartRequest,
)
from paramserver.server.clock_service import ClockService
from paramserver.server.metrics import Metrics
from paramserver.server.part_writer import PartWriter
from paramserver.shard import Shard
from paramserver.slots import SlotMap
from paramserver.wire import (
    Body,
    Buffer,
    DataChannelServer,
    KeyLists,
    Lists,
    Payload,
    ServerTls,
    StageFull,
    StageIncomplete,
    Staging,
    UnknownKeys,
    codec,
    frames,
    payload,
    refusal,
)
from paramserver.wire import wire_pb2 as wire
from stream.credentials import TokenFile
from stream.monitoring import PortTaken

log = logging.getLogger(__name__)

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
        self.channels: DataChannelServer | None = None
        self._key_lists, self._lists_lock = KeyLists(config.key_lists_bytes_max), threading.Lock()
        self._lists = Lists(self._find_keys, self._keep_keys)
        self.parts = PartWriter(
            shard, self.lock, metrics, config.serving_bits, config.write_timeout_ms
        )
        #: is told of a newer incarnation of this shard than this one: its folder was lost, or
        #: another process took over
        self.behind: Callable[[int], None] = lambda incarnation: None
        #: is told of the epoch of every map heard of; whoever runs the service takes it from the
        #: head (S6)
        self.newer_map: Callable[[int], None] = lambda epoch: None
        #: takes up the head, where this shard holds nothing and is told that there is one (X2)
        self.restore: Callable[[], None] = lambda: None
        #: reads ahead for a map to come, up to the cut of a manifest; "" = that is held
        self.map_to_come: Callable[[SlotMap, str], str] = lambda slot_map, manifest: (
            "it takes no other map"
        )

    def perform(self, request: ShardRequest) -> object:
        """What is answered to any call but pulls and pushes: here what the core cannot do alone."""
        match request:
            case AllowRequest():
                return self.allow(request)
            case RemapRequest(epoch):
                self.newer_map(epoch)
                if epoch == self.shard.slot_map.epoch and not self.shard.models:
                    self.restore()
                return self.shard.slot_map.epoch
            case PrepareRequest(slot_map, manifest_sha256):
                return self.map_to_come(slot_map, manifest_sha256)
            case WritePartRequest(model, cut, url, parent):
                with self.lock:
                    writing = self.parts.begin(model, cut, url, parent)
                return writing.result(self.config.write_timeout_ms / 1_000)
            case DataChannelRequest() if self.channels is not None:
                return DataChannelReply(self.channels.address, self.channels.token)
            case DataChannelRequest():
                return DataChannelReply()
            case SettleRequest():
                with self.lock:
                    self.shard.perform(request)
                    self.parts.forget()
                return None
            case _:
                with self.lock:
                    return self.shard.perform(request)

    def perform_frame(self, method: str, header: bytes, body: Body) -> Payload:
        """The answer to a pull, a push or a part of one."""
        match method:
            case "Pull":
                return self.pull(wire.PullRequest.FromString(header), body)
            case "Stage":
                return self.stage(wire.StageRequest.FromString(header), body)
            case "Push":
                return self.push(wire.PushRequest.FromString(header), body)
            case _:
                raise ValueError(f"{method} is none of {', '.join(frames.METHODS)}")

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
                message.model,
                Epoch(message.epoch.era, message.epoch.n),
                message.push,
                message.part,
                tables,
            )
            self.metrics.staged_bytes.set(self.staging.nbytes)
        return Payload(wire.Done(), [], [])

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

    def allow(self, request: AllowRequest) -> AllowReply:
        """`ShardPort.allow`, for a clock holder in this very process too."""
        if request.map_epoch is not None:
            self.newer_map(request.map_epoch)
        if request.incarnation is not None and request.incarnation > self.shard.incarnation:
            self.behind(request.incarnation)
        with self.lock:
            answer = self.shard.allow(request)
            if self.shard.era is not None:
                self.staging.keep(self.shard.allowed.epochs)
        return answer

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
    the shard's data channels."""

    def __init__(self, shard: ShardService, clock: ClockService | None, address: str) -> None:
        config, self._metrics, self._shard = shard.config, shard.metrics, shard
        self._data_room = threading.BoundedSemaphore(config.data_threads)
        self._tokens = TokenFile.named(config.token_file, "paramserver.token_file")
        tls = None
        if config.cert:
            client_ca = config.ca if config.client_certificates else ""
            tls = ServerTls(config.cert, config.key, client_ca)
        self._server = grpc.server(
            ThreadPoolExecutor(config.data_threads + config.control_threads, "rpc"),
            options=config.channel_options(),
            maximum_concurrent_rpcs=CALLS_MAX,
        )
        performs: dict[str, Callable[[Any], object]] = {"everspun.Shard": shard.perform}
        if clock is not None:
            performs["everspun.Clock"] = clock.perform
        for service, perform in performs.items():
            handlers = {
                name: self._handler(perform, name, method)
                for name, method in codec.METHODS[service].items()
            }
            if service == "everspun.Shard":
                handlers |= {name: self._frame_handler(name) for name in frames.METHODS}
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, handlers),)
            )
        try:
            if tls is not None:
                bound = self._server.add_secure_port(address, tls.credentials())
            else:
                bound = self._server.add_insecure_port(address)
        except RuntimeError:
            raise PortTaken(
                f"shard {shard.shard.index} cannot listen at {address}: does another process "
                "listen there? See paramserver.host, port"
            ) from None
        if address.startswith("unix:"):
            path = Path(address.removeprefix("unix:").replace("%25", "%"))  # as gRPC names it
            path.chmod(0o700)  # whatever the umask: a call needs no token here
        self.address = (
            address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{bound}"
        )
        index = shard.shard.index
        if config.lanes:
            shard.channels = DataChannelServer(
                self._perform_frame,
                channel_address(self.address, config.lane_port and config.lane_port + index),
                config.data_timeout_ms,
                config.body_bytes_max,
                None if tls is None else tls.wrap,
            )
        self._channels = shard.channels

    def start(self) -> None:
        if self._channels is not None:
            self._channels.start()
        self._server.start()

    def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those under way end within `grace_s`."""
        stopped = self._server.stop(grace_s)
        if self._channels is not None:
            self._channels.stop(grace_s)
        stopped.wait()

    def _handler(
        self, perform: Callable[[Any], object], name: str, method: codec.Method
    ) -> grpc.RpcMethodHandler:
        def handle(message: Any, context: grpc.ServicerContext) -> Any:
            self._check_token(context)
            try:
                return method.encode_reply(perform(method.decode_request(message)))
            except Exception as error:
                return context.abort(*self._failure(name, error))

        return grpc.unary_unary_rpc_method_handler(
            handle, method.request_message.FromString, method.reply_message.SerializeToString
        )

    def _frame_handler(self, method: str) -> grpc.RpcMethodHandler:
        """Pulls and pushes as gRPC messages: where there is no data channel."""

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
        """The answer to a data channel's frame."""
        method = METHOD_NAMES.get(code, f"method {code}")
        try:
            return self._frame(method, header, body)
        except Exception as error:
            return refusal(*self._failure(method, error))

    def _frame(self, method: str, header: bytes, body: Buffer) -> list[memoryview]:
        try:
            answer = self._shard.perform_frame(method, header, Body(body))
        except DecodeError as error:
            raise ValueError(f"the header of {method} is not its message: {error}") from error
        return frames.pieces(frames.OK, answer.header.SerializeToString(), answer.arrays)

    def _failure(self, method: str, error: Exception) -> tuple[grpc.StatusCode, str]:
        """The status and the words for an error. Whatever it is, nothing was changed."""
        text = str(error)
        if isinstance(error, PortRefused):
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
        if self._tokens is None:
            return
        given = str(dict(context.invocation_metadata()).get("authorization", ""))
        if not self._tokens.lets_in(given.encode()):
            context.abort(
                Status.UNAUTHENTICATED,
                "bearer token missing or wrong: name the shards' token_file, or their run folder",
            )


def channel_address(address: str, port: int = 0) -> str:
    """Where the data channels of a shard are that listens at `address`: a socket beside its own, or
    this port, 0 = one that is free."""
    if address.startswith("unix:"):
        return f"{address.removesuffix('.sock')}.lane"
    return f"tcp:{address.rpartition(':')[0]}:{port}"
