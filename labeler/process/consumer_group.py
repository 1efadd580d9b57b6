"""A process's part in a consumer group that shares out the partitions of `impressions` (shell).

It has a thread of its own: a client answers a rebalance only inside a poll, and short polls between
other work made one take tens of seconds.
"""

import logging
import threading

from stream import Loop, Partition, StreamConfig
from stream.log import GroupReader

logger = logging.getLogger(__name__)

GROUP_POLL_MS = 500


class Membership:
    """Holds the set of partitions that this process owns. Only `run` changes it; every thread
    may look."""

    def __init__(self, reader: GroupReader, stream: StreamConfig, poll_ms: int):
        self._reader, self._topic, self._poll_ms = reader, stream.impressions, poll_ms
        self._partitions = stream.partitions
        self.owned: frozenset[int] = frozenset()
        self.added: frozenset[int] = frozenset()  # partitions that there are, and should not be

    def run(self, ending: threading.Event, watched: Loop) -> None:
        """Take part until `ending`, then leave. `watched` is told of each turn."""
        self._reader.subscribe(self._topic, self._on_assigned, self._on_revoked)
        while not ending.is_set():
            watched.turn()
            self._reader.poll(1, GROUP_POLL_MS)  # it is given partitions, and reads none of them
            ending.wait(self._poll_ms / 1000)
        watched.rest()
        self._reader.close()

    def _on_assigned(self, partitions: list[Partition]) -> None:
        added = sorted(at.partition for at in partitions if at.partition >= self._partitions)
        if added:
            logger.error(
                "topic %s has more than the %d partitions that are configured: %s are read by "
"nobody (T6); let "
                "producers go on by murmur2(key) modulo %d, or begin anew with another "
"stream.topic_prefix",
                self._topic, self._partitions, added, self._partitions,
            )  # fmt: skip
            self.added |= frozenset(added)
        self.owned |= {at.partition for at in partitions} - self.added
        logger.info("owns partitions %s", sorted(self.owned))

    def _on_revoked(self, partitions: list[Partition]) -> None:
        self.owned -= {at.partition for at in partitions}
        logger.info("owns partitions %s", sorted(self.owned))
