"""For sites: events in, batches to the log. Bounded, at least once; what is dropped is one event
that is larger than its topic takes.

Events are checked when they are given, pseudonymised (session, source, personal features), placed
by their session (T5), gathered per partition and sent as Arrow IPC by a thread of the producer's
own. What is not acknowledged is sent again, over a new connection and in its order; the pipeline
counts a repeated id once (L2).

A dead broker: events gather up to `buffer_bytes_max`, then calls block for `block_ms_max`, then
they raise `BufferFull`. What was accepted stays and is sent when the broker returns; whatever goes
wrong meanwhile, the thread begins anew after a pause. A process that is forked off has nothing of
its parent's: neither its events, which the parent sends, nor its connections.
"""

import logging
import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa

from stream.columns import FIELD_CHARS_MAX, rounded, string_faults
from stream.config import StreamConfig
from stream.decoding import (
    PRODUCER,
    Shape,
    click_shape,
    impression_shape,
    row_faults,
    too_many_pixels,
)
from stream.hashing import Pseudonymiser, partition_of_key
from stream.log import Append, Log, LogError, SendFailed, Writer
from stream.producer.config import ProducerConfig
from stream.producer.open_batch import ROW_OVERHEAD_BYTES, OpenBatch, pictures, value_bytes
from stream.record import Partition

log = logging.getLogger(__name__)

ACK_POLL_S = 0.005
PAUSE_S_MIN = 0.02  # after a first failure; each further one doubles it, up to reconnect_max_ms
RECORD_MARGIN_BYTES = 65_536  # of record_bytes_max, for the schema and what Kafka puts around
UNDECLARED_MAX = 100  # names of features that are remembered as not declared


class BufferFull(Exception):
    """The broker takes nothing and the buffer is full: this event was not accepted; give it
    again later."""


class Undelivered(Exception):
    """Time ran out with events that are accepted and not yet in the log."""


class Delivery(NamedTuple):
    """A batch that is in the log: where, and the ids of its events."""

    partition: Partition
    offset: int
    ids: list[str]


def _row(name: str, event: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(event, Mapping):
        raise TypeError(f"{name} = {event!r:.100}: a mapping of fields is meant, no JSON")
    return dict(event)


_producers: "weakref.WeakSet[EventProducer]" = weakref.WeakSet()


def _begin_anew_after_fork() -> None:
    for producer in list(_producers):
        producer.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_after_fork)


