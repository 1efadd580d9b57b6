"""What is remembered of sources beyond a window: the counts that a score stands on, halved each
half-life (F2).

Most people are never remembered. A pair (source, vendor) is from the window on in which its source
was devoted to the vendor (`Window.devoted`: one visitor in a hundred may be); from then on
everything that the source does counts, what speaks for it too. Counts are those of cells that have
left the window, as they stand then; all shrink together with event time, and a pair whose clicks
have shrunk to nothing is forgotten.

What was sent again counts once here too: the bits that ids fall on are kept (`Counted.distinct`).

The durable copy is a snapshot of numbered pages, `generation/page`. A commit names the generation
that it belongs to, and the one before it leaves at the next write: whatever a crash cuts short, the
scores are those of the commit.
"""

import numpy as np
import pyarrow as pa

from labeler.fraud.activity import Activity, Counted
from labeler.fraud.activity_pages import PAGE_BYTES_MAX, decode_rows, encode_rows
from labeler.fraud.pair_index import KeyNumbers, Pairs, pair_keys
from labeler.fraud.tables import StateTable
from labeler.fraud_config import FraudConfig
from stream.hashing import NO_KEY, HashKey
from stream.kernels import I64, Bools

#: A pair is forgotten once fewer clicks than this are left of it.
CLICKS_LEFT_MIN = 1.0
#: Of a full memory so much makes room at once: those with the fewest clicks.
FREED_SHARE = 0.25
DAY_MS = 86_400_000

#: A pair as a page holds it; counts as they are in cell `folded` of the commit.
ROW_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("vendor", pa.string(), nullable=False),
        pa.field("since", pa.int64(), nullable=False),  # the first cell that counts
        pa.field("views", pa.float64(), nullable=False),
        pa.field("clicks", pa.float64(), nullable=False),
        pa.field("source_clicks", pa.float64(), nullable=False),
        pa.field("view_ids", pa.int64(), nullable=False),
        pa.field("click_ids", pa.int64(), nullable=False),
    ]
)


