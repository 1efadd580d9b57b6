"""Prometheus metrics of the circuit breaker (shell)."""

from labeler.breaker.runner import Judging
from labeler.labels import Labelling
from stream import InputMetrics
from stream.internal_topics import BatchHeader


class BreakerMetrics(InputMetrics):
    """Updated by the tallying thread. Rows in are impressions tallied, rows out records of
    verdicts; its data time is the arrival below which everything is judged."""

    def __init__(self) -> None:
        super().__init__()
        self._withheld = self.gauge(
            "everspun_breaker_withheld", "1 while a scope is withheld: alarm", "scope", "rule"
        )
        self._scopes = self.gauge("everspun_breaker_scopes", "scopes watched")
        self._unwatched = self.gauge(
            "everspun_breaker_unwatched", "counts of scopes beyond scopes_max: alarm"
        )
        self._settled = self.gauge(
            "everspun_breaker_settled_ms", "event time below which all cells are judged"
        )
        self._judges = self.gauge("everspun_breaker_judges", "1 in the process that judges")
        self._cells = self.gauge("everspun_breaker_cells", "cells judged")
        self._dangling = self.gauge(
            "everspun_breaker_dangling_records", "tallies above their chain's end (C5): alarm"
        )
        self._unreadable = self.gauge(
            "everspun_breaker_unreadable_records", "tallies or verdicts not readable: alarm"
        )
        self._gone = self.gauge(
            "everspun_breaker_gone", "partitions with tallies deleted before judgement: alarm"
        )
        self._restarts = self.gauge(
            "everspun_breaker_restarts", "times the judge began again after a failure (C5)"
        )
        self._stopped = self.gauge(
            "everspun_breaker_stopped_partitions", "partitions stopped by a record (L7): alarm"
        )
        self._shown: set[tuple[str, str]] = set()  # withheld when it was looked last
        self._ended: set[tuple[str, str]] = set()  # said to be so no more
        self.waits_for("idle")

    def on_tallied(self, headers: list[BatchHeader]) -> None:
        """These tallies are in the log."""
        self.records_in.inc(sum(header.impressions for header in headers))

    def look(self, labelling: Labelling, judging: Judging) -> None:
        """Take the gauges from the parts as they stand."""
        self.look_registry()
        totals, breaker = judging.totals, judging.breaker
        self._judges.set(breaker is not None)
        self._cells.set(totals.cells)
        self._unreadable.set(totals.unreadable)
        self._gone.set(totals.gone)
        self._restarts.set(totals.restarts)
        self._stopped.set(sum(line.core.stopped is not None for line in labelling.tasks.values()))
        dangling = labelling.totals.dangling
        trips: dict[tuple[str, str], str] = {}
        if breaker is not None:
            dangling += breaker.cells.dangling
            self._scopes.set(len(breaker.bands.scopes))
            self._unwatched.set(breaker.unwatched)
            self._settled.set(breaker.settled_ms)
            self.data_time_ms.set(max(0, breaker.cells.low_ms))
            trips = {scope: trip.rule for scope, trip in list(breaker.trips.items())}
        self._dangling.set(dangling)
        now = {
            ("=".join(scope) if scope[0] else "everything", rule) for scope, rule in trips.items()
        }
        for labels in self._ended - now:  # what ended is 0 for one look, and then gone
            self._withheld.remove(*labels)
        self._shown, self._ended = now, self._shown - now
        for labels in now | self._ended:
            self._withheld.labels(*labels).set(labels in now)
        self.waits_for(labelling.waiting if labelling.waiting in ("window", "idle") else "none")
