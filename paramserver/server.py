"""A shard, and the clocks where they are held, as gRPC services.

No handler waits for another caller (K4): pulls and pushes beyond `data_threads` are told to come again, so the threads
for control calls are never taken by data. The shard has one lock, the clocks have another, and both are held only
while the core runs; decoding and encoding happen outside.
"""

import hmac
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from paramserver import codec
from paramserver import wire_pb2 as wire
from paramserver.clocks import Clocks
from paramserver.config import ParamServerConfig
from paramserver.messages import Epoch
from paramserver.metrics import Metrics
from paramserver.orders import Orders
from paramserver.ports import PartInfo, Refused
from paramserver.shard import Shard
from paramserver.staging import StageFull, StageIncomplete, Staging
from paramserver.store import write_part

log = logging.getLogger(__name__)

DATA = frozenset({"Pull", "Stage", "Push"})
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
        self._writer = ThreadPoolExecutor(1, "part-writer")
        self._writing: dict[tuple[str, str, str], Future[PartInfo]] = {}

    def begin(self, message: wire.BeginRequest) -> wire.ProgressReply:
        spec, vector, dense = codec.decode_begin(message)
        with self.lock:
            return codec.encode_progress_reply(self.shard.begin(spec, vector, dense))

    def progress(self, message: wire.ModelRequest) -> wire.ProgressReply:
        with self.lock:
            reply = self.shard.progress(message.model)
        return codec.encode_progress_reply(reply)

    def pull(self, message: wire.PullRequest) -> wire.PullReply:
        began = time.perf_counter()
        request = codec.decode_pull(message)
        with self.lock:
            reply = self.shard.pull(request)
        nbytes = sum(a.nbytes for a in reply.rows.values()) + sum(a.nbytes for a in reply.dense.values())
        if nbytes > self.config.message_bytes_max:
            raise TooLarge(f"the answer has {nbytes} bytes, a message at most {self.config.message_bytes_max}")
        self.metrics.pulled(request, reply, time.perf_counter() - began)
        return codec.encode_pull_reply(reply)

    def stage(self, message: wire.StageRequest) -> wire.Number:
        keys, rows = codec.decode_keys(message.tables), codec.decode_arrays(message.tables)
        tables = {name: (keys[name], rows[name]) for name in keys}
        with self.lock:
            self.staging.add(message.model, codec.decode_epoch(message.epoch), message.push, message.part, tables)
            self.metrics.staged_bytes.set(self.staging.nbytes)
        return _number(1)

    def push(self, message: wire.PushRequest) -> wire.PushReply:
        began = time.perf_counter()
        request = codec.decode_push(message)
        with self.lock:
            if message.staged:
                request = self.staging.complete(request, message.push, message.staged)
            reply = self.shard.push(request)
        self.metrics.pushed(request, reply, time.perf_counter() - began)
        return codec.encode_push_reply(reply)

    def mark(self, message: wire.CutRequest) -> wire.MarkReply:
        with self.lock:
            reply = self.shard.mark(message.model, message.cut, dict(message.vector))
        return codec.encode_mark_reply(reply)

    def unmark(self, message: wire.CutRequest) -> wire.Number:
        with self.lock:
            self.shard.unmark(message.model, message.cut)
        return _number(1)

    def write_part(self, message: wire.CutRequest) -> wire.PartInfo:
        """The part is written by a thread of its own; asked again meanwhile, the same writing is answered."""
        key = (message.model, message.cut, message.url)
        with self.lock:
            snapshot = self.shard.marked(message.model, message.cut)
            writing = self._writing.get(key)
            if writing is None or (writing.done() and writing.exception() is not None):
                for other, running in self._writing.items():
                    if not running.done():
                        raise Refused(f"shard {self.shard.index} still writes cut {other[1]!r}: ask again later")
                writing = self._writer.submit(self._write, snapshot, message.url)
                self._writing = {key: writing}
        return codec.encode_part_info(writing.result(self.config.write_timeout_ms / 1_000))

    def _write(self, snapshot: Any, url: str) -> PartInfo:
        began = time.perf_counter()
        info = write_part(snapshot, self.shard.index, url)
        self.metrics.part_seconds.observe(time.perf_counter() - began)
        self.metrics.part_bytes.inc(info.bytes)
        return info

    def settle(self, message: wire.CutRequest) -> wire.Number:
        with self.lock:
            self.shard.settle(message.model, message.cut, message.sha256)
            self._writing = {}
        return _number(1)

    def allow(self, message: wire.AllowRequest) -> wire.Number:
        epochs = [codec.decode_epoch(epoch) for epoch in message.epochs]
        incarnation = message.incarnation if message.HasField("incarnation") else None
        return _number(self.allow_here(message.era, message.sequence, epochs, incarnation))

    def allow_here(self, era: int, sequence: int, epochs: list[Epoch], incarnation: int | None) -> int:
        """`ShardPort.allow`, for a clock holder in this very process too."""
        with self.lock:
            if incarnation is None or incarnation == self.shard.incarnation:
                self.shard.allow(era, sequence, epochs)
                self.staging.keep(epochs)
            return self.shard.incarnation

    def close(self) -> None:
        self._writer.shutdown(wait=True)


