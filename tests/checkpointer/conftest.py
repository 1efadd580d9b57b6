"""Manifests and checkpoints to test with."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from checkpointer.announcement import Ref
from checkpointer.catalogue import Catalogue, Gates
from checkpointer.manifest import Evaluation, Manifest, Part
from paramserver.messages import ChainProgress, DenseSpec, ModelSpec, TableSpec

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
        "chains": {"label/0": ChainProgress(end if end is not None else number * 100, (1 << 127) + number, 0, number)},
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


@pytest.fixture
def make() -> Callable[..., Manifest]:
    return manifest


def write_checkpoint(
    catalogue: Catalogue, number: int, outcome: str | None = "published", shards: int = 2, **changes: Any
) -> Ref:
    """One complete checkpoint with parts of a few bytes; `outcome` None = the gates were not asked."""
    draft = manifest(number, **changes)
    parts = []
    for shard in range(shards):
        data = f"part {shard} of {draft.name}".encode()
        catalogue.files.write(f"clicks/{draft.name}/part-{shard}.safetensors", data)
        digest = hashlib.sha256(data).hexdigest()
        parts.append(Part(shard, f"part-{shard}.safetensors", digest, len(data), 1, 0, changes.pop("kind", "full")))
    whole = manifest(number, **changes, parts=tuple(parts))
    ref = catalogue.write_manifest(whole)
    if outcome is not None:
        catalogue.write_gates(ref.name, Gates(outcome, "", 0))
        if outcome == "published":
            catalogue.write_published(ref)
    return ref


@pytest.fixture
def write() -> Write:
    return write_checkpoint
