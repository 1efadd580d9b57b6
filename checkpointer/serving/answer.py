"""From the values of a request to probabilities in one piece of compiled code: hash, look up,
score (I6: all of it reads the tables of one cut).

What comes out is what `learners.models.model.Scorer` makes of the same rows, bit for bit: the same
hashes (`learners.models.text_keys`), the same rows, and the model's own forward; of the built-in
networks all but the last bits (`learners.models.network_forward`). Values that all
rows share are hashed and looked up once.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from checkpointer.tables import HEAD, Cells, TableVersion, Words, find, gather
from learners import NETWORK_KINDS, ModelConfig
from learners.models import (
    Correction,
    Encoded,
    Floats,
    Keys,
    Logistic,
    Model,
    TextEncoder,
    TextShape,
    clip,
    feature_key,
    hash_text,
    probabilities,
)
from paramserver import Rows
from stream.kernels import I64, Bytes, kernel

if TYPE_CHECKING:
    from learners.models import Forward


class Values(NamedTuple):
    """What a request asks about, as `learners.models.text_keys` reads it."""

    rows: int
    text: Bytes
    mark: int  # the byte at which each value ends
    shape: TextShape
    by_column: bool  # a column's values stand together, else a row's
    numbers: npt.NDArray[np.float64]  # (count, g) of `TextEncoder.numeric`; NaN and -1 = missing


class TooLong(ValueError):
    """A value is longer than allowed."""


class Answerer:
    """One model's answers to `Values` from the tables of a cut. Threads may share it."""

    def __init__(self, model: Model, corrects: Correction, value_bytes_max: int) -> None:
        """ValueError for a model whose features stand in several tables (`is_answerable`)."""
        if not is_answerable(model):
            raise ValueError(
                f"model {model.name!r} has tables {[t.name for t in model.spec.tables]}"
            )
        self._model, self._corrects, self._bytes_max = model, corrects, value_bytes_max
        self.encoder = TextEncoder(model.encoder)
        (spec,) = model.spec.tables
        self._table = spec.name
        width = len(self.encoder.parts.first)
        row = Encoded(
            np.zeros((1, width), np.uint64), np.zeros((1, len(model.encoder.numeric)), "f4")
        )
        self._forward: tuple[Mapping[str, Floats] | None, Forward | None] = (None, None)
        self._tail: Keys = np.ascontiguousarray(model.kind.keys(row)[spec.name][0, width:])

    def predict(
        self, values: Values, tables: Mapping[str, TableVersion], dense: Mapping[str, Floats]
    ) -> Floats:
        """(n,) probabilities in (0, 1), float32. Raises TooLong."""
        numbers = self.encoder.numbers(values.numbers)
        table = tables[self._table]
        seed, scale = np.uint64(table.initial.seed), np.float32(table.initial.scale)
        inputs = (
            values.text, values.mark, values.rows, values.by_column, *values.shape,
            *self.encoder.parts, self._tail, table.cells, table.old, table.words, table.weights,
            table.secret, table.number, seed, scale,
        )  # fmt: skip
        kind = self._model.kind
        if isinstance(kind, Logistic) and type(kind) is Logistic:
            base, ones = self._model.config.prior_logit, len(self._model.config.categorical)
            longest, found = _answer_logistic(*inputs, numbers, base, ones)
        else:
            longest, place, rows = look_up(*inputs)
            forward = self._forward_of(dense)
            encoded = Encoded(np.empty((len(numbers), 0), np.uint64), numbers)
            found = (
                kind.predict({self._table: place}, {self._table: rows}, dict(dense), encoded)
                if forward is None
                else forward(place, rows, numbers)
            )
        if longest < 0:
            raise ValueError(f"a text of fewer values than {values.rows} rows have")
        if longest > self._bytes_max:
            raise TooLong(f"a value of {longest} bytes: allowed are {self._bytes_max}")
        return clip(self._corrects.answer(found))

    def _forward_of(self, dense: Mapping[str, Floats]) -> "Forward | None":
        """A built-in network's, made once for the dense arrays of a version."""
        held, forward = self._forward
        if held is not dense:
            forward = _forward_of(self._model.config, dense)
            self._forward = (dense, forward)
        return forward


