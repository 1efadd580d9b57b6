"""Learners that an engineer has without us, over rows of (key, x): FTRL-Proximal row by row in
numba, torch, and Vowpal Wabbit.

Each is driven by one schedule: `learn(rows)` answers what it predicted of these rows before it
learned them, `predict(rows)` learns nothing. Rows are indices into `Rows`. A logit begins with that
of the prior rate, as ours does.
"""

import importlib
import tempfile
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
#: Of Vowpal Wabbit's tables.
BITS = 24


@dataclass(frozen=True)
class Rows:
    """Row i has the weights `index[ends[i]:ends[i + 1]]`, each times `x`."""

    ends: Ints  # (n + 1,)
    index: Ints  # (m,) of the distinct keys, in order of their first row
    x: Floats  # (m,)
    label: Floats  # (n,)
    keys: int

    @classmethod
    def of(cls, readings: Sequence[Sequence[tuple[Hashable, float]]], label: Floats) -> "Rows":
        known: dict[Hashable, int] = {}
        index = [known.setdefault(key, len(known)) for row in readings for key, _ in row]
        x = [value for row in readings for _, value in row]
        ends = np.cumsum([0, *map(len, readings)])
        return cls(ends, np.array(index, np.int64), np.array(x, float), label, len(known))

    def part(self, rows: Ints) -> "tuple[Ints, Floats, Ints]":
        """(index, x, begins) of these rows behind each other."""
        lengths = self.ends[rows + 1] - self.ends[rows]
        begins = np.cumsum(lengths) - lengths
        at = np.arange(lengths.sum()) + np.repeat(self.ends[rows] - begins, lengths)
        return self.index[at], self.x[at], begins


class Step(NamedTuple):
    """What happens next to these rows."""

    learn: bool  # else they are predicted alone
    rows: Ints


class Learner(Protocol):
    """Predictions are probabilities, (rows,)."""

    def learn(self, rows: Ints) -> Floats: ...

    def predict(self, rows: Ints) -> Floats: ...


class Ftrl:
    """McMahan et al. 2013, Algorithm 1, without l1 and l2, row by row."""

    def __init__(self, rows: Rows, prior: float, alpha: float, beta: float = 1.0):
        self._rows, self._prior, self._how = rows, np.log(prior / (1 - prior)), (alpha, beta)
        self._z, self._n = np.zeros(rows.keys), np.zeros(rows.keys)

    def learn(self, rows: Ints) -> Floats:
        return self._run(rows, True)

    def predict(self, rows: Ints) -> Floats:
        return self._run(rows, False)

    def _run(self, rows: Ints, learns: bool) -> Floats:
        of = self._rows
        numbers = of.ends, of.index, of.x, of.label
        out: Floats = _ftrl(numbers, rows, (self._z, self._n), (self._prior, *self._how), learns)
        return out


@njit(cache=True)
def _ftrl(numbers, rows, state, how, learns):  # type: ignore[no-untyped-def]
    ends, index, x, label = numbers
    (z, n), (prior, alpha, beta) = state, how
    out = np.empty(len(rows))
    for r in range(len(rows)):
        i, logit = rows[r], prior
        for j in range(ends[i], ends[i + 1]):
            k = index[j]
            logit -= z[k] * alpha / (beta + np.sqrt(n[k])) * x[j]
        p = 1 / (1 + np.exp(-logit))
        out[r] = p
        if not learns:
            continue
        for j in range(ends[i], ends[i + 1]):
            k, g = index[j], (p - label[i]) * x[j]
            w = -z[k] * alpha / (beta + np.sqrt(n[k]))
            z[k] += g - (np.sqrt(n[k] + g * g) - np.sqrt(n[k])) / alpha * w
            n[k] += g * g
    return out


