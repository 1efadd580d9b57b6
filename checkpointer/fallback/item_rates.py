"""How often items were clicked: shows and clicks by item, each counting half after a half-life.

The rate of an item is (clicks + prior x strength) / (shows + strength): one that was hardly shown
is near the prior (additive smoothing). Old events fade by *forward decay* (Cormode et al., ICDE
2009): an event's weight grows with its time, and nothing that is there has to be touched.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stream.kernels import F64

#: Weights are brought back to 1 once they have doubled so often.
_DOUBLINGS_MAX = 64
#: How many shows the prior is worth.
STRENGTH = 20.0


class ItemRates:
    """At most `items_max` items; where they are more, the half that was shown the most stays. One
    thread adds, any may ask."""

    def __init__(self, prior: float, items_max: int, half_life_ms: int) -> None:
        self._prior, self._items_max, self._half_life_ms = prior, items_max, half_life_ms
        self._from_ms = self._newest_ms = 0  # events of the first have the weight 1
        self._unit = 1.0  # the weight of the newest event
        #: item -> its place; shows, clicks: float64 (capacity,). Replaced as a whole.
        self._table: tuple[dict[str, int], F64, F64] = ({}, np.zeros(1024), np.zeros(1024))

    def __len__(self) -> int:
        return len(self._table[0])

    def add(self, items: pa.Array, shows: F64, clicks: F64, at_ms: int) -> None:
        """What was shown and clicked, by row (n,), at about this time."""
        if not len(items):
            return
        weight = self._weight(at_ms)
        encoded = items.dictionary_encode()
        place, count = encoded.indices.to_numpy(False), len(encoded.dictionary)
        shown = np.bincount(place, shows, count) * weight
        clicked = np.bincount(place, clicks, count) * weight
        places, all_shows, all_clicks = self._table
        slots = np.empty(count, np.int64)
        for i, item in enumerate(encoded.dictionary.to_pylist()):
            slots[i] = places.setdefault(item, len(places))
        if len(places) > len(all_shows):
            size = max(2 * len(all_shows), len(places))
            all_shows, all_clicks = (np.append(a, np.zeros(size - len(a))) for a in self._table[1:])
            self._table = (places, all_shows, all_clicks)
        np.add.at(all_shows, slots, shown)  # a dictionary may name an item twice
        np.add.at(all_clicks, slots, clicked)
        if len(places) > self._items_max:
            self._drop_half()

    def rates(self, items: Sequence[str | None]) -> npt.NDArray[np.float64]:
        """(n,) probabilities; the prior of an item that is not there."""
        places, shows, clicks = self._table
        slots = np.array([places.get(item, -1) for item in items], np.int64)  # type: ignore[arg-type]
        known = (slots >= 0) & (slots < len(shows))
        at = slots[known]
        out: npt.NDArray[np.float64] = np.full(len(slots), self._prior)
        strength = STRENGTH * self._unit
        out[known] = (clicks[at] + self._prior * strength) / (shows[at] + strength)
        return np.minimum(out, 1.0)

    def _weight(self, at_ms: int) -> float:
        """Of an event of this time. Counts are divided where weights have become large; a time far
        ahead of all before, as of a clock that was off, counts as the newest."""
        if self._from_ms == 0:
            self._from_ms = self._newest_ms = at_ms
        if at_ms > self._newest_ms + _DOUBLINGS_MAX * self._half_life_ms:
            at_ms = self._newest_ms
        self._newest_ms = max(self._newest_ms, at_ms)
        doublings = (self._newest_ms - self._from_ms) / self._half_life_ms
        if doublings > _DOUBLINGS_MAX:
            places, shows, clicks = self._table
            scale = 2.0**-doublings
            self._table = (places, shows * scale, clicks * scale)
            self._from_ms, doublings = self._newest_ms, 0.0
        self._unit = 2.0**doublings
        ago = (at_ms - self._newest_ms) / self._half_life_ms
        return float(self._unit * 2.0 ** max(ago, -1_000.0))

    def _drop_half(self) -> None:
        places, shows, clicks = self._table
        names = list(places)
        count = len(names)
        kept = np.sort(
            np.argpartition(-shows[:count], self._items_max // 2)[: self._items_max // 2]
        )
        self._table = (
            {names[i]: n for n, i in enumerate(kept.tolist())},
            shows[kept].copy(),
            clicks[kept].copy(),
        )