class Scores:
    """Pairs by place, in columns. `folded` is the last cell that is counted; a window begins
    behind it."""

    def __init__(
        self,
        config: FraudConfig,
        table: StateTable,
        generation: int,
        folded: int,
        hash_key: HashKey = NO_KEY,
    ) -> None:
        """`hash_key`: that of the `Pairs` that are asked for."""
        self._config, self._table, self._hash_key = config, table, hash_key
        self.generation, self.folded = generation, folded
        self.dropped = 0  # pairs forgotten for want of room: an alarm
        self._changed = False
        mine: dict[int, str] = {}
        self._leaving: list[str] = []
        for key, _ in table.items():
            of, _, page = key.partition("/")
            if int(of) == generation:
                mine[int(page)] = key
            else:
                self._leaving.append(key)
        self._keys = [mine[page] for page in sorted(mine)]
        pages = [decode_rows(table.get(key)) for key in self._keys]
        self._set(pa.Table.from_batches(pages, ROW_SCHEMA))

    def __len__(self) -> int:
        return len(self._source)

    def places(self, pairs: Pairs, which: I64) -> I64:
        """Where each of these pairs is remembered, int64 (n,); -1 = not at all."""
        return self._numbers.of(pairs.keys(which), 0)

    def remember(self, pairs: Pairs, which: I64) -> None:
        """Count what these pairs do, from the cell behind `folded` on. Some may be known
        already."""
        new = which[self.places(pairs, which) < 0]
        if not len(new):
            return
        room = self._config.scores_max - len(self)
        if len(new) > room:
            self._make_room()
            room = self._config.scores_max - len(self)
            self.dropped += max(0, len(new) - room)
            new = new[:room]
        source, vendor = pairs.columns(new)
        nothing, since = np.zeros(len(new)), np.full(len(new), self.folded + 1)
        ids = np.zeros(len(new), np.int64)
        columns = [source, vendor, *map(pa.array, (since, nothing, nothing, nothing, ids, ids))]
        self._set(
            pa.concat_tables([self._rows(), pa.Table.from_arrays(columns, schema=ROW_SCHEMA)])
        )
        self._changed = True

    def fold(self, activity: Activity, last: int) -> None:
        """Count the cells up to `last`, which leave the window."""
        for number in activity.numbers:
            if self.folded < number <= last:
                self._fold(activity, number)

    def sums(self, places: I64, window: Counted, pairs: I64, last: int) -> tuple[I64, I64, I64]:
        """Of pairs at these places: views, clicks, and clicks of the source before the window
        alone, each int64 (n,). The first two with the window that ends with cell `last`; whole
        events, without what was sent again."""
        kept = self._kept((last - self._config.span) - self.folded)
        before = self._views[places], self._clicks[places], self._source_clicks[places]
        views, clicks, source_clicks = (np.rint(one * kept).astype(np.int64) for one in before)
        together = Counted(
            pairs,
            views + window.views[pairs],
            clicks + window.clicks[pairs],
            np.zeros(len(pairs), np.int64),
            self._view_ids[places] | window.view_ids[pairs],
            self._click_ids[places] | window.click_ids[pairs],
        ).distinct()
        return together.views, together.clicks, source_clicks

    def write(self) -> None:
        """A new generation, if anything changed. Needs the last commit to be durable."""
        if not self._changed:
            return
        self._changed = False
        for key in self._leaving:
            self._table.pop(key, None)
        self._leaving, self._keys = self._keys, []
        self.generation += 1
        rows = self._rows().combine_chunks()
        step = max(1, rows.num_rows * PAGE_BYTES_MAX // max(1, rows.nbytes))
        for page, batch in enumerate(rows.to_batches(max_chunksize=step)):
            self._keys.append(f"{self.generation}/{page}")
            self._table[self._keys[-1]] = encode_rows(batch)

    # --- columns
    # ----------------------------------------------------------------------------------------------

    def _fold(self, activity: Activity, number: int) -> None:
        step, self.folded = number - self.folded, number
        if not len(self):
            return
        self._changed = True
        for column in (self._views, self._clicks, self._source_clicks):
            column *= self._kept(step)
        cell, pairs = activity.counted(number), activity.pairs
        at = self.places(pairs, cell.pair)
        known = at >= 0
        at = at[known]
        self._views[at] += cell.views[known]
        self._clicks[at] += cell.clicks[known]
        self._view_ids[at] |= cell.view_ids[known]
        self._click_ids[at] |= cell.click_ids[known]
        source = pairs.source_of(cell.pair)
        by_source = np.bincount(source, weights=cell.clicks, minlength=len(pairs.sources))
        mine = pairs.sources.numbers(self._source)
        self._source_clicks += np.where(mine >= 0, by_source[mine], 0.0)
        left = (self._clicks >= CLICKS_LEFT_MIN) | (self._since > number - self._config.span)
        if not left.all():
            self._keep(left)

    def _kept(self, cells: int) -> float:
        """What is left of a count after so many cells."""
        days = cells * self._config.cell_ms / DAY_MS
        return float(2.0 ** -(days / self._config.score_half_life_days))

    def _make_room(self) -> None:
        drop = max(1, int(len(self) * FREED_SHARE))
        fewest = np.argsort(self._clicks, kind="stable")[:drop]
        self.dropped += len(fewest)
        left = np.ones(len(self), np.bool_)
        left[fewest] = False
        self._keep(left)

    def _keep(self, left: Bools) -> None:
        self._set(self._rows().filter(pa.array(left)))

    def _rows(self) -> pa.Table:
        numbers = (
            self._since,
            self._views,
            self._clicks,
            self._source_clicks,
            self._view_ids,
            self._click_ids,
        )
        return pa.Table.from_arrays(
            [self._source, self._vendor, *map(pa.array, numbers)], schema=ROW_SCHEMA
        )

    def _set(self, rows: pa.Table) -> None:
        self._source, self._vendor = (_one(rows.column(name)) for name in ("source", "vendor"))
        columns = (np.array(rows.column(place).to_numpy()) for place in range(2, len(ROW_SCHEMA)))
        (
            self._since,
            self._views,
            self._clicks,
            self._source_clicks,
            self._view_ids,
            self._click_ids,
        ) = columns
        self._numbers = KeyNumbers(self._hash_key)
        self._numbers.of(pair_keys(self._source, self._vendor, self._hash_key))


def _one(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
