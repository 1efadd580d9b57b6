"""The clicks of one window, waiting for their impressions (L1, L5).

Clicks come in log order, so their arrivals never fall and they leave in the same order. Several
clicks may name one impression: entries of one id are linked from the newest to the oldest.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from labeler.join.ring_index import RING_MIN, delete, find, new_index, ring_size
from stream.kernels import I32, I64, U64, kernel

I8 = npt.NDArray[np.int8]


class ClickLimits(NamedTuple):
    """Which clicks count (L1), all in ms: by event time up to `window_ms` after their impression,
    or up to `early_click_ms` before it; by arrival up to `wait_ms` after it, or up to `early_ms`
    before it. A window below 0 is none."""

    window_ms: int
    wait_ms: int
    early_ms: int
    early_click_ms: int


class Matches(NamedTuple):
    """Per impression: whether a click counts, the first one's delay in ms (-1 = none), and how many
    count; and how many would, were they not too long before it (L1)."""

    label: I8
    delay_ms: I64
    clicks: I64
    too_early: I64

    @classmethod
    def none(cls, count: int) -> "Matches":
        """Of so many impressions none has a click."""
        counts = np.zeros(count, np.int64)
        return cls(np.zeros(count, np.int8), np.full(count, -1, np.int64), counts, counts.copy())

    def spread(self, rows: I64, count: int) -> "Matches":
        """These are of so many impressions the ones at `rows`; the others have no click."""
        whole = Matches.none(count)
        whole.label[rows], whole.delay_ms[rows] = self.label, self.delay_ms
        whole.clicks[rows], whole.too_early[rows] = self.clicks, self.too_early
        return whole

    def with_later(self, later: "Matches") -> "Matches":
        """These, and those among clicks that stand later in the log."""
        delay_ms = np.where(self.label > 0, self.delay_ms, later.delay_ms)
        clicks, too_early = self.clicks + later.clicks, self.too_early + later.too_early
        return Matches(self.label | later.label, delay_ms, clicks, too_early)


class ClickJoin:
    """A multimap id -> clicks (event time, arrival), first in, first out. 34 bytes a click in a
    full table.

    The *first* click is the first in the log; the others that count are duplicates (L6).
    """

    def __init__(self) -> None:
        self._head = 0  # sequence number of the oldest click held
        self._tail = 0  # of the next one to come
        self._allocate(RING_MIN)

    def __len__(self) -> int:
        return self._tail - self._head

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        return int(
            self._ids.nbytes
            + self._ts_ms.nbytes
            + self._arrival_ms.nbytes
            + self._older.nbytes
            + self._index.nbytes
        )

    def insert(self, ids: U64, ts_ms: I64, arrival_ms: I64) -> None:
        """Add clicks in log order; `arrival_ms` must not fall, also against clicks added before."""
        needed = len(self) + len(ids)
        if needed > len(self._ids):
            self._resize(ring_size(needed))
        _insert(
            self._ids,
            self._ts_ms,
            self._arrival_ms,
            self._older,
            self._index,
            self._tail,
            ids,
            ts_ms,
            arrival_ms,
        )
        self._tail += len(ids)

    def match(self, ids: U64, ts_ms: I64, arrival_ms: I64, limits: ClickLimits) -> Matches:
        """For each impression the clicks that count for it (L1). Changes nothing."""
        found = Matches.none(len(ids))
        if len(self) and len(ids):
            _match(
                self._ids, self._ts_ms, self._arrival_ms, self._older, self._index, self._head,
                ids, ts_ms, arrival_ms, limits, *found,
            )  # fmt: skip
        return found

    def evict(self, before_ms: int) -> None:
        """Drop clicks that arrived before `before_ms`."""
        self._head = _evict(
            self._ids, self._arrival_ms, self._index, self._head, self._tail, before_ms
        )
        if len(self._ids) > RING_MIN and len(self) * 8 < len(self._ids):
            self._resize(ring_size(2 * len(self)))

    def _allocate(self, size: int) -> None:
        self._ids = np.zeros(size, np.uint64)
        self._ts_ms = np.zeros(size, np.int64)
        self._arrival_ms = np.zeros(size, np.int64)
        self._older = np.zeros(
            size, np.int32
        )  # distance back to the next older click of the id; 0 = none
        self._index = new_index(size)

    def _resize(self, size: int) -> None:
        rows = np.arange(self._head, self._tail) % len(self._ids)
        ids, ts_ms, arrival_ms = self._ids[rows], self._ts_ms[rows], self._arrival_ms[rows]
        self._allocate(size)
        self._tail = self._head
        self.insert(ids, ts_ms, arrival_ms)


@kernel
def _insert(
    ids: U64,
    ts_ms: I64,
    arrival_ms: I64,
    older: I32,
    index: I32,
    tail: int,
    new_ids: U64,
    new_ts: I64,
    new_arrival: I64,
) -> None:
    size = len(ids)
    for k in range(len(new_ids)):
        slot = (tail + k) % size
        at = find(index, ids, new_ids[k])
        older[slot] = (slot - (index[at] - 1)) % size if index[at] != 0 else 0
        ids[slot] = new_ids[k]
        ts_ms[slot] = new_ts[k]
        arrival_ms[slot] = new_arrival[k]
        index[at] = slot + 1


@kernel
def _evict(ids: U64, arrival_ms: I64, index: I32, head: int, tail: int, before_ms: int) -> int:
    size = len(ids)
    while head < tail and arrival_ms[head % size] < before_ms:
        slot = head % size
        at = find(index, ids, ids[slot])
        if index[at] == slot + 1:  # the id's newest click leaves, so all of its clicks have left
            delete(index, ids, at)
        head += 1
    return head


@kernel
def _match(
    ids: U64, ts_ms: I64, arrival_ms: I64, older: I32, index: I32, head: int,
    wanted: U64, shown_ms: I64, arrived_ms: I64, limits: ClickLimits,
    label: I8, delay_ms: I64, clicks: I64, too_early: I64,
) -> None:  # fmt: skip
    size = len(ids)
    window_ms, wait_ms, early_ms, early_click_ms = limits
    if window_ms < 0:
        return
    for k in range(len(wanted)):
        at = find(index, ids, wanted[k])
        if index[at] == 0:
            continue
        slot = np.int64(index[at] - 1)
        age = (slot - head) % size  # clicks that are older than this one
        while True:
            delay = ts_ms[slot] - shown_ms[k]
            wait = arrival_ms[slot] - arrived_ms[k]
            if delay <= window_ms and -early_ms <= wait <= wait_ms:
                if delay >= -early_click_ms:
                    label[k] = 1
                    delay_ms[k] = max(
                        delay, 0
                    )  # the oldest one that counts is seen last, and stays
                    clicks[k] += 1
                else:
                    too_early[k] += 1
            step = np.int64(older[slot])
            if step == 0 or step > age:  # no older one, or it has left
                break
            age -= step
            slot = (slot - step) % size
