"""The network kinds, as torch modules: `forward(embeddings, numbers)` -> logits.

`embeddings` (n, features, dim) are the rows of an example's keys, in the order of `categorical`;
`numbers` (n, g) the numeric features; the result (n,) or (n, 1). With pictures it is `forward(
embeddings, numbers, *pictures)`, and a convolution makes one more vector of each. A module of your
own has the same shape (docs/models.md). Parameters are only declared here: their values live on the
shards and are put in for each batch.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from learners.config import ModelConfig
from learners.models.feature_pairs import pair_products
from stream.columns import SIDE

#: On the CPU the gradient by an input of 336 columns took half as long as by one of 325.
ROUND = 16
#: Of the hidden layer of an attention.
ATTENTION_WIDTH = 16


def concatenated(embeddings: Tensor, numbers: Tensor) -> Tensor:
    """(n, features x dim + g). A model without numbers copies nothing."""
    flat = embeddings.flatten(1)
    return flat if numbers.shape[1] == 0 else torch.cat([flat, numbers], dim=1)


class Layers(nn.Module):
    """Linear layers `layer0`, `layer1`, ... with ReLU between them; the last one ends in one logit.

    Input may have columns of zeros behind its width: matrices of round widths multiply faster
    (`ROUND`).
    """

    def __init__(self, widths: list[int]):
        super().__init__()
        self.names = [f"layer{i}" for i in range(len(widths) - 1)]
        for name, (into, out) in zip(self.names, pairwise(widths), strict=True):
            self.add_module(name, nn.Linear(into, out))

    def forward(self, x: Tensor) -> Tensor:
        for number, name in enumerate(self.names):
            layer = self.get_submodule(name)
            if number == 0 and (zeros := x.shape[1] - layer.in_features) > 0:  # type: ignore[operator]
                x = functional.linear(x, functional.pad(layer.weight, (0, zeros)), layer.bias)  # type: ignore[arg-type]
            else:
                x = layer(torch.relu(x) if number else x)
        return x


class Mlp(Layers):
    """Embeddings and numbers side by side, through hidden layers."""

    def __init__(self, config: ModelConfig):
        super().__init__(
            [config.vectors * config.dim + len(config.number_names), *config.hidden, 1]
        )

    def forward(self, embeddings: Tensor, numbers: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(concatenated(embeddings, numbers))


class Dlrm(nn.Module):
    """Naumov et al. 2019: dot products of every pair of embeddings, then hidden layers.

    Numbers pass a bottom perceptron that ends at `dim`; its output is one more vector to pair, and
    stands beside the products as it is.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        vectors = config.vectors + bool(config.numeric)
        self.bottom = (
            Layers([len(config.number_names), *config.bottom, config.dim])
            if config.numeric
            else None
        )
        beside = config.dim if config.numeric else 0
        self.top = Layers([vectors * (vectors - 1) // 2 + beside, *config.hidden, 1])

    def forward(self, embeddings: Tensor, numbers: Tensor) -> Tensor:
        if self.bottom is not None:
            dense = torch.relu(self.bottom(numbers))
            embeddings = torch.cat([dense.unsqueeze(1), embeddings], dim=1)
        if self.bottom is None:
            x = pair_products(embeddings, ROUND)
        else:
            x = torch.cat([dense, pair_products(embeddings)], dim=1)
        logits: Tensor = self.top(x)
        return logits


class Dcn(nn.Module):
    """DCN-v2 (Wang et al. 2021), stacked: `cross_layers` layers x <- x0 * (W x + b) + x, then
    hidden layers.

    With `cross_rank` above 0, W is the product of two matrices of that rank.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.vectors * config.dim + len(config.number_names)
        rank = config.cross_rank
        crosses = [
            nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))
            if rank
            else nn.Linear(width, width)
            for _ in range(config.cross_layers)
        ]
        self.cross = nn.ModuleList(crosses)
        self.deep = Layers([width, *config.hidden, 1])

    def forward(self, embeddings: Tensor, numbers: Tensor) -> Tensor:
        x = first = concatenated(embeddings, numbers)
        for cross in self.cross:
            x = first * cross(x) + x
        logits: Tensor = self.deep(x)
        return logits


class Convolution(nn.Module):
    """Pictures (m, 3, 32, 32) in -1 to 1, 0 = missing, to vectors (m, dim): three convolutions that
    halve the sides, ReLU behind each, and a linear layer."""

    def __init__(self, dim: int):
        super().__init__()
        for number, (into, out) in enumerate(pairwise((3, 8, 16, 16))):
            self.add_module(f"conv{number}", nn.Conv2d(into, out, 3, stride=2, padding=1))
        self.linear = nn.Linear(16 * (SIDE // 8) ** 2, dim)

    def forward(self, x: Tensor) -> Tensor:
        for number in range(3):
            x = torch.relu(self.get_submodule(f"conv{number}")(x))
        vectors: Tensor = self.linear(x.flatten(1))
        return vectors


class WithPictures(nn.Module):
    """A network whose last vectors are those of pictures."""

    def __init__(self, config: ModelConfig, network: nn.Module):
        super().__init__()
        self.pictures = nn.ModuleList(Convolution(config.dim) for _ in config.images)
        self.network = network

    def forward(self, embeddings: Tensor, numbers: Tensor, *pictures: Tensor) -> Tensor:
        """`pictures`: of each image feature the distinct ones, and which of them each row has
        (n,)."""
        vectors = [
            convolution(distinct)[places].unsqueeze(1)
            for convolution, distinct, places in zip(
                self.pictures, pictures[::2], pictures[1::2], strict=True
            )
        ]
        logits: Tensor = self.network(torch.cat([embeddings, *vectors], dim=1), numbers)
        return logits


class Attention(nn.Module):
    """How far a value goes with what it is held against (the activation unit of DIN, Zhou et al.
    2018): a number, 1 at first, by which its row is multiplied."""

    def __init__(self, dim: int):
        super().__init__()
        self.layer = nn.Linear(4 * dim, ATTENTION_WIDTH)
        self.gate = nn.Linear(ATTENTION_WIDTH, 1)

    def forward(self, values: Tensor, against: Tensor) -> Tensor:
        """(m, 1) of values and of what each is held against, (m, dim)."""
        both = torch.cat([values, against, values - against, values * against], dim=1)
        how_far: Tensor = self.gate(torch.relu(self.layer(both)))
        return how_far


class WithAttention(nn.Module):
    """A network some of whose embeddings are sums of rows by attention."""

    def __init__(self, config: ModelConfig, network: nn.Module):
        super().__init__()
        self.columns = config.attended
        self.attention = nn.ModuleList(Attention(config.dim) for _ in self.columns)
        self.network = network

    def forward(self, embeddings: Tensor, numbers: Tensor, *beside: Tensor) -> Tensor:
        """`beside`: of each attended column the rows of its values (m, dim), whose values they are
        (m,) and their weights (m, 1); then what the network takes behind the numbers."""
        whole = embeddings.clone()
        for number, (column, against) in enumerate(self.columns):
            values, owners, weights = beside[3 * number : 3 * number + 3]
            query = embeddings[:, against].index_select(0, owners)
            rows = values * (self.attention[number](values, query) * weights)
            whole[:, column] = torch.zeros_like(whole[:, column]).index_add(0, owners, rows)
        logits: Tensor = self.network(whole, numbers, *beside[3 * len(self.columns) :])
        return logits


NETWORKS: dict[str, Callable[[ModelConfig], nn.Module]] = {"mlp": Mlp, "dlrm": Dlrm, "dcn": Dcn}


def network_of(config: ModelConfig) -> nn.Module:
    """Of a built-in kind."""
    network = NETWORKS[config.kind](config)
    return WithPictures(config, network) if config.images else network
