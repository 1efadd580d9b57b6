"""A model: what the shards must know of it, its forward and its gradient. One definition for
learners, gates, replicas.

`make_model(config)` gives the `Model`; `Scorer` answers requests with the weights of a checkpoint.
A kind is a class with the methods of `Kind`; torch is imported only for a kind that needs it. A
torch module of your own needs no change here (docs/models.md).
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from learners.config import PATH, ModelConfig
from learners.models.counting_model import Counter
from learners.models.delayed_feedback import NONE, Correction, LateShare, correction
from learners.models.embeddings import unique_keys
from learners.models.factorization import FactorizationMachine
from learners.models.feature_groups import Grouped
from learners.models.features import Columns, Encoded, Encoder, Floats, Keys, Places
from learners.models.logistic import Logistic
from learners.models.scaling import Scaled, columns_of
from paramserver import DenseSpec, ModelSpec, Rows, TableSpec
from paramserver.tables import fill_unknown
from stream import StreamConfig
from stream.columns import DESCRIBES

#: Predictions stay this far from 0 and 1, so that their log loss is finite.
PROBABILITY_MIN = np.float32(1e-7)
#: Between the digests of config and code.
CODE = "-"


class ModuleFault(RuntimeError):
    """Code of a user's own raised for a batch, or answered what is no logit a row; says which
    kind, and what."""


class Kind(Protocol):
    """The shape of a model.

    `places[table]` int64, in the shape of `keys`, says which of `rows[table]` (m, dim) each of a
    row's keys has.
    """

    @property
    def tables(self) -> tuple[TableSpec, ...]: ...

    @property
    def dense(self) -> DenseSpec: ...

    @property
    def constants(self) -> frozenset[str]:
        """Names of the dense arrays that are not trained."""

    def initial_dense(self) -> dict[str, Floats]: ...

    def keys(self, encoded: Encoded) -> dict[str, Keys]:
        """Table -> keys (n, width) of the rows, a table's width never changes; with bags in one
        line (`feature_groups.Grouped`)."""

    def column_name(self, table: str, column: int) -> str:
        """The feature that a column of `keys` comes from."""

    def table_of(self, feature: str) -> str:
        """The table of a feature's keys."""

    def name_at(self, table: str, at: int, encoded: Encoded) -> str:
        """The feature that the `at`-th of all the table's `keys` comes from."""

    def predict(
        self, places: Places, rows: dict[str, Rows], dense: dict[str, Floats], encoded: Encoded
    ) -> Floats:
        """Probabilities (n,) float32."""

    def differentiate(
        self,
        places: Places,
        rows: dict[str, Rows],
        dense: dict[str, Floats],
        encoded: Encoded,
        label: Floats,
        weight: Floats,
    ) -> tuple[Floats, dict[str, Rows], dict[str, Floats]]:
        """(probabilities, gradient by every row of every table, gradient by every dense array) of
        the sum over rows of weight x log loss."""


@dataclass(frozen=True)
class Model:
    """A model's definition. `spec.digest` covers the whole config, and behind a dash the code of a
    module of one's own: under one name there is one definition."""

    config: ModelConfig
    kind: Kind
    encoder: Encoder
    spec: ModelSpec

    @property
    def name(self) -> str:
        """Of the configuration; checkpoints and shards know it by this."""
        return self.config.name

    def bag_lengths(self, table: str, encoded: Encoded) -> list[int]:
        """How many of a table's keys, at their end, are of each bag."""
        return self.kind.bag_lengths(table, encoded) if isinstance(self.kind, Grouped) else []

    def initial_dense(self) -> dict[str, Floats]:
        """Dense arrays as `begin` takes them: a function of the config alone."""
        return self.kind.initial_dense()


