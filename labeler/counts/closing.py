"""What a closed bucket makes of the state of one thing that is kept, and what of it is published:
the keys that changed, and the slice whose turn it is (J3, J6)."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from labeler.counts.examples_count import RowCounts, summed
from stream.columns.counters import (
    CounterTotals,
    Fading,
    KeptClicks,
    KeyClicks,
    KeySequences,
    KeyTotals,
    SequenceColumns,
    Sequences,
    faded,
    slice_of,
    updated,
)
from stream.kernels import U64, Bools

#: A key of which less than this is left is forgotten when its slice comes round.
FORGOTTEN_BELOW = 0.01


class ClosedBucket(NamedTuple):
    number: int
    bucket: int
    slices: int

    def is_turn(self, keys: U64) -> Bools:
        """Which of these keys, (n,), are in the slice whose turn it is."""
        turn: Bools = slice_of(keys, self.slices) == self.number % self.slices
        return turn


def closed_totals(
    totals: CounterTotals, parts: list[RowCounts], fading: Fading, at: ClosedBucket, most: int
) -> KeyTotals:
    """`parts`: in the order of partitions and of their records. At most `most` keys are kept, those
    that are shown most."""
    changed = _add(totals, summed(parts), fading, at.bucket) if parts else None
    rows = totals.rows
    mine = at.is_turn(rows.keys)
    negatives, clicks = faded(rows.take(mine), at.bucket, fading)
    shows = negatives + clicks
    kept = shows >= FORGOTTEN_BELOW
    of_slice = -(-most // at.slices)
    if kept.sum() > of_slice:  # of equals, those of lower keys
        order = np.lexsort((rows.keys[mine], -shows))
        kept[order[of_slice:]] = False
    forgotten, said = _said(rows.keys, mine, kept, None if changed is None else changed.keys)
    published = rows.take(said)
    totals.keep(~forgotten)
    return published


def _add(totals: CounterTotals, count: RowCounts, fading: Fading, bucket: int) -> KeyTotals:
    before = faded(totals.find(count.keys), bucket, fading)
    # below 0: what was forgotten is taken back
    negatives = np.maximum(before[0] + count.negatives, 0.0)
    clicks = np.maximum(before[1] + count.clicks, 0.0)
    changed = KeyTotals(count.keys, negatives, clicks, np.full(len(count.keys), bucket, np.int64))
    totals.put(changed)
    return changed


def closed_sequences(
    kept: Sequences,
    parts: list[KeyClicks],
    columns: SequenceColumns,
    one: KeptClicks,
    at: ClosedBucket,
    bytes_max: int,
) -> KeySequences:
    """At most `bytes_max` bytes are kept, of those who clicked last; in whatever order the parts
    are."""
    idle = columns.idle_buckets(one)
    changed = None
    if parts:
        clicks = KeyClicks(
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.times for part in parts]),
            pa.concat_arrays([part.values for part in parts]),
            np.concatenate([part.signs for part in parts]),
        )
        before = kept.find(np.unique(clicks.keys))
        before = before.newest(one.held, at.bucket - before.bucket <= idle)
        changed = updated(before, clicks, at.bucket, one.held)
        kept.put(changed)
    rows = kept.rows
    mine = at.is_turn(rows.keys)
    turn = rows.take(mine)
    stays = (turn.lengths > 0) & (at.bucket - turn.bucket <= idle)
    order = np.lexsort((turn.keys, -turn.bucket))
    through = np.cumsum(np.where(stays, turn.bytes, 0)[order])
    stays[order[through > bytes_max // at.slices]] = False
    forgotten, said = _said(rows.keys, mine, stays, None if changed is None else changed.keys)
    published = rows.take(said)
    kept.keep(~forgotten)
    return published


def _said(keys: U64, mine: Bools, kept: Bools, changed: U64 | None) -> tuple[Bools, Bools]:
    """(what is forgotten, what is published) of these keys, (n,) each. `kept`: of those of the
    slice, `mine`, which are."""
    forgotten = np.zeros(len(keys), np.bool_)
    forgotten[np.flatnonzero(mine)[~kept]] = True
    said = mine.copy()
    if changed is not None:
        said |= np.isin(keys, changed, assume_unique=True)
    return forgotten, said & ~forgotten