class Torch:
    """`nn.EmbeddingBag` and `torch.optim.Adagrad`, a step a batch: logistic regression, or with
    `dim` a factorization machine."""

    def __init__(self, rows: Rows, prior: float, rate: float, dim: int = 0, seed: int = 0):
        torch = self._torch = importlib.import_module("torch")
        torch.manual_seed(seed)
        self._rows, self._dim, self._prior = rows, dim, float(np.log(prior / (1 - prior)))
        first = torch.zeros(rows.keys, 1 + dim)
        if dim:
            first[:, 1:] = torch.randn(rows.keys, dim) * 0.05
        embedding = torch.nn.EmbeddingBag
        self._bag = embedding.from_pretrained(first, freeze=False, mode="sum", sparse=True)
        start = {"lr": rate, "initial_accumulator_value": 0.1, "eps": 1e-8}
        self._optimizer = torch.optim.Adagrad(self._bag.parameters(), **start)
        self._loss = torch.nn.BCEWithLogitsLoss(reduction="sum")

    def learn(self, rows: Ints) -> Floats:
        torch = self._torch
        self._optimizer.zero_grad()
        logits = self._logits(rows)
        self._loss(logits, torch.from_numpy(self._rows.label[rows]).float()).backward()
        self._optimizer.step()
        return np.asarray(torch.sigmoid(logits.detach()).numpy(), np.float64)

    def predict(self, rows: Ints) -> Floats:
        with self._torch.no_grad():
            return np.asarray(self._torch.sigmoid(self._logits(rows)).numpy(), np.float64)

    def _logits(self, rows: Ints) -> Any:
        torch = self._torch
        index, x, begins = (torch.from_numpy(a) for a in self._rows.part(rows))
        x = x.float()
        sums = self._bag(index, begins, per_sample_weights=x)
        logits = self._prior + sums[:, 0]
        if self._dim:
            vectors = torch.nn.functional.embedding(index, self._bag.weight, sparse=True)[:, 1:]
            squares = ((vectors * x[:, None]) ** 2).sum(1)
            row = torch.repeat_interleave(
                torch.arange(len(rows)), torch.diff(begins, append=torch.tensor([len(index)]))
            )
            of_row = torch.zeros(len(rows)).index_add(0, row, squares)
            logits = logits + 0.5 * ((sums[:, 1:] ** 2).sum(1) - of_row)
        return logits


def run(learner: Learner, schedule: Sequence[Step]) -> Iterator[Floats]:
    """What it says at each step."""
    for step in schedule:
        yield learner.learn(step.rows) if step.learn else learner.predict(step.rows)


def vowpal_wabbit(rows: Rows, schedule: Sequence[Step], options: str) -> Iterator[Floats]:
    """The same of Vowpal Wabbit: one pass over a file in which each step's rows stand in order,
    with a label where they are learned. Raises ImportError where it is not installed."""
    module = importlib.import_module("vowpalwabbit")
    with tempfile.TemporaryDirectory(prefix="everspun-vw-") as folder:
        file, said = Path(folder) / "rows.vw", Path(folder) / "said"
        with file.open("w") as out:
            out.writelines(_lines(rows, schedule))
        how = f"-d {file} -p {said} --quiet --loss_function logistic --link logistic -b {BITS}"
        module.Workspace(f"{how} {options}").finish()
        found = np.loadtxt(said)
    at = 0
    for step in schedule:
        yield found[at : at + len(step.rows)]
        at += len(step.rows)


def _lines(rows: Rows, schedule: Sequence[Step]) -> Iterator[str]:
    texts = [f"{k}:{x:.6g}" for k, x in zip(rows.index.tolist(), rows.x.tolist(), strict=True)]
    bodies = [
        " ".join(texts[a:b])
        for a, b in zip(rows.ends[:-1].tolist(), rows.ends[1:].tolist(), strict=True)
    ]
    for step in schedule:
        for i in step.rows.tolist():
            label = ("1 " if rows.label[i] > 0 else "-1 ") if step.learn else ""
            yield f"{label}|f {bodies[i]}\n"
