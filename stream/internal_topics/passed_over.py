"""Records of internal topics that a reader passed over, since they say nothing: counted, and named
once.

None is kept, nor copied anywhere: its bytes stand where they were found, as long as their topic
keeps them, and every reader that comes by would copy them again.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from stream.record import Partition, Record


def _nobody(topic: str) -> None:
    """Counts nothing."""


@dataclass
class PassedOver:
    """Belongs to one reader. `count` is told the topic of each. A line of the log names the first
    of a partition, and then each one whose number is a power of two."""

    logger: logging.Logger
    count: Callable[[str], None] = _nobody
    by_partition: dict[Partition, int] = field(default_factory=dict)

    def add(self, at: Partition, record: Record, error: Exception) -> None:
        """This record of `at` is passed over."""
        number = self.by_partition[at] = self.by_partition.get(at, 0) + 1
        self.count(at.topic)
        if number & (number - 1) == 0:
            self.logger.error(
                "%s[%d] offset %d is passed over (%d so far): %s", *at, record.offset, number, error
            )

    def __len__(self) -> int:
        return sum(self.by_partition.values())