def make_model(config: ModelConfig, device: str = "cpu") -> Model:
    """`device`: torch's name of where a network computes. Raises ValueError for a config that
    cannot be."""
    kind = _kind(config, device)
    raw = json.dumps(_definition(config), sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.blake2b(raw, digest_size=8).hexdigest()
    if PATH in config.kind:
        from learners.models.user_module import code_digest  # torch, which an lr must not need

        digest += f"{CODE}{code_digest(config.kind)}"
    return Model(
        config, kind, Encoder(config), ModelSpec(config.name, digest, kind.tables, kind.dense)
    )


def _definition(config: ModelConfig) -> dict[str, Any]:
    """What the digest covers: all but whose a feature is."""
    said = config.to_dict()
    said["declared"] = {
        name: {
            key: bool(value) if key == "store" else value  # where it is may change
            for key, value in one.items()
            if key not in DESCRIBES
        }
        for name, one in said["declared"].items()
    }
    if not said["images"]:  # a model without pictures is what it was before there were any
        del said["images"]
    return said


def _kind(config: ModelConfig, device: str) -> Kind:
    closed: dict[str, Callable[[ModelConfig], Kind]] = {
        "lr": Logistic,
        "fm": FactorizationMachine,
        "count": Counter,
    }
    kind: Kind
    if config.kind in closed:
        kind = closed[config.kind](config)
    else:
        from learners.models.network import Network  # torch, which an lr must not need

        kind = Network(config, device)
    if columns_of(config):
        kind = Scaled(kind, config)
    return Grouped(kind, config) if config.groups or config.bags else kind


def code_of(digest: str) -> str:
    """The part of a definition's digest that names the code of a module of one's own; "" = it is
    of none."""
    return digest.partition(CODE)[2]


def clip(probability: Floats) -> Floats:
    """Probabilities (n,) float32 as far from 0 and 1 as a loss needs them to be."""
    return np.clip(probability, PROBABILITY_MIN, np.float32(1) - PROBABILITY_MIN)


def stated_correction(stream: StreamConfig) -> dict[str, Any]:
    """What a manifest says of how answers are corrected, before the stream has shown its late
    share; {} = they are not."""
    found = correction(stream, LateShare(stream.late_share_prior))
    return found.to_dict() if found.changes_answers else {}


class WeightTable(Protocol):
    """The weights of one table at one cut; they never change."""

    @property
    def dim(self) -> int: ...

    def lookup(self, keys: Keys) -> Rows:
        """(n, dim) float32 of (n,) uint64 keys; unknown ones have their initial weights (S3)."""


class SortedTable:
    """A `WeightTable` over arrays: (m,) keys rising and their weights (m, dim)."""

    def __init__(self, spec: TableSpec, keys: Keys, rows: Rows):
        """Raises ValueError where they do not fit."""
        if rows.shape != (len(keys), spec.dim):
            expected = (len(keys), spec.dim)
            raise ValueError(f"table {spec.name!r}: rows {rows.shape}, expected {expected}")
        self.spec, self.keys, self.rows, self.dim = spec, keys, rows, spec.dim

    def lookup(self, keys: Keys) -> Rows:
        at = np.searchsorted(self.keys, keys)
        at[at == len(self.keys)] = 0
        known = self.keys[at] == keys if len(self.keys) else np.zeros(len(keys), bool)
        out = np.empty((len(keys), self.dim), np.float32)
        if len(self.keys):
            out[:] = self.rows[at]
        seed, scale = np.uint64(self.spec.seed), np.float32(self.spec.init_scale)
        fill_unknown(out, keys, np.where(known, at, -1), seed, scale, self.dim)
        return out


class Scorer:
    """A model with the weights of one checkpoint: what a replica and the gates ask."""

    def __init__(
        self,
        model: Model,
        tables: Mapping[str, WeightTable | tuple[Keys, Rows]],
        dense: Mapping[str, Floats],
        corrects: Correction = NONE,
    ):
        """`tables[name]`: weights by key, or keys (m,) rising and their weights (m, dim).
        `corrects`: what makes a probability of a click of what the model says, as in training.
        Raises ValueError where they do not fit."""
        self.model, self.corrects = model, corrects
        self.tables = {spec.name: _table(model, spec, tables) for spec in model.spec.tables}
        for name, shape in model.spec.dense.shapes.items():
            if name not in dense or dense[name].shape != tuple(shape):
                raise ValueError(
                    f"model {model.name!r}: the checkpoint lacks dense array {name!r} of shape "
                    f"{shape}"
                )
        self.dense = {name: dense[name] for name in model.spec.dense.shapes}

    @staticmethod
    def from_weights(
        model_config: Mapping[str, Any],
        tables: Mapping[str, WeightTable | tuple[Keys, Rows]],
        dense: Mapping[str, Floats],
        corrects: Mapping[str, Any] | None = None,
    ) -> "Scorer":
        """Of a manifest's `model_config` (`ModelConfig.to_dict`), the weights of its parts, and
        its `correction`."""
        model = make_model(ModelConfig.from_dict(dict(model_config)))
        return Scorer(model, tables, dense, Correction.from_dict(corrects) if corrects else NONE)

    def with_weights(
        self,
        tables: Mapping[str, WeightTable | tuple[Keys, Rows]],
        dense: Mapping[str, Floats],
        corrects: Mapping[str, Any] | None = None,
    ) -> "Scorer":
        """The same model with the weights of another checkpoint."""
        made = Correction.from_dict(corrects) if corrects else NONE
        return Scorer(self.model, tables, dense, made)

    def predict(self, columns: Columns, serving: bool = True) -> Floats:
        """Probabilities (n,) float32 in (0, 1). Unknown keys have their initial weights, as on a
        shard (S3)."""
        encoded = self.model.encoder.encode(columns, serving)
        places, rows = {}, {}
        for name, keys in self.model.kind.keys(encoded).items():
            distinct, places[name] = unique_keys(keys)
            rows[name] = self.tables[name].lookup(distinct)
        return clip(
            self.corrects.answer(self.model.kind.predict(places, rows, self.dense, encoded))
        )


def _table(
    model: Model, spec: TableSpec, tables: Mapping[str, WeightTable | tuple[Keys, Rows]]
) -> WeightTable:
    if spec.name not in tables:
        raise ValueError(f"model {model.name!r}: the checkpoint lacks table {spec.name!r}")
    table = tables[spec.name]
    if isinstance(table, tuple):
        return SortedTable(spec, *table)
    if table.dim != spec.dim:
        raise ValueError(f"table {spec.name!r}: rows of {table.dim} numbers, expected {spec.dim}")
    return table
