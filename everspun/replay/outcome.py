"""What became of the attacks that a replay planted: from `rejected`, by the history's own ids."""

import contextlib
from dataclasses import dataclass

from everspun.audit import read_all
from everspun.config import Config
from everspun.replay.history import History
from labeler.labels import rejected_ids
from stream import Partition
from stream.internal_topics import MalformedRecord
from stream.log import Log


@dataclass(frozen=True)
class AttackOutcome:
    """Impressions, by what the replay knows of them."""

    planted: int
    planted_rejected: int
    honest: int
    honest_rejected: int

    @property
    def honest_share(self) -> float:
        return self.honest_rejected / self.honest if self.honest else 0.0


def attack_outcome(log: Log, config: Config, history: History) -> AttackOutcome:
    """Count rejected impressions once each: a repeated record has the same identity (C6)."""
    limit = config.replay.limit or len(history)
    planted = {
        i for i, bad in zip(history.ids[:limit], history.planted[:limit], strict=True) if bad
    }
    rejected: set[str] = set()
    reader = log.reader()
    try:
        for p in range(config.stream.partitions):
            for record in read_all(reader, Partition(config.stream.rejected, p)):
                with contextlib.suppress(MalformedRecord):  # says of nobody that they were rejected
                    rejected.update(rejected_ids(record))
    finally:
        reader.close()
    return AttackOutcome(
        planted=len(planted),
        planted_rejected=len(rejected & planted),
        honest=min(limit, len(history)) - len(planted),
        honest_rejected=len(rejected - planted),
    )
