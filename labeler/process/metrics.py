"""Prometheus metrics of the labeler and of the fraud filter (shell)."""

import time
from collections import Counter

from labeler.counting import Head
from labeler.counts import Adder
from labeler.labels import Labelling, PartitionLabeler, PartitionStop
from labeler.retraction import Retracting
from stream import LABEL, RETRACT, InputMetrics, kind_of, offset_of
from stream.decoding import NAMES_MAX, MissingShares
from stream.internal_topics import BatchHeader
from stream.log.rows import StoredRows

#: Characters of the reason of a stop that stand in its series.
REASON_MAX = 300
CLASSES = ("labelled", "sampled", "rejected", "duplicate", "withheld", "quarantined", "lost")
CLICKS = ("read", "joined", "duplicate", "quarantined", "too_early")


class LabelerMetrics(InputMetrics):
    """Updated by the labelling thread. Rows in are impressions read, rows out labelled rows in the
    log; its data time is the arrival up to which the slowest partition is labelled."""

    def __init__(self) -> None:
        super().__init__()
        self._make_labels()
        self._make_late_verdicts()
        self._make_clicks()
        self._make_stops()
        self._make_catalogues()
        self._make_clocks()
        self._make_kept()
        self._make_inputs()
        self._make_log()
        self._make_alarms()
        self._since_s: dict[PartitionStop, float] = {}
        self._rows_read: dict[int, int] = {}
        self.clicks = dict.fromkeys(CLICKS, 0)

    def _make_labels(self) -> None:
        """Of what became of impressions and clicks."""
        self._batches = self.counter(
            "everspun_labeler_batches_total", "records of examples acknowledged"
        )
        self._impressions = self.counter(
            "everspun_labeler_impressions_total", "impressions by class (L6)", "class"
        )
        self._clicks = self.counter(
            "everspun_labeler_clicks_total",
            "clicks by what became of them (L6); too_early: of the unmatched, too long before "
            "their impression (L1)",
            "class",
        )
        self._positives = self.counter(
            "everspun_labeler_positives_total", "labelled impressions with a click"
        )
        self._corrections = self.counter(
            "everspun_labeler_corrections_total", "rows of late chains acknowledged (C1)"
        )

    def _make_late_verdicts(self) -> None:
        """Of what late verdicts took back."""
        self._taken_back = self.counter(
            "everspun_labeler_taken_back_rows_total", "rows that late verdicts took back"
        )
        self._clean = self.counter(
            "everspun_labeler_clean_rows_total", "clean rows sent with them, to learn again from"
        )
        self._late_runs = self.gauge(
            "everspun_labeler_late_verdict_runs", "runs of late verdicts not answered yet"
        )
        self._late_held = self.gauge(
            "everspun_labeler_late_verdicts_held",
            "late rejections and allowances of the last retract_horizon_ms, 0.5 KB each",
        )
        self._late_kept_bytes = self.gauge(
            "everspun_labeler_late_verdict_kept_bytes",
            "records of examples kept for the next late verdict, bytes",
        )
        self._gone_verdicts = self.gauge(
            "everspun_labeler_gone_verdicts",
            "verdicts that take nothing back, for they are gone (C7): alarm",
        )

    def _make_clicks(self) -> None:
        """Of waiting clicks, and of queues."""
        self._pending = self.gauge(
            "everspun_labeler_pending_clicks", "clicks that wait for impressions"
        )
        self._pending_bytes = self.gauge(
            "everspun_labeler_pending_clicks_bytes", "memory of waiting clicks, bytes"
        )
        self._spilled = self.gauge(
            "everspun_labeler_spilled_clicks", "those of them in the local copy alone (C4)"
        )
        self._restored = self.gauge(
            "everspun_labeler_restored_clicks", "clicks taken from the local copy at a start"
        )
        self._copy_failures = self.gauge(
            "everspun_labeler_copy_failures", "local copies given up (C4): alarm"
        )
        self._queue_rows = self.gauge(
            "everspun_labeler_queue_rows", "impressions read and not yet labelled"
        )
        self._queue_bytes = self.gauge(
            "everspun_labeler_queue_bytes", "memory of queues and feeds, bytes"
        )

    def _make_catalogues(self) -> None:
        """Of catalogues (A1)."""
        self._catalogue_rows = self.gauge(
            "everspun_labeler_catalogue_rows", "rows of a catalogue, about", "catalogue"
        )
        self._catalogue_bytes = self.gauge(
            "everspun_labeler_catalogue_bytes", "memory of its rows, about", "catalogue"
        )
        self._catalogue_wrong = self.gauge(
            "everspun_labeler_catalogue_wrong_records", "records that are no row", "catalogue"
        )
        self._catalogue_time_ms = self.gauge(
            "everspun_labeler_catalogue_time_ms", "arrival that it is read up to", "catalogue"
        )
        self._row_lookups = self.gauge(
            "everspun_labeler_row_lookups", "rows that were asked for", *("rows", "found")
        )
        self._catalogue_failures = self.gauge(
            "everspun_labeler_catalogue_failures", "rows could not be written or read: alarm"
        )

    def _make_stops(self) -> None:
        """Of partitions, and where they stopped."""
        self._partitions = self.gauge("everspun_labeler_partitions", "partitions owned")
        self._undeclared = self.gauge(
            "everspun_labeler_undeclared_features",
            "records of a sample that hold a feature nobody declared",
            "feature",
        )
        self._missing = self.gauge(
            "everspun_labeler_missing_share",
            "share of the last minutes' impressions without a component or a row's attribute",
            "feature",
        )
        self._missing_max = self.gauge(
            "everspun_labeler_missing_share_max",
            "share of impressions without a component that is allowed (missing_max)",
            "feature",
        )
        self._stopped = self.gauge(
            "everspun_labeler_stopped_partitions", "partitions stopped by a record (L7): alarm"
        )
        self._stops = self.gauge(
            "everspun_partition_stopped",
            "where a partition stopped (L7, C7): since when, s since 1970",
            *("topic", "partition", "offset", "reason", "command"),
        )

    def _make_inputs(self) -> None:
        """Of inputs that nobody counts, or that are gone."""
        self._uncounted = self.gauge(
            "everspun_labeler_uncounted_inputs", "inputs nobody counts any more (F1): alarm"
        )
        self._passed_over = self.gauge(
            "everspun_labeler_uncounted_records",
            "records gone before they were counted (C7): alarm",
        )
        self._gone = self.gauge(
            "everspun_labeler_gone_inputs", "inputs that are needed and gone (C7): alarm"
        )

    def _make_log(self) -> None:
        """Of the log as it was folded, and what is sent beside examples."""
        self._dangling = self.gauge(
            "everspun_labeler_dangling_records", "records above their chain's end (C5): alarm"
        )
        self._repeats = self.gauge(
            "everspun_labeler_repeated_records", "repeats seen when folding (C2)"
        )
        self._refolds = self.gauge(
            "everspun_labeler_refolds", "times the log was folded again after a failure (C5)"
        )
        self._signals = self.gauge(
            "everspun_labeler_signals_sent", "buckets sent to the fraud filter"
        )
        self._heartbeats = self.gauge("everspun_labeler_heartbeats_sent", "heartbeats written")
        self._watermark = self.gauge(
            "everspun_labeler_watermark_ms", "arrivals below it are judged on every input"
        )

    def _make_alarms(self) -> None:
        """Of shares and sizes above their limit."""
        self._orphans = self.gauge(
            "everspun_labeler_orphan_share", "share of clicks that found no impression (T5)"
        )
        self._orphan_alarm = self.gauge(
            "everspun_labeler_orphan_alarm", "1 when that share is above its limit"
        )
        self._bytes_alarm = self.gauge(
            "everspun_labeler_pending_clicks_alarm",
            "1 when waiting clicks are too many for memory, without a local copy",
        )
        self._bad_verdicts = self.gauge(
            "everspun_labeler_bad_verdicts", "records of verdicts that say nothing"
        )

    def _make_kept(self) -> None:
        """Of counters and sequences, where this process adds them up."""
        self._kept_keys = self.gauge(
            "everspun_labeler_kept_keys", "values that a counter or a sequence is kept by", "kept"
        )
        self._kept_bytes = self.gauge(
            "everspun_labeler_kept_bytes", "memory of the rows that they stand in, bytes"
        )

    def _make_clocks(self) -> None:
        self._clocks_apart = self.gauge(
            "everspun_labeler_clocks_apart_ms",
            "timestamps lead the heartbeats' writer by so much (T3)",
            "input",
        )
        self._time_ahead = self.gauge(
            "everspun_labeler_time_ahead_ms",
            "an input's time leads all clocks by so much, and stands (T1)",
            "input",
        )
        self._time_fell = self.gauge(
            "everspun_labeler_time_fell_ms",
            "by so much all clocks fell below an input's time when they were put right (T3)",
            "input",
        )

    def on_acknowledged(self, headers: list[BatchHeader], is_last: bool = True) -> None:
        """These batches are in the log. Clicks are counted by the last reading of them,
        impressions by the first."""
        for header in headers:
            self._batches.inc()
            if kind_of(header.chain) == RETRACT:
                self._taken_back.inc(header.rejected)
                self._clean.inc(header.labelled - header.rejected)
                continue
            self.records_out.inc(header.labelled)
            self._positives.inc(header.positives)
            if kind_of(header.chain) == LABEL:
                for name in CLASSES:
                    self._impressions.labels(name).inc(getattr(header, name))
            else:
                self._corrections.inc(header.labelled)
            for name in CLICKS if is_last else ():
                count = getattr(header, f"clicks_{name}")
                self.clicks[name] += count
                self._clicks.labels(name).inc(count)

    def look_late(self, retracting: Retracting) -> None:
        """What is still to be taken back."""
        self._late_runs.set(retracting.waiting)
        self._late_held.set(retracting.held)
        self._late_kept_bytes.set(retracting.kept_bytes)
        self._gone_verdicts.set(retracting.gone_verdicts)

    def look_kept(self, adder: Adder | None) -> None:
        """What this process adds up; nothing where another one does."""
        self._kept_keys.clear()
        if adder is None:
            return
        keys = {name: len(one) for name, one in adder.state.totals.items()}
        keys |= {name: len(one) for name, one in adder.state.sequences.items()}
        for name, count in keys.items():
            self._kept_keys.labels(name).set(count)
        self._kept_bytes.set(adder.state.memory_bytes)

    @property
    def orphan_share(self) -> float:
        """The share of clicks so far that found no impression; 0 before the first."""
        clicks = self.clicks
        unmatched = clicks["read"] - clicks["joined"] - clicks["duplicate"] - clicks["quarantined"]
        return max(0, unmatched) / clicks["read"] if clicks["read"] else 0.0

    def look(
        self, labelling: Labelling, head: Head, orphan_alarm: bool, late: Labelling | None = None
    ) -> None:
        """Take the gauges from the parts as they stand; `late` labels again, and may stop by
        itself."""
        self.look_registry()
        lines = labelling.tasks
        for p, line in lines.items():
            self.records_in.inc(max(0, line.core.rows_read - self._rows_read.get(p, 0)))
        self._rows_read = {p: line.core.rows_read for p, line in lines.items()}
        cores = [line.core for line in lines.values()]
        reached = [core.point.arrival_max_ms for core in cores if core.point.arrival_max_ms]
        if reached:
            self.data_time_ms.set(min(reached))
        self._pending.set(sum(len(core.clicks) for core in cores))
        self._pending_bytes.set(sum(core.clicks.bytes for core in cores))
        self._spilled.set(sum(core.clicks.spilled for core in cores))
        self._restored.set(labelling.totals.restored_clicks)
        self._copy_failures.set(labelling.totals.copy_failures)
        self._queue_rows.set(sum(core.queue_rows for core in cores))
        fed = sum(line.impressions.bytes + line.clicks.bytes for line in lines.values())
        self._queue_bytes.set(fed + sum(core.queue_bytes for core in cores))
        self._partitions.set(len(lines))
        undeclared = sum((core.undeclared for core in cores), Counter[str]())
        self._undeclared.clear()
        for name in sorted(undeclared)[:NAMES_MAX]:
            self._undeclared.labels(name).set(undeclared[name])
        self._show_missing([core.missing for core in cores])
        self._show_catalogues(labelling)
        self._stopped.set(sum(core.stopped is not None for core in cores))
        self._uncounted.set(len(head.totals.stopped))
        self._show_clocks(cores, head)
        again = [] if late is None else [line.core for line in list(late.tasks.values())]
        self._show_stops({stop for core in (*cores, *again) for stop in core.stops}, time.time())
        self._passed_over.set(head.totals.passed_over)
        self._gone.set(sum(len(line.gone) for line in lines.values()))
        self._dangling.set(labelling.totals.dangling + head.totals.dangling)
        self._repeats.set(labelling.totals.repeats)
        self._refolds.set(labelling.totals.refolds + head.totals.refolds)
        self._signals.set(head.totals.signals)
        self._heartbeats.set(head.totals.heartbeats)
        if labelling.verdict_index is not None:
            self._watermark.set(labelling.verdict_index.low_ms)
            self._bad_verdicts.set(labelling.verdict_index.bad)
        self._orphans.set(self.orphan_share)
        self._orphan_alarm.set(orphan_alarm)
        self._bytes_alarm.set(any(core.clicks.is_over for core in cores))
        self.waits_for(labelling.waiting)

    def _show_missing(self, parts: list[MissingShares]) -> None:
        """Of all partitions together."""
        rows = sum(part.rows for part in parts)
        for part in parts[:1]:
            for name, declared in part.components.items():
                missing = sum(one.counts[name] for one in parts)
                self._missing.labels(name).set(missing / rows if rows else 0.0)
                self._missing_max.labels(name).set(declared.missing_max)

    def _show_catalogues(self, labelling: Labelling) -> None:
        """Of the first reading."""
        self._catalogue_failures.set(labelling.totals.catalogue_failures)
        joined = labelling.joined.catalogues.joined
        if joined is None:
            return
        self._show_missing([joined.missing])
        for name, one in joined.of.items():
            self._catalogue_rows.labels(name).set(len(one.held))
            self._show_lookups(f"catalogue {name}", one.held)
            self._catalogue_bytes.labels(name).set(one.bytes)
            self._catalogue_wrong.labels(name).set(one.wrong)
            self._catalogue_time_ms.labels(name).set(one.arrival_ms)

    def _show_lookups(self, rows: str, stored: StoredRows) -> None:
        self._row_lookups.labels(rows, "memory").set(stored.hits)
        self._row_lookups.labels(rows, "disk").set(stored.misses)

    def _show_clocks(self, cores: list[PartitionLabeler], head: Head) -> None:
        """What the counting readers see, which stand at the head; without them, what labels have
        read."""
        clocks = {name: clock for core in cores for name, clock in core.clocks.items()}
        clocks |= {count.reader.input: count.reader.clock for count in list(head.counts.values())}
        for gauge in (self._clocks_apart, self._time_ahead, self._time_fell):
            gauge.clear()
        for name, clock in clocks.items():
            self._clocks_apart.labels(name).set(clock.apart_ms)
            self._time_ahead.labels(name).set(clock.ahead_ms)
            self._time_fell.labels(name).set(clock.fell_ms)

    def _show_stops(self, stops: set[PartitionStop], now_s: float) -> None:
        """One series for each place where a partition stopped, with the command that lets it go
        on."""
        for stop in self._since_s.keys() - stops:
            del self._since_s[stop]
        self._stops.clear()
        for stop in stops:
            at = (stop.topic, str(stop.partition), str(offset_of(stop.position)))
            since_s = self._since_s.setdefault(stop, now_s)
            self._stops.labels(*at, stop.reason[:REASON_MAX], stop.command).set(since_s)
