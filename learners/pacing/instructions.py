"""What a learner wants done, as `pacing` says it.

Every call (`Join` ... `Renew`) carries a number that is never given twice. Whoever performs it
hands back exactly one of `Answered`, `Unreachable` or `Refused` with that number; an answer that
comes after `Unreachable` is dropped.
"""

from typing import Any, NamedTuple

from learners.pacing.events import Batch
from paramserver import Epoch, PullReply, PushRequest, SlotMap, StartRequest

# --- calls
# --------------------------------------------------------------------------------------------------


class Join(NamedTuple):
    call: int


class AskProgress(NamedTuple):
    call: int
    shard: int


class Start(NamedTuple):
    call: int
    epoch: Epoch
    batch: Batch
    seek: int  # of the position that the batch was read from

    def request(self, model: str) -> StartRequest:
        """The message; calls are numbered in the order in which they are sent, so the number is
        its ticket."""
        b = self.batch
        return StartRequest(model, self.epoch, b.chain, b.start, b.end, b.barrier, ticket=self.call)


class Pull(NamedTuple):
    """Pull the rows of the batch's keys that live on this shard (and its dense arrays)."""

    call: int
    shard: int
    clock: int
    epoch: Epoch
    slot_map: SlotMap
    batch: Batch


class Push(NamedTuple):
    """Push the rows in `[start, end)` of batch `clock` to one shard. `result` is what `Computed`
    brought."""

    call: int
    shard: int
    clock: int
    epoch: Epoch
    map_epoch: int
    incarnation: int
    chain: str
    start: int
    end: int
    partition: int
    next_record: int
    barrier: int
    read_version: int
    result: Any

    def request(self, model: str, **content: Any) -> PushRequest:
        """The message. `content`: `row_hash`, `rows`, `event_time_max_ms`, `keys`, `gradients`,
        `dense`, `reason`."""
        return PushRequest(
            model=model,
            epoch=self.epoch,
            map_epoch=self.map_epoch,
            incarnation=self.incarnation,
            chain=self.chain,
            start=self.start,
            end=self.end,
            partition=self.partition,
            next_record=self.next_record,
            read_version=self.read_version,
            barrier=self.barrier,
            **content,
        )


class Ended(NamedTuple):
    call: int
    epoch: Epoch
    clock: int
    abandoned: bool = False


class Park(NamedTuple):
    call: int
    epoch: Epoch


class Renew(NamedTuple):
    call: int
    epoch: Epoch
    doing: str  # computing | rewinding | parked | waiting


Call = Join | AskProgress | Start | Pull | Push | Ended | Park | Renew


# --- the rest
# --------------------------------------------------------------------------------------------------


class Seek(NamedTuple):
    """Read this partition from here (None = its first record still there), and give nothing read
    before."""

    seek: int
    partition: int
    record: int | None


class Pause(NamedTuple):
    partition: int


class Resume(NamedTuple):
    partition: int


class Compute(NamedTuple):
    """Predict and differentiate the rows in `[start, end)` of the batch, on what was pulled
    (empty without rows)."""

    clock: int
    batch: Batch
    start: int
    end: int
    pulls: dict[int, PullReply]
    slot_map: SlotMap  # by which the keys were asked for, and the gradient is dealt


class Evaluate(NamedTuple):
    """Publish the evaluation of this batch: no shard had applied it when it was started (E1)."""

    clock: int
    batch: Batch
    result: Any


class Stop(NamedTuple):
    """The learner is done. An empty reason is a drained one; any other must be shown, and the
    exit code be not 0."""

    reason: str


Instruction = Call | Seek | Pause | Resume | Compute | Evaluate | Stop
