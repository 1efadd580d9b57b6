"""One pacer driven by hand, an event at a time, and what its scripts are written with."""

from typing import Any

from learners.config import LearnerConfig
from learners.pacing import Batch, Pacer, events
from learners.pacing import instructions as do
from paramserver import (
    ChainProgress,
    Epoch,
    JoinReply,
    Outcome,
    Progress,
    ProgressReply,
    PullReply,
    PushReply,
    StartOutcome,
    StartReply,
)

EPOCH = Epoch(1, 1)


def batch(
    record: int,
    start: int,
    end: int,
    partition: int = 0,
    rows: int = 1,
    barrier: int = 0,
    time_ms: int = 0,
):
    return Batch(
        partition,
        f"label/{partition}",
        start,
        end,
        record,
        record + 1,
        rows,
        barrier,
        time_ms or record,
    )


def progress(
    end: int, record: int | None = 0, incarnation: int = 1, barrier: int = 0, partition: int = 0
):
    known = {} if record is None else {partition: record}
    return ProgressReply(
        incarnation, 1, Progress({f"label/{partition}": ChainProgress(end, barrier=barrier)}, known)
    )


class Script:
    """One pacer, driven by hand. `say` feeds an event; `out` is what came of it."""

    def __init__(self, shards: int = 2, **limits: int):
        self.pacer = Pacer("m", range(shards), LearnerConfig(**limits))
        self.now_ms = 0
        self.out: list[Any] = []

    def say(self, event: Any, after_ms: int = 1) -> list[Any]:
        self.now_ms += after_ms
        self.out = self.pacer.handle(event, self.now_ms)
        return self.out

    def answer(self, call: Any, reply: Any) -> list[Any]:
        return self.say(events.Answered(call.call, reply))

    def one(self, kind: type) -> Any:
        found = [i for i in self.out if isinstance(i, kind)]
        assert len(found) == 1, f"expected one {kind.__name__} in {self.out}"
        return found[0]

    def all(self, kind: type) -> list[Any]:
        return [i for i in self.out if isinstance(i, kind)]

    # --- steps that many scripts share ---

    def joined(self, *replies: ProgressReply, staleness: int = 0) -> do.Seek:
        """Assigned partition 0, joined, told; returns the seek."""
        self.say(events.Assigned([0]))
        self.answer(self.one(do.Join), JoinReply(EPOCH, 0, 10_000, staleness))
        self.progress(*replies)
        return self.one(do.Seek)

    def progress(self, *replies: ProgressReply) -> None:
        for ask, reply in zip(self.all(do.AskProgress), replies, strict=True):
            self.answer(ask, reply)

    def started(self, clock: int = 0) -> list[do.Pull]:
        self.answer(self.one(do.Start), StartReply(StartOutcome.ADMITTED, clock))
        return self.all(do.Pull)

    def computed(self, pulls: list[do.Pull], result: Any = "gradient") -> list[do.Push]:
        for pull in pulls:
            self.answer(pull, PullReply(Outcome.APPLIED, {}, {}, 7, 1))
        compute = self.one(do.Compute)
        self.say(events.Computed(compute.clock, compute.start, compute.end, result))
        return self.all(do.Push)


def pushed(outcome: Outcome, end: int, incarnation: int = 1) -> PushReply:
    return PushReply(outcome, end, incarnation, 1, 8)
