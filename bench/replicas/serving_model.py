"""A model of a stated size, trained by nobody, as checkpoints in a folder: what `bench.serving`
serves; and requests about it."""

import random
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from checkpointer.store import (
    Catalogue,
    Definition,
    Directory,
    Evaluation,
    Gates,
    Manifest,
    TakenCut,
    assemble,
    ref,
)
from learners import ModelConfig
from learners.models import Keys, Model, make_model
from paramserver import SLOTS, ChainProgress, Progress, SlotMap
from paramserver.parts import Snapshot, encode_part, part_info
from paramserver.tables import TableRows
from stream.columns import FEATURE_PREFIX

FEATURES, SHARED = 26, 16
IDENTIFIERS = ("source", "vendor", "item")
#: How far the weight of each key of the probe moves with each checkpoint.
STEP = 0.001


class Site(NamedTuple):
    """`values`: how many values each feature has; all of them are known to the model."""

    model: Model
    values: int
    root: str


def model_of(kind: str) -> Model:
    names = [f"c{i:02d}" for i in range(FEATURES - len(IDENTIFIERS))]
    options: dict[str, Any] = {"table_optimizer": "sgd", "table_options": {"rate": 1.0}}
    if kind == "dlrm":
        options |= {"dim": 16, "hidden": (64, 32), "dense_optimizer": "sgd"}
    return make_model(
        ModelConfig(kind=kind, categorical=(*IDENTIFIERS, *names), prior_rate=0.05, **options)
    )


def value_of(feature: int, number: int) -> str:
    return f"{feature:02d}-{number:07x}"


def keys_of(model: Model, first: int, end: int) -> Keys:
    """The keys of the values of these numbers, of all features."""
    columns = {}
    for f, name in enumerate(model.config.categorical):
        column = name if name in IDENTIFIERS else FEATURE_PREFIX + name
        columns[column] = pa.array([value_of(f, n) for n in range(first, end)], pa.string())
    return np.unique(model.encoder.encode(pa.table(columns), serving=True).keys)


class Writer:
    """Writes checkpoints of one shard. Of an `lr`, the rows of the probe (each feature's value
    number 0) have the weight STEP x the checkpoint's number."""

    def __init__(self, kind: str, rows: int, root: str) -> None:
        self.site = Site(model_of(kind), max(1, rows // FEATURES), root)
        self.catalogue = Catalogue(Directory(root), self.site.model.name)
        self._random = np.random.default_rng(1)
        self._keys = keys_of(self.site.model, 0, self.site.values)
        self._probe = np.searchsorted(self._keys, keys_of(self.site.model, 0, 1))
        (table,) = self.site.model.spec.tables
        shape = (len(self._keys), table.dim)
        self._weights = 0.1 * self._random.standard_normal(shape, dtype=np.float32)
        self.newest: Manifest | None = None

    def write(self, created_ms: int, changed: int = 0) -> Manifest:
        """A checkpoint that is not published yet: a base, or a delta of so many rows."""
        model, before = self.site.model, self.newest
        number = 0 if before is None else before.number + 1
        some = self._random.choice(len(self._keys), changed, replace=False)
        self._weights[some] += np.float32(0.01)
        if model.config.kind == "lr":
            self._weights[self._probe] = STEP * number
        which = np.unique(np.concatenate([some, self._probe]))
        parent = before.sha256 if before is not None and changed else None
        snapshot = self._snapshot(number, which if changed else slice(None), parent)
        data = encode_part(snapshot)
        path = f"{model.name}/{number:08d}-c/part-0.safetensors"
        self.catalogue.files.write(path, data)
        info = part_info(snapshot, self.catalogue.files.url(path), data)
        definition = Definition(model.spec, model.config.to_dict(), dict(model.initial_dense()))
        taken = TakenCut(number, "c", {"label/0": number}, created_ms, "bench")
        made = assemble(definition, taken, [info], before, Evaluation())
        self.catalogue.write_manifest(made)
        self.newest = made
        return made

    def publish(self, manifest: Manifest) -> None:
        self.catalogue.write_gates(manifest.name, Gates("published", "", 0))
        self.catalogue.write_published(ref(manifest))

    def _snapshot(self, number: int, which: Any, parent: str | None) -> Snapshot:
        """Of plain SGD, which keeps weights alone."""
        model = self.site.model
        (table,) = model.spec.tables
        keys = self._keys[which]
        rows = TableRows(
            keys, self._weights[which], np.zeros(len(keys), np.int64), np.ones(len(keys), np.int64)
        )
        return Snapshot(
            spec=model.spec,
            begun={"label/0": 0},
            progress=Progress({"label/0": ChainProgress(number, 0, 0, number)}, {}, number, 0),
            shard=0,
            map_epoch=SlotMap.even(1).epoch,
            slots=np.arange(SLOTS, dtype=np.int32),
            tables={table.name: rows},
            dense={n: array.reshape(-1) for n, array in model.initial_dense().items()},
            parent=parent,
        )


def bodies(
    site: Site, count: int, rows: int, shared: int = 0, seed: int = 7, unknown: float = 0.1
) -> list[bytes]:
    """JSON of requests, of whose values a share is unknown; `shared` features are sent once."""
    draw = random.Random(seed)
    names = site.model.config.categorical
    made = []
    for _ in range(count):
        context = _row(site, draw, names[:shared], unknown)
        whole = {"rows": [_row(site, draw, names[shared:], unknown) for _ in range(rows)]}
        made.append(orjson.dumps(whole | ({"context": context} if shared else {})))
    return made


def probe_of(site: Site, rows: int) -> bytes:
    """A request of so many rows of the probe."""
    whole = {name: value_of(f, 0) for f, name in enumerate(site.model.config.categorical)}
    bag = {name: value for name, value in whole.items() if name not in IDENTIFIERS}
    ids = {name: whole[name] for name in IDENTIFIERS}
    return orjson.dumps({"rows": [ids | {"features": bag}] * rows})


def _row(site: Site, draw: random.Random, names: Any, unknown: float) -> dict[str, Any]:
    row: dict[str, Any] = {}
    bag: dict[str, str] = {}
    for name in names:
        f = site.model.config.categorical.index(name)
        number = 1 + draw.randrange(site.values - 1) + site.values * (draw.random() < unknown)
        (row if name in IDENTIFIERS else bag)[name] = value_of(f, number)
    return row | ({"features": bag} if bag else {})
