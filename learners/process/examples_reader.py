"""Reads `examples` as a group member, on a thread of its own: what was read goes to the core,
its seeks come back."""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from learners.config import LearnerConfig
from learners.pacing import Batch, events
from learners.pacing import instructions as do
from learners.process.metrics import LearnerMetrics
from learners.training import Published
from stream import (
    KINDS,
    LABEL,
    Backoff,
    IdleWait,
    Partition,
    Record,
    StreamConfig,
    kind_of,
    parse_ms,
    partition_of,
)
from stream.internal_topics import BatchHeader, MalformedRecord, PassedOver, json_object
from stream.log import Log, LogError, OffsetOutOfRange, Reader, Unavailable

log = logging.getLogger(__name__)

#: Of a poll, ms, and how many times as long where nothing comes.
POLL_MS, IDLE_MAX = 20, 8
#: Records read and not yet taken by the main thread, beyond which the reader waits.
UNTAKEN_MAX = 64
#: Between two attempts at an archive whose store fails, the first and the longest, ms.
ARCHIVE_RETRY_MS = (200, 5_000)
CHECKPOINTS_POLL_MS = 200
#: Reading on in `checkpoints` may take this long, and a version that is not there is looked for
#: again this much later.
CHECKPOINTS_TIMEOUT_S, CHECKPOINTS_AGAIN_S = 5.0, 2.0
#: Of those so many are remembered.
MISSING_MAX = 10_000
#: Pause after a topic that could not be read, doubled up to the second: where it was deleted each
#: look waits for it.
CHECKPOINTS_RETRY_MS, CHECKPOINTS_RETRY_MAX_MS = 2_000, 60_000


def as_batch(partition: int, record: Record) -> Batch:
    """A record of `examples` as the core takes it. Raises MalformedRecord for headers that say
    nothing, also where they name a chain that has no place in this partition (C1)."""
    header = BatchHeader.from_headers(record.headers)
    if kind_of(header.chain) not in KINDS or partition_of(header.chain) != partition:
        raise MalformedRecord(
            "examples",
            "header chain",
            f"{header.chain!r:.80} has no place in partition {partition}",
        )
    return Batch(
        partition,
        header.chain,
        header.start,
        header.end,
        record.offset,
        record.offset + 1,
        header.labelled,
        header.barrier,
        header.arrival_max_ms,
        record.value,
        late_micro=header.late_micro,
        on_time_micro=header.on_time_micro,
        again=header.again,
    )


