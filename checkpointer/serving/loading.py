"""From the store to something that answers: a checkpoint loaded from one manifest's chain (X3, I6).

A replica that holds the parent state goes on from it: it reads what has changed, also where the
checkpoint is a base, and pays for the rows that changed. Any other reads the base first.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from checkpointer.serving.request import of_rows
from checkpointer.serving.serving import WARMING, ServedModel, answers_of
from checkpointer.store import Catalogue, Damaged, Manifest, read_serving
from checkpointer.tables import ModelTables, ModelVersion, PrivateMemory, TableMemory
from learners.models import Scorer, code_of
from paramserver import ModelSpec, SlotMap
from paramserver.parts import ServingPart, decode_serving, serving_files
from paramserver.shard import Shard

#: Makes the memory of new tables.
MakeMemory = Callable[[], TableMemory]


def load(
    catalogue: Catalogue,
    name: str,
    sha256: str | None = None,
    held: ServedModel | None = None,
    memory: MakeMemory = PrivateMemory,
) -> ServedModel:
    """The checkpoint of this name, every file verified. Raises Damaged, naming the file that is not
    as it should be; then what `held` answers is what it was.

    Where deltas lead from `held` to it, its tables take them, and it can be gone on from no more;
    else new ones are made of the base. `held` answers as before in either case.
    """
    manifest = catalogue.manifest(name, sha256)
    known = held if held is not None and _can_follow(held, manifest) else None
    if known is None:
        tables = bring(catalogue, manifest, None, None, memory)
        return served_at(manifest, tables.current, tables, held)
    try:
        tables = bring(catalogue, manifest, known.manifest, known.tables, memory)
    except MemoryError:  # more rows than there is address space for
        return load(catalogue, name, sha256, None, memory)
    upon = known.version if tables is known.tables else ""
    return served_at(manifest, tables.current, tables, known, upon)


def served_at(
    manifest: Manifest,
    weights: ModelVersion,
    tables: ModelTables | None,
    held: ServedModel | None,
    upon: str = "",
) -> ServedModel:
    """The weights of a checkpoint as something that answers, by what `held` has made of the same
    definition. Raises Damaged."""
    if held is not None and _same_definition(held, manifest):
        correction = manifest.correction
        scorer = held.scorer.with_weights(weights.tables, weights.dense, correction)
    else:
        scorer = _scorer(manifest, weights)
    return ServedModel(manifest, weights, scorer, tables, upon, answers_of(scorer, held))


def bring(
    catalogue: Catalogue,
    manifest: Manifest,
    held: Manifest | None,
    tables: ModelTables | None,
    memory: MakeMemory = PrivateMemory,
) -> ModelTables:
    """Tables at a checkpoint: those at `held`, gone on with, or new ones. Raises Damaged."""
    steps = catalogue.serving_chain(manifest, held)
    before = "" if held is None else held.sha256
    if tables is None or not steps[0].upon:
        tables, before = _base(catalogue, steps[0].manifest, memory), steps[0].manifest.sha256
        steps = steps[1:]
    manifests = [step.manifest for step in steps]
    try:
        _go_on(catalogue, manifests, before, tables, rebases=held is not None)
    except _OtherBits:
        return bring(catalogue, manifest, None, None, memory)
    return tables


class _OtherBits(Exception):
    """A full part is rounded as these tables are not: they are made anew of it (X3)."""


def _can_follow(held: ServedModel, manifest: Manifest) -> bool:
    """Whether what is held is the newest that its tables hold, and of the same definition."""
    return (
        held.tables is not None
        and held.tables.whole
        and held.tables.current is held.weights
        and _same_definition(held, manifest)
    )


def _same_definition(held: ServedModel, manifest: Manifest) -> bool:
    before = held.manifest
    return before.spec == manifest.spec and before.model_config == manifest.model_config


def _base(catalogue: Catalogue, manifest: Manifest, memory: MakeMemory) -> ModelTables:
    """New tables with all that a full checkpoint says, one part after another."""
    if not manifest.parts:
        raise Damaged(f"{manifest.name}: has no parts")
    tables: ModelTables | None = None
    bits = set[int]()
    for part in manifest.parts:
        found = read_serving(catalogue, manifest, part, upon=False)
        bits.add(found.bits)
        if tables is None:
            rows = {name: len(keys) for name, (keys, _) in found.tables.items()}
            expected = {name: count * len(manifest.parts) for name, count in rows.items()}
            tables = ModelTables(manifest.spec, expected, _secret(manifest), memory())
        _apply(tables, manifest, [found])
    assert tables is not None
    tables.bits = min(bits) if len(bits) == 1 else 0
    _publish(tables, manifest)
    return tables


def _go_on(
    catalogue: Catalogue,
    manifests: list[Manifest],
    before: str,
    tables: ModelTables,
    rebases: bool,
) -> None:
    """What changed upon the cut of manifest `before`. All is read and verified before anything is
    changed: what is damaged harms nothing. Raises _OtherBits where `rebases`."""
    read, bits = [], tables.bits
    for one in manifests:
        if one.parent != before:
            raise Damaged(f"{one.name}: builds on {(one.parent or 'nothing')[:12]}, not {before}")
        parts = [read_serving(catalogue, one, part, upon=True) for part in one.parts]
        for part, found in zip(one.parts, parts, strict=True):
            if found.bits != bits and part.kind == "full" and rebases:
                raise _OtherBits
            bits = found.bits if found.bits == bits else 0
        read.append((one, parts))
        before = one.sha256
    for one, parts in read:
        _apply(tables, one, parts)
        _publish(tables, one)
    tables.bits = bits


def _apply(tables: ModelTables, manifest: Manifest, parts: list[ServingPart]) -> None:
    try:
        tables.apply(parts)
    except ValueError as error:
        raise Damaged(f"{manifest.name}: {error}") from error


def _publish(tables: ModelTables, manifest: Manifest) -> None:
    try:
        tables.publish()
    except ValueError as error:
        raise Damaged(f"{manifest.name}: {error}") from error


def _scorer(manifest: Manifest, weights: ModelVersion) -> Scorer:
    """Raises Damaged where config and weights are not of each other, or the code is another."""
    try:
        scorer = Scorer.from_weights(
            manifest.model_config, weights.tables, weights.dense, manifest.correction
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(
            f"{manifest.name}: its model config does not fit its weights: {error}"
        ) from error
    trained, here = code_of(manifest.spec.digest), code_of(scorer.model.spec.digest)
    if trained and trained != here:
        kind = manifest.model_config.get("kind")
        raise Damaged(
            f"{manifest.name}: the code of {kind} is {here} here, and was {trained} where it was "
            f"trained; install that"
        )
    return scorer


def _secret(manifest: Manifest) -> int:
    """64 bits that who does not know the model's secret cannot tell."""
    said = f"serving tables {manifest.model_config.get('hash_secret', '')}"
    return int.from_bytes(hashlib.blake2b(said.encode(), digest_size=8).digest(), "little")


def rehearse(spec: ModelSpec, model_config: Mapping[str, Any]) -> float:
    """Go the way of a checkpoint with a model that nobody has trained: from a shard through the
    bytes of a file to an answer. Compiles, or takes from the cache, every kernel that `load` and
    `predict` need, before they are waited for.
    """
    shard = Shard(0, 1, SlotMap.even(1))
    shard.begin(
        spec, {}, {name: np.zeros(shape, np.float32) for name, shape in spec.dense.shapes.items()}
    )
    _, pieces = serving_files(shard.snapshot(spec.name))[0]
    tables = ModelTables(spec, {})
    tables.apply([decode_serving(b"".join(pieces), spec)])
    weights = tables.publish()
    scorer = Scorer.from_weights(model_config, weights.tables, weights.dense)
    answers = answers_of(scorer, None)
    if answers is not None:
        for body in WARMING:
            values = answers.decoder.decode(body, 1).values
            answers.answerer.predict(values, weights.tables, weights.dense)
    encoder = scorer.model.encoder
    asked = of_rows([{}], encoder.features, encoder.reads_time)
    return float(scorer.predict(asked.columns)[0])
