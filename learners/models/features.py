"""From the columns of an impression to what a model reads: 64-bit keys and numbers.

A categorical feature becomes a key: the keyed hash of its value. What it is keyed with is derived
from the model's secret (`ModelConfig.hash_secret`), the feature's name and the model's seed, so no
vocabulary is kept, no two features share a key, and who does not know the secret can choose no
value that falls on another's key. "" (missing) is a value like any other. A numeric feature keeps
its raw value within its bounds, beyond which it is clipped: one price in the wrong unit would spoil
a weight for good. A missing one (NaN, or position -1) takes a stated value, and so does a declared
feature that a record from before it lacks. What serving does not have, such as the position on the
page, takes its stated value there. A list or a text has any number of keys a row, a *bag*: each
with the weight by which its row is multiplied before they are summed. Key 0 is never made. So what
a row becomes is a function of the row and the definition, in training and in serving.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from learners.config import ModelConfig
from learners.declared_features import CROSS
from stream.columns import (
    CATEGORICAL,
    COMPONENT,
    FEATURE_PREFIX,
    IMAGE,
    NO_POSITION,
    NUMERIC,
    TEXT,
    TIME,
    TS_MS,
    WEIGHTS_SUFFIX,
    Feature,
    FeatureColumn,
    Features,
    PictureFiles,
    categories,
    list_values,
    pieces,
    pixels,
    pooled_weights,
    tensors,
    vectors,
)
from stream.hashing import (
    NO_KEY,
    HashKey,
    derived_key,
    hash_columns,
    hash_string,
    key_of,
    token_hashes,
)
from stream.kernels import kernel, mix64

#: (n,) or (n, width): a key for each value of a feature.
Keys = npt.NDArray[np.uint64]
#: (n, width): what a model is given as numbers.
Floats = npt.NDArray[np.float32]
#: Table -> for every row and column, (n, width), the index of its key among the distinct ones.
Places = dict[str, npt.NDArray[np.int64]]
Columns: TypeAlias = pa.RecordBatch | pa.Table

#: Columns that every impression has, beside the declared features.
STRINGS = ("source", "vendor", "item")
NUMBERS = ("shown_at",)
SEED_MAX = 1 << 64
_NO_TIMES = np.empty(0, np.int64)


_NONE: Mapping[str, int] = MappingProxyType({})
NO_BAGS: "tuple[Bag, ...]" = ()


class Bag(NamedTuple):
    """A feature with any number of keys a row, one at least."""

    ends: npt.NDArray[np.int64]  # (n + 1,): row i has the keys [ends[i], ends[i + 1])
    keys: Keys  # (m,)
    weights: Floats  # (m,): what each key's row is multiplied by, before they are summed

    def take(self, rows: npt.NDArray[np.int64]) -> "Bag":
        """Of these rows."""
        lengths = np.diff(self.ends)[rows]
        ends = np.append(0, np.cumsum(lengths))
        at = np.arange(ends[-1]) + np.repeat(self.ends[:-1][rows] - ends[:-1], lengths)
        return Bag(ends, self.keys[at], self.weights[at])


class Pictures(NamedTuple):
    """An image feature of the rows."""

    places: npt.NDArray[np.int64]  # (n,) which of the distinct ones a row has
    pixels: npt.NDArray[np.int16]  # (m, 3, 32, 32), see `stream.columns.pictures.pixels`


class Encoded(NamedTuple):
    """`keys[i, f]` of the categorical features and `numbers[i, g]` of the numeric ones, in the
    model's order. A feature that is a bag has 0 in `keys`, and its own in `bags`."""

    keys: Keys  # (n, features)
    numbers: Floats  # (n, numbers)
    clipped: Mapping[str, int] = _NONE  # numeric feature -> values beyond its bounds
    filled: Mapping[str, int] = (
        _NONE  # feature that the columns lack -> rows that have its missing value instead
    )
    bags: tuple[Bag, ...] = ()  # in the order of `ModelConfig.bags`
    images: tuple[Pictures, ...] = ()  # in the order of `ModelConfig.images`

    def __len__(self) -> int:
        return len(self.keys)

    def with_numbers(self, numbers: Floats) -> "Encoded":
        """The same with these in the place of its numbers."""
        return Encoded(self.keys, numbers, self.clipped, self.filled, self.bags, self.images)

    def with_images(self, images: tuple[Pictures, ...]) -> "Encoded":
        """The same with these in the place of its pictures."""
        return Encoded(self.keys, self.numbers, self.clipped, self.filled, self.bags, images)

    def take(self, rows: npt.NDArray[np.int64]) -> "Encoded":
        """Of these rows."""
        bags = tuple(bag.take(rows) for bag in self.bags)
        images = tuple(one._replace(places=one.places[rows]) for one in self.images)
        return Encoded(self.keys[rows], self.numbers[rows], bags=bags, images=images)


