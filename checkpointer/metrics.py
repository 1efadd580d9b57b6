"""Prometheus metrics of the checkpointer and of replicas (shell)."""

from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram

from stream import ReaderMetrics, RoleMetrics

_FAST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SLOW_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_WAIT_S = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0)
_HOLD_MS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000, 30_000)

NAN = float("nan")


class Served(NamedTuple):
    """What a replica serves, at the moment of asking. Ages in s, NaN where there is none."""

    number: int
    barrier: int
    data_time_ms: int
    model_age_s: float
    data_age_s: float
    ready: bool


class CheckpointerMetrics(ReaderMetrics):
    """Rows are rows of examples; its data time is the newest event time in a complete
    checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.cut_hold_ms = self.histogram(
            "everspun_cut_hold_ms", "how long a cut stopped starts, ms", _HOLD_MS
        )
        self.cut_seconds = self.histogram(
            "everspun_cut_seconds", "from due to all shards marked, s", _SLOW_S
        )
        self.publish_seconds = self.histogram(
            "everspun_publish_seconds", "from due to announced, s", _SLOW_S
        )
        self.learned_to_served = self.histogram(
            "everspun_learned_to_served_seconds",
            "from a state seen applied by a shard to a replica that answers with it, s",
            _WAIT_S,
        )
        self.unserved = self.gauge(
            "everspun_learned_unserved", "states seen applied that no replica answers with yet"
        )
        self.attempts = self.counter("everspun_cut_attempts_total", "cuts tried", "reason")
        self.abandoned = self.counter(
            "everspun_cuts_abandoned_total", "cuts that came to nothing", "reason"
        )
        self.moves = self.counter("everspun_moves_total", "changes of the number of shards (S6)")
        self.move_pause_ms = self.gauge(
            "everspun_move_pause_ms", "how long the last one stopped starts, ms", "phase"
        )
        self.checkpoints = self.counter(
            "everspun_checkpoints_total", "complete checkpoints judged", "outcome"
        )
        self.gates = self.counter(
            "everspun_gate_results_total", "findings of the gates", "gate", "passed"
        )
        self.number = self.gauge(
            "everspun_checkpoint_number", "number of the newest published checkpoint"
        )
        self.created_ms = self.gauge(
            "everspun_checkpoint_created_ms", "when it was cut, ms since 1970"
        )
        self.bytes = self.gauge("everspun_checkpoint_bytes", "bytes of its parts")
        self.rows = self.gauge("everspun_checkpoint_rows", "rows of its parts")
        self.deltas = self.gauge(
            "everspun_checkpoint_deltas", "deltas between it and its base; 0 = it is full"
        )
        self.barrier = self.gauge("everspun_checkpoint_barrier", "the period it reached (E3)")
        self.swept = self.counter(
            "everspun_checkpoints_swept_total", "checkpoints deleted by retention"
        )
        self.unsent = self.gauge(
            "everspun_announcements_unsent", "announcements that wait for the log"
        )
        self.evaluations = self.counter(
            "everspun_evaluations_read_total", "records of evaluations read", "outcome"
        )
        self.store_failing_s = self.gauge(
            "everspun_store_failing_s", "for how long the store of checkpoints fails, s"
        )
        self.store_calls, self.store_seconds = store_series(self)

    def store_called(self, call: str, outcome: str, seconds: float) -> None:
        self.store_calls.labels(call=call, outcome=outcome).inc()
        self.store_seconds.labels(call=call).observe(seconds)


class ArchiverMetrics(RoleMetrics):
    """Rows are rows of examples; its data time is the arrival reached by what is in files."""

    def __init__(self) -> None:
        super().__init__()
        self.files = self.counter("everspun_archive_files_total", "files written")
        self.bytes = self.counter(
            "everspun_archive_bytes_total", "bytes of records in files, before compression"
        )
        self.waiting = self.gauge("everspun_archive_waiting", "records read and not yet in a file")
        self.lag = self.gauge("everspun_archive_lag", "records of examples not read yet")
        self.repeats = self.counter(
            "everspun_archive_repeats_total", "records that extend no chain, not kept (C2)"
        )
        self.lost = self.counter(
            "everspun_archive_lost_total", "records that retention took first: an alarm"
        )
        self.store_failing_s = self.gauge(
            "everspun_archive_failing_s", "for how long the archive's store fails, s"
        )


class ReplicaMetrics(ReaderMetrics):
    """Rows are rows of requests; its data time is the newest event time that the served
    checkpoint learned."""

    def __init__(self) -> None:
        super().__init__()
        self.model_age_s = self.gauge(
            "everspun_served_model_age_s", "age of the served checkpoint, s; NaN = none"
        )
        self.data_age_s = self.gauge(
            "everspun_served_data_age_s", "age of the newest event it learned, s; NaN = none"
        )
        self.failing_s = self.gauge(
            "everspun_replica_failing_s", "for how long looks at store or topic have failed, s"
        )
        self.ready = self.gauge(
            "everspun_replica_ready", "1 while it has a model that is not too old"
        )
        self.version = self.gauge(
            "everspun_served_version", "number of the served checkpoint; -1 = none"
        )
        self.barrier = self.gauge(
            "everspun_served_barrier", "the period the served checkpoint reached (E3)"
        )
        self.held = self.gauge(
            "everspun_served_held", "1 while an operator holds serving at a checkpoint (X4)"
        )
        self.requests = self.counter(
            "everspun_replica_requests_total", "requests by answer", "path", "status"
        )
        self.seconds = self.histogram(
            "everspun_replica_request_seconds", "time to answer a prediction, s", _FAST_S
        )
        self.fallback_rows = self.counter(
            "everspun_replica_fallback_rows_total", "rows answered without a model"
        )
        self.connections = self.gauge("everspun_replica_connections", "connections open")
        self.turned_away = self.counter(
            "everspun_replica_connections_refused_total",
            "connections closed at once: too many, or no file to open",
        )
        self.late = self.counter(
            "everspun_replica_connections_late_total",
            "connections closed: silent, or sending one request, for too long",
        )
        self.shed = self.counter(
            "everspun_replica_shed_total", "predictions told 503 because too many waited"
        )
        self.waiting = self.gauge("everspun_replica_requests_waiting", "predictions that wait")
        self.swaps = self.counter("everspun_replica_swaps_total", "checkpoints taken into service")
        self.refused = self.counter(
            "everspun_replica_refused_total", "checkpoints that could not be loaded"
        )
        self.loads = self.counter(
            "everspun_replica_loads_total", "checkpoints loaded, from a base or by deltas", "how"
        )
        self.load_seconds = self.histogram(
            "everspun_replica_load_seconds", "time to load a checkpoint, s", _SLOW_S
        )
        self.errors = self.counter(
            "everspun_replica_follow_errors_total", "failed looks at store or topic", "where"
        )
        self.workers, self.workers_ended = worker_series(self)
        self.store_calls, self.store_seconds = store_series(self)

    def store_called(self, call: str, outcome: str, seconds: float) -> None:
        self.store_calls.labels(call=call, outcome=outcome).inc()
        self.store_seconds.labels(call=call).observe(seconds)

    def served_is(
        self, served: Callable[[], Served | None], failing_s: Callable[[], float]
    ) -> None:
        """Where to ask what is served, whenever somebody asks for the metrics: an age stands
        still for nobody."""
        none = Served(-1, 0, 0, NAN, NAN, ready=False)

        def asked(field: str) -> Callable[[], float]:
            return lambda: float(getattr(served() or none, field))

        self.model_age_s.set_function(asked("model_age_s"))
        self.data_age_s.set_function(asked("data_age_s"))
        self.version.set_function(asked("number"))
        self.barrier.set_function(asked("barrier"))
        self.data_time_ms.set_function(asked("data_time_ms"))
        self.ready.set_function(asked("ready"))
        self.failing_s.set_function(failing_s)


def worker_series(metrics: RoleMetrics) -> tuple[Gauge, Counter]:
    """Of the processes that answer from shared tables (X5)."""
    return (
        metrics.gauge(
            "everspun_replica_workers",
            "processes that answer from shared tables; 0 = serving.workers is 1",
        ),
        metrics.counter(
            "everspun_replica_workers_ended_total",
            "processes of the replica that ended and were begun again",
            "process",
        ),
    )


def store_series(metrics: RoleMetrics) -> tuple[Counter, Histogram]:
    """Calls to the store of checkpoints, of every role that makes them."""
    return (
        metrics.counter(
            "everspun_store_calls_total", "calls to the store, by how they ended", "call", "outcome"
        ),
        metrics.histogram(
            "everspun_store_seconds", "time of a call to the store, s", _SLOW_S, "call"
        ),
    )
