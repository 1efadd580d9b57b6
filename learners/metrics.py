"""What a learner's process exports to Prometheus, and the file that says where it is (shell)."""

import json
import os
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from learners.pacing import Pacer

WAITS = ("window", "verdicts", "staleness", "cut", "breaker", "idle", "none")
UPDATES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class LearnerMetrics:
    """Updated by the learner's main thread; scraped over loopback."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        self.records_in = Counter("everspun_records_in", "rows of examples read", registry=r)
        self.records_out = Counter("everspun_records_out", "rows acknowledged by every shard", registry=r)
        self.data_time_ms = Gauge("everspun_data_time_ms", "arrival reached by the batches that ended", registry=r)
        self.waiting = Gauge("everspun_waiting", "1 for what this learner waits for", ["reason"], registry=r)
        self.batches = Counter("everspun_learner_batches", "batches by how they ended", ["how"], registry=r)
        self.staleness = Histogram(
            "everspun_learner_staleness_updates",
            "updates a shard applied between this learner's read and its write",
            buckets=UPDATES,
            registry=r,
        )
        self.seconds = Histogram(
            "everspun_learner_seconds", "time by step, seconds", ["step"], buckets=SECONDS, registry=r
        )
        self.log_loss = Counter("everspun_learner_log_loss", "sum of progressive log loss over scored rows", registry=r)
        self.scored = Counter("everspun_learner_scored_rows", "rows scored before they were trained on", registry=r)
        self.predicted = Counter("everspun_learner_predictions", "sum of progressive predictions", registry=r)
        self.clicked = Counter("everspun_learner_labels", "sum of labels of scored rows", registry=r)
        self.unusable = Counter("everspun_learner_unusable_batches", "pushed empty for their content (S4)", registry=r)
        self.unreadable = Counter("everspun_learner_unreadable_records", "records without readable headers", registry=r)
        self.unsent = Counter("everspun_learner_evaluations_unsent", "evaluations lost to the broker", registry=r)
        self.counts = Gauge("everspun_learner_events", "what the pace counted since start", ["what"], registry=r)
        self.partitions = Gauge("everspun_learner_partitions", "partitions of examples owned", registry=r)
        self.outstanding = Gauge("everspun_learner_outstanding", "batches between start and end", registry=r)
        self.queued = Gauge("everspun_learner_queued_batches", "batches read and not started", registry=r)
        self._waits("idle")

    def look(self, pacer: Pacer) -> None:
        """Take the gauges from the core as it stands."""
        for what, count in pacer.counts.items():
            self.counts.labels(what).set(count)
        self.partitions.set(len(pacer.positions))
        self.outstanding.set(len(pacer.flights))
        self.queued.set(sum(len(p.queue) for p in pacer.positions.values() if p is not None))
        self._waits(pacer.waiting)

    def evaluated(self, evaluation: dict[str, Any]) -> None:
        self.scored.inc(evaluation["rows"])
        self.log_loss.inc(evaluation["log_loss_sum"])
        self.predicted.inc(evaluation["prediction_sum"])
        self.clicked.inc(evaluation["label_sum"])

    def _waits(self, reason: str) -> None:
        for known in WAITS:
            self.waiting.labels(known).set(known == reason)

    def serve(self, host: str = "127.0.0.1") -> int:
        """Serve `/metrics` from a thread of its own. Returns the port."""
        server, _ = start_http_server(0, host, self.registry)
        return int(server.server_port)


def write_role_file(run_dir: str, index: int, metrics_port: int) -> Path:
    """`<run_dir>/roles/learner-<index>.json`: pid and port of this process, written whole."""
    path = Path(run_dir) / "roles" / f"learner-{index}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps({"pid": os.getpid(), "metrics_port": metrics_port}))
    draft.rename(path)
    return path
