"""What is said to a shard and to the clocks, and what they answer, as values.

The cores (`shard`, `clocks`) take and return these; `in_memory` passes them by reference and
`client`/`server` carry them over gRPC as protobuf with keys and rows as raw little-endian bytes.
Chains, ranges and partitions are opaque here.

Keys are uint64, unique and sorted rising, and all belong to slots of the shard that is asked. Rows
are float32.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

#: (n,) rising, each once.
Keys = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.float32]  # (len(keys), dim)
Floats = npt.NDArray[np.float32]

Reply = TypeVar("Reply")


class Deadline(Enum):
    """How long a call may take: which of the timeouts of `paramserver.config` is its."""

    CONTROL = "control_timeout_ms"
    DATA = "data_timeout_ms"
    WRITE = "write_timeout_ms"


class Request(Generic[Reply]):
    """What one call says, and as `Reply` the type of what is answered. Its protobuf message has its
    name and its fields (`paramserver/wire/wire.proto`), its call that name without `Request`."""

    deadline: ClassVar[Deadline] = Deadline.CONTROL


class Epoch(NamedTuple):
    """A learner's membership (K5): the era of the clock holder, and a number that is never given
    twice in it."""

    era: int
    n: int


class Outcome(Enum):
    """What became of a push (S1, S2, S4, K5, S6)."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"  # end <= E
    OVERLAP = "overlap"  # start < E < end: split at E and send again
    GAP = "gap"  # start > E: a reordering, send again; or after a restart, rewind
    WRONG_INCARNATION = "wrong_incarnation"  # the named incarnation is not this one: rewind
    FENCED = "fenced"  # the epoch is not allowed (expelled, older era)
    NO_ERA = "no_era"  # this shard has not yet been told era and allowed epochs: ask again
    WRONG_MAP = "wrong_map"  # another map epoch: refresh the slot map
    NOT_BEGUN = "not_begun"  # the model has no progress here (S5)
    PARTLY_APPLIED = "partly_applied"  # refused for content: ended as an empty push, counted (S4)


@dataclass(frozen=True)
class ChainProgress:
    """Where a shard stands on one chain: end E, row hash h (S7, sum mod 2^128), last barrier
    (E3), rows applied."""

    end: int
    row_hash: int = 0
    barrier: int = 0
    rows: int = 0


@dataclass(frozen=True)
class Progress:
    """All a shard has learned of a model, changed together with its parameters by one writer
    (S1)."""

    chains: dict[str, ChainProgress]
    #: `examples` partition -> the next record to read there, so that a learner can seek
    next_record: dict[int, int]
    version: int = 0  # pushes applied by this shard
    #: largest event time (ms) among applied rows; the age of what was learned
    event_time_max_ms: int = 0


@dataclass(frozen=True)
class TableSpec:
    """One embedding table of a model: the same on every shard."""

    name: str
    dim: int
    #: "sgd" | "adagrad" | "rowwise_adagrad" | "adam" | "ftrl"
    optimizer: str = "adagrad"
    #: hyper-parameters by name: rate (sgd); rate, epsilon, accumulator (both adagrads); rate,
    #: beta1, beta2, epsilon (adam); alpha, beta, l1, l2 (ftrl); decay_ms, decay_share (adagrads,
    #: ftrl). Meaning: `paramserver.optim.optimizers`
    options: dict[str, float] = field(default_factory=dict)
    #: a new row is uniform in [-init_scale, init_scale), a function of (key, seed) alone
    init_scale: float = 0.0
    seed: int = 0
    #: which keys get a row, and how long they keep it: ttl_ms, rows_max, ...
    #: (`paramserver.tables.policy`); none = all, always
    policy: dict[str, float] = field(default_factory=dict)
    #: how rows are kept: "float32", or in 16 bits (`paramserver.tables.row_layout`)
    storage: str = "float32"


