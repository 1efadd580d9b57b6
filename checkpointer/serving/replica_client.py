"""A replica as a library: follows a model's checkpoints in the background and answers from the one
it holds (shell).

    with Replica("var/checkpoints", "clicks") as replica:
        replica.predict_rows([{"source": "u1", "item": "i7"}])

It looks at the pointer files each `poll_ms`, and, given a log, hears of a checkpoint as soon as it
is announced. A new one is loaded and verified beside the old one and takes its place by one
assignment, so a request that began with one model ends with it (I6). What cannot be loaded is
refused by name, counted, and the last good one goes on.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from checkpointer.config import ServingConfig
from checkpointer.fallback import ItemAnswers, fallback_by_item, prior_probability
from checkpointer.metrics import NAN, ReplicaMetrics, Served
from checkpointer.serving.loading import MakeMemory, load
from checkpointer.serving.replica import Follower, Following, check_arguments
from checkpointer.serving.request import Given, count_rows, given, given_rows, items_given, items_of
from checkpointer.serving.serving import Answer, Fallback, ServedModel, ages, prior, reply_to, warm
from checkpointer.store import Catalogue, Damaged, Ref, StoreTimeouts, decode, open_store
from checkpointer.tables import PrivateMemory, RequestFills
from learners.models import Encoder
from stream import Backoff, Partition, Record
from stream.columns import Features, PictureStore
from stream.internal_topics import MalformedRecord, PassedOver
from stream.log import Log, LogError, OffsetOutOfRange, Reader
from stream.log import wall_clock_ms as now_ms

_log = logging.getLogger(__name__)
#: Longest wait for an announcement, ms: no longer than until the next look at the pointers.
_TOPIC_POLL_MS = 250
_RECORDS_MAX = 500
#: Pauses after a look that failed.
_RETRY_MS, _RETRY_MS_MAX = 100, 5_000
#: The operator's files are seldom there, and announced where there is a log: they are looked for at
#: each so many looks.
_LOOKS_PER_HOLD = 5
#: Of so many answers one is remembered by item, where the fallback is what was answered before.
_REMEMBERED_EACH = 16
NO_MODEL, NO_TIME = "no model", "no time"


class Replica:
    """One model, served from one store. `served` is the model answering now, or None.

    `fallback` is the prior, answered while there is none (or what `config.fallback` says), and
    `features` are then what requests may carry. Construction reads nothing: `start` (or `with`)
    does, and returns after the first look. Raises ValueError and TypeError for what is none.
    """

    def __init__(
        self,
        root: str | Path,
        model: str,
        config: ServingConfig | None = None,
        *,
        fallback: float = 0.5,
        features: Features = (),
        log: Log | None = None,
        topic: str = "checkpoints",
        metrics: ReplicaMetrics | None = None,
    ) -> None:
        Encoder.open_store = PictureStore
        self.config = ServingConfig() if config is None else config
        check_arguments(root, self.config, log)
        self.metrics = metrics or ReplicaMetrics()
        self.fallback_probability = prior_probability(self.config, fallback)
        self.served: ServedModel | None = None
        #: what stands ready for items where the model cannot answer in time; None = the prior
        self.by_item = fallback_by_item(self.config, self.fallback_probability)
        self._requests = 0
        self.follower = Follower(model, retry_ms=self.config.retry_ms)
        self._passed_over = PassedOver(_log, self.metrics.on_malformed)
        self._features = features
        self._files = open_store(
            str(root),
            StoreTimeouts(self.config.store_timeout_ms, self.config.transfer_timeout_ms),
            self._store_called,
        )
        self._asked = self._catalogue = Catalogue(self._files, model)
        self._source, self._topic = log, topic
        self._reader: Reader | None = None
        self.fills = RequestFills(self._files)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._thread_lock = threading.Lock()
        self._backoff = Backoff(_RETRY_MS, _RETRY_MS_MAX)
        self._fault, self._failing_since_s = "", 0.0
        self._look_at_s, self._looks, self._everything = 0.0, 0, True
        self._turned_s = time.monotonic()
        self.has_looked = False  # once, whatever became of it
        #: where tables stand, and who is told after each look and swap (`checkpointer.workers`)
        self.memory: MakeMemory = PrivateMemory
        self.followed: Callable[[], None] = lambda: None
        self.metrics.served_is(self._served_now, lambda: self.following.failing_s)

    # --- life ---

    def start(self, looks: bool = True) -> Self:
        """Look into the store once, then follow it from a thread of its own. Without `looks`, the
        first look is that thread's too. Where it follows already, nothing."""
        if self._stop.is_set():
            raise RuntimeError("the replica is closed: make another one")
        if self._thread is None:
            self.fills.start()
            if looks:
                self._attempt(first=True)
            self._begin_thread()
        self._revive()  # in the child of a fork
        return self

    def _begin_thread(self) -> None:
        self._thread = threading.Thread(
            target=self._run, name=f"replica of {self.follower.model}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the thread, and let go of the store."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        if self._reader is not None:
            self._reader.close()
        self.fills.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- health ---

    @property
    def following(self) -> Following:
        """Whether the last look at store and topic went well."""
        since = self._failing_since_s
        return Following(self._fault, time.monotonic() - since if since else 0.0)

    def follows_within(self, seconds: float) -> bool:
        """Whether its thread lives, and has looked, or heard of the store, that lately."""
        thread = self._thread
        lives = thread is not None and thread.is_alive()
        return lives and time.monotonic() - self._turned_s < seconds

    def not_ready(self) -> str:
        """Why requests should go to another replica, "" if they need not: no model, or one that
        is too old."""
        served, age_max_s = self.served, self.config.ready_age_max_s
        if served is None:
            return f"no model yet: {self.following.fault or 'none is published'}"
        if why := self.fills.not_ready():
            return why
        age_s = float(ages(served.manifest, now_ms())["model_age_s"] or 0.0)
        if age_max_s and age_s > age_max_s:
            return (
                f"model {served.version} is {age_s:.0f} s old, more than ready_age_max_s = "
                f"{age_max_s:g}"
            )
        return ""

    def _served_now(self) -> Served | None:
        served = self.served
        if served is None:
            return None
        manifest, age = served.manifest, ages(served.manifest, now_ms())
        model_age_s, data_age_s = age["model_age_s"], age["data_age_s"]
        return Served(
            manifest.number,
            manifest.barrier,
            manifest.event_time_max_ms,
            NAN if model_age_s is None else model_age_s,
            NAN if data_age_s is None else data_age_s,
            ready=not self.not_ready(),
        )

    # --- answers ---

    @property
    def features(self) -> Features:
        """What requests may carry: of the served model, else of the constructor."""
        served = self.served
        return self._features if served is None else served.features

    def predict(self, body: bytes) -> dict[str, Any]:
        """The reply to the body of `POST /predict`, its probabilities as an array. What is served
        when it begins answers all of it, whatever is swapped meanwhile (I6). Raises BadRequest."""
        served, rows_max = self.served, self.config.request_rows_max
        if served is None:
            return self.predict_given(given(body, self._features, rows_max), None)
        answer = served.answer(body, rows_max, now_ms(), self.fills)
        if isinstance(self.by_item, ItemAnswers):
            self._remember(self.by_item, body, answer, served.version)
        return self._reply(served, answer)

    def fallback(self, body: bytes) -> dict[str, Any]:
        """The reply to the body of `POST /predict` without asking the model. Raises BadRequest."""
        rows_max = self.config.request_rows_max
        if self.by_item is None:
            return self._reply_without([None] * count_rows(body, rows_max), (), NO_TIME)
        return self._reply_without(items_of(body, rows_max), (), NO_TIME)

    def _remember(self, answers: ItemAnswers, body: bytes, answer: Answer, version: str) -> None:
        """One request in a few: what it was answered for its items."""
        self._requests += 1
        if self._requests % _REMEMBERED_EACH == 1:
            items = items_of(body, self.config.request_rows_max)
            answers.add(items, answer.probabilities.tolist(), version)

    def predict_given(self, asked: Given, served: ServedModel | None) -> dict[str, Any]:
        """The same of a request in another form, made for the features of `served`."""
        if served is not None:
            answer = served.answer_given(asked, now_ms(), self.fills)
            return self._reply(served, answer)
        return self._reply_without(items_given(asked, self._features), asked.ignored, NO_MODEL)

    def predict_rows(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Rows as in `POST /predict`; probabilities as a list. Raises request.BadRequest."""
        served = self.served
        features = self._features if served is None else served.features
        body = self.predict_given(given_rows(rows, features), served)
        return body | {"probabilities": body["probabilities"].tolist()}

    def fallback_given(self, asked: Given) -> dict[str, Any]:
        """The reply to a request of any form without asking the model."""
        return self._reply_without(items_given(asked), asked.ignored, NO_TIME)

    def _reply_without(
        self, items: Sequence[str | None], ignored: tuple[str, ...], reason: str
    ) -> dict[str, Any]:
        """By what the config says, without the model."""
        by_item = self.by_item
        if by_item is None:
            found = prior(len(items), self.fallback_probability)
        else:
            found = by_item.rates(items)
        version = by_item.version if isinstance(by_item, ItemAnswers) else ""
        fallback = Fallback(reason, self.config.fallback, version)
        self.metrics.fallback_rows.inc(len(items))
        return self._reply(fallback, Answer(found, ignored))

    def _reply(self, served: ServedModel | Fallback, answer: Answer) -> dict[str, Any]:
        self._revive()
        rows = len(answer.probabilities)
        self.metrics.records_in.inc(rows)
        self.metrics.records_out.inc(rows)
        aged = self.fills.ages_s(now_ms()) if isinstance(served, ServedModel) else {}
        return reply_to(served, answer, now_ms()) | aged

    def describe(self) -> dict[str, Any]:
        """What is served, since when, and what was refused: the body of `/model`."""
        served, hold = self.served, self.follower.hold
        body: dict[str, Any] = {
            "model": self.follower.model,
            "model_version": "" if served is None else served.version,
            "fallback": served is None,
            "following": self.following._asdict(),
            "held": None if hold.ref is None else {"name": hold.ref.name, "reason": hold.reason},
            "refused": {name: reason for name, (reason, _) in list(self.follower.refused.items())},
        }
        if served is None:
            return body | {"fallback_probability": self.fallback_probability}
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

    def _revive(self) -> None:
        """Where the thread is not there any more, as in the child of a fork, it begins anew. A
        reader of the log is the parent's: its connections are not to be shared."""
        thread = self._thread
        if thread is None or thread.is_alive() or self._stop.is_set():
            return
        with self._thread_lock:
            if self._thread is thread:
                self._reader = None
                self.fills.start()
                self._begin_thread()

    def _run(self) -> None:
        while not self._stop.is_set():
            pause_ms = self._attempt()
            if pause_ms:
                self._stop.wait(pause_ms / 1_000)
            elif self._reader is None:
                self._stop.wait(min(self.config.poll_ms, 1_000) / 1_000)

    def _attempt(self, first: bool = False) -> int:
        """Follow once, whatever becomes of it. Returns how long to wait before the next look if
        it failed, ms."""
        self._turned_s = time.monotonic()
        try:
            return self._tried(first)
        finally:
            self.has_looked = True
            self.followed()

    def _store_called(self, call: str, outcome: str, seconds: float) -> None:
        self._turned_s = time.monotonic()
        self.metrics.store_called(call, outcome, seconds)

    def _tried(self, first: bool) -> int:
        try:
            self._follow(first)
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
            expected = isinstance(error, Damaged | OSError)
            if fault != self._fault:
                why = None if expected else error
                _log.error("following fails, tried again: %s", fault, exc_info=why)
            self._failing_since_s = self._failing_since_s or time.monotonic()
            self._fault, self._look_at_s = fault, 0.0
            # Where the pointer says nothing: look at what is there.
            self._everything |= isinstance(error, Damaged)
            if not expected:
                self._leave_topic()
            self.metrics.errors.labels(where="store" if expected else "other").inc()
            return self._backoff.failed(random.random())
        if self._fault:
            _log.info("following again, after %.0f s", self.following.failing_s)
        self._fault, self._failing_since_s = "", 0.0
        self._backoff.worked()
        return 0

    def _follow(self, first: bool = False) -> None:
        """One look at topic and store; then load what is wanted. Raises what the store raises."""
        if self._source is not None:
            self._hear(0 if first else min(_TOPIC_POLL_MS, self.config.poll_ms))
        failure: Exception | None = None
        if time.monotonic() >= self._look_at_s:
            self._look_at_s = time.monotonic() + self.config.poll_ms / 1_000
            failure = self._look(self._everything)
            self._everything = False
        self.metrics.held.set(self.follower.hold.ref is not None)
        self.metrics.waits_for("idle" if self.served is None else "none")
        while (
            wanted := self.follower.wanted(_steady_ms())
        ) is not None and not self._stop.is_set():
            self._take(wanted)
        if self.served is not None:
            config = self.served.scorer.model.encoder.config
            self.fills.look(self.follower.model, config, now_ms())
        if failure is not None:  # what could be seen was followed all the same
            raise failure

    def _take(self, wanted: Ref) -> None:
        """Load it and serve it, or refuse it. A store that fails is no fault of the
        checkpoint's: that is raised."""
        began = time.monotonic()
        try:
            name, digest = wanted.name, wanted.manifest_sha256
            served = load(self._catalogue, name, digest, self.served, self.memory)
            if self.served is None or self.served.answers is not served.answers:
                warm(served)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                raise
            self._refuse(wanted, str(error))
        except Exception as error:
            # Whatever a checkpoint does to its reader is a finding about the checkpoint.
            kind = "" if isinstance(error, Damaged) else f"{type(error).__name__}: "
            self._refuse(wanted, f"{kind}{error}")
        else:
            self.served = served  # the swap: one assignment
            self.follower.loaded(wanted)
            self.followed()
            self.metrics.swaps.inc()
            self.metrics.loads.labels(how="deltas" if served.upon else "base").inc()
            self.metrics.load_seconds.observe(time.monotonic() - began)
            _log.info("serving %s (%d rows)", served.version, served.rows)

    def _refuse(self, wanted: Ref, reason: str) -> None:
        _log.error("refused checkpoint %s: %s", wanted.name, reason)
        self.metrics.refused.inc()
        self.follower.refuse(wanted, reason, _steady_ms())
        if failure := self._look(everything=True):
            raise failure

    def _hear(self, timeout_ms: int) -> None:
        """What was announced since. The reader stands at the end of the topic before the pointers
        are looked at, so nothing falls between them."""
        try:
            if self._reader is None:
                self._open_topic()
            assert self._reader is not None
            for at, records in self._reader.poll(_RECORDS_MAX, timeout_ms).items():
                for record in records:
                    self._on_record(at, record)
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
        count = self._source.partitions(self._topic)
        if not count:
            raise LogError(f"there is no topic {self._topic}")
        partitions = [Partition(self._topic, p) for p in range(count)]
        reader = self._source.reader()
        try:
            reader.assign(partitions)
            for partition, end in reader.end_offsets(partitions).items():
                reader.seek(partition, end)
        except LogError:
            reader.close()
            raise
        self._reader, self._look_at_s = reader, 0.0

    def _leave_topic(self) -> None:
        """It is opened anew, whatever becomes of the reader that there is."""
        reader, self._reader = self._reader, None
        try:
            if reader is not None:
                reader.close()
        except Exception as error:
            _log.warning("the reader of checkpoints cannot be closed: %r", error)

    def _on_record(self, at: Partition, record: Record) -> None:
        try:
            announcement = decode(record.value)
        except MalformedRecord as error:
            self._passed_over.add(at, record, error)
            self.metrics.errors.labels(where="record").inc()
            return
        self.follower.on_announcement(announcement)

    def _look(self, everything: bool) -> Exception | None:
        """The pointer files; with `everything`, also the older published checkpoints, to fall back
        on. Each is looked at whatever becomes of the others; returns the first failure."""
        self._looks += 1
        seldom = (
            everything or self._looks % _LOOKS_PER_HOLD == 0 or self.follower.hold.ref is not None
        )
        failures: list[Exception] = []

        def tried(look: Callable[[], object]) -> None:
            try:
                look()
            except (Damaged, OSError) as error:
                failures.append(error)

        model = self.follower.model
        if seldom:
            tried(self._succeed)
        everything |= model != self.follower.model
        if everything:
            tried(lambda: self.follower.on_published(self._catalogue.published_refs()))
        tried(self._look_at_pointer)
        if seldom:
            tried(lambda: self.follower.on_hold(self._catalogue.hold()))
        return failures[0] if failures else None

    def _look_at_pointer(self) -> None:
        """Where a model is served, its pointer is there as long as its store is."""
        ref, served = self._catalogue.published(), self.served
        if ref is not None:
            self.follower.on_published([ref])
        elif served is not None and served.manifest.model == self.follower.model:
            place = self._files.url(self.follower.model)
            raise FileNotFoundError(f"{place}: nothing is published there any more")

    def _succeed(self) -> None:
        """Follow another model from now on, if one was promoted. What is served answers until
        that one is loaded."""
        model = self._asked.successor()
        if model == self.follower.model:
            return
        _log.info("following model %s in place of %s", model, self.follower.model)
        own = model == self._asked.model
        self._catalogue = self._asked if own else Catalogue(self._files, model)
        self.follower = Follower(model, retry_ms=self.config.retry_ms)


def _steady_ms() -> int:
    return time.monotonic_ns() // 1_000_000
