"""Planted bugs of what late verdicts take back (`retract/p`, L3, C1). Seeds with a fraud filter
have late verdicts."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from sim_bug import Patch, bug, replaced

from labeler.labels import VerdictPoint, VerdictRecord
from labeler.retraction import Late, LateVerdicts, Retracting
from labeler.retraction.labelled_rows import LabelledRows, _header, _records
from learners.training import gradient

made = Late.__init__
close = LateVerdicts._close


@bug(
    "verdict taken back twice",
    "a row that an earlier verdict took is taken again by the next one (L3)",
)
def taken_twice() -> list[Patch]:
    def bad(self: Late, *given: Any) -> None:
        made(self, *given)
        self._which = self._which[self._held.column("offset")[self._which] >= self._first]

    return [replaced(Late.__init__, bad)]


@bug(
    "taken back before it was labelled",
    "a run does not wait for the labels of all partitions (C1)",
    first=5,
    step=11,  # two readings, the second of which labels seconds after a verdict
)
def too_early() -> list[Patch]:
    return [replaced(Retracting._is_labelled, lambda self, run, now_ms: True)]


@bug(
    "retraction resumes without what was taken before",
    "its resume point is the end of its range (C4)",
)
def forgets_verdicts() -> list[Patch]:
    def bad(self: LateVerdicts, first: int, end: int) -> None:
        close(self, first, end)
        self.runs[-1] = self.runs[-1]._replace(point=VerdictPoint(end, dict(self._marks)))

    return [replaced(LateVerdicts._close, bad)]


@bug(
    "late by what has been read",
    "the watermark of a verdict is the newest one read, not the one before it",
)
def late_by_reading() -> list[Patch]:
    take = LateVerdicts.take

    def bad(self: LateVerdicts, heard: Iterable[VerdictRecord]) -> None:
        take(self, heard)
        self.runs = [run._replace(low_ms=max(run.low_ms, self.low_ms)) for run in self.runs]

    return [replaced(LateVerdicts.take, bad)]


@bug(
    "rows taken back that were never learned",
    "a model that began later takes back what is below (C1)",
)
def never_learned() -> list[Patch]:
    return [replaced(gradient.rows_from, lambda rows, position: rows, of=gradient)]


@bug(
    "retraction trimmed like labels",
    "a record is cut by its impressions' positions, not at its range's end",
)
def trimmed() -> list[Patch]:
    def bad(
        batch: pa.RecordBatch, chain: str, record_end: int, start: int, end: int
    ) -> pa.RecordBatch:
        positions = batch.column("position").to_numpy()
        return batch.filter(pa.array(np.asarray((positions >= start) & (positions < end))))

    return [replaced(gradient.rows_of, bad, of=gradient)]


@bug(
    "rows behind what dangles are passed over",
    "a reading back takes a record that dangles for a gap, and goes on from it (C2)",
    first=2_004_053,  # of few: the reading begins within the log, before what dangles
)
def behind_what_dangles() -> list[Patch]:
    def bad(self: LabelledRows, name: str, offset: int, end: int | None) -> int | None:
        back = self._reader.position(self._at)
        record = next(_records(self._reader, self._at, offset, offset + 1, 1))
        self._reader.seek(self._at, back)
        header = _header(record)
        return None if header is None else header.start

    return [replaced(LabelledRows._end_before, bad)]
