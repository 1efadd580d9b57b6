"""A learner's process: the core on the main thread, and around it a reader, callers, one thread
that prepares, one that computes and one that sends evaluations. So while one batch is computed, the
next is decoded and pulled and the last is pushed.

Everything meets in one queue of events. The main thread takes them one by one, asks the core, and
hands out what it says. An exception of any thread ends the process.
"""

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from learners.config import LearnerConfig, ModelConfig
from learners.models import Encoder, Model, make_model
from learners.models import delayed_feedback as delay
from learners.pacing import Batch, Pacer, events
from learners.pacing import instructions as do
from learners.process.evaluation_sender import EvaluationSender
from learners.process.examples_reader import CheckpointsReader, ExamplesReader
from learners.process.metrics import LearnerMetrics
from learners.process.overlap_meter import COMPUTE, Overlap
from learners.process.port_caller import Caller
from learners.training import BatchGradients, Prepared, Published, gradient, progressive
from learners.training import unlearning as relearning
from paramserver import ClockPort, Outcome, ParamServerConfig, PullReply, PushReply, ShardPort
from paramserver.wire import connect
from stream import LATE, RETRACT, StreamConfig, kind_of, start_metrics
from stream.columns import PictureStore
from stream.log import KafkaLog, Log

_log = logging.getLogger(__name__)

LOOK_EVERY_MS = 250


class Stopped(RuntimeError):
    """The learner cannot go on; the message says what to do."""


@dataclass(frozen=True)
class LearningSystem:
    """What is configured of the system that a learner or a governor is a part of."""

    stream: StreamConfig
    model: ModelConfig
    learners: LearnerConfig
    paramserver: ParamServerConfig
    shards: int
    run_dir: str  # where the processes of one host find each other


def run(system: LearningSystem, index: int, stop: threading.Event, log: Log | None = None) -> None:
    """Learn until told to stop, then drain; from `log`, or the brokers of the stream. Raises
    Stopped when it cannot go on, and what ended a thread."""
    stream, model, config = system.stream, system.model, system.learners
    Encoder.open_store = PictureStore
    definition = make_model(model, prepare_torch(config) if model.is_network else "cpu")
    definition.encoder.check_declared(stream.examples_features)
    metrics = LearnerMetrics()
    start_metrics(system.run_dir, "learner", index, metrics)
    with contextlib.ExitStack() as stack:
        ports, clock = connect(system.paramserver, system.run_dir, system.shards)
        stack.callback(clock.close)
        stack.callback(ports.close)
        log = log or KafkaLog(stream)
        Worker(stream, definition, config, ports, clock, log, metrics, f"learner-{index}").run(stop)


def prepare_torch(config: LearnerConfig) -> str:
    """Give torch its threads; the device to compute on. Raises ValueError for one that is not
    there."""
    import torch

    torch.set_num_threads(config.torch_threads or max(1, len(os.sched_getaffinity(0)) - 1))
    found = torch.cuda.is_available()
    if config.device == "cuda" and not found:
        raise ValueError(
            "[learners] device = 'cuda': torch finds none here; allowed are 'auto' and 'cpu'"
        )
    return "cuda" if found and config.device != "cpu" else "cpu"


@dataclass(frozen=True)
class Result:
    """What the core carries from `Compute` to `Push` and `Evaluate`."""

    computed: BatchGradients
    contents: list[dict[str, Any]]  # by shard
    evaluation: dict[str, Any] | None


