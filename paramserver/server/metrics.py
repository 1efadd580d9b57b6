"""What a shard process exports to Prometheus. Names, types and units: docs/metrics.md.

Counters are set from the cores' own counts where there are some, so that core and metric cannot
differ.
"""

from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from paramserver.clocks import Clocks
from paramserver.messages import Outcome, PullReply, PushReply, PushRequest, StartOutcome
from stream.monitoring import WatchedLoops

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
UPDATES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)
WAITING = ("cut", "idle", "none")


class ModelSample(NamedTuple):
    """What is measured of a model now and then."""

    rows: int
    rows_bytes: int
    dropped: Mapping[str, int]  # gradients, by why their keys got no row
    beyond_history: int
    reseeded: int


class Metrics:
    """The series of one process, in a registry of its own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        r = self.registry
        self._of_role(r)
        self._of_calls(r)
        self._of_state(r)
        self._of_maps(r)
        self._of_tables(r)
        self._of_parts(r)
        self._of_clocks(r)
        self._data_time_ms = 0
        self._pushes = self._pushes_sampled = 0
        self.waits("idle")

    def _of_role(self, r: CollectorRegistry) -> None:
        """What every role has."""
        self.liveness = WatchedLoops(r)
        self.records_in = Counter(
            "everspun_records_in", "rows of examples in the pushes received", registry=r
        )
        self.records_out = Counter("everspun_records_out", "rows of examples applied", registry=r)
        self.data_time_ms = Gauge(
            "everspun_data_time_ms", "largest event time applied, ms since 1970", registry=r
        )
        self.waiting = Gauge(
            "everspun_waiting",
            "1 for what this process waits for at present",
            ["reason"],
            registry=r,
        )

    def _of_calls(self, r: CollectorRegistry) -> None:
        """Of calls, and what they carry."""
        self.pushes = Counter(
            "everspun_pushes", "pushes, by what became of them", ["outcome"], registry=r
        )
        self.pulls = Counter(
            "everspun_pulls", "pulls, by what became of them", ["outcome"], registry=r
        )
        self.seconds = Histogram(
            "everspun_call_seconds",
            "time in a handler, lock included",
            ["method"],
            buckets=SECONDS,
            registry=r,
        )
        self.staleness = Histogram(
            "everspun_staleness_updates",
            "updates applied between a batch's read and its write",
            buckets=UPDATES,
            registry=r,
        )
        self.rows = Counter(
            "everspun_rows", "parameter rows pulled or pushed", ["method"], registry=r
        )
        self.bytes = Counter(
            "everspun_bytes", "bytes of keys and rows, in both directions", ["method"], registry=r
        )
        self.key_lists = Counter(
            "everspun_key_lists",
            "lists of keys: sent, named by digest and known, or unknown",
            ["how"],
            registry=r,
        )
        self.turned_away = Counter(
            "everspun_turned_away",
            "calls told to come again: no thread or no room",
            ["method"],
            registry=r,
        )

    def _of_state(self, r: CollectorRegistry) -> None:
        """Of what this process keeps, and of its faults."""
        self.state_stored = Gauge(
            "everspun_state_stored",
            "1 while the store of checkpoints has what this shard must find again",
            registry=r,
        )
        self.state_stored.set(1)
        self.faults = Counter(
            "everspun_handler_faults", "calls that ended in an unexpected error", registry=r
        )

    def _of_parts(self, r: CollectorRegistry) -> None:
        """Of parts of pushes, and of cuts."""
        self.staged_bytes = Gauge(
            "everspun_staged_bytes", "parts of unfinished pushes kept, bytes", registry=r
        )
        self.part_seconds = Histogram(
            "everspun_part_write_seconds", "time to write a part of a cut", registry=r
        )
        self.part_bytes = Counter(
            "everspun_part_written_bytes", "bytes of parts written", registry=r
        )
        self.parts_hanging = Gauge(
            "everspun_parts_hanging", "parts that the store has not taken in time", registry=r
        )

    def _of_clocks(self, r: CollectorRegistry) -> None:
        """Of the clock holder's learners and bounds."""
        self.starts = Gauge(
            "everspun_starts",
            "starts asked of this clock holder, by answer",
            ["outcome"],
            registry=r,
        )
        self.learners = Gauge(
            "everspun_learners", "learners by state", ["model", "state"], registry=r
        )
        self.clock = Gauge("everspun_clock", "clocks of a model", ["model", "which"], registry=r)
        self.bound = Gauge(
            "everspun_staleness_bound",
            "the bound s in force; -1 = unbounded",
            ["model"],
            registry=r,
        )
        self.paused = Gauge(
            "everspun_training_paused", "1 while an operator pauses training", ["model"], registry=r
        )
        self.concurrency = Gauge(
            "everspun_concurrency_bound", "batches under way at once that are allowed; 0 = no "
"limit", ["model"],
            registry=r,
        )  # fmt: skip
        self.governed = Gauge(
            "everspun_governor_lease_left_ms",
            "until the governor's lease runs out (K7); 0 = none",
            ["model"],
            registry=r,
        )
        self.beyond_history = Gauge(
            "everspun_compensated_in_part", "pushes that read before the updates that "
"compensation keeps", ["model"],
            registry=r,
        )  # fmt: skip
        self.expelled = Gauge(
            "everspun_learners_expelled", "learners whose lease ran out in this era", registry=r
        )
        self.unconfirmed = Gauge(
            "everspun_shards_unconfirmed", "shards without the present allow list", registry=r
        )

    def _of_tables(self, r: CollectorRegistry) -> None:
        """Of the rows of a model."""
        self.table_rows = Gauge(
            "everspun_table_rows", "rows in all tables of a model", ["model"], registry=r
        )
        self.rows_bytes = Gauge(
            "everspun_table_rows_bytes", "what these rows take, bytes", ["model"], registry=r
        )
        self.dropped = Gauge(
            "everspun_gradients_dropped",
            "gradients of keys that got no row",
            ["model", "reason"],
            registry=r,
        )
        self.reseeded = Gauge(
            "everspun_index_reseeded",
            "times an index was made anew, for keys that crowd together",
            ["model"],
            registry=r,
        )

    def _of_maps(self, r: CollectorRegistry) -> None:
        """Of the slot map, and the incarnation that took it (S6)."""
        self.incarnation = Gauge("everspun_incarnation", "incarnation of this shard", registry=r)
        self.map_epoch = Gauge(
            "everspun_map_epoch", "epoch of the slot map in force on this shard", registry=r
        )
        self.map_seconds = Histogram(
            "everspun_map_take_seconds",
            "time to take a newer slot map from the head cut",
            registry=r,
        )
        self.ahead_seconds = Histogram(
            "everspun_map_ahead_seconds",
            "time to read ahead, for a map to come, what a cut changed",
            registry=r,
        )
        self.maps_failed = Counter(
            "everspun_map_take_faults",
            "attempts to read or take a newer map that failed",
            registry=r,
        )
        self.shards = Gauge(
            "everspun_shards",
            "shards of the map in force, and processes that are to run",
            ["which"],
            registry=r,
        )

    def pulled(self, reply: PullReply, nbytes: int, seconds: float) -> None:
        """`nbytes`: of keys and rows that travelled, in both directions."""
        self.pulls.labels(reply.outcome.value).inc()
        self.seconds.labels("pull").observe(seconds)
        self.rows.labels("pull").inc(sum(len(rows) for rows in reply.rows.values()))
        self.bytes.labels("pull").inc(nbytes)

    def pushed(self, request: PushRequest, reply: PushReply, nbytes: int, seconds: float) -> None:
        self._pushes += 1
        self.pushes.labels(reply.outcome.value).inc()
        self.seconds.labels("push").observe(seconds)
        self.records_in.inc(request.rows)
        self.rows.labels("push").inc(sum(len(keys) for keys in request.keys.values()))
        self.bytes.labels("push").inc(nbytes)
        if reply.outcome in (Outcome.APPLIED, Outcome.PARTLY_APPLIED):
            self.records_out.inc(request.rows)
            self._data_time_ms = max(self._data_time_ms, request.event_time_max_ms)
            self.data_time_ms.set(self._data_time_ms)
            if request.rows:  # a range without rows was read from nothing
                self.staleness.observe(reply.staleness)

    def sample(self, samples: Mapping[str, ModelSample]) -> None:
        """What is measured now and then: by model, and whether pushes came since the last time."""
        for model, sample in samples.items():
            self.table_rows.labels(model).set(sample.rows)
            self.rows_bytes.labels(model).set(sample.rows_bytes)
            for reason, count in sample.dropped.items():
                self.dropped.labels(model, reason).set(count)
            self.beyond_history.labels(model).set(sample.beyond_history)
            self.reseeded.labels(model).set(sample.reseeded)
        self.waits("idle" if self._pushes == self._pushes_sampled else "none")
        self._pushes_sampled = self._pushes

    def clocks(self, clocks: Clocks, now_ms: int, needed: int) -> None:
        """Take over the counts of the clock core. `needed`: shard processes that are to run."""
        self.shards.labels("map").set(clocks.shards)
        self.shards.labels("needed").set(needed)
        for outcome in StartOutcome:
            self.starts.labels(outcome.value).set(clocks.counts[outcome.value])
        self.expelled.set(clocks.counts["expelled"])
        self.unconfirmed.set(len(clocks.unconfirmed()))
        for name, model in clocks.models.items():
            members = list(model.members.values())
            fenced = sum(m.fenced_at is not None for m in members)
            parked = sum(m.fenced_at is None and m.parked for m in members)
            for state, count in (
                ("active", len(members) - fenced - parked),
                ("parked", parked),
                ("fenced", fenced),
            ):
                self.learners.labels(name, state).set(count)
            self.clock.labels(name, "minimum").set(model.minimum())
            self.clock.labels(name, "highest").set(model.highest)
            bounds = model.bounds(now_ms)
            self.bound.labels(name).set(bounds.in_force.staleness)
            self.paused.labels(name).set(model.paused)
            self.concurrency.labels(name).set(bounds.in_force.concurrency)
            self.governed.labels(name).set(bounds.left_ms)
            if model.holding(now_ms) is not None:
                self.waits("cut")

    def waits(self, reason: str) -> None:
        for other in WAITING:
            self.waiting.labels(other).set(other == reason)
