"""Which new keys get a row: by how often pushes have carried them, or by chance. Most keys of a log
are seen once.

Counts stand in a counting Bloom filter: 8-bit counters in lines of 64, one cache line each. A key
has LINE_COUNTERS of one line of its slot, and its count is the least of them; only those that are
at the least are raised (Estan and Varghese 2002), so a key is never counted too low, and too high
only where all of its counters are shared. The line depends on key and slot alone, so counts move
with their slots to any number of shards. What the counts forget, they forget by event time: all are
halved once a period.

Chance is a hash of (key, the range of the push), so nothing is kept for it.

All of it is driven by applied pushes alone: the same pushes admit the same keys (S3).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from paramserver.kernel import prefetch
from paramserver.messages import Keys, TableSpec
from paramserver.slots import SLOTS
from paramserver.tables.arena import zeroed
from paramserver.tables.policy import RowPolicy, make_policy
from stream.kernels import kernel, mix64

#: Bytes of a line, and counters of it that a key has.
LINE = 64
LINE_COUNTERS = 4
#: Halving this often leaves nothing of 8 bits.
_HALVINGS_MAX = 8
_AHEAD = 8

Counters = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


class Sightings(NamedTuple):
    """Lines of counters as they leave and enter a table: those that have ever been raised,
    rising by line."""

    lines: npt.NDArray[np.int64]  # (k,) unique: slot x lines a slot + line
    counters: Counters  # (k, LINE)
    version: npt.NDArray[np.int64]  # (k,) the shard's after the last change

    def take(self, chosen: npt.NDArray[np.int64] | Mask) -> "Sightings":
        return Sightings(self.lines[chosen], self.counters[chosen], self.version[chosen])


NO_SIGHTINGS = Sightings(
    np.zeros(0, np.int64), np.zeros((0, LINE), np.uint8), np.zeros(0, np.int64)
)


def lines_per_slot(admit_bytes: float) -> int:
    """Lines of counters of one slot where all slots together have so many bytes."""
    return max(1, int(admit_bytes) // (SLOTS * LINE))


def slots_of_lines(lines: npt.NDArray[np.int64], spec: TableSpec) -> npt.NDArray[np.int64]:
    """The slot of each line of a table's counters."""
    return lines // lines_per_slot(make_policy(spec.name, spec.policy).admit_bytes)


def joined(several: Sequence[Sightings]) -> Sightings:
    """Lines of different slots, or different lines, as one, rising."""
    all_of = Sightings(*map(np.concatenate, zip(*several, strict=True)))
    return all_of.take(np.argsort(all_of.lines))


@kernel
def _line_of(h: np.uint64, per_slot: int) -> np.int64:
    """The slot is the top 10 bits of the hash; the next 32 say which of its lines."""
    slot, rest = np.int64(h >> np.uint64(54)), (h >> np.uint64(22)) & np.uint64(0xFFFFFFFF)
    return slot * per_slot + np.int64((rest * np.uint64(per_slot)) >> np.uint64(32))


@kernel
def _sight(
    counters: Counters,
    versions: npt.NDArray[np.int64],
    per_slot: int,
    keys: Keys,
    threshold: int,
    version: int,
    admitted: Mask,
) -> None:
    """One sighting of each key; those that reach the threshold are admitted, and not counted any
    more."""
    base = np.uint64(counters.ctypes.data)
    for i in range(-_AHEAD, len(keys)):
        if i + _AHEAD < len(keys):
            prefetch(base + np.uint64(64 * _line_of(mix64(keys[i + _AHEAD]), per_slot)))
        if i < 0:
            continue
        h = mix64(keys[i])
        line, which = _line_of(h, per_slot), mix64(h)
        least = np.int64(255)
        for k in range(4):
            least = min(
                least,
                np.int64(counters[line, np.int64((which >> np.uint64(6 * k)) & np.uint64(63))]),
            )
        admitted[i] = least + 1 >= threshold
        if not admitted[i]:
            for k in range(4):
                at = np.int64((which >> np.uint64(6 * k)) & np.uint64(63))
                if np.int64(counters[line, at]) == least:
                    counters[line, at] = np.uint8(least + 1)
            versions[line] = version


@kernel
def _halve(counters: Counters, versions: npt.NDArray[np.int64], times: int, version: int) -> None:
    for line in range(len(counters)):
        if versions[line] > 0:
            for j in range(64):
                counters[line, j] = counters[line, j] >> np.uint8(times)
            versions[line] = version


@kernel
def _draw(keys: Keys, seed: np.uint64, chance: float, admitted: Mask) -> None:
    for i in range(len(keys)):
        admitted[i] = np.float64(mix64(keys[i] ^ mix64(seed)) >> np.uint64(11)) * 2.0**-53 < chance


class Admission:
    """Decides about keys that have no row. Belongs to the one writer of its table."""

    def __init__(self, policy: RowPolicy) -> None:
        self.threshold, self.chance = int(policy.admit_count), float(policy.admit_chance)
        self._halve_ms = int(policy.admit_halve_ms)
        self._per_slot = lines_per_slot(policy.admit_bytes)
        lines = SLOTS * self._per_slot if self.threshold else 0
        # Of every slot, its own or not: memory that nothing was written to is not taken.
        self._counters: Counters = zeroed(LINE * lines, np.uint8).reshape(lines, LINE)
        self._versions = np.zeros(lines, np.int64)  # of the last change; 0: never raised

    def advance(self, before_ms: int, now_ms: int, version: int) -> None:
        """The model's event time goes on: counts are halved once for each period that has ended."""
        if self.threshold and self._halve_ms:
            periods = now_ms // self._halve_ms - before_ms // self._halve_ms
            if periods > 0:
                _halve(self._counters, self._versions, min(periods, _HALVINGS_MAX), version)

    def admits(self, keys: Keys, version: int, seed: int) -> Mask:
        """Which of these keys (distinct, without a row) get one now, as the push that makes
        `version` carries them.

        `seed`: of the push's range, unsigned 64 bits."""
        admitted = np.empty(len(keys), np.bool_)
        if self.threshold:
            _sight(
                self._counters,
                self._versions,
                self._per_slot,
                keys,
                self.threshold,
                version,
                admitted,
            )
        else:
            _draw(keys, np.uint64(seed), self.chance, admitted)
        return admitted

    def items(self) -> Sightings:
        """A copy of all lines that were ever raised: at most `admit_bytes` of a shard of all
        slots."""
        lines = np.flatnonzero(self._versions)
        if len(lines) == len(
            self._versions
        ):  # a filter in use: one plain copy, since a writer waits for it
            return Sightings(lines, self._counters.copy(), self._versions.copy())
        return Sightings(lines, self._counters[lines], self._versions[lines])

    def clear(self, slots: npt.NDArray[np.int32]) -> None:
        """Nothing was ever seen of these slots."""
        lines = (
            slots[:, None].astype(np.int64) * self._per_slot + np.arange(self._per_slot)
        ).reshape(-1)
        if self.threshold:
            self._counters[lines], self._versions[lines] = 0, 0

    def load(self, items: Sightings) -> None:
        """Take over counts in the place of those of these lines. ValueError for lines that the
        policy does not have."""
        lines = items.lines
        fits = items.counters.shape == (len(lines), LINE) and (
            not len(lines) or 0 <= lines.min() <= lines.max() < len(self._counters)
        )
        if not fits:
            raise ValueError(
                f"sightings {items.counters.shape} do not fit {len(self._counters)} lines of {LINE}"
            )
        self._counters[lines], self._versions[lines] = items.counters, items.version


assert LINE_COUNTERS == 4
assert LINE == 64
