"""Plain torch on the same model: one process, everything in memory, sparse gradients,
`torch.optim.Adagrad`.

    python -m bench.baselines.torch_dlrm FOLDER [--threads 1] [--kind dlrm|mlp]

What an engineer writes first: `nn.Embedding(sparse=True)` for all features, the dot products of the
reference DLRM (`bmm`, then the triangle by index), binary cross-entropy, two Adagrads. FOLDER is
written by `bench.training`: ids and labels of the batches (int64, ready as tensors: no reading, no
hashing, no decoding), initial values. It prints its own figure in turns (`bench.baselines.turns`).
"""

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.baselines.turns import serve

RATE, ACCUMULATOR, EPSILON = 0.05, 0.1, 1e-8


class Dlrm(nn.Module):
    """Features x dim -> dots or concatenation -> linear layers with ReLU."""

    def __init__(
        self,
        rows: np.ndarray,
        layers: list[tuple[np.ndarray, np.ndarray]],
        kind: str,
        features: int,
    ):
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(
            torch.from_numpy(rows), freeze=False, sparse=True
        )
        self.layers = nn.ModuleList(
            nn.Linear(weight.shape[1], weight.shape[0]) for weight, _ in layers
        )
        for layer, (weight, bias) in zip(self.layers, layers, strict=True):
            layer.weight.data.copy_(torch.from_numpy(weight))  # type: ignore[operator, union-attr]
            layer.bias.data.copy_(torch.from_numpy(bias))  # type: ignore[operator, union-attr]
        self.kind, (self.first, self.second) = kind, torch.triu_indices(features, features, 1)

    def forward(self, ids: Tensor) -> Tensor:
        vectors = self.embedding(ids)
        if self.kind == "dlrm":
            x = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.first, self.second]
        else:
            x = vectors.flatten(1)
        for number, layer in enumerate(self.layers):
            x = layer(torch.relu(x) if number else x)
        return x.squeeze(1)


class Trainer:
    """Goes round the batches of a folder."""

    def __init__(self, folder: Path, kind: str):
        self.ids = torch.from_numpy(np.load(folder / "ids.npy"))
        self.labels = torch.from_numpy(np.load(folder / "labels.npy").astype(np.float32))
        self.model = Dlrm(
            np.load(folder / "rows.npy"), read_layers(folder), kind, self.ids.shape[2]
        )
        options = {"lr": RATE, "initial_accumulator_value": ACCUMULATOR, "eps": EPSILON}
        self.optimizers = [
            torch.optim.Adagrad(part.parameters(), **options)
            for part in (self.model.embedding, self.model.layers)
        ]
        self.at = 0
        self.losses: list[float] = []

    def step(self) -> int:
        ids, labels = self.ids[self.at % len(self.ids)], self.labels[self.at % len(self.ids)]
        self.at += 1
        loss = nn.functional.binary_cross_entropy_with_logits(self.model(ids), labels)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers:
            optimizer.step()
        self.losses.append(float(loss.detach()))
        return len(labels)


def read_layers(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    arrays = np.load(folder / "layers.npz")
    flat = [arrays[f"arr_{i}"] for i in range(len(arrays))]
    return [(weight, bias) for weight, bias in list(pairwise(flat))[::2]]


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kind", choices=("dlrm", "mlp"), default="dlrm")
    return parser


def main() -> None:
    given = options().parse_args()
    torch.set_num_threads(given.threads)
    trainer = Trainer(given.folder, given.kind)
    sample = torch.from_numpy(np.load(given.folder / "sample.npy"))

    def state() -> dict[str, Any]:
        rows = trainer.model.embedding.weight.detach()[sample]
        return {
            "losses": trainer.losses,
            "sample": rows.tolist() if len(trainer.losses) < 50 else [],
        }

    facts = {
        "torch": torch.__version__,
        "threads": given.threads,
        "optimizer": "Adagrad, sparse",
        "rate": RATE,
    }
    serve(trainer.step, facts, state)


if __name__ == "__main__":
    main()
