"""Both ports of the parameter server over gRPC, pulls and pushes over data channels where the shard
has them.

Every call has a deadline, after which it raises `Unreachable`; so does a call that nobody answers
after a few quick attempts. All calls are safe to repeat, so repeating is left to the caller, who
knows what it waits for.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Container
from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import numpy as np

from paramserver.config import ParamServerConfig
from paramserver.encoding import ENCODINGS, Encoding
from paramserver.messages import (
    Keys,
    Outcome,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    Reply,
    Request,
    StartRequest,
)
from paramserver.ports import (
    ClockPort,
    DataChannelRequest,
    Malformed,
    NotAuthorized,
    PortRefused,
    PortUnreachable,
    ShardPort,
)
from paramserver.wire import codec, frames, payload
from paramserver.wire import wire_pb2 as wire
from paramserver.wire.data_channel import STATUSES, DataChannels
from paramserver.wire.frames import BadFrame, Body
from paramserver.wire.key_cache import Sent
from paramserver.wire.payload import Payload
from paramserver.wire.staging import slices, split
from paramserver.wire.tls import (
    caller_context,
    caller_files,
    channel_credentials,
    handshake_fault,
    wrapped,
)
from paramserver.wire.token import with_token
from stream.credentials import TokenFile, stamps

#: Between two looks whether files of certificates have changed.
LOOK_S = 1.0
#: Attempts of one call at a shard that does not listen or has no thread free, with growing pauses,
#: before Unreachable.
ATTEMPTS_MAX = 5
#: A push whose staged parts were dropped is sent anew this often.
STAGINGS_MAX = 3
#: Rows asked for in one pull, until a shard says that its answer does not fit a message.
PULL_ROWS_MAX = 1 << 17

#: Digests remembered of lists of keys that a shard was sent.
KEY_LISTS_MAX = 64

Status = grpc.StatusCode
log = logging.getLogger(__name__)

_REFUSALS: dict[grpc.StatusCode, type[PortRefused]] = {
    Status.FAILED_PRECONDITION: PortRefused,
    Status.INVALID_ARGUMENT: Malformed,
    Status.UNAUTHENTICATED: NotAuthorized,
}
_AGAIN = frozenset({Status.UNAVAILABLE, Status.RESOURCE_EXHAUSTED})
#: The method that was called takes it from here.
_SPECIAL = frozenset({Status.OUT_OF_RANGE, Status.ABORTED, Status.NOT_FOUND})


class _Status(Exception):
    """An answer with a code that one method alone knows how to take."""

    def __init__(self, code: grpc.StatusCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Connection:
    """A channel to one service of one process."""

    def __init__(self, service: str, address: str, config: ParamServerConfig) -> None:
        self.address, self.config, self._service = address, config, service
        self._tokens = TokenFile.named(config.token_file, "paramserver.token_file")
        methods = codec.METHODS[service]
        self._methods = {method.request: (name, method) for name, method in methods.items()}
        self._files = caller_files(config)
        self._renewing, self._looked_s = threading.Lock(), time.monotonic()
        self._stamp = stamps(self._files)
        self._channel, self._stubs = self._made()

    def _made(self) -> tuple[grpc.Channel, dict[str, Callable[..., Any]]]:
        """A channel, and what calls each method over it. Raises OSError."""
        config, service = self.config, self._service
        options = [
            *config.channel_options(),
            # A shard that restarts is back within a second; gRPC's own pauses are made for the
            # internet.
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 500),
            # A connection of its own, so that control calls never stand behind a large push (K4).
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if config.ca or config.cert:
            channel = grpc.secure_channel(self.address, channel_credentials(config), options)
        else:
            channel = grpc.insecure_channel(self.address, options)
        stubs: dict[str, Callable[..., Any]] = {
            name: channel.unary_unary(
                f"/{service}/{name}",
                request_serializer=method.request_message.SerializeToString,
                response_deserializer=method.reply_message.FromString,
            )
            for name, method in codec.METHODS[service].items()
        }
        frames_too = frames.METHODS if service == "everspun.Shard" else ()
        stubs |= {method: channel.unary_unary(f"/{service}/{method}") for method in frames_too}
        return channel, stubs

    def _stub(self, method: str) -> Callable[..., Any]:
        """What calls a method: over a new channel once the files of certificates have changed and
        fit together. What is under way over the one before ends there."""
        if self._files and time.monotonic() - self._looked_s >= LOOK_S:
            with self._renewing:
                self._renew()
        return self._stubs[method]

    def _renew(self) -> None:
        self._looked_s = time.monotonic()
        if (stamp := stamps(self._files)) == self._stamp:
            return
        try:
            caller_context(self.config)  # half a pair is none
            self._channel, self._stubs = self._made()
        except OSError as error:
            log.warning("certificates are not renewed yet, %s: %s", self._files, error)
        else:
            self._stamp = stamp

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        """What says who calls: the first token of the file, as it is now."""
        tokens = self._tokens.tokens() if self._tokens else ()
        return tuple(("authorization", f"Bearer {token}") for token in tokens[:1])

    def call(self, method: str, message: Any, timeout_ms: int) -> Any:
        """The answer; of a frame, its bytes. Raises Unreachable or Refused."""

        def once(left_s: float) -> Any:
            try:
                return self._stub(method)(message, timeout=left_s, metadata=self._metadata())
            except grpc.RpcError as error:
                raise _Status(error.code(), error.details()) from error

        return self.persist(method, once, timeout_ms)

    def persist(self, method: str, once: Callable[[float], Any], timeout_ms: int) -> Any:
        """What `once(seconds left)` answers, tried again where it was not taken. Raises
        Unreachable or Refused."""
        deadline = time.monotonic() + timeout_ms / 1_000
        pause = self.config.retry_ms / 1_000
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                return once(max(0.001, deadline - time.monotonic()))
            except _Status as error:
                code, detail = error.code, f"{method} at {self.address}: {error}"
                if code in _REFUSALS:
                    raise _REFUSALS[code](detail) from error
                if code in _SPECIAL:
                    raise _Status(code, detail) from error
                late = time.monotonic() + pause >= deadline
                if code not in _AGAIN or late or attempt == ATTEMPTS_MAX:
                    shows = self.config.client_certificates or not self.config.ca
                    if fault := handshake_fault(str(error), shows):
                        raise PortUnreachable(f"{method} at {self.address}: {fault}") from error
                    raise PortUnreachable(f"{detail} ({code.name.lower()})") from error
            time.sleep(pause)
            pause = min(2 * pause, self.config.retry_max_ms / 1_000)
        raise AssertionError("the last attempt returns or raises")

    def perform(self, request: Request[Reply]) -> Reply:
        """`Port.call`, within the deadline of the request's kind."""
        name, method = self._methods[type(request)]
        timeout_ms = int(getattr(self.config, request.deadline.value))
        answered = self.call(name, codec.encode(request), timeout_ms)
        reply: Reply = method.decode_reply(answered)
        return reply

    def close(self) -> None:
        """Give up its connection; calls under way raise Unreachable."""
        self._channel.close()