class Worker:
    """One learner over any log and any ports."""

    def __init__(
        self,
        stream: StreamConfig,
        model: Model,
        config: LearnerConfig,
        shards: Mapping[int, ShardPort],
        clock: ClockPort,
        log: Log,
        metrics: LearnerMetrics,
        name: str,
    ):
        self._stream, self._model, self._config, self._log, self._metrics = (
            stream,
            model,
            config,
            log,
            metrics,
        )
        self._name = name
        self.pacer = Pacer(model.name, sorted(shards), config)
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._overlap, self._overlap_lock = Overlap(), threading.Lock()
        self._caller = Caller(
            model.name, name, shards, clock, self._events.put, metrics, self._under_way
        )
        group = f"{stream.topic_prefix}learners-{model.name}"
        self._reader = ExamplesReader(
            log, stream, config, group, name, self._events.put, self._events.qsize, metrics
        )
        self._preparing = ThreadPoolExecutor(1, "prepare")
        self._computing = ThreadPoolExecutor(1, "compute")
        self._loops = {n: metrics.liveness.loop(n) for n in ("learn", "prepare", "compute")}
        self._scoring = progressive.Scoring(
            model.name,
            name,
            model.config.prior_rate,
            config.slices,
            config.slices_max,
            stream.negative_rate,
            corrections=stream.label_strategy != "window",
        )
        self._published = Published(model.name, not stream.replayed, config.versions_max)
        self._checkpoints = CheckpointsReader(
            log, stream.checkpoints, self._published, metrics.on_malformed
        )
        self._prepared: dict[Batch, Future[Prepared]] = {}
        self._evaluations = EvaluationSender(log, stream.evaluations, metrics, self._events.put)
        self._rows: dict[
            int, tuple[int, int]
        ] = {}  # clock -> rows and arrival time of a computed batch
        self._late = delay.LateShare(stream.late_share_prior)
        self._staleness: list[int] = []  # of the pushes answered since the last evaluation

    def run(self, stop: threading.Event) -> None:
        self._evaluations.start()
        self._reader.start()
        try:
            if not self._loop(stop):
                return
        finally:
            self._loops["learn"].rest()
            self._reader.stop()
            self._caller.close()
            for pool in (self._preparing, self._computing):
                pool.shutdown(wait=True, cancel_futures=True)
            self._checkpoints.close()
            self._evaluations.close()

    # --- the loop
    # ----------------------------------------------------------------------------------------------

    def _loop(self, stop: threading.Event) -> bool:
        """Until the core stops. Raises Stopped, and whatever ended a thread."""
        drain_until_ms: int | None = None
        look_at_ms = 0
        while True:
            self._loops["learn"].turn()
            now_ms = _now_ms()
            if stop.is_set() and drain_until_ms is None:
                drain_until_ms = now_ms + self._config.drain_ms
                event: Any = events.Drain()
            else:
                event = self._next(now_ms)
            if isinstance(event, BaseException):
                raise event
            for instruction in self.pacer.handle(event, _now_ms()):
                if isinstance(instruction, do.Stop):
                    if instruction.reason:
                        raise Stopped(instruction.reason)
                    return True
                self._perform(instruction)
            self._measure(event)
            if isinstance(event, events.Refused):
                _log.warning("refused, and asked again: %s", event.reason)
            if now_ms >= look_at_ms:
                look_at_ms = now_ms + LOOK_EVERY_MS
                self._metrics.look(self.pacer, self._overlap)
            if drain_until_ms is not None and now_ms > drain_until_ms:
                _log.warning(
                    "stopped with %d batches under way: they are read again",
                    len(self.pacer.flights),
                )
                return False

    def _next(self, now_ms: int) -> Any:
        wait_ms = max(0, min(self.pacer.next_wake_ms - now_ms, LOOK_EVERY_MS))
        try:
            return self._events.get(timeout=wait_ms / 1000)
        except queue.Empty:
            return events.Tick()

    def _perform(self, it: do.Instruction) -> None:
        if isinstance(it, do.Seek | do.Pause | do.Resume):
            self._reader.order(it)
        elif isinstance(it, do.Compute):
            self._computing.submit(self._guarded, self._compute, it)
        elif isinstance(it, do.Evaluate):
            self._publish(it.result)
        elif isinstance(it, do.Pull):
            self._caller.make(it, self._prepare(it.batch))
        elif not isinstance(it, do.Stop):
            if isinstance(it, do.Start) and it.batch.rows:
                self._prepare(it.batch)  # beside the wait for the clock
            elif isinstance(it, do.Join):
                self._rows.clear()  # clocks of another era may repeat
            elif isinstance(it, do.Ended):
                self._count(it)
            self._caller.make(it)

    def _count(self, ended: do.Ended) -> None:
        rows, time_ms = self._rows.pop(ended.clock, (0, 0))
        self._metrics.batches.labels("abandoned" if ended.abandoned else "learned").inc()
        if not ended.abandoned:
            self._metrics.records_out.inc(rows)
            self._metrics.data_time_ms.set(time_ms)

    def _measure(self, event: Any) -> None:
        metrics = self._metrics
        if isinstance(event, events.Computed):
            flight = self.pacer.flights.get(event.clock)
            if flight is not None and flight.whole == (event.start, event.end):
                self._rows[event.clock] = (event.result.computed.row_count, flight.batch.time_ms)
        elif isinstance(event, events.Records):
            metrics.records_in.inc(sum(batch.rows for batch in event.batches))
            for batch in event.batches:
                if kind_of(batch.chain) == LATE:
                    self._late.take(event.partition, batch.late_micro, batch.on_time_micro)
            metrics.late_share.set(self._late.share)
        elif (
            isinstance(event, events.Answered)
            and isinstance(event.reply, PushReply)
            and _applied(event.reply)
        ):
            metrics.staleness.observe(event.reply.staleness)
            if len(self._staleness) < 1_000:
                self._staleness.append(event.reply.staleness)

    # --- the gradient
    # -------------------------------------------------------------------------------------------

    def _prepare(self, batch: Batch) -> "Future[Prepared]":
        """Decode and encode a batch once, however many shards ask, beside the gradient of the one
        before; the last few are kept."""
        key = batch._replace(value=None)
        if key not in self._prepared:
            while len(self._prepared) > 2 * self._config.outstanding_max:
                del self._prepared[next(iter(self._prepared))]
            self._prepared[key] = self._preparing.submit(
                self._timed, "prepare", self._decode, batch
            )
        return self._prepared[key]

    def _decode(self, batch: Batch) -> Prepared:
        prepared = gradient.read(self._model, batch)
        prepared.shardings(
            self.pacer.shard_view.slot_map
        )  # here, once, and not by each of the threads that pull
        return prepared

    def _compute(self, it: do.Compute) -> None:
        self._under_way(COMPUTE, 1)
        try:
            result = self._timed("compute", self._result, it)
        finally:
            self._under_way(COMPUTE, -1)
        self._events.put(events.Computed(it.clock, it.start, it.end, result))

    def _result(self, it: do.Compute) -> Result:
        slot_map = it.slot_map
        if not it.batch.rows:
            return Result(gradient.EMPTY, gradient.contents(gradient.EMPTY, slot_map), None)
        prepared = self._prepared_now(it.batch)
        pulled, dense = gradient.assemble(prepared, slot_map, it.pulls)
        piece, pulled = gradient.part(self._model, prepared, pulled, it.batch, it.start, it.end)
        corrects = delay.correction(self._stream, self._late)
        if kind_of(it.batch.chain) == RETRACT:
            computed = relearning.relearn(
                self._model, piece, pulled, dense, it.batch.again, corrects
            )
            self._metrics.took_back(computed)
        else:
            computed = gradient.compute(self._model, piece, pulled, dense, corrects)
        self._metrics.computed(computed, piece.encoded)
        if computed.reason:
            self._metrics.empty(computed, it.batch.rows)
            where = (
                it.batch.chain,
                it.start,
                it.end,
                self._stream.examples,
                it.batch.partition,
                it.batch.record,
            )
            _log.error(
                "%s [%d, %d), %s[%d] offset %d, is pushed empty: %s", *where, computed.reason
            )
        evaluation = self._evaluation(it, computed)
        if evaluation is not None and corrects.changes_answers:
            evaluation["correction"] = corrects.to_dict()
        return Result(computed, gradient.contents(computed, slot_map, piece), evaluation)

    def _prepared_now(self, batch: Batch) -> Prepared:
        known = self._prepared.get(batch._replace(value=None))
        return known.result() if known is not None else self._decode(batch)

    def _evaluation(self, it: do.Compute, computed: BatchGradients) -> dict[str, Any] | None:
        if computed.rows is None or computed.reason or computed.rewrites:
            return None
        self._checkpoints.catch_up(computed.rows.column("model_version"))
        return progressive.evaluate(
            self._scoring, it.batch, computed, _version(it.pulls), self._published
        )

    def _under_way(self, step: str, by: int) -> None:
        with self._overlap_lock:
            self._overlap.change(step, by, time.monotonic())

    def _timed(self, step: str, work: Any, *arguments: Any) -> Any:
        began = time.monotonic()
        self._loops[step].turn()
        try:
            result = work(*arguments)
        finally:
            self._loops[step].rest()
        self._metrics.seconds.labels(step).observe(time.monotonic() - began)
        return result

    def _guarded(self, work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # the main thread raises it
            self._events.put(error)

    # --- evaluations
    # --------------------------------------------------------------------------------------------

    def _publish(self, result: Result) -> None:
        """At once, so that it stands before any push of its batch is acknowledged, as a rule."""
        evaluation = result.evaluation
        if evaluation is None:
            return
        evaluation["staleness"], self._staleness = self._staleness, []
        self._metrics.evaluated(evaluation)
        self._evaluations.send(evaluation)


def _applied(reply: PushReply) -> bool:
    """Only then was something written, and the staleness says how late."""
    return reply.outcome in (Outcome.APPLIED, Outcome.PARTLY_APPLIED)


def _version(pulls: Mapping[int, PullReply]) -> int:
    """The largest version read of any shard."""
    return max((reply.version for reply in pulls.values()), default=0)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
