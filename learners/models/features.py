"""From the columns of an impression to what a model reads: 64-bit keys and numbers.

A categorical feature becomes a key: the keyed hash of its value. What it is keyed with is derived
from the model's secret (`ModelConfig.hash_secret`), the feature's name and the model's seed, so no
vocabulary is kept, no two features share a key, and who does not know the secret can choose no
value that falls on another's key. "" (missing) is a value like any other. A numeric feature keeps
its raw value within its bounds, beyond which it is clipped: one price in the wrong unit would spoil
a weight for good. A missing one (NaN, or position -1) takes a stated value, and so does a declared
feature that a record from before it lacks. What serving does not have, such as the position on the
page, takes its stated value there. Key 0 is never made. So what a row becomes is a function of the
row and the definition, in training and in serving.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from learners.config import CROSS, ModelConfig
from stream.columns.events import CATEGORICAL, FEATURE_PREFIX, NUMERIC, FeatureColumn, Features
from stream.columns.values import NO_POSITION
from stream.hashing.keys import hash_columns, hash_string, mix
from stream.hashing.secret import NO_KEY, HashKey, derived_key, key_of
from stream.kernels.kernel import kernel

Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]
#: Table -> for every row and column, (n, width), the index of its key among the distinct ones.
Places = dict[str, npt.NDArray[np.int64]]
Columns: TypeAlias = pa.RecordBatch | pa.Table

#: Columns that every impression has, beside the declared features.
STRINGS = ("source", "vendor", "item")
NUMBERS = ("shown_at",)
SEED_MAX = 1 << 64
#: Probes an element, on average, beyond which keys are sorted by numpy: they are no hashes, or made
#: to collide.
_PROBES_MAX = 16


_NONE: Mapping[str, int] = MappingProxyType({})


class Encoded(NamedTuple):
    """`keys[i, f]` of the categorical features and `numbers[i, g]` of the numeric ones, in the
    model's order."""

    keys: Keys  # (n, features)
    numbers: Floats  # (n, numeric features)
    clipped: Mapping[str, int] = _NONE  # numeric feature -> values beyond its bounds
    filled: Mapping[str, int] = (
        _NONE  # feature that the columns lack -> rows that have its missing value instead
    )

    def __len__(self) -> int:
        return len(self.keys)

    def slice(self, start: int, end: int) -> "Encoded":
        return Encoded(self.keys[start:end], self.numbers[start:end])