class EventProducer:
    """Safe to use from many threads. Close it, or use it in a `with` block, to be sure that all
    is delivered."""

    def __init__(
        self,
        log: Log,
        stream: StreamConfig,
        pseudonymise: Pseudonymiser | Callable[[str], str],
        config: ProducerConfig | None = None,
        on_delivery: Callable[[Delivery], None] | None = None,
    ):
        """`pseudonymise` is a `Pseudonymiser`; `str` sends identifiers as they are. `on_delivery`
        is called on the producer's thread; what it raises is logged, and raised by the next `flush`
        or `close`. Raises TypeError for what is of another type."""
        for name, given, is_it, meant in (
            ("log", log, callable(getattr(log, "writer", None)), "a log, such as KafkaLog(stream)"),
            ("stream", stream, isinstance(stream, StreamConfig), "a StreamConfig"),
            ("pseudonymise", pseudonymise, callable(pseudonymise), "a Pseudonymiser, or str"),
            ("config", config, isinstance(config, ProducerConfig | None), "a ProducerConfig"),
            ("on_delivery", on_delivery, callable(on_delivery or str), "a function"),
        ):
            if not is_it:
                raise TypeError(f"{name} = {given!r:.100}: {meant} is meant")
        self._log, self._stream, self._pseudonymise = log, stream, pseudonymise
        self._config = config or ProducerConfig()
        self._on_delivery = on_delivery
        self._personal = {f.name for f in stream.features if f.personal}
        self._declared = {f.name for f in stream.features}
        self._aliases = {f.alias for f in stream.features if f.alias}
        self.undeclared: dict[
            str, int
        ] = {}  # features of events that are not declared, and how often
        self.dropped = (
            0  # events that were accepted and cannot be written: larger than their topic takes
        )
        self.failures = 0  # times that sending failed and began anew
        self._told = set[str]()  # topics of other partitions than the config says
        self.begin_anew()
        _producers.add(self)

    def begin_anew(self) -> None:
        """Nothing accepted, nothing connected: as at first, and as in a process that was forked
        off."""
        self._changed = threading.Condition()
        self._gathering: dict[Partition, OpenBatch] = {}
        self._ready: deque[OpenBatch] = deque()
        self._sent: deque[tuple[OpenBatch, Append]] = deque()  # of the thread alone
        self._taken_bytes: dict[str, int] = {}  # by topic that refused a record: what to send
        self._buffered_bytes = 0
        self._buffered_rows = 0
        self._rows_by_flushes = Counter[int]()  # the same, by what their batches say
        self._flushes = 0  # asked for
        self._flush = self._closing = self._abandoned = False
        self._callback_error: BaseException | None = None
        self._thread: threading.Thread | None = None  # from the first event on

    def impression(self, event: Mapping[str, Any]) -> None:
        """One impression, with the fields of docs/events.md. Raises ValueError naming the field,
        BufferFull; TypeError for an event that is no mapping."""
        row = _row("event", event)
        features = row.pop("features", None)
        self._check({**row, "features": features}, is_click=False)
        features = features or {}
        for name in features.keys() - self._declared - self._aliases:
            self._note_undeclared(name)
        for f in self._stream.features:
            own = features.get(f.name)
            row[f.column] = features.get(f.alias) if own is None and f.alias else own
        personal = [f.column for f in self._stream.features if f.personal]
        self._add(self._stream.impressions, impression_shape(self._stream.features), row, personal)

    def _note_undeclared(self, name: Any) -> None:
        name = str(name)[:FIELD_CHARS_MAX]
        if name in self.undeclared or len(self.undeclared) < UNDECLARED_MAX:
            if name not in self.undeclared:
                log.warning(
                    "feature %r is not declared and is not sent; declared are %s",
                    name,
                    sorted(self._declared),
                )
            self.undeclared[name] = self.undeclared.get(name, 0) + 1

    def page_view(
        self, shared: Mapping[str, Any], impressions: Sequence[Mapping[str, Any]]
    ) -> None:
        """Many impressions that share `ts_ms`, `session`, `source`, `features`, ... As
        `impression`, one by one."""
        _row("shared", shared)
        for one in impressions:
            _row("impressions", one)
            given = [bag.get("features") or {} for bag in (shared, one)]
            odd = [features for features in given if not isinstance(features, Mapping)]
            features = odd[0] if odd else {**given[0], **given[1]}  # an odd one is refused
            self.impression({**shared, **one, "features": features})

    def click(self, event: Mapping[str, Any]) -> None:
        """One click; its `session` and `id` are those of its impression. Raises ValueError,
        BufferFull, TypeError."""
        row = _row("event", event)
        self._check(row, is_click=True)
        self._add(self._stream.clicks, click_shape(), row, [])

    @property
    def buffered_bytes(self) -> int:
        """Accepted and not yet in the log."""
        return self._buffered_bytes

    @property
    def buffered_rows(self) -> int:
        """Events that were accepted and stand in no batch yet."""
        return self._buffered_rows

    def flush(self, timeout_ms: int) -> None:
        """Return once every event that was accepted before is in the log, however many come
        meanwhile. Raises Undelivered; nothing is lost by that. Raises RuntimeError from what
        `on_delivery` raised."""
        self._refuse_own_thread()
        deadline = time.monotonic() + timeout_ms / 1000
        with self._changed:
            self._flush, self._flushes = True, self._flushes + 1
            mine = self._flushes
            self._changed.notify_all()
            if self._buffered_rows:
                self._run_thread()
            while left := sum(n for of, n in self._rows_by_flushes.items() if of < mine):
                if (
                    not self._changed.wait(deadline - time.monotonic())
                    and time.monotonic() >= deadline
                ):
                    raise Undelivered(f"{left} events not delivered within {timeout_ms} ms")
            error, self._callback_error = self._callback_error, None
        if error is not None:
            raise RuntimeError(
                "on_delivery raised, and events were delivered all the same"
            ) from error

    def close(self, timeout_ms: int = 60_000) -> None:
        """Take no more events, flush, then end, within this time. Raises Undelivered if it was too
        short: those events are given up. Again, it does nothing."""
        self._refuse_own_thread()
        deadline = time.monotonic() + timeout_ms / 1000
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        try:
            self.flush(timeout_ms)
        finally:
            with self._changed:
                self._abandoned = self._buffered_rows > 0
                self._changed.notify_all()
            if self._thread is not None:
                self._thread.join(max(0.0, deadline - time.monotonic()))

    def _refuse_own_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("within on_delivery nothing can be waited for: call it elsewhere")

    def __enter__(self) -> "EventProducer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- the caller's side
    # --------------------------------------------------------------------------------------

    def _check(self, event: dict[str, Any], is_click: bool) -> None:
        """Raise for a bad event."""
        of_session = string_faults("session", event.get("session"), needed=True, filled=True)
        for name, reason in chain(row_faults(event, is_click, self._stream), of_session):
            raise ValueError(f"{name} {reason}")

    def _plain(self, row: dict[str, Any], shape: Shape, personal: list[str]) -> dict[str, Any]:
        """The row as it is sent: pseudonymised, and of the types that are written. Raises
        ValueError."""
        plain: dict[str, Any] = {}
        for name, type_ in shape.wire.items():
            value = row.get(name)
            if value and (name in ("session", "source") or name in personal):
                value = self._pseudonymise(value)
                for _, reason in string_faults(name, value, needed=True):
                    raise ValueError(f"{name}: its pseudonym {reason}")
            if isinstance(value, int) and pa.types.is_integer(type_):
                value = int(value)
            plain[name] = rounded(value, type_)
        return plain

    def _add(self, topic: str, shape: Shape, row: dict[str, Any], personal: list[str]) -> None:
        row = self._plain(row, shape, personal)
        partition = Partition(
            topic, partition_of_key(row["session"].encode(), self._stream.partitions)
        )
        if (heavy := too_many_pixels(pictures([row], shape), "record")) is not None:
            raise ValueError(f"the event {heavy[1]}")
        size = ROW_OVERHEAD_BYTES + shape.row_bytes + sum(map(value_bytes, row.values()))
        if size > (allowed := self._record_bytes // 2):
            raise ValueError(
                f"the event takes {size} bytes; allowed are {allowed} (record_bytes_max)"
            )
        deadline = time.monotonic() + self._config.block_ms_max / 1000
        with self._changed:
            self._raise_closed()
            self._run_thread()
            while (
                self._buffered_bytes and self._buffered_bytes + size > self._config.buffer_bytes_max
            ):
                if (
                    not self._changed.wait(deadline - time.monotonic())
                    and time.monotonic() >= deadline
                ):
                    held = (
                        f"{self._buffered_rows} events ({self._buffered_bytes} bytes) wait for "
                        f"the broker"
                    )
                    raise BufferFull(f"{held}; buffer_bytes_max = {self._config.buffer_bytes_max}")
                self._raise_closed()
            batch = self._gathering.get(partition)
            if batch is None:
                due = time.monotonic() + self._config.batch_age_max_ms / 1000
                batch = OpenBatch(partition, shape, due, self._flushes)
                self._gathering[partition] = batch
                self._changed.notify_all()
            batch.rows.append(row)
            batch.size += size
            self._buffered_bytes += size
            self._buffered_rows += 1
            self._rows_by_flushes[batch.flushes] += 1
            if (
                len(batch.rows) >= self._config.batch_rows_max
                or batch.size >= self._record_bytes // 2
            ):
                self._ready.append(self._gathering.pop(partition))
                self._changed.notify_all()

    @property
    def _record_bytes(self) -> int:
        """The largest value of a record."""
        return max(
            self._stream.record_bytes_max - RECORD_MARGIN_BYTES, self._stream.record_bytes_max // 2
        )

    def _raise_closed(self) -> None:
        if self._closing:
            raise RuntimeError("the producer is closed")

    def _run_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name="event-producer", daemon=True)
            thread.start()  # where none can be started now, the next call tries again
            self._thread = thread

    # --- the thread's side
    # --------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Send what is ready, until closed. Whatever fails, begin anew, with a new writer and
        after a pause."""
        writer: Writer | None = None
        pause_s = PAUSE_S_MIN
        self._take_back(0)  # of a thread before it, if one has died
        while not self._abandoned and not (self._closing and not self._buffered_rows):
            try:
                self._wait_for_work()
                writer = writer or self._connected()
                self._send(writer)
                if self._settle(writer):
                    pause_s = PAUSE_S_MIN
            except Exception as error:
                self.failures += 1
                log.warning(
                    "sending failed and begins anew: %s",
                    error,
                    exc_info=not isinstance(error, LogError),
                )
                _drop(writer)
                writer = None
                self._take_back(pause_s)
                pause_s = min(2 * pause_s, self._stream.reconnect_max_ms / 1000)
        _drop(writer)

    def _connected(self) -> Writer:
        """Raises SendFailed where a topic lacks partitions in which events are placed (T5)."""
        wanted = self._stream.partitions
        for topic in (self._stream.impressions, self._stream.clicks):
            there = self._log.partitions(topic)
            if there and there != wanted and topic not in self._told:
                self._told.add(topic)
                log.error(
                    "stream.partitions = %d, and %s has %d: events are placed by the first number, "
                    "which must be that of the run",
                    wanted, topic, there,
                )  # fmt: skip
            if 0 < there < wanted:
                raise SendFailed(f"stream.partitions = {wanted}, and {topic} has {there}")
        return self._log.writer()

    def _wait_for_work(self) -> None:
        """Until a batch is due; briefly, while acknowledgements are awaited."""
        with self._changed:
            now = time.monotonic()
            due = min((b.due for b in self._gathering.values()), default=now + 1.0)
            wait_s = ACK_POLL_S if self._sent else due - now
            if wait_s > 0 and not self._ready and not self._flush and not self._closing:
                self._changed.wait(wait_s)
            elif self._sent and not self._ready:
                self._changed.wait(ACK_POLL_S)
            now = time.monotonic()
            for partition in [
                p
                for p, b in self._gathering.items()
                if self._flush or self._closing or b.due <= now
            ]:
                self._ready.append(self._gathering.pop(partition))
            self._flush = False

    def _send(self, writer: Writer) -> None:
        while self._ready:
            batch = self._ready[0]
            try:
                value = batch.encode()
            except pa.ArrowException as error:
                self._set_aside(batch, error)
                continue
            if batch.too_large:
                self._refused(batch, len(value))
                continue
            allowed = self._taken_bytes.get(batch.partition.topic, self._record_bytes)
            if (batch.is_heavy or len(value) > allowed) and len(batch.rows) > 1:
                self._divide(batch)
                continue
            sent = writer.append(
                batch.partition, value, None, ((PRODUCER, self._config.name.encode()),)
            )
            self._sent.append((batch, sent))
            self._ready.popleft()

    def _refused(self, batch: OpenBatch, size: int) -> None:
        """The log takes no record of this size; the next ones are divided before they are sent."""
        topic = batch.partition.topic
        if len(batch.rows) > 1:
            known = self._taken_bytes.get(topic, size)
            self._taken_bytes[topic] = min(known, size * 2 // 3)
        self._set_aside(batch, f"{topic} takes no record of {size} bytes (max.message.bytes)")

    def _set_aside(self, batch: OpenBatch, error: object) -> None:
        """An event that was accepted and cannot be written costs itself, and not those beside
        it."""
        if len(batch.rows) > 1:
            self._divide(batch)
            return
        log.error("event %r cannot be written and is dropped: %s", batch.rows[0].get("id"), error)
        with self._changed:
            self._ready.popleft()
            self.dropped += 1
            self._release(batch)

    def _release(self, batch: OpenBatch) -> None:
        self._buffered_bytes -= batch.size
        self._buffered_rows -= len(batch.rows)
        self._rows_by_flushes[batch.flushes] -= len(batch.rows)
        if not self._rows_by_flushes[batch.flushes]:
            del self._rows_by_flushes[batch.flushes]
        self._changed.notify_all()

    def _divide(self, batch: OpenBatch) -> None:
        """The first batch in line becomes two."""
        with self._changed:
            self._ready.popleft()
            self._ready.extendleft(reversed(batch.halves()))

    def _settle(self, writer: Writer) -> bool:
        """Whether anything was acknowledged."""
        writer.poll()
        settled = False
        while self._sent and self._sent[0][1].done:
            batch, sent = self._sent.popleft()
            settled = True
            self._tell(Delivery(batch.partition, sent.offset, [row["id"] for row in batch.rows]))
            with self._changed:
                self._release(batch)
        return settled

    def _tell(self, delivery: Delivery) -> None:
        if self._on_delivery is None:
            return
        try:
            self._on_delivery(delivery)
        except BaseException as error:  # sys.exit too: it is not for others to end this thread
            log.exception("on_delivery raised; the events are in the log")
            self._callback_error = self._callback_error or error

    def _take_back(self, pause_s: float) -> None:
        """What the failed writer had not delivered is sent again, in its order, after a pause."""
        with self._changed:
            while self._sent:
                batch, sent = self._sent.pop()
                batch.too_large = sent.too_large
                self._ready.appendleft(batch)
            if not self._abandoned:
                self._changed.wait_for(lambda: self._abandoned, pause_s)


def _drop(writer: Writer | None) -> None:
    """Close a writer that is of no more use, whatever state it is in."""
    try:
        if writer is not None:
            writer.close()
    except Exception:
        log.warning("closing a writer failed", exc_info=True)
