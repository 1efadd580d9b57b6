"""A torch module as a kind of model: its embeddings in one table, its parameters as dense arrays.

Built-in networks take their initial values from (seed, name) alone; a module of a user keeps those
of its constructor, run with torch's generator seeded by the model's seed.
"""

import copy
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from learners.config import PATH, ModelConfig
from learners.models import user_module
from learners.models.embeddings import gather, segment_sums
from learners.models.features import Encoded, Floats, Keys, Places
from learners.models.pooling import places_of_bag
from learners.models.torch_modules import WithAttention, network_of
from paramserver import DenseSpec, Rows, TableSpec
from paramserver.tables import fill_unknown
from stream.columns import COLOUR_MAX
from stream.hashing import NO_KEY, derived_key, hash_string

TABLE = "embeddings"
#: Parts of a layer's name behind which stands no ReLU.
LINEAR = frozenset({"cross", "linear", "gate"})
#: Begins the names of the arrays of attention.
ATTENTION = "attention."
_TABLE_RATE = 0.1
_DENSE_RATE = 0.001


class Network:
    """See `learners.models.model.Kind`."""

    def __init__(self, config: ModelConfig, device: str = "cpu"):
        """ValueError for a module that cannot be trained here, naming it and why."""
        self.config, self.device = config, torch.device(device)
        is_own = PATH in config.kind
        inner = user_module.make_module(config) if is_own else network_of(config)
        self._prototype = (WithAttention(config, inner) if config.attended else inner).eval()
        self._is_own = is_own
        self._idle = [self._prototype.to(self.device)]  # each used by one thread at a time

    @property
    def tables(self) -> tuple[TableSpec, ...]:
        config = self.config
        if not config.categorical:
            return ()
        optimizer = config.table_optimizer or "adagrad"
        defaults = {"alpha": _TABLE_RATE} if optimizer == "ftrl" else {"rate": _TABLE_RATE}
        options = defaults | config.table_options
        return (
            TableSpec(
                TABLE,
                config.dim,
                optimizer,
                options,
                config.init_scale,
                config.seed,
                config.table_policy,
                config.table_storage,
            ),
        )

    @property
    def dense(self) -> DenseSpec:
        shapes = {name: tuple(value.shape) for name, value in self._prototype.named_parameters()}
        defaults = (
            {"alpha": _DENSE_RATE}
            if self.config.dense_optimizer == "ftrl"
            else {"rate": _DENSE_RATE}
        )
        return DenseSpec(shapes, self.config.dense_optimizer, defaults | self.config.dense_options)

    @property
    def constants(self) -> frozenset[str]:
        """Those that the module marks `requires_grad=False`: shards hold and checkpoints carry
        them as they began."""
        return frozenset(
            name for name, p in self._prototype.named_parameters() if not p.requires_grad
        )

    def initial_dense(self) -> dict[str, Floats]:
        values = {
            name: p.detach().cpu().numpy().copy() for name, p in self._prototype.named_parameters()
        }
        if not self._is_own:
            return initial_arrays(values, self.config)
        if not self.config.attended:
            return values
        ours = {name: array for name, array in values.items() if name.startswith(ATTENTION)}
        return values | initial_arrays(ours, self.config)

    def keys(self, encoded: Encoded) -> dict[str, Keys]:
        return {TABLE: encoded.keys} if self.config.categorical else {}

    def column_name(self, table: str, column: int) -> str:
        return self.config.categorical[column]

    def table_of(self, feature: str) -> str:
        return TABLE

    def name_at(self, table: str, at: int, encoded: Encoded) -> str:
        return self.column_name(table, at % len(self.config.categorical))

    def predict(
        self, places: Places, rows: dict[str, Rows], dense: dict[str, Floats], encoded: Encoded
    ) -> Floats:
        with torch.no_grad():
            embeddings = self._to_device(self._gathered(places, rows, len(encoded)))
            values = self._values(places, rows)
            parameters = {name: self._to_device(array) for name, array in dense.items()}
            return _probability(self._logits(parameters, self._inputs(embeddings, values, encoded)))

    def differentiate(
        self,
        places: Places,
        rows: dict[str, Rows],
        dense: dict[str, Floats],
        encoded: Encoded,
        label: Floats,
        weight: Floats,
    ) -> tuple[Floats, dict[str, Rows], dict[str, Floats]]:
        constants = self.constants
        embeddings = self._to_device(self._gathered(places, rows, len(encoded))).requires_grad_()
        values = [one.requires_grad_() for one in self._values(places, rows)]
        parameters = {
            name: self._to_device(array).requires_grad_(name not in constants)
            for name, array in dense.items()
        }
        logits = self._logits(parameters, self._inputs(embeddings, values, encoded))
        loss = functional.binary_cross_entropy_with_logits(
            logits, self._to_device(label), self._to_device(weight), reduction="sum"
        )
        trained = {
            name: parameter for name, parameter in parameters.items() if name not in constants
        }
        by = [embeddings, *values, *trained.values()]
        with self._own_faults():
            found = torch.autograd.grad(loss, by, allow_unused=True, materialize_grads=True)
        arrays = [gradient.cpu().numpy() for gradient in found]
        of_values, of_dense = arrays[1 : 1 + len(values)], arrays[1 + len(values) :]
        dense_gradients = dict(zip(trained, map(np.ascontiguousarray, of_dense), strict=True))
        dense_gradients |= {name: np.zeros_like(dense[name]) for name in constants}
        p = _probability(logits.detach())
        if not self.config.categorical:
            return p, {}, dense_gradients
        count = len(rows[TABLE])
        gradient = segment_sums(places[TABLE], arrays[0], count)
        for (column, _), found_by in zip(self.config.attended, of_values, strict=True):
            at = places[places_of_bag(TABLE, column)]
            gradient += segment_sums(at[:, None], found_by[:, None], count)
        return p, {TABLE: gradient}, dense_gradients

    def _gathered(self, places: Places, rows: dict[str, Rows], count: int) -> Floats:
        if not self.config.categorical:
            return np.empty((count, 0, self.config.dim), np.float32)
        return gather(rows[TABLE], places[TABLE])

    def _values(self, places: Places, rows: dict[str, Rows]) -> list[Tensor]:
        """Of each attended column the rows of its values, (m, dim)."""
        return [
            self._to_device(rows[TABLE][places[places_of_bag(TABLE, column)]])
            for column, _ in self.config.attended
        ]

    def _to_device(self, array: Floats) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _inputs(
        self, embeddings: Tensor, values: list[Tensor], encoded: Encoded
    ) -> tuple[Tensor, ...]:
        """What `forward` takes: embeddings, numbers, what `WithAttention` does, and where the
        model reads pictures those: of a built-in network each feature's distinct ones and which of
        them a row has, of a module of a user's (n, images, 3, 32, 32)."""
        inputs = [embeddings, self._to_device(encoded.numbers)]
        for (column, _), rows in zip(self.config.attended, values, strict=True):
            bag = encoded.bags[self.config.bags.index(column)]
            owners = np.repeat(np.arange(len(encoded)), np.diff(bag.ends))
            weights = self._to_device(bag.weights[:, None])
            inputs += [rows, torch.from_numpy(owners).to(self.device), weights]
        if not encoded.images:
            return tuple(inputs)
        apart = [
            (torch.from_numpy(one.pixels).to(self.device).float() / COLOUR_MAX, one.places)
            for one in encoded.images
        ]
        pairs = [(pixels, torch.from_numpy(places).to(self.device)) for pixels, places in apart]
        if self._is_own:
            return *inputs, torch.stack([pixels[places] for pixels, places in pairs], dim=1)
        return *inputs, *(tensor for pair in pairs for tensor in pair)

    def _logits(self, parameters: dict[str, Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
        """(n,) of these parameters. `functional_call` changes a module while it runs, so each
        call has its own. Raises ModuleFault where a user's own answers no such thing."""
        module = self._idle.pop() if self._idle else copy.deepcopy(self._prototype).to(self.device)
        try:
            with self._own_faults():
                answer: Tensor = torch.func.functional_call(module, parameters, inputs)
                return user_module.checked_logits(self.config.kind, answer, len(inputs[0]))
        finally:
            self._idle.append(module)

    def _own_faults(self) -> AbstractContextManager[None]:
        return user_module.own_faults(self.config.kind) if self._is_own else nullcontext()


def _probability(logits: Tensor) -> Floats:
    probability: Floats = torch.sigmoid(logits.double()).float().cpu().numpy()
    return probability


def initial_arrays(shapes: dict[str, Floats], config: ModelConfig) -> dict[str, Floats]:
    """Weights uniform in +-sqrt(6 / inputs) (He et al. 2015); the last layer's and those of
    `LINEAR` layers, which no ReLU follows, in +-1/sqrt(inputs); biases 0, those of gates 1, the
    last one the prior rate's logit."""
    arrays: dict[str, Floats] = {}
    *_, last_bias = shapes
    last = last_bias.removesuffix(".bias")
    for name, like in shapes.items():
        layer, _, what = name.rpartition(".")
        if what == "bias":
            start = config.prior_logit if layer == last else 0.0
            if layer.endswith(".gate"):
                start = 1.0
            arrays[name] = np.full(like.shape, start, np.float32)
            continue
        is_linear = layer == last or not LINEAR.isdisjoint(layer.split("."))
        weight = np.empty((len(like), like.size // len(like)), np.float32)
        inputs = weight.shape[1]
        bound = np.sqrt((1.0 if is_linear else 6.0) / inputs)
        seed = np.uint64(hash_string(layer, derived_key(NO_KEY, str(config.seed))))
        rows = np.arange(1, len(weight) + 1, dtype=np.uint64)
        fill_unknown(weight, rows, np.full(len(weight), -1), seed, np.float32(bound), inputs)
        arrays[name] = weight.reshape(like.shape)
    return arrays
