"""The audit's count of the inputs: impressions and clicks by where the folded chains stand (I1,
L6).

What retention has taken of an input is counted nowhere: headers are summed, and events counted,
from the first range on behind which the input is still whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from checkpointer.archive import FORGOTTEN
from everspun.audit.fold import IMPRESSION_CLASSES, ChainAudit
from everspun.audit.records import AuditError, chunks, read_all, read_from
from labeler.io import set_asides
from labeler.join import Intake, clicks_intake, impressions_intake
from stream import ROW_BITS, Partition, StreamConfig, offset_of, position
from stream.internal_topics import ClockOverride, clock_overrides, maximum_set_back, overrides_of
from stream.log import Reader


@dataclass
class Counts:
    """What was counted of one partition of an input, in events, and what its ranges say of them."""

    inside: int = 0  # events of the counted ranges
    beyond: int = 0  # behind the last range
    judged: bool = False
    wrong: str = ""
    unseen: str = ""


def count_impressions(
    reader: Reader, stream: StreamConfig, p: int, one: ChainAudit, gone: bool
) -> Counts:
    """`gone`: the first records of `examples[p]` are."""
    topic, first = Partition(stream.impressions, p), one.impressions.first
    if one.end is None:
        return Counts(
            unseen=f"{_named(topic)}: no record of {one.chain} is left: no class of theirs can be "
            f"seen"
        )
    if one.end < first:
        return Counts(
            wrong=f"partition {p}: labels stand at {one.end}, and impressions below {first} are "
            f"gone: "
            "those between have no class (the labeler's log names the `everspun lost` to type)"
        )
    if not gone and one.model_begin is None and one.begin is not None and one.begin > first:
        return Counts(
            wrong=f"partition {p}: the first range begins at {one.begin}, impressions from "
            f"{first} are there"
        )
    start = one.impressions.start
    if start is None:
        return Counts(unseen=f"{_named(topic)}: of no range both record and impressions are left")
    counts, end = Counts(judged=True), one.end
    said = _overrides(reader, stream, stream.impressions, p)
    maximum_ms = maximum_set_back(said.overrides, offset_of(start), one.impressions.arrival_max_ms)
    intake = impressions_intake(p, stream, maximum_ms, said.aside, said.overrides)
    at = offset_of(start) if one.impressions.arrival_max_ms else 0
    for positions in _positions(reader, topic, intake, at):
        positions = positions[positions >= start]
        counts.inside += int((positions < end).sum())
        counts.beyond += int((positions >= end).sum())
    counts.beyond += intake.held
    told = one.impressions.counts
    classed = sum(told[name] for name in IMPRESSION_CLASSES) + told[FORGOTTEN]
    if counts.inside != classed:
        counts.wrong = f"partition {p}: {counts.inside:,} in the range, {classed:,} in a class"
    if first or one.impressions.arrival_max_ms:
        counts.unseen = (
            f"{_named(topic)}: classes are counted from position {start} on; what is older is gone"
        )
    return counts


def count_clicks(reader: Reader, stream: StreamConfig, p: int, one: ChainAudit) -> Counts:
    """Clicks below, and at or beyond, the place from which the chain's last range reads on."""
    topic, start = Partition(stream.clicks, p), one.clicks.start
    if one.end is None or start is None:
        return Counts(unseen=f"{_named(topic)}: of no range both record and clicks are left")
    said = _overrides(reader, stream, stream.clicks, p)
    maximum_ms = maximum_set_back(said.overrides, start, one.clicks.arrival_max_ms)
    intake = clicks_intake(p, stream, maximum_ms, said.aside, said.overrides)
    counts = Counts(judged=True)
    for positions in _positions(reader, topic, intake, start):
        passed = int((positions < position(one.clicks_offset)).sum())
        counts.inside, counts.beyond = (
            counts.inside + passed,
            counts.beyond + len(positions) - passed,
        )
    counts.beyond += intake.held
    if start:
        counts.unseen = f"{_named(topic)}: counted from record {start} on; what is older is gone"
    return counts


def _named(partition: Partition) -> str:
    return f"{partition.topic}[{partition.partition}]"


class _Overrides(NamedTuple):
    """What operators said of one partition of an input: records sent to quarantine unread (L7),
    its times (T3)."""

    aside: set[int]
    overrides: tuple[ClockOverride, ...]


def _overrides(reader: Reader, stream: StreamConfig, topic: str, p: int) -> _Overrides:
    aside, overrides = set[int](), set[ClockOverride]()
    for records in chunks(read_all(reader, Partition(stream.quarantine, p))):
        aside |= {
            order.offset
            for order in set_asides(records)
            if (order.topic, order.partition) == (topic, p)
        }
        overrides.update(clock_overrides(records))
    return _Overrides(aside, overrides_of(overrides, topic, p))


def _positions(
    reader: Reader, partition: Partition, intake: Intake[Any], offset: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Positions of all events from a record on; a record that is bad as a whole counts as one,
    at its first row."""
    for chunk in chunks(read_from(reader, partition, offset)):
        read = intake.read(chunk)
        if read.unreadable is not None:
            at = read.unreadable
            raise AuditError(
                f"{_named(partition)} offset {at.offset} cannot be read ({at.reason}); "
                f"the way on: everspun quarantine add {partition.topic} {partition.partition} "
                f"{at.offset}"
            )
        bad = np.array([one.record.offset << ROW_BITS for one in read.bad], dtype=np.int64)
        yield np.concatenate([read.events.position, bad])
