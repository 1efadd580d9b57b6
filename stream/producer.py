"""For sites: events in, batches to the log. Bounded, at least once, and it never drops.

Events are checked when they are given, pseudonymised (session, source, personal features), placed by their session
(T5), gathered per partition and sent as Arrow IPC by a thread of the producer's own. What is not acknowledged is sent
again, over a new connection and in its order; the pipeline counts a repeated id once (L2).

A dead broker: events gather up to `buffer_bytes_max`, then calls block for `block_ms_max`, then they raise
`BufferFull`. What was accepted stays and is sent when the broker returns.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from stream.config import StreamConfig
from stream.faults import PRODUCER, row_faults, string_faults
from stream.keys import Pseudonymiser, partition_of_key
from stream.log import Append, Log, SendFailed, Writer
from stream.record import Partition
from stream.shape import Shape, click_shape, impression_shape

log = logging.getLogger(__name__)

ROW_OVERHEAD_BYTES = 64
ACK_POLL_S = 0.005


class BufferFull(Exception):
    """The broker takes nothing and the buffer is full: this event was not accepted; give it again later."""


class Undelivered(Exception):
    """Time ran out with events that are accepted and not yet in the log."""


class Delivery(NamedTuple):
    """A batch that is in the log: where, and the ids of its events."""

    partition: Partition
    offset: int
    ids: list[str]


@dataclass(frozen=True)
class ProducerConfig:
    """How a site's producer gathers and waits."""

    name: str = field(default="site", metadata={"help": "who sends, for the header `producer` and messages about it"})
    batch_rows_max: int = field(default=500, metadata={"help": "events in one record"})
    batch_age_max_ms: int = field(default=100, metadata={"help": "an event waits this long for company, ms"})
    buffer_bytes_max: int = field(default=33_554_432, metadata={"help": "accepted and not yet in the log, bytes"})
    block_ms_max: int = field(default=60_000, metadata={"help": "a call waits this long for room, ms, then raises"})

    def __post_init__(self) -> None:
        for name in ("batch_rows_max", "buffer_bytes_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is 1 or more")
        for name in ("batch_age_max_ms", "block_ms_max"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: allowed is 0 or more")


@dataclass
class _Batch:
    partition: Partition
    shape: Shape
    due: float  # monotonic seconds
    rows: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0  # bytes, about

    def encode(self) -> bytes:
        schema = pa.schema(list(self.shape.wire.items()))
        batch = pa.RecordBatch.from_pylist(self.rows, schema=schema)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_batch(batch)
        return bytes(sink.getvalue())


class EventProducer:
    """Safe to use from many threads. Close it, or use it in a `with` block, to be sure that all is delivered."""

    def __init__(
        self,
        log: Log,
        stream: StreamConfig,
        pseudonymise: Pseudonymiser | Callable[[str], str],
        config: ProducerConfig | None = None,
        on_delivery: Callable[[Delivery], None] | None = None,
    ):
        """`pseudonymise` is a `Pseudonymiser`; `str` sends identifiers as they are. `on_delivery` is called on the
        producer's thread; an exception of it ends the producer and is raised by the next call."""
        self._log, self._stream, self._pseudonymise = log, stream, pseudonymise
        self._config = config or ProducerConfig()
        self._on_delivery = on_delivery
        self._personal = {f.name for f in stream.features if f.personal}
        self._changed = threading.Condition()
        self._gathering: dict[Partition, _Batch] = {}
        self._ready: deque[_Batch] = deque()
        self._sent: deque[tuple[_Batch, Append]] = deque()  # of the thread alone
        self._buffered_bytes = 0
        self._buffered_rows = 0
        self.failures = 0  # connections given up after a failed send
        self._flush = self._closing = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="event-producer", daemon=True)
        self._thread.start()

    def impression(self, event: Mapping[str, Any]) -> None:
        """One impression, with the fields of docs/events.md. Raises ValueError naming the field, BufferFull."""
        row = dict(event)
        features = row.pop("features", None) or {}
        self._check(row, {**row, "features": features}, is_click=False)
        for f in self._stream.features:
            value = features.get(f.name)
            row[f.column] = self._pseudonymise(value) if value and f.name in self._personal else value
        self._add(self._stream.impressions, impression_shape(self._stream.features), row)

    def page_view(self, shared: Mapping[str, Any], impressions: Sequence[Mapping[str, Any]]) -> None:
        """Many impressions that share `ts_ms`, `session`, `source`, `features`, ... As `impression`, one by one."""
        for one in impressions:
            features = {**(shared.get("features") or {}), **(one.get("features") or {})}
            self.impression({**shared, **one, "features": features})

    def click(self, event: Mapping[str, Any]) -> None:
        """One click; its `session` and `id` are those of its impression. Raises ValueError, BufferFull."""
        row = dict(event)
        self._check(row, row, is_click=True)
        self._add(self._stream.clicks, click_shape(), row)

    @property
    def buffered_bytes(self) -> int:
        """Accepted and not yet in the log."""
        return self._buffered_bytes

    @property
    def buffered_rows(self) -> int:
        return self._buffered_rows

    def flush(self, timeout_ms: int) -> None:
        """Return once every accepted event is in the log. Raises Undelivered; nothing is lost by that."""
        deadline = time.monotonic() + timeout_ms / 1000
        with self._changed:
            self._flush = True
            self._changed.notify_all()
            while self._buffered_rows:
                self._raise_failure()
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    raise Undelivered(f"{self._buffered_rows} events not delivered within {timeout_ms} ms")
            self._raise_failure()

    def close(self, timeout_ms: int = 60_000) -> None:
        """Flush, then end. Raises Undelivered if that took too long: those events are then lost with the process."""
        try:
            self.flush(timeout_ms)
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            self._thread.join(timeout_ms / 1000)

    def __enter__(self) -> "EventProducer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- the caller's side --------------------------------------------------------------------------------------

    def _check(self, row: dict[str, Any], whole: dict[str, Any], is_click: bool) -> None:
        """Raise for a bad event; else pseudonymise it in place."""
        faults = [*row_faults(whole, is_click, self._stream), *string_faults("session", row.get("session"), True, True)]
        if faults:
            raise ValueError(f"{faults[0][0]} {faults[0][1]}")
        for name in ("session", "source"):
            if row.get(name):
                row[name] = self._pseudonymise(row[name])

    def _add(self, topic: str, shape: Shape, row: dict[str, Any]) -> None:
        row = {name: row.get(name) for name in shape.wire}
        partition = Partition(topic, partition_of_key(row["session"].encode(), self._stream.partitions))
        size = ROW_OVERHEAD_BYTES + sum(len(v) for v in row.values() if isinstance(v, str))
        deadline = time.monotonic() + self._config.block_ms_max / 1000
        with self._changed:
            while self._buffered_bytes and self._buffered_bytes + size > self._config.buffer_bytes_max:
                self._raise_failure()
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    held = f"{self._buffered_rows} events ({self._buffered_bytes} bytes) wait for the broker"
                    raise BufferFull(f"{held}; buffer_bytes_max = {self._config.buffer_bytes_max}")
            self._raise_failure()
            batch = self._gathering.get(partition)
            if batch is None:
                due = time.monotonic() + self._config.batch_age_max_ms / 1000
                batch = self._gathering[partition] = _Batch(partition, shape, due)
                self._changed.notify_all()
            batch.rows.append(row)
            batch.size += size
            self._buffered_bytes += size
            self._buffered_rows += 1
            if len(batch.rows) >= self._config.batch_rows_max or batch.size >= self._stream.record_bytes_max // 2:
                self._ready.append(self._gathering.pop(partition))
                self._changed.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise RuntimeError("the producer has ended") from self._failure
        if self._closing:
            raise RuntimeError("the producer is closed")

    # --- the thread's side --------------------------------------------------------------------------------------

    def _run(self) -> None:
        writer = self._log.writer()
        try:
            while not (self._closing and not self._ready and not self._sent):
                self._wait_for_work()
                try:
                    self._send(writer)
                    self._settle(writer)
                except SendFailed:
                    writer.close()
                    writer = self._log.writer()
                    self.failures += 1
                    self._take_back()
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
            log.exception("the producer has ended")
        finally:
            writer.close()

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
            for partition in [p for p, b in self._gathering.items() if self._flush or self._closing or b.due <= now]:
                self._ready.append(self._gathering.pop(partition))
            self._flush = False

    def _send(self, writer: Writer) -> None:
        while self._ready:
            batch = self._ready[0]
            sent = writer.append(batch.partition, batch.encode(), None, ((PRODUCER, self._config.name.encode()),))
            self._sent.append((batch, sent))
            self._ready.popleft()

    def _settle(self, writer: Writer) -> None:
        writer.poll()
        while self._sent and self._sent[0][1].done:
            batch, sent = self._sent.popleft()
            with self._changed:
                self._buffered_bytes -= batch.size
                self._buffered_rows -= len(batch.rows)
                self._changed.notify_all()
            if self._on_delivery is not None:
                self._on_delivery(Delivery(batch.partition, sent.offset, [row["id"] for row in batch.rows]))

    def _take_back(self) -> None:
        """What the failed writer had not delivered is sent again, in its order, after a pause."""
        with self._changed:
            while self._sent:
                batch, _ = self._sent.pop()
                self._ready.appendleft(batch)
            self._changed.wait(self._stream.reconnect_max_ms / 1000 / 4)
