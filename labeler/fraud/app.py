"""The fraud filter as a Faust app: reads `signals`, keeps its tables on rocksdict, writes to
`verdicts` (F1-F3).

Faust gives the group (a second process stands by and takes over), the tables on disk and their
changelog topics. What decides correctness is the core's: rows carry positions, and the offset to
read `signals` from is a row of the tables themselves. Faust's committed offsets only say where it
begins to look; from there `Judge` seeks to where the tables stand. One step: promises acknowledged
-> verdicts acknowledged -> watermarks acknowledged; and every so often rows -> changelog
acknowledged -> fold position.
"""

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from faust.types import TP

from labeler.counting import Signal, contradiction, decode_signal
from labeler.fraud.faust_app import TABLE_OPTIONS, FaustTable, make_app
from labeler.fraud.filter import FilterStep, FraudFilter
from labeler.fraud.metrics import FraudMetrics
from labeler.fraud.sender import VerdictSender
from labeler.fraud.sent_watermarks import InputEnds, sent_watermarks
from labeler.fraud.tables import TABLES, Tables
from labeler.fraud_config import FraudConfig, check_room
from labeler.io import RefetchTimer, StepSize
from labeler.labels import ClaimedEnds
from stream import Partition, Record, StreamConfig, start_metrics
from stream.internal_topics import MalformedRecord, PassedOver, input_name
from stream.log import Log, LogError, Unavailable

logger = logging.getLogger(__name__)

#: A quiet time, in seconds, after which the reader looks whether Faust passed over records, at
#: first and at most.
IDLE_S, IDLE_MAX_S = 3.0, 120.0
#: Records that came too early are dropped for this long, in seconds, before those missing are
#: sought once more.
SEEK_AGAIN_S, SEEK_AGAIN_MAX_S = 1.0, 60.0
#: How often, and how many seconds apart at first and at most, to look for the changelog topics
#: before Faust is left to complain: three minutes in all.
METADATA_CHECKS = 40
METADATA_CHECK_S, METADATA_CHECK_MAX_S = 0.25, 5.0
#: A step may take this part of the group's time-out.
STEP_PART = 6


class LogView(NamedTuple):
    """What the judge asks of the log, from threads of its own."""

    sent: Callable[[], Mapping[str, int]]  # which watermarks stand in it
    look: Callable[[ClaimedEnds], None] | None = None  # how far the inputs go (F3)


