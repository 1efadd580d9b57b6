"""Manifests and checkpoints to test with."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from checkpointer.serving import of_rows
from checkpointer.store import (
    Catalogue,
    Definition,
    Evaluation,
    Gates,
    Manifest,
    Part,
    Ref,
    TakenCut,
    assemble,
    ref,
)
from learners import ModelConfig
from learners.models import Model, make_model
from paramserver import (
    AllowRequest,
    ChainProgress,
    DenseSpec,
    Epoch,
    Keys,
    ModelSpec,
    Outcome,
    PushRequest,
    ServingFile,
    SlotMap,
    TableSpec,
)
from paramserver.parts import CutChanges, Snapshot, encode_part, part_info, serving_files
from paramserver.shard import Shard

SPEC = ModelSpec(
    name="clicks",
    digest="d1",
    tables=(TableSpec("w", 1, "ftrl", {"alpha": 0.4}),),
    dense=DenseSpec({"bias": (1,)}, "adagrad", {"rate": 0.1}),
)


def manifest(number: int = 0, cut: str = "c", end: int | None = None, **changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "model": "clicks",
        "number": number,
        "cut": cut,
        "spec": SPEC,
        "model_config": {"kind": "lr", "features": [{"name": "user", "kind": "categorical"}]},
        "chains": {
            "label/0": ChainProgress(
                end if end is not None else number * 100, (1 << 127) + number, 0, number
            )
        },
        "next_record": {0: number},
        "event_time_max_ms": number * 1000,
        "created_ms": number * 10,
        "evaluation": Evaluation(),
        "parent": None,
        "code_version": "0.1.0",
        "parts": (),
    }
    return Manifest(**{**fields, **changes})


Write = Callable[..., Ref]


def write_checkpoint(
    catalogue: Catalogue,
    number: int,
    outcome: str | None = "published",
    shards: int = 2,
    **changes: Any,
) -> Ref:
    """One complete checkpoint with parts of a few bytes; `outcome` None = the gates were not
    asked."""
    draft = manifest(number, **changes)
    parts = []
    for shard in range(shards):
        data = f"part {shard} of {draft.name}".encode()
        catalogue.files.write(f"clicks/{draft.name}/part-{shard}.safetensors", data)
        digest = hashlib.sha256(data).hexdigest()
        parts.append(
            Part(
                shard,
                f"part-{shard}.safetensors",
                digest,
                len(data),
                1,
                0,
                changes.pop("kind", "full"),
            )
        )
    whole = manifest(number, **changes, parts=tuple(parts))
    ref = catalogue.write_manifest(whole)
    if outcome is not None:
        catalogue.write_gates(ref.name, Gates(outcome, "", 0))
        if outcome == "published":
            catalogue.write_published(ref)
    return ref


SHARDS = 2


SLOT_MAP = SlotMap.even(SHARDS)


def model_config(**changes: Any) -> ModelConfig:
    """A logistic regression on source and item whose rows a test can set: SGD with rate 1."""
    fields = {
        "categorical": ("source", "item"),
        "table_optimizer": "sgd",
        "table_options": {"rate": 1.0},
        "prior_rate": 0.25,
    }
    return ModelConfig(**{**fields, **changes})


def define_model(config: ModelConfig | None = None) -> Definition:
    model = make_model(config or model_config())
    return Definition(model.spec, model.config.to_dict(), dict(model.initial_dense()))


def trained_shard(
    index: int, model: Model, keys: dict[str, Keys], number: int, step: float
) -> Shard:
    """A shard to which one push has come: the weight of every key of its own has been moved by
    `step`."""
    widths = {table.name: table.dim for table in model.spec.tables}
    shard = Shard(index, 1, SLOT_MAP)
    shard.allow(AllowRequest(1, 1, (Epoch(1, 1),)))
    shard.begin(model.spec, {"label/0": 0}, dict(model.initial_dense()))
    mine = {t: k[SLOT_MAP.split(k)[index]] for t, k in keys.items()}
    push = PushRequest(
        model.name,
        Epoch(1, 1),
        SLOT_MAP.epoch,
        1,
        "label/0",
        0,
        number + 1,
        0,
        1,
        0,
        number,
        1,
        1000 * number + 1,
        keys=mine,
        gradients={t: np.full((len(k), widths[t]), -step, np.float32) for t, k in mine.items()},
    )
    assert shard.push(push).outcome is Outcome.APPLIED
    return shard


def train_checkpoint(
    catalogue: Catalogue,
    number: int,
    rows: list[dict[str, Any]] | None = None,
    step: float = 1.0,
    config: ModelConfig | None = None,
    outcome: str | None = "published",
    parent: Manifest | None = None,
    delta: bool = False,
    serving: bool = False,
) -> Manifest:
    """A real checkpoint from real shards: the weight of every key in `rows` has been moved by
    `step`. `delta`: told as what has changed since `parent`.
    `serving`: with the files that replicas read; all rows have changed since `parent`.
    """
    model = make_model(config or model_config())
    request = of_rows(rows or [], model.encoder.features, model.encoder.reads_time)
    keys = {
        t: np.unique(k)
        for t, k in model.kind.keys(model.encoder.encode(request.columns, True)).items()
    }
    infos = []
    for index in range(SHARDS):
        shard = trained_shard(index, model, keys, number, step)
        snapshot = shard.snapshot(model.name)
        if delta and parent is not None:
            snapshot = replace(snapshot, parent=parent.sha256)  # all of it was touched since then
        data = encode_part(snapshot)
        path = f"{model.name}/{number:08d}-c/part-{index}.safetensors"
        catalogue.files.write(path, data)
        info = part_info(snapshot, catalogue.files.url(path), data)
        if serving:
            info = replace(info, serving=write_serving(catalogue, path, snapshot, parent))
        infos.append(info)
    definition = define_model(model.config)
    whole = assemble(
        definition,
        TakenCut(number, "c", {"label/0": number + 1}, number, "0.1.0"),
        infos,
        parent,
        Evaluation(),
    )
    catalogue.write_manifest(whole)
    if outcome is not None:
        catalogue.write_gates(whole.name, Gates(outcome, "", 0))
        if outcome == "published":
            catalogue.write_published(ref(whole))
    return whole


def write_serving(
    catalogue: Catalogue, path: str, snapshot: Snapshot, parent: Manifest | None
) -> tuple[ServingFile, ...]:
    if parent is not None and snapshot.parent is None:
        snapshot = replace(snapshot, changes=CutChanges(parent.sha256, 0, {}))
    encoded = serving_files(snapshot)
    for file, pieces in encoded:
        catalogue.files.write(f"{path.rsplit('/', 1)[0]}/{file.path}", b"".join(pieces))
    return tuple(file for file, _ in encoded)
