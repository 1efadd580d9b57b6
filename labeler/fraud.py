"""The fraud filter: signals in; verdicts out, and then the watermark of each input (F1-F3).

Activity is counted in cells of event time. A cell is *settled* once every input has passed its end by `settle_ms`:
views and their clicks come over different inputs, one of which may run hours ahead of the other, and no one may be
judged on views whose clicks are still to come. A pair (source, vendor) seen in a cell is judged when the cell
settles, over the window that ends with it, and so once a cell for as long as it goes on. So a verdict depends on
what was counted, not on which input came first. What others do, with which the pair is compared, is the history of
cells a window older, without what verdicts cover.

An impression's own cell settles `cell + settle` after it at the latest, by which time all inputs are that far; its
label waits for watermarks `window + grace` after its arrival (L3). So what is judged of it stands before V(i).

Order of one step, and why a crash anywhere loses nothing (F2):
 1. `on_signals` counts and judges, in memory, and writes down the watermarks that it promises.
 2. The caller sends `step.verdicts`, waits until the log holds them, then sends `step.watermarks`.
 3. `commit(step)`, now or some steps later, writes rows, each with the position it has counted to, then history,
    settled cells, and the fold position. After a crash the signals since the last commit come again: rows that were
    already written ignore them, pairs are judged again, verdicts are sent again, and watermarks below the promised
    ones are not.
After any exception the filter is dropped and made anew from the tables.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from labeler.fraud_config import FraudConfig
from labeler.fraud_tables import Cell, InputRow, Row, Rows, Tables, pair_key, pair_of
from labeler.rules import RULES
from labeler.rules.evidence import Evidence, Finding
from labeler.signals import Signal
from labeler.vendor_history import VendorHistory
from stream.chain import Chain, Fold
from stream.verdicts import Verdict, Watermark

#: Rows of `progress` that are no inputs: [first cell not settled, offset of `signals` to read from] ...
COMMITTED = "committed"
#: ... and the highest watermark by input that may have been sent.
PROMISED = "promised"


@dataclass(frozen=True)
class Step:
    """What to send, in this order: all verdicts, acknowledged; then the watermarks. Then `commit`."""

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
    strangers: int = 0  # signals of inputs that the configuration does not have: an alarm
    events: int = 0
    unknown: int = 0  # records that could not be read (L5)
    stale: int = 0  # events of cells that are already forgotten
    verdicts: dict[str, int] = field(default_factory=dict)  # by rule


class FraudFilter:
    """Made anew at every start, from tables that hold what an earlier one committed.

    `views` and `clicks` name all inputs (`stream.verdicts.input_name`); no cell settles before all of them passed it.
    """

    def __init__(self, config: FraudConfig, views: Sequence[str], clicks: Sequence[str], tables: Tables) -> None:
        self.config = config
        self.tables = tables
        self.counts = FraudCounts()
        self._clicks = frozenset(clicks)
        self._inputs = {name: InputRow.of(tables.progress.get(name)) for name in (*views, *clicks)}
        self._promised: dict[str, int] = dict(tables.progress.get(PROMISED) or {})
        self._said = {name: row.end for name, row in self._inputs.items()}  # E at which the last watermark was given
        self._chains = {name: Chain(row.end) for name, row in self._inputs.items()}
        committed: tuple[int, int] = tables.progress.get(COMMITTED) or (0, 0)
        self._settled, self._next_offset = committed
        self._saved = True
        self._forgotten = self._settled - 2 * config.span  # cells below it are in no window, in no later life
        self._pairs = Rows(tables.pairs, lambda key: pair_of(key)[0])
        self._sources = Rows(tables.sources, str)
        self._history = VendorHistory(config, tables.vendors)
        self._pending: dict[int, set[str]] = {}  # cell -> pairs to judge when it settles
        self._aging: dict[int, set[str]] = {}  # settled cell -> pairs to enter history a window later
        for key, row in self._pairs.load():
            for number in row.cells:
                (self._pending if number >= self._settled else self._aging).setdefault(number, set()).add(key)
        self._sources.load()

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
        """Rows held, by table."""
        return {"pairs": len(self._pairs), "sources": len(self._sources), "vendors": len(self._history)}

    @property
    def settled_ms(self) -> int:
        """Event time below which everything is judged."""
        return self._settled * self.config.cell_ms

    def on_signals(self, signals: Iterable[tuple[int, Signal]]) -> Step:
        """Count signals, each with its offset, and judge the cells that they settle."""
        self._saved = False
        for offset, signal in signals:
            self._fold(signal)
            self._next_offset = max(self._next_offset, offset + 1)
        watermarks = self._promise()
        verdicts = self._judge()
        inputs = {name: InputRow(row.end, row.watermark_ms) for name, row in self._inputs.items()}
        return Step(verdicts, watermarks, inputs, self._settled, self._next_offset)

    def save(self) -> None:
        """The first half of `commit`: what must be durable before the fold position is written. Needs the last commit
        to be durable."""
        if self._saved:
            return
        self._saved = True
        self._pairs.write(self._settled - 2 * self.config.span)
        self._sources.write(self._settled - 2 * self.config.span)
        self._history.write()

    def commit(self, step: Step) -> None:
        """The log holds the verdicts and watermarks of this step and all before: their signals need not come again.

        `step` is the last one. Where tables become durable one by one, call `save` first and wait for them.
        """
        self.save()
        for name, row in step.inputs.items():
            if row.end is not None:
                self.tables.progress[name] = row.value()
        self.tables.progress[COMMITTED] = [step.settled, step.next_offset]
        self._forgotten = step.settled - 2 * self.config.span

    # --- counting ---------------------------------------------------------------------------------------------

    def _fold(self, signal: Signal) -> None:
        self.counts.signals += 1
        chain = self._chains.get(signal.input)
        if chain is None:
            self.counts.strangers += 1
            return
        kind, _ = chain.fold(signal.start, signal.end)
        if kind is Fold.DANGLES:
            self.counts.dangling += 1
            return
        if kind is Fold.EXTENDS:
            row = self._inputs[signal.input]
            row.end = chain.end
            row.watermark_ms = max(row.watermark_ms, signal.bucket_end_ms)
            self.counts.unknown += signal.unknown
        else:
            self.counts.repeats += 1
        if signal.rows is not None:
            self._count(signal)

    def _count(self, signal: Signal) -> None:
        """Rows move only where this signal is above what they have counted; pairs are judged either way (F2)."""
        assert signal.rows is not None
        clicks = signal.input in self._clicks
        groups: dict[str, list[tuple[int, int, int, int, int]]] = {}
        by_source: dict[str, list[tuple[int, int, int, int, int]]] = {}
        columns = [column.to_pylist() for column in signal.rows.columns]
        for source, vendor, cell_ms, count, first, last, _, fast in zip(*columns, strict=True):
            number = cell_ms // self.config.cell_ms
            if number < self._settled - self.config.span:
                self.counts.stale += count
            elif source:
                groups.setdefault(pair_key(source, vendor), []).append((number, count, first, last, fast))
                by_source.setdefault(source, []).append((number, count, first, last, fast))
        for key, cells in groups.items():
            row = self._add(self._pairs, key, signal, cells, clicks)
            for number, *_ in cells:
                self._touch(key, row, number)
        for source, cells in by_source.items():
            self._add(self._sources, source, signal, cells, clicks)

    def _add(
        self, rows: Rows, key: str, signal: Signal, cells: list[tuple[int, int, int, int, int]], clicks: bool
    ) -> Row:
        row = rows[key]
        if row.ends.get(signal.input, -1) >= signal.end:
            return row
        row.ends[signal.input] = signal.end
        row.trim(self._forgotten)
        for number, count, first, last, fast in cells:
            cell = row.cells.setdefault(number, Cell())
            if not clicks:
                cell.views += count
                continue
            cell.clicks += count
            cell.gaps_fast += fast + (0 <= first - row.click_ts_ms < self.config.gap_fast_ms)
            row.click_ts_ms = max(row.click_ts_ms, last)
        if rows is self._pairs:
            self.counts.events += sum(count for _, count, *_ in cells)
        rows.changed(key, row)
        return row

    def _touch(self, key: str, row: Row, number: int) -> None:
        """To be judged in this cell, and again in settled ones whose window holds a cell that came late."""
        self._pending.setdefault(number, set()).add(key)
        if number < self._settled:
            for later in row.cells:
                if number < later < min(self._settled, number + self.config.span):
                    self._pending.setdefault(later, set()).add(key)

    def _promise(self) -> list[Watermark]:
        """Watermarks to send. Before one may be sent its promise is written down, so that after a crash it is sent
        again or raised, and never followed by a lower one (F3)."""
        watermarks = []
        for name, row in sorted(self._inputs.items()):
            if row.end is not None and row.end != self._said[name]:
                self._said[name] = row.end
                if row.watermark_ms >= self._promised.get(name, 0):
                    watermarks.append(Watermark(name, row.watermark_ms, row.end))
        new = {one.input: one.watermark_ms for one in watermarks if one.watermark_ms > self._promised.get(one.input, 0)}
        if new:
            self._promised |= new
            self.tables.progress[PROMISED] = dict(self._promised)
        return watermarks

    # --- judging ----------------------------------------------------------------------------------------------

    def _judge(self) -> list[Verdict]:
        low = min(row.watermark_ms for row in self._inputs.values())
        settled = max(self._settled, (low - self.config.settle_ms) // self.config.cell_ms)
        verdicts: list[Verdict] = []
        for number in sorted(n for n in self._pending if n < settled):
            self._age(number)
            for key in sorted(self._pending.pop(number)):
                verdicts += self._judge_pair(key, self._pairs[key], number)
                self._aging.setdefault(number, set()).add(key)
        self._age(settled)
        self._settled = settled
        return verdicts

    def _age(self, now: int) -> None:
        """Cells a window older than `now` enter history, but for pairs that a verdict covers there: an attack that is
        being judged cannot teach the filter that it is usual."""
        for number in sorted(n for n in self._aging if n < now - self.config.span):
            honest: dict[str, list[int]] = {}
            for key in sorted(self._aging.pop(number)):
                cell = self._pairs[key].cells.get(number)
                if cell is not None and not cell.rejected:
                    totals = honest.setdefault(pair_of(key)[1], [0, 0])
                    totals[0] += cell.views
                    totals[1] += cell.clicks
            self._history.add(number, honest)

    def _judge_pair(self, key: str, row: Row, last: int) -> list[Verdict]:
        config = self.config
        window = row.window(last, config.span)
        if window.clicks < config.clicks_min and window.views < config.views_min:
            return []
        seen = self._evidence(key, window, last)
        found = ((name, RULES[name](config, seen)) for name in config.rules)
        verdicts = [self._verdict(name, finding, seen, last) for name, finding in found if finding is not None]
        if verdicts:
            row.reject(last, config.span)
            self._pairs.changed(key, row)
        return verdicts

    def _evidence(self, key: str, window: Cell, last: int) -> Evidence:
        source, vendor = pair_of(key)
        everything = self._sources[source].window(last, self.config.span)
        vendorless = self._pairs[pair_key(source, "")].window(last, self.config.span)
        return Evidence(
            source=source,
            vendor=vendor,
            views=window.views,
            clicks=window.clicks,
            source_views=everything.views,
            source_clicks=everything.clicks,
            vendorless_clicks=vendorless.clicks,
            gaps_fast=window.gaps_fast,
            click_rate=self._history.click_rate(vendor),
            vendor_share=self._history.share(vendor),
        )

    def _verdict(self, rule: str, finding: Finding, seen: Evidence, last: int) -> Verdict:
        """A function of rule, source, vendor and interval alone, but for its evidence (F3)."""
        from_ms = (last - self.config.span + 1) * self.config.cell_ms
        to_ms = (last + 1) * self.config.cell_ms
        self.counts.verdicts[rule] = self.counts.verdicts.get(rule, 0) + 1
        return Verdict(
            id=f"{rule}/{from_ms}/{to_ms}/{pair_key(seen.source, seen.vendor)}",
            rule=rule,
            decision="reject",
            source=seen.source,
            vendor=seen.vendor,
            from_ms=from_ms,
            to_ms=to_ms,
            reason=finding.reason,
            evidence=finding.evidence,
        )


Send = Callable[[Sequence[Verdict | Watermark]], None]


def run_step(filter: FraudFilter, signals: Iterable[tuple[int, Signal]], send: Send) -> Step:
    """One step in the right order. `send` returns once the log holds the records, or raises."""
    step = filter.on_signals(signals)
    if step.verdicts:
        send(step.verdicts)
    if step.watermarks:
        send(step.watermarks)
    filter.commit(step)
    return step
