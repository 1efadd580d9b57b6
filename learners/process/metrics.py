"""What a learner's process exports to Prometheus (shell)."""

from typing import Any

from learners.models import Encoded
from learners.pacing import Pacer
from learners.process.overlap_meter import Overlap
from learners.training import CAUSES, BatchGradients
from stream import ReaderMetrics
from stream.internal_topics import taken

UPDATES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class LearnerMetrics(ReaderMetrics):
    """Updated by the learner's main thread. Rows in are rows of examples read, rows out those
    acknowledged by every shard; its data time is the arrival reached by the batches that ended."""

    def __init__(self) -> None:
        super().__init__()
        self._make_batches()
        self._make_scores()
        self._make_faults()
        self._make_pace()
        self.waits_for("idle")

    def _make_batches(self) -> None:
        """Of batches, by step and end."""
        self.batches = self.counter(
            "everspun_learner_batches_total", "batches by how they ended", "how"
        )
        self.staleness = self.histogram(
            "everspun_learner_staleness_updates",
            "updates a shard applied between read and write",
            UPDATES,
        )
        self.seconds = self.histogram(
            "everspun_learner_seconds", "time by step, seconds", SECONDS, "step"
        )
        self.overlap = self.gauge(
            "everspun_learner_overlap_seconds",
            "time that calls ran beside a computation, since start",
            "step",
        )

    def _make_scores(self) -> None:
        """Of rows scored before they were trained on."""
        self.log_loss = self.counter(
            "everspun_learner_log_loss_total", "progressive log loss over scored rows"
        )
        self.scored = self.counter(
            "everspun_learner_scored_rows_total", "rows scored before they were trained on"
        )
        self.predicted = self.counter(
            "everspun_learner_predictions_total", "sum of progressive predictions"
        )
        self.clicked = self.counter("everspun_learner_labels_total", "sum of labels of scored rows")

    def _make_faults(self) -> None:
        """Of rows that could not be used, or were made good."""
        self.unusable = self.counter(
            "everspun_learner_unusable_batches_total",
            "pushed empty for their content (S4), by why",
            "cause",
        )
        self.unusable_rows = self.counter(
            "everspun_learner_unusable_rows_total", "rows of those batches", "cause"
        )
        for cause in CAUSES:
            self.unusable.labels(cause)
            self.unusable_rows.labels(cause)
        self.clipped_values = self.counter(
            "everspun_learner_clipped_values_total",
            "values beyond the bounds of their feature, clipped",
            "feature",
        )
        self.clipped_rows = self.counter(
            "everspun_learner_clipped_rows_total",
            "rows that weigh less, since their numbers reach too far",
        )
        self.filled = self.counter(
            "everspun_learner_filled_rows_total",
            "rows of records from before a feature was declared",
            "feature",
        )
        self.unreadable = self.counter(
            "everspun_learner_unreadable_records_total", "records without readable headers"
        )
        self.unsent = self.counter(
            "everspun_learner_evaluations_unsent_total", "evaluations lost to the broker"
        )
        self.archive_failing_s = self.gauge(
            "everspun_archive_failing_s", "for how long the archive's store fails, s"
        )

    def _make_pace(self) -> None:
        """Of the pace, and of what is owned."""
        self.counts = self.gauge(
            "everspun_learner_events", "what the pace counted since start", "what"
        )
        self.partitions = self.gauge("everspun_learner_partitions", "partitions of examples owned")
        self.outstanding = self.gauge(
            "everspun_learner_outstanding", "batches between start and end"
        )
        self.queued = self.gauge("everspun_learner_queued_batches", "batches read and not started")
        self.late_share = self.gauge(
            "everspun_learner_late_share", "share of clicks that came after the first label"
        )
        self.taken_back = self.counter(
            "everspun_learner_taken_back_rows_total", "rows of retractions learned from"
        )
        self.rewritten = self.counter(
            "everspun_learner_relearned_rows_total", "parameter rows learned again, written"
        )

    def look(self, pacer: Pacer, overlap: Overlap) -> None:
        """Take the gauges from the core as it stands."""
        for call, seconds in overlap.seconds.items():
            self.overlap.labels(call).set(seconds)
        for what, count in pacer.counts.items():
            self.counts.labels(what).set(count)
        self.partitions.set(len(pacer.positions))
        self.outstanding.set(len(pacer.flights))
        self.queued.set(sum(len(p.queue) for p in pacer.positions.values() if p is not None))
        self.waits_for(pacer.waiting)

    def computed(self, computed: BatchGradients, encoded: Encoded) -> None:
        """What was made good in the rows of a batch."""
        self.clipped_rows.inc(computed.clipped_rows)
        for feature, count in encoded.clipped.items():
            self.clipped_values.labels(feature).inc(count)
        for feature, count in encoded.filled.items():
            self.filled.labels(feature).inc(count)

    def empty(self, computed: BatchGradients, rows: int) -> None:
        """A batch that was pushed empty, with its reason; `rows`: of its record, where they
        could not be read."""
        self.unusable.labels(computed.cause).inc()
        self.unusable_rows.labels(computed.cause).inc(computed.row_count or rows)

    def took_back(self, computed: BatchGradients) -> None:
        """What a retraction became (S8)."""
        self.taken_back.inc(0 if computed.rows is None else int(taken(computed.rows).sum()))
        self.rewritten.inc(sum(len(keys) for keys in computed.keys.values()))

    def evaluated(self, evaluation: dict[str, Any]) -> None:
        self.scored.inc(evaluation["rows"])
        # What a late click takes back may be more than it adds, where its answer was above one
        # half: a counter cannot.
        self.log_loss.inc(max(0.0, evaluation["log_loss_sum"]))
        self.predicted.inc(evaluation["prediction_sum"])
        self.clicked.inc(evaluation["label_sum"])
