"""The ids of the last minutes of one partition (L2).

i is a duplicate iff the same (key, id) stands at a lower position with arrival >= arrival(i) -
dedup. Arrivals never fall along the log, so the newest earlier occurrence decides; every
occurrence, of whatever class, is remembered.
"""

import numpy as np
import numpy.typing as npt

from labeler.join.ring_index import RING_MIN, delete, find, new_index, ring_size
from stream.kernels import I32, I64, U64, kernel

Flags = npt.NDArray[np.bool_]


class DuplicateIds:
    """id -> arrival of its last occurrence, for `dedup_ms` of arrival. 22 bytes an occurrence in
    a full table."""

    def __init__(self, dedup_ms: int) -> None:
        self._dedup_ms = dedup_ms
        self._head = 0
        self._tail = 0
        self._allocate(RING_MIN)

    def __len__(self) -> int:
        return self._tail - self._head

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        return int(self._ids.nbytes + self._arrival_ms.nbytes + self._index.nbytes)

    def add(self, ids: U64, arrival_ms: I64) -> Flags:
        """Impressions in log order, none of them quarantined: which are duplicates (L2).
        Remembers them all."""
        duplicate = np.zeros(len(ids), np.bool_)
        if not len(ids):
            return duplicate
        self._evict(int(arrival_ms[0]) - self._dedup_ms)
        needed = len(self) + len(ids)
        if needed > len(self._ids):
            self._resize(ring_size(needed))
        _add(
            self._ids,
            self._arrival_ms,
            self._index,
            self._tail,
            ids,
            arrival_ms,
            self._dedup_ms,
            duplicate,
        )
        self._tail += len(ids)
        return duplicate

    def _evict(self, before_ms: int) -> None:
        self._head = _evict(
            self._ids, self._arrival_ms, self._index, self._head, self._tail, before_ms
        )
        if len(self._ids) > RING_MIN and len(self) * 8 < len(self._ids):
            self._resize(ring_size(2 * len(self)))

    def _allocate(self, size: int) -> None:
        self._ids = np.zeros(size, np.uint64)
        self._arrival_ms = np.zeros(size, np.int64)
        self._index = new_index(size)

    def _resize(self, size: int) -> None:
        rows = np.arange(self._head, self._tail) % len(self._ids)
        ids, arrival_ms = self._ids[rows], self._arrival_ms[rows]
        self._allocate(size)
        _add(
            self._ids,
            self._arrival_ms,
            self._index,
            self._head,
            ids,
            arrival_ms,
            0,
            np.zeros(len(ids), np.bool_),
        )


@kernel
def _add(
    ids: U64,
    arrival_ms: I64,
    index: I32,
    tail: int,
    new_ids: U64,
    new_arrival: I64,
    dedup_ms: int,
    duplicate: Flags,
) -> None:
    size = len(ids)
    for k in range(len(new_ids)):
        slot = (tail + k) % size
        at = find(index, ids, new_ids[k])
        if index[at] != 0 and arrival_ms[index[at] - 1] >= new_arrival[k] - dedup_ms:
            duplicate[k] = True
        ids[slot] = new_ids[k]
        arrival_ms[slot] = new_arrival[k]
        index[at] = slot + 1


@kernel
def _evict(ids: U64, arrival_ms: I64, index: I32, head: int, tail: int, before_ms: int) -> int:
    size = len(ids)
    while head < tail and arrival_ms[head % size] < before_ms:
        slot = head % size
        at = find(index, ids, ids[slot])
        if index[at] == slot + 1:
            delete(index, ids, at)
        head += 1
    return head