class ShardClient(ShardPort):
    """`ShardPort` of one shard. Pulls may run beside each other and beside a push; pushes one at
    a time (S2)."""

    def __init__(self, address: str, config: ParamServerConfig) -> None:
        self.config, self._host = config, address.rpartition(":")[0].strip("[]")
        self._connection = Connection("everspun.Shard", address, config)
        self._encoding = ENCODINGS[config.wire]
        self._channels = DataChannels(
            self._ask_channel,
            config.data_timeout_ms,
            config.body_bytes_max,
            partial(wrapped, config=config, host=self._host) if config.ca or config.cert else None,
        )
        self._sent = Sent(KEY_LISTS_MAX if config.key_lists_bytes_max else 0)
        self._pushes = itertools.count(1)
        self._pull_rows_max = PULL_ROWS_MAX

    def call(self, request: Request[Reply]) -> Reply:
        return self._connection.perform(request)

    def pull(self, request: PullRequest) -> PullReply:
        while True:
            pieces = slices(request.keys, self._pull_rows_max)
            try:
                return self._pull(request, pieces)
            except _Status as error:
                if error.code is not Status.OUT_OF_RANGE:
                    raise PortUnreachable(str(error)) from error
                if self._pull_rows_max == 1:
                    raise PortRefused(f"{error}: raise message_bytes_max") from error
                self._pull_rows_max //= 2

    def _pull(self, request: PullRequest, pieces: list[dict[str, Keys]]) -> PullReply:
        """Several answers as one: as old as the oldest, and whatever the first says that is not
        served."""
        replies: list[PullReply] = []
        for number, keys in enumerate(pieces):
            piece = replace(request, keys=keys, dense=request.dense and number == 0)
            header, body = self._data("Pull", partial(payload.encode_pull, piece, self._encoding))
            reply = payload.decode_pull_reply(wire.PullReply.FromString(header), body)
            if reply.outcome is not Outcome.APPLIED:
                return reply
            if replies and reply.incarnation != replies[0].incarnation:
                raise PortUnreachable(
                    f"shard at {self._connection.address} restarted within a pull"
                )
            replies.append(reply)
        if len(replies) == 1:
            return replies[0]
        rows = {
            name: np.concatenate([reply.rows[name] for reply in replies if name in reply.rows])
            for name in request.keys
        }
        return replace(replies[0], rows=rows, version=min(reply.version for reply in replies))

    def push(self, request: PushRequest) -> PushReply:
        encoding = (
            Encoding.FLOAT32 if request.rewrites else self._encoding
        )  # no rounding is added up in rows (W3)
        try:
            parts, last = split(request, self.config.message_bytes_max)
        except ValueError as error:
            raise Malformed(str(error)) from error
        for _ in range(STAGINGS_MAX):
            number = next(self._pushes)
            for part, tables in enumerate(parts):
                whose = (request.model, request.epoch, number, part)
                self._data("Stage", partial(payload.encode_stage, *whose, tables, encoding))
            try:
                encode = partial(
                    payload.encode_push, last, encoding, push=number, staged=len(parts)
                )
                header, _ = self._data("Push", encode)
                return payload.decode_push_reply(wire.PushReply.FromString(header))
            except _Status as error:
                reason = str(error)
        raise PortUnreachable(f"{reason} (after {STAGINGS_MAX} times)")

    def close(self) -> None:
        """Give up its connections; calls under way raise Unreachable."""
        self._channels.close()
        self._connection.close()

    # --- frames
    # ----------------------------------------------------------------------------------------------

    def _data(
        self, method: str, encode: Callable[[Container[bytes]], Payload]
    ) -> tuple[bytes, Body]:
        """(header, body) of the answer. `encode` leaves out lists of keys whose digest is in what
        it is given; where the shard does not have one, they are sent after all."""
        sent = encode(self._sent)
        try:
            answer = self._exchange(method, sent)
        except _Status as error:
            if error.code is not Status.NOT_FOUND:
                raise
            self._sent.clear()
            sent = encode(())
            answer = self._exchange(method, sent)
        for digest in sent.digests:
            self._sent.add(digest)
        return answer

    def _exchange(self, method: str, sent: Payload) -> tuple[bytes, Body]:
        header = sent.header.SerializeToString()
        if self.config.lanes and self._channels.served():
            answer: tuple[bytes, Body] = self._connection.persist(
                method,
                lambda left_s: self._over_channel(method, header, sent.arrays),
                self.config.data_timeout_ms,
            )
            return answer
        message = b"".join(frames.pieces(frames.METHODS[method], header, sent.arrays))
        data = self._connection.call(method, message, self.config.data_timeout_ms)
        _, reply, body = frames.unpack(data, self.config.body_bytes_max)
        return reply, Body(body)

    def _over_channel(
        self, method: str, header: bytes, arrays: list[frames.Array]
    ) -> tuple[bytes, Body]:
        try:
            status, reply, body = self._channels.call(frames.METHODS[method], header, arrays)
        except (OSError, BadFrame) as error:
            raise _Status(Status.UNAVAILABLE, f"lane: {error}") from error
        if status != frames.OK:
            raise _Status(STATUSES.get(status, Status.UNKNOWN), reply.decode(errors="replace"))
        return reply, Body(body)

    def _ask_channel(self) -> tuple[str, bytes]:
        reply = self.call(DataChannelRequest())
        kind, _, where = reply.address.partition(":")
        if kind != "tcp":
            return reply.address, reply.token
        # Of the host by which the shard is called: it may itself know no more than 0.0.0.0.
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"tcp:{host}:{where.rpartition(':')[2]}", reply.token