class Judge:
    """Drives the core inside Faust's agent. One lives as long as the process; its filter as long
    as an assignment."""

    def __init__(
        self,
        app: Any,
        stream: StreamConfig,
        fraud: FraudConfig,
        tables: Tables,
        sender: VerdictSender,
        metrics: FraudMetrics,
        view: LogView,
        clock_s: Callable[[], float] = time.monotonic,
    ):
        self._view, self._claimed, self._clock_s = view, ClaimedEnds(stream), clock_s
        self.passed_over = PassedOver(logger, metrics.on_malformed)
        self._app, self._stream, self._fraud = app, stream, fraud
        self._tables, self._sender, self._metrics = tables, sender, metrics
        self._views = [input_name(stream.impressions, p) for p in range(stream.partitions)]
        self._clicks = [input_name(stream.clicks, p) for p in range(stream.partitions)]
        self._batch: list[tuple[Record, Signal | None]] = []  # records without what they held
        self._next = 0  # the offset to come
        self._early = RefetchTimer(
            SEEK_AGAIN_S, SEEK_AGAIN_MAX_S
        )  # seeks for records before one that came too early
        self._idle = RefetchTimer(
            IDLE_S, IDLE_MAX_S, clock_s(), IDLE_S
        )  # seeks for records that never came
        self._size = StepSize(
            fraud.batch_signals_max, stream.session_timeout_ms / 1_000 / STEP_PART
        )
        self._committed_s = 0.0
        self.filter: FraudFilter | None = None
        self.reads_again = 0
        self.send_failures = 0

    def lose(self) -> None:
        """The partition moves, or may: whoever gets it begins with what the tables hold."""
        self.filter = None
        self._batch.clear()

    async def on_event(self, event: Any, more: bool) -> FilterStep | None:
        """One record of `signals`. It is judged with those after it while there are `more` to
        come."""
        try:
            return await self._on_event(event, more)
        finally:
            self._idle.come(self._clock_s())  # behind a step, however long it took

    async def _on_event(self, event: Any, more: bool) -> FilterStep | None:
        offset = event.message.offset
        if self.filter is None:
            await self._know_changelogs()
            sent = await asyncio.to_thread(self._view.sent)
            key = self._stream.hash_key
            self.filter = FraudFilter(
                self._fraud, self._views, self._clicks, self._tables, sent, key
            )
            self._next = self.filter.next_offset
            logger.info("fraud filter begins at signals[%d]; Faust at %d", self._next, offset)
        if offset > self._next and await self._seek_back(event.message.tp, offset):
            return None
        if offset >= self._next:
            self._next = offset + 1
            self._early.come(self._clock_s())
            self._read(event.message)
        if not self._batch or (more and len(self._batch) < self._size.size):
            return None
        self._metrics.waits_for("none")
        believed = await self._believed(self._batch)
        if self.filter is None:  # lost meanwhile
            return None
        step = await self._step(believed)
        self._batch.clear()
        return step

    async def _know_changelogs(self) -> None:
        """Wait until the group's metadata has the changelog topics: just created, they may count no
        partitions yet, for which Faust would end the process at the first write."""
        names = [f"{self._app.conf.id}-{name}-changelog" for name in TABLES]
        for check in range(METADATA_CHECKS):
            if all(self._app.consumer.topic_partitions(name) in (None, 1) for name in names):
                return
            await asyncio.sleep(min(METADATA_CHECK_MAX_S, METADATA_CHECK_S * 2**check))

    async def _seek_back(self, partition: TP, offset: int) -> bool:
        """Whether to drop this record, because earlier ones are still to come. They are sought.

        Faust may begin behind the tables, and it passes over records that it fetched while it was
        rebalancing. What it had fetched before a seek it still hands out, and may then take what
        was sought for old and drop it: so the seek is repeated until the next record comes. Each
        seek throws away the fetch that is under way, so they come less and less often.
        """
        if not self._early.is_due(self._clock_s()):
            return True
        first = (await self._app.consumer.earliest_offsets(partition))[partition]
        logger.warning(
            "signals[%d] came where %d was expected; the first still there is %d",
            offset,
            self._next,
            first,
        )
        self._next = max(self._next, first)  # what is truly gone is passed over
        if offset == self._next:
            return False
        self.reads_again += 1
        await self._app.consumer.seek(partition, self._next)
        self._early.ask(self._clock_s())
        return True

    async def look_behind(self) -> None:
        """After a while without a record: were any fetched that never came here? Then read them
        again.

        Where no record came at all, the last one is: with it come the tables, which know what is
        missing.
        """
        consumer, now_s = self._app.consumer, self._clock_s()
        partition = TP(self._stream.signals, 0)
        if not self._idle.is_due(now_s) or self._batch or partition not in consumer.assignment():
            return
        self._idle.pause(now_s)
        self._metrics.waits_for("idle")
        position = await consumer.position(partition)
        if position and (self.filter is None or self._next < position):
            self._idle.ask(now_s)
            self.reads_again += 1
            logger.warning("no records, yet Faust is at signals[%d]; reading again", position)
            await consumer.seek(partition, position - 1 if self.filter is None else self._next)

    def _read(self, message: Any) -> None:
        """One more for the batch. What says nothing counts for nothing."""
        headers = (
            message.headers.items() if isinstance(message.headers, dict) else message.headers or ()
        )
        record = Record(
            message.offset,
            int(message.timestamp * 1_000),
            message.key,
            message.value or None,
            tuple(headers),
        )
        try:
            self._batch.append((record._replace(value=None, headers=()), decode_signal(record)))
        except MalformedRecord as error:
            self._pass_over(record, error)
            self._batch.append((record._replace(value=None, headers=()), None))

    def _pass_over(self, record: Record, error: MalformedRecord) -> None:
        self.passed_over.add(Partition(self._stream.signals, 0), record, error)

    async def _believed(
        self, batch: list[tuple[Record, Signal | None]]
    ) -> list[tuple[int, Signal | None]]:
        """The same, without what says more than its input's log holds (F3). The logs' ends are
        looked up once for all of it, and it waits for a broker that does not say them."""
        claimed: dict[str, int] = {}
        for _, signal in batch:
            if signal is not None:
                claimed[signal.input] = max(signal.end, claimed.get(signal.input, 0))
        look = self._view.look
        if look is None:
            return [(record.offset, signal) for record, signal in batch]
        looked = failed = False
        while not looked and self._claimed.exceeded_by(claimed):
            try:
                await asyncio.to_thread(look, self._claimed)
                looked = True
            except LogError as error:
                logger.warning("signals wait: %s", error)
                failed = True
                await asyncio.sleep(self._stream.reconnect_max_ms / 1_000)
        if failed:  # the broker was away, and is back
            for backoff in (self._early, self._idle):
                backoff.forget(self._clock_s())
        return [
            (record.offset, signal and self._if_believed(record, signal))
            for record, signal in batch
        ]

    def _if_believed(self, record: Record, signal: Signal) -> Signal | None:
        wrong = contradiction(
            signal, record.timestamp_ms, self._claimed.ends, self._stream.watermark_ahead_ms
        )
        if wrong is not None:
            self._pass_over(record, wrong)
        return signal if wrong is None else None

    async def _step(self, batch: list[tuple[int, Signal | None]]) -> FilterStep:
        """Promises, verdicts, watermarks, rows, fold position, each once the one before is
        acknowledged (F2)."""
        assert self.filter is not None
        began_s = self._clock_s()
        step = self.filter.on_signals(batch)
        self._size.took(len(batch), self._clock_s() - began_s)
        await self._app.producer.flush()
        try:
            if step.verdicts:
                await self._sender.send(step.verdicts)
            if step.watermarks:
                await self._sender.send(step.watermarks)
        except LogError as error:
            self.send_failures += 1
            logger.warning(
                "verdicts were not acknowledged, judging again from the tables: %s", error
            )
            await asyncio.sleep(self._stream.reconnect_max_ms / 1_000)
            # The tables stand at the last commit, many batches back perhaps: all signals since then
            # must come again, or this batch would dangle above the ends that a new filter begins
            # with.
            self.lose()
            return step
        if self.filter is not None:
            await self._commit(step)
            self._metrics.on_step(self.filter, step, self.reads_again, self.send_failures)
        return step

    async def _commit(self, step: FilterStep) -> None:
        """Every so often. Tables are durable one by one, and the fold position comes after all
        others."""
        now_s = self._clock_s()
        if now_s - self._committed_s < self._fraud.commit_ms / 1_000:
            return
        self._committed_s = now_s
        filter = self.filter
        assert filter is not None
        filter.save()
        await self._app.producer.flush()
        if self.filter is filter:
            filter.commit(step)


