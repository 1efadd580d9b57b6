"""The boundary of the parameter server: what a learner, a checkpointer or an operator may ask of
it.

`local` implements both ports in memory over the cores; `client` implements them over gRPC. One
contract suite (`tests/paramserver/test_ports.py`, `test_clock_ports.py`) runs on both. Calls never
wait for another caller (K4); each has a deadline in the client, after which it raises
`Unreachable`, and may be sent again: every call here is safe to repeat.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from paramserver.bounds import Bounds, Rung
from paramserver.messages import (
    Epoch,
    MarkReply,
    ModelSpec,
    Progress,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    StartReply,
    StartRequest,
)
from paramserver.slots import SlotMap


class Unreachable(Exception):
    """No answer within the deadline: the call may or may not have been performed."""


class Refused(Exception):
    """The call was refused and nothing was changed; the message says why and what to do."""


class Malformed(Refused):
    """The message itself cannot be: arrays that do not fit its header, or over the limit. The
    same again never will."""


class NotAuthorized(Refused):
    """The caller has no token, or a wrong one."""


@dataclass(frozen=True)
class ProgressReply:
    incarnation: int
    map_epoch: int
    progress: Progress | None  # None: the model has not begun here (S5)
    begun: dict[str, int] = field(default_factory=dict)  # chain -> the E at which it began
    slot_map: SlotMap | None = (
        None  # in force on this shard (S6); None: even, over the shards that are asked
    )


class StateStore(Protocol):
    """Beside the checkpoints: what shards must find again when a machine is replaced. Small
    files by name."""

    def read(self, name: str) -> bytes | None:
        """None = nothing of this name was written. Raises OSError where the store fails."""

    def write(self, name: str, data: bytes) -> None:
        """Whole and durable once it returns. Raises OSError where the store fails."""


class AllowReply(NamedTuple):
    """A list counts where these are the incarnation and the map epoch that it named (K5, S6)."""

    incarnation: int
    map_epoch: int


@dataclass(frozen=True)
class PartInfo:
    """One shard's durable part of a cut: a safetensors file, its checksum, and what it says of
    itself (I5)."""

    shard: int
    url: str
    sha256: str
    bytes: int
    rows: int
    tombstones: int
    kind: str  # "full" | "delta"
    progress: Progress


@dataclass(frozen=True)
class JoinReply:
    epoch: Epoch
    clock: int  # batches counted as started and ended on entry: the current minimum (K3)
    lease_ms: int
    staleness: int  # s; -1 = unbounded


class ShardPort(Protocol):
    """One shard."""

    def begin(
        self, spec: ModelSpec, vector: dict[str, int], dense: dict[str, object]
    ) -> ProgressReply:
        """Set the first ends of all chains, and the initial dense arrays (S5). Repeating the
        same is harmless."""

    def progress(self, model: str) -> ProgressReply: ...

    def pull(self, request: PullRequest) -> PullReply: ...

    def push(self, request: PushRequest) -> PushReply: ...

    def mark(self, model: str, cut: str, vector: dict[str, int]) -> MarkReply:
        """Name the state at exactly this vector (chain -> E) as the cut, or refuse (X1)."""

    def unmark(self, model: str, cut: str) -> None: ...

    def write_part(self, model: str, cut: str, url: str, parent: str | None) -> PartInfo:
        """Write the marked state durably into the folder `url`. `parent`: checksum of the manifest
        that a delta may build on (X2); None = full."""

    def settle(self, model: str, cut: str, manifest_sha256: str) -> None:
        """The cut is complete as this manifest: it may be a parent; its copy is dropped."""

    def allow(
        self,
        era: int,
        sequence: int,
        epochs: list[Epoch],
        incarnation: int | None = None,
        ways: dict[str, str] | None = None,
        map_epoch: int | None = None,
    ) -> AllowReply:
        """The clock holder's word: this era, and exactly these epochs may push (K5).
        `ways`: model -> the compensation that an operator ordered (K6).

        With `incarnation`, a shard of another one adopts nothing and only answers its own. The
        clock holder always names one, so a list delayed on its way to a dead process cannot open
        its successor to an expelled learner. With `map_epoch`, so does a shard of another map; one
        of an older map reads the head complete cut (S6).
        """

    def remap(self, epoch: int) -> int:
        """A map of this epoch stands in the head complete cut: take it from there, soon. Answers
        the epoch in force (S6)."""

    def prepare(self, slot_map: SlotMap, manifest_sha256: str) -> str:
        """Slots are to move to this map: hold what the head cut gives this shard under it, beside
        what it has, so that the move need not read it. "" = what is held is of the cut of this
        manifest; else why it is not, yet (S6)."""


class ClockPort(Protocol):
    """The holder of slot 0: clocks of all learners of all models (K1-K7), and the stop lease of
    cuts (X1)."""

    def join(self, model: str, learner: str) -> JoinReply:
        """Enter at the current minimum under a new epoch; an older epoch of the same learner is
        fenced first."""

    def start(self, request: StartRequest) -> StartReply: ...

    def ended(self, model: str, epoch: Epoch, clock: int) -> bool:
        """Batch `clock` ended: acknowledged by every shard, or abandoned (K1). False = fenced.

        A learner repeats it until it is answered before it starts the same range again.
        """

    def park(self, model: str, epoch: Epoch) -> bool:
        """All ended, nothing to read: leave the minimum. The next start unparks at the current
        minimum (K3)."""

    def renew(self, model: str, epoch: Epoch, doing: str) -> dict[int, int] | None:
        """Renew the lease with a stated 'computing' | 'rewinding' | 'parked' | 'waiting'; answers
        shard -> incarnation as the clock holder last saw them (S2), or None = fenced."""

    def hold(self, model: str, cut: str, lease_ms: int, highest: dict[str, int]) -> bool:
        """Stop starts above `highest` (chain -> E) for this long; renewed by repeating. False =
        another cut holds."""

    def release(self, model: str, cut: str) -> None: ...

    def set_staleness(self, model: str, staleness: int) -> None:
        """The bound from the next start on, also after a restart of the clock holder; -1 =
        unbounded."""

    def set_concurrency(self, model: str, concurrency: int) -> None:
        """Batches of all learners under way at once, also after a restart of the clock holder; 0
        = no limit."""

    def set_compensation(self, model: str, way: str) -> None:
        """How shards meet stale gradients (`compensation.WAYS`), also after a restart; "" = as
        configured."""

    def set_shards(self, model: str, shards: int) -> None:
        """How many shards there are to be, also after a restart, until another number is
        configured (S6)."""

    def shards_ordered(self, model: str) -> int:
        """How many shards there are to be: as ordered, else as configured."""

    def set_paused(self, model: str, paused: bool) -> None:
        """Stop starts until further notice, also after a restart of the clock holder. Cuts go on:
        what a shard lacks of another's progress may still be started."""

    def bounds(self, model: str) -> Bounds:
        """What bounds a model's training now, and by whose word (K6, K7)."""

    def govern(self, model: str, governor: str, sequence: int, rung: Rung, lease_ms: int) -> Bounds:
        """A governor's word beside the operator's: it only tightens, for `lease_ms` (0 gives it
        back), and is lost with the clock holder (K7). `sequence` numbers a governor's words.
        Answers what then bounds the model: another governor's name there says that nothing was
        taken."""