class ClockClient(ClockPort):
    """`ClockPort` of the process that holds slot 0. Starts that are not numbered get the next
    number."""

    def __init__(self, address: str, config: ParamServerConfig) -> None:
        self._connection = Connection("everspun.Clock", address, config)
        self._tickets = itertools.count(1)

    def call(self, request: Request[Reply]) -> Reply:
        sent: Any = request
        if isinstance(request, StartRequest) and not request.ticket:
            sent = replace(request, ticket=next(self._tickets))
        answered: Reply = self._connection.perform(sent)
        return answered

    def close(self) -> None:
        self._connection.close()


class ShardPorts(dict[int, ShardClient]):
    """Ports by index of shard: those that were asked for. There may come more shards than there
    are (S6)."""

    def __init__(self, config: ParamServerConfig, run_dir: str, shards: int) -> None:
        super().__init__()
        self._config, self._run_dir, self._lock = (
            with_token(config, run_dir),
            run_dir,
            threading.Lock(),
        )
        for shard in range(shards):
            self[shard]

    def __missing__(self, shard: int) -> ShardClient:
        with self._lock:
            if shard not in self:
                self[shard] = ShardClient(self._config.address(shard, self._run_dir), self._config)
            return dict.__getitem__(self, shard)

    def close(self) -> None:
        for port in self.values():
            port.close()


def connect(config: ParamServerConfig, run_dir: str, shards: int) -> tuple[ShardPorts, ClockClient]:
    """Ports of all shards by index, and of the clocks, which shard 0 holds: it owns slot 0 in
    every map (S6)."""
    config = with_token(config, run_dir)
    return ShardPorts(config, run_dir, shards), ClockClient(config.address(0, run_dir), config)
