"""A replica as a library: follows a model's checkpoints in the background and answers from the one it holds (shell).

    with Replica("var/checkpoints", "clicks") as replica:
        replica.predict_rows([{"source": "u1", "item": "i7"}])

It looks at the pointer files each `poll_ms`, and, given a log, hears of a checkpoint as soon as it is announced. A new
one is loaded and verified beside the old one and takes its place by one assignment, so a request that began with one
model ends with it (I6). What cannot be loaded is refused by name, counted, and the last good one goes on.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from checkpointer.announcement import decode
from checkpointer.catalogue import Catalogue
from checkpointer.config import ServingConfig
from checkpointer.manifest import Damaged
from checkpointer.metrics import ReplicaMetrics
from checkpointer.replica import Follower
from checkpointer.request import Request, of_rows
from checkpointer.serving import ServedModel, ages, load, reply
from checkpointer.store import open_store
from stream.events import Features
from stream.log import Log, LogError, OffsetOutOfRange, Reader
from stream.record import Partition

_log = logging.getLogger(__name__)
_TOPIC_POLL_MS = 50
_RECORDS_MAX = 500


class Replica:
    """One model, served from one store. `served` is the model answering now, or None.

    `fallback` is answered while there is none, and `features` are then what requests may carry. Construction reads
    nothing: `start` (or `with`) does, and returns after the first look.
    """

    def __init__(
        self,
        root: str,
        model: str,
        config: ServingConfig | None = None,
        *,
        fallback: float = 0.5,
        features: Features = (),
        log: Log | None = None,
        topic: str = "checkpoints",
        metrics: ReplicaMetrics | None = None,
    ) -> None:
        self.config = config or ServingConfig()
        self.metrics = metrics or ReplicaMetrics()
        self.fallback = self.config.fallback_probability if self.config.fallback_probability >= 0 else fallback
        self.served: ServedModel | None = None
        self.follower = Follower(model, retry_ms=self.config.retry_ms)
        self._features = features
        self._files = open_store(root)
        self._asked = self._catalogue = Catalogue(self._files, model)
        self._source, self._topic = log, topic
        self._reader: Reader | None = None
        self._partitions: list[Partition] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"replica of {model}", daemon=True)
        self._look_at_s = 0.0
        self._show_ages()

    # --- life ---

    def start(self) -> Self:
        self._follow(first=True)
        self._thread.start()
        return self

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=10)
        if self._reader is not None:
            self._reader.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # --- answers ---

    @property
    def features(self) -> Features:
        served = self.served
        return self._features if served is None else served.features

    def answer(self, request: Request, served: ServedModel | None) -> dict[str, Any]:
        """The reply to a request by `served`, which the caller took once from this replica, at the start."""
        rows = request.columns.num_rows
        self.metrics.records_in.inc(rows)
        answer = reply(served, request, self.fallback, now_ms())
        self.metrics.records_out.inc(rows)
        if served is None:
            self.metrics.fallback_rows.inc(rows)
        return answer

    def predict_rows(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Rows as in `POST /predict`. Raises request.BadRequest."""
        served = self.served
        features = self._features if served is None else served.features
        return self.answer(of_rows(rows, features), served)

    def describe(self) -> dict[str, Any]:
        """What is served, since when, and what was refused: the body of `/model`."""
        served, hold = self.served, self.follower.hold
        body: dict[str, Any] = {
            "model": self.follower.model,
            "model_version": "" if served is None else served.version,
            "fallback": served is None,
            "held": None if hold.ref is None else {"name": hold.ref.name, "reason": hold.reason},
            "refused": {name: reason for name, (reason, _) in list(self.follower.refused.items())},
        }
        if served is None:
            return body | {"fallback_probability": self.fallback}
        manifest = served.manifest
        return body | {
            "number": manifest.number,
            "manifest_sha256": manifest.sha256,
            "barrier": manifest.barrier,
            "created_ms": manifest.created_ms,
            "event_time_max_ms": manifest.event_time_max_ms,
            "vector": manifest.vector,
            "rows": served.rows,
            "features": [{"name": f.name, "kind": f.kind} for f in served.features],
            "code_version": manifest.code_version,
            **ages(manifest, now_ms()),
        }

    # --- following ---

    def _run(self) -> None:
        while not self._stop.is_set():
            self._follow()
            if self._reader is None:
                self._stop.wait(min(self.config.poll_ms, 1_000) / 1_000)

    def _follow(self, first: bool = False) -> None:
        """One look at topic and store; then load what is wanted. A failing look is counted and tried again."""
        if self._source is not None:
            self._hear(_TOPIC_POLL_MS if not first else 0)
        if time.monotonic() >= self._look_at_s:
            self._look_at_s = time.monotonic() + self.config.poll_ms / 1_000
            self._look(everything=first)
        while (wanted := self.follower.wanted(_steady_ms())) is not None and not self._stop.is_set():
            began = time.monotonic()
            try:
                served = load(self._catalogue, wanted.name, wanted.manifest_sha256, self.served)
            except (Damaged, OSError) as error:
                _log.error("refused checkpoint %s: %s", wanted.name, error)
                self.metrics.refused.inc()
                self.follower.refuse(wanted, str(error), _steady_ms())
                self._look(everything=True)
                continue
            self.served = served  # the swap: one assignment
            self.follower.loaded(wanted)
            self.metrics.swaps.inc()
            self.metrics.loads.labels(how="deltas" if served.upon else "base").inc()
            self.metrics.load_seconds.observe(time.monotonic() - began)
            _log.info("serving %s (%d rows)", served.version, served.rows)
        self._show_ages()

    def _hear(self, timeout_ms: int) -> None:
        """What was announced since. The reader stands at the end of the topic before the pointers are looked at, so
        nothing falls between them."""
        try:
            if self._reader is None:
                self._open_topic()
            assert self._reader is not None
            for records in self._reader.poll(_RECORDS_MAX, timeout_ms).values():
                for record in records:
                    self._on_record(record.value)
        except OffsetOutOfRange as error:
            assert self._reader is not None
            self._reader.seek(error.partition, error.end)
            self._look_at_s = 0.0
        except LogError as error:
            _log.warning("checkpoints topic: %s; the pointer file is still followed", error)
            self.metrics.errors.labels(where="topic").inc()
            self._stop.wait(self.config.poll_ms / 1_000)

    def _open_topic(self) -> None:
        assert self._source is not None
        partitions = [Partition(self._topic, p) for p in range(self._source.partitions(self._topic))]
        reader = self._source.reader()
        try:
            reader.assign(partitions)
            for partition, end in reader.end_offsets(partitions).items():
                reader.seek(partition, end)
        except LogError:
            reader.close()
            raise
        self._reader, self._partitions, self._look_at_s = reader, partitions, 0.0

    def _on_record(self, value: bytes | None) -> None:
        try:
            announcement = decode(value or b"")
        except ValueError as error:
            _log.error("checkpoints topic: %s", error)
            self.metrics.errors.labels(where="record").inc()
            return
        self.follower.on_announcement(announcement)

    def _look(self, everything: bool) -> None:
        """The pointer files; with `everything`, also the older published checkpoints, to fall back on."""
        try:
            everything |= self._succeed()
            if everything:
                self.follower.on_published(self._catalogue.published_refs())
            published = self._catalogue.published()
            if published is not None:
                self.follower.on_published([published])
            self.follower.on_hold(self._catalogue.hold())
        except (Damaged, OSError) as error:
            _log.error("checkpoint store: %s", error)
            self.metrics.errors.labels(where="store").inc()

    def _succeed(self) -> bool:
        """Follow another model from now on, if one was promoted. What is served answers until that one is loaded."""
        model = self._asked.successor()
        if model == self.follower.model:
            return False
        _log.info("following model %s in place of %s", model, self.follower.model)
        self._catalogue = self._asked if model == self._asked.model else Catalogue(self._files, model)
        self.follower = Follower(model, retry_ms=self.config.retry_ms)
        return True

    def _show_ages(self) -> None:
        served, metrics = self.served, self.metrics
        metrics.held.set(self.follower.hold.ref is not None)
        if served is None:
            metrics.version.set(-1)
            metrics.model_age_s.set(float("nan"))
            metrics.data_age_s.set(float("nan"))
            metrics.waits_for("idle")
            return
        age = ages(served.manifest, now_ms())
        metrics.version.set(served.manifest.number)
        metrics.barrier.set(served.manifest.barrier)
        metrics.model_age_s.set(float(age["model_age_s"] or 0.0))
        metrics.data_age_s.set(float("nan") if age["data_age_s"] is None else age["data_age_s"])
        metrics.data_time_ms.set(served.manifest.event_time_max_ms)
        metrics.waits_for("none")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _steady_ms() -> int:
    return time.monotonic_ns() // 1_000_000