class Encoder:
    """Encodes columns for one model."""

    def __init__(self, config: ModelConfig):
        self.config = config
        self.categorical, self.numeric = config.categorical, config.numeric
        #: The columns whose values are hashed, each once: those of features alone and of pairs.
        self._parts = tuple(
            dict.fromkeys(part for name in config.categorical for part in name.split(CROSS))
        )
        secret = key_of(config.hash_secret)
        self._keys = {
            name: _seed(name, config.seed, secret) for name in (*self._parts, *config.categorical)
        }
        self._serving = dict(config.serving)
        self._declared = self.features

    @property
    def parts(self) -> tuple[str, ...]:
        """The columns whose values are hashed, each once."""
        return self._parts

    def key_of(self, name: str) -> HashKey:
        """What the values of a part, or the pairs of a crossed feature, are hashed with."""
        return self._keys[name]

    @property
    def features(self) -> Features:
        """The declared features that the model uses."""
        columns = [part for name in self.categorical for part in name.split(CROSS)]
        strings = [c for c in dict.fromkeys(columns) if c not in STRINGS + NUMBERS]
        numbers = [c for c in self.numeric if c not in NUMBERS]
        return (
            *(FeatureColumn(c, CATEGORICAL) for c in strings),
            *(FeatureColumn(c, NUMERIC) for c in numbers),
        )

    def check_declared(self, declared: Features) -> None:
        """Raises ValueError naming a feature that the model uses and the stream does not declare
        so."""
        known = {f.name: f.kind for f in declared}
        for feature in self.features:
            if known.get(feature.name) != feature.kind:
                raise ValueError(
                    f"model {self.config.name!r} uses the {feature.kind} feature "
                    f"{feature.name!r}; [stream] declares"
                    f" {sorted(known)}: declare it in {feature.kind}_features"
                )

    def encode(self, columns: Columns, serving: bool = False) -> Encoded:
        """The rows of `examples`, or of a request when `serving`; columns as in
        `stream.columns.events`, no nulls."""
        rows = columns.num_rows
        columns, filled = self._with_declared(columns)
        clipped: dict[str, int] = {}
        parts = np.empty((rows, 0), np.uint64)
        if self._parts:
            strings = [self._strings(columns, name, serving) for name in self._parts]
            parts = hash_columns(strings, [self._keys[name] for name in self._parts])
            _never_zero(parts)
        keys = parts if self._parts == self.categorical else self._crossed(parts)
        numbers = np.empty((rows, len(self.numeric)), np.float32)
        for g, name in enumerate(self.numeric):
            numbers[:, g] = self._number(columns, name, serving, clipped)
        return Encoded(keys, numbers, clipped, filled)

    def _with_declared(self, columns: Columns) -> tuple[Columns, dict[str, int]]:
        """The columns, and for each declared feature that they lack one of its missing value."""
        filled = {
            f.name: columns.num_rows for f in self._declared if f.column not in columns.schema.names
        }
        for feature in self._declared:
            if feature.name in filled:
                missing = pa.array([feature.missing] * columns.num_rows, feature.type)
                columns = columns.append_column(feature.column, missing)
        return columns, filled

    def _strings(self, columns: Columns, name: str, serving: bool) -> pa.Array:
        if serving and name in self._serving:
            return pa.array([text_of(self._serving[name])] * columns.num_rows, pa.string())
        column = _column(columns, name)
        return column if pa.types.is_string(column.type) else column.cast(pa.string())

    def _crossed(self, parts: Keys) -> Keys:
        """The key of every feature from those of what it is made of, (n, parts)."""
        keys = np.empty((len(parts), len(self.categorical)), np.uint64)
        for f, name in enumerate(self.categorical):
            pair = [parts[:, self._parts.index(part)] for part in name.split(CROSS)]
            keys[:, f] = (
                pair[0]
                if len(pair) == 1
                else _cross(pair[0], pair[1], np.uint64(self._keys[name] % SEED_MAX))
            )
        return keys

    def _number(
        self, columns: Columns, name: str, serving: bool, clipped: dict[str, int]
    ) -> Floats:
        """`clipped`: told how many values lie beyond the feature's bounds."""
        if serving and name in self._serving:
            raw = np.full(columns.num_rows, self._serving[name], np.float64)
        else:
            raw = _column(columns, name).to_numpy(zero_copy_only=False).astype(np.float64)
        return self.settled([name], raw.reshape(-1, 1), clipped)[:, 0]

    def settled(
        self, names: Sequence[str], raw: npt.NDArray[np.float64], clipped: dict[str, int]
    ) -> Floats:
        """(n, m) float32: what the model reads of raw numbers (n, m) of these features: missing
        ones have their stated value, bounds are kept, then they are transformed. `clipped` is told
        how many lie beyond their bounds."""
        missing = np.isnan(raw)
        for g, name in enumerate(names):
            if name in NUMBERS:
                missing[:, g] = raw[:, g] == NO_POSITION
        stated = [NO_POSITION if name in NUMBERS else 0.0 for name in names]
        stated = [self.config.missing.get(n, s) for n, s in zip(names, stated, strict=True)]
        raw = np.where(missing, stated, raw)
        low, high = np.array([self.config.bounds_of(name) for name in names]).reshape(-1, 2).T
        below, above = raw < low, raw > high
        if (beyond := (below | above).sum(axis=0)).any():
            clipped |= {name: int(n) for name, n in zip(names, beyond, strict=True) if n}
            raw = np.where(below, low, np.where(above, high, raw))
        for g, name in enumerate(names):
            if self.config.transforms.get(name) == "log1p":  # in float64: rounded once
                raw[:, g] = np.copysign(np.log1p(np.abs(raw[:, g])), raw[:, g])
        numbers: Floats = raw.astype(np.float32)
        return numbers


def numeric_keys(names: Iterable[str], seed: int, secret: str = "") -> Keys:
    """The key of the weight that multiplies each numeric feature of a logistic regression, (m,)
    uint64."""
    return np.array(
        [hash_string(name, _seed("numeric", seed, key_of(secret))) or 1 for name in names],
        np.uint64,
    )