@dataclass(frozen=True)
class DenseSpec:
    """The dense parameters of a model: arrays by name and their optimizer, one of those of a
    table. An array whose name begins with "moments:" is a running sum, to which pushes are added.
    """

    shapes: dict[str, tuple[int, ...]]
    optimizer: str = "adagrad"
    options: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSpec:
    """What a shard must know of a model. `digest` names the definition; another digest under the
    name is refused."""

    name: str
    digest: str
    tables: tuple[TableSpec, ...]
    dense: DenseSpec


# --- data plane: one shard
# --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PullRequest:
    """Weights, please: of these keys, and of all dense arrays if `dense` (S4)."""

    model: str
    epoch: Epoch
    map_epoch: int
    keys: dict[str, Keys]  # table -> keys of this shard
    dense: bool = True


@dataclass(frozen=True)
class PullReply:
    """`rows[table][i]` belongs to `keys[table][i]`; a key the shard does not know has its initial
    value (S3).

    Between a shard and what serves it, rows may be encoded already (`Shard.pull`)."""

    outcome: Outcome  # APPLIED, or why not
    rows: dict[str, Rows]
    dense: dict[str, npt.NDArray[np.float32]]  # only the arrays that live on this shard
    version: int
    incarnation: int


@dataclass(frozen=True)
class PushRequest:
    """One batch, or one piece of a split batch, for one shard. Empty `keys` and `dense` still
    move progress."""

    model: str
    epoch: Epoch
    map_epoch: int
    incarnation: int  # the one that answered when the position was sought (S2)
    chain: str
    start: int
    end: int
    partition: int  # of `examples`
    next_record: int  # the record after the one this range ends
    read_version: (
        int  # this shard's version when the batch was pulled: staleness = version - read_version
    )
    row_hash: int  # of exactly the rows in [start, end) (S7)
    rows: int
    event_time_max_ms: int = 0
    barrier: int = 0  # of an empty range [E, E) (E3); 0 = none
    keys: dict[str, Keys] = field(default_factory=dict)
    gradients: dict[str, Rows] = field(default_factory=dict)
    dense: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    reason: str = (
        ""  # why the learner sends this batch empty (S4): "nan gradient in feature item", ...
    )
    #: `gradients` are whole rows, (n, weights and optimizer state), to stand where these keys have
    #: a row (S8)
    rewrites: bool = False


@dataclass(frozen=True)
class PushReply:
    """Every answer carries E, incarnation, map epoch and staleness (S1)."""

    outcome: Outcome
    end: int  # E of the chain after this push
    incarnation: int
    map_epoch: int
    version: int
    staleness: int = 0  # updates applied between this batch's read and its write
    detail: str = ""


# --- clock plane: the holder of slot 0
# --------------------------------------------------------------------------


class StartOutcome(Enum):
    """May a batch be started, and if not, what is waited for?"""

    ADMITTED = "admitted"
    WAIT_STALENESS = "wait_staleness"  # K2
    WAIT_CUT = (
        "wait_cut"  # X1: starts are stopped; `highest` says how far a catch-up start may reach
    )
    # an operator has stopped training: only what a cut must catch up with may start
    WAIT_PAUSED = "wait_paused"
    FENCED = "fenced"  # join again, rewind


@dataclass(frozen=True)
class StartReply:
    """The answer to `StartRequest`."""

    outcome: StartOutcome
    clock: int = -1  # the batch's stamp c, when admitted
    highest: dict[str, int] = field(
        default_factory=dict
    )  # under a cut: chain -> highest E of any shard


@dataclass(frozen=True)
class StartRequest(Request[StartReply]):
    """May I start the batch `[start, end)`? Admitted once, by the clock, for all shards (K1).

    `ticket` numbers the messages of one epoch, rising with every message sent (the client fills it
    in; 0 = the transport neither delays nor repeats). It keeps a start that arrives after its
    learner went on from being admitted as a batch that nobody runs and nobody ends.
    """

    model: str
    epoch: Epoch
    chain: str
    start: int
    end: int
    barrier: int = 0
    ticket: int = 0


# --- cuts: every shard
# ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MarkReply:
    """Whether the shard stands at the vector and has marked it. A refusal says where it stands
    (X1)."""

    marked: bool
    incarnation: int
    progress: Progress
