"""What one chain still has to write: one unacknowledged record at a time (C5), side records
before it (C6)."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from stream import Partition
from stream.log import Append, Headers, SendFailed, Writer

What = TypeVar("What")
#: A time limit is not over before so many looks: what passes between two of them may be a step of
#: the clock.
STEPS_MIN = 4


@dataclass(frozen=True)
class Message:
    """A record to be appended."""

    partition: Partition
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()


@dataclass(frozen=True)
class Outgoing(Generic[What]):
    """A record of a chain, what must stand in the log before it, and what it is to its sender."""

    message: Message
    before: Sequence[Message]
    what: What


class Outbox(Generic[What]):
    """The records of one chain on their way out, in order.

    After SendFailed the writer is to be dropped unflushed, and so is every outbox that used it:
    what became of the record on its way is not known, and the log is folded again (C5).
    """

    def __init__(self, waiting_max: int, timeout_ms: int):
        self._waiting_max, self._timeout_ms = waiting_max, timeout_ms
        self._queue: deque[Outgoing[What]] = deque()
        self._before: list[Append] | None = None  # side records of the head of the queue, sent
        self._sent: Append | None = None  # the head of the queue itself, sent
        self._looked_ms = self._waited_ms = 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether its sender should wait."""
        return len(self._queue) >= self._waiting_max

    @property
    def in_flight(self) -> bool:
        return self._before is not None

    def put(self, outgoing: Outgoing[What]) -> None:
        self._queue.append(outgoing)

    def advance(self, writer: Writer, now_ms: int, start: bool = True) -> list[What]:
        """Send what may be sent; answers what has been acknowledged. With `start` false nothing new
        is begun.

        Raises SendFailed, also for a record that is not acknowledged within the time limit.
        """
        done: list[What] = []
        writer.poll()
        while self._queue:
            head = self._queue[0]
            if self._before is None:
                if not start:
                    break
                self._before = [_send(writer, message, now_ms) for message in head.before]
                self._looked_ms, self._waited_ms = now_ms, 0
            if self._sent is None and all(sent.done for sent in self._before):
                self._sent = _send(writer, head.message, now_ms)
            if self._sent is None or not self._sent.done:
                self._check_time(head.message.partition, now_ms)
                break
            self._before = self._sent = None
            done.append(self._queue.popleft().what)
        return done

    def _check_time(self, partition: Partition, now_ms: int) -> None:
        # A clock that is set back must not lengthen the wait, and one that is set ahead not end it.
        self._waited_ms += min(max(0, now_ms - self._looked_ms), self._timeout_ms // STEPS_MIN)
        self._looked_ms = now_ms
        if self._waited_ms > self._timeout_ms:
            raise SendFailed(
                f"{partition.topic}[{partition.partition}]: not acknowledged within "
                f"{self._timeout_ms} ms"
            )


def _send(writer: Writer, message: Message, now_ms: int) -> Append:
    return writer.append(message.partition, message.value, message.key, message.headers, now_ms)
