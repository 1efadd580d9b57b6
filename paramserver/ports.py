"""The boundary of the parameter server: what a learner, a checkpointer or an operator may ask of
it.

A call is a message of its own, a `Request`; a port is what performs one, with a method for each.
The ports in memory (`paramserver/server/in_memory.py`) hand it to a core,
`paramserver/wire/client.py` sends it over gRPC, and neither knows which calls there are. One
contract suite (`tests/paramserver/test_ports.py`, `test_clock_ports.py`) runs on both. Calls never
wait for another caller (K4); each has a deadline in the client, after which it raises
`Unreachable`, and may be sent again: every call here is safe to repeat.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

from paramserver.bounds import Bounds, PaceLevel
from paramserver.messages import (
    Deadline,
    Epoch,
    MarkReply,
    ModelSpec,
    Progress,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    Reply,
    Request,
    StartReply,
    StartRequest,
)
from paramserver.slots import SlotMap


class PortUnreachable(Exception):
    """No answer within the deadline: the call may or may not have been performed."""


class PortRefused(Exception):
    """The call was refused and nothing was changed; the message says why and what to do."""


class Malformed(PortRefused):
    """The message itself cannot be: arrays that do not fit its header, or over the limit. The
    same again never will."""


class NotAuthorized(PortRefused):
    """The caller has no token, or a wrong one."""


class StateStore(Protocol):
    """Beside the checkpoints: what shards must find again when a machine is replaced. Small
    files by name."""

    def read(self, name: str) -> bytes | None:
        """None = nothing of this name was written. Raises OSError where the store fails."""

    def write(self, name: str, data: bytes) -> None:
        """Whole and durable once it returns. Raises OSError where the store fails."""


@dataclass(frozen=True)
class ProgressReply:
    """How far a shard has got with a model, and which map of slots it goes by."""

    incarnation: int
    map_epoch: int
    progress: Progress | None  # None: the model has not begun here (S5)
    begun: dict[str, int] = field(default_factory=dict)  # chain -> the E at which it began
    slot_map: SlotMap | None = (
        None  # in force on this shard (S6); None: even, over the shards that are asked
    )


class ServingFile(NamedTuple):
    """What replicas read of one shard's cut: its file beside the part. `parent`: checksum of the
    manifest that it is a delta upon; "" = all weights."""

    path: str  # relative to the checkpoint's folder
    sha256: str
    bytes: int
    rows: int
    tombstones: int = 0
    parent: str = ""


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
    serving: tuple[ServingFile, ...] = ()


# --- what is asked of a shard -------------------------------------------------------------------


@dataclass(frozen=True)
class BeginRequest(Request[ProgressReply]):
    """Set the first ends of all chains, and the initial dense arrays (S5)."""

    deadline: ClassVar[Deadline] = Deadline.DATA
    spec: ModelSpec
    vector: dict[str, int]  # chain -> E
    dense: dict[str, object]  # by name, as numpy.asarray takes it


@dataclass(frozen=True)
class ProgressRequest(Request[ProgressReply]):
    model: str


@dataclass(frozen=True)
class MarkRequest(Request[MarkReply]):
    """Name the state at exactly this vector (chain -> E) as the cut (X1)."""

    deadline: ClassVar[Deadline] = Deadline.WRITE
    model: str
    cut: str
    vector: dict[str, int]


@dataclass(frozen=True)
class UnmarkRequest(Request[None]):
    model: str
    cut: str


@dataclass(frozen=True)
class WritePartRequest(Request[PartInfo]):
    """Write the marked state into the folder `url`; `parent` as in `ShardPort.write_part`."""

    deadline: ClassVar[Deadline] = Deadline.WRITE
    model: str
    cut: str
    url: str
    parent: str | None


@dataclass(frozen=True)
class SettleRequest(Request[None]):
    model: str
    cut: str
    manifest_sha256: str


class AllowReply(NamedTuple):
    """A list counts where these are the incarnation and the map epoch that it named (K5, S6)."""

    incarnation: int
    map_epoch: int


@dataclass(frozen=True)
class AllowRequest(Request[AllowReply]):
    """The clock holder's allow list: this era, and exactly these epochs may push (K5)."""

    era: int
    sequence: int  # of an era's lists; the highest counts
    epochs: tuple[Epoch, ...]
    #: A shard of another incarnation adopts nothing and only answers its own. The clock holder
    #: always names one, so a list delayed on its way to a dead process cannot open its successor
    #: to an expelled learner; 0 = of a shard that it has not heard of. None = whichever it is.
    incarnation: int | None = None
    #: A shard of another map adopts nothing either; one of an older map reads the head complete
    #: cut (S6). None = whichever it is.
    map_epoch: int | None = None
    #: model -> the compensation that an operator ordered (K6); the others have the configured one
    ways: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RemapRequest(Request[int]):
    """A map of this epoch stands in the head complete cut (S6)."""

    epoch: int


@dataclass(frozen=True)
class PrepareRequest(Request[str]):
    """Slots are to move to this map (S6)."""

    slot_map: SlotMap
    manifest_sha256: str