def _forward_of(config: ModelConfig, dense: Mapping[str, Floats]) -> "Forward | None":
    if config.kind not in NETWORK_KINDS:
        return None
    from learners.models import forward_of  # torch, which an lr must not need

    return forward_of(config, dense)


def is_answerable(model: Model) -> bool:
    """Whether all its features stand in one table, strings as they are sent and plain numbers."""
    has_one_table = len(model.spec.tables) == 1 and not model.config.groups
    return has_one_table and model.encoder.is_plain


@kernel
def look_up(
    text: Bytes, mark: int, count: int, by_column: bool, shared: I64, own: I64,
    shared_features: I64, own_features: I64, low: Keys, high: Keys, stated: Keys, first: I64,
    second: I64, seeds: Keys, tail: Keys, cells: Cells, old: Cells, words: Words, weights: Rows,
    secret: np.uint64, version: int, seed: np.uint64, scale: np.float32,
) -> tuple[int, I64, Rows]:  # fmt: skip
    """(longest value in bytes, place (count, width), rows (m, dim)): the rows that a text's keys
    have as of a version, and which of them each feature of each row has; behind the features stand
    the keys of `tail`. Shared features and the tail come once, before the others."""
    parts = np.empty((count + 1, len(low)), np.uint64)
    for i in range(count + 1):
        parts[i] = stated
    at, longest = hash_text(text, mark, 0, shared, False, low, high, parts[:1])
    for i in range(1, count + 1):
        parts[i] = parts[0]
    end, own_longest = hash_text(text, mark, at, own, by_column, low, high, parts[1:])
    of_all, of_row = len(shared_features), len(own_features)
    keys = np.empty(of_all + len(tail) + count * of_row, np.uint64)
    for k in range(of_all):
        f = shared_features[k]
        keys[k] = feature_key(parts[0], first[f], second[f], seeds[f])
    keys[of_all : of_all + len(tail)] = tail
    begin = of_all + len(tail)
    place = np.empty((count, len(first) + len(tail)), np.int64)
    for i in range(count):
        for k in range(of_all):
            place[i, shared_features[k]] = k
        for k in range(len(tail)):
            place[i, len(first) + k] = of_all + k
        for k in range(of_row):
            f, number = own_features[k], begin + i * of_row + k
            keys[number] = feature_key(parts[i + 1], first[f], second[f], seeds[f])
            place[i, f] = number
    slots = np.empty(len(keys), np.int64)
    find(cells, old, words, secret, version, keys, slots)
    rows = np.empty((len(keys), weights.shape[1] - HEAD), np.float32)
    gather(words, weights, slots, keys, seed, scale, rows)
    if longest < 0 or own_longest < 0 or end != len(text):
        return -1, place, rows
    return max(longest, own_longest), place, rows


@kernel
def _answer_logistic(
    text: Bytes, mark: int, count: int, by_column: bool, shared: I64, own: I64,
    shared_features: I64, own_features: I64, low: Keys, high: Keys, stated: Keys, first: I64,
    second: I64, seeds: Keys, tail: Keys, cells: Cells, old: Cells, words: Words, weights: Rows,
    secret: np.uint64, version: int, seed: np.uint64, scale: np.float32,
    numbers: Floats, base: float, ones: int,
) -> tuple[int, Floats]:  # fmt: skip
    """`look_up`, and the probabilities of a logistic regression, without leaving compiled code."""
    longest, place, rows = look_up(
        text, mark, count, by_column, shared, own, shared_features, own_features, low, high,
        stated, first, second, seeds, tail, cells, old, words, weights, secret, version, seed,
        scale,
    )  # fmt: skip
    return longest, probabilities(place, numbers, rows, base, ones)