class ExamplesReader:
    """`give` takes events and exceptions; `untaken` says how many it still holds."""

    def __init__(
        self,
        log: Log,
        stream: StreamConfig,
        config: LearnerConfig,
        group: str,
        member: str,
        give: Callable[[Any], None],
        untaken: Callable[[], int],
        metrics: LearnerMetrics,
    ):
        self._topic, self._config, self._give, self._untaken = (
            stream.examples,
            config,
            give,
            untaken,
        )
        self._reader, self._metrics = log.group_reader(group, member), metrics
        self.passed_over = PassedOver(logging.getLogger(__name__), metrics.on_malformed)
        self._orders: deque[do.Seek | do.Pause | do.Resume] = deque()
        self._seeks: dict[Partition, int] = {}  # of the assigned partitions that were sought
        self._assigned: set[Partition] = set()
        self._until_ms = parse_ms(config.until) if config.until else None
        self._ended: set[Partition] = set()  # read up to `until`: paused for good
        self._paused: set[Partition] = set()  # by an order, until another
        self._archive = Backoff(*ARCHIVE_RETRY_MS)
        self._archive_fails_s = 0.0  # since when; 0 = it does not
        metrics.archive_failing_s.set_function(self._archive_failing_s)
        self._idle = IdleWait(POLL_MS, IDLE_MAX * POLL_MS)
        self._said_idle = False  # and nothing was given or ordered since
        self._stopped, self._woken = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="examples", daemon=True)

    def start(self) -> None:
        self._reader.subscribe(self._topic, self._on_assigned, self._on_revoked)
        self._thread.start()

    def order(self, instruction: do.Seek | do.Pause | do.Resume) -> None:
        """Performed before the next poll."""
        self._orders.append(instruction)
        self._woken.set()

    def stop(self) -> None:
        self._stopped.set()
        self._woken.set()
        self._thread.join()
        self._reader.close()

    def _on_assigned(self, partitions: list[Partition]) -> None:
        self._assigned |= set(partitions)
        self._give(events.Assigned([p.partition for p in partitions]))

    def _on_revoked(self, partitions: list[Partition]) -> None:
        self._assigned -= set(partitions)
        self._ended -= set(partitions)
        self._paused -= set(partitions)
        for partition in partitions:
            self._seeks.pop(partition, None)
        self._give(events.Revoked([p.partition for p in partitions]))

    def _run(self) -> None:
        loop = self._metrics.liveness.loop("examples")
        try:
            while not self._stopped.is_set():
                loop.turn()
                self._turn()
            loop.rest()
        except BaseException as error:  # the main thread raises it
            self._give(error)

    def _turn(self) -> None:
        began = time.monotonic()
        self._woken.clear()
        try:
            while self._orders:
                self._idle.turned(moved=True)
                self._perform(self._orders[0])
                self._orders.popleft()
                self._said_idle = False
            if self._untaken() >= UNTAKEN_MAX:
                self._stopped.wait(POLL_MS / 1000)
                return
            wait_ms = self._idle.wait_ms
            fetched = self._reader.poll(self._config.poll_records_max, wait_ms)
        except OSError as error:  # of the archive that the topic goes on into
            self._wait_for_archive(error)
            return
        except Unavailable as error:
            log.warning("waiting for the broker: %s", error)
            return
        except OffsetOutOfRange as error:
            self._reader.pause([error.partition])
            if (seek := self._seeks.pop(error.partition, None)) is not None:
                self._give(events.Truncated(seek, error.partition.partition, error.first))
            return
        if self._archive_fails_s:
            log.warning("the archive answers, after %.0f s", self._archive_failing_s())
            self._archive_fails_s = 0.0
            self._archive.worked()
        for partition, records in fetched.items():
            if (number := self._seeks.get(partition)) is not None:
                batches = [
                    b for b in map(self._read, [partition] * len(records), records) if b is not None
                ]
                if self._until_ms is not None:
                    batches = self._before(self._until_ms, partition, batches)
                self._said_idle = False
                self._give(events.Records(number, partition.partition, batches))
        # Who is paused is about to be resumed, which waits for the poll under way.
        self._idle.turned(bool(fetched) or bool(self._paused))
        if not fetched:
            self._nothing(began, wait_ms)

    def _wait_for_archive(self, error: OSError) -> None:
        """Its store fails, or is late: what was to be read, or ordered, is tried again."""
        if not self._archive_fails_s:
            self._archive_fails_s = time.monotonic()
            log.warning("waiting for the archive: %s: %s", type(error).__name__, error)
        self._stopped.wait(self._archive.failed(random.random()) / 1_000)

    def _archive_failing_s(self) -> float:
        since_s = self._archive_fails_s
        return time.monotonic() - since_s if since_s else 0.0

    def _nothing(self, began_s: float, wait_ms: int) -> None:
        """Say so, once: the core keeps it. A log that answers at once, as where all is paused, is
        not asked again before a poll's time is over, or an order comes."""
        if not self._orders and not self._said_idle:
            self._said_idle = True
            self._give(events.Idle())
        if (
            not self._stopped.is_set()
        ):  # looked at after `_woken` was cleared: whoever stops sets it first
            self._woken.wait(max(0.0, began_s + wait_ms / 1000 - time.monotonic()))

    def _before(self, until_ms: int, partition: Partition, batches: list[Batch]) -> list[Batch]:
        """The batches up to the first of labels whose arrivals reach `until_ms`; behind it
        nothing is read."""
        if partition in self._ended:
            return []
        for at, batch in enumerate(batches):
            if kind_of(batch.chain) == LABEL and batch.time_ms >= until_ms:
                self._ended.add(partition)
                self._reader.pause([partition])
                return batches[:at]
        return batches

    def _read(self, partition: Partition, record: Record) -> Batch | None:
        """A record whose headers say nothing extends no chain (C2); were it part of one, the
        next would dangle."""
        try:
            return as_batch(partition.partition, record)
        except MalformedRecord as error:
            self._metrics.unreadable.inc()
            self.passed_over.add(partition, record, error)
            return None

    def _perform(self, order: do.Seek | do.Pause | do.Resume) -> None:
        partition = Partition(self._topic, order.partition)
        if partition not in self._assigned:
            return  # taken away meanwhile
        if isinstance(order, do.Pause):
            self._reader.pause([partition])
            self._paused.add(partition)
        elif isinstance(order, do.Resume):
            self._paused.discard(partition)
            if partition not in self._ended:
                self._reader.resume([partition])
        else:
            if partition in self._ended:
                self._ended.discard(partition)
                self._reader.resume([partition])
            record = order.record
            if record is None:
                record = self._reader.beginning_offsets([partition])[partition]
            self._reader.seek(partition, record)
            self._seeks[partition] = order.seek


