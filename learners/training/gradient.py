"""From the rows of a batch and what was pulled for them to what is pushed: predictions, gradient,
row hash.

A gradient is the sum over the batch of each key's gradient (or the mean: `reduction`), with the
examples' weights. It is looked at whole before anything is sent: a batch with a value that is not
finite is pushed empty, with the reason, to every shard (S4). Its row hash covers all rows of its
range all the same: h says what was read, the reason what was not usable.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from learners.models import (
    NONE,
    Correction,
    Encoded,
    Floats,
    Keys,
    Model,
    ModuleFault,
    Places,
    clip,
    scaled,
    unique_keys,
    wrong_column,
)
from learners.pacing import Batch
from learners.training.clipping import row_scales
from learners.training.key_sharding import KeySharding
from paramserver import PullReply, Rows, SlotMap
from stream.internal_topics import decode_examples, row_hash_sum, rows_from, rows_of

#: Why a batch is pushed empty: its bytes are no batch; its columns are of another kind than
#: declared; a gradient that is not finite; a retraction that does not say what to learn again; a
#: user's own module that fails for it.
CAUSES = UNREADABLE, COLUMNS, NOT_FINITE, RETRACTION, MODULE = (
    "unreadable",
    "columns",
    "not_finite",
    "retraction",
    "module",
)


@dataclass(frozen=True)
class Prepared:
    """Rows, encoded once. `keys[table]` (m,) are distinct and rising; `places[table]`,
    in the shape of `Kind.keys`, index them."""

    rows: pa.RecordBatch
    encoded: Encoded
    keys: dict[str, Keys]
    places: Places
    reason: str = ""  # why the rows could not be read; there are none then
    cause: str = ""  # of the reason: UNREADABLE or COLUMNS
    _shardings: dict[int, dict[str, KeySharding]] = field(
        default_factory=dict
    )  # by epoch of the map

    def shardings(self, slot_map: SlotMap) -> dict[str, KeySharding]:
        """table -> its keys by shard. Worked out once for a map: pulls, rows and gradients all
        ask."""
        found = self._shardings.get(slot_map.epoch)
        if found is None:
            found = {table: KeySharding.of(keys, slot_map) for table, keys in self.keys.items()}
            self._shardings[slot_map.epoch] = found
        return found


@dataclass(frozen=True)
class BatchGradients:
    """The gradient of one range. With a `reason`, `keys`, `gradients` and `dense` are empty
    (S4)."""

    rows: pa.RecordBatch | None
    prediction: Floats = field(default_factory=lambda: np.empty(0, np.float32))
    keys: dict[str, Keys] = field(default_factory=dict)
    gradients: dict[str, Rows] = field(default_factory=dict)
    dense: dict[str, Floats] = field(default_factory=dict)
    row_hash: int = 0
    event_time_max_ms: int = 0
    reason: str = ""
    cause: str = ""  # of the reason, one of CAUSES
    rewrites: bool = False  # `gradients` are whole rows (S8)
    clipped_rows: int = 0  # that reach further than one row may (`learners.training.clipping`)

    @property
    def row_count(self) -> int:
        return 0 if self.rows is None else int(self.rows.num_rows)


#: What is pushed for a range without rows.
EMPTY = BatchGradients(None)


def rows_between(rows: pa.RecordBatch, batch: Batch, start: int, end: int) -> pa.RecordBatch:
    """The rows of a record that stand in the piece `[start, end)` of this batch."""
    piece = rows_of(rows, batch.chain, batch.record_end, start, end)
    return rows_from(piece, batch.floor) if batch.floor else piece


def read(model: Model, batch: Batch) -> Prepared:
    """The rows of a record of `examples` that are meant; one that cannot be read has a reason."""
    try:
        rows = decode_examples(batch.value)
        if wrong := wrong_column(rows.schema, model.encoder.features):
            return _nothing(model, f"the record is set aside: {wrong}", COLUMNS)
        return prepare(model, rows_between(rows, batch, batch.start, batch.end))
    except (ValueError, KeyError) as error:  # of Arrow, of its columns
        return _nothing(model, f"the record cannot be read: {error}", UNREADABLE)


def _nothing(model: Model, reason: str, cause: str) -> Prepared:
    empty = Encoded(np.empty((0, 0), np.uint64), np.empty((0, 0), np.float32))
    nothing = {table.name: np.empty(0, np.uint64) for table in model.spec.tables}
    return Prepared(pa.record_batch([], names=[]), empty, nothing, {}, reason, cause)


def prepare(model: Model, rows: pa.RecordBatch) -> Prepared:
    """Encode rows of `examples` and find their distinct keys."""
    encoded = model.encoder.encode(rows)
    distinct, places = {}, {}
    for table, keys in model.kind.keys(encoded).items():
        distinct[table], places[table] = unique_keys(keys)
    return Prepared(rows, encoded, distinct, places)


def part(
    model: Model, prepared: Prepared, pulled: dict[str, Rows], batch: Batch, start: int, end: int
) -> tuple[Prepared, dict[str, Rows]]:
    """The same for the rows in the piece `[start, end)` of the batch alone, with their share of
    what was pulled."""
    rows = prepared.rows if prepared.reason else rows_between(prepared.rows, batch, start, end)
    if rows.num_rows == prepared.rows.num_rows:
        return prepared, pulled
    piece = prepare(model, rows)
    return piece, {
        t: pulled[t][np.searchsorted(prepared.keys[t], keys)] for t, keys in piece.keys.items()
    }


def compute(
    model: Model,
    prepared: Prepared,
    pulled: dict[str, Rows],
    dense: dict[str, Floats],
    correction: Correction = NONE,
) -> BatchGradients:
    """Predict and differentiate. `pulled[table]` (m, dim) belongs to `prepared.keys[table]`.

    `correction`: of what the labels did not know yet. Its weights come from a forward pass of their
    own, so that no gradient flows through them; `Computed.prediction` is the corrected answer."""
    rows = prepared.rows
    if rows.num_rows == 0:
        return replace(EMPTY, reason=prepared.reason, cause=prepared.cause)
    label = rows.column("label").to_numpy().astype(np.float32)
    weight = rows.column("weight").to_numpy().copy()
    if model.config.reduction == "mean":
        weight = weight / np.float32(rows.num_rows)
    read = scaled(model.config, prepared.encoded, dense)
    scales, clipped_rows = row_scales(model.config, read)
    weight = weight * scales
    whole = without_gradient(rows)
    try:
        if correction.weighs:
            said = model.kind.predict(prepared.places, pulled, dense, prepared.encoded)
            weight = weight * correction.weights(said, label)
        p, gradients, dense_gradients = model.kind.differentiate(
            prepared.places, pulled, dense, prepared.encoded, label, weight
        )
    except ModuleFault as fault:
        return replace(whole, reason=str(fault), cause=MODULE)
    constants = model.kind.constants
    dense_gradients = {
        name: array for name, array in dense_gradients.items() if name not in constants
    }
    reason = not_finite(model, prepared, pulled, p, gradients, dense_gradients)
    if reason:
        # Predictions that are not finite say nothing; the batch is not scored.
        return replace(whole, reason=reason, cause=NOT_FINITE)
    return replace(
        whole,
        prediction=clip(correction.answer(p)),
        keys=prepared.keys,
        gradients=gradients,
        dense=dense_gradients,
        clipped_rows=clipped_rows,
    )


def without_gradient(rows: pa.RecordBatch) -> BatchGradients:
    """Of a batch, one row at least, what is said of it whether it has a gradient or not."""
    return replace(
        EMPTY,
        rows=rows,
        row_hash=row_hash_sum(rows),
        event_time_max_ms=int(rows.column("ts_ms").to_numpy().max()),
    )


def not_finite(
    model: Model,
    prepared: Prepared,
    pulled: dict[str, Rows],
    prediction: Floats,
    gradients: dict[str, Rows],
    dense: dict[str, Floats],
) -> str:
    """Why this gradient must not be pushed, naming the feature; "" if it may. Causes before
    effects."""
    for array in (prediction, *gradients.values(), *dense.values()):
        if not np.isfinite(array).all():
            break
    else:
        return ""
    if not np.isfinite(prepared.rows.column("weight").to_numpy()).all():
        return "weight: a value is not finite"
    for what, arrays in (("weight", pulled), ("gradient", gradients)):
        for table, array in arrays.items():
            bad = ~np.isfinite(array).all(axis=1)
            if bad.any():
                return f"feature {_feature(model, prepared, table, bad)}: a {what} is not finite"
    for name, array in dense.items():
        if not np.isfinite(array).all():
            return f"dense array {name}: the gradient is not finite"
    return "the prediction is not finite"


def _feature(model: Model, prepared: Prepared, table: str, bad: npt.NDArray[np.bool_]) -> str:
    """The feature of the first bad key."""
    at = np.flatnonzero(bad[prepared.places[table].reshape(-1)])
    return model.kind.name_at(table, int(at[0]), prepared.encoded)


def assemble(
    prepared: Prepared, slot_map: SlotMap, pulls: dict[int, PullReply]
) -> tuple[dict[str, Rows], dict[str, Floats]]:
    """(rows of every table in the order of its keys, all dense arrays) from what each shard
    answered."""
    rows = {
        table: sharding.together([pulls[shard].rows[table] for shard in range(slot_map.shards)])
        for table, sharding in prepared.shardings(slot_map).items()
    }
    dense = {name: array for reply in pulls.values() for name, array in reply.dense.items()}
    return rows, dense


def contents(
    computed: BatchGradients, slot_map: SlotMap, prepared: Prepared | None = None
) -> list[dict[str, Any]]:
    """By shard, what `instructions.Push.request` takes: each shard its keys and dense arrays, all
    of them the rest.

    `prepared`: what it was computed from, whose keys are dealt already if they are the same.
    """
    common = {
        "row_hash": computed.row_hash,
        "rows": computed.row_count,
        "event_time_max_ms": computed.event_time_max_ms,
        "reason": computed.reason,
        "rewrites": computed.rewrites,
    }
    shards: list[dict[str, Any]] = [
        common | {"keys": {}, "gradients": {}, "dense": {}} for _ in range(slot_map.shards)
    ]
    for table, keys in computed.keys.items():
        same = prepared is not None and keys is prepared.keys.get(table)
        sharding = (
            prepared.shardings(slot_map)[table]
            if prepared is not None and same
            else KeySharding.of(keys, slot_map)
        )
        for shard, gradients in enumerate(sharding.apart(computed.gradients[table])):
            shards[shard]["keys"][table], shards[shard]["gradients"][table] = (
                sharding.keys[shard],
                gradients,
            )
    for name, gradient in computed.dense.items():
        shards[slot_map.owner_of_name(name)]["dense"][name] = gradient
    return shards
