"""Taking back: from a record of `retract/p` to rows that never saw what it takes back (C1, S8).

A weight that an attack has moved was moved again by every honest event since, so the opposite
gradient, whatever its dose, is the wrong step: what is still there of the attack is not in the log.
What is in the log is the honest rows. So the rows of the named sources, vendors and items are
learned again from their clean rows alone, by their own optimizer, batch by batch as they were
learned, all other weights as they are now. The result takes the place of what the shards hold,
optimizer state included: accumulators that an attack has filled would slow a vendor for weeks.

It is a dose that cannot be too large: repeated, or after the model has healed by itself, it changes
next to nothing.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from learners.models import NONE, Correction, Floats, Keys, Model, ModuleFault, unique_keys
from learners.training.clipping import row_scales
from learners.training.gradient import (
    EMPTY,
    MODULE,
    NOT_FINITE,
    RETRACTION,
    BatchGradients,
    Prepared,
    without_gradient,
)
from paramserver import Rows
from paramserver.tables import Table
from stream.internal_topics import NAMED, Again, taken


def relearn(
    model: Model,
    prepared: Prepared,
    pulled: dict[str, Rows],
    dense: dict[str, Floats],
    said: str,
    correction: Correction = NONE,
) -> BatchGradients:
    """What is pushed for a record of `retract/p`: `gradients[table]` are whole rows. `pulled` and
    `correction` as for any batch; `said`: the record's header `again`."""
    rows = prepared.rows
    if rows.num_rows == 0:
        return replace(EMPTY, reason=prepared.reason, cause=prepared.cause)
    whole = without_gradient(rows)
    try:
        again = Again.decode(said)
    except ValueError as error:
        return replace(whole, reason=str(error), cause=RETRACTION)
    back = taken(rows)
    named = named_keys(model, rows.filter(pa.array(back)), again)
    if not any(len(keys) for keys in named.values()):
        return replace(whole, rewrites=True)
    clean = np.flatnonzero(~back)
    try:
        tables = _learned(model, prepared, clean, again, named, pulled, dense, correction)
    except ModuleFault as fault:
        return replace(whole, reason=str(fault), cause=MODULE)
    keys = {name: found for name, found in named.items() if len(found)}
    written = {name: _rows_of(tables[name], found) for name, found in keys.items()}
    for name, array in written.items():
        if not np.isfinite(array).all():
            return replace(
                whole, reason=f"table {name!r}: a row learned again is not finite", cause=NOT_FINITE
            )
    return replace(whole, keys=keys, gradients=written, rewrites=True)


def named_keys(model: Model, back: pa.RecordBatch, again: Again) -> dict[str, Keys]:
    """Table -> rising keys of what is learned again: the named values that a row taken back has.
    What a model never learned of an attack, since it began later, is not learned again either (C1).
    """
    if not back.num_rows:
        return {}
    keys = model.encoder.encode(back).keys
    of_table: dict[str, list[Keys]] = {table.name: [] for table in model.spec.tables}
    for column, name in enumerate(model.config.categorical):
        if name in NAMED and again.named.get(name):
            meant = np.isin(
                back.column(name).to_numpy(zero_copy_only=False), list(again.named[name])
            )
            of_table[model.kind.table_of(name)].append(keys[meant, column])
    nothing = np.empty(0, np.uint64)
    return {table: np.unique(np.concatenate([nothing, *own])) for table, own in of_table.items()}


def _learned(
    model: Model,
    prepared: Prepared,
    clean: npt.NDArray[np.int64],
    again: Again,
    named: dict[str, Keys],
    pulled: dict[str, Rows],
    dense: dict[str, Floats],
    correction: Correction,
) -> dict[str, Table]:
    """Tables with the named keys, trained on the clean rows. No policy: whoever had a row keeps
    it."""
    tables = {
        spec.name: Table(replace(spec, policy={}, storage="float32")) for spec in model.spec.tables
    }
    held = {name: np.isin(prepared.keys[name], keys) for name, keys in named.items()}
    rows = prepared.rows
    batch = -rows.column("position").to_numpy()[clean]
    label = rows.column("label").to_numpy().astype(np.float32)
    weight = rows.column("weight").to_numpy().astype(np.float32)
    weight = weight * row_scales(model.config, prepared.encoded)[0]
    ts_ms = rows.column("ts_ms").to_numpy()
    order = np.argsort(batch, kind="stable")
    for step, some in enumerate(
        np.split(clean[order], np.flatnonzero(np.diff(batch[order])) + 1), 1
    ):
        if not len(some):
            continue
        of = np.float32(_batch_rows(again, rows, some) if model.config.reduction == "mean" else 1)
        places, local, weights = {}, {}, {}
        encoded, loss = prepared.encoded.take(some), weight[some] / of
        for name, found in model.kind.keys(encoded).items():
            distinct, places[name] = unique_keys(found)
            local[name] = np.searchsorted(prepared.keys[name], distinct)
            weights[name] = pulled[name][local[name]].copy()
            mine = held[name][local[name]] if name in held else np.zeros(len(local[name]), np.bool_)
            weights[name][mine] = tables[name].pull(prepared.keys[name][local[name][mine]])
        if correction.weighs:
            loss = loss * correction.weights(
                model.kind.predict(places, weights, dense, encoded), label[some]
            )
        _, gradients, _ = model.kind.differentiate(
            places, weights, dense, encoded, label[some], loss
        )
        for name, gradient in gradients.items():
            mine = held[name][local[name]] if name in held else np.zeros(len(local[name]), np.bool_)
            keys = prepared.keys[name][local[name][mine]]
            tables[name].reserve(keys)
            tables[name].apply(keys, gradient[mine], step, int(ts_ms[some].max()))
    return tables


def _batch_rows(again: Again, rows: pa.RecordBatch, some: npt.NDArray[np.int64]) -> int:
    """Rows of the batch that these were learned in."""
    k = -int(rows.column("position")[int(some[0])].as_py())
    return max(int(again.batch_rows[k - 1]) if 0 < k <= len(again.batch_rows) else 0, len(some))


def _rows_of(table: Table, keys: Keys) -> Rows:
    """(n, stride): of keys without a clean row, the row that they began with."""
    out: Rows = table.initial(keys).view(np.float32)
    learned = table.items()
    at = np.searchsorted(keys, learned.keys)
    out[at] = learned.rows
    return out
