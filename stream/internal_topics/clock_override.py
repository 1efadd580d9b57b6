"""Clock overrides: an operator sets back the times that an input was stamped with by clocks that
were ahead (T3).

An override stands in `quarantine`, in the partition of the input that it names, so that every
labeler that takes over finds it. It says that of the records below offset `end` the times above
`above_ms` are too high by `by_ms`. So the arrivals are read anew from where labels stand, and are
what they would have been by clocks that were right.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np

from stream.internal_topics.malformed import HeaderFields, MalformedRecord, OnMalformed
from stream.kernels import I64
from stream.log import Headers
from stream.record import OFFSET_MAX, Record, position

_OVERRIDE, _END, _ABOVE, _BY = "clock_back", "end", "above_ms", "by_ms"


class ClockOverride(NamedTuple):
    """Of the records below offset `end` of a partition, times above `above_ms` count as `by_ms`
    less, and as no more than `above_ms`. `topic` is the topic's full name."""

    end: int
    topic: str
    partition: int
    above_ms: int
    by_ms: int


def override_key(override: ClockOverride) -> bytes:
    """One an override, so that a repeat is recognised."""
    return f"{_OVERRIDE}/{override.topic}/{override.partition}/{override.end}".encode()


def override_headers(override: ClockOverride, reason: str) -> Headers:
    """Headers of the override's record, which has no value."""
    return (
        (_OVERRIDE, b"1"),
        ("topic", override.topic.encode()),
        ("partition", str(override.partition).encode()),
        ("position", str(position(override.end)).encode()),
        (_END, str(override.end).encode()),
        (_ABOVE, str(override.above_ms).encode()),
        (_BY, str(override.by_ms).encode()),
        ("field", b"timestamp"),
        ("reason", f"times above {override.above_ms} below offset {override.end} are set back by "
f"{override.by_ms} ms: "
                   f"{reason}".encode()),
    )  # fmt: skip


def clock_overrides(
    records: Iterable[Record], malformed: OnMalformed | None = None
) -> list[ClockOverride]:
    """The words among records of `quarantine`; what only looks like one says nothing, and
    `malformed` is told of it."""
    found = []
    for record in records:
        if record.header(_OVERRIDE) is None:
            continue
        headers = HeaderFields("quarantine", record.headers)
        try:
            end = headers.integer(_END, low=1, high=OFFSET_MAX)
            at = headers.text("topic"), headers.integer("partition")
            times = headers.integer(_ABOVE, low=1), headers.integer(_BY, low=1)
        except MalformedRecord as error:
            if malformed is not None:
                malformed(record, error)
            continue
        found.append(ClockOverride(end, *at, *times))
    return found


def overrides_of(
    overrides: Collection[ClockOverride], topic: str, partition: int
) -> tuple[ClockOverride, ...]:
    """Those about one partition, that of the lowest offset last: it is the one that counts."""
    return tuple(
        sorted(
            (one for one in overrides if (one.topic, one.partition) == (topic, partition)),
            reverse=True,
        )
    )


def set_back(overrides: Collection[ClockOverride], offset: I64, time_ms: I64) -> I64:
    """Times (n,) of records at these offsets (n,) as the overrides of their partition
    (`overrides_of`) say; itself where they say nothing of them."""
    said = time_ms
    for override in overrides:
        wrong = (offset < override.end) & (time_ms > override.above_ms)
        if wrong.any():
            said = np.where(wrong, np.minimum(time_ms - override.by_ms, override.above_ms), said)
    return said


def maximum_set_back(overrides: Collection[ClockOverride], offset: int, maximum_ms: int) -> int:
    """An arrival maximum that was taken just before `offset`, by somebody who had not heard the
    words perhaps."""
    said = set_back(overrides, np.array([offset - 1]), np.array([maximum_ms]))
    return max(0, int(said[0]))
