"""What a governor's process exports to Prometheus (shell)."""

from learners.governor.controller import Governing
from paramserver import PaceLevel
from paramserver.clocks import WHY
from stream import ReaderMetrics

SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class GovernorMetrics(ReaderMetrics):
    """Updated by the governor's one thread. Rows in and out are rows trained by its shadows; its
    data time is the arrival reached by the last comparison."""

    def __init__(self) -> None:
        super().__init__()
        self.estimates = self.counter(
            "everspun_governor_estimates_total", "estimates of what staleness costs"
        )
        self.seconds = self.histogram(
            "everspun_governor_estimate_seconds", "time to read and train one", SECONDS
        )
        self.unanswered = self.counter(
            "everspun_governor_unanswered_total", "looks at clock, log or store that failed"
        )
        self._windows = self.gauge(
            "everspun_governor_windows", "comparisons by what became of them", "outcome"
        )
        self._decisions = self.gauge(
            "everspun_governor_decisions", "decisions since start", "action", "why"
        )
        self._decision = self.gauge(
            "everspun_governor_decision", "1 for the last decision and why", "action", "why"
        )
        self.decided_ms = self.gauge(
            "everspun_governor_decided_ms", "when it was taken, ms since 1970; 0 = none yet"
        )
        self._excess = self.gauge(
            "everspun_governor_excess_share", "log loss above that of the sequence"
        )
        self._band = self.gauge(
            "everspun_governor_band_share", "log loss that speed may cost, a share of it"
        )
        self._error = self.gauge("everspun_governor_error_share", "its standard error")
        self._bound = self.gauge(
            "everspun_governor_staleness_bound", "the bound s by word: -1 = unbounded", "word"
        )
        self._limit = self.gauge(
            "everspun_governor_concurrency_bound", "batches at once by word: 0 = no limit", "word"
        )
        self._level = self.gauge(
            "everspun_governor_rung", "its level in the list, from the top, 0 = as loose as allowed"
        )
        self._levels = self.gauge("everspun_governor_rungs", "levels there are")
        self._spent = self.gauge(
            "everspun_governor_shadow_share", "rows its shadows trained, to rows learned live"
        )
        self._backlog = self.gauge(
            "everspun_governor_backlog_records", "records of examples that waited"
        )
        self._lost = self.gauge(
            "everspun_governor_leases_lost", "leases that ran out or were lost with a clock holder"
        )
        self._end = self.gauge(
            "everspun_governor_at_its_end", "1: at the slowest level, beyond the band: alarm"
        )
        self.waits_for("idle")

    def look(self, governing: Governing) -> None:
        """Take the gauges from the core as it stands."""
        counts = governing.counts
        for name, count in counts.items():
            if name.startswith("window "):
                self._windows.labels(name.removeprefix("window ")).set(count)
        for (action, why), count in governing.decided.items():
            self._decisions.labels(action, why).set(count)
        self._band.set(governing.config.band)
        if governing.decision is not None:
            said = (governing.decision.action, governing.decision.why)
            for action in ("hold", "slower", "faster"):
                for why in WHY:
                    self._decision.labels(action, why).set((action, why) == said)
        if governing.estimate is not None:
            self._excess.set(governing.estimate.excess)
            self._error.set(governing.estimate.error)
        if governing.backlog is not None:
            self._backlog.set(governing.backlog)
        if governing.governor is not None:
            self._show("governor", governing.governor.level)
            self._level.set(governing.governor.at)
            self._levels.set(len(governing.governor.levels))
        if governing.bounds is not None:
            self._show("operator", governing.bounds.ordered)
            self._show("in force", governing.bounds.in_force)
        self._spent.set(governing.rows_spent / governing.rows_live if governing.rows_live else 0.0)
        self._lost.set(counts["leases lost"])
        self._end.set(governing.at_its_end)

    def _show(self, word: str, level: PaceLevel) -> None:
        self._bound.labels(word).set(level.staleness)
        self._limit.labels(word).set(level.concurrency)
