"""The fraud filter: signals in; verdicts out, and then the watermark of each input (F1-F3).

Activity is counted in cells of event time. A cell is *settled* once every input has passed its end
by `settle_ms`: views and their clicks come over different inputs, one of which may run hours ahead
of the other, and no one may be judged on views whose clicks are still to come. A pair (source,
vendor) seen in a cell is judged when the cell settles, over the window that ends with it, and so
once a cell for as long as it goes on. So a verdict depends on what was counted, not on which input
came first. What others do, with which the pair is compared, is the history of cells a window older,
without what verdicts cover.

An impression's own cell settles `cell + settle` after it at the latest, by which time all inputs
are that far; its label waits for watermarks `window + grace` after its arrival (L3). So what is
judged of it stands before V(i).

Order of one step, and why a crash anywhere loses nothing (F2):
 1. `on_signals` counts and judges, in memory, and writes down the watermarks that it promises.
 2. The caller sends `step.verdicts`, waits until the log holds them, then sends `step.watermarks`.
 3. `commit(step)`, now or some steps later, writes rows, in pages that say how far each input is
    counted with them, then history, scores, settled cells, and the fold position. After a crash the
    signals since the last commit come again: what stands in pages already is not counted again,
    pairs are judged again, verdicts are sent again, and watermarks below the promised ones are not.
After any exception the filter is dropped and made anew from the tables.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute

from labeler.counting import SESSION_SIGNAL_SCHEMA, SIGNAL_SCHEMA, Signal
from labeler.fraud.activity import ROW_SCHEMA, Activity, by_cell
from labeler.fraud.activity_pages import ActivityPages, no_rows, rejected_rows
from labeler.fraud.pair_index import joined
from labeler.fraud.scores import Scores
from labeler.fraud.sessions import Visits, spared, visits_of
from labeler.fraud.tables import InputRow, Tables, check_format, keep_format, pair_key
from labeler.fraud.vendor_history import VendorHistory
from labeler.fraud.window import ActivityWindow, Found
from labeler.fraud_config import FraudConfig
from stream import Chain, Fold, offset_of
from stream.hashing import NO_KEY, HashKey
from stream.internal_topics import REJECT, Verdict, Watermark
from stream.kernels import I64, Bools

#: Rows of `progress` that are no inputs: [first cell not settled, offset of `signals` to read from,
#: first page of activity, generation of scores, last cell that they hold] ...
COMMITTED = "committed"
#: ... and the highest watermark by input that may have been sent.
PROMISED = "promised"
#: ... and the inputs whose next signal may stand behind some that are gone.
BEHIND_GAP = "behind_gap"


@dataclass(frozen=True)
class FilterStep:
    """What to send, in this order: all verdicts, acknowledged; then the watermarks. Then
    `commit`."""

    verdicts: list[Verdict]
    watermarks: list[Watermark]
    inputs: dict[str, InputRow]
    settled: int
    next_offset: int


@dataclass
class FraudCounts:
    """Counters since this filter was made."""

    signals: int = 0
    repeats: int = 0
    dangling: int = 0  # signals above E: an alarm (C5)
    gaps: int = 0  # times a chain goes on behind signals that are gone: an alarm (F4)
    strangers: int = 0  # signals of inputs that the configuration does not have: an alarm
    events: int = 0
    unknown: int = 0  # records that could not be read (L5)
    vendor_only: int = 0  # pairs that made room for heavier ones: an alarm
    scores_dropped: int = 0  # remembered pairs forgotten for want of room: an alarm
    stale: int = 0  # events of cells that are already forgotten
    verdicts: dict[str, int] = field(default_factory=dict)  # by rule


class FraudFilter:
    """Made anew at every start, from tables that hold what an earlier one committed.

    `views` and `clicks` name all inputs (`stream.internal_topics.verdicts.input_name`); no cell
    settles before all of them passed it.
    """

    def __init__(
        self,
        config: FraudConfig,
        views: Sequence[str],
        clicks: Sequence[str],
        tables: Tables,
        sent: Mapping[str, int] | None = None,
        hash_key: HashKey = NO_KEY,
    ) -> None:
        """`sent`: the highest watermark by input that stands in the log. Tables that were restored
        short of their last rows may not know them. `hash_key`: what names are hashed with in
        memory; nothing that is written depends on it. Raises OtherTables.
        """
        check_format(tables)
        self.config = config
        self.tables = tables
        self.counts = FraudCounts()
        self._clicks = frozenset(clicks)
        self._inputs = {name: InputRow.of(tables.progress.get(name)) for name in (*views, *clicks)}
        self._promised: dict[str, int] = dict(tables.progress.get(PROMISED) or {})
        for name, sent_ms in (sent or {}).items():
            self._promised[name] = max(sent_ms, self._promised.get(name, 0))
        self._told = {
            name: row.end for name, row in self._inputs.items()
        }  # E at which the last watermark was given
        self._chains = {name: Chain(row.end) for name, row in self._inputs.items()}
        self._behind_gap: set[str] = set(tables.progress.get(BEHIND_GAP) or ())
        committed: Sequence[int] = tables.progress.get(COMMITTED) or (0, 0, 0)
        self._settled, self._next_offset, first_page, *remembered = committed
        self._saved = True
        self._activity = Activity(config.gap_fast_ms, config.pairs_max, hash_key)
        self._pages = ActivityPages(tables.activity)
        self._unwritten: list[pa.RecordBatch] = []  # rows of activity since the last write
        self._history = VendorHistory(config, tables.history)
        generation, folded = remembered or (0, self._settled - 1 - config.span)
        self._scores = Scores(config, tables.scores, generation, folded, hash_key)
        self._counted = {
            name: -1 if row.end is None else row.end for name, row in self._inputs.items()
        }
        for group in self._pages.load(first_page):
            for rows in group.rows:
                self._activity.load(rows)
            self._counted |= {
                name: max(end, self._counted.get(name, -1)) for name, end in group.ends.items()
            }
        self._activity.forget(self._settled - 2 * config.span)
        # History is written once the verdicts of all cells up to here stand in the log. What was
        # counted there before is not found anew with what is usual now; it is looked at for what
        # must be remembered alone.
        self._said = self._history.newest + config.span if self._history.newest >= 0 else -1
        self._fresh: dict[int, list[I64]] = {}  # of these cells, the pairs that were counted since
        self._pending: dict[int, list[I64]] = {}  # cell -> pairs to judge when it settles
        self._aging: set[int] = set()  # settled cells, to enter history a window later
        for number in self._activity.numbers:
            if number >= self._settled:
                self._pending[number] = [self._activity.touched(number)]
            else:
                self._aging.add(number)

    @property
    def next_offset(self) -> int:
        """Where to read `signals` on from: everything below has been counted and judged."""
        return self._next_offset

    @property
    def watermarks(self) -> dict[str, int]:
        """How far each input has been counted, ms of arrival."""
        return {name: row.watermark_ms for name, row in self._inputs.items()}

    @property
    def rows(self) -> dict[str, int]:
        """What is held, by kind."""
        pairs = self._activity.pairs
        return {
            "pairs": len(pairs),
            "sources": len(pairs.sources) - 1,
            "vendors": len(self._history),
            "pages": len(self._pages),
            "scores": len(self._scores),
        }

    @property
    def settled_ms(self) -> int:
        """Event time below which everything is judged."""
        return self._settled * self.config.cell_ms

    def on_signals(self, signals: Iterable[tuple[int, Signal | None]]) -> FilterStep:
        """Count signals, each with its offset (None: a record that says nothing), and judge the
        cells they settle."""
        self._saved = False
        counted = []
        for offset, signal in signals:
            if (
                offset > self._next_offset
            ):  # records of `signals` are gone, and whose they were nobody knows (F4)
                self._behind_gap |= {
                    name for name, chain in self._chains.items() if chain.end is not None
                }
            if signal is not None and self._fold(signal):
                counted.append(signal)
            self._next_offset = max(self._next_offset, offset + 1)
        if counted:
            self._count(counted)
        watermarks = self._promise()
        verdicts = self._judge()
        inputs = {name: InputRow(row.end, row.watermark_ms) for name, row in self._inputs.items()}
        return FilterStep(verdicts, watermarks, inputs, self._settled, self._next_offset)

    def save(self) -> None:
        """The first half of `commit`: what must be durable before the fold position is written.
        Needs the last commit to be durable."""
        if self._saved:
            return
        self._saved = True
        rows = pa.Table.from_batches(self._unwritten, ROW_SCHEMA).combine_chunks().to_batches()
        self._unwritten.clear()
        self._pages.write(
            rows[0] if rows else no_rows(), self._counted, self._settled - 2 * self.config.span
        )
        self._history.write()
        self._scores.write()

    def commit(self, step: FilterStep) -> None:
        """The log holds the verdicts and watermarks of this step and all before: their signals need
        not come again.

        `step` is the last one. Where tables become durable one by one, call `save` first and wait
        for them.
        """
        self.save()
        for name, row in step.inputs.items():
            if row.end is not None:
                self.tables.progress[name] = row.value()
        keep_format(self.tables)
        self.tables.progress[BEHIND_GAP] = sorted(self._behind_gap)
        self.tables.progress[COMMITTED] = [
            step.settled,
            step.next_offset,
            self._pages.first,
            self._scores.generation,
            self._scores.folded,
        ]

    # --- counting
    # ---------------------------------------------------------------------------------------------

    def _fold(self, signal: Signal) -> bool:
        """Whether the signal has rows to look at."""
        self.counts.signals += 1
        chain = self._chains.get(signal.input)
        if chain is None:
            self.counts.strangers += 1
            return False
        kind, at = chain.fold(signal.start, signal.end)
        if kind is Fold.DANGLES and signal.input in self._behind_gap:
            self.counts.gaps += 1
            self.counts.unknown += offset_of(signal.start) - offset_of(at)
            chain.end = signal.start
            kind, _ = chain.fold(signal.start, signal.end)
        if kind is Fold.DANGLES:
            self.counts.dangling += 1
            return False
        if kind is Fold.EXTENDS:
            self._behind_gap.discard(signal.input)
            row = self._inputs[signal.input]
            row.end = chain.end
            row.watermark_ms = max(row.watermark_ms, signal.bucket_end_ms)
            self.counts.unknown += signal.unknown
        else:
            self.counts.repeats += 1
        return signal.rows is not None

    def _is_new(self, signal: Signal) -> bool:
        """Whether its rows are still to be counted: they are above all that was counted of its
        input (F2)."""
        new = self._counted[signal.input] < signal.end
        if new:
            self._counted[signal.input] = signal.end
        return new

    def _count(self, signals: list[Signal]) -> None:
        """Counts move only where a signal is new; its pairs are judged either way (F2)."""
        rows = [_with_session(signal.rows) for signal in signals if signal.rows is not None]
        table = pa.Table.from_batches(rows, SESSION_SIGNAL_SCHEMA).combine_chunks()
        lengths = [signal.rows.num_rows for signal in signals if signal.rows is not None]
        new = np.repeat([self._is_new(signal) for signal in signals], lengths)
        is_click = np.repeat([signal.input in self._clicks for signal in signals], lengths)
        cell = table.column("cell_ms").to_numpy() // self.config.cell_ms
        count = table.column("count").to_numpy()
        stale = cell < self._settled - self.config.span
        self.counts.stale += int(count[stale & new].sum())
        named = pa.compute.not_equal(table.column("source"), "").to_numpy()
        kept = ~stale & named
        if not kept.all():
            table = table.filter(pa.array(kept)).combine_chunks()
            new, is_click, cell, count = new[kept], is_click[kept], cell[kept], count[kept]
        if table.num_rows:
            self._count_rows(table, new, is_click, cell, count)

    def _count_rows(
        self, table: pa.Table, new: Bools, is_click: Bools, cell: I64, count: I64
    ) -> None:
        step = self._activity.step_rows
        for at in range(0, table.num_rows, step):
            self._renumbered(
                self._activity.make_room(min(step, table.num_rows - at), self._remembered)
            )
            part = slice(at, at + step)
            self._count_some(
                table.slice(at, step), new[part], is_click[part], cell[part], count[part]
            )
        self.counts.vendor_only = self._activity.crowded_out

    def _remembered(self) -> I64:
        """The pairs that scores remember."""
        every = np.arange(len(self._activity.pairs))
        return every[self._scores.places(self._activity.pairs, every) >= 0]

    def _count_some(
        self, table: pa.Table, new: Bools, is_click: Bools, cell: I64, count: I64
    ) -> None:
        source, vendor = (_whole(table.column(name)) for name in ("source", "vendor"))
        pair = self._activity.pairs.of(source, vendor)
        clicks = np.where(is_click & new, count, 0)
        views = np.where(new, count, 0) - clicks
        named = ("first_ts_ms", "last_ts_ms", "gaps_fast", "ids", "session")
        first, last, fast, ids, session = (table.column(name).to_numpy() for name in named)
        near = self._activity.close_gaps(pair, clicks, first, last)
        fast = np.where(clicks > 0, fast, 0) + near
        self._activity.add(
            *(column[new] for column in (pair, cell, views, clicks, fast, ids, session))
        )
        self.counts.events += int(count[new].sum())
        last = np.where(clicks > 0, last, 0)
        numbers = (cell, views, clicks, fast, ids, last, session, np.zeros(len(cell), np.bool_))
        columns = [source, vendor, *map(pa.array, numbers)]
        rows = pa.RecordBatch.from_arrays(columns, schema=ROW_SCHEMA)
        self._unwritten.append(rows if new.all() else rows.filter(pa.array(new)))
        for number, at in by_cell(cell):
            self._touch(pair[at], pair[at][new[at]], number)

    def _touch(self, pairs: I64, fresh: I64, number: int) -> None:
        """To be judged in this cell, and again in settled ones whose window holds a cell that
        came late."""
        self._pending.setdefault(number, []).append(pairs)
        if number <= self._said:
            self._fresh.setdefault(number, []).append(fresh)
        for later in range(number + 1, min(self._settled, number + self.config.span)):
            there = self._activity.touched(later)
            again = np.intersect1d(pairs, there)
            if len(again):
                self._pending.setdefault(later, []).append(again)
                if later <= self._said:
                    self._fresh.setdefault(later, []).append(np.intersect1d(fresh, there))

    def _promise(self) -> list[Watermark]:
        """Watermarks to send. Before one may be sent its promise is written down, so that after a
        crash it is sent again or raised, and never followed by a lower one (F3)."""
        watermarks = []
        for name, row in sorted(self._inputs.items()):
            if row.end is not None and row.end != self._told[name]:
                self._told[name] = row.end
                if row.watermark_ms >= self._promised.get(name, 0):
                    watermarks.append(Watermark(name, row.watermark_ms, row.end))
        new = {
            one.input: one.watermark_ms
            for one in watermarks
            if one.watermark_ms > self._promised.get(one.input, 0)
        }
        if new:
            self._promised |= new
            self.tables.progress[PROMISED] = dict(self._promised)
        return watermarks

    # --- judging
    # ----------------------------------------------------------------------------------------------

    def _judge(self) -> list[Verdict]:
        low = min(row.watermark_ms for row in self._inputs.values())
        settled = max(self._settled, (low - self.config.settle_ms) // self.config.cell_ms)
        verdicts: list[Verdict] = []
        for number in sorted(n for n in self._pending if n < settled):
            self._age(number)
            self._scores.fold(self._activity, number - self.config.span)
            touched = np.unique(joined(self._pending.pop(number)))
            found_anew = (
                touched if number > self._said else np.unique(joined(self._fresh.pop(number, [])))
            )
            verdicts += self._judge_cell(number, touched, found_anew)
            self._aging.add(number)
        self._age(settled)
        self._scores.fold(self._activity, settled - 1 - self.config.span)
        self.counts.scores_dropped = self._scores.dropped
        if settled > self._settled:
            self._settled = settled
            self._activity.forget(settled - 2 * self.config.span)
            self._renumbered(self._activity.renumber())
        return verdicts

    def _renumbered(self, new: I64 | None) -> None:
        """Pairs have these new numbers."""
        if new is not None:
            for waiting in (self._pending, self._fresh):
                waiting |= {number: [new[joined(pairs)]] for number, pairs in waiting.items()}

    def _age(self, now: int) -> None:
        """Cells a window older than `now` enter history, but for pairs that a verdict covers there:
        an attack that is being judged cannot teach the filter that it is usual."""
        pairs = self._activity.pairs
        for number in sorted(n for n in self._aging if n < now - self.config.span):
            self._aging.remove(number)
            if number in self._activity.thinned:  # who clicks outlasts who looks: rates would rise
                self._history.pass_over(number)
                continue
            honest = self._activity.honest(number)
            vendor = pairs.vendor[honest.pair]
            views = np.bincount(vendor, weights=honest.views, minlength=len(pairs.vendors)).astype(
                np.float64
            )
            clicks = np.bincount(
                vendor, weights=honest.clicks, minlength=len(pairs.vendors)
            ).astype(np.float64)
            seen = np.unique(vendor)
            self._history.add(
                number, pairs.vendors.take(seen).to_pylist(), views[seen], clicks[seen]
            )
            self._history.add_gaps(number, int(honest.clicks.sum()), int(honest.gaps_fast.sum()))
            if number % self.config.span == 0:  # windows that do not overlap
                clicked, devoted = ActivityWindow(
                    self.config, self._activity, self._history, number
                ).devotion()
                self._history.add_devoted(number, clicked, devoted)

    def _judge_cell(self, last: int, touched: I64, anew: I64) -> list[Verdict]:
        """Judge pairs (rising) over the window that ends with a cell; rules of windows alone
        only those of `anew`."""
        window = ActivityWindow(self.config, self._activity, self._history, last)
        found = window.judge(anew) if len(anew) else []
        found += window.judge_remembered(touched, {one.pair for one in found}, self._scores)
        pairs = np.array([one.pair for one in found], np.int64)
        visits = (
            visits_of(self._activity, pairs, last - self.config.span + 1, last) if found else {}
        )
        said = [(one, self._spared(one, visits.get(one.pair))) for one in found]
        meant = [(one, sessions) for one, sessions in said if sessions is not None]
        if meant:
            self._reject(np.unique([one.pair for one, _ in meant]), last)
        return [self._verdict(one, last, sessions) for one, sessions in meant]

    def _spared(self, found: Found, visits: Visits | None) -> tuple[int, ...] | None:
        """The sessions that are not meant; None if none is meant at all."""
        if visits is None:
            return ()
        rate, share = self._history.click_rate(found.vendor), self._history.share(found.vendor)
        sessions = spared(self.config, found.rule, visits, rate, share)
        return None if len(sessions) == len(visits.session) else sessions

    def _reject(self, pairs: I64, last: int) -> None:
        first = last - self.config.span + 1
        self._activity.reject(pairs, first, last)
        again = np.repeat(pairs, self.config.span)
        cells = np.tile(np.arange(first, last + 1), len(pairs))
        self._unwritten.append(rejected_rows(*self._activity.pairs.columns(again), cells))

    def _verdict(self, found: Found, last: int, sessions: tuple[int, ...]) -> Verdict:
        """A function of rule, source, vendor and interval alone, but for its evidence (F3)."""
        from_ms = (last - self.config.span + 1) * self.config.cell_ms
        to_ms = (last + 1) * self.config.cell_ms
        self.counts.verdicts[found.rule] = self.counts.verdicts.get(found.rule, 0) + 1
        return Verdict(
            id=f"{found.rule}/{from_ms}/{to_ms}/{pair_key(found.source, found.vendor)}",
            rule=found.rule,
            decision=REJECT,
            source=found.source,
            vendor=found.vendor,
            from_ms=from_ms,
            to_ms=to_ms,
            reason=found.finding.reason,
            evidence=found.finding.evidence,
            spared=sessions,
        )


def _with_session(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Rows as `SESSION_SIGNAL_SCHEMA`; where they do not say, the session is not known (-1)."""
    if rows.schema != SIGNAL_SCHEMA:
        return rows
    unknown = pa.array(np.full(rows.num_rows, -1, np.int64))
    return pa.RecordBatch.from_arrays([*rows.columns, unknown], schema=SESSION_SIGNAL_SCHEMA)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


Send = Callable[[Sequence[Verdict | Watermark]], None]


def run_step(
    filter: FraudFilter, signals: Iterable[tuple[int, Signal | None]], send: Send
) -> FilterStep:
    """One step in the right order. `send` returns once the log holds the records, or raises."""
    step = filter.on_signals(signals)
    if step.verdicts:
        send(step.verdicts)
    if step.watermarks:
        send(step.watermarks)
    filter.commit(step)
    return step
