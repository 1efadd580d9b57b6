"""What is wrong with the inputs, as `everspun status` and the launcher's alarm say it: a broker
that does not answer, topics that are not as they must be, and transactions that hold a partition
(T6)."""

import threading
from collections.abc import Callable, Mapping, Sequence

from everspun.status.table import duration
from stream import Partition, StreamConfig
from stream.log import (
    AdminClient,
    KafkaLog,
    LogError,
    OpenTransaction,
    Problem,
    Reader,
    admin_client,
    describe_topics,
    open_transactions,
    topic_problems,
    topic_specs,
    wall_clock_ms,
)

#: A transaction that is open for longer holds its partition noticeably.
OPEN_MAX_S = 10.0
#: Between two looks of the launcher.
LOOK_S = 10.0


def input_faults(stream: StreamConfig, now_ms: int) -> list[str]:
    """All that is wrong, as far as the broker answers."""
    look = InputLook(stream)
    try:
        return look.faults(now_ms)
    finally:
        look.close()


class InputLook:
    """Looks at the inputs over clients that are kept while brokers answer: over TLS a connection
    costs more than many questions. One look at a time."""

    def __init__(self, stream: StreamConfig) -> None:
        self._stream = stream
        self._reader: Reader | None = None
        self._admin: AdminClient | None = None

    def faults(self, now_ms: int) -> list[str]:
        """All that is wrong, as far as the broker answers."""
        try:
            return self._found(now_ms)
        except LogError as error:
            self.close()
            return [f"no answer from {self._stream.bootstrap_servers}: {error}"]
        except BaseException:
            self.close()
            raise

    def _found(self, now_ms: int) -> list[str]:
        stream = self._stream
        self._reader = self._reader or KafkaLog(stream).reader()
        self._admin = self._admin or admin_client(stream)
        inputs = (stream.impressions, stream.clicks)
        topics = describe_topics(stream, (one.name for one in topic_specs(stream)), self._admin)
        problems = topic_problems(stream, topics)
        found = topic_faults(problems)
        counts = {name: topics[name].partitions for name in inputs if name in topics}
        found += unread(stream, self._reader, counts)
        if not any(problem.topic in inputs and problem.stops for problem in problems):
            partitions = [Partition(topic, p) for topic in inputs for p in range(stream.partitions)]
            found += open_too_long(open_transactions(stream, partitions, self._admin), now_ms)
        return found

    def close(self) -> None:
        """Gives the clients up; a look after that connects anew."""
        reader, admin, self._reader, self._admin = self._reader, self._admin, None, None
        for client in (reader, admin):
            if client is not None:
                client.close()


class InputWatch:
    """Looks again and again, from a thread of its own: a broker that is away is waited for. `ask`
    says what is wrong now; whatever it raises is given to `on_error`, and it is asked again. The
    thread calls `at_end` as it ends."""

    def __init__(
        self,
        ask: Callable[[], Sequence[str]],
        on_error: Callable[[str, BaseException], None],
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.count = 0
        self._ask, self._on_error, self._at_end = ask, on_error, at_end
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inputs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends soon; a broker that does not answer is not waited for."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.count = len(self._ask())
            except Exception as error:  # whatever it is, the next look may do
                self._on_error("looking at the inputs", error)
            self._stopped.wait(LOOK_S)
        self._at_end()

    @classmethod
    def of(
        cls, stream: StreamConfig, on_error: Callable[[str, BaseException], None]
    ) -> "InputWatch":
        """Of these inputs."""
        look = InputLook(stream)
        return cls(lambda: look.faults(wall_clock_ms()), on_error, look.close)


def unread(stream: StreamConfig, reader: Reader, counts: Mapping[str, int]) -> list[str]:
    """Records in partitions beyond those that are configured, which nobody reads (T6). `counts`:
    topic -> how many partitions it has. Raises Unavailable."""
    found = []
    for topic in (stream.impressions, stream.clicks):
        added = [Partition(topic, p) for p in range(stream.partitions, counts.get(topic, 0))]
        if not added:
            continue
        records = sum(reader.end_offsets(added).values()) - sum(
            reader.beginning_offsets(added).values()
        )
        if records:
            found.append(
                f"{records:,} records of {topic} stand in partitions {stream.partitions} to "
                f"{counts[topic] - 1}, which "
                "nobody reads"
            )
    return found


def topic_faults(problems: Sequence[Problem]) -> list[str]:
    return [str(problem) for problem in problems]


def open_too_long(found: Sequence[OpenTransaction], now_ms: int) -> list[str]:
    """Transactions that hold what stands behind their first record."""
    return [
        f"{one.partition.topic}[{one.partition.partition}] is read up to offset "
        f"{one.first_offset}: a transaction of "
        f"{one.producer} has been open for {duration((now_ms - one.since_ms) / 1_000)}; end it, "
        f"or the broker will "
        f"after its timeout (kafka-transactions.sh abort)"
        for one in found
        if now_ms - one.since_ms > OPEN_MAX_S * 1_000
    ]
