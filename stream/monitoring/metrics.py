"""What every role exports to Prometheus, and the file that says where it does (shell)."""

import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stream.monitoring.liveness import Liveness, Loop
from stream.monitoring.metrics_server import serve
from stream.monitoring.thread_loop import ThreadLoop
from stream.pauses import Backoff

_log = logging.getLogger(__name__)
#: Between two attempts at a role file that cannot be written, the first and the longest, ms.
_RETRY_MS = (500, 10_000)

#: Characters of a reason that stand in its series.
REASON_CHARS_MAX = 300
#: What a role may wait for; exactly one is 1 at a time.
WAITS = (
    *("window", "verdicts", "counts", "catalogue", "staleness", "cut", "paused", "breaker"),
    *("idle", "none"),
)


class WatchedLoops(Liveness):
    """The loops of this process, and their series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(time.monotonic)
        what = "since this loop of the process last turned; 0 = it waits for work, s"
        self._silent_s = Gauge("everspun_loop_silent_s", what, ["loop"], registry=registry)

    def loop(self, name: str) -> Loop:
        loop = super().loop(name)
        self._silent_s.labels(loop=name).set_function(lambda: loop.silent_s)
        return loop

    def _make(self) -> Loop:
        return ThreadLoop(self._elapsed_s)


class RoleMetrics:
    """The conventional series, in a registry of their own. A role adds its series with
    `counter`, `gauge`, ..."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.not_ready = ""  # why others are not to count on this process yet
        self.liveness = WatchedLoops(self.registry)
        self.records_in = self.counter("everspun_records_in_total", "rows taken in")
        self.records_out = self.counter("everspun_records_out_total", "rows given out")
        self.data_time_ms = self.gauge(
            "everspun_data_time_ms", "arrival time reached, ms since 1970"
        )
        self._waiting = self.gauge(
            "everspun_waiting", "1 for what this process waits for now", "reason"
        )
        self.waits_for("none")

    def counter(self, name: str, help: str, *labels: str) -> Counter:
        """A counter of this registry."""
        return Counter(name, help, labels, registry=self.registry)

    def gauge(self, name: str, help: str, *labels: str) -> Gauge:
        """A gauge of this registry."""
        return Gauge(name, help, labels, registry=self.registry)

    def histogram(
        self, name: str, help: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        """A histogram of this registry; `buckets` are upper bounds, in the unit of its name."""
        return Histogram(name, help, labels, registry=self.registry, buckets=buckets)

    def waits_for(self, reason: str) -> None:
        """Say why nothing is being done now; "none" while something is. Raises ValueError for
        another word."""
        if reason not in WAITS:
            raise ValueError(f"waiting reason {reason!r}: allowed are {', '.join(WAITS)}")
        for known in WAITS:
            self._waiting.labels(reason=known).set(known == reason)


class ReaderMetrics(RoleMetrics):
    """Those of a role that reads internal topics."""

    def __init__(self) -> None:
        super().__init__()
        self.malformed = self.counter(
            "everspun_records_malformed_total",
            "records of internal topics that say nothing, passed over",
            "topic",
        )

    def on_malformed(self, topic: str) -> None:
        """A record of this topic was passed over (`stream.internal_topics.passed_over`)."""
        self.malformed.labels(topic=topic).inc()


class SchemaAway(Protocol):
    """A schema that is waited for (`stream.registry.Away`)."""

    @property
    def id(self) -> int: ...

    @property
    def reason(self) -> str: ...

    @property
    def since_ms(self) -> float: ...


class InputMetrics(ReaderMetrics):
    """Those of a role that reads impressions and clicks, which may name schemas of a registry."""

    def __init__(self) -> None:
        super().__init__()
        self._away = self.gauge(
            "everspun_registry_away",
            "since when a schema is waited for that the registry does not give, s since 1970",
            *("schema", "reason"),
        )
        self._ids = self.gauge(
            "everspun_registry_ids",
            "ids of schemas that the registry is asked for, and that it does not know",
            "state",
        )
        self._registry: Callable[[], SchemaAway | None] = lambda: None
        self._registry_ids: Callable[[], tuple[int, int]] = lambda: (0, 0)

    def watch_registry(
        self, away: Callable[[], SchemaAway | None], ids: Callable[[], tuple[int, int]]
    ) -> None:
        """`away` says what the registry does not give, if anything is waited for because of it;
        `ids` how many ids are asked for, and how many are remembered to be unknown."""
        self._registry, self._registry_ids = away, ids

    def look_registry(self) -> None:
        """Take the gauges as they stand."""
        self._away.clear()
        if (away := self._registry()) is not None:
            reason = away.reason[:REASON_CHARS_MAX]
            self._away.labels(str(away.id), reason).set(away.since_ms / 1_000)
        for state, count in zip(("wanted", "unknown"), self._registry_ids(), strict=True):
            self._ids.labels(state).set(count)


def start_metrics(
    run_dir: Path | str, role: str, index: int, metrics: RoleMetrics, **extra: Any
) -> int:
    """Serve the metrics where this process listens (`metrics_server.listen`), else on a free port
    of loopback, and write the role file `<run_dir>/roles/<role>-<index>.json` (pid, metrics_port,
    and `extra`: address, http_port, ...) whole; where it cannot be written now, later. Returns the
    port."""
    server = serve(metrics.registry, f"{role}-{index}", lambda: metrics.not_ready, metrics.liveness)
    path = Path(run_dir) / "roles" / f"{role}-{index}.json"
    said = json.dumps({"pid": os.getpid(), **server.place(), **extra})
    try:
        _write_role(path, said)
    except OSError as error:  # as of a disk that is full: the role works all the same
        _log.error("%s cannot be written, tried again: %s", path, error)
        threading.Thread(
            target=_write_role_later, args=(path, said), name="role file", daemon=True
        ).start()
    return server.port


def _write_role(path: Path, said: str) -> None:
    """Whole, or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        draft.write_text(said)
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _write_role_later(path: Path, said: str) -> None:
    """Tried again until it is written."""
    backoff = Backoff(*_RETRY_MS)
    while True:
        time.sleep(backoff.failed(random.random()) / 1_000)
        try:
            _write_role(path, said)
        except OSError:
            continue  # said once, and as it is written
        _log.warning("%s is written", path)
        return
