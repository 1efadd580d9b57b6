"""A second table of the toy model, in 16 bits, whose keys are admitted by how often they were seen
and die of age (S3).

Every labelled impression has a word, a few of which are frequent. What a shard then holds depends
on every push that it has applied, in order, through every restart: the watcher keeps a dict for
each shard and compares.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from paramserver import Keys, SlotMap, TableSpec, slot_of
from paramserver.tables.ages import STEP_S

WORDS = "words"
COUNT, TTL_MS, HALVE_MS, DIFFERENT = 3, 16_000, 20_000, 48
SPEC = TableSpec(
    WORDS,
    dim=1,
    optimizer="sgd",
    options={"rate": 1.0},
    policy={
        "admit_count": COUNT,
        "admit_halve_ms": HALVE_MS,
        "admit_bytes": 1 << 20,
        "ttl_ms": TTL_MS,
    },
    storage="float16",  # which counts to 2,048 without a rounding
)


def words_on(slot_map: SlotMap, shard: int, positions: npt.NDArray[np.int64]) -> Keys:
    """The words of these impressions that a shard owns, rising, each once."""
    h = positions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    words = np.minimum(h >> np.uint64(32), h & np.uint64(0xFFFFFFFF)) * np.uint64(
        DIFFERENT
    ) >> np.uint64(32)
    keys = np.unique(words) + np.uint64(1 << 60)
    return np.asarray(keys[slot_map.owner[slot_of(keys)] == shard])


def owner_of(slot_map: SlotMap, key: int) -> int:
    return int(slot_map.owner[slot_of(np.array([key], np.uint64))[0]])


@dataclass
class AdmittedKeys:
    """What one shard's table of words must hold after the pushes it was told of."""

    rows: dict[int, tuple[float, int]] = field(default_factory=dict)  # key -> weight, touched s
    seen: dict[int, int] = field(default_factory=dict)
    now_ms: int = 0

    def push(self, keys: list[int], event_ms: int) -> None:
        before_ms, self.now_ms = self.now_ms, max(self.now_ms, event_ms)
        horizon_s = (self.now_ms - TTL_MS) // 1000 // STEP_S * STEP_S
        self.rows = {key: row for key, row in self.rows.items() if row[1] >= horizon_s}
        periods = self.now_ms // HALVE_MS - before_ms // HALVE_MS
        if periods:
            self.seen = {key: count >> min(periods, 8) for key, count in self.seen.items()}
        for key in keys:
            if key in self.rows or self.seen.get(key, 0) + 1 >= COUNT:
                weight = self.rows[key][0] if key in self.rows else 0.0
                self.rows[key] = (weight + 1.0, self.now_ms // 1000)
            else:
                self.seen[key] = self.seen.get(key, 0) + 1

    def weights(self) -> dict[int, float]:
        return {key: weight for key, (weight, _) in self.rows.items()}

    def copy(self) -> "AdmittedKeys":
        return AdmittedKeys(dict(self.rows), dict(self.seen), self.now_ms)


class AdmittedKeysByModel:
    """Those of all incarnations of all shards, and of complete cuts."""

    def __init__(self) -> None:
        self._of: dict[tuple[int, int], AdmittedKeys] = {}
        self._marked: dict[tuple[int, frozenset[tuple[str, int]]], AdmittedKeys] = {}
        self._complete: dict[
            str, dict[int, AdmittedKeys]
        ] = {}  # by checksum of the manifest, then by shard

    def restored(self, shard: int, incarnation: int, sha256: str, slot_map: SlotMap) -> None:
        """From all parts of a cut, what is a shard's own under a map (S6)."""
        own = self._of[shard, incarnation] = AdmittedKeys()
        for part in self._complete[sha256].values():
            mine = [
                key
                for key in part.rows.keys() | part.seen.keys()
                if owner_of(slot_map, key) == shard
            ]
            own.rows |= {key: part.rows[key] for key in mine if key in part.rows}
            own.seen |= {key: part.seen[key] for key in mine if key in part.seen}
            own.now_ms = max(own.now_ms, part.now_ms)

    def pushed(self, shard: int, incarnation: int, keys: list[int], event_ms: int) -> None:
        self.of(shard, incarnation).push(keys, event_ms)

    def of(self, shard: int, incarnation: int) -> AdmittedKeys:
        return self._of.setdefault((shard, incarnation), AdmittedKeys())

    def marked(self, shard: int, incarnation: int, vector: dict[str, int]) -> None:
        """The shard stands at the vector now."""
        self._marked[shard, frozenset(vector.items())] = self.of(shard, incarnation).copy()

    def complete(self, sha256: str, vector: dict[str, int], shards: list[int]) -> dict[int, float]:
        """The weights of all words at a cut."""
        at = frozenset(vector.items())
        parts = self._complete[sha256] = {
            shard: self._marked.get((shard, at), AdmittedKeys()) for shard in shards
        }
        return {key: weight for part in parts.values() for key, weight in part.weights().items()}
