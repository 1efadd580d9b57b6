"""The manifest of a checkpoint: everything a shard, a replica or an audit must know of one cut
(X1-X4, I5).

`manifest.json` is written last, so a checkpoint without it does not exist. It is canonical JSON
(sorted keys, no blanks, no NaN), so one manifest has one spelling and one checksum: the SHA-256 of
the file's bytes, by which announcements and children name it. Inside, `body_sha256` lets a reader
who was told no checksum find a flipped byte.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

from checkpointer.store.slices import Slices, joined
from paramserver import (
    ChainProgress,
    DenseSpec,
    ModelSpec,
    PartInfo,
    Progress,
    ServingFile,
    SlotMap,
    TableSpec,
)
from stream import LABEL, kind_of

#: 2 since parts have files that replicas read beside them; 1 can still be read.
FORMAT = 2
FILE = "manifest.json"


class Damaged(ValueError):
    """A file of a checkpoint is missing, altered, or of a newer format; the message names the
    file and the fault."""


class NewerFormat(Damaged):
    """A later version has written it: nobody goes on from what lies before it by himself."""


@dataclass(frozen=True)
class Part:
    """One shard's file. `path` is relative to the checkpoint's folder. `kind` is "full" or
    "delta" (X2)."""

    shard: int
    path: str
    sha256: str
    bytes: int
    rows: int
    tombstones: int = 0
    kind: str = "full"
    #: what replicas read instead: the delta upon the manifest's parent, all weights, or both
    serving: tuple[ServingFile, ...] = ()

    def serving_file(self, parent: str | None) -> ServingFile | None:
        """The delta upon a manifest, or (None) all weights; None = there is none."""
        return next((file for file in self.serving if file.parent == (parent or "")), None)


@dataclass(frozen=True)
class Evaluation:
    """Sums over scored batches (E1, E2). Means are sums over rows; all sums are over natural-log
    losses.

    `served_*` are over the rows that carry the prediction of a replica. `batches` counts records of
    `evaluations`.
    """

    batches: int = 0
    rows: int = 0
    log_loss_sum: float = 0.0
    prediction_sum: float = 0.0
    label_sum: float = 0.0
    base_log_loss_sum: float = 0.0
    served_rows: int = 0
    served_log_loss_sum: float = 0.0
    served_prediction_sum: float = 0.0
    served_label_sum: float = 0.0
    #: by the columns that learners slice by
    slices: Slices = field(default_factory=dict)

    def __add__(self, other: "Evaluation") -> "Evaluation":
        sums = {
            f.name: getattr(self, f.name) + getattr(other, f.name)
            for f in fields(self)
            if f.name != "slices"
        }
        return Evaluation(**sums, slices=joined(self.slices, other.slices))


@dataclass(frozen=True)
class Definition:
    """What a model is, as its config says: what a manifest carries so that a replica needs
    nothing else."""

    spec: ModelSpec
    #: the whole model config with its features, as `learners.models.model` writes it
    model_config: dict[str, Any]
    #: initial dense arrays by name, as `ShardPort.begin` takes them
    dense: dict[str, Any]
    #: names the columns of `examples` it learns from
    schema: str = ""
    #: kinds of chains that answer barriers (E3)
    barrier_kinds: tuple[str, ...] = (LABEL,)
    #: how answers are corrected (`learners.models.delayed_feedback.Correction`) until learners say
    #: otherwise; {} = they are not
    correction: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """One complete cut of one model."""

    model: str
    number: int  # 0 is the beginning (S5); grows by one, also after a rollback
    cut: str  # the name under which the shards marked it
    spec: ModelSpec
    #: the whole model config with its features, as `learners.models.model` writes it: a replica
    #: needs nothing else
    model_config: dict[str, Any]
    #: chain -> where every shard stands: E, row hash (S7), barrier (E3), rows applied
    chains: dict[str, ChainProgress]
    #: `examples` partition -> the record to read next; a partition without one is read from its
    #: beginning
    next_record: dict[int, int]
    #: largest event time learned, ms since 1970; 0 = none yet
    event_time_max_ms: int
    created_ms: int
    #: sums since the parent's cut, as far as they had been read when this was written
    evaluation: Evaluation
    #: SHA-256 of the parent's manifest file; None = this is where the model began
    parent: str | None
    code_version: str
    parts: tuple[Part, ...]
    #: folder of the parent, so that nobody has to look for its checksum; "" = not said
    parent_name: str = ""
    #: the slot map that this cut is restored under: its epoch and `SlotMap.encode` (S6); "" = as
    #: configured
    map_epoch: int = 0
    slot_owners: str = ""
    schema: str = ""
    #: kinds of chains that answer barriers (E3)
    barrier_kinds: tuple[str, ...] = (LABEL,)
    #: what makes a probability of a click of what the model says
    #: (`learners.models.delayed_feedback.Correction`); {} = nothing
    correction: dict[str, Any] = field(default_factory=dict)
    format: int = field(default=FORMAT)

    @property
    def name(self) -> str:
        """The checkpoint's folder, and the model version that predictions carry."""
        return folder(self.number, self.cut)

    @property
    def vector(self) -> dict[str, int]:
        """chain -> E: what a shard marks."""
        return {chain: progress.end for chain, progress in self.chains.items()}

    @property
    def barrier(self) -> int:
        """The period that every chain which answers barriers has reached (E3); 0 = none."""
        answer = [
            at.barrier for chain, at in self.chains.items() if kind_of(chain) in self.barrier_kinds
        ]
        return min(answer, default=0)

    @property
    def at_ms(self) -> int:
        """When it was cut, by the event time that it had learned."""
        return self.event_time_max_ms or self.created_ms

    @property
    def is_full(self) -> bool:
        return all(part.kind == "full" for part in self.parts)

    @property
    def follows(self) -> bool:
        """Whether a replica that holds the parent can go on from that: a part without a delta then
        replaces what its slots hold."""
        return self.parent is not None and any(
            part.kind == "delta" or part.serving_file(self.parent) is not None
            for part in self.parts
        )

    def encode(self) -> bytes:
        """The bytes of `manifest.json`."""
        body = _body(self)
        digest = hashlib.sha256(_canonical(body)).hexdigest()
        return _canonical({"format": self.format, "body_sha256": digest, "body": body})

    @cached_property
    def sha256(self) -> str:
        """By which announcements and children name this manifest. One that was read keeps the
        checksum of its file."""
        return hashlib.sha256(self.encode()).hexdigest()


