"""How weights and optimizer state of a row are kept behind its head, by `TableSpec.storage`.

| storage | weights | state |
|---|---|---|
| `float32` | float32 | float32 |
| `float16`, `bfloat16` | 16 bits | float32 |
| `float16/bfloat16`, `bfloat16/bfloat16` | 16 bits | bfloat16, for accumulators alone |

A step is computed in float32, whatever is kept. A layout takes `words`, (n, head + words) uint32,
of which a row's weights begin at column `head`, and row numbers, -1 = none.
"""

from typing import Any, Protocol

import numpy as np

from paramserver.messages import Rows, TableSpec
from paramserver.optim import Optimizer, Periods, make_optimizer
from paramserver.tables import float16 as bits16
from paramserver.tables.row_header import RowNumbers, Words

STORAGES = ("float32", "float16", "bfloat16", "float16/bfloat16", "bfloat16/bfloat16")
#: What optimizers keep as weights may be rounded, except here: z is a sum of gradients, not a
#: weight.
_UNROUNDED = ("ftrl",)
_ACCUMULATING = ("adagrad", "rowwise_adagrad")


class Layout(Protocol):
    """See above."""

    @property
    def words(self) -> int:
        """32-bit words of a row behind its head."""

    @property
    def read_words(self) -> int:
        """Of these, what weights are read from."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of these words as a part of a checkpoint names them."""

    @property
    def wide(self) -> int:
        """Weights and state of a row, in numbers."""

    def keep(self, rows: Rows) -> Words:
        """(n, words) of weights and state in float32 (n, wide), rounded to the nearest."""

    def initialize(self, weights: Rows) -> Words:
        """(n, words): new rows of the initial weights (n, dim)."""

    def weights(self, words: Words, head: int, rows: RowNumbers, out: Rows) -> None:
        """Write the weights of each row number >= 0 into `out` (m, dim); leave the others' rows
        of `out` alone."""

    def apply(
        self,
        words: Words,
        head: int,
        rows: RowNumbers,
        gradients: Rows,
        scale: float,
        meanwhile: Rows | None,
        seed: int,
    ) -> None:
        """`Optimizer.apply`. `seed`: of the push's range; roundings are drawn from it and the
        rows' keys."""

    def decay(self, words: Words, head: int, rows: RowNumbers, periods: Periods, seed: int) -> None:
        """`Optimizer.decay`."""


class Stored32:
    """Everything in float32."""

    def __init__(self, optimizer: Optimizer, dim: int) -> None:
        self._optimizer, self._dim = optimizer, dim
        self.words = self.wide = dim + optimizer.state_size(dim)
        self.read_words = optimizer.read_size(dim)
        self.dtype: np.dtype[Any] = np.dtype(np.float32)

    def keep(self, rows: Rows) -> Words:
        return np.ascontiguousarray(rows).view(np.uint32)

    def initialize(self, weights: Rows) -> Words:
        rows = np.empty((len(weights), self.words), np.float32)
        rows[:, : self._dim] = weights
        self._optimizer.initialize(rows, self._dim)
        return rows.view(np.uint32)

    def weights(self, words: Words, head: int, rows: RowNumbers, out: Rows) -> None:
        self._optimizer.weights(words.view(np.float32), head, rows, out)

    def apply(
        self,
        words: Words,
        head: int,
        rows: RowNumbers,
        gradients: Rows,
        scale: float,
        meanwhile: Rows | None,
        seed: int,
    ) -> None:
        self._optimizer.apply(words.view(np.float32), head, rows, gradients, scale, meanwhile)

    def decay(self, words: Words, head: int, rows: RowNumbers, periods: Periods, seed: int) -> None:
        self._optimizer.decay(words.view(np.float32), head, self._dim, rows, periods)


