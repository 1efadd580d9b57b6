"""Ranges of input that are gone, on an operator's override: the way on after a stop for want of
input (C7).

An override stands in `quarantine`, in the partition of the input that it names (one about
`verdicts` in every partition), so that every labeler that takes over finds it. It says that what a
reader still needs of offsets `[first, end)` is not there: a reader that stands in it goes on at
`end`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from stream import OFFSET_MAX, Record, offset_of, position
from stream.internal_topics import HeaderFields, MalformedRecord, OnMalformed
from stream.log import Headers

_LOST, _FROM, _TO, _BEGIN, _ID = "lost", "from", "to", "begin", "topic_id"


class LostRange(NamedTuple):
    """Offsets `[first, end)` of one partition. `topic` is the topic's full name. With `begin` they
    were gone before anything was to be labelled: a chain begins behind them, and counts none of
    them."""

    topic: str
    partition: int
    first: int
    end: int
    begin: bool = False
    topic_id: str = ""  # of the topic as it was when the override was given, where a broker has ids

    @property
    def offsets(self) -> int:
        """How many records may have stood there."""
        return self.end - self.first

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}] offsets {self.first} to {self.end - 1}"


def lost_command(lost: LostRange, force: bool = False) -> str:
    """What an operator types to give the override; with `force` though records stand there."""
    forced = " --force" if force else ""
    return (
        f"everspun lost {lost.topic} {lost.partition} {lost.first} {lost.end} --reason "
        f'"..."{forced}'
    )


def lost_key(lost: LostRange) -> bytes:
    """One an override, so that a repeat is recognised."""
    return f"{_LOST}/{lost.topic}/{lost.partition}/{lost.first}/{lost.end}".encode()


def lost_headers(lost: LostRange, reason: str) -> Headers:
    """Headers of the override's record, which has no value."""
    return (
        (_LOST, b"1"),
        *(((_BEGIN, b"1"),) if lost.begin else ()),
        *(((_ID, lost.topic_id.encode()),) if lost.topic_id else ()),
        ("topic", lost.topic.encode()),
        ("partition", str(lost.partition).encode()),
        ("position", str(position(lost.first)).encode()),
        (_FROM, str(lost.first).encode()),
        (_TO, str(lost.end).encode()),
        ("field", b"offset"),
        ("reason", f"lost up to offset {lost.end}: {reason}".encode()),
    )


def lost_ranges(records: Iterable[Record], malformed: OnMalformed | None = None) -> list[LostRange]:
    """The words among records of `quarantine`; what only looks like one says nothing, and
    `malformed` is told of it."""
    found = []
    for record in records:
        if record.header(_LOST) is None:
            continue
        headers = HeaderFields("quarantine", record.headers)
        try:
            first = headers.integer(_FROM, high=OFFSET_MAX)
            end = headers.integer(_TO, low=first + 1, high=OFFSET_MAX)
            at = headers.text("topic"), headers.integer("partition")
        except MalformedRecord as error:
            if malformed is not None:
                malformed(record, error)
            continue
        found.append(LostRange(*at, first, end, _BEGIN in headers, headers.text(_ID, "")))
    return found


def begin_offset(lost: Iterable[LostRange], topic: str, partition: int) -> int:
    """Where labelling of a partition begins: at its first record, or behind what was gone before
    it was to be read."""
    named = (one for one in lost if one.begin and (one.topic, one.partition) == (topic, partition))
    return max((one.end for one in named), default=0)


def behind(lost: Iterable[LostRange], topic: str, partition: int, offset: int) -> int:
    """Where a reader that stands at `offset` goes on: `offset` itself where no word covers it."""
    ranges = sorted(one for one in lost if (one.topic, one.partition) == (topic, partition))
    for one in ranges:
        if one.first <= offset < one.end:
            offset = one.end
    return offset


def accepted(lost: Iterable[LostRange], topic: str, partition: int, topic_id: str) -> int:
    """Behind which offset a topic made anew is read, on an operator's override; 0 without one."""
    named = (
        one
        for one in lost
        if (one.topic, one.partition, one.topic_id) == (topic, partition, topic_id)
    )
    return max((one.end for one in named if not one.first), default=0)


@dataclass(frozen=True)
class Missing:
    """A reader at `offset` found nothing there: it is below what is left, `[left_from, left_to]`,
    or above the end of a log that lost its tail. A reader that starts anew would need `needed_from`
    and on."""

    topic: str
    partition: int
    offset: int
    left_from: int
    left_to: int
    needed_from: int

    @property
    def beyond(self) -> bool:
        """Whether the log ends below the reader."""
        return self.offset > self.left_to

    @property
    def range(self) -> LostRange:
        """What an operator has to declare lost. Of a log that lost its tail, the offsets that are
        given again: what comes to stand there is behind every reader."""
        if self.beyond:
            return LostRange(self.topic, self.partition, self.left_to, self.offset)
        return LostRange(
            self.topic, self.partition, min(self.needed_from, self.offset), self.left_from
        )

    def skipped(self, overrides: Iterable[LostRange]) -> LostRange | None:
        """What is passed over on these words; None if they say nothing of it."""
        if not self.beyond:
            end = behind(overrides, self.topic, self.partition, self.offset)
            return (
                LostRange(self.topic, self.partition, self.offset, end)
                if end > self.offset
                else None
            )
        named = [
            one for one in overrides if (one.topic, one.partition) == (self.topic, self.partition)
        ]
        return next((one for one in named if one.first < self.offset <= one.end), None)

    def __str__(self) -> str:
        if self.beyond:
            return (
                f"read up to offset {self.offset}, but the log ends at {self.left_to}: it lost "
                f"its tail, or was made "
                f"anew; what comes to stand below {self.offset} would not be read"
            )
        return (
            f"offsets {self.range.first} to {self.left_from - 1} are still needed and gone "
            f"(retention, or records "
            "deleted)"
        )


@dataclass(frozen=True)
class PartitionStop:
    """The record at which a partition stopped (L7), or what it needs and is gone (C7)."""

    topic: str
    partition: int
    position: int
    reason: str
    gone: LostRange | None = None  # what an operator has to declare lost ...
    force: bool = False  # ... though records stand there

    @property
    def command(self) -> str:
        """What an operator types to go on."""
        if self.gone is not None:
            return lost_command(self.gone, self.force)
        return f"everspun quarantine add {self.topic} {self.partition} {offset_of(self.position)}"

    def __str__(self) -> str:
        to_go_on = "without this record" if self.gone is None else "without them"
        return (
            f"{self.topic}[{self.partition}] at position {self.position}: {self.reason}; "
            f"to go on {to_go_on}: {self.command}"
        )