@dataclass(frozen=True)
class DataChannelReply:
    """Where frames are taken beside gRPC; no address: nowhere."""

    address: str = ""
    token: bytes = b""


@dataclass(frozen=True)
class DataChannelRequest(Request[DataChannelReply]):
    """Where are frames taken? Asked by the client alone."""


#: What a shard's core answers by itself, and what its process does around it.
CoreRequest = (
    BeginRequest | ProgressRequest | MarkRequest | UnmarkRequest | SettleRequest | AllowRequest
)
ShardRequest = CoreRequest | WritePartRequest | RemapRequest | PrepareRequest | DataChannelRequest

# --- what is asked of the clocks ----------------------------------------------------------------


@dataclass(frozen=True)
class JoinReply:
    """What a learner is told when it joins: its epoch, and the bounds in force."""

    epoch: Epoch
    clock: int  # batches counted as started and ended on entry: the current minimum (K3)
    lease_ms: int
    staleness: int  # s; -1 = unbounded


@dataclass(frozen=True)
class JoinRequest(Request[JoinReply]):
    model: str
    learner: str


@dataclass(frozen=True)
class EndedRequest(Request[bool]):
    model: str
    epoch: Epoch
    clock: int


@dataclass(frozen=True)
class ParkRequest(Request[bool]):
    model: str
    epoch: Epoch


class RenewReply(NamedTuple):
    """`incarnations`: shard -> the newest that the clock holder has seen (S2)."""

    fenced: bool
    incarnations: dict[int, int]


@dataclass(frozen=True)
class RenewRequest(Request[RenewReply]):
    model: str
    epoch: Epoch
    doing: str  # computing | rewinding | parked | waiting


@dataclass(frozen=True)
class HoldRequest(Request[bool]):
    model: str
    cut: str
    lease_ms: int
    highest: dict[str, int]  # chain -> E


@dataclass(frozen=True)
class ReleaseRequest(Request[None]):
    model: str
    cut: str


class OperatorRequest(Request[None]):
    """An operator's setting: durable before it is acknowledged (K6)."""


@dataclass(frozen=True)
class SetStalenessRequest(OperatorRequest):
    model: str
    staleness: int  # -1 = unbounded


@dataclass(frozen=True)
class SetConcurrencyRequest(OperatorRequest):
    model: str
    concurrency: int  # 0 = no limit


@dataclass(frozen=True)
class SetCompensationRequest(OperatorRequest):
    model: str
    way: str  # "" = as configured


@dataclass(frozen=True)
class SetPausedRequest(OperatorRequest):
    model: str
    paused: bool


@dataclass(frozen=True)
class SetShardsRequest(OperatorRequest):
    model: str
    shards: int


@dataclass(frozen=True)
class ShardsOrderedRequest(Request[int]):
    model: str


@dataclass(frozen=True)
class BoundsRequest(Request[Bounds]):
    model: str


@dataclass(frozen=True)
class GovernRequest(Request[Bounds]):
    model: str
    governor: str
    sequence: int
    level: PaceLevel
    lease_ms: int


ClockRequest = (
    JoinRequest
    | StartRequest
    | EndedRequest
    | ParkRequest
    | RenewRequest
    | HoldRequest
    | ReleaseRequest
    | SetStalenessRequest
    | SetConcurrencyRequest
    | SetCompensationRequest
    | SetPausedRequest
    | SetShardsRequest
    | ShardsOrderedRequest
    | BoundsRequest
    | GovernRequest
)

# --- the ports ----------------------------------------------------------------------------------


class Port(ABC):
    """Who performs calls."""

    @abstractmethod
    def call(self, request: Request[Reply]) -> Reply:
        """Perform one call. Raises Refused and Unreachable."""


