"""What a closed bucket makes of the state of one thing that is kept, and what of it is published:
the keys that changed, and the slice whose turn it is (J3, J6)."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from labeler.counts.examples_count import RowCounts, summed
from stream.columns.counters import (
    Fading,
    KeptClicks,
    KeyClicks,
    KeySequences,
    KeyTotals,
    SequenceColumns,
    StoredKeys,
    faded,
    no_sequences,
    no_totals,
    together,
    totals_together,
    updated,
)

#: A key of which less than this is left is forgotten when its slice comes round.
FORGOTTEN_BELOW = 0.01


class ClosedBucket(NamedTuple):
    number: int
    bucket: int
    slices: int

    @property
    def turn(self) -> int:
        """The slice whose turn it is."""
        return self.number % self.slices


def closed_totals(
    totals: StoredKeys[KeyTotals],
    parts: list[RowCounts],
    fading: Fading,
    at: ClosedBucket,
    most: int,
) -> KeyTotals:
    """`parts`: in the order of partitions and of their records. At most `most` keys are kept, those
    that are shown most."""
    changed = _add(totals, summed(parts), fading, at.bucket) if parts else no_totals()
    rows = totals.of_slice(at.turn)
    negatives, clicks = faded(rows, at.bucket, fading)
    shows = negatives + clicks
    kept = shows >= FORGOTTEN_BELOW
    of_slice = -(-most // at.slices)
    if kept.sum() > of_slice:  # of equals, those of lower keys
        order = np.lexsort((rows.keys, -shows))
        kept[order[of_slice:]] = False
    rows = rows.take(kept)
    totals.keep_slice(at.turn, rows)
    others = changed.take(~totals.is_of_slice(changed.keys, at.turn))
    said = totals_together([rows, others])
    return said.take(np.argsort(said.keys))


def _add(totals: StoredKeys[KeyTotals], count: RowCounts, fading: Fading, bucket: int) -> KeyTotals:
    before = faded(totals.find(count.keys), bucket, fading)
    # below 0: what was forgotten is taken back
    negatives = np.maximum(before[0] + count.negatives, 0.0)
    clicks = np.maximum(before[1] + count.clicks, 0.0)
    changed = KeyTotals(count.keys, negatives, clicks, np.full(len(count.keys), bucket, np.int64))
    totals.put(changed)
    return changed


def closed_sequences(
    kept: StoredKeys[KeySequences],
    parts: list[KeyClicks],
    columns: SequenceColumns,
    one: KeptClicks,
    at: ClosedBucket,
    bytes_max: int,
) -> KeySequences:
    """At most `bytes_max` bytes are kept, of those who clicked last; in whatever order the parts
    are."""
    idle = columns.idle_buckets(one)
    changed = no_sequences()
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
    rows = kept.of_slice(at.turn)
    stays = (rows.lengths > 0) & (at.bucket - rows.bucket <= idle)
    order = np.lexsort((rows.keys, -rows.bucket))
    through = np.cumsum(np.where(stays, rows.bytes, 0)[order])
    stays[order[through > bytes_max // at.slices]] = False
    rows = rows.take(stays)
    kept.keep_slice(at.turn, rows)
    others = changed.take(~kept.is_of_slice(changed.keys, at.turn))
    said = together([rows, others])
    return said.take(np.argsort(said.keys))
