"""Prometheus metrics of the fraud filter (shell)."""

from dataclasses import replace

from labeler.fraud.filter import FilterStep, FraudCounts, FraudFilter
from stream import ReaderMetrics


class FraudMetrics(ReaderMetrics):
    """Updated after each step, on Faust's thread. Rows in are events counted from signals, rows out
    verdicts and watermarks acknowledged; its data time is that below which arrivals are judged on
    every input."""

    def __init__(self) -> None:
        super().__init__()
        self._verdicts = self.counter(
            "everspun_fraud_verdicts_total", "verdicts acknowledged, by rule", "rule"
        )
        self._watermark = self.gauge(
            "everspun_fraud_watermark_ms", "arrivals below it are judged", "input"
        )
        self._settled = self.gauge(
            "everspun_fraud_settled_ms", "event time below which all cells are judged"
        )
        self._rows = self.gauge("everspun_fraud_table_rows", "rows of a table", "table")
        self._signals = self.counter(
            "everspun_fraud_signals_total", "records of signals by what they were", "kind"
        )
        self._unknown = self.counter(
            "everspun_fraud_unknown_total", "records of inputs that could not be read (L5)"
        )
        self._stale = self.counter(
            "everspun_fraud_stale_total", "events of windows already forgotten"
        )
        self._vendor_only = self.counter(
            "everspun_fraud_vendor_only_total", "pairs that made room for heavier ones: alarm"
        )
        self._scores_dropped = self.counter(
            "everspun_fraud_scores_dropped_total",
            "remembered sources forgotten for want of room: alarm",
        )
        self._gaps = self.gauge(
            "everspun_fraud_reads_again", "times records were sought again that Faust passed over"
        )
        self._failures = self.gauge(
            "everspun_fraud_send_failures", "sends of verdicts that failed (C5)"
        )
        self._seen: tuple[FraudFilter | None, FraudCounts] = (None, FraudCounts())
        self.waits_for("idle")

    def on_step(
        self, filter: FraudFilter, step: FilterStep, reads_again: int, send_failures: int
    ) -> None:
        now, before = filter.counts, self._seen[1] if self._seen[0] is filter else FraudCounts()
        self._seen = (filter, replace(now))
        self.records_in.inc(now.events - before.events)
        self.records_out.inc(len(step.verdicts) + len(step.watermarks))
        for verdict in step.verdicts:
            self._verdicts.labels(verdict.rule).inc()
        for kind in ("signals", "repeats", "dangling", "gaps", "strangers"):
            self._signals.labels(kind).inc(getattr(now, kind) - getattr(before, kind))
        self._unknown.inc(now.unknown - before.unknown)
        self._stale.inc(now.stale - before.stale)
        self._vendor_only.inc(now.vendor_only - before.vendor_only)
        self._scores_dropped.inc(now.scores_dropped - before.scores_dropped)
        for name, watermark_ms in filter.watermarks.items():
            self._watermark.labels(name).set(watermark_ms)
        self.data_time_ms.set(min(filter.watermarks.values()))
        self._settled.set(filter.settled_ms)
        for name, rows in filter.rows.items():
            self._rows.labels(name).set(rows)
        self._gaps.set(reads_again)
        self._failures.set(send_failures)