class ShardPort(Port):
    """One shard."""

    def begin(
        self, spec: ModelSpec, vector: dict[str, int], dense: dict[str, object]
    ) -> ProgressReply:
        """Set the first ends of all chains, and the initial dense arrays (S5). Repeating the
        same is harmless."""
        return self.call(BeginRequest(spec, vector, dense))

    def progress(self, model: str) -> ProgressReply:
        """How far the shard is with a model."""
        return self.call(ProgressRequest(model))

    @abstractmethod
    def pull(self, request: PullRequest) -> PullReply:
        """Weights of keys, rows (n, dim) float32 a table. Raises Refused and Unreachable."""

    @abstractmethod
    def push(self, request: PushRequest) -> PushReply:
        """Apply a batch's gradients once (S1). Raises Refused and Unreachable; safe to repeat."""

    def mark(self, model: str, cut: str, vector: dict[str, int]) -> MarkReply:
        """Name the state at exactly this vector (chain -> E) as the cut, or refuse (X1)."""
        return self.call(MarkRequest(model, cut, vector))

    def unmark(self, model: str, cut: str) -> None:
        """The cut is given up: its copy is dropped."""
        self.call(UnmarkRequest(model, cut))

    def write_part(self, model: str, cut: str, url: str, parent: str | None) -> PartInfo:
        """Write the marked state durably into the folder `url`. `parent`: checksum of the manifest
        that a delta may build on (X2); None = full."""
        return self.call(WritePartRequest(model, cut, url, parent))

    def settle(self, model: str, cut: str, manifest_sha256: str) -> None:
        """The cut is complete as this manifest: it may be a parent; its copy is dropped."""
        self.call(SettleRequest(model, cut, manifest_sha256))

    def allow(self, request: AllowRequest) -> AllowReply:
        """The clock holder's list of who may push. Raises Refused where its era is over (K5)."""
        return self.call(request)

    def remap(self, epoch: int) -> int:
        """A map of this epoch stands in the head complete cut: take it from there, soon. A shard
        that has it and holds nothing takes up the cut (X2). Answers the epoch in force (S6)."""
        return self.call(RemapRequest(epoch))

    def prepare(self, slot_map: SlotMap, manifest_sha256: str) -> str:
        """Slots are to move to this map: hold what the head cut gives this shard under it, beside
        what it has, so that the move need not read it. "" = what is held is of the cut of this
        manifest; else why it is not, yet (S6)."""
        return self.call(PrepareRequest(slot_map, manifest_sha256))


class ClockPort(Port):
    """The holder of slot 0: clocks of all learners of all models (K1-K7), and the stop lease of
    cuts (X1)."""

    def join(self, model: str, learner: str) -> JoinReply:
        """Enter at the current minimum under a new epoch; an older epoch of the same learner is
        fenced first."""
        return self.call(JoinRequest(model, learner))

    def start(self, request: StartRequest) -> StartReply:
        """May this batch be started? Never waits: the answer says what for (K1, K2)."""
        return self.call(request)

    def ended(self, model: str, epoch: Epoch, clock: int) -> bool:
        """Batch `clock` ended: acknowledged by every shard, or abandoned (K1). False = fenced.

        A learner repeats it until it is answered before it starts the same range again.
        """
        return self.call(EndedRequest(model, epoch, clock))

    def park(self, model: str, epoch: Epoch) -> bool:
        """All ended, nothing to read: leave the minimum. The next start unparks at the current
        minimum (K3)."""
        return self.call(ParkRequest(model, epoch))

    def renew(self, model: str, epoch: Epoch, doing: str) -> dict[int, int] | None:
        """Renew the lease with a stated 'computing' | 'rewinding' | 'parked' | 'waiting'; answers
        shard -> incarnation as the clock holder last saw them (S2), or None = fenced."""
        reply = self.call(RenewRequest(model, epoch, doing))
        return None if reply.fenced else reply.incarnations

    def hold(self, model: str, cut: str, lease_ms: int, highest: dict[str, int]) -> bool:
        """Stop starts above `highest` (chain -> E) for this long; renewed by repeating. False =
        another cut holds."""
        return self.call(HoldRequest(model, cut, lease_ms, highest))

    def release(self, model: str, cut: str) -> None:
        """Starts may go on: the cut is done, or given up. Of another cut nothing happens (X1)."""
        self.call(ReleaseRequest(model, cut))

    def set_staleness(self, model: str, staleness: int) -> None:
        """The bound from the next start on, also after a restart of the clock holder; -1 =
        unbounded."""
        self.call(SetStalenessRequest(model, staleness))

    def set_concurrency(self, model: str, concurrency: int) -> None:
        """Batches of all learners under way at once, also after a restart of the clock holder; 0
        = no limit."""
        self.call(SetConcurrencyRequest(model, concurrency))

    def set_compensation(self, model: str, way: str) -> None:
        """How shards meet stale gradients (`compensation.WAYS`), also after a restart; "" = as
        configured."""
        self.call(SetCompensationRequest(model, way))

    def set_shards(self, model: str, shards: int) -> None:
        """How many shards there are to be, also after a restart, until another number is
        configured (S6)."""
        self.call(SetShardsRequest(model, shards))

    def shards_ordered(self, model: str) -> int:
        """How many shards there are to be: as ordered, else as configured."""
        return self.call(ShardsOrderedRequest(model))

    def set_paused(self, model: str, paused: bool) -> None:
        """Stop starts until further notice, also after a restart of the clock holder. Cuts go on:
        what a shard lacks of another's progress may still be started."""
        self.call(SetPausedRequest(model, paused))

    def bounds(self, model: str) -> Bounds:
        """What bounds a model's training now, and by whose word (K6, K7)."""
        return self.call(BoundsRequest(model))

    def govern(
        self, model: str, governor: str, sequence: int, level: PaceLevel, lease_ms: int
    ) -> Bounds:
        """A governor's lease beside the operator's: it only tightens, for `lease_ms` (0 gives it
        back), and is lost with the clock holder (K7). `sequence` numbers a governor's leases.
        Answers what then bounds the model: another governor's name there says that nothing was
        taken."""
        return self.call(GovernRequest(model, governor, sequence, level, lease_ms))