class ClockService:
    """`everspun.Clock` over the clock core. `changed` is called after what may have changed the allow list; `keep`
    writes down what an operator ordered, before it is acknowledged."""

    def __init__(
        self,
        clocks: Clocks,
        now_ms: Callable[[], int],
        changed: Callable[[], None],
        keep: Callable[[Mapping[str, Orders]], None] | None = None,
    ) -> None:
        self.clocks, self.now_ms, self.changed, self._keep = clocks, now_ms, changed, keep
        self.lock = threading.Lock()

    def join(self, message: wire.MemberRequest) -> wire.JoinReply:
        with self.lock:
            reply = self.clocks.join(message.model, message.learner, self.now_ms())
        self.changed()
        return codec.encode_join_reply(reply)

    def start(self, message: wire.StartRequest) -> wire.StartReply:
        with self.lock:
            return codec.encode_start_reply(self.clocks.start(codec.decode_start(message), self.now_ms()))

    def ended(self, message: wire.MemberRequest) -> wire.Number:
        epoch = codec.decode_epoch(message.epoch)
        with self.lock:
            return _number(self.clocks.ended(message.model, epoch, message.value, self.now_ms()))

    def park(self, message: wire.MemberRequest) -> wire.Number:
        with self.lock:
            return _number(self.clocks.park(message.model, codec.decode_epoch(message.epoch), self.now_ms()))

    def renew(self, message: wire.MemberRequest) -> wire.RenewReply:
        epoch = codec.decode_epoch(message.epoch)
        with self.lock:
            reply = self.clocks.renew(message.model, epoch, message.doing, self.now_ms())
        return codec.encode_renew_reply(reply)

    def hold(self, message: wire.CutRequest) -> wire.Number:
        highest = dict(message.vector)
        with self.lock:
            granted = self.clocks.hold(message.model, message.cut, message.lease_ms, highest, self.now_ms())
        return _number(granted)

    def release(self, message: wire.CutRequest) -> wire.Number:
        with self.lock:
            self.clocks.release(message.model, message.cut)
        return _number(1)

    def set_staleness(self, message: wire.MemberRequest) -> wire.Number:
        with self.lock:
            self.clocks.set_staleness(message.model, message.value)
            self._keep_orders()
        return _number(1)

    def set_paused(self, message: wire.MemberRequest) -> wire.Number:
        with self.lock:
            self.clocks.set_paused(message.model, bool(message.value))
            self._keep_orders()
        return _number(1)

    def _keep_orders(self) -> None:
        if self._keep is not None:
            self._keep(self.clocks.orders)


class Server:
    """One listening gRPC server for a shard, and for the clocks if this process holds them."""

    def __init__(self, shard: ShardService, clock: ClockService | None, address: str) -> None:
        config, self._metrics = shard.config, shard.metrics
        self._data_room = threading.BoundedSemaphore(config.data_threads)
        self._token = Path(config.token_file).read_text().strip() if config.token_file else ""
        self._server = grpc.server(
            ThreadPoolExecutor(config.data_threads + config.control_threads, "rpc"),
            options=config.channel_options(),
            maximum_concurrent_rpcs=CALLS_MAX,
        )
        services = {"everspun.Shard": shard} | ({} if clock is None else {"everspun.Clock": clock})
        for name, service in services.items():
            handlers = {method: self._handler(service, method, types) for method, types in codec.METHODS[name].items()}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        try:
            if config.cert:
                pair = (Path(config.key).read_bytes(), Path(config.cert).read_bytes())
                bound = self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
            else:
                bound = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise RuntimeError(f"shard {shard.shard.index} cannot listen at {address}: {error}") from error
        self.address = address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{bound}"

    def start(self) -> None:
        self._server.start()

    def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those under way end within `grace_s`."""
        self._server.stop(grace_s).wait()

    def _handler(self, service: object, method: str, types: tuple[Any, Any]) -> grpc.RpcMethodHandler:
        call = getattr(service, snake_case(method))

        def handle(message: Any, context: grpc.ServicerContext) -> Any:
            if self._token and not self._authorized(context):
                context.abort(Status.UNAUTHENTICATED, "bearer token missing or wrong: see token_file")
            if method not in DATA:
                return self._perform(call, message, context)
            if not self._data_room.acquire(blocking=False):
                self._metrics.turned_away.labels(method).inc()
                context.abort(Status.RESOURCE_EXHAUSTED, "all data threads are taken")
            try:
                return self._perform(call, message, context)
            finally:
                self._data_room.release()

        request, reply = types
        return grpc.unary_unary_rpc_method_handler(handle, request.FromString, reply.SerializeToString)

    def _perform(self, call: Callable[[Any], Any], message: Any, context: grpc.ServicerContext) -> Any:
        try:
            return call(message)
        except Refused as error:
            code, detail = Status.FAILED_PRECONDITION, str(error)
        except TooLarge as error:
            code, detail = Status.OUT_OF_RANGE, str(error)
        except StageIncomplete as error:
            code, detail = Status.ABORTED, str(error)
        except (StageFull, MemoryError, TimeoutError) as error:  # nothing was changed: come again
            self._metrics.turned_away.labels(call.__name__).inc()
            code, detail = Status.RESOURCE_EXHAUSTED, f"{type(error).__name__}: {error}"
        except ValueError as error:
            code, detail = Status.INVALID_ARGUMENT, str(error)
        except Exception as error:
            log.exception("%s failed", call.__name__)
            self._metrics.faults.inc()
            code, detail = Status.INTERNAL, f"{type(error).__name__}: {error}"
        return context.abort(code, detail)

    def _authorized(self, context: grpc.ServicerContext) -> bool:
        given = dict(context.invocation_metadata()).get("authorization", "")
        return hmac.compare_digest(str(given), f"Bearer {self._token}")


def _number(value: int) -> wire.Number:
    return wire.Number(value=int(value))


def snake_case(method: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in method).lstrip("_")
