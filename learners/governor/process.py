"""The governor's process: it reads evaluations, checkpoints and examples, trains its shadow, and
says to the clock holder what the core decides (shell). It writes nothing, and asks nothing of a
shard but where it stands; dead, it leaves a lease that runs out (K7).
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from learners.governor.checkpoint_source import CutGone, Cuts
from learners.governor.controller import Governing
from learners.governor.metrics import GovernorMetrics
from learners.governor.shadow import Shadow
from learners.governor.window import ComparisonWindow, scored
from learners.governor_config import GovernorConfig
from learners.models import Encoder, Model, make_model
from learners.models import delayed_feedback as delay
from learners.pacing import CannotGoOn
from learners.process import LearningSystem, as_batch, prepare_torch
from learners.training import gradient
from paramserver import (
    ENCODINGS,
    ClockPort,
    Encoding,
    Keys,
    PortRefused,
    PortUnreachable,
    ShardPort,
)
from paramserver.wire import connect
from stream import LATE, Partition, Record, StreamConfig, kind_of, start_metrics
from stream.columns import PictureStore
from stream.internal_topics import MalformedRecord, PassedOver, WholeTopic, json_object
from stream.log import Log, LogError, OffsetOutOfRange, wall_clock_ms
from stream.monitoring import got_on

_log = logging.getLogger(__name__)

EVALUATIONS_MAX, EXAMPLES_MAX = 5_000, 64  # records taken by one poll
POLL_MS = 100


class GovernedSystem(NamedTuple):
    """What a governor reads of the system that it governs, and the clock that it speaks to."""

    shard: ShardPort  # that owns slot 0
    clock: ClockPort
    log: Log
    cuts: Cuts
    encoding: Encoding = Encoding.FLOAT32  # of rows between learners and shards


def run(
    system: LearningSystem,
    config: GovernorConfig,
    index: int,
    stop: threading.Event,
    log: Log,
    cuts: Cuts,
) -> None:
    """Govern one model until told to stop, then give the lease back."""
    model, paramserver = system.model, system.paramserver
    Encoder.open_store = PictureStore
    one_thread = replace(system.learners, torch_threads=1)
    definition = make_model(model, prepare_torch(one_thread) if model.is_network else "cpu")
    metrics = GovernorMetrics()
    start_metrics(system.run_dir, "governor", index, metrics)
    with contextlib.ExitStack() as stack:
        ports, clock = connect(paramserver, system.run_dir, system.shards)
        stack.callback(clock.close)
        stack.callback(ports.close)
        governed = GovernedSystem(ports[0], clock, log, cuts, ENCODINGS[paramserver.wire])
        name = f"governor-{index}"
        GovernorService(system.stream, definition, config, governed, metrics, name).run(stop)


class GovernorService:
    """One governor over any log, ports and cuts. Belongs to one thread."""

    def __init__(
        self,
        stream: StreamConfig,
        model: Model,
        config: GovernorConfig,
        governed: GovernedSystem,
        metrics: GovernorMetrics,
        name: str,
        now_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
    ) -> None:
        self._stream, self._model, self._config, self._metrics = stream, model, config, metrics
        self._shard, self._clock, self._log, self._cuts, self._encoding = governed
        self._now_ms = now_ms
        self.core = Governing(config, name)
        self._evaluations = WholeTopic(self._log, stream.evaluations, at_end=True)
        self.passed_over = PassedOver(_log, metrics.on_malformed)
        self._late = delay.LateShare(stream.late_share_prior)
        self._spoken_ms = -config.poll_ms

    def run(self, stop: threading.Event) -> None:
        loop = self._metrics.liveness.loop("govern")
        try:
            while not stop.is_set():
                loop.turn()
                self.run_once()
                stop.wait(self._config.poll_ms / 1_000)
        finally:
            loop.rest()
            self._farewell()
            self._evaluations.close()

    def run_once(self) -> None:
        """Look at everything once; a comparison that is complete is judged."""
        core = self.core
        try:
            cut = self._cuts.newest()
            if cut is not None:
                core.saw(cut, self._now_ms())
            self._hear()
            self._speak()
            window = core.window
            if window is not None and window.complete:
                self._metrics.waits_for("none")
                self._judge(window)
                self._speak()
        except (LogError, OSError, CutGone, PortUnreachable, PortRefused) as error:
            self._metrics.unanswered.inc()
            _log.warning("looked again later: %s", error)
        self._metrics.look(core)
        self._metrics.waits_for("idle")

    # --- the clock holder
    # ---------------------------------------------------------------------------------------

    def _speak(self) -> None:
        """Say what is to be said; at least ask what is in force. Raises Unreachable, Refused."""
        core, model = self.core, self._model.name
        core.bounded(self._clock.bounds(model))
        lease_request = core.lease_request(self._now_ms())
        if lease_request is not None:
            bounds = self._clock.govern(
                model,
                core.name,
                lease_request.sequence,
                lease_request.level,
                lease_request.lease_ms,
            )
            core.answered(lease_request, bounds)
            if bounds.governor not in ("", core.name):
                _log.warning(
                    "governor %s holds the lease of %s: this one waits", bounds.governor, model
                )
        self._spoken_ms = self._now_ms()

    def _farewell(self) -> None:
        lease_request = self.core.farewell(self._now_ms())
        if lease_request is None:
            return
        try:
            self._clock.govern(
                self._model.name,
                self.core.name,
                lease_request.sequence,
                lease_request.level,
                lease_request.lease_ms,
            )
        except (PortUnreachable, PortRefused) as error:
            _log.warning("the lease was not given back, and runs out by itself: %s", error)

    # --- evaluations
    # --------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        """Read `evaluations` towards its end, from where it ended when this governor began; for
        `poll_ms` at most, since learners may write faster than an end is ever seen."""
        until_ms = self._now_ms() + self._config.poll_ms
        gaps = self._evaluations.gaps
        while polled := self._evaluations.poll(EVALUATIONS_MAX, POLL_MS):
            for at, records in polled.items():
                for record in records:
                    self._take(at, record)
            if self._now_ms() >= until_ms:
                break
        if self._evaluations.gaps > gaps:
            self.core.drop("truncated")

    def _take(self, at: Partition, record: Record) -> None:
        try:
            one = scored(self._model.name, json_object("evaluations", record.value).body)
        except MalformedRecord as error:
            self.passed_over.add(at, record, error)
            return
        if one is not None:
            self.core.add(one)

    # --- a comparison
    # -------------------------------------------------------------------------------------------

    def _judge(self, window: ComparisonWindow) -> None:
        """Read, train in sequence, compare, decide. Raises Unreachable and Refused of the clock
        holder."""
        began = time.monotonic()
        try:
            self._read(window)
            if window.rewritten:
                self.core.drop("rewritten")
                return
            live, sequence, rows = self._train(window)
            if self.core.window is not window:
                return  # what is in force has changed meanwhile
            decision = self.core.judged(live, sequence, rows, self._backlog())
        except (CutGone, OffsetOutOfRange) as error:
            _log.info("a comparison is given up: %s", error)
            self.core.drop("gone")
            return
        except TimeoutError as error:
            _log.info("a comparison is given up: %s", error)
            self.core.drop("timeout")
            return
        except (CannotGoOn, ValueError) as error:
            _log.warning("a comparison is given up: %s", error)
            self.core.drop("unreadable")
            return
        self._metrics.estimates.inc()
        self._metrics.seconds.observe(time.monotonic() - began)
        self._metrics.decided_ms.set(wall_clock_ms())
        level = (
            logging.WARNING if decision.action != "hold" or self.core.at_its_end else logging.INFO
        )
        s, at_once = decision.level
        _log.log(
            level,
            "%s: s = %d, %s at once: %s",
            decision.action,
            s,
            at_once or "all",
            decision.reason,
        )

    def _read(self, window: ComparisonWindow) -> None:
        """The records of `examples` that the window wants. Raises OffsetOutOfRange,
        TimeoutError, CannotGoOn."""
        partitions = [
            Partition(self._stream.examples, p) for p in window.positions if window.wants(p)
        ]
        reader, until_ms, left = (
            self._log.reader(),
            self._now_ms() + self._config.read_timeout_ms,
            0,
        )
        with contextlib.closing(reader):
            reader.assign(partitions)
            firsts = reader.beginning_offsets(partitions)
            for partition in partitions:
                known = window.positions[partition.partition].next_record
                reader.seek(partition, firsts[partition] if known is None else known)
            while wanted := [p for p in partitions if window.wants(p.partition)]:
                for partition, records in reader.poll(EXAMPLES_MAX, POLL_MS).items():
                    left += len(records)
                    for record in records:
                        try:
                            batch = as_batch(partition.partition, record)
                        except MalformedRecord as error:
                            self.passed_over.add(partition, record, error)
                            continue
                        if kind_of(batch.chain) == LATE:
                            self._late.take(batch.partition, batch.late_micro, batch.on_time_micro)
                        window.read(batch)
                reader.pause([p for p in partitions if not window.wants(p.partition)])
                if left > self._config.records_max or self._now_ms() > until_ms:
                    raise TimeoutError(
                        f"{left} records were read, and examples {wanted} do not come to what was "
                        f"scored"
                    )

    def _train(self, window: ComparisonWindow) -> tuple[list[float], list[float], int]:
        """(losses as they were live, losses in sequence, rows trained). Raises CutGone; ValueError
        where a batch does not follow. The lease is renewed meanwhile."""
        steps = window.steps()
        prepared = [
            gradient.read(self._model, step.batch) if step.batch.rows else None for step in steps
        ]
        tables = [table.name for table in self._model.spec.tables]
        keys = {name: _union([p.keys[name] for p in prepared if p is not None]) for name in tables}
        copy = self._cuts.touched(window.cut, keys)
        shadow = Shadow(self._model, [copy], self._stream.negative_rate, self._encoding)
        live, sequence, rows = [], [], 0
        for step, ready in zip(steps, prepared, strict=True):
            got_on()
            loss = shadow.train(step.batch, ready, delay.correction(self._stream, self._late))
            rows += 0 if ready is None else ready.rows.num_rows
            if step.live is not None and np.isfinite(loss):
                live.append(step.live)
                sequence.append(loss)
            if self._now_ms() >= self._spoken_ms + self._config.poll_ms:
                self._speak()
                if self.core.window is not window:
                    break
        if steps:
            self._metrics.data_time_ms.set(max(step.batch.time_ms for step in steps))
        self._metrics.records_in.inc(rows)
        self._metrics.records_out.inc(rows)
        return live, sequence, rows

    def _backlog(self) -> int | None:
        """Records of `examples` that wait to be learned; None where it is not known."""
        partitions = [Partition(self._stream.examples, p) for p in range(self._stream.partitions)]
        try:
            told = self._shard.progress(self._model.name).progress
            reader = self._log.reader()
            with contextlib.closing(reader):
                ends, firsts = reader.end_offsets(partitions), reader.beginning_offsets(partitions)
        except (PortUnreachable, PortRefused, LogError, OSError) as error:
            _log.warning("what waits in examples is not known: %s", error)
            return None
        next_record = {} if told is None else told.next_record
        return sum(
            max(0, end - max(next_record.get(p.partition, 0), firsts[p])) for p, end in ends.items()
        )


def _union(keys: list[Keys]) -> Keys:
    return np.unique(np.concatenate(keys)) if keys else np.empty(0, np.uint64)
