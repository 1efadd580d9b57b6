"""Sends evaluations on a thread of its own (shell): a log that does not take them, or has no such
topic, holds up no training."""

import json
import logging
import queue
import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from learners.process.metrics import LearnerMetrics
from stream import Backoff, Partition
from stream.log import Append, Log, SendFailed, Unavailable, Writer, wall_clock_ms

_log = logging.getLogger(__name__)

#: Evaluations that wait for the log; further ones are lost.
WAITING_MAX = 1_000
#: The last ones may take this long, twice: until they are sent, and until the log has them.
FLUSH_MS = 5_000
#: Pause after a failed send, doubled up to the second.
RETRY_MS, RETRY_MAX_MS = 200, 30_000


class EvaluationSender:
    """`give` takes what must end the process. A lost evaluation is counted, not sent again."""

    def __init__(
        self, log: Log, topic: str, metrics: LearnerMetrics, give: Callable[[BaseException], None]
    ):
        self._log, self._topic, self._metrics, self._give = log, topic, metrics, give
        self._waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._writer: Writer | None = None
        self._partitions = 0  # 0 = not asked yet
        self._under_way: deque[Append] = deque()
        self._backoff = Backoff(RETRY_MS, RETRY_MAX_MS)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="evaluations", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, evaluation: dict[str, Any]) -> None:
        """Returns at once."""
        if self._waiting.qsize() < WAITING_MAX:
            self._waiting.put(evaluation)
        else:
            self._metrics.unsent.inc()

    def close(self) -> None:
        """Send what waits, if the log takes it in time."""
        self._stopped.set()
        self._waiting.put(None)
        self._thread.join(2 * FLUSH_MS / 1000)
        if self._thread.is_alive():
            _log.warning("the last evaluations may not have been sent: the log does not answer")

    def _run(self) -> None:
        try:
            while (evaluation := self._waiting.get()) is not None:
                if not self._sent(evaluation) and self._stopped.wait(self._pause_s()):
                    return
            self._flush()
        except BaseException as error:  # the main thread raises it
            self._give(error)
        finally:
            self._drop()

    def _pause_s(self) -> float:
        return self._backoff.failed(random.random()) / 1000

    def _sent(self, evaluation: dict[str, Any]) -> bool:
        """Whether it is on its way."""
        key = f"{evaluation['model']}/{evaluation['chain']}/{evaluation['start']}".encode()
        value = json.dumps(evaluation, separators=(",", ":")).encode()
        try:
            while self._under_way and self._under_way[0].done:
                self._under_way.popleft()
            writer = self._writer = self._writer or self._log.writer()
            partition = Partition(self._topic, evaluation["partition"] % self._asked_partitions())
            self._under_way.append(
                writer.append(partition, value, key, timestamp_ms=wall_clock_ms())
            )
        except (SendFailed, Unavailable) as error:
            self._lost(1, error)
            return False
        self._backoff.worked()
        return True

    def _asked_partitions(self) -> int:
        self._partitions = self._partitions or self._log.partitions(self._topic)
        if not self._partitions:
            raise Unavailable(f"there is no topic {self._topic!r}")
        return self._partitions

    def _flush(self) -> None:
        try:
            if self._writer is not None:
                self._writer.flush(FLUSH_MS)
        except SendFailed as error:
            self._lost(0, error)

    def _lost(self, unsent: int, error: Exception) -> None:
        """Count `unsent` and all that the log has not confirmed; the topic may be another next
        time."""
        lost = unsent + sum(not _confirmed(append) for append in self._under_way)
        self._metrics.unsent.inc(lost)
        _log.warning("%d evaluations were not sent: %s", lost, error)
        self._drop()

    def _drop(self) -> None:
        self._under_way.clear()
        self._partitions = 0
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def _confirmed(append: Append) -> bool:
    try:
        return append.done
    except SendFailed:
        return False