class Encoder:
    """Encodes columns for one model."""

    #: How stores of pictures are opened: said once by whoever runs a process.
    open_store: ClassVar[Callable[[str], PictureFiles] | None] = None

    def __init__(self, config: ModelConfig):
        self.config = config
        self.categorical, self.numeric = config.categorical, config.numeric
        #: The columns whose values are hashed, each once: those of features alone and of pairs.
        self._parts = config.parts
        secret = key_of(config.hash_secret)
        self._keys = {
            name: _seed(self._keyed_as(name), config.seed, secret)
            for name in (*self._parts, *config.categorical)
        }
        self._serving = dict(config.serving)
        self._stores: dict[str, PictureFiles] = {}
        self._declared = self.features
        self._bags = config.bags
        self._single = tuple(name for name in self._parts if not self._is_bag(name))

    def _keyed_as(self, name: str) -> str:
        """The feature whose keys its values have."""
        declared = self.config.feature(name)
        return (declared and declared.shares) or name

    def _is_bag(self, name: str) -> bool:
        declared = self.config.feature(name)
        return declared is not None and declared.is_bag

    @property
    def parts(self) -> tuple[str, ...]:
        """The columns whose values are hashed, each once."""
        return self._parts

    @property
    def is_plain(self) -> bool:
        """Whether each feature is a string that is hashed as it is, or a number alone."""
        used = [self.config.feature(name) for name in self.config.uses]
        return all(one is None or one.is_plain for one in used)

    @property
    def reads_time(self) -> bool:
        """Whether it reads the time of the impression."""
        declared = [self.config.feature(name) for name in self._parts]
        return any(one is not None and (one.kind == TIME or one.ages) for one in declared)

    def key_of(self, name: str) -> HashKey:
        """What the values of a part, or the pairs of a crossed feature, are hashed with."""
        return self._keys[name]

    @property
    def features(self) -> Features:
        """The columns of the declared features that the model uses."""
        columns: list[FeatureColumn] = []
        used = (
            (self._parts, CATEGORICAL),
            (self.numeric, NUMERIC),
            (self.config.images, IMAGE),
        )
        for names, kind in used:
            for name in names:
                if name in STRINGS + NUMBERS:
                    continue
                declared = self.config.feature(name)
                columns += declared.columns(name) if declared else [FeatureColumn(name, kind)]
                columns += declared.joined_columns(name) if declared else ()
                columns += declared.catalogue_columns(name) if declared else ()
                columns += self._columns_of(declared)
        return tuple(dict.fromkeys(columns))

    def _columns_of(self, declared: Feature | None) -> Features:
        """Of what a counter or a sequence is kept by, or a catalogue's key: by that a replica
        knows it."""
        name = "" if declared is None else declared.looked_up_by
        if not name or name in STRINGS:
            return ()
        known = self.config.feature(name)
        return known.columns(name) if known else (FeatureColumn(name, CATEGORICAL),)

    def check_declared(self, declared: Features) -> None:
        """Raises ValueError naming a feature that the model uses and the stream does not declare
        so."""
        known = {f.name: f for f in declared}
        for feature in self.features:
            found = known.get(feature.name)
            if found is None or replace(found, personal=False) != replace(feature, personal=False):
                raise ValueError(
                    f"model {self.config.name!r} uses the {feature.kind} feature "
                    f"{feature.name!r}; [stream] declares"
                    f" {sorted(known)}: declare it in [features.{feature.name}]"
                    + (
                        f", or in {feature.kind}_features"
                        if feature.kind in (CATEGORICAL, NUMERIC)
                        else ""
                    )
                )

    def encode(self, columns: Columns, serving: bool = False) -> Encoded:
        """The rows of `examples`, or of a request when `serving`; columns as in
        `stream.columns.events`, no nulls; `ts_ms` where `reads_time`."""
        rows = columns.num_rows
        columns, filled = self._with_declared(columns)
        clipped: dict[str, int] = {}
        single = np.empty((rows, 0), np.uint64)
        if self._single:
            strings = [self._strings(columns, name, serving) for name in self._single]
            single = hash_columns(strings, [self._keys[name] for name in self._single])
            _never_zero(single)
        keys, bags = single, NO_BAGS
        if self._single != self.categorical:
            bag_parts = {
                name: self._bag(columns, name, clipped)
                for name in self._parts
                if name not in self._single
            }
            keys, bags = self._crossed(single, bag_parts)
        numbers = np.empty((rows, len(self.config.number_names)), np.float32)
        at = 0
        for name in self.numeric:
            found = self._numbers(columns, name, serving, clipped)
            numbers[:, at : at + found.shape[1]] = found
            at += found.shape[1]
        images = [self._pictures(columns, name, serving) for name in self.config.images]
        return Encoded(keys, numbers, clipped, filled, bags, tuple(images))

    def _pictures(self, columns: Columns, name: str, serving: bool) -> Pictures:
        declared, column = self.config.feature(name), _column(columns, name)
        if declared is None or not declared.store:
            found, places = pixels(column)
            return Pictures(places, found)
        if declared.store not in self._stores:
            if Encoder.open_store is None:
                raise ValueError(f"features.{name}.store: nothing here opens {declared.store!r}")
            self._stores[declared.store] = Encoder.open_store(declared.store)
        store, of_rows = self._stores[declared.store], column.dictionary_encode()
        digests = of_rows.dictionary.to_pylist()
        squares = store.squares(digests, not serving)
        return Pictures(of_rows.indices.to_numpy().astype(np.int64), tensors(squares))

    def _with_declared(self, columns: Columns) -> tuple[Columns, dict[str, int]]:
        """The columns, and for each declared feature that they lack one of its missing value."""
        for feature in self._declared:  # by the name that it had
            there = columns.schema.names
            if feature.alias_column in there and feature.column not in there:
                at = columns.schema.get_field_index(feature.alias_column)
                columns = columns.append_column(feature.column, columns.column(at))
        filled = {
            f.name: columns.num_rows for f in self._declared if f.column not in columns.schema.names
        }
        for feature in self._declared:
            if feature.name in filled:
                missing = pa.array([feature.missing] * columns.num_rows, feature.type)
                columns = columns.append_column(feature.column, missing)
        return columns, filled

    def _strings(self, columns: Columns, name: str, serving: bool) -> pa.Array:
        """(n,) what is hashed of a feature with one key a row."""
        if serving and name in self._serving:
            return pa.array([text_of(self._serving[name])] * columns.num_rows, pa.string())
        declared = self.config.feature(name)
        if declared is None:
            column = _column(columns, name)
            return column if pa.types.is_string(column.type) else column.cast(pa.string())
        if declared.kind != TIME:
            return categories(declared, _column(columns, name), _NO_TIMES)
        ts_ms = _one_chunk(columns.column(TS_MS))
        return categories(
            declared, ts_ms if declared.of else _column(columns, name), ts_ms.to_numpy()
        )

    def _bag(self, columns: Columns, name: str, clipped: dict[str, int]) -> Bag:
        declared, column = self.config.feature(name), _column(columns, name)
        assert declared is not None
        if declared.kind == TEXT:
            keys, ends = token_hashes(column, declared, self._keys[name])
            return Bag(ends, keys, pooled_weights(ends, np.ones(len(keys)), declared.pool))
        weights = _column(columns, name + WEIGHTS_SUFFIX) if declared.weighted else None
        values = list_values(declared, column, weights, self.config.number_max)
        if values.clipped:
            clipped[name] = values.clipped
        keys = hash_columns([values.values], [self._keys[name]])
        _never_zero(keys)
        return Bag(values.ends, keys[:, 0], values.weights)

    def _crossed(self, parts: Keys, bag_parts: Mapping[str, Bag]) -> tuple[Keys, tuple[Bag, ...]]:
        """The key of every feature from those of what it is made of, (n, parts), and its bags."""
        keys = np.zeros((len(parts), len(self.categorical)), np.uint64)
        bags = []
        for f, name in enumerate(self.categorical):
            pair = name.split(CROSS)
            seed = np.uint64(self._keys[name] % SEED_MAX)
            if f in self._bags:
                bags.append(self._crossed_bag(parts, bag_parts, pair, seed))
                continue
            one, *other = [parts[:, self._single.index(part)] for part in pair]
            keys[:, f] = _cross(one, other[0], seed) if other else one
        return keys, tuple(bags)

    def _crossed_bag(
        self, parts: Keys, bag_parts: Mapping[str, Bag], pair: list[str], seed: np.uint64
    ) -> Bag:
        """Of a list or a text alone, or with a feature of one key a row."""
        bag = next(bag_parts[part] for part in pair if part in bag_parts)
        if len(pair) == 1:
            return bag
        sides = [
            bag.keys
            if part in bag_parts
            else np.repeat(parts[:, self._single.index(part)], np.diff(bag.ends))
            for part in pair
        ]
        return bag._replace(keys=_cross(sides[0], sides[1], seed))

    def _numbers(
        self, columns: Columns, name: str, serving: bool, clipped: dict[str, int]
    ) -> Floats:
        """(n, numbers of the feature). `clipped`: told how many values lie beyond its bounds."""
        declared = self.config.feature(name)
        if declared is not None and declared.width:
            return self._vectors(columns, name, declared, clipped)
        if serving and name in self._serving:
            raw = np.full(columns.num_rows, self._serving[name], np.float64)
        else:
            raw = _column(columns, name).to_numpy(zero_copy_only=False).astype(np.float64)
        numbers = self.settled([name], raw.reshape(-1, 1), clipped)
        if declared is not None and declared.is_scaled:  # by `scaling`, once its sums are known
            if not self.config.states_missing(name):
                numbers[np.isnan(raw)] = np.nan
            return np.repeat(numbers, max(1, declared.quantiles), axis=1)
        if declared is not None and declared.piecewise:
            return pieces(numbers[:, 0], declared.piecewise)
        if declared is not None and declared.kind == COMPONENT:
            return _and_missing(numbers, np.isnan(raw))
        return numbers

    def _vectors(
        self, columns: Columns, name: str, declared: Feature, clipped: dict[str, int]
    ) -> Floats:
        raw, missing = vectors(_column(columns, name), declared.width)
        raw[missing] = self.config.missing_of(name)
        low, high = self.config.bounds_of(name)
        beyond = (raw < low) | (raw > high)
        if count := int(np.count_nonzero(beyond)):
            clipped[name] = count
            raw = np.clip(raw, low, high)
        numbers: Floats = raw.astype(np.float32)
        return _and_missing(numbers, missing) if declared.kind == COMPONENT else numbers

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
        stated = [self.config.missing_of(n, s) for n, s in zip(names, stated, strict=True)]
        raw = np.where(missing, stated, raw)
        low, high = np.array([self.config.bounds_of(name) for name in names]).reshape(-1, 2).T
        below, above = raw < low, raw > high
        if (beyond := (below | above).sum(axis=0)).any():
            clipped |= {name: int(n) for name, n in zip(names, beyond, strict=True) if n}
            raw = np.where(below, low, np.where(above, high, raw))
        for g, name in enumerate(names):
            if self.config.transform_of(name) == "log1p":  # in float64: rounded once
                raw[:, g] = np.copysign(np.log1p(np.abs(raw[:, g])), raw[:, g])
        numbers: Floats = raw.astype(np.float32)
        return numbers