def unique_keys(keys: Keys) -> tuple[Keys, npt.NDArray[np.int64]]:
    """The distinct keys, rising, and for every element its place among them (in the shape of
    `keys`). No key is 0."""
    flat = np.ascontiguousarray(keys).reshape(-1)
    size = len(flat) * 5 // 4 + 16
    cells = np.zeros(
        size + len(flat), np.uint64
    )  # probing never wraps, or cells would not be in order
    at = np.empty(len(flat), np.int32)
    used = _scatter(flat, cells, at, size, _PROBES_MAX * (len(flat) + 1))
    if used < 0:
        distinct, inverse = np.unique(flat, return_inverse=True)
        return distinct, inverse.astype(np.int64).reshape(keys.shape)
    distinct, place = np.empty(used + 1, np.uint64), np.empty(len(flat), np.int64)
    count = _rank(cells[:used], at, distinct, place)
    return distinct[:count].copy(), place.reshape(keys.shape)


def _seed(name: str, seed: int, secret: HashKey = NO_KEY) -> HashKey:
    """The key that a feature's values are hashed with."""
    return derived_key(secret, "feature", str(seed), name)


def text_of(value: float) -> str:
    """As it stands in a column that is hashed: a whole number as an integer's digits."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _column(columns: Columns, name: str) -> pa.Array:
    column = columns.column(name if name in STRINGS + NUMBERS else FEATURE_PREFIX + name)
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column


@kernel
def _never_zero(keys: Keys) -> None:
    flat = keys.reshape(-1)
    for i in range(len(flat)):
        if flat[i] == 0:
            flat[i] = 1


@kernel(inline="always")
def cross(a: np.uint64, b: np.uint64, seed: np.uint64) -> np.uint64:
    """The key of a pair; (a, b) and (b, a) differ. `a` and `b` are keyed hashes, so nobody aims at
    what this gives."""
    h = mix(mix(a ^ seed) + b)
    return h if h != 0 else np.uint64(1)


@kernel
def _cross(a: Keys, b: Keys, seed: np.uint64) -> Keys:
    out = np.empty(len(a), np.uint64)
    for i in range(len(a)):
        out[i] = cross(a[i], b[i], seed)
    return out


@kernel
def _scatter(keys: Keys, cells: Keys, at: npt.NDArray[np.int32], size: int, probes_max: int) -> int:
    """Put every key into a cell, 0 = empty, from its share of `size` on: hashes are uniform, so the
    cells are nearly sorted. Returns the end of the cells in use, or -1 for keys that are no hashes
    and need too many probes."""
    probes = used = np.int64(0)
    for i in range(len(keys)):
        key = keys[i]
        home = np.int64(((key >> np.uint64(32)) * np.uint64(size)) >> np.uint64(32))
        cell = home
        while (cells[cell] != key) & (cells[cell] != 0):
            cell += 1
        cells[cell] = key  # whether new or not: no branch that would be mispredicted for many
        at[i] = cell
        used = max(used, cell + 1)
        probes += cell - home
        if probes > probes_max:
            return -1
    return int(used)


@kernel
def _rank(
    cells: Keys, at: npt.NDArray[np.int32], distinct: Keys, place: npt.NDArray[np.int64]
) -> int:
    """Sort what stands in the cells, which only neighbours can be out of, and number it. Returns
    how many there are."""
    origin = np.empty(len(distinct), np.int32)
    count = 0
    for cell in range(len(cells)):  # without a branch: an empty cell is overwritten by the next
        distinct[count], origin[count] = cells[cell], cell
        count += cells[cell] != 0
    for number in range(1, count):
        key, cell, to = distinct[number], origin[number], number
        while to > 0 and distinct[to - 1] > key:
            distinct[to], origin[to] = distinct[to - 1], origin[to - 1]
            to -= 1
        distinct[to], origin[to] = key, cell
    rank = np.empty(len(cells), np.int32)
    for number in range(count):
        rank[origin[number]] = number
    for i in range(len(at)):
        place[i] = rank[at[i]]
    return count
