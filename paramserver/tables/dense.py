"""The dense parameters of a model that live on one shard: whole arrays, placed by the hash of their
name. Those that are running sums have an optimizer of their own (`paramserver.optim.moments`).

Each array is a row store of one row, so it shares the kernels of the tables: n weights in C order,
then optimizer state.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from paramserver.kernel import plain
from paramserver.messages import DenseSpec, Floats, Rows
from paramserver.optim import dense_optimizer, make_optimizer

_ROW_0 = np.zeros(1, np.int64)


def shape_of(spec: DenseSpec, name: str) -> tuple[int, ...]:
    """The shape of an array of the spec, as a tuple of int."""
    return tuple(int(n) for n in spec.shapes[name])


class Dense:
    """Arrays by name with their optimizer state. One writer."""

    def __init__(self, spec: DenseSpec, names: list[str]) -> None:
        """`names` are the arrays of the spec that live here. ValueError for a bad optimizer,
        option or shape."""
        self.spec = spec
        make_optimizer(spec.optimizer, spec.options)  # refuses what cannot be
        self._optimizers = {name: dense_optimizer(spec, name) for name in names}
        self._shapes = {name: shape_of(spec, name) for name in names}
        self._sizes = {
            name: int(np.prod(shape, dtype=np.int64)) for name, shape in self._shapes.items()
        }
        for name, size in self._sizes.items():
            if size < 1:
                raise ValueError(f"dense array {name!r}: shape {self._shapes[name]} holds nothing")
        self._row_stores: dict[str, Rows] = {
            name: np.zeros((1, self.row_size(name)), np.float32) for name in names
        }

    @property
    def names(self) -> list[str]:
        return list(self._row_stores)

    def row_size(self, name: str) -> int:
        """Floats of an array and its state."""
        return self._sizes[name] + self._optimizers[name].state_size(self._sizes[name])

    def initialize(self, values: Mapping[str, object]) -> None:
        """Set every array to its initial value. ValueError names an array that is missing,
        misshapen or not finite."""
        for name, shape in self._shapes.items():
            if name not in values:
                raise ValueError(f"dense array {name!r}: no initial value given")
            value = np.asarray(values[name], np.float32)
            if value.shape != shape or not np.isfinite(value).all():
                raise ValueError(
                    f"dense array {name!r}: initial value is {value.shape}, expected {shape} and "
                    f"finite"
                )
            row_store = self._row_stores[name]
            row_store[0, : value.size] = value.reshape(-1)
            self._optimizers[name].initialize(row_store, value.size)

    def pull(self) -> dict[str, npt.NDArray[np.float32]]:
        """A copy of every array's weights, in its shape."""
        out = {}
        for name, row_store in self._row_stores.items():
            flat = np.empty((1, self._sizes[name]), np.float32)
            self._optimizers[name].weights(row_store, 0, _ROW_0, flat)
            out[name] = flat.reshape(self._shapes[name])
        return out

    def apply(
        self,
        gradients: Mapping[str, Floats],
        scale: float = 1.0,
        meanwhile: Mapping[str, Floats] | None = None,
    ) -> None:
        """One optimizer step for each named array; gradients are finite and have its shape
        (`refusal` has looked)."""
        for name, gradient in gradients.items():
            applied = None if meanwhile is None else plain(meanwhile[name]).reshape(1, -1)
            self._optimizers[name].apply(
                self._row_stores[name], 0, _ROW_0, plain(gradient).reshape(1, -1), scale, applied
            )

    def advance(self, before_ms: int, now_ms: int) -> None:
        """The model's event time goes on: accumulators decay once for each period that has
        ended."""
        for name, row_store in self._row_stores.items():
            optimizer = self._optimizers[name]
            period_ms = int(optimizer.decay_ms)
            periods = now_ms // period_ms - before_ms // period_ms if period_ms else 0
            if periods > 0:
                optimizer.decay(row_store, 0, self._sizes[name], _ROW_0, np.full(1, periods))

    def refusal(self, name: str, gradient: npt.NDArray[np.float32]) -> str:
        """Why a gradient does not fit, or "". Its values are judged elsewhere."""
        shape = self._shapes.get(name)
        if shape is None:
            where = "lives on another shard" if name in self.spec.shapes else "is not in the model"
            return f"dense array {name!r} {where}"
        if gradient.shape != shape or gradient.dtype != np.float32:
            return (
                f"dense array {name!r}: gradient is {gradient.dtype} {gradient.shape}, "
                f"expected float32 {shape}"
            )
        return ""

    def items(self) -> dict[str, npt.NDArray[np.float32]]:
        """A copy of every array as it is kept: (row_size,) float32, weights (FTRL: z) then
        state."""
        return {name: row_store[0].copy() for name, row_store in self._row_stores.items()}

    def load(self, items: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Set every array from `items()`. ValueError names one that is missing or has another
        size."""
        for name, row_store in self._row_stores.items():
            item = items.get(name)
            if item is None or item.shape != row_store[0].shape:
                found = "missing" if item is None else f"{item.shape}"
                raise ValueError(
                    f"dense array {name!r}: {found}, expected {row_store[0].shape} with "
                    f"{self.spec.optimizer} state"
                )
            row_store[0] = item

    def validate(self) -> None:
        """AssertionError if an array is not finite."""
        for name, row_store in self._row_stores.items():
            assert np.isfinite(row_store).all(), f"dense array {name!r} is not finite"
