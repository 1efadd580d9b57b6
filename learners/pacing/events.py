"""What happens to a learner, as `pacing` is told it."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Batch(NamedTuple):
    """One record of `examples`, or a part of one: the range `[start, end)` of a chain.

    As read from the log, `[start, end)` is what the record claims; the core trims and splits it
    (C2, S1), and only rows that stand in the range are meant
    (`stream.internal_topics.examples.rows_of`). `value` is opaque here: the shell puts the record's
    bytes there.
    """

    partition: int
    chain: str
    start: int
    end: int
    record: int  # offset in examples[partition]
    # to be read next once this range is learned: `record` itself unless it is its last part
    next_record: int
    rows: int  # labelled rows of the whole record; 0 = nothing to pull
    barrier: int = 0  # of an empty range (E3); 0 = none
    time_ms: int = 0  # arrival time reached; the oldest batch of a learner is started first
    value: Any = None
    record_end: int = (
        -1
    )  # `end` as the record claims it; the core keeps it through trims and splits
    # of a late chain: the sums that its late share is told by (`learners.models.delayed_feedback`)
    late_micro: int = 0
    on_time_micro: int = 0
    again: str = ""  # of a retraction: what is to be learned again (C1)
    floor: int = 0  # rows of impressions below are not learned: the model began above them (C1)


class Answered(NamedTuple):
    """The reply of a call: JoinReply, ProgressReply, StartReply, PullReply, PushReply; bool for
    Ended and Park; shard -> incarnation, or None if fenced, for Renew."""

    call: int
    reply: Any


class Unreachable(NamedTuple):
    """No answer within the deadline: performed or not, nobody knows."""

    call: int


class Refused(NamedTuple):
    """Understood and refused, with the reason. It is asked again, slowly, and shown."""

    call: int
    reason: str


class Assigned(NamedTuple):
    """Partitions of `examples` that are new to this learner. Nothing is read from them before
    `Seek`."""

    partitions: Sequence[int]


class Revoked(NamedTuple):
    partitions: Sequence[int]


class Records(NamedTuple):
    """Read from one partition after the `Seek` of this number, in log order and without a hole."""

    seek: int
    partition: int
    batches: Sequence[Batch]


class Idle(NamedTuple):
    """The last poll found nothing in any partition that is not paused."""


class Truncated(NamedTuple):
    """The record that `Seek` asked for is no longer, or not, in the log, which now begins at
    `first`."""

    seek: int
    partition: int
    first: int


class Computed(NamedTuple):
    """The gradient of the rows in `[start, end)` of batch `clock`; opaque here
    (`gradient.BatchGradients` in the product)."""

    clock: int
    start: int
    end: int
    result: Any


class Tick(NamedTuple):
    """Time passed. Send one at `next_wake_ms` at the latest."""


class Drain(NamedTuple):
    """Start nothing more, finish what was started, park, then `Stop("")`."""


Event = (
    Answered
    | Unreachable
    | Refused
    | Assigned
    | Revoked
    | Records
    | Idle
    | Truncated
    | Computed
    | Tick
    | Drain
)
