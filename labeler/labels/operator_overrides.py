"""What operators said of partitions, as it stands in `quarantine` (L7, C7, T3)."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from labeler.io.set_aside import SetAside, set_asides
from labeler.io.tail import TailReader
from labeler.labels.lost_ranges import LostRange, lost_ranges
from stream.config import StreamConfig
from stream.internal_topics.clock_overrides import ClockOverride, clock_overrides
from stream.internal_topics.malformed import MalformedRecord
from stream.internal_topics.passed_over import PassedOver
from stream.record import Partition, Record


@dataclass(frozen=True)
class OperatorOverrides:
    """Records set aside (L7), ranges that are lost (C7), times set back (T3)."""

    aside: frozenset[SetAside]
    lost: frozenset[LostRange]
    clocks: frozenset[ClockOverride]


@dataclass
class _Found:
    at: Partition
    passed_over: PassedOver
    aside: set[SetAside] = field(default_factory=set)
    lost: set[LostRange] = field(default_factory=set)
    clocks: set[ClockOverride] = field(default_factory=set)

    def add(self, records: list[Record]) -> None:
        self.aside.update(set_asides(records, self._malformed))
        self.lost.update(lost_ranges(records, self._malformed))
        self.clocks.update(clock_overrides(records, self._malformed))

    def _malformed(self, record: Record, error: MalformedRecord) -> None:
        self.passed_over.add(self.at, record, error)


def read_overrides(
    tail: TailReader,
    stream: StreamConfig,
    partitions: Iterable[int],
    records_max: int,
    passed_over: PassedOver,
) -> OperatorOverrides:
    """The words about these partitions, among the last `records_max` records of each. Raises
    what logs raise."""
    aside: set[SetAside] = set()
    lost: set[LostRange] = set()
    clocks: set[ClockOverride] = set()
    for p in partitions:
        found = _Found(Partition(stream.quarantine, p), passed_over)
        tail.read(found.at, records_max, found.add)
        aside, lost, clocks = aside | found.aside, lost | found.lost, clocks | found.clocks
    named = {(one.topic, one.partition) for one in lost if one.topic_id}
    ids = {topic: tail.topic_id(Partition(topic, p)) for topic, p in named}
    ids[""] = ""  # an override without an id is of whatever topic is there
    of_todays = (one for one in lost if one.topic_id == ids[one.topic if one.topic_id else ""])
    return OperatorOverrides(frozenset(aside), frozenset(of_todays), frozenset(clocks))
