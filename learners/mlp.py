"""Embeddings and a multilayer perceptron, in torch.

A row's embeddings and numbers stand side by side; hidden layers with ReLU follow, then one logit, whose bias starts at
the prior rate's logit. Initial arrays are a function of (seed, name) alone.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from learners.config import ModelConfig
from learners.features import Encoded, Floats, Keys, Places
from paramserver.init import fill_unknown
from paramserver.messages import DenseSpec, Rows, TableSpec
from stream.keys import hash_string

TABLE = "embeddings"
_TABLE_RATE = 0.1
_DENSE_RATE = 0.001


class Perceptron:
    """See `learners.model.Model`."""

    def __init__(self, config: ModelConfig):
        self.config = config
        self._width = len(config.categorical) * config.dim + len(config.numeric)
        widths = (self._width, *config.hidden, 1)
        self._layers = [(f"layer{i}", into, out) for i, (into, out) in enumerate(pairwise(widths))]

    @property
    def tables(self) -> tuple[TableSpec, ...]:
        config = self.config
        if not config.categorical:
            return ()
        optimizer = config.table_optimizer or "adagrad"
        defaults = {"alpha": _TABLE_RATE} if optimizer == "ftrl" else {"rate": _TABLE_RATE}
        options = defaults | config.table_options
        return (TableSpec(TABLE, config.dim, optimizer, options, config.init_scale, config.seed),)

    @property
    def dense(self) -> DenseSpec:
        shapes: dict[str, tuple[int, ...]] = {}
        for name, into, out in self._layers:
            shapes |= {f"{name}.weight": (out, into), f"{name}.bias": (out,)}
        defaults = {"alpha": _DENSE_RATE} if self.config.dense_optimizer == "ftrl" else {"rate": _DENSE_RATE}
        return DenseSpec(shapes, self.config.dense_optimizer, defaults | self.config.dense_options)

    def initial_dense(self) -> dict[str, Floats]:
        """Weights uniform in +-sqrt(6 / inputs) (He et al. 2015), the last layer's in +-1/sqrt(inputs); biases 0."""
        arrays: dict[str, Floats] = {}
        for name, into, out in self._layers:
            last = name == self._layers[-1][0]
            bound = np.sqrt((1.0 if last else 6.0) / into)
            weight = np.empty((out, into), np.float32)
            seed = np.uint64(hash_string(name, self.config.seed))
            unknown = np.full(out, -1, np.int64)
            fill_unknown(weight, np.arange(1, out + 1, dtype=np.uint64), unknown, seed, np.float32(bound), into)
            bias = np.full(out, self.config.prior_logit if last else 0.0, np.float32)
            arrays |= {f"{name}.weight": weight, f"{name}.bias": bias}
        return arrays

    def keys(self, encoded: Encoded) -> dict[str, Keys]:
        return {TABLE: encoded.keys} if self.config.categorical else {}

    def column_name(self, table: str, column: int) -> str:
        return self.config.categorical[column]

    def predict(self, places: Places, rows: dict[str, Rows], dense: dict[str, Floats], numbers: Floats) -> Floats:
        with torch.no_grad():
            tables, arrays = _tensors(rows), _tensors(dense)
            probability: Floats = torch.sigmoid(self._logits(places, tables, arrays, numbers).double()).float().numpy()
            return probability

    def differentiate(
        self,
        places: Places,
        rows: dict[str, Rows],
        dense: dict[str, Floats],
        numbers: Floats,
        label: Floats,
        weight: Floats,
    ) -> tuple[Floats, dict[str, Rows], dict[str, Floats]]:
        tables, arrays = _tensors(rows, True), _tensors(dense, True)
        logits = self._logits(places, tables, arrays, numbers)
        loss = functional.binary_cross_entropy_with_logits(
            logits, torch.from_numpy(label), torch.from_numpy(weight), reduction="sum"
        )
        loss.backward()  # type: ignore[no-untyped-call]
        p = torch.sigmoid(logits.detach().double()).float().numpy()
        return p, _gradients(tables), _gradients(arrays)

    def _logits(
        self,
        places: Places,
        tables: dict[str, torch.Tensor],
        arrays: dict[str, torch.Tensor],
        numbers: Floats,
    ) -> torch.Tensor:
        x = torch.from_numpy(numbers)
        if tables:
            place = torch.from_numpy(np.ascontiguousarray(places[TABLE]))
            x = torch.cat([functional.embedding(place, tables[TABLE]).flatten(1), x], dim=1)
        for name, _, _ in self._layers:
            if name != "layer0":
                x = functional.relu(x)
            x = functional.linear(x, arrays[f"{name}.weight"], arrays[f"{name}.bias"])
        return x.squeeze(1)


def _tensors(arrays: dict[str, Any], gradient: bool = False) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(array, requires_grad=gradient) for name, array in arrays.items()}


def _gradients(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {n: np.zeros(t.shape, np.float32) if t.grad is None else t.grad.numpy() for n, t in tensors.items()}
