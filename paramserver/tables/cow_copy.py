"""A copy of a table's rows as they stand now, made while pushes go on (X1: copy-on-write).

A row is copied when the copy comes to it, or just before a push changes it, whichever is first. A
row's own version says whether it has changed since: nothing else has to be remembered.
"""

import numpy as np
import numpy.typing as npt

from paramserver.messages import Keys
from paramserver.tables.row_header import FREE, HEAD, RowNumbers, Words, key_of
from paramserver.tables.tombstones import Tombstones
from stream.kernels import kernel

#: So many rows are looked at in the time that one takes to be copied.
LOOKS = 4
#: Rows looked at without asking how many were copied.
PIECE = 4_096


@kernel
def _keep(
    words: Words,
    rows: RowNumbers,
    first: int,
    since: int,
    until: int,
    base: int,
    horizon: int,
    kept: npt.NDArray[np.uint8],
    count: int,
    keys: Keys,
    payload: Words,
    versions: npt.NDArray[np.int64],
    touched_s: npt.NDArray[np.int64],
) -> int:
    """Copy those of `rows`, from `first` on, that have changed after `since` and not after `until`,
    or are dead, behind the `count` rows copied so far. `base`: of the versions in rows. Returns how
    many there are now."""
    for i in range(len(rows)):
        r = rows[i]
        if r < first or r >= len(kept) or kept[r] or words[r, 2] == np.uint32(0xFFFFFFFF):
            continue
        version, touched = base + np.int64(words[r, 2]), np.int64(words[r, 3])
        if version > until or (version <= since and touched >= horizon):
            continue
        kept[r] = 1
        keys[count] = key_of(words, r)
        versions[count] = version
        touched_s[count] = touched
        for j in range(payload.shape[1]):
            payload[count, j] = words[r, 4 + j]
        count += 1
    return count


class Columns:
    """Rows as columns, unsorted, living ones and dead ones. There is room for `rows`; memory is
    taken as they come."""

    def __init__(self, rows: int, payload: int) -> None:
        self.count = 0
        self.keys: Keys = np.empty(rows, np.uint64)
        self.payload: Words = np.empty((rows, payload), np.uint32)
        self.versions = np.empty(rows, np.int64)
        self.touched_s = np.empty(rows, np.int64)


class Copy:
    """Rows with a version above `since` (-1: all), as of `until`, the table's version now; and what
    has died since.

    Whoever changes a row calls `save` first. One writer, as for the table.
    """

    def __init__(
        self, rows: int, payload: int, since: int, until: int, horizon_s: int, deaths: Tombstones
    ) -> None:
        self.since, self.until, self._horizon_s, self._deaths = (
            since,
            until,
            horizon_s,
            deaths.copy(),
        )
        self._kept = np.zeros(rows, np.uint8)
        self._columns = Columns(rows, payload)
        self._next = 0

    @property
    def done(self) -> bool:
        return self._next >= len(self._kept)

    @property
    def advanced(self) -> bool:
        """Whether anybody has asked for rows of it."""
        return self._next > 0

    def knows_since(self, version: int) -> bool:
        """Whether all deaths after a version are known, so that `tombstones` of a copy since
        then can be told."""
        return version >= self._deaths.since

    def narrow(self, since: int) -> None:
        """Only rows with a version above `since` from now on, and what has died since."""
        self.since = max(self.since, since)

    def save(self, words: Words, rows: RowNumbers, base: int) -> None:
        """These rows are about to change or to go."""
        if not self.done:
            self._take(words, rows, base)

    def advance(self, words: Words, rows: int, base: int) -> bool:
        """Copy the next so many rows, or look at more that need not be. True when all are
        copied."""
        left = LOOKS * rows
        while left > 0 and not self.done:
            before, stop = self._columns.count, min(self._next + PIECE, len(self._kept))
            self._take(words, np.arange(self._next, stop), base)
            left -= stop - self._next + (LOOKS - 1) * (self._columns.count - before)
            self._next = stop
        return self.done

    def _take(self, words: Words, rows: RowNumbers, base: int) -> None:
        c = self._columns
        c.count = _keep(
            words, rows, self._next, self.since, self.until, base, self._horizon_s,
            self._kept, c.count, c.keys, c.payload, c.versions, c.touched_s,
        )  # fmt: skip

    def living(self) -> tuple[Columns, RowNumbers]:
        """(columns, which of them are the living rows, in the order of their keys)."""
        assert self.done
        columns, count = self._columns, self._columns.count
        living = columns.touched_s[:count] >= self._horizon_s
        # A row saved before the copy was narrowed may be older than what is wanted now.
        chosen = np.flatnonzero(living & (columns.versions[:count] > self.since))
        return columns, chosen[np.argsort(columns.keys[chosen])]

    def tombstones(self, since: int | None = None) -> Keys:
        """Keys that have died since, or since a later version, and are not alive, rising.
        ValueError if that is not known any more."""
        columns, order = self.living()
        dead = np.flatnonzero(columns.touched_s[: columns.count] < self._horizon_s)
        since = self.since if since is None else since
        keys = self._deaths.after(since, columns.keys[dead], columns.touched_s[dead])
        alive = columns.keys[order]
        places = np.searchsorted(alive, keys)
        is_alive = np.zeros(len(keys), np.bool_)
        inside = places < len(alive)
        is_alive[inside] = alive[places[inside]] == keys[inside]
        return keys[~is_alive]


assert HEAD == 4
assert FREE == 0xFFFFFFFF
