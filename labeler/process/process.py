"""The labeler's process: its threads and their end (shell).

The main thread labels. `late` labels again at a later deadline, where the strategy does
(docs/labels.md). `head` counts for the fraud filter and writes heartbeats, so that neither waits
for a fold or a slow label (L5). `retract` takes back what late verdicts cover. `group` does nothing
but take part in the consumer group. Where counters or sequences are declared, `counts` adds them
up. They share the set of owned partitions.
"""

import ctypes
import logging
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from labeler.config import LabelerConfig
from labeler.counting import Head
from labeler.counts import Adding
from labeler.fraud_config import FraudConfig
from labeler.io import Wait
from labeler.join import LabelStrategy, label_strategies
from labeler.labels import Labelling
from labeler.process.consumer_group import Membership
from labeler.process.metrics import LabelerMetrics
from labeler.process.threads import (
    IDLE_MAX,
    IN_FLIGHT_MS,
    LabellingLoop,
    LabellingStep,
    ThreadGroup,
    Turns,
)
from labeler.retraction import Retracting
from stream import IdleWait, StreamConfig, start_metrics
from stream.internal_topics import BatchHeader, PassedOver
from stream.log import KafkaLog, Log, wall_clock_ms
from stream.log.rows import RocksStorage, RowStorage
from stream.registry import RegistryConfig, log_with_schemas, registry_client

logger = logging.getLogger(__name__)

GROUP = "labelers"
METRICS_EVERY_MS = 250
#: glibc: a heap a thread keeps what each of them once needed. Threads here wait for the broker, not
#: for the allocator.
_M_ARENA_MAX, ARENAS_MAX = -8, 2


def run(
    stream: StreamConfig,
    labeler: LabelerConfig,
    fraud: FraudConfig,
    run_dir: str,
    index: int,
    stop: threading.Event,
    history: Log | None = None,
    registry: RegistryConfig | None = None,
) -> None:
    """Label until told to stop, then drain; look for what late verdicts cover in `history`, or in
    the log. `registry`: where schemas that events name are found. Raises what ended the process
    otherwise."""
    _share_heaps()
    metrics = LabelerMetrics()
    start_metrics(run_dir, "labeler", index, metrics)
    client = registry_client(registry or RegistryConfig())
    if client is not None:
        metrics.watch_registry(client.away, client.ids)
    dir, log = (
        Path(run_dir) / f"labeler-{index}",
        log_with_schemas(KafkaLog(stream), stream, client),
    )
    Service(stream, labeler, fraud, log, metrics, wall_clock_ms, history, dir).run(stop)


