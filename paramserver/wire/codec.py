"""Messages as protobuf, and back. What carries keys and rows is in `payload`.

`encode_x` takes a value to its protobuf message, `decode_x` the other way; a message that cannot be
raises ValueError.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from paramserver.bounds import Bounds, Rung
from paramserver.messages import (
    ChainProgress,
    DenseSpec,
    Epoch,
    MarkReply,
    ModelSpec,
    Progress,
    StartOutcome,
    StartReply,
    StartRequest,
    TableSpec,
)
from paramserver.ports import JoinReply, PartInfo, ProgressReply
from paramserver.slots import SlotMap
from paramserver.wire import wire_pb2 as wire

#: service -> method -> (request, reply). The client and the server are wired from this one table.
#: Beside these, a shard takes the methods of `frames.METHODS`, whose messages are frames.
METHODS: dict[str, dict[str, tuple[Any, Any]]] = {
    "everspun.Shard": {
        "Begin": (wire.BeginRequest, wire.ProgressReply),
        "Progress": (wire.ModelRequest, wire.ProgressReply),
        "Lane": (wire.ModelRequest, wire.LaneReply),
        "Mark": (wire.CutRequest, wire.MarkReply),
        "Unmark": (wire.CutRequest, wire.Number),
        "WritePart": (wire.CutRequest, wire.PartInfo),
        "Settle": (wire.CutRequest, wire.Number),
        "Allow": (wire.AllowRequest, wire.AllowReply),
        "Remap": (wire.Number, wire.Number),
        "Prepare": (wire.PrepareRequest, wire.PrepareReply),
    },
    "everspun.Clock": {
        "Join": (wire.MemberRequest, wire.JoinReply),
        "Start": (wire.StartRequest, wire.StartReply),
        "Ended": (wire.MemberRequest, wire.Number),
        "Park": (wire.MemberRequest, wire.Number),
        "Renew": (wire.MemberRequest, wire.RenewReply),
        "Hold": (wire.CutRequest, wire.Number),
        "Release": (wire.CutRequest, wire.Number),
        "SetStaleness": (wire.MemberRequest, wire.Number),
        "SetConcurrency": (wire.MemberRequest, wire.Number),
        "SetCompensation": (wire.MemberRequest, wire.Number),
        "SetPaused": (wire.MemberRequest, wire.Number),
        "Bounds": (wire.ModelRequest, wire.BoundsReply),
        "Govern": (wire.GovernRequest, wire.BoundsReply),
        "SetShards": (wire.MemberRequest, wire.Number),
        "ShardsOrdered": (wire.MemberRequest, wire.Number),
    },
}

# --- arrays
# --------------------------------------------------------------------------------------------------

_F32 = np.dtype("<f4")


def encode_arrays(arrays: Mapping[str, npt.NDArray[np.float32]]) -> list[wire.Block]:
    return [
        wire.Block(name=n, values=np.ascontiguousarray(array, _F32).tobytes(), shape=array.shape)
        for n, array in arrays.items()
    ]


def decode_arrays(blocks: Iterable[wire.Block]) -> dict[str, npt.NDArray[np.float32]]:
    """Copies that the receiver may write to: kernels are compiled for those alone."""
    return {
        block.name: np.frombuffer(block.values, _F32).reshape(tuple(block.shape)).astype(np.float32)
        for block in blocks
    }


def encode_hash(row_hash: int) -> bytes:
    return row_hash.to_bytes(16, "little")


def decode_hash(data: bytes) -> int:
    return int.from_bytes(data, "little")


# --- what both planes share
# -------------------------------------------------------------------------------------


def encode_epoch(epoch: Epoch) -> wire.Epoch:
    return wire.Epoch(era=epoch.era, n=epoch.n)


def decode_epoch(message: wire.Epoch) -> Epoch:
    return Epoch(message.era, message.n)


def encode_progress(progress: Progress) -> wire.Progress:
    chains = {
        chain: wire.ChainProgress(
            end=at.end, row_hash=encode_hash(at.row_hash), barrier=at.barrier, rows=at.rows
        )
        for chain, at in progress.chains.items()
    }
    return wire.Progress(
        chains=chains,
        next_record=progress.next_record,
        version=progress.version,
        event_time_max_ms=progress.event_time_max_ms,
    )


def decode_progress(message: wire.Progress) -> Progress:
    chains = {
        chain: ChainProgress(at.end, decode_hash(at.row_hash), at.barrier, at.rows)
        for chain, at in message.chains.items()
    }
    return Progress(chains, dict(message.next_record), message.version, message.event_time_max_ms)


def encode_progress_reply(reply: ProgressReply) -> wire.ProgressReply:
    progress = None if reply.progress is None else encode_progress(reply.progress)
    return wire.ProgressReply(
        incarnation=reply.incarnation,
        map_epoch=reply.map_epoch,
        progress=progress,
        begun=reply.begun,
        slot_owners="" if reply.slot_map is None else reply.slot_map.encode(),
    )


def decode_progress_reply(message: wire.ProgressReply) -> ProgressReply:
    progress = decode_progress(message.progress) if message.HasField("progress") else None
    slot_map = (
        SlotMap.decode(message.map_epoch, message.slot_owners) if message.slot_owners else None
    )
    return ProgressReply(
        message.incarnation, message.map_epoch, progress, dict(message.begun), slot_map
    )


# --- begin
# --------------------------------------------------------------------------------------------------


def encode_begin(
    spec: ModelSpec, vector: Mapping[str, int], dense: Mapping[str, object]
) -> wire.BeginRequest:
    tables = [
        wire.TableSpec(
            name=t.name,
            dim=t.dim,
            optimizer=t.optimizer,
            options=t.options,
            init_scale=t.init_scale,
            seed=t.seed,
            policy=t.policy,
            storage=t.storage,
        )
        for t in spec.tables
    ]
    shapes = [wire.Block(name=name, shape=shape) for name, shape in spec.dense.shapes.items()]
    return wire.BeginRequest(
        name=spec.name,
        digest=spec.digest,
        tables=tables,
        dense=wire.DenseSpec(
            shapes=shapes, optimizer=spec.dense.optimizer, options=spec.dense.options
        ),
        vector=vector,
        values=encode_arrays(
            {name: np.asarray(value, np.float32) for name, value in dense.items()}
        ),
    )


def decode_begin(message: wire.BeginRequest) -> tuple[ModelSpec, dict[str, int], dict[str, object]]:
    tables = tuple(
        TableSpec(
            t.name,
            t.dim,
            t.optimizer,
            dict(t.options),
            t.init_scale,
            t.seed,
            dict(t.policy),
            t.storage or "float32",
        )
        for t in message.tables
    )
    shapes = {block.name: tuple(block.shape) for block in message.dense.shapes}
    dense = DenseSpec(shapes, message.dense.optimizer, dict(message.dense.options))
    spec = ModelSpec(message.name, message.digest, tables, dense)
    values: dict[str, object] = dict(decode_arrays(message.values))
    return spec, dict(message.vector), values


# --- cuts
# --------------------------------------------------------------------------------------------------


def encode_mark_reply(reply: MarkReply) -> wire.MarkReply:
    progress = encode_progress(reply.progress)
    return wire.MarkReply(marked=reply.marked, incarnation=reply.incarnation, progress=progress)


def decode_mark_reply(message: wire.MarkReply) -> MarkReply:
    return MarkReply(message.marked, message.incarnation, decode_progress(message.progress))


def encode_prepare(slot_map: SlotMap, manifest_sha256: str) -> wire.PrepareRequest:
    return wire.PrepareRequest(
        map_epoch=slot_map.epoch, owners=slot_map.encode(), manifest_sha256=manifest_sha256
    )


def decode_prepare(message: wire.PrepareRequest) -> tuple[SlotMap, str]:
    return SlotMap.decode(message.map_epoch, message.owners), message.manifest_sha256


def encode_part_info(part: PartInfo) -> wire.PartInfo:
    return wire.PartInfo(
        shard=part.shard,
        url=part.url,
        sha256=part.sha256,
        bytes=part.bytes,
        rows=part.rows,
        tombstones=part.tombstones,
        kind=part.kind,
        progress=encode_progress(part.progress),
    )


def decode_part_info(m: wire.PartInfo) -> PartInfo:
    return PartInfo(
        m.shard, m.url, m.sha256, m.bytes, m.rows, m.tombstones, m.kind, decode_progress(m.progress)
    )


# --- clocks
# --------------------------------------------------------------------------------------------------


def encode_join_reply(reply: JoinReply) -> wire.JoinReply:
    epoch = encode_epoch(reply.epoch)
    return wire.JoinReply(
        epoch=epoch, clock=reply.clock, lease_ms=reply.lease_ms, staleness=reply.staleness
    )


def decode_join_reply(m: wire.JoinReply) -> JoinReply:
    return JoinReply(decode_epoch(m.epoch), m.clock, m.lease_ms, m.staleness)


def encode_start(request: StartRequest) -> wire.StartRequest:
    return wire.StartRequest(
        model=request.model,
        epoch=encode_epoch(request.epoch),
        chain=request.chain,
        start=request.start,
        end=request.end,
        barrier=request.barrier,
        ticket=request.ticket,
    )


def decode_start(m: wire.StartRequest) -> StartRequest:
    return StartRequest(
        m.model, decode_epoch(m.epoch), m.chain, m.start, m.end, m.barrier, m.ticket
    )


def encode_start_reply(reply: StartReply) -> wire.StartReply:
    return wire.StartReply(outcome=reply.outcome.value, clock=reply.clock, highest=reply.highest)


def decode_start_reply(message: wire.StartReply) -> StartReply:
    return StartReply(StartOutcome(message.outcome), message.clock, dict(message.highest))


def encode_renew_reply(incarnations: Mapping[int, int] | None) -> wire.RenewReply:
    return wire.RenewReply(fenced=incarnations is None, incarnations=incarnations or {})


def decode_renew_reply(message: wire.RenewReply) -> dict[int, int] | None:
    return None if message.fenced else dict(message.incarnations)


def encode_rung(rung: Rung) -> wire.Rung:
    return wire.Rung(staleness=rung.staleness, concurrency=rung.concurrency)


def decode_rung(message: wire.Rung) -> Rung:
    return Rung(message.staleness, message.concurrency)


def encode_bounds(bounds: Bounds) -> wire.BoundsReply:
    return wire.BoundsReply(
        ordered=encode_rung(bounds.ordered),
        paused=bounds.paused,
        learners=bounds.learners,
        governor=bounds.governor,
        governed=None if bounds.governed is None else encode_rung(bounds.governed),
        left_ms=bounds.left_ms,
        sequence=bounds.sequence,
        cut=bounds.cut,
    )


def decode_bounds(m: wire.BoundsReply) -> Bounds:
    governed = decode_rung(m.governed) if m.HasField("governed") else None
    return Bounds(
        decode_rung(m.ordered),
        m.paused,
        m.learners,
        m.governor,
        governed,
        m.left_ms,
        m.sequence,
        m.cut,
    )
