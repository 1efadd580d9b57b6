"""The labeler's process: its threads and their end (shell).

The main thread labels. `late` labels again at a later deadline, where the strategy does (docs/labels.md). `head` counts
for the fraud filter and writes heartbeats, so that neither waits for a fold or a slow label (L5). `group` does nothing
but take part in the consumer group: its client answers a rebalance only inside a poll, and short polls between other
work made one take tens of seconds. They share the set of owned partitions.
"""

import logging
import threading
import time
from collections.abc import Callable

from labeler.config import LabelerConfig
from labeler.fraud_config import FraudConfig
from labeler.head import Head
from labeler.labelling import Labelling
from labeler.metrics import LabelerMetrics
from labeler.reading import readings
from stream.config import StreamConfig
from stream.kafka import KafkaLog
from stream.log import Log
from stream.metrics import start_metrics
from stream.record import Partition

logger = logging.getLogger(__name__)

GROUP = "labelers"
#: How long to wait for an acknowledgement before looking for new records again.
IN_FLIGHT_MS = 5
GROUP_POLL_MS = 500
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
    start_metrics(run_dir, "labeler", index, metrics)
    Service(stream, labeler, fraud, KafkaLog(stream), metrics, _now_ms, f"labeler-{index}").run(stop)


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
        name: str = "",
    ):
        """`name` is this labeler's among all: the process that takes its place has the same."""
        self._labeler, self._metrics, self._now = labeler, metrics, now
        self._stream = stream
        self._labelling, *later = (Labelling(stream, labeler, log, reading) for reading in readings(stream))
        self._late = later[0] if later else None
        self._head = Head(stream, labeler, fraud, log)
        self._group = log.group_reader(stream.topic_prefix + GROUP, name)
        self._owned: frozenset[int] = frozenset()  # written by the group's thread only
        self._failure: BaseException | None = None
        self._orphan_alarm = False

    def run(self, stop: threading.Event) -> None:
        """Raises what ended a thread."""
        ending = threading.Event()
        threads = [
            threading.Thread(target=self._guard, args=(work, ending), name=work.__name__.strip("_"), daemon=True)
            for work in (self._run_head, self._run_group, *([self._run_late] if self._late else []))
        ]
        for thread in threads:
            thread.start()
        try:
            self._label_until(stop)
            self._drain()
        finally:
            ending.set()
            for thread in threads:
                thread.join(self._labeler.drain_ms / 1000)
            self._labelling.close()
            if self._late is not None:
                self._late.close()
        if self._failure is not None:
            raise self._failure

    def _label_until(self, stop: threading.Event) -> None:
        labelling, metrics_at_ms, wait_ms = self._labelling, 0, 0
        while not stop.is_set() and self._failure is None:
            now_ms = self._now()
            labelling.own(self._owned)
            moved = labelling.turn(now_ms, wait_ms)
            wait_ms = 0 if moved or labelling.in_flight else self._labeler.poll_ms
            if labelling.in_flight and not moved:
                labelling.wait(IN_FLIGHT_MS)
            if labelling.resting(now_ms):
                stop.wait(self._labeler.poll_ms / 1000)
            self._metrics.on_acknowledged(labelling.take_acknowledged(), self._late is None)
            if now_ms >= metrics_at_ms:
                self._look()
                metrics_at_ms = now_ms + METRICS_EVERY_MS

    def _drain(self) -> None:
        """What is on its way is waited for; what was not begun is the next labeler's."""
        deadline_ms = self._now() + self._labeler.drain_ms
        while not self._labelling.drain(self._now()) and self._now() < deadline_ms:
            time.sleep(IN_FLIGHT_MS / 1000)
        self._metrics.on_acknowledged(self._labelling.take_acknowledged(), self._late is None)

    def _run_late(self, ending: threading.Event) -> None:
        """The later reading, by the same rules and of the same partitions; what it had not sent is the next one's."""
        late, wait_ms = self._late, 0
        assert late is not None
        while not ending.is_set():
            now_ms = self._now()
            late.own(self._owned)
            moved = late.turn(now_ms, wait_ms)
            wait_ms = 0 if moved or late.in_flight else self._labeler.poll_ms
            if late.in_flight and not moved:
                late.wait(IN_FLIGHT_MS)
            if late.resting(now_ms):
                ending.wait(self._labeler.poll_ms / 1000)
            self._metrics.on_acknowledged(late.take_acknowledged(), True)

    def _guard(self, work: Callable[[threading.Event], None], ending: threading.Event) -> None:
        """What a thread raises ends the process: the next one folds the log."""
        try:
            work(ending)
        except BaseException as error:
            logger.exception("%s failed", work.__name__)
            self._failure = error

    def _run_head(self, ending: threading.Event) -> None:
        head, wait_ms = self._head, 0
        while not ending.is_set():
            head.own(self._owned)
            moved = head.turn(self._now(), wait_ms)
            wait_ms = 0 if moved or head.in_flight else self._labeler.poll_ms
            if head.in_flight and not moved:
                head.wait(IN_FLIGHT_MS)
            if not moved and not head.counts:
                ending.wait(self._labeler.poll_ms / 1000)
        head.close()

    def _run_group(self, ending: threading.Event) -> None:
        self._group.subscribe(self._stream.impressions, self._on_assigned, self._on_revoked)
        while not ending.is_set():
            self._group.poll(1, GROUP_POLL_MS)  # it is given partitions, and reads none of them
            ending.wait(self._labeler.poll_ms / 1000)
        self._group.close()

    def _on_assigned(self, partitions: list[Partition]) -> None:
        self._owned |= {at.partition for at in partitions}
        logger.info("owns partitions %s", sorted(self._owned))

    def _on_revoked(self, partitions: list[Partition]) -> None:
        self._owned -= {at.partition for at in partitions}
        logger.info("owns partitions %s", sorted(self._owned))

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
