"""The newest clicks of some keys, and what clicks more and less make of them (J6): the same bits
everywhere, in whatever order a bucket's clicks are told."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stream.kernels import I64, U64, Bools

#: What a key and a click take in memory, bytes, beside the click's value.
KEY_BYTES, CLICK_BYTES = 24, 12


class KeyClicks(NamedTuple):
    """Clicks as `examples` say them, (n,) each."""

    keys: U64  # whose; 0 = nobody's
    times: I64  # of the click, event time, ms
    values: pa.Array  # strings
    signs: I64  # 1, or -1 of one that is taken back


class KeySequences(NamedTuple):
    """Key i of `keys`, (k,), has the clicks `[ends[i], ends[i + 1])`, newest first. `bucket`: the
    one in which a key clicked last, (k,)."""

    keys: U64
    bucket: I64
    ends: I64  # (k + 1,), from 0
    times: I64  # (m,)
    values: pa.Array  # (m,) strings

    @property
    def lengths(self) -> I64:
        """Clicks of each key, (k,)."""
        return np.diff(self.ends)

    @property
    def bytes(self) -> I64:
        """Memory that each key takes, (k,)."""
        sizes = np.append(0, np.cumsum(pc.binary_length(self.values).to_numpy(False)))
        strings: I64 = np.diff(sizes.astype(np.int64)[self.ends])
        return strings + self.lengths * CLICK_BYTES + KEY_BYTES

    @property
    def memory(self) -> int:
        """Bytes that all of it takes."""
        columns = sum(column.nbytes for column in (self.keys, self.bucket, self.ends, self.times))
        return columns + int(self.values.nbytes)

    def take(self, which: I64 | Bools) -> "KeySequences":
        """The rows of these indices, or where true."""
        at: I64 = np.arange(len(self.keys))[which]
        return self._rows(at, self.keys[at], self.bucket[at], self.lengths[at])

    def find(self, keys: U64) -> "KeySequences":
        """Of these keys, in their order, whatever it is; no clicks where there are none. Its own
        keys rise."""
        if not len(self.keys):
            nothing = no_sequences()
            zeros = np.zeros(len(keys), np.int64)
            return nothing._replace(keys=keys, bucket=zeros, ends=np.append(zeros, 0))
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known = self.keys[at] == keys
        bucket = np.where(known, self.bucket[at], 0)
        return self._rows(at, keys, bucket, np.where(known, self.lengths[at], 0))

    def newest(self, most: int, which: Bools) -> "KeySequences":
        """At most so many clicks of each key, and none where false."""
        lengths = np.where(which, np.minimum(self.lengths, most), 0)
        return self._rows(np.arange(len(self.keys)), self.keys, self.bucket, lengths)

    def _rows(self, at: I64, keys: U64, bucket: I64, lengths: I64) -> "KeySequences":
        """Of the rows at these indices the first so many clicks."""
        ends = np.append(0, np.cumsum(lengths)).astype(np.int64)
        flat = np.arange(ends[-1]) + np.repeat(self.ends[:-1][at] - ends[:-1], lengths)
        return KeySequences(keys, bucket, ends, self.times[flat], self.values.take(pa.array(flat)))


def no_sequences() -> KeySequences:
    """Of no keys."""
    none = np.zeros(0, np.int64)
    ends = np.zeros(1, np.int64)
    return KeySequences(np.zeros(0, np.uint64), none, ends, none, pa.array([], pa.string()))


def together(parts: Sequence[KeySequences]) -> KeySequences:
    """The rows of all parts behind each other."""
    starts = np.cumsum([0, *(one.ends[-1] for one in parts)])
    ends = [one.ends[1:] + start for one, start in zip(parts, starts, strict=False)]
    return KeySequences(
        np.concatenate([one.keys for one in parts]),
        np.concatenate([one.bucket for one in parts]),
        np.concatenate([np.zeros(1, np.int64), *ends]),
        np.concatenate([one.times for one in parts]),
        pa.concat_arrays([one.values for one in parts]),
    )


def updated(before: KeySequences, clicks: KeyClicks, bucket: int, most: int) -> KeySequences:
    """The clicks of these keys after one bucket more: those of the bucket with them, without those
    that are taken back, and of what is left the newest `most`. `before`: of the keys of `clicks`,
    rising, none twice."""
    owners = np.concatenate(
        [
            np.repeat(np.arange(len(before.keys)), before.lengths),
            np.searchsorted(before.keys, clicks.keys),
        ]
    )
    times = np.concatenate([before.times, clicks.times])
    values = pa.concat_arrays([before.values, clicks.values])
    signs = np.concatenate([np.ones(len(before.times), np.int64), clicks.signs])
    ranks = _ranks(values)
    order = np.lexsort((ranks, -times, owners))
    same = [column[order][1:] == column[order][:-1] for column in (ranks, times, owners)]
    first = np.flatnonzero(np.append(True, ~np.logical_and.reduce(same))[: len(order)])
    left = np.maximum(np.add.reduceat(signs[order], first), 0) if len(first) else first
    kept = np.repeat(order[first], left)
    whose = owners[kept]
    lengths = np.bincount(whose, minlength=len(before.keys))
    place = np.arange(len(kept)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = kept[place < most]
    ends = np.append(0, np.cumsum(np.minimum(lengths, most))).astype(np.int64)
    last = before.bucket.copy()
    last[owners[len(before.times) :][clicks.signs > 0]] = bucket
    return KeySequences(before.keys, last, ends, times[kept], values.take(pa.array(kept)))


def _ranks(values: pa.Array) -> I64:
    """(n,) the place of each string among the distinct ones, by their bytes."""
    coded = values.dictionary_encode()
    order = pc.array_sort_indices(coded.dictionary).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    found: I64 = rank[coded.indices.to_numpy()]
    return found
