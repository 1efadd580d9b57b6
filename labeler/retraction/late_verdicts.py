"""The runs of `verdicts` that may take something back, read in order (L3, C1).

A *run* ends behind the last rejection before a watermark, of those that may be late: so a step of
the fraud filter, which sends its verdicts before its watermarks, is one run, and where runs end
depends on the log alone. Between runs there is an empty one at every RUN_OFFSETS, so that a chain
without late verdicts goes on too.

Pure. One serves all partitions of a labeler.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from labeler.join import ResumePoint
from labeler.labels import (
    NO_WATERMARK,
    VerdictPoint,
    VerdictRecord,
    read_verdicts,
)
from labeler.retraction.rows import Held, Late, held_columns
from stream import Record
from stream.columns import GrowingColumns
from stream.internal_topics import ALLOW, REJECT, Verdict, Watermark

#: A chain that has nothing to take back gets an empty range as often, in offsets of `verdicts`.
RUN_OFFSETS = 8_192
#: Verdicts of a run above which each record is read rather than looked through for their names.
NAMED_MAX = 64
#: Of the verdicts held, so many may decide no more before they are forgotten, all at once.
OVER_SHARE = 0.25
_NONE: dict[str, float] = {}


class Run(NamedTuple):
    """Rejections at offsets `[first, end)`, some of which may be late; none where `first` is
    `end`."""

    first: int
    end: int
    low_ms: int  # m: the lowest watermark of all inputs before it
    point: VerdictPoint  # where to read on from behind it (C4)
    verdicts: tuple[Held, ...]  # at its offsets, that may decide

    @property
    def empty(self) -> bool:
        return self.first == self.end

    @property
    def arrived_from_ms(self) -> int:
        """Rows that arrived before it none of its rejections takes."""
        return min(
            (one.arrived_from_ms for one in self.verdicts if one.rejects), default=self.low_ms
        )

    def may_take_of(self) -> Callable[[bytes], bool] | None:
        """Whether it can take a row of a record of `examples`, by the record's value: names stand
        in it as they are, so one without them need not be read. None = each must be."""
        named = [
            tuple(
                name.encode(errors="surrogatepass")
                for name in (one.verdict.source, one.verdict.vendor)
                if name
            )
            for one in self.verdicts
            if one.rejects
        ]
        if len(named) > NAMED_MAX or not all(named):
            return None
        return lambda value: any(all(name in value for name in names) for names in named)


@dataclass
class LateVerdicts:
    """`wait_ms`: of the first reading. Of rows whose arrival lies `horizon_ms` below a verdict's
    m nothing is taken."""

    inputs: Sequence[str]
    point: VerdictPoint
    wait_ms: int
    skew_ms: int
    horizon_ms: int
    runs: list[Run] = field(default_factory=list)
    next_offset: int = 0
    _held: GrowingColumns[Held] = field(default_factory=lambda: GrowingColumns(held_columns))
    _ids: set[str] = field(default_factory=set)  # of those that may decide
    # at the end of the last run: what ended by then is over, of so many verdicts
    _over_ms: int = -(1 << 62)
    _looked: int = 0
    _open: tuple[int, int, int] | None = None  # first, end and m of the run that is open

    def __post_init__(self) -> None:
        self.next_offset = self.point.offset
        self._marks: Mapping[str, int] = {
            name: self.point.watermarks.get(name, NO_WATERMARK) for name in self.inputs
        }

    @classmethod
    def at(
        cls,
        inputs: Sequence[str],
        points: Iterable[ResumePoint],
        wait_ms: int,
        skew_ms: int,
        horizon_ms: int,
    ) -> "LateVerdicts":
        """One that serves all these partitions: it starts at the lowest of their offsets."""
        first = min(points, key=lambda point: point.verdicts_offset)
        return cls(
            inputs,
            VerdictPoint(first.verdicts_offset, first.watermarks),
            wait_ms,
            skew_ms,
            horizon_ms,
        )

    def __len__(self) -> int:
        """Verdicts that are held; up to a third more than may still decide."""
        return len(self._held)

    @property
    def low_ms(self) -> int:
        return min(self._marks.values())

    def read(self, records: Iterable[Record]) -> None:
        """The next records of `verdicts`; what has been read is passed over, as is what says
        nothing."""
        self.take(read_verdicts(records))

    def take(self, heard: Iterable[VerdictRecord]) -> None:
        """The same, of what was heard already."""
        for one in heard:
            offset, said = one.record.offset, one.said
            if offset < self.next_offset:
                continue
            if (
                self._open is None
                and offset // RUN_OFFSETS > max(0, self.next_offset - 1) // RUN_OFFSETS
            ):
                self._close(offset, offset)
            self.next_offset = offset + 1
            if isinstance(said, Verdict):
                self._on_verdict(said, offset)
            elif said is not None and said.input in self._marks:
                self._on_watermark(said)

    def after(self, end: int) -> Run | None:
        """The first run that ends above this offset, if one has been read."""
        return next((run for run in self.runs if run.end > end), None)

    def late(self, run: Run) -> Late:
        """What decides on rows within the horizon before one of the runs, its own included."""
        return Late(self._held, run.first, run.end, run.low_ms - self.horizon_ms)

    def forget(self, end: int) -> None:
        """Nobody asks for runs that end at or below this offset any more."""
        self.runs = [run for run in self.runs if run.end > end]
        over_ms = min((run.low_ms - self.horizon_ms for run in self.runs), default=self._over_ms)
        left = self._held.column("to_ms") > min(over_ms, self._over_ms)
        left[self._looked :] = True
        over = len(left) - int(np.count_nonzero(left))
        if over > OVER_SHARE * len(left):
            self._held.keep(left)
            self._looked -= over

    def _on_watermark(self, said: Watermark) -> None:
        if self._open is not None:
            first, end, _ = self._open
            self._open = None
            self._close(first, end)
        if said.watermark_ms > self._marks[said.input]:
            self._marks = {**self._marks, said.input: said.watermark_ms}

    def _on_verdict(self, said: Verdict, offset: int) -> None:
        low_ms = self.low_ms
        may_be_late = (
            said.decision == REJECT and said.from_ms - self.skew_ms + self.wait_ms < low_ms
        )
        if said.id in self._ids or not (may_be_late or said.decision == ALLOW):
            return
        self._ids.add(said.id)
        arrived_from_ms = said.from_ms - self.skew_ms
        small = replace(said, reason="", evidence=_NONE)  # those of a week may be held
        self._held.append(Held(small, offset, low_ms, arrived_from_ms, self._marks))
        if may_be_late:
            first = self._open[0] if self._open is not None else offset
            self._open = (first, offset + 1, low_ms)

    def _close(self, first: int, end: int) -> None:
        """A run is over: what no later one can need decides no more, and what is left says where
        to read on (C4)."""
        low_ms, held = self.low_ms, self._held.entries
        over_ms = low_ms - self.horizon_ms
        to_ms, offset = self._held.column("to_ms"), self._held.column("offset")
        left = to_ms > over_ms
        was_left = to_ms > self._over_ms
        was_left[self._looked :] = True
        self._ids -= {held[at].verdict.id for at in np.flatnonzero(was_left & ~left).tolist()}
        self._over_ms, self._looked = over_ms, len(held)
        point = VerdictPoint(end, self._marks)
        if left.any():
            oldest = held[int(np.argmax(left))]
            point = VerdictPoint(oldest.offset, oldest.watermarks)
        own = range(*np.searchsorted(offset, (first, end)).tolist())
        verdicts = tuple(held[at] for at in own if left[at])
        self.runs.append(Run(first, end, low_ms, point, verdicts))
