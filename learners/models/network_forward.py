"""The built-in networks' forward pass for serving, in compiled code of one thread.

What `torch_modules` computes, without torch's dispatch, which costs more than 50 rows of such a
network; the weights of a version are laid out once. Sums run in another order than torch's, so the
last bits differ from those that learners see (docs/models.md, "Where it is computed").
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from learners.config import ModelConfig
from learners.models.embeddings import gather
from learners.models.feature_pairs import products
from learners.models.features import Floats
from learners.models.logistic import sigmoid
from paramserver import Rows
from stream.kernels import kernel

#: (weights (in, out), bias (out,)) of each layer.
Layers = Sequence[tuple[Floats, Floats]]
#: (place (n, features), rows (m, dim), numbers (n, g)) -> probabilities (n,).
Forward = Callable[[npt.NDArray[np.int64], Rows, Floats], Floats]


def forward_of(config: ModelConfig, dense: Mapping[str, Floats]) -> Forward | None:
    """None for a kind that is no built-in network."""
    made = {"mlp": _mlp, "dlrm": _dlrm, "dcn": _dcn}.get(config.kind)
    if made is None:
        return None
    logits = made(config, dense)

    def forward(place: npt.NDArray[np.int64], rows: Rows, numbers: Floats) -> Floats:
        embeddings = gather(rows, np.ascontiguousarray(place))
        found: Floats = sigmoid(logits(embeddings, numbers).astype(np.float64))
        return found

    return forward


Logits = Callable[[Floats, Floats], Floats]


def _mlp(config: ModelConfig, dense: Mapping[str, Floats]) -> Logits:
    layers = _layers(dense, "", len(config.hidden) + 1)
    return lambda embeddings, numbers: _through(layers, _beside(embeddings, numbers))


def _dlrm(config: ModelConfig, dense: Mapping[str, Floats]) -> Logits:
    top = _layers(dense, "top.", len(config.hidden) + 1)
    if not config.numeric:
        return lambda embeddings, numbers: _through(top, products(embeddings))
    bottom = _layers(dense, "bottom.", len(config.bottom) + 1)

    def logits(embeddings: Floats, numbers: Floats) -> Floats:
        vector = _stacked(bottom, numbers, last_is_bent=True)
        every = np.concatenate([vector[:, None, :], embeddings], axis=1)
        return _through(top, np.concatenate([vector, products(every)], axis=1))

    return logits


def _dcn(config: ModelConfig, dense: Mapping[str, Floats]) -> Logits:
    deep = _layers(dense, "deep.", len(config.hidden) + 1)
    crosses = []
    for number in range(config.cross_layers):
        name = f"cross.{number}."
        if config.cross_rank:
            down = _transposed(dense[f"{name}0.weight"])
            none = np.zeros(down.shape[1], np.float32)
            up = (_transposed(dense[f"{name}1.weight"]), dense[f"{name}1.bias"])
            crosses.append([(down, none), up])
        else:
            crosses.append([(_transposed(dense[f"{name}weight"]), dense[f"{name}bias"])])

    def logits(embeddings: Floats, numbers: Floats) -> Floats:
        x = first = _beside(embeddings, numbers)
        for cross in crosses:
            found = x
            for weights, bias in cross:
                found = _layer(found, weights, bias, False)
            x = first * found + x
        return _through(deep, x)

    return logits


def _layers(dense: Mapping[str, Floats], name: str, count: int) -> Layers:
    names = [f"{name}layer{number}." for number in range(count)]
    return [(_transposed(dense[f"{n}weight"]), dense[f"{n}bias"]) for n in names]


def _transposed(weights: Floats) -> Floats:
    return np.ascontiguousarray(weights.T)


def _beside(embeddings: Floats, numbers: Floats) -> Floats:
    flat = embeddings.reshape(len(embeddings), -1)
    return np.concatenate([flat, numbers], axis=1) if numbers.shape[1] else flat


def _through(layers: Layers, x: Floats) -> Floats:
    """The logits (n,)."""
    return _stacked(layers, x, last_is_bent=False)[:, 0]


def _stacked(layers: Layers, x: Floats, last_is_bent: bool) -> Floats:
    for number, (weights, bias) in enumerate(layers):
        x = _layer(x, weights, bias, number < len(layers) - 1 or last_is_bent)
    return x


@kernel
def _layer(x: Floats, weights: Floats, bias: Floats, is_bent: bool) -> Floats:
    """x (n, in) times weights (in, out), plus bias (out,), below 0 cut off where `is_bent`."""
    out = np.empty((x.shape[0], weights.shape[1]), np.float32)
    for i in range(x.shape[0]):
        line = out[i]
        for j in range(len(bias)):
            line[j] = bias[j]
        for k in range(x.shape[1]):
            value, row = x[i, k], weights[k]
            for j in range(len(bias)):
                line[j] += value * row[j]
        if is_bent:
            for j in range(len(bias)):
                line[j] = max(line[j], np.float32(0))
    return out