class CheckpointsReader:
    """Keeps `Published` up to date from the topic `checkpoints`. Belongs to the thread that
    evaluates."""

    def __init__(
        self, log: Log, topic: str, published: Published, count: Callable[[str], None] | None = None
    ):
        """`count` is told the topic of each record that says nothing."""
        self._log, self._topic, self._published = log, topic, published
        logger = logging.getLogger(__name__)
        self.passed_over = PassedOver(logger) if count is None else PassedOver(logger, count)
        self._reader: Reader | None = None
        self._partitions: list[Partition] = []
        self._topic_id = ""
        self._missing: set[str] = (
            set()
        )  # versions that the topic did not hold when it was last read to its end
        self._forget_at_s = 0.0
        self._backoff, self._again_at_s = (
            Backoff(CHECKPOINTS_RETRY_MS, CHECKPOINTS_RETRY_MAX_MS),
            0.0,
        )

    def catch_up(self, versions: pa.Array) -> None:
        """Read the topic to its end if one of these versions is not known yet. One that is not
        there was not announced to us, so its predictions do not count (E2); for a while nobody
        looks for it again, nor for any where the topic cannot be read."""
        now_s = time.monotonic()
        if now_s >= self._forget_at_s or len(self._missing) > MISSING_MAX:
            self._missing.clear()
            self._forget_at_s = now_s + CHECKPOINTS_AGAIN_S
        if now_s < self._again_at_s or not self._published.unknown(versions) - self._missing:
            return
        try:
            self._read_to_the_end(now_s + CHECKPOINTS_TIMEOUT_S)
        except Unavailable as error:
            log.warning("versions unknown, so their predictions do not count as served: %s", error)
            self.close()
            pause_s = self._backoff.failed(random.random()) / 1000
            self._again_at_s = time.monotonic() + pause_s
        else:
            self._backoff.worked()
            self._missing |= self._published.unknown(versions)

    def _read_to_the_end(self, until_s: float) -> None:
        reader, ends = self._opened()
        while (
            any(reader.position(p) < end for p, end in ends.items()) and time.monotonic() < until_s
        ):
            try:
                polled = reader.poll(500, CHECKPOINTS_POLL_MS)
            except OffsetOutOfRange as error:
                reader.seek(error.partition, error.first)
                continue
            for at, records in polled.items():
                for record in records:
                    self._take(at, record)

    def _opened(self) -> tuple[Reader, dict[Partition, int]]:
        """The reader, and where its partitions end; a new one where the topic was made anew."""
        if self._reader is not None:
            ends = self._reader.end_offsets(self._partitions)
            now = self._reader.topic_id(self._topic)
            same = not now or now == (self._topic_id or now)
            if same and all(self._reader.position(p) <= end for p, end in ends.items()):
                self._topic_id = now
                return self._reader, ends
            log.warning("%s was made anew, and is read from its beginning", self._topic)
            self.close()
        reader = self._reader = self._begin()
        return reader, reader.end_offsets(self._partitions)

    def _begin(self) -> Reader:
        """Raises Unavailable, also where there is no such topic."""
        count = self._log.partitions(self._topic)
        if not count:
            raise Unavailable(f"there is no topic {self._topic!r}")
        self._partitions = [Partition(self._topic, p) for p in range(count)]
        reader = self._log.reader()
        try:
            reader.assign(self._partitions)
            for partition, first in reader.beginning_offsets(self._partitions).items():
                reader.seek(partition, first)
            self._topic_id = reader.topic_id(self._topic)
        except LogError:
            reader.close()
            raise
        return reader

    def _take(self, at: Partition, record: Record) -> None:
        try:
            self._published.announced(json_object("checkpoints", record.value).body)
        except MalformedRecord as error:
            self.passed_over.add(at, record, error)

    def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
