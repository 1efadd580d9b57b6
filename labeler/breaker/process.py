"""The breaker's process: an early join of its own partitions, and a judge over all of them (shell).

Three threads, as in the labeler: the main one joins and tallies (`Labelling` with another core),
`judge` judges while this process owns partition 0 of the group, `group` takes part in the group.
Several processes share the join.
"""

import functools
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from labeler.breaker.early_join import (
    TallyEmitter,
    catalogue_stream,
    tally_settings,
    tally_stream,
)
from labeler.breaker.metrics import BreakerMetrics
from labeler.breaker.runner import Judging
from labeler.breaker_config import BreakerConfig, check_breaker
from labeler.catalogues import CatalogueFeed
from labeler.config import LabelerConfig
from labeler.io import Wait
from labeler.labels import Labelling
from labeler.process import IDLE_MAX, LabellingLoop, Membership, ThreadGroup
from stream import IdleWait, StreamConfig, start_metrics
from stream.internal_topics import BatchHeader, PassedOver
from stream.log import KafkaLog, Log, wall_clock_ms
from stream.log.rows import RocksStorage
from stream.registry import RegistryConfig, log_with_schemas, registry_client

logger = logging.getLogger(__name__)

GROUP = "breakers"
METRICS_EVERY_MS = 250


def run(
    stream: StreamConfig,
    labeler: LabelerConfig,
    breaker: BreakerConfig,
    run_dir: str,
    index: int,
    stop: threading.Event,
    registry: RegistryConfig | None = None,
) -> None:
    """Tally and judge until told to stop. `registry`: where schemas that events name are found.
    Raises ValueError for a configuration that it cannot
    serve."""
    check_breaker(stream, breaker)
    metrics = BreakerMetrics()
    start_metrics(run_dir, "breaker", index, metrics)
    client = registry_client(registry or RegistryConfig())
    log = log_with_schemas(KafkaLog(stream), stream, client)
    if client is not None:
        metrics.watch_registry(client.away, client.ids)
    name = f"breaker-{index}"
    service = BreakerService(stream, labeler, breaker, log, metrics, wall_clock_ms, name)
    dir = Path(run_dir) / name
    service.catalogues.disk = lambda catalogue: RocksStorage(dir / f"catalogue-{catalogue}")
    service.run(stop)


def early_join(
    stream: StreamConfig,
    labeler: LabelerConfig,
    breaker: BreakerConfig,
    log: Log,
    passed_over: PassedOver | None = None,
) -> Labelling:
    """What tallies: the labeler's own core with a window of minutes, in one thread."""
    sliced = tally_stream(stream, breaker)
    emitter, settings = TallyEmitter(sliced, breaker), tally_settings(labeler)
    joining = Labelling(sliced, settings, log, emitter=emitter, passed_over=passed_over)
    rows = catalogue_stream(stream, sliced)
    joining.joined.catalogues = CatalogueFeed(rows, labeler.catalogue_bytes_max)
    return joining


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
        sliced = tally_stream(stream, breaker)
        passed_over = functools.partial(
            PassedOver, logger, metrics.on_malformed
        )  # one for each thread
        self._poll_ms, self._metrics, self._now = labeler.poll_ms, metrics, now
        self._labelling = early_join(stream, labeler, breaker, log, passed_over())
        #: what slices of attributes are read from
        self.catalogues = self._labelling.joined.catalogues
        self._judging = Judging(sliced, breaker, log, labeler.retry_ms, passed_over())
        self._group = Membership(
            log.group_reader(stream.topic_prefix + GROUP, name), sliced, labeler.poll_ms
        )
        self._threads = ThreadGroup(
            {"judge": self._run_judge, "group": self._run_group}, labeler.drain_ms
        )
        self._metrics_wait = Wait()

    def run(self, stop: threading.Event) -> None:
        """Raises what ended a thread."""
        watched = self._metrics.liveness.loop("tally")
        loop = LabellingLoop(
            self._labelling, lambda: self._group.owned, self._now, self._poll_ms, watched
        )
        self._threads.start()
        try:
            loop.run(stop, self._on_tallied, lambda: self._threads.failed)
        finally:
            self._threads.end()
            self._labelling.close()
        self._threads.reraise()

    def _on_tallied(self, headers: list[BatchHeader]) -> None:
        self._metrics.on_tallied(headers)
        now_ms = self._now()
        if self._metrics_wait.over(now_ms):
            self._metrics.look(self._labelling, self._judging)
            self._metrics_wait.begin(now_ms, METRICS_EVERY_MS)

    def _run_group(self, ending: threading.Event) -> None:
        self._group.run(ending, self._metrics.liveness.loop("group"))

    def _run_judge(self, ending: threading.Event) -> None:
        judging, watched = self._judging, self._metrics.liveness.loop("judge")
        idle = IdleWait(self._poll_ms, IDLE_MAX * self._poll_ms)
        while not ending.is_set():
            watched.turn()
            judging.own(0 in self._group.owned)
            moved = judging.run_once(self._now(), idle.wait_ms)
            if not moved and judging.breaker is None:
                ending.wait(self._poll_ms / 1000)
            idle.turned(moved)
        watched.rest()
        judging.close()
