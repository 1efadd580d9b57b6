"""What every replay does to the topics: records and history's own heartbeats in order, barriers,
and the wait for the cut that answers one (E3)."""

import threading
import time
from collections import deque
from collections.abc import Callable

from everspun.config import Config
from stream import BARRIER, CLOCK_MS, CONTROL, HEARTBEAT, Partition
from stream.decoding.catalogues import HEARTBEAT_KEY
from stream.internal_topics import MalformedRecord, json_object
from stream.log import Append, Headers, Log, OffsetOutOfRange

#: Records on their way to the broker at once. A broker that is gone is waited for; what is in
#: flight is sent again only by the log's own idempotent client.
IN_FLIGHT_MAX = 2_000


class Stuck(RuntimeError):
    """The pipeline did not answer a barrier in time; the message says what the replay was
    waiting for."""


class ReplayWriter:
    """Belongs to one thread. Every method raises what logs raise."""

    def __init__(self, config: Config, log: Log) -> None:
        self.stream = config.stream
        self._writer = log.writer()
        self._in_flight: deque[Append] = deque()

    def append(
        self,
        partition: Partition,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        at_ms: int,
    ) -> None:
        """Send one record."""
        self._in_flight.append(self._writer.append(partition, value, key, headers, at_ms))
        while self._in_flight and self._in_flight[0].done:
            self._in_flight.popleft()
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            self.flush()

    def heartbeat(self, arrival_ms: int, barrier: int = 0) -> None:
        """One in every partition of both topics (T2), and in every catalogue (A2)."""
        headers = [(CONTROL, HEARTBEAT.encode()), (CLOCK_MS, str(arrival_ms).encode())]
        if barrier:
            headers.append((BARRIER, str(barrier).encode()))
        for topic in (self.stream.impressions, self.stream.clicks):
            for p in range(self.stream.partitions):
                self.append(Partition(topic, p), None, None, tuple(headers), arrival_ms)
        for topic in self.stream.catalogues.values():
            self.append(Partition(topic, 0), None, HEARTBEAT_KEY, tuple(headers), arrival_ms)

    def flush(self) -> None:
        """Return once everything sent is in the log."""
        self._writer.flush(self.stream.request_timeout_ms)
        self._in_flight.clear()

    def close(self) -> None:
        self._writer.close()


class AnnouncedCuts:
    """What is said on `checkpoints` of the cuts of a model, by barrier."""

    def __init__(self, config: Config, log: Log) -> None:
        self.config = config
        self.said: dict[int, dict[str, object]] = {}
        self._reader = log.reader()
        self._checkpoints = Partition(config.stream.checkpoints, 0)
        self._seek()

    def _seek(self) -> None:
        self._reader.assign([self._checkpoints])
        self._reader.seek(
            self._checkpoints,
            self._reader.beginning_offsets([self._checkpoints])[self._checkpoints],
        )

    def read(self) -> dict[int, dict[str, object]]:
        """Period -> what was last said of its cut."""
        try:
            polled = self._reader.poll(100, 50)
        except OffsetOutOfRange:
            self._seek()
            return self.said
        for record in (one for records in polled.values() for one in records):
            try:
                said = json_object("checkpoints", record.value).body
            except MalformedRecord:
                continue  # no process reads it otherwise
            judged = (
                said.get("kind") in ("published", "rejected")
                and said.get("model") == self.config.model.name
            )
            if judged and type(said.get("barrier")) is int and said["barrier"]:
                self.said[said["barrier"]] = said
        return self.said

    def close(self) -> None:
        self._reader.close()


def wait_until(
    reached: Callable[[], bool], what: str, stuck_s: float, stop: threading.Event
) -> None:
    """Raises Stuck after `stuck_s`."""
    end = time.monotonic() + stuck_s
    while not reached():
        if stop.is_set():
            return
        if time.monotonic() > end:
            raise Stuck(f"stuck for {stuck_s} s {what}; `everspun status` says where")
        time.sleep(0.02)
