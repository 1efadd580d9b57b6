"""Records of internal topics that a reader passed over, since they say nothing: counted, and named once."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from stream.record import Partition, Record

#: Records kept until somebody takes them for quarantine; further ones are counted and logged alone.
KEPT_MAX = 64


class Passed(NamedTuple):
    """One of them: where it stands, and what is wrong with it."""

    at: Partition
    record: Record
    field: str
    reason: str


def _nobody(topic: str) -> None:
    """Counts nothing."""


@dataclass
class PassedOver:
    """Belongs to one reader. `count` is told the topic of each. A line of the log names the first of a partition, and
    then each one whose number is a power of two."""

    logger: logging.Logger
    count: Callable[[str], None] = _nobody
    by_partition: dict[Partition, int] = field(default_factory=dict)
    _kept: deque[Passed] = field(default_factory=lambda: deque(maxlen=KEPT_MAX))

    def add(self, at: Partition, record: Record, error: Exception) -> None:
        """This record of `at` is passed over."""
        number = self.by_partition[at] = self.by_partition.get(at, 0) + 1
        self.count(at.topic)
        if number & (number - 1) == 0:
            self.logger.error("%s[%d] offset %d is passed over (%d so far): %s", *at, record.offset, number, error)
        self._kept.append(Passed(at, record, getattr(error, "field", "record"), str(error)))

    def take(self) -> list[Passed]:
        """Those not taken yet, at most KEPT_MAX."""
        taken = list(self._kept)
        self._kept.clear()
        return taken

    def __len__(self) -> int:
        return sum(self.by_partition.values())