def _and_missing(numbers: Floats, missing: npt.NDArray[np.bool_]) -> Floats:
    """What a component said, and behind it 1 where it said nothing."""
    return np.concatenate([numbers, missing[:, None].astype(np.float32)], axis=1)


def numeric_keys(names: Iterable[str], seed: int, secret: str = "") -> Keys:
    """The key of the weight that multiplies each numeric feature of a logistic regression, (m,)
    uint64."""
    return np.array(
        [hash_string(name, _seed("numeric", seed, key_of(secret))) or 1 for name in names],
        np.uint64,
    )


def _seed(name: str, seed: int, secret: HashKey = NO_KEY) -> HashKey:
    """The key that a feature's values are hashed with."""
    return derived_key(secret, "feature", str(seed), name)


def text_of(value: float) -> str:
    """As it stands in a column that is hashed: a whole number as an integer's digits."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _column(columns: Columns, name: str) -> pa.Array:
    return _one_chunk(columns.column(name if name in STRINGS + NUMBERS else FEATURE_PREFIX + name))


def _one_chunk(column: pa.Array | pa.ChunkedArray) -> pa.Array:
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
    h = mix64(mix64(a ^ seed) + b)
    return h if h != 0 else np.uint64(1)


@kernel
def _cross(a: Keys, b: Keys, seed: np.uint64) -> Keys:
    out = np.empty(len(a), np.uint64)
    for i in range(len(a)):
        out[i] = cross(a[i], b[i], seed)
    return out