def folder(number: int, cut: str) -> str:
    """`00000012-19a7f3`: sorts by number; the cut keeps two attempts at one number apart."""
    if number < 0 or not cut or "/" in cut:
        raise ValueError(
            f"checkpoint number {number}, cut {cut!r}: expected a number >= 0 and a name without "
            f"'/'"
        )
    return f"{number:08d}-{cut}"


def decode(data: bytes, sha256: str | None = None, name: str = FILE) -> Manifest:
    """The manifest in `data`. Raises Damaged, naming `name`, unless it is whole, of a known format,
    and (if given) has this checksum."""
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise Damaged(f"{name}: checksum differs from the announced {sha256[:12]}")
    try:
        outer = json.loads(data)
        format_, digest, body = outer["format"], outer["body_sha256"], outer["body"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"{name}: not a manifest ({type(error).__name__}: {error})") from error
    if not isinstance(format_, int) or format_ < 1:
        raise Damaged(f"{name}: format {format_!r}, expected a number from 1 to {FORMAT}")
    try:
        is_whole = hashlib.sha256(_canonical(body)).hexdigest() == digest
        is_canonical = _canonical(outer) == data
    except ValueError as error:  # what no manifest is written with: 1e999, half a character
        raise Damaged(f"{name}: {error}") from error
    if format_ > FORMAT and is_whole:
        raise NewerFormat(
            f"{name}: format {format_!r} is newer than {FORMAT}, by a later version; start that "
            "one, or `everspun checkpoints restore NUMBER --training` goes on from an older one"
        )
    if not is_whole or not is_canonical:
        raise Damaged(f"{name}: contents differ from their checksum")
    try:
        manifest = _manifest(format_, body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(f"{name}: {type(error).__name__}: {error}") from error
    manifest.__dict__["sha256"] = hashlib.sha256(data).hexdigest()
    return manifest


def agree(progress: Mapping[int, Progress]) -> tuple[dict[str, ChainProgress], dict[int, int], int]:
    """What all shards (shard -> progress) say of one cut: chains, next records, largest event time
    (I5).

    Ends, hashes and rows must be equal. A barrier may have reached some shards only, and so may a
    next record: the smaller one counts (none, where a shard has none), and what is read again
    changes nothing. Raises ValueError naming shard and chain.
    """
    shards = sorted(progress)
    if not shards:
        raise ValueError("a cut has at least one shard")
    first = progress[shards[0]]
    for shard in shards[1:]:
        other = progress[shard]
        if other.chains.keys() != first.chains.keys():
            odd = sorted(other.chains.keys() ^ first.chains.keys())
            raise ValueError(f"shard {shard} and shard {shards[0]} differ in chains {odd}")
        for chain, mine in other.chains.items():
            there = first.chains[chain]
            if (mine.end, mine.row_hash, mine.rows) != (there.end, there.row_hash, there.rows):
                raise ValueError(
                    f"chain {chain}: shard {shard} stands at {mine}, shard {shards[0]} at {there}"
                )
    chains = {
        chain: ChainProgress(
            end=at.end,
            row_hash=at.row_hash,
            barrier=min(progress[s].chains[chain].barrier for s in shards),
            rows=at.rows,
        )
        for chain, at in first.chains.items()
    }
    known = set(first.next_record).intersection(*(progress[s].next_record for s in shards))
    next_record = {p: min(progress[s].next_record[p] for s in shards) for p in sorted(known)}
    return chains, next_record, max(progress[s].event_time_max_ms for s in shards)


class TakenCut(NamedTuple):
    """Which cut a manifest is of, when it was taken, and by what it is written."""

    number: int  # of the checkpoint
    cut: str  # what the shards call it
    vector: Mapping[str, int]  # chain -> position
    created_ms: int  # since 1970
    code_version: str


def assemble(
    definition: Definition,
    taken: TakenCut,
    infos: Sequence[PartInfo],
    parent: Manifest | None,
    evaluation: Evaluation,
    slot_map: SlotMap | None = None,
    late_share: float | None = None,
) -> Manifest:
    """The manifest of a cut whose parts are written. ValueError unless every part stands at the
    cut's vector (I5).

    `slot_map`: which shards restore what from it, not necessarily those that wrote it (S6).
    `late_share`: that learners corrected by as they scored; None = they have said none since the
    parent.
    """
    chains, next_record, event_time_max_ms = agree({info.shard: info.progress for info in infos})
    for chain, end in taken.vector.items():
        if chain not in chains or chains[chain].end != end:
            raise ValueError(
                f"chain {chain}: the parts stand at {chains.get(chain)}, the cut was named at {end}"
            )
    if parent is not None and parent.spec.digest != definition.spec.digest:
        raise ValueError(
            f"model {definition.spec.name!r}: {definition_change(parent, definition)} since "
            f"checkpoint {parent.name}; "
            "give the changed model a new name, or change it back"
        )
    return Manifest(
        model=definition.spec.name,
        number=taken.number,
        cut=taken.cut,
        spec=definition.spec,
        model_config=definition.model_config,
        chains=chains,
        next_record=next_record,
        event_time_max_ms=event_time_max_ms,
        created_ms=taken.created_ms,
        evaluation=evaluation,
        parent=None if parent is None else parent.sha256,
        code_version=taken.code_version,
        parts=parts_of(infos),
        parent_name="" if parent is None else parent.name,
        map_epoch=0 if slot_map is None else slot_map.epoch,
        slot_owners="" if slot_map is None else slot_map.encode(),
        schema=definition.schema,
        barrier_kinds=definition.barrier_kinds,
        correction=_correction(definition, parent, late_share),
    )


def _correction(
    definition: Definition, parent: Manifest | None, late_share: float | None
) -> dict[str, Any]:
    """The configured one, with the late share that the stream has shown: since the parent, else
    until then."""
    if not definition.correction:
        return {}
    before = {} if parent is None else parent.correction
    share = (
        before.get("share", definition.correction["share"]) if late_share is None else late_share
    )
    return {**definition.correction, "share": share}


def definition_change(before: Manifest, now: Definition) -> str:
    """What makes a definition another one than a checkpoint's: keys of the config, shapes, or
    code, in one line."""
    old, new = before.model_config, json.loads(json.dumps(now.model_config))
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    found = [f"{key} was {_short(old.get(key))} and is {_short(new.get(key))}" for key in keys[:3]]
    found += [f"{len(keys) - 3} more keys have changed"] if len(keys) > 3 else []
    shapes = {name: tuple(shape) for name, shape in now.spec.dense.shapes.items()}
    was = {name: tuple(shape) for name, shape in before.spec.dense.shapes.items()}
    names = sorted(name for name in shapes.keys() | was.keys() if shapes.get(name) != was.get(name))
    found += [
        f"parameter {name} was {was.get(name)} and is {shapes.get(name)}" for name in names[:1]
    ]
    codes = before.spec.digest.partition("-")[2], now.spec.digest.partition("-")[2]
    if codes[0] != codes[1]:
        found.append(f"the code of {new.get('kind')} has changed")
    return "; ".join(found) or f"its definition was {before.spec.digest} and is {now.spec.digest}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def parts_of(infos: Sequence[PartInfo]) -> tuple[Part, ...]:
    """The parts as a manifest names them: by file name, in the order of shards."""
    return tuple(
        Part(
            i.shard,
            i.url.rsplit("/", 1)[-1],
            i.sha256,
            i.bytes,
            i.rows,
            i.tombstones,
            i.kind,
            i.serving,
        )
        for i in sorted(infos, key=lambda info: info.shard)
    )


def part_problem(part: Part | ServingFile, data: bytes) -> str | None:
    """What is wrong with the bytes of a part, or of what replicas read beside it, or None."""
    if len(data) != part.bytes:
        return f"{part.path}: {len(data)} bytes, the manifest says {part.bytes}"
    if hashlib.sha256(data).hexdigest() != part.sha256:
        return f"{part.path}: contents differ from the manifest's checksum {part.sha256[:12]}"
    return None


# --- JSON
# --------------------------------------------------------------------------------------------------


def _canonical(value: Any) -> bytes:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _body(manifest: Manifest) -> dict[str, Any]:
    """JSON has no integers of 128 bits that every reader keeps: row hashes travel as 32
    hexadecimal digits."""
    body = {name: getattr(manifest, name) for name in _PLAIN}
    body["name"], body["barrier"] = manifest.name, manifest.barrier
    body["barrier_kinds"] = list(manifest.barrier_kinds)
    body["slot_owners"] = manifest.slot_owners
    if manifest.correction:  # in most there is none
        body["correction"] = manifest.correction
    body["spec"] = asdict(manifest.spec)
    body["chains"] = {
        chain: {
            "end": at.end,
            "row_hash": f"{at.row_hash:032x}",
            "barrier": at.barrier,
            "rows": at.rows,
        }
        for chain, at in manifest.chains.items()
    }
    body["next_record"] = {
        str(partition): record for partition, record in manifest.next_record.items()
    }
    body["evaluation"] = asdict(manifest.evaluation)
    body["parts"] = [_part_body(part) for part in manifest.parts]
    if manifest.parent_name:
        body["parent_name"] = manifest.parent_name
    return body


def _part_body(part: Part) -> dict[str, Any]:
    body = asdict(replace(part, serving=()))
    del body["serving"]
    if part.serving:
        body["serving"] = [file._asdict() for file in part.serving]
    return body


def _part(body: dict[str, Any]) -> Part:
    serving = tuple(ServingFile(**file) for file in body.get("serving", ()))
    return Part(**{**body, "serving": serving})


_PLAIN = (
    "model",
    "number",
    "cut",
    "model_config",
    "event_time_max_ms",
    "created_ms",
    "parent",
    "code_version",
    "map_epoch",
    "schema",
)


def _manifest(format_: int, body: dict[str, Any]) -> Manifest:
    return Manifest(
        **{name: body[name] for name in _PLAIN},
        spec=spec_from(body["spec"]),
        chains={
            chain: ChainProgress(at["end"], int(at["row_hash"], 16), at["barrier"], at["rows"])
            for chain, at in body["chains"].items()
        },
        next_record={int(partition): record for partition, record in body["next_record"].items()},
        evaluation=Evaluation(**body["evaluation"]),
        parts=tuple(_part(part) for part in body["parts"]),
        parent_name=body.get("parent_name", ""),
        barrier_kinds=tuple(body.get("barrier_kinds", (LABEL,))),
        slot_owners=body.get("slot_owners", ""),
        correction=body.get("correction", {}),
        format=format_,
    )


def spec_from(body: dict[str, Any]) -> ModelSpec:
    """The inverse of `dataclasses.asdict`, also after a way through JSON."""
    dense = body["dense"]
    shapes = {name: tuple(shape) for name, shape in dense["shapes"].items()}
    return ModelSpec(
        name=body["name"],
        digest=body["digest"],
        tables=tuple(TableSpec(**table) for table in body["tables"]),
        dense=DenseSpec(shapes, dense["optimizer"], dense["options"]),
    )
