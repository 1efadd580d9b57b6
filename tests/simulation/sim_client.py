"""A process's client of the log: `stream.log.log.Log` over the simulated network. The labeler's
own code runs on it."""

from collections.abc import Callable, Iterable

from sim_log import Broker, Message
from sim_network import Process

from stream import Partition, Record
from stream.log import Headers, OffsetOutOfRange, SendFailed, Unavailable

#: Records of `quarantine` that always come together.
FEW = 50


class ClientAppend:
    """See `stream.log.log.Append`."""

    def __init__(self, writer: "ClientWriter") -> None:
        self._writer, self._record = writer, None
        self._record: Record | None

    @property
    def done(self) -> bool:
        return self._record is not None

    @property
    def offset(self) -> int:
        if self._record is None:
            self._writer.poll()
            raise SendFailed("not acknowledged yet")
        return self._record.offset

    @property
    def too_large(self) -> bool:
        return False

    def landed(self, record: Record) -> None:
        self._record = record
        self._writer.heard()


class ClientWriter:
    """See `stream.log.log.Writer`. A record leaves a moment after it was handed over; the end
    may overtake it."""

    def __init__(self, client: "Client") -> None:
        self._client, self._failure = client, ""

    def append(
        self,
        partition: Partition,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
    ) -> ClientAppend:
        self.poll()
        process, sent = self._client.process, ClientAppend(self)
        own_ms = timestamp_ms if partition.topic in self._client.broker.create_time else None
        message = Message(partition.topic, partition.partition, key, value, headers, own_ms)

        def leave() -> None:
            if not self._failure:
                process.reach("append")
                self._client.broker.append(process, message, sent.landed, self._failed)

        process.after(process.world.rng.choice((0, 0, 4)), leave)
        return sent

    def heard(self) -> None:
        if not self._failure:
            self._client.wake()

    def _failed(self) -> None:
        if not self._failure:
            self._failure = "no acknowledgement within the deadline"
            self._client.wake()

    def poll(self) -> None:
        if self._failure:
            raise SendFailed(self._failure)

    def flush(self, timeout_ms: int) -> None:
        raise AssertionError("nothing here may block")

    def wait(self, timeout_ms: int) -> None:
        """Nothing happens here while somebody waits."""

    def close(self) -> None:
        self._failure = self._failure or "closed"


class ClientReader:
    """See `stream.log.log.Reader`. A poll gives a few records of each partition, more or fewer
    as it comes; of operators' words, one that asks for few is given them."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()

    def assign(self, partitions: Iterable[Partition]) -> None:
        self._positions = {p: self._positions.get(p, -1) for p in partitions}
        self._paused &= self._positions.keys()

    def seek(self, partition: Partition, offset: int) -> None:
        if partition not in self._positions:
            raise ValueError(
                f"{partition.topic}[{partition.partition}]: not assigned to this reader"
            )
        self._positions[partition] = offset

    def position(self, partition: Partition) -> int:
        if self._positions.get(partition, -1) < 0:
            raise ValueError(f"{partition.topic}[{partition.partition}]: was never sought")
        return self._positions[partition]

    def behind(self) -> bool:
        """Whether a poll may give something."""
        topics = self._client.broker.topics
        return any(
            0 <= at < len(topics.get(p, ()))
            for p, at in self._positions.items()
            if p not in self._paused
        )

    def poll(self, max_records: int, timeout_ms: int) -> dict[Partition, list[Record]]:
        broker, process = self._client.broker, self._client.process
        given = {}
        wanted = {p: at for p, at in self._positions.items() if at >= 0 and p not in self._paused}
        for p, at in wanted.items():
            if broker.is_out_of_range(process, *p, at):
                raise OffsetOutOfRange(p, at, broker.first.get(p, 0), len(broker.records(*p)))
        left = max_records
        for p, at in wanted.items():
            few = max_records <= FEW and p.topic.endswith("quarantine")
            limit = min(left, FEW if few else process.world.rng.choice((2, 20, 50, 50)))
            records, self._positions[p] = broker.fetch_to(process, *p, at, limit)
            if records:
                given[p] = records
                left -= len(records)
        return given

    def pause(self, partitions: Iterable[Partition]) -> None:
        self._paused |= set(partitions) & self._positions.keys()

    def resume(self, partitions: Iterable[Partition]) -> None:
        self._paused -= set(partitions)

    def beginning_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        self._client.end(None)
        return {p: self._client.broker.first.get(p, 0) for p in partitions}

    def end_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return {p: self._client.end(p) for p in partitions}

    def topic_id(self, topic: str) -> str:
        return ""

    def close(self) -> None:
        self._positions.clear()
        self._client.readers.remove(self)


class Client:
    """See `stream.log.log.Log`. `wake` is called when an acknowledgement, or its absence, should
    be looked at."""

    def __init__(self, process: Process, broker: Broker, wake: Callable[[], None]) -> None:
        self.process, self.broker, self.wake = process, broker, wake
        self.readers: list[ClientReader] = []

    def reader(self) -> ClientReader:
        self.readers.append(ClientReader(self))
        return self.readers[-1]

    def writer(self) -> ClientWriter:
        return ClientWriter(self)

    def group_reader(self, group: str, member: str = "") -> ClientReader:
        raise AssertionError("groups are asked of the broker here")

    def partitions(self, topic: str) -> int:
        return self.broker.counts.get(topic, 0)

    def behind(self) -> bool:
        """Whether any reader has something to read."""
        return any(reader.behind() for reader in self.readers)

    def end(self, partition: Partition | None) -> int:
        end = self.broker.end(self.process, *(partition or ("", 0)))
        if end is None:
            raise Unavailable("the broker does not answer")
        return end
