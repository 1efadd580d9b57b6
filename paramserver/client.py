"""Both ports of the parameter server over gRPC.

Every call has a deadline, after which it raises `Unreachable`; so does a call that nobody answers after a few quick
attempts. All calls are safe to repeat, so repeating is left to the caller, who knows what it waits for.
"""

import itertools
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from paramserver import codec
from paramserver import wire_pb2 as wire
from paramserver.config import ParamServerConfig
from paramserver.messages import (
    Epoch,
    Keys,
    MarkReply,
    ModelSpec,
    Outcome,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    StartReply,
    StartRequest,
)
from paramserver.ports import JoinReply, PartInfo, ProgressReply, Refused, Unreachable
from paramserver.staging import split

#: Attempts of one call at a shard that does not listen or has no thread free, with growing pauses, before Unreachable.
ATTEMPTS_MAX = 5
#: A push whose staged parts were dropped is sent anew this often.
STAGINGS_MAX = 3
#: Rows asked for in one pull, until a shard says that its answer does not fit a message.
PULL_ROWS_MAX = 1 << 17

_REFUSED = frozenset(
    {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED}
)
_AGAIN = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})


class _Status(Exception):
    """An answer with a code that one method alone knows how to take."""

    def __init__(self, code: grpc.StatusCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Connection:
    """A channel to one service of one process."""

    def __init__(self, service: str, address: str, config: ParamServerConfig) -> None:
        self.address, self.config = address, config
        options = [
            *config.channel_options(),
            # A shard that restarts is back within a second; gRPC's own pauses are made for the internet.
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 500),
            # A connection of its own, so that control calls never stand behind a large push (K4).
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if config.ca or config.cert:
            roots = Path(config.ca).read_bytes() if config.ca else None
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(roots), options)
        else:
            self._channel = grpc.insecure_channel(address, options)
        token = Path(config.token_file).read_text().strip() if config.token_file else ""
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._stubs = {
            method: self._channel.unary_unary(
                f"/{service}/{method}",
                request_serializer=request.SerializeToString,
                response_deserializer=reply.FromString,
            )
            for method, (request, reply) in codec.METHODS[service].items()
        }

    def call(self, method: str, message: Any, timeout_ms: int) -> Any:
        """The answer. Raises Unreachable or Refused."""
        deadline = time.monotonic() + timeout_ms / 1_000
        pause = self.config.retry_ms / 1_000
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                left = max(0.001, deadline - time.monotonic())
                return self._stubs[method](message, timeout=left, metadata=self._metadata)
            except grpc.RpcError as error:
                code, detail = error.code(), f"{method} at {self.address}: {error.details()}"
                if code in _REFUSED:
                    raise Refused(detail) from error
                if code in (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.ABORTED):
                    raise _Status(code, detail) from error
                late = time.monotonic() + pause >= deadline
                if code not in _AGAIN or late or attempt == ATTEMPTS_MAX:
                    raise Unreachable(f"{detail} ({code.name.lower()})") from error
            time.sleep(pause)
            pause = min(2 * pause, self.config.retry_max_ms / 1_000)
        raise AssertionError("the last attempt returns or raises")

    def control(self, method: str, message: Any) -> Any:
        return self.call(method, message, self.config.control_timeout_ms)

    def close(self) -> None:
        self._channel.close()