class Stored16:
    """Weights in 16 bits, state in 16 or 32: rows are widened into `_wide`, stepped there and
    rounded back."""

    def __init__(self, optimizer: Optimizer, dim: int, weights: str, state: str) -> None:
        self._optimizer, self._dim = optimizer, dim
        self._state = optimizer.state_size(dim)
        self.wide = dim + self._state
        self._is_float16, self._state_is_half = weights == "float16", bool(state)
        self.read_words = (dim + 1) // 2
        self.words = self.read_words + ((self._state + 1) // 2 if state else self._state)
        self.dtype: np.dtype[Any] = np.dtype(np.uint32)
        self._wide: Rows = np.empty((0, dim + self._state), np.float32)

    def initialize(self, weights: Rows) -> Words:
        wide = np.empty((len(weights), self._dim + self._state), np.float32)
        wide[:, : self._dim] = weights
        self._optimizer.initialize(wide, self._dim)
        return self.keep(wide)

    def keep(self, rows: Rows) -> Words:
        words = np.zeros((len(rows), self.words), np.uint32)
        self._round(np.ascontiguousarray(rows), words, 0, np.arange(len(rows)), _TO_THE_NEAREST)
        return words

    def weights(self, words: Words, head: int, rows: RowNumbers, out: Rows) -> None:
        if self._is_float16:
            bits16.from_float16(
                words.view(np.uint16), 2 * head, rows, out.view(np.uint32), out, 0, self._dim
            )
        else:
            bits16.from_bfloat16(
                words.view(np.uint16), 2 * head, rows, out.view(np.uint32), 0, self._dim
            )

    def apply(
        self,
        words: Words,
        head: int,
        rows: RowNumbers,
        gradients: Rows,
        scale: float,
        meanwhile: Rows | None,
        seed: int,
    ) -> None:
        wide, places = self._widened(words, head, rows)
        self._optimizer.apply(wide, 0, places, gradients, scale, meanwhile)
        self._round(wide, words, head, rows, _draws(words, rows, seed))

    def decay(self, words: Words, head: int, rows: RowNumbers, periods: Periods, seed: int) -> None:
        wide, places = self._widened(words, head, rows)
        self._optimizer.decay(wide, 0, self._dim, places, periods)
        # Not the draws of the step that follows.
        self._round(wide, words, head, rows, _draws(words, rows, ~seed & 0xFFFFFFFFFFFFFFFF))

    def _widened(self, words: Words, head: int, rows: RowNumbers) -> tuple[Rows, RowNumbers]:
        """Weights and state in float32, and which of these rows hold any."""
        if len(self._wide) < len(rows):
            self._wide = np.empty((len(rows), self._dim + self._state), np.float32)
        wide = self._wide[: len(rows)]
        bits, behind = wide.view(np.uint32), head + self.read_words
        if self._is_float16:
            bits16.from_float16(words.view(np.uint16), 2 * head, rows, bits, wide, 0, self._dim)
        else:
            bits16.from_bfloat16(words.view(np.uint16), 2 * head, rows, bits, 0, self._dim)
        if self._state_is_half:
            bits16.from_bfloat16(
                words.view(np.uint16), 2 * behind, rows, bits, self._dim, self._state
            )
        else:
            bits16.from_words(words, behind, rows, bits, self._dim, self._state)
        return wide, np.where(rows >= 0, np.arange(len(rows)), -1)

    def _round(self, wide: Rows, words: Words, head: int, rows: RowNumbers, drawn: Words) -> None:
        """The inverse of `_widened`."""
        bits, behind = wide.view(np.uint32), head + self.read_words
        if self._is_float16:
            bits16.to_float16(
                bits, wide, 0, self._dim, words.view(np.uint16), 2 * head, rows, drawn
            )
        else:
            bits16.to_bfloat16(bits, 0, self._dim, words.view(np.uint16), 2 * head, rows, drawn)
        if self._state_is_half:
            bits16.to_bfloat16(
                bits, self._dim, self._state, words.view(np.uint16), 2 * behind, rows, drawn
            )
        else:
            bits16.to_words(bits, self._dim, self._state, words, behind, rows)


_TO_THE_NEAREST: Words = np.zeros(0, np.uint32)


def _draws(words: Words, rows: RowNumbers, seed: int) -> Words:
    drawn = np.empty(len(rows), np.uint32)
    bits16.draws(words, rows, np.uint64(seed), drawn)
    return drawn


def make_layout(spec: TableSpec) -> Layout:
    """The layout of a table. ValueError for a storage that is none, or not for this optimizer."""
    optimizer = make_optimizer(spec.optimizer, spec.options)
    if spec.storage not in STORAGES:
        raise ValueError(
            f"table {spec.name!r}: storage = {spec.storage!r}, allowed are {', '.join(STORAGES)}"
        )
    if spec.storage == "float32":
        return Stored32(optimizer, spec.dim)
    weights, _, state = spec.storage.partition("/")
    if spec.optimizer in _UNROUNDED:
        raise ValueError(
            f"table {spec.name!r}: storage = {spec.storage!r} with optimizer {spec.optimizer!r}: "
            f"it keeps sums of"
            " gradients and not weights, and those in float32 alone"
        )
    if state and spec.optimizer not in _ACCUMULATING:
        raise ValueError(
            f"table {spec.name!r}: storage = {spec.storage!r} with optimizer {spec.optimizer!r}: "
            f"state in 16 bits is"
            f" for {', '.join(_ACCUMULATING)}; use {weights!r}"
        )
    return Stored16(optimizer, spec.dim, weights, state)
