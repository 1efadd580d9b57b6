"""The partitions that one process labels: fold, read, label, send, and fold again after any failed
send (C2, C5, C6).

Everything here goes through `stream.log.log`; the loop, threads and the clock are the service's.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from labeler.click_cache import PagesFailed
from labeler.config import LabelerConfig
from labeler.io import FetchQueue, Message, Outbox, Outgoing, SetAside, TailReader, Wait
from labeler.join import LabelStrategy, label_strategies
from labeler.joined_inputs import JoinedInputs
from labeler.labels.emission import REJECTED, Emission, SideRecord
from labeler.labels.emitter import Emitter, ExamplesEmitter, Reading
from labeler.labels.folding import ChainFolding, Totals, inputs_of
from labeler.labels.label_inputs import awaited_inputs
from labeler.labels.lost_range import LostRange, Missing, PartitionStop, behind
from labeler.labels.operator_overrides import OperatorOverrides, OverrideSearch
from labeler.labels.partition import PartitionLabeler
from labeler.labels.remade_topics import Remade
from labeler.labels.verdict_index import VerdictIndex
from labeler.labels.verdict_queue import VerdictQueue
from stream import Partition, StreamConfig, offset_of, position
from stream.internal_topics import BatchHeader, PassedOver
from stream.log import Log, OffsetOutOfRange, Reader, SendFailed, Unavailable, Writer
from stream.log.rows import RowsFailed, RowStorage

logger = logging.getLogger(__name__)

_REASONS = ("window", "verdicts", "counts", "catalogue", "idle")
#: How often operators' words are looked for (L7, C7, T3).
OVERRIDE_POLL_MS = 2_000


@dataclass
class PartitionTask:
    """One partition: its core, what was fetched for it, and what it still has to send."""

    core: PartitionLabeler
    impressions: FetchQueue
    clicks: FetchQueue
    outbox: Outbox[Emission]
    overrides: OperatorOverrides  # what operators had said when it was started
    gone: dict[str, Missing | Remade] = field(
        default_factory=dict
    )  # by topic: these cannot be read on (C7)
    said: set[PartitionStop] = field(default_factory=set)  # stops that stand in the log
    restarts: bool = False  # once what is on its way has come


class Labelling:
    """Owns the labelling readers and the writer of `examples`, `rejected`, `quarantine`. Belongs
    to one thread."""

    def __init__(
        self,
        stream: StreamConfig,
        labeler: LabelerConfig,
        log: Log,
        strategy: LabelStrategy | None = None,
        emitter: Emitter | None = None,
        pages: RowStorage | None = None,
        passed_over: PassedOver | None = None,
        elapsed_s: Callable[[], float] = lambda: 0.0,
    ):
        """`strategy`: which reading this is; the first unless given. `emitter`: what ranges become;
        training batches unless given (`labeler.breaker.early_join` gives another). `pages`: where
        the local copy lies (C4). `passed_over`: counts records of internal topics that say nothing.
        `elapsed_s`: tells what looks at the log cost."""
        self._strategy = strategy or label_strategies(stream)[0]
        self._stream, self._labeler, self._log = stream, labeler, log
        self._emitter = emitter or ExamplesEmitter(stream)
        self._inputs = awaited_inputs(stream, labeler)
        self.totals = Totals()
        self._folding = ChainFolding(
            stream, self._strategy, self._emitter, labeler.fold_records_max, self.totals
        )
        self._verdicts = Partition(stream.verdicts, 0)
        self._reader: Reader = log.reader()
        self._writer: Writer | None = None
        self._pages = pages
        self._owned: frozenset[int] = frozenset()
        self._retry, self._overrides_wait = Wait(), Wait()
        self._verdict_queue = VerdictQueue(stream, elapsed_s)  # read, and not taken yet
        self.passed_over = passed_over or PassedOver(logger)
        self.joined = JoinedInputs(
            stream, self.passed_over, labeler.kept_bytes_max, labeler.catalogue_bytes_max
        )
        self._search = OverrideSearch(
            log, stream, labeler.fold_orders_max, self.passed_over, elapsed_s
        )
        self._acknowledged: list[BatchHeader] = []
        self.tasks: dict[int, PartitionTask] = {}
        self.verdict_index: VerdictIndex | None = None
        self._labels_move = False  # whether the last turn labelled anything, or read what it will

    def own(self, partitions: Iterable[int]) -> None:
        """The partitions that the group gives this process. What is lost stops at once; new ones
        start by folding."""
        owned = frozenset(partitions)
        if owned == self._owned:
            return
        self._owned = owned
        lost = self.tasks.keys() - self._owned
        for p in lost:
            self._drop(p)
        if lost:
            self._assign([])

    def run_once(self, now_ms: int, wait_ms: int) -> bool:
        """Read, label and send once. True if anything moved; waits at most `wait_ms` for records
        otherwise."""
        if not self._retry.over(now_ms):
            return False
        try:
            self._apply_overrides(now_ms)
            self._start_tasks()
            self._check_ids(now_ms)
            moved = self._read(now_ms, wait_ms)
            self._take_verdicts(now_ms)
            self._labels_move = False
            for task in self.tasks.values():
                self._labels_move |= self._label(task)
                moved |= self._send(task, now_ms)
            return moved or self._labels_move
        except (SendFailed, Unavailable, MemoryError) as error:
            logger.warning("fold again in %d ms: %r", self._labeler.retry_ms, error)
            self._forget(now_ms)
            return False
        except RowsFailed as error:
            logger.error("labels wait: %s", error)
            self.totals.catalogue_failures += 1
            self._forget(now_ms)
            self.joined.begin_anew()
            return False
        except PagesFailed as error:
            logger.error("fold again, and on without the local copy: %s", error)
            self._pages = None
            self.totals.copy_failures += 1
            self._forget(now_ms)
            return False

    def drain(self, now_ms: int) -> bool:
        """Finish the record on its way in each partition, begin nothing. True when there is none
        left."""
        if self._writer is None:
            return True
        try:
            for task in self.tasks.values():
                if task.outbox.in_flight:
                    self._acknowledge(task.outbox.advance(self._writer, now_ms, start=False))
        except SendFailed as error:
            logger.warning("draining: %s", error)  # the next labeler folds what is there
            return True
        return not any(task.outbox.in_flight for task in self.tasks.values())

    def close(self) -> None:
        """Drop readers and writer."""
        self._reader.close()
        if self._pages is not None:
            self._pages.close()
        if self._writer is not None:
            self._writer.close()
        self.joined.close()

    def take_acknowledged(self) -> list[BatchHeader]:
        """Headers of the batches that reached the log since this was last asked."""
        taken, self._acknowledged = self._acknowledged, []
        return taken

    @property
    def waiting(self) -> str:
        """One word for why nothing is written: what most partitions wait for, a stop aside."""
        reasons = [
            task.core.waiting for task in self.tasks.values() if task.core.waiting != "stopped"
        ]
        if any(len(task.outbox) for task in self.tasks.values()):
            return "none"
        return max(_REASONS, key=reasons.count) if reasons else "idle"

    @property
    def in_flight(self) -> bool:
        return any(task.outbox.in_flight for task in self.tasks.values())

    def wait(self, timeout_ms: int) -> None:
        """Until a record on its way is acknowledged, or for this long."""
        if self._writer is not None:
            self._writer.wait(timeout_ms)

    # --- starting
    # ----------------------------------------------------------------------------------------------

    def _start_tasks(self) -> None:
        new = sorted(self._owned - self.tasks.keys())
        if not new:
            return
        tail = TailReader(self._log, self._stream.poll_records_max, self.passed_over)
        try:
            overrides = self._search.all(tail, new)
            found = self._folding.fold(tail, new, overrides.lost)
            begins = self.joined.begins(tail)
        finally:
            tail.close()
        points = {p: one.point for p, one in found.items()}
        held = [task.core.point for task in self.tasks.values()]
        self.joined.start([*points.values(), *held], begins)
        for task in self.tasks.values():
            self.joined.use(task.core)
        if self._inputs:
            self.verdict_index = VerdictIndex.at(
                self._inputs, [*points.values(), *held], self._stream.hash_key
            )
            self.verdict_index.skip(
                behind(overrides.lost, *self._verdicts, self.verdict_index.next_offset)
            )
            for task in self.tasks.values():
                task.core.use(self.verdict_index)
        if self._writer is None:
            self._writer = self._log.writer()
        for p, point in points.items():
            reading = Reading(self._strategy, self._emitter, self._pages)
            core = PartitionLabeler(
                self._stream, self._labeler, p, point, self.verdict_index, reading, overrides
            )
            self.totals.restored_clicks += core.clicks.restored
            self.tasks[p] = PartitionTask(
                core, self._feed(), self._feed(), self._outbox(), overrides
            )
            self.joined.use(core)
            core.never_read(found[p].never_read)
            for one in found[p].remade:
                self._lack(self.tasks[p], one, position(one.end))
            logger.info("%s/%d goes on from position %d", self._strategy.kind, p, point.start)
        self._assign(new, overrides.lost)

    def _apply_overrides(self, now_ms: int) -> None:
        """A partition that stopped goes on once an operator has set the record aside (L7), or
        declared lost what is gone (C7); any begins again once its times are set back (T3)."""
        if self._overrides_wait.over(now_ms) and self._search.rested:
            self._overrides_wait.begin(now_ms, OVERRIDE_POLL_MS)
            self._look_for_overrides()
        for p, task in list(self.tasks.items()):
            if task.restarts and not task.outbox.in_flight:
                self._drop(p)

    def _drop(self, p: int) -> None:
        del self.tasks[p]
        if self.verdict_index is not None:
            self.verdict_index.done(p)
        self.joined.drop(p)

    def _look_for_overrides(self) -> None:
        stopped = [p for p, task in self.tasks.items() if task.core.stopped is not None]
        overrides = self._search.more(self._reader, self.tasks, stopped)
        if overrides is None:
            return
        for p, task in self.tasks.items():
            wanted = {
                SetAside(stop.topic, p, offset_of(stop.position))
                for stop in task.core.stops
                if not stop.gone
            }
            found = wanted & overrides.aside - task.overrides.aside
            clocks = {one for one in overrides.clocks - task.overrides.clocks if one.partition == p}
            for one in sorted(found | clocks):
                logger.info("partition %d goes on by an operator's override: %s", p, one)
            # where a topic was made anew, it starts again in the one that is there
            anew = any(
                isinstance(one, Remade) and one.skipped(overrides.lost)
                for one in task.gone.values()
            )
            task.restarts |= bool(found or clocks) or anew
        self._pass_over(overrides.lost)

    def _pass_over(self, lost: Iterable[LostRange]) -> None:
        """C7: what is gone is read on behind, where an operator has said so."""
        gone = {
            m for task in self.tasks.values() for m in task.gone.values() if isinstance(m, Missing)
        }
        for missing in gone:
            one = missing.skipped(lost)
            if one is None:
                continue
            at = Partition(missing.topic, missing.partition)
            if at == self._verdicts and len(self._verdict_queue):
                continue  # what was read before is taken first
            if missing.beyond and self._reader.end_offsets([at])[at] < one.end:
                continue  # what comes below is given offsets that were read
            logger.warning("goes on without %s, on an operator's override", one)
            if at == self._verdicts and self.verdict_index is not None:
                self.verdict_index.skip(one.end)
            for task in self.tasks.values():
                if task.gone.get(at.topic) == missing:
                    task.core.skip(one)
                    del task.gone[at.topic]
            self._assign([])
            self._reader.seek(at, one.end)

    def _assign(self, new: list[int], lost: Iterable[LostRange] = ()) -> None:
        """Read what all lines need; `new` ones, and verdicts, from their resume points."""
        wanted = [
            at
            for p, task in self.tasks.items()
            for at in self._inputs_of(p)
            if at.topic not in task.gone
        ]
        gone = any(self._verdicts.topic in task.gone for task in self.tasks.values())
        if self.verdict_index is not None and (
            new or not gone
        ):  # a new line is to hear that they are gone
            wanted.append(self._verdicts)
        wanted += self.joined.offsets
        self._reader.assign(wanted)
        for p in new:
            core = self.tasks[p].core
            for at, offset in zip(
                self._inputs_of(p), (core.point.impressions_offset, core.clicks.offset), strict=True
            ):
                if at.topic in self.tasks[p].gone:
                    continue
                end = behind(lost, *at, offset)
                if end > offset:
                    core.skip(LostRange(*at, offset, end))
                self._reader.seek(at, end)
        if self.verdict_index is not None and new:
            self._reader.seek(self._verdicts, self.verdict_index.next_offset)
            self._verdict_queue.forget()
        for at, offset in self.joined.offsets.items() if new else ():
            self._reader.seek(at, offset)

    def _forget(self, now_ms: int) -> None:
        """C5: the writer is dropped unflushed, every position is forgotten, and the log is
        folded again."""
        if self._writer is not None:
            self._writer.close()
        self._writer, self.verdict_index = None, None
        self._verdict_queue.forget()
        self.joined.forget()
        self.tasks.clear()
        self._reader.assign(())
        self._retry.begin(now_ms, self._labeler.retry_ms)
        self.totals.refolds += 1

    # --- reading
    # ----------------------------------------------------------------------------------------------

    def _read(self, now_ms: int, wait_ms: int) -> bool:
        full: set[Partition] = set()
        open_: set[Partition] = set()
        for p, task in self.tasks.items():
            for at, feed in zip(self._inputs_of(p), (task.impressions, task.clicks), strict=True):
                if at.topic not in task.gone:
                    (full if feed.full else open_).add(at)
        if self.verdict_index is not None:
            # After an outage a day of them may stand in the log: a full index is read on when
            # labels stand still.
            rests = self._verdict_queue.full or (self.verdict_index.is_full and self._labels_move)
            (full if rests else open_).add(self._verdicts)
        full |= self.joined.rests([task.core for task in self.tasks.values()])
        open_ |= self.joined.offsets.keys() - full
        self._reader.pause(full)
        self._reader.resume(open_)
        try:
            polled = self._reader.poll(self._stream.poll_records_max, wait_ms)
        except OffsetOutOfRange as error:
            self._on_gone(error)
            return True
        for at, records in polled.items():
            if at == self._verdicts:
                self._verdict_queue.put(records, now_ms)
            elif not self.joined.take(at, records) and at.partition in self.tasks:
                task = self.tasks[at.partition]
                (task.impressions if at.topic == self._stream.impressions else task.clicks).put(
                    records
                )
        return bool(polled)

    def _take_verdicts(self, now_ms: int) -> None:
        """F3: what contradicts the log counts for nothing."""
        if self.verdict_index is None or not len(self._verdict_queue):
            return
        heard = self._verdict_queue.take(self._reader, now_ms)
        for one in self.verdict_index.take(heard):
            assert one.error is not None
            self.passed_over.add(self._verdicts, one.record, one.error)

    def _on_gone(self, error: OffsetOutOfRange) -> None:
        """Input that a partition still needs is gone: it stops with an alarm; an operator's
        override is needed (C7)."""
        at = error.partition
        if (offset := self.joined.skip(error)) is not None:
            return self._reader.seek(at, offset)
        lines = [
            task for p, task in self.tasks.items() if at in (self._verdicts, *self._inputs_of(p))
        ]
        points = [task.core.point for task in lines]
        needed = {
            self._stream.impressions: lambda point: point.impressions_offset,
            self._stream.clicks: lambda point: point.clicks_offset,
            self._stream.verdicts: lambda point: point.verdicts_offset,
        }[at.topic]
        missing = Missing(
            *at,
            error.offset,
            error.first,
            error.end,
            min(map(needed, points), default=error.offset),
        )
        for task in lines:
            self._lack(task, missing, position(error.offset))
        self._assign([])

    def _lack(self, task: PartitionTask, lacks: Missing | Remade, at: int) -> None:
        task.gone[lacks.topic] = lacks
        task.core.stop(lacks.topic, at, str(lacks), lacks.range, force=isinstance(lacks, Remade))
        logger.error("stopped: %s", task.core.stopped)

    def _check_ids(self, now_ms: int) -> None:
        """C7: a topic that was deleted and made anew meanwhile: all begins again, and says what
        it means."""
        for task in self.tasks.values():
            for topic, was in task.core.point.topic_ids.items():
                now = self._reader.topic_id(topic)
                if now and was != now and topic not in task.gone:
                    logger.error(
                        "topic %s was deleted and made anew: id %s, now %s", topic, was, now
                    )
                    self._forget(now_ms)
                    return

    # --- labelling and sending
    # ------------------------------------------------------------------------------------

    def _label(self, task: PartitionTask) -> bool:
        """Give the core what it wants, and take what it has decided, while there is room."""
        moved, take = False, self._labeler.take_records_max
        while not task.outbox.full:
            given = False
            if len(task.impressions) and task.core.wants_impressions():
                task.core.on_impressions(task.impressions.take(take))
                given = True
            if len(task.clicks) and task.core.wants_clicks():
                task.core.on_clicks(task.clicks.take(take))
                given = True
            emissions = task.core.step(self._labeler.outbox_max)
            task.restarts |= self.joined.left_behind(task.core)
            if task.core.waiting == "stopped" and not task.gone and self.verdict_index:
                self.verdict_index.done(task.core.partition)  # where it goes on, it begins again
            self._say_stops(task)
            for emission in emissions:
                task.outbox.put(self._outgoing(task.core.partition, emission))
            if not given and not emissions:
                break
            moved = True
        return moved

    def _say_stops(self, task: PartitionTask) -> None:
        """L7: loud, once."""
        for stop in task.core.stops:
            if (
                stop not in task.said and stop.gone is None
            ):  # else it was said when it was found to be gone
                logger.error("stopped: %s", stop)
            task.said.add(stop)

    def _send(self, task: PartitionTask, now_ms: int) -> bool:
        assert self._writer is not None
        acknowledged = task.outbox.advance(self._writer, now_ms, start=not task.restarts)
        if acknowledged:
            task.core.on_acknowledged(acknowledged[-1].header)
        self._acknowledge(acknowledged)
        return bool(acknowledged)

    def _acknowledge(self, emissions: list[Emission]) -> None:
        self._acknowledged += [emission.header for emission in emissions]

    def _outgoing(self, partition: int, emission: Emission) -> Outgoing[Emission]:
        examples = Partition(self._emitter.topic, partition)
        message = Message(examples, emission.value, None, emission.header.to_headers())
        return Outgoing(
            message, [self._side(partition, side) for side in emission.before], emission
        )

    def _side(self, partition: int, side: SideRecord) -> Message:
        topic = self._stream.rejected if side.topic == REJECTED else self._stream.quarantine
        return Message(Partition(topic, partition), side.value, side.key, side.headers)

    def _inputs_of(self, p: int) -> tuple[Partition, Partition]:
        return inputs_of(self._stream, p)

    def _feed(self) -> FetchQueue:
        return FetchQueue(
            self._stream, self._labeler.feed_records_max, self._labeler.feed_bytes_max
        )

    def _outbox(self) -> Outbox[Emission]:
        return Outbox(self._labeler.outbox_max, self._labeler.send_timeout_ms)