class ShardClient:
    """`ShardPort` of one shard. Pulls may run beside each other and beside a push; pushes one at a time (S2)."""

    def __init__(self, address: str, config: ParamServerConfig) -> None:
        self.config = config
        self._connection = Connection("everspun.Shard", address, config)
        self._pushes = itertools.count(1)
        self._pull_rows_max = PULL_ROWS_MAX

    def begin(self, spec: ModelSpec, vector: dict[str, int], dense: dict[str, object]) -> ProgressReply:
        message = codec.encode_begin(spec, vector, dense)
        return codec.decode_progress_reply(self._connection.call("Begin", message, self.config.data_timeout_ms))

    def progress(self, model: str) -> ProgressReply:
        return codec.decode_progress_reply(self._connection.control("Progress", wire.ModelRequest(model=model)))

    def pull(self, request: PullRequest) -> PullReply:
        while True:
            pieces = _slices(request.keys, self._pull_rows_max)
            try:
                return self._pull(request, pieces)
            except _Status as error:
                if self._pull_rows_max == 1:
                    raise Refused(f"{error}: raise message_bytes_max") from error
                self._pull_rows_max //= 2

    def _pull(self, request: PullRequest, pieces: list[dict[str, Keys]]) -> PullReply:
        """Several answers as one: as old as the oldest, and whatever the first says that is not served."""
        replies: list[PullReply] = []
        for number, keys in enumerate(pieces):
            piece = replace(request, keys=keys, dense=request.dense and number == 0)
            message = self._connection.call("Pull", codec.encode_pull(piece), self.config.data_timeout_ms)
            reply = codec.decode_pull_reply(message)
            if reply.outcome is not Outcome.APPLIED:
                return reply
            if replies and reply.incarnation != replies[0].incarnation:
                raise Unreachable(f"shard at {self._connection.address} restarted within a pull")
            replies.append(reply)
        if len(replies) == 1:
            return replies[0]
        rows = {
            name: np.concatenate([reply.rows[name] for reply in replies if name in reply.rows]) for name in request.keys
        }
        return replace(replies[0], rows=rows, version=min(reply.version for reply in replies))

    def push(self, request: PushRequest) -> PushReply:
        parts, last = split(request, self.config.message_bytes_max)
        for _ in range(STAGINGS_MAX):
            number = next(self._pushes)
            for part, tables in enumerate(parts):
                blocks = codec.encode_tables(tables)
                epoch = codec.encode_epoch(request.epoch)
                stage = wire.StageRequest(model=request.model, epoch=epoch, push=number, part=part, tables=blocks)
                self._connection.call("Stage", stage, self.config.data_timeout_ms)
            try:
                message = codec.encode_push(last, number, len(parts))
                return codec.decode_push_reply(self._connection.call("Push", message, self.config.data_timeout_ms))
            except _Status as error:
                reason = str(error)
        raise Unreachable(f"{reason} (after {STAGINGS_MAX} times)")

    def mark(self, model: str, cut: str, vector: dict[str, int]) -> MarkReply:
        message = wire.CutRequest(model=model, cut=cut, vector=vector)
        return codec.decode_mark_reply(self._connection.call("Mark", message, self.config.write_timeout_ms))

    def unmark(self, model: str, cut: str) -> None:
        self._connection.control("Unmark", wire.CutRequest(model=model, cut=cut))

    def write_part(self, model: str, cut: str, url: str, parent: str | None) -> PartInfo:
        message = wire.CutRequest(model=model, cut=cut, url=url, sha256=parent)
        return codec.decode_part_info(self._connection.call("WritePart", message, self.config.write_timeout_ms))

    def settle(self, model: str, cut: str, manifest_sha256: str) -> None:
        self._connection.control("Settle", wire.CutRequest(model=model, cut=cut, sha256=manifest_sha256))

    def allow(self, era: int, sequence: int, epochs: list[Epoch], incarnation: int | None = None) -> int:
        listed = [codec.encode_epoch(epoch) for epoch in epochs]
        message = wire.AllowRequest(era=era, sequence=sequence, epochs=listed, incarnation=incarnation)
        return int(self._connection.control("Allow", message).value)

    def close(self) -> None:
        self._connection.close()


class ClockClient:
    """`ClockPort` of the process that holds slot 0. Starts that are not numbered get the next number."""

    def __init__(self, address: str, config: ParamServerConfig) -> None:
        self._connection = Connection("everspun.Clock", address, config)
        self._tickets = itertools.count(1)

    def join(self, model: str, learner: str) -> JoinReply:
        message = wire.MemberRequest(model=model, learner=learner)
        return codec.decode_join_reply(self._connection.control("Join", message))

    def start(self, request: StartRequest) -> StartReply:
        if not request.ticket:
            request = replace(request, ticket=next(self._tickets))
        return codec.decode_start_reply(self._connection.control("Start", codec.encode_start(request)))

    def ended(self, model: str, epoch: Epoch, clock: int) -> bool:
        message = wire.MemberRequest(model=model, epoch=codec.encode_epoch(epoch), value=clock)
        return bool(self._connection.control("Ended", message).value)

    def park(self, model: str, epoch: Epoch) -> bool:
        message = wire.MemberRequest(model=model, epoch=codec.encode_epoch(epoch))
        return bool(self._connection.control("Park", message).value)

    def renew(self, model: str, epoch: Epoch, doing: str) -> dict[int, int] | None:
        message = wire.MemberRequest(model=model, epoch=codec.encode_epoch(epoch), doing=doing)
        return codec.decode_renew_reply(self._connection.control("Renew", message))

    def hold(self, model: str, cut: str, lease_ms: int, highest: dict[str, int]) -> bool:
        message = wire.CutRequest(model=model, cut=cut, lease_ms=lease_ms, vector=highest)
        return bool(self._connection.control("Hold", message).value)

    def release(self, model: str, cut: str) -> None:
        self._connection.control("Release", wire.CutRequest(model=model, cut=cut))

    def set_staleness(self, model: str, staleness: int) -> None:
        self._connection.control("SetStaleness", wire.MemberRequest(model=model, value=staleness))

    def set_paused(self, model: str, paused: bool) -> None:
        self._connection.control("SetPaused", wire.MemberRequest(model=model, value=int(paused)))

    def close(self) -> None:
        self._connection.close()


def connect(config: ParamServerConfig, run_dir: str, shards: int) -> tuple[dict[int, ShardClient], ClockClient]:
    """Ports of all shards by index, and of the clocks, which shard 0 holds: it owns slot 0 in every even map (K1)."""
    ports = {shard: ShardClient(config.address(shard, run_dir), config) for shard in range(shards)}
    return ports, ClockClient(config.address(0, run_dir), config)


def _slices(keys: Mapping[str, Keys], rows_max: int) -> list[dict[str, Keys]]:
    """Keys in pieces of at most `rows_max`, in order; tables without keys ride with the first."""
    pieces: list[dict[str, Keys]] = [{name: array for name, array in keys.items() if not len(array)}]
    room = rows_max
    for name, array in keys.items():
        for at in range(0, len(array), rows_max):
            piece = array[at : at + rows_max]
            if len(piece) > room:
                pieces.append({})
                room = rows_max
            pieces[-1][name] = piece
            room -= len(piece)
    return pieces
