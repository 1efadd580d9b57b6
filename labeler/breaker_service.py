"""The breaker's process: an early join of its own partitions, and a judge over all of them (shell).

Three threads, as in the labeler: the main one joins and tallies (`Labelling` with another core), `judge` judges while
this process owns partition 0 of the group, `group` takes part in the group. Several processes share the join.
"""

import logging
import threading
import time
from collections.abc import Callable

from labeler.breaker_config import BreakerConfig, check
from labeler.breaker_metrics import BreakerMetrics
from labeler.config import LabelerConfig
from labeler.judging import Judging
from labeler.labelling import Labelling
from labeler.tally import tally_labeler, tally_settings, tally_stream
from stream.config import StreamConfig
from stream.kafka import KafkaLog
from stream.log import Log
from stream.metrics import start_metrics
from stream.record import Partition

logger = logging.getLogger(__name__)

GROUP = "breakers"
#: How long to wait for an acknowledgement before looking for new records again.
IN_FLIGHT_MS = 5
GROUP_POLL_MS = 500
METRICS_EVERY_MS = 250


def run(
    stream: StreamConfig,
    labeler: LabelerConfig,
    breaker: BreakerConfig,
    run_dir: str,
    index: int,
    stop: threading.Event,
) -> None:
    """Tally and judge until told to stop. Raises ValueError for a configuration that it cannot serve."""
    check(stream, breaker)
    metrics = BreakerMetrics()
    start_metrics(run_dir, "breaker", index, metrics)
    BreakerService(stream, labeler, breaker, KafkaLog(stream), metrics, _now_ms, f"breaker-{index}").run(stop)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class BreakerService:
    """One breaker over any log."""

    def __init__(
        self,
        stream: StreamConfig,
        labeler: LabelerConfig,
        breaker: BreakerConfig,
        log: Log,
        metrics: BreakerMetrics,
        now: Callable[[], int],
        name: str = "",
    ):
        self._stream = tally_stream(stream, breaker)
        self._poll_ms, self._drain_ms = labeler.poll_ms, labeler.drain_ms
        self._metrics, self._now = metrics, now
        self._labelling = Labelling(self._stream, tally_settings(labeler), log, core=tally_labeler(breaker))
        self._judging = Judging(self._stream, breaker, log, labeler.retry_ms)
        self._group = log.group_reader(stream.topic_prefix + GROUP, name)
        self._owned: frozenset[int] = frozenset()  # written by the group's thread only
        self._failure: BaseException | None = None

    def run(self, stop: threading.Event) -> None:
        """Raises what ended a thread."""
        ending = threading.Event()
        threads = [
            threading.Thread(target=self._guard, args=(work, ending), name=work.__name__.strip("_"), daemon=True)
            for work in (self._run_judge, self._run_group)
        ]
        for thread in threads:
            thread.start()
        try:
            self._tally_until(stop)
        finally:
            ending.set()
            for thread in threads:
                thread.join(self._drain_ms / 1000)
            self._labelling.close()
        if self._failure is not None:
            raise self._failure

    def _tally_until(self, stop: threading.Event) -> None:
        labelling, metrics_at_ms, wait_ms = self._labelling, 0, 0
        while not stop.is_set() and self._failure is None:
            now_ms = self._now()
            labelling.own(self._owned)
            moved = labelling.turn(now_ms, wait_ms)
            wait_ms = 0 if moved or labelling.in_flight else self._poll_ms
            if labelling.in_flight and not moved:
                labelling.wait(IN_FLIGHT_MS)
            if labelling.resting(now_ms):
                stop.wait(self._poll_ms / 1000)
            self._metrics.on_tallied(labelling.take_acknowledged())
            if now_ms >= metrics_at_ms:
                self._metrics.look(labelling, self._judging)
                metrics_at_ms = now_ms + METRICS_EVERY_MS

    def _guard(self, work: Callable[[threading.Event], None], ending: threading.Event) -> None:
        """What a thread raises ends the process: the next one reads back what the log holds."""
        try:
            work(ending)
        except BaseException as error:
            logger.exception("%s failed", work.__name__)
            self._failure = error

    def _run_judge(self, ending: threading.Event) -> None:
        judging = self._judging
        while not ending.is_set():
            judging.own(0 in self._owned)
            if not judging.turn(self._now(), self._poll_ms) and judging.breaker is None:
                ending.wait(self._poll_ms / 1000)
        judging.close()

    def _run_group(self, ending: threading.Event) -> None:
        self._group.subscribe(self._stream.impressions, self._on_assigned, self._on_revoked)
        while not ending.is_set():
            self._group.poll(1, GROUP_POLL_MS)  # it is given partitions, and reads none of them
            ending.wait(self._poll_ms / 1000)
        self._group.close()

    def _on_assigned(self, partitions: list[Partition]) -> None:
        self._owned |= {at.partition for at in partitions}
        logger.info("owns partitions %s", sorted(self._owned))

    def _on_revoked(self, partitions: list[Partition]) -> None:
        self._owned -= {at.partition for at in partitions}
        logger.info("owns partitions %s", sorted(self._owned))
