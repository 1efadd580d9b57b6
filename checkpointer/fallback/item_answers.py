"""What the model has answered for items before, whoever asked: a running mean by item.

Two generations of items: a new one goes into the younger, and once that holds half of what is
allowed it becomes the older, whose items are forgotten unless they are answered for again.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

#: Weight of an answer against those before it.
_NEW = 0.2


class ItemAnswers:
    """At most `items_max` items. One thread adds, any may ask."""

    def __init__(self, prior: float, items_max: int) -> None:
        self._prior, self._half = prior, max(1, items_max // 2)
        self._young: dict[str, float] = {}
        self._old: dict[str, float] = {}
        #: the newest version that is in it
        self.version = ""

    def __len__(self) -> int:
        return len(self._young) + len(self._old.keys() - self._young.keys())

    def add(self, items: Iterable[str | None], answers: Iterable[float], version: str) -> None:
        """What a version has answered, by row."""
        young, old = self._young, self._old
        for item, answer in zip(items, answers, strict=True):
            if not item:
                continue
            before = young.get(item, old.get(item))
            young[item] = answer if before is None else before + _NEW * (answer - before)
        self.version = version
        if len(young) >= self._half:
            self._young, self._old = {}, dict(list(young.items())[: self._half])

    def rates(self, items: Sequence[str | None]) -> npt.NDArray[np.float64]:
        """(n,) probabilities; the prior of an item that was not answered for."""
        young, old, prior = self._young, self._old, self._prior
        return np.array(
            [young.get(item, old.get(item, prior)) if item else prior for item in items],
            np.float64,
        )
