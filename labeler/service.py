"""The labeler's process: a group member, two threads, and the end of both (shell).

The main thread labels. A second one counts for the fraud filter and writes heartbeats, so that neither waits for a
fold or a slow label (L5). They share nothing but the set of owned partitions.
"""

import logging
import threading
import time
from collections.abc import Callable

from labeler.config import LabelerConfig
from labeler.fraud_config import FraudConfig
from labeler.head import Head
from labeler.labelling import Labelling
from labeler.metrics import LabelerMetrics, serve_metrics, write_role_file
from stream.config import StreamConfig
from stream.kafka import KafkaLog
from stream.log import Log
from stream.record import Partition

logger = logging.getLogger(__name__)

GROUP = "labelers"
#: How long a turn waits for records while a batch is on its way.
IN_FLIGHT_MS = 2
GROUP_EVERY_MS = 100
METRICS_EVERY_MS = 250


def run(
    stream: StreamConfig,
    labeler: LabelerConfig,
    fraud: FraudConfig,
    run_dir: str,
    index: int,
    stop: threading.Event,
) -> None:
    """Label until told to stop, then drain. Raises what ended the process otherwise."""
    metrics = LabelerMetrics()
    port = serve_metrics(metrics)
    write_role_file(run_dir, index, port)
    Service(stream, labeler, fraud, KafkaLog(stream), metrics, _now_ms).run(stop)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Service:
    """One labeler over any log."""

    def __init__(
        self,
        stream: StreamConfig,
        labeler: LabelerConfig,
        fraud: FraudConfig,
        log: Log,
        metrics: LabelerMetrics,
        now: Callable[[], int],
    ):
        self._labeler, self._metrics, self._now = labeler, metrics, now
        self._stream = stream
        self._labelling = Labelling(stream, labeler, log)
        self._head = Head(stream, labeler, fraud, log)
        self._group = log.group_reader(stream.topic_prefix + GROUP)
        self._owned: frozenset[int] = frozenset()
        self._head_failure: BaseException | None = None
        self._orphan_alarm = False

    def run(self, stop: threading.Event) -> None:
        self._group.subscribe(self._stream.impressions, self._on_assigned, self._on_revoked)
        stop_head = threading.Event()
        thread = threading.Thread(target=self._run_head, args=(stop_head,), name="head", daemon=True)
        thread.start()
        try:
            self._label_until(stop)
            self._drain()
        finally:
            stop_head.set()
            thread.join(self._labeler.drain_ms / 1000)
            self._labelling.close()
            self._group.close()
        if self._head_failure is not None:
            raise self._head_failure

    def _label_until(self, stop: threading.Event) -> None:
        labelling = self._labelling
        group_at_ms = metrics_at_ms = 0
        wait_ms = 0
        while not stop.is_set() and self._head_failure is None:
            now_ms = self._now()
            if now_ms >= group_at_ms or not self._owned:
                self._group.poll(1, 0 if self._owned else self._labeler.poll_ms)
                group_at_ms = now_ms + GROUP_EVERY_MS
            moved = labelling.turn(now_ms, wait_ms)
            wait_ms = 0 if moved else IN_FLIGHT_MS if labelling.in_flight else self._labeler.poll_ms
            if labelling.resting(now_ms):
                stop.wait(self._labeler.poll_ms / 1000)
            self._metrics.on_acknowledged(labelling.take_acknowledged())
            if now_ms >= metrics_at_ms:
                self._look()
                metrics_at_ms = now_ms + METRICS_EVERY_MS

    def _drain(self) -> None:
        """What is on its way is waited for; what was not begun is the next labeler's."""
        deadline_ms = self._now() + self._labeler.drain_ms
        while not self._labelling.drain(self._now()) and self._now() < deadline_ms:
            time.sleep(IN_FLIGHT_MS / 1000)
        self._metrics.on_acknowledged(self._labelling.take_acknowledged())

    def _run_head(self, stop: threading.Event) -> None:
        wait_ms = 0
        try:
            while not stop.is_set():
                self._head.own(self._owned)
                moved = self._head.turn(self._now(), wait_ms)
                wait_ms = 0 if moved else IN_FLIGHT_MS if self._head.in_flight else self._labeler.poll_ms
                if not moved and not self._head.counts:
                    stop.wait(self._labeler.poll_ms / 1000)
            self._head.close()
        except BaseException as error:
            logger.exception("the counting thread failed")
            self._head_failure = error

    def _on_assigned(self, partitions: list[Partition]) -> None:
        self._own(self._owned | {at.partition for at in partitions})

    def _on_revoked(self, partitions: list[Partition]) -> None:
        self._own(self._owned - {at.partition for at in partitions})

    def _own(self, owned: frozenset[int]) -> None:
        logger.info("owns partitions %s", sorted(owned))
        self._owned = owned
        self._labelling.own(owned)

    def _look(self) -> None:
        """Gauges, and the alarm of T5: clicks that find no impression often mean another partitioner."""
        limits, metrics = self._labeler, self._metrics
        wrong = metrics.clicks["read"] >= limits.orphan_clicks_min and metrics.orphan_share > limits.orphan_share_max
        if wrong and not self._orphan_alarm:
            logger.error(
                "%.0f%% of clicks find no impression (limit %.0f%%): are clicks keyed by their impression's session?",
                100 * metrics.orphan_share,
                100 * limits.orphan_share_max,
            )
        self._orphan_alarm = wrong
        metrics.look(self._labelling, self._head, wrong, limits.pending_clicks_bytes_max)
