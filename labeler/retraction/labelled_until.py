"""How far every partition has been labelled, as the end of `examples` says (L3)."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from labeler.io import EMPTY_POLLS_MAX, POLL_MS
from labeler.join import ExamplesFold
from stream import Partition, Record, StreamConfig, offset_of
from stream.log import Log, Unavailable

#: Of each partition, records at its end that are looked at; labels that stand before them have not
#: been seen.
LOOK_RECORDS = 256
#: Partition, and the kind of reading by which it is labelled.
Labelling: TypeAlias = tuple[int, str]


class LabelledUntil:
    """Of each reading of each partition the arrival below which all is labelled, as of the last
    look. Its reader stays at the ends, so a look reads what is new. Belongs to one thread."""

    def __init__(self, log: Log, stream: StreamConfig, kinds: Iterable[str]):
        """`kinds`: of readings."""
        self._stream, self._kinds = stream, tuple(kinds)
        self._reader = log.reader()
        self._next: dict[int, int] = {}  # partition -> the offset behind what was read
        self._folds: dict[Labelling, ExamplesFold] = {}
        self._until_ms: dict[Labelling, int] = {}

    def close(self) -> None:
        """Drop the reader."""
        self._reader.close()

    def until_ms(self, one: Labelling) -> int:
        """All arrivals below this have been labelled; 0 where that is not to be seen yet."""
        return self._until_ms.get(one, 0)

    def look(self, wanted: Mapping[Labelling, int]) -> None:
        """Look at the partitions of these again, of each of which it is asked whether it has been
        labelled up to an arrival, ms. Raises Unavailable and OffsetOutOfRange."""
        self._read({p for p, _ in wanted})
        short: dict[Labelling, int] = {}
        for one, asked_ms in wanted.items():
            point = self._folds[one].point
            self._until_ms[one] = 0 if point is None else point.arrival_max_ms
            if point is not None and point.arrival_max_ms < asked_ms:
                short[one] = offset_of(point.start)
        for kind in self._kinds:
            self._look_behind({p: offset for (p, of), offset in short.items() if of == kind}, kind)

    def _read(self, partitions: Iterable[int]) -> None:
        """What `examples` holds behind what was read, of each partition LOOK_RECORDS at most."""
        at = {p: Partition(self._stream.examples, p) for p in sorted(partitions)}
        ends = self._reader.end_offsets(at.values())
        lost = [p for p in at if not self._is_near(p, ends[at[p]])]
        firsts = self._reader.beginning_offsets([at[p] for p in lost]) if lost else {}
        for p in lost:
            start = max(firsts[at[p]], ends[at[p]] - LOOK_RECORDS)
            self._next[p] = start
            for kind in self._kinds:
                self._folds[p, kind] = ExamplesFold(f"{kind}/{p}", from_first=start == 0)
        behind = {at[p]: self._next[p] for p in at if self._next[p] < ends[at[p]]}
        self._seek(behind)
        empty = 0
        while behind:
            polled = self._reader.poll(self._stream.poll_records_max, POLL_MS)
            empty = _empty(empty, polled, behind)
            for one in list(behind):
                for kind in self._kinds:
                    self._folds[one.partition, kind].add(polled.get(one, ()))
                self._next[one.partition] = self._reader.position(one)
                if self._next[one.partition] >= ends[one]:
                    del behind[one]
            self._reader.assign(behind)

    def _is_near(self, p: int, end: int) -> bool:
        return p in self._next and 0 <= end - self._next[p] <= LOOK_RECORDS

    def _look_behind(self, offsets: Mapping[int, int], kind: str) -> None:
        """Labels have also reached the arrival of the first record that has none, if that is there
        and believed as it stands (T3)."""
        at = {Partition(self._stream.impressions, p): offset for p, offset in offsets.items()}
        ends = self._reader.end_offsets(at) if at else {}
        behind = {one: offset for one, offset in at.items() if offset < ends[one]}
        self._seek(behind)
        empty = 0
        while behind:
            polled = self._reader.poll(1, POLL_MS)
            empty = _empty(empty, polled, behind)
            for one in list(behind):
                if polled.get(one):
                    self._believe((one.partition, kind), polled[one][0])
                if polled.get(one) or self._reader.position(one) >= ends[one]:
                    del behind[one]
            self._reader.assign(behind)

    def _believe(self, one: Labelling, first: Record) -> None:
        if first.timestamp_ms <= self._until_ms[one] + self._stream.jump_max_ms:
            self._until_ms[one] = max(self._until_ms[one], first.timestamp_ms)

    def _seek(self, offsets: Mapping[Partition, int]) -> None:
        self._reader.assign(offsets)
        for one, offset in offsets.items():
            self._reader.seek(one, offset)


def _empty(before: int, polled: Mapping[Partition, object], behind: Iterable[Partition]) -> int:
    """Polls in a row that gave nothing. Raises Unavailable."""
    if polled:
        return 0
    if before >= EMPTY_POLLS_MAX:
        one = next(iter(behind))
        raise Unavailable(f"{one.topic}[{one.partition}]: no answer while reading to its end")
    return before + 1