def make_judge(
    app: Any,
    stream: StreamConfig,
    fraud: FraudConfig,
    sender: VerdictSender,
    metrics: FraudMetrics,
    fail: Callable[[BaseException], None],
    view: LogView,
) -> Judge:
    """Tables and agent of the app."""
    # Keys and values are JSON, Faust's default. Each table has its own options: Faust takes them
    # apart.
    tables = {name: app.Table(name, partitions=1, options=dict(TABLE_OPTIONS)) for name in TABLES}
    stores = Tables(**{name: FaustTable(table) for name, table in tables.items()})
    judge = Judge(app, stream, fraud, stores, sender, metrics, view)
    signals = app.topic(stream.signals, key_serializer="raw", value_serializer="raw", partitions=1)

    @app.agent(signals, name="fraud", concurrency=1)  # type: ignore[untyped-decorator]
    async def judge_signals(records: Any) -> None:
        async for event in records.events():
            try:
                await judge.on_event(event, more=not records.channel.queue.empty())
            except Exception as error:
                fail(error)
                raise

    async def on_partitions_revoked(*_: Any, **__: Any) -> None:
        judge.lose()

    app.on_partitions_revoked.connect(on_partitions_revoked, weak=False)
    return judge


async def _serve(
    log: Log,
    stream: StreamConfig,
    fraud: FraudConfig,
    run_dir: Path,
    index: int,
    stop: threading.Event,
) -> None:
    failure: list[BaseException] = []
    sender, metrics = VerdictSender(log, stream), FraudMetrics()
    start_metrics(run_dir, "fraud", index, metrics)
    app = make_app(stream, run_dir, index)
    sent, ends = functools.partial(sent_watermarks, log, stream), InputEnds(log)
    judge = make_judge(
        app,
        stream,
        fraud,
        sender,
        metrics,
        failure.append,
        LogView(sent, ends.look),
    )
    loop = metrics.liveness.loop("judge")  # turned by the event loop that judges
    try:
        await app.start()
        while not stop.is_set() and not failure and app.crash_reason is None:
            loop.turn()
            await asyncio.sleep(0.1)
            if app.tables.recovery.completed.is_set():
                await judge.look_behind()
    finally:
        loop.rest()
        with contextlib.suppress(asyncio.CancelledError):
            await app.stop()
        await sender.close()
        ends.close()
    if failure or app.crash_reason is not None:
        raise failure[0] if failure else app.crash_reason


def await_broker(log: Log, stream: StreamConfig, stop: threading.Event) -> None:
    """Until a broker answers, or `stop`: Faust ends where there is none as it starts."""
    pause_s = stream.reconnect_max_ms / 1_000
    while not stop.is_set():
        try:
            log.partitions(stream.signals)
            return
        except Unavailable as error:
            logger.warning("%s; tried again each %g s", error, pause_s)
        stop.wait(pause_s)


def run(
    log: Log,
    stream: StreamConfig,
    fraud: FraudConfig,
    run_dir: Path,
    index: int,
    stop: threading.Event,
) -> None:
    """Judge until `stop`. Raises ValueError for a configuration that it cannot serve, and
    whatever ended it."""
    check(stream, fraud)
    await_broker(log, stream, stop)
    if stop.is_set():
        return
    asyncio.run(_serve(log, stream, fraud, run_dir, index, stop))


def check(stream: StreamConfig, fraud: FraudConfig) -> None:
    """What the two sections must agree on. Raises ValueError naming key, value, and what is
    allowed."""
    check_room(stream, fraud)
