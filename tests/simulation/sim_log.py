"""The log: partitions of records, the broker that keeps them, and the groups that share them out.

What is appended stays (acks=all). An append may land without its writer hearing of it, may land
after the writer gave up, and may land after the writer died; two copies of a request are one record
only to an idempotent producer, which gives up its sequence with its session, so here a repeated
request does land twice. Retention may take the head of a partition, and some of what stands there
is no record of anybody: markers of transactions, and what was aborted (T6).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from sim_clock import Action
from sim_network import Process, World

from stream import Record

Headers = tuple[tuple[str, bytes], ...]
TopicPartition = tuple[str, int]


#: Of what is no record: readers' positions pass it, and nobody is given it.
ABORTED: Headers = (("aborted", b"1"),)


def is_aborted(record: Record) -> bool:
    return record.headers[-1:] == ABORTED


@dataclass(frozen=True)
class Message:
    """A record before the log has given it its offset and time. `timestamp_ms` counts on
    CreateTime topics only."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int | None = None


@dataclass
class Group:
    """A consumer group over the partitions of a topic. A member silent for `session_ms` loses
    what it had."""

    partitions: int
    session_ms: int
    members: dict[str, int] = field(default_factory=dict)  # name -> when last heard of
    generation: int = 0
    owner: dict[int, str] = field(default_factory=dict)

    def poll(self, name: str, now_ms: int) -> list[int]:
        """The partitions of this member, which is alive now."""
        late = [m for m, at in self.members.items() if now_ms - at > self.session_ms]
        changed = name not in self.members or name in late
        self.members[name] = now_ms
        for m in late:
            if m != name:
                del self.members[m]
                changed = True
        if changed:
            self._share_out()
        return [p for p, m in self.owner.items() if m == name]

    def leave(self, name: str) -> None:
        if self.members.pop(name, None) is not None:
            self._share_out()

    def _share_out(self) -> None:
        self.generation += 1
        names = sorted(self.members)
        turn = self.generation  # partitions move about, as they do
        self.owner = (
            {p: names[(p + turn) % len(names)] for p in range(self.partitions)} if names else {}
        )


class Broker(Process):
    """Keeps every topic on its disk. While it is down or out of reach, nobody appends or reads."""

    role = "broker"

    def __init__(self, world: World, name: str = "broker", slow_append: float = 0.0) -> None:
        super().__init__(world, name)
        self.topics: dict[TopicPartition, list[Record]] = {}
        self.groups: dict[str, Group] = {}
        self.slow_append = (
            slow_append  # probability that an append lands long after its writer stopped waiting
        )
        self.first: dict[TopicPartition, int] = {}  # what retention has left begins here (C7)
        self.counts: dict[str, int] = {}  # topic -> partitions, where somebody asks
        self.create_time: set[str] = set()  # topics whose clients' own times count (T1)
        self.landed: list[Callable[[Message, Record, str], None]] = []

    def boot(self) -> None:
        for group in self.groups.values():  # a restarted coordinator hears of everyone anew
            for name in group.members:
                group.members[name] = self.world.time.now_ms

    def records(self, topic: str, partition: int) -> list[Record]:
        """All that ever stood there, at its offset."""
        return self.topics.setdefault((topic, partition), [])

    def committed(self, topic: str, partition: int) -> list[Record]:
        """Of these, what is a record."""
        return [record for record in self.records(topic, partition) if not is_aborted(record)]

    def land(self, message: Message, writer: str) -> Record:
        records = self.records(message.topic, message.partition)
        stamp = self.clock_ms() if message.timestamp_ms is None else message.timestamp_ms
        record = Record(len(records), stamp, message.key, message.value, message.headers)
        records.append(record)
        for hear in self.landed:
            hear(message, record, writer)
        return record

    # --- what clients do ---

    def append(
        self,
        writer: Process,
        message: Message,
        landed: Callable[[Record], None],
        failed: Action,
        deadline_ms: int = 1500,
    ) -> None:
        """Send one record. One of `landed(record)` and `failed()` follows; after `failed` it may
        be there, or come."""
        rng = self.world.rng
        if self.slow_append and rng.random() < self.slow_append:
            if self.alive and self.world.network.reachable(writer, self):
                self.after(
                    deadline_ms + rng.randrange(4000), lambda: self.land(message, writer.name)
                )
            writer.after(deadline_ms, failed)
            return
        self.world.network.call(
            writer, self, lambda: self.land(message, writer.name), landed, failed, deadline_ms
        )

    def _serves(self, reader: Process) -> bool:
        return self.alive and not self.asleep and self.world.network.reachable(reader, self)

    def fetch(
        self, reader: Process, topic: str, partition: int, offset: int, limit: int
    ) -> list[Record]:
        """Records from `offset` on. Empty when there are none, or when the broker does not
        answer."""
        return self.fetch_to(reader, topic, partition, offset, limit)[0]

    def fetch_to(
        self, reader: Process, topic: str, partition: int, offset: int, limit: int
    ) -> tuple[list[Record], int]:
        """Records from `offset` on, and where to read on."""
        if not self._serves(reader):
            return [], offset
        found = self.records(topic, partition)[offset : offset + limit]
        return [record for record in found if not is_aborted(record)], offset + len(found)

    def is_out_of_range(self, reader: Process, topic: str, partition: int, offset: int) -> bool:
        """Whether the broker says that an offset is below what retention has left, or above the
        end."""
        first, end = self.first.get((topic, partition), 0), len(self.records(topic, partition))
        return not first <= offset <= end and self._serves(reader)

    def end(self, reader: Process, topic: str, partition: int) -> int | None:
        """The offset after the last record, or None when the broker does not answer."""
        return len(self.records(topic, partition)) if self._serves(reader) else None

    def assigned(self, member: Process, group: str) -> list[int] | None:
        """The member's partitions, or None when the broker does not answer (it then keeps what
        it has)."""
        if not self._serves(member):
            return None
        return self.groups[group].poll(member.name, self.world.time.now_ms)

    def leave(self, member: Process, group: str) -> None:
        if self._serves(member):
            self.groups[group].leave(member.name)
