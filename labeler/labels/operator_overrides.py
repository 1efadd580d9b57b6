"""What operators said of partitions, as it stands in `quarantine` (L7, C7, T3)."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from labeler.io import LookRest, SetAside, TailReader, set_asides
from labeler.labels.lost_range import LostRange, lost_ranges
from stream import Partition, Record, StreamConfig
from stream.internal_topics import ClockOverride, MalformedRecord, PassedOver, clock_overrides
from stream.log import Log, Reader, Unavailable

logger = logging.getLogger(__name__)

#: After a look, the next is so many times later than that one took, and this much at most: who has
#: given a command waits for it, and few ever come.
LOOK_REST, LOOK_REST_MAX_S = 20.0, 8.0


@dataclass(frozen=True)
class OperatorOverrides:
    """Records set aside (L7), ranges that are lost (C7), times set back (T3)."""

    aside: frozenset[SetAside] = frozenset()
    lost: frozenset[LostRange] = frozenset()
    clocks: frozenset[ClockOverride] = frozenset()


NO_OVERRIDES = OperatorOverrides()


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
    records_max: Mapping[int, int],
    passed_over: PassedOver,
) -> OperatorOverrides:
    """What operators said of these partitions, among the last so many records of each. Raises what
    logs raise."""
    aside: set[SetAside] = set()
    lost: set[LostRange] = set()
    clocks: set[ClockOverride] = set()
    for p, count in records_max.items():
        found = _Found(Partition(stream.quarantine, p), passed_over)
        tail.read(found.at, count, found.add)
        aside, lost, clocks = aside | found.aside, lost | found.lost, clocks | found.clocks
    named = {(one.topic, one.partition) for one in lost if one.topic_id}
    ids = {topic: tail.topic_id(Partition(topic, p)) for topic, p in named}
    ids[""] = ""  # an override without an id is of whatever topic is there
    of_todays = (one for one in lost if one.topic_id == ids[one.topic if one.topic_id else ""])
    return OperatorOverrides(frozenset(aside), frozenset(of_todays), frozenset(clocks))


class OverrideSearch:
    """Searches `quarantine` for overrides, and afterwards what has come there since. A look that
    finds nothing new costs one request. Belongs to one thread."""

    def __init__(
        self,
        log: Log,
        stream: StreamConfig,
        records_max: int,
        passed_over: PassedOver,
        elapsed_s: Callable[[], float] = lambda: 0.0,
    ):
        """`records_max`: of a partition, searched at most. `elapsed_s`: tells what a look costs;
        without, it costs nothing."""
        self._rest = LookRest(LOOK_REST, LOOK_REST_MAX_S, elapsed_s)
        self._log, self._stream, self._records_max = log, stream, records_max
        self._passed_over = passed_over
        self._searched: dict[int, int] = {}  # partition -> up to which offset, where times are live

    def all(self, tail: TailReader, partitions: Iterable[int]) -> OperatorOverrides:
        """All overrides of these partitions. Raises what logs raise."""
        wanted = dict.fromkeys(partitions, self._records_max)
        ends = {} if self._stream.replayed else tail.end_offsets(self._places(wanted))
        found = read_overrides(tail, self._stream, wanted, self._passed_over)
        self._searched.update({at.partition: end for at, end in ends.items()})
        return found

    @property
    def rested(self) -> bool:
        """Whether the next look may be taken, for what the last one cost."""
        return self._rest.over

    def more(
        self, reader: Reader, partitions: Iterable[int], stopped: Iterable[int]
    ) -> OperatorOverrides | None:
        """What is new about these partitions, and all of those that are `stopped`; None
        where nothing is new, or the log does not say. Raises what logs raise."""
        ends = self._ends(reader, partitions)
        new = self._new(ends)
        wanted = new | dict.fromkeys(stopped, self._records_max)
        if not wanted:
            return None
        few = min(self._stream.poll_records_max, max(wanted.values()))
        tail = TailReader(self._log, few, self._passed_over)
        try:
            found = read_overrides(tail, self._stream, wanted, self._passed_over)
        finally:
            tail.close()
        self._searched.update(ends)
        return found

    def _ends(self, reader: Reader, partitions: Iterable[int]) -> dict[int, int]:
        """Where `quarantine` ends, by partition; none on a replay, whose times nobody sets back."""
        places = () if self._stream.replayed else self._places(partitions)
        try:
            with self._rest.look():
                ends = reader.end_offsets(places) if places else {}
        except Unavailable as error:  # whoever reads or writes says so; the next look is soon
            logger.debug("operators' overrides: %s", error)
            return {}
        return {at.partition: end for at, end in ends.items()}

    def _new(self, ends: dict[int, int]) -> dict[int, int]:
        """Of these ends, how many records each partition holds behind what was searched. One that
        ends before that was made anew since: all of it is new."""
        searched = {p: self._searched.get(p, 0) for p in ends}
        behind = {p: end if end < searched[p] else end - searched[p] for p, end in ends.items()}
        return {p: min(count, self._records_max) for p, count in behind.items() if count > 0}

    def _places(self, partitions: Iterable[int]) -> list[Partition]:
        return [Partition(self._stream.quarantine, p) for p in partitions]
