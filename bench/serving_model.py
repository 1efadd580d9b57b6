"""A model of a stated size, trained by nobody, as a checkpoint in a folder: what `bench.serving`
serves; and requests about it."""

import random
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa

from checkpointer.store.announcement import ref
from checkpointer.store.catalogue import Catalogue, Gates
from checkpointer.store.fsspec_store import Directory
from checkpointer.store.manifest import Definition, Evaluation, Manifest, assemble
from learners.config import ModelConfig
from learners.models.features import Keys
from learners.models.model import Model, make_model
from paramserver.messages import Epoch, Outcome, PushRequest
from paramserver.parts.safetensors_file import encode_part, part_info
from paramserver.shard.shard import Shard
from paramserver.slots import SlotMap
from stream.columns.events import FEATURE_PREFIX

FEATURES, SHARED = 26, 16
IDENTIFIERS = ("source", "vendor", "item")
#: Keys of one push.
_PUSH = 50_000


class Site(NamedTuple):
    """`values`: how many values each feature has; all of them are known to the model."""

    model: Model
    values: int
    root: str


def model_of(kind: str) -> Model:
    names = [f"c{i:02d}" for i in range(FEATURES - len(IDENTIFIERS))]
    options: dict[str, Any] = {"table_optimizer": "sgd", "table_options": {"rate": 1.0}}
    if kind == "dlrm":
        options |= {"dim": 16, "hidden": (64, 32), "table_optimizer": "adagrad"}
        options["table_options"] = {"rate": 0.05}
    return make_model(ModelConfig(kind=kind, categorical=(*IDENTIFIERS, *names), **options))


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
    """Writes checkpoints of one shard, each pushed a little further than the one before."""

    def __init__(self, kind: str, rows: int, root: str) -> None:
        self.site = Site(model_of(kind), max(1, rows // FEATURES), root)
        self.catalogue = Catalogue(Directory(root), self.site.model.name)
        self._shard = Shard(0, 1, SlotMap.even(1))
        model = self.site.model
        self._shard.allow(1, 1, [Epoch(1, 1)])
        self._shard.begin(model.spec, {"label/0": 0}, dict(model.initial_dense()))
        self._random = np.random.default_rng(1)
        self._pushed = self._number = 0
        self.newest: Manifest | None = None

    def push(self, keys: Keys) -> None:
        """Move the rows of these keys."""
        (table,) = self.site.model.spec.tables
        for at in range(0, len(keys), _PUSH):
            some = keys[at : at + _PUSH]
            gradient = 0.1 * self._random.standard_normal((len(some), table.dim))
            number = self._pushed
            request = PushRequest(
                self.site.model.name, Epoch(1, 1), SlotMap.even(1).epoch, 1, "label/0", number,
                number + 1, 0, 1, 0, number, 1, 1_000 * number + 1, keys={table.name: some},
                gradients={table.name: gradient.astype(np.float32)},
                dense={
                    name: np.zeros(shape, np.float32)
                    for name, shape in self.site.model.spec.dense.shapes.items()
                },
            )  # fmt: skip
            assert self._shard.push(request).outcome is Outcome.APPLIED
            self._pushed += 1

    def write(self, now_ms: int, keys: Keys | None = None) -> Manifest:
        """A published checkpoint: a base, or what of these keys is new since the last one."""
        model, name = self.site.model, self.site.model.name
        snapshot = self._shard.snapshot(name)
        if keys is not None:
            assert self.newest is not None
            (table,) = model.spec.tables
            rows = snapshot.tables[table.name]
            touched = rows.take(np.flatnonzero(np.isin(rows.keys, keys)))
            snapshot = replace(snapshot, tables={table.name: touched}, parent=self.newest.sha256)
        data = encode_part(snapshot)
        number = self._number
        path = f"{name}/{number:08d}-c/part-0.safetensors"
        self.catalogue.files.write(path, data)
        info = part_info(snapshot, self.catalogue.files.url(path), data)
        definition = Definition(model.spec, model.config.to_dict(), dict(model.initial_dense()))
        vector = {"label/0": self._pushed}
        made = assemble(
            definition, number, "c", vector, [info], self.newest, Evaluation(), now_ms, "bench"
        )
        self.catalogue.write_manifest(made)
        self.catalogue.write_gates(made.name, Gates("published", "", 0))
        self.catalogue.write_published(ref(made))
        self.newest, self._number = made, number + 1
        return made


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


def _row(site: Site, draw: random.Random, names: Any, unknown: float) -> dict[str, Any]:
    row: dict[str, Any] = {}
    bag: dict[str, str] = {}
    for name in names:
        f = site.model.config.categorical.index(name)
        number = draw.randrange(site.values) + site.values * (draw.random() < unknown)
        (row if name in IDENTIFIERS else bag)[name] = value_of(f, number)
    return row | ({"features": bag} if bag else {})