def _share_heaps() -> None:
    """Few heaps for all threads (glibc; elsewhere nothing): a labeler's memory is then what it
    holds, and not what each of its threads once held."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_ARENA_MAX, ARENAS_MAX)


def _catalogue_dir(dir: Path, strategy: LabelStrategy, name: str) -> RocksStorage:
    """Where a reading's rows of a catalogue lie."""
    return RocksStorage(dir / f"catalogue-{name}-{strategy.kind}")


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
        history: Log | None = None,
        dir: Path | None = None,
    ):
        """The name of `dir` is this labeler's among all: the process that takes its place has the
        same, and finds there the local copy of its clicks (C4)."""
        self._labeler, self._metrics, self._now = labeler, metrics, now
        self._labelling, *later = (
            Labelling(
                stream,
                labeler,
                log,
                strategy,
                pages=self._pages(dir, strategy),
                passed_over=self._passed_over(),
                elapsed_s=time.monotonic,
            )
            for strategy in label_strategies(stream)
        )
        self._late = later[0] if later else None
        if dir is not None:
            for strategy, one in zip(
                label_strategies(stream), (self._labelling, *later), strict=True
            ):
                one.joined.catalogues.disk = partial(_catalogue_dir, dir, strategy)
                one.joined.counts.storage = RocksStorage(dir / f"counts-{strategy.kind}")
        self._head = Head(stream, labeler, fraud, log, self._passed_over(), time.monotonic)
        self._group = Membership(
            log.group_reader(stream.topic_prefix + GROUP, dir.name if dir else ""),
            stream,
            labeler.poll_ms,
        )
        self._retracting = Retracting(stream, labeler, log, history, time.monotonic)
        self._adding = (
            Adding(
                stream,
                log,
                labeler.retry_ms,
                self._passed_over(),
                RocksStorage(dir / "counts") if dir is not None else None,
                labeler.kept_bytes_max,
            )
            if stream.keeps
            else None
        )
        works = {"head": self._run_head, "group": self._run_group, "retract": self._run_retract}
        works |= {"late": self._run_late} if self._late else {}
        works |= {"counts": self._run_counts} if self._adding else {}
        self._threads = ThreadGroup(works, labeler.drain_ms)
        self._orphan_alarm = False
        self._metrics_wait = Wait()

    def _passed_over(self) -> PassedOver:
        """One for each thread."""
        return PassedOver(logger, self._metrics.on_malformed)

    def _pages(self, dir: Path | None, strategy: LabelStrategy) -> RowStorage | None:
        """Each reading has its own: they stand at different places, in different threads."""
        if dir is None or not self._labeler.clicks_copy:
            return None
        return RocksStorage(dir / f"clicks-{strategy.kind}")

    def run(self, stop: threading.Event) -> None:
        """Raises what ended a thread."""
        self._threads.start()
        try:
            self._loop("label", self._labelling).run(
                stop, self._on_labelled, lambda: self._threads.failed
            )
            self._drain()
        finally:
            self._threads.end()
            self._labelling.close()
            self._retracting.close()
            if self._late is not None:
                self._late.close()
        self._threads.reraise()

    def _loop(self, name: str, labelling: LabellingStep) -> LabellingLoop:
        watched = self._metrics.liveness.loop(name)
        return LabellingLoop(
            labelling, lambda: self._group.owned, self._now, self._labeler.poll_ms, watched
        )

    def _run_group(self, ending: threading.Event) -> None:
        self._group.run(ending, self._metrics.liveness.loop("group"))

    def _on_labelled(self, headers: list[BatchHeader]) -> None:
        self._metrics.on_acknowledged(headers, self._late is None)
        now_ms = self._now()
        if self._metrics_wait.over(now_ms):
            self._look()
            self._metrics_wait.begin(now_ms, METRICS_EVERY_MS)

    def _drain(self) -> None:
        """What is on its way is waited for; what was not begun is the next labeler's."""
        deadline_s = time.monotonic() + self._labeler.drain_ms / 1000
        while not self._labelling.drain(self._now()) and time.monotonic() < deadline_s:
            time.sleep(IN_FLIGHT_MS / 1000)
        self._metrics.on_acknowledged(self._labelling.take_acknowledged(), self._late is None)

    def _run_late(self, ending: threading.Event) -> None:
        """The later reading, by the same rules and of the same partitions; what it had not sent
        is the next one's."""
        assert self._late is not None
        heard = self._metrics.on_acknowledged
        self._loop("late", self._late).run(
            ending, lambda headers: heard(headers, True), lambda: False
        )

    def _run_retract(self, ending: threading.Event) -> None:
        def heard(headers: list[BatchHeader]) -> None:
            self._metrics.on_acknowledged(headers)
            self._metrics.look_late(self._retracting)

        self._loop("retract", self._retracting).run(ending, heard, lambda: False)

    def _run_counts(self, ending: threading.Event) -> None:
        """Adds up in the process that owns partition 0 (J2)."""
        adding = self._adding
        assert adding is not None
        watched = self._metrics.liveness.loop("counts")
        idle = IdleWait(self._labeler.poll_ms, IDLE_MAX * self._labeler.poll_ms)
        while not ending.is_set():
            watched.turn()
            adding.own(0 in self._group.owned)
            moved = adding.run_once(self._now(), idle.wait_ms)
            if not moved and adding.adder is None:
                ending.wait(self._labeler.poll_ms / 1000)
            idle.turned(moved)
        watched.rest()
        adding.close()

    def _run_head(self, ending: threading.Event) -> None:
        head, wait_ms, turns = self._head, 0, Turns(self._labeler.poll_ms)
        # Heartbeats are due by time: a longer wait would hold up every watermark.
        idle = IdleWait(self._labeler.poll_ms, 2 * self._labeler.poll_ms)
        watched = self._metrics.liveness.loop("head")
        while not ending.is_set():
            turns.begin()
            watched.turn()
            head.own(self._group.owned)
            moved = head.run_once(self._now(), wait_ms)
            idle.turned(moved or head.in_flight)
            wait_ms = idle.wait_ms if idle.idle else 0
            if head.in_flight:
                head.wait(turns.wait_ms(moved))
            else:
                ending.wait(turns.rest_s)
        watched.rest()
        head.close()

    def _look(self) -> None:
        """Gauges, and the alarm of T5: clicks that find no impression often mean another
        partitioner."""
        limits, metrics = self._labeler, self._metrics
        wrong = (
            metrics.clicks["read"] >= limits.orphan_clicks_min
            and metrics.orphan_share > limits.orphan_share_max
        )
        if wrong and not self._orphan_alarm:
            logger.error(
                "%.0f%% of clicks find no impression (limit %.0f%%): are clicks keyed by their "
                "impression's session?",
                100 * metrics.orphan_share,
                100 * limits.orphan_share_max,
            )
        self._orphan_alarm = wrong
        metrics.look(self._labelling, self._head, wrong, self._late)
        if self._adding is not None:
            metrics.look_kept(self._adding.adder)
