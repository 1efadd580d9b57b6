"""Appending to the log over Kafka: at most so much in flight, and of no use after the first
failure (C5)."""

import os
import time
import weakref
from collections import deque
from contextlib import suppress
from typing import Any, Never

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from stream.config import StreamConfig
from stream.log.kafka_admin import CLOSE_TIMEOUT_MS, client_settings
from stream.log.log import Headers, NotConnected, SendFailed
from stream.record import Partition

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
PENDING_BYTES_MAX = 67_108_864  # sent and not yet acknowledged, by one writer


class KafkaAppend:
    """See `stream.log.log.Append`."""

    def __init__(self, writer: "KafkaWriter", future: Any):
        self._writer, self._future = writer, future

    @property
    def done(self) -> bool:
        """Raises SendFailed if it failed."""
        if self._future.is_done and not self._future.succeeded():
            self._writer.fail(self._future.exception)
        return bool(self._future.is_done)

    @property
    def offset(self) -> int:
        if not self.done:
            raise SendFailed("not acknowledged yet")
        return int(self._future.value.offset)

    @property
    def too_large(self) -> bool:
        """Of one record: a batch of several the client divides by itself."""
        failed = self._future.is_done and not self._future.succeeded()
        return failed and isinstance(self._future.exception, _TOO_LARGE)


_writers: "weakref.WeakSet[KafkaWriter]" = weakref.WeakSet()


def _leave_inherited_alone() -> None:
    """In a process that was forked off: kafka-python would close its parent's producer at exit,
    over its sockets."""
    for writer in list(_writers):
        if writer._producer is not None:
            with suppress(AttributeError):  # another kafka-python may have nothing to unregister
                writer._producer._unregister_cleanup()
            writer._producer._closed = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_inherited_alone)


class KafkaWriter:
    """See `stream.log.log.Writer`. At most PENDING_BYTES_MAX wait for acknowledgement; `append`
    blocks above that."""

    def __init__(self, config: StreamConfig):
        self._config = config
        self._producer: KafkaProducer | None = None
        self._pending: deque[tuple[Any, int]] = deque()
        self.pending_bytes = 0
        self._failure: str | None = None
        _writers.add(self)

    def append(
        self,
        partition: Partition,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
    ) -> KafkaAppend:
        self.poll()
        if self._producer is None:
            self._producer = self._connected()
        try:
            future = self._producer.send(
                partition.topic,
                partition=partition.partition,
                value=value,
                key=key
                or b"",  # kafka-python wants a key or a value; readers take an empty key for none
                headers=list(headers),
                timestamp_ms=timestamp_ms,
            )
        except (KafkaError, ValueError) as error:  # of a partition that its topic lacks
            self.fail(error)
        size = len(value or b"") + len(key or b"")
        self._pending.append((future, size))
        self.pending_bytes += size
        self._prune()
        if self.pending_bytes > PENDING_BYTES_MAX:
            self._wait(self._config.request_timeout_ms, until_bytes=PENDING_BYTES_MAX // 2)
        return KafkaAppend(self, future)

    def flush(self, timeout_ms: int) -> None:
        self.poll()
        self._wait(timeout_ms, until_bytes=-1)

    def poll(self) -> None:
        if self._failure is None:
            self._prune()
        if self._failure is not None:
            raise SendFailed(self._failure)

    def wait(self, timeout_ms: int) -> None:
        if self._pending and self._failure is None:
            with suppress(KafkaError):  # `poll` raises what it was
                self._pending[0][0].get(timeout=timeout_ms / 1000)

    def close(self) -> None:
        self._failure = self._failure or "closed"
        producer, self._producer = self._producer, None
        self._pending.clear()
        if producer is not None:
            sender: Any = getattr(producer, "_sender", None)
            if hasattr(sender, "force_close"):  # close() alone would flush first (C5)
                sender.force_close()
                sender.join(CLOSE_TIMEOUT_MS / 1000)
            with suppress(KafkaError):  # its flush of nothing may find the thread still ending
                producer.close(timeout=0)

    def fail(self, error: object) -> Never:
        """Note the first failure and raise it."""
        name, text = type(error).__name__, str(error)
        self._failure = self._failure or (text if name in text else f"{name}: {text}")
        raise SendFailed(self._failure)

    def _prune(self) -> None:
        while self._pending and self._pending[0][0].is_done:
            future, size = self._pending.popleft()
            self.pending_bytes -= size
            if not future.succeeded():
                self.fail(future.exception)

    def _wait(self, timeout_ms: int, until_bytes: int) -> None:
        deadline = time.monotonic() + timeout_ms / 1000
        while self._pending and self.pending_bytes > until_bytes:
            try:
                self._pending[0][0].get(timeout=max(0.0, deadline - time.monotonic()))
            except KafkaError as error:
                self.fail(error)
            self._prune()

    def _connected(self) -> KafkaProducer:
        """T6. Delivery is given up after two request timeouts: the caller then looks at what the
        log holds (C5). Raises NotConnected."""
        try:
            return KafkaProducer(
                **client_settings(self._config),
                acks="all",
                enable_idempotence=True,
                delivery_timeout_ms=2 * self._config.request_timeout_ms,
                max_block_ms=self._config.request_timeout_ms,
                max_request_size=4 * self._config.record_bytes_max,
                batch_size=262_144,
                linger_ms=0,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
        except KafkaError as error:
            self._failure = f"no broker at {self._config.bootstrap_servers}: {error}"
            raise NotConnected(self._failure) from error
