"""From the hashes of a request's values to probabilities in one piece of compiled code: keys, look
up, score (I6: all of it reads the tables of one cut).

What comes out is what `learners.models.model.Scorer` makes of the same rows, bit for bit: the same
hashes (`learners.models.text_keys`), the same rows, and the model's own forward; of the built-in
networks all but the last bits (`learners.models.network_forward`). Values that all
rows share are looked up once.
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
    clip,
    feature_key,
    probabilities,
)
from paramserver import Rows
from stream.kernels import I64, Bools, kernel

if TYPE_CHECKING:
    from learners.models import Forward


class Values(NamedTuple):
    """What a request asks about, each string as the hash of its part (`learners.models.text_keys`).
    Parts that no row gives are all rows' own: they stand in parts[0] alone."""

    rows: int
    parts: Keys  # (1 + count, p): parts[1 + i] are row i's
    own: Bools  # (p,): which parts rows give
    numbers: npt.NDArray[np.float64]  # (count, g) of `TextEncoder.numeric`; NaN and -1 = missing


class Answerer:
    """One model's answers to `Values` from the tables of a cut. Threads may share it."""

    def __init__(self, model: Model, corrects: Correction) -> None:
        """ValueError for a model whose features stand in several tables (`is_answerable`)."""
        if not is_answerable(model):
            raise ValueError(
                f"model {model.name!r} has tables {[t.name for t in model.spec.tables]}"
            )
        self._model, self._corrects = model, corrects
        self.encoder = TextEncoder(model.encoder)
        parts = self.encoder.parts
        self._features = (parts.first, parts.second, parts.seeds)
        (spec,) = model.spec.tables
        self._table = spec.name
        width = len(parts.first)
        row = Encoded(
            np.zeros((1, width), np.uint64), np.zeros((1, len(model.encoder.numeric)), "f4")
        )
        self._forward: tuple[Mapping[str, Floats] | None, Forward | None] = (None, None)
        self._tail: Keys = np.ascontiguousarray(model.kind.keys(row)[spec.name][0, width:])

    def predict(
        self, values: Values, tables: Mapping[str, TableVersion], dense: Mapping[str, Floats]
    ) -> Floats:
        """(n,) probabilities in (0, 1), float32."""
        numbers = self.encoder.numbers(values.numbers)
        table = tables[self._table]
        seed, scale = np.uint64(table.initial.seed), np.float32(table.initial.scale)
        inputs = (
            values.parts, values.own, *self._features, self._tail, table.cells, table.old,
            table.words, table.weights, table.secret, table.number, seed, scale,
        )  # fmt: skip
        kind = self._model.kind
        if isinstance(kind, Logistic) and type(kind) is Logistic:
            base, ones = self._model.config.prior_logit, len(self._model.config.categorical)
            found = _answer_logistic(*inputs, numbers, base, ones)
        else:
            place, rows = look_up(*inputs)
            forward = self._forward_of(dense)
            encoded = Encoded(np.empty((len(numbers), 0), np.uint64), numbers)
            found = (
                kind.predict({self._table: place}, {self._table: rows}, dict(dense), encoded)
                if forward is None
                else forward(place, rows, numbers)
            )
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
    parts: Keys, own: Bools, first: I64, second: I64, seeds: Keys, tail: Keys, cells: Cells,
    old: Cells, words: Words, weights: Rows, secret: np.uint64, version: int, seed: np.uint64,
    scale: np.float32,
) -> tuple[I64, Rows]:  # fmt: skip
    """(place (count, width), rows (m, dim)): the rows that the keys of `Values` have as of a
    version, and which of them each feature of each row has; behind the features stand the keys of
    `tail`. Features that are equal in all rows, and the tail, come once, before the others."""
    count, features = len(parts) - 1, len(first)
    is_own, of_row = np.empty(features, np.bool_), 0
    for f in range(features):
        is_own[f] = own[first[f]] or (second[f] >= 0 and own[second[f]])
        of_row += is_own[f]
    begin = features - of_row + len(tail)
    keys = np.empty(begin + count * of_row, np.uint64)
    place = np.empty((count, features + len(tail)), np.int64)
    shared, column = 0, 0
    for f in range(features):
        if is_own[f]:
            for i in range(count):
                at = begin + i * of_row + column
                keys[at] = feature_key(parts[i + 1], first[f], second[f], seeds[f])
                place[i, f] = at
            column += 1
        else:
            keys[shared] = feature_key(parts[0], first[f], second[f], seeds[f])
            place[:, f] = shared
            shared += 1
    for k in range(len(tail)):
        keys[shared + k] = tail[k]
        place[:, features + k] = shared + k
    slots = np.empty(len(keys), np.int64)
    find(cells, old, words, secret, version, keys, slots)
    rows = np.empty((len(keys), weights.shape[1] - HEAD), np.float32)
    gather(words, weights, slots, keys, seed, scale, rows)
    return place, rows


@kernel
def _answer_logistic(
    parts: Keys, own: Bools, first: I64, second: I64, seeds: Keys, tail: Keys, cells: Cells,
    old: Cells, words: Words, weights: Rows, secret: np.uint64, version: int, seed: np.uint64,
    scale: np.float32, numbers: Floats, base: float, ones: int,
) -> Floats:  # fmt: skip
    """`look_up`, and the probabilities of a logistic regression, without leaving compiled code."""
    place, rows = look_up(
        parts, own, first, second, seeds, tail, cells, old, words, weights, secret, version, seed,
        scale,
    )  # fmt: skip
    return probabilities(place, numbers, rows, base, ones)  # type: ignore[no-any-return]
