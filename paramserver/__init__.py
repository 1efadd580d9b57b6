"""The parameter server: shards that hold a model's rows, the clocks that bound staleness, and the
wire between.

How it works ------------ A model is tables of rows (float32 weights with optimizer state behind
them) under 64-bit keys, and dense arrays under names. A key lies in one of 1,024 virtual slots for
ever, and a slot map says which shard owns each slot (`slots`). Learners pull rows, compute, and
push one gradient row per unique key; the shard runs the optimizer (`optimizers`, `table`, `dense`).

A shard knows what it has learned. Beside the parameters it keeps, for every chain of batches, the
position E up to which it has applied them, and a hash of exactly those rows; both change together
with the parameters, by one writer (`state`). A push of [start, end) is applied iff start = E
(`shard.judge`): a repeat is a duplicate, something early is a gap, and a learner may send anything
any number of times. So nothing else has to remember what was delivered: not the learner, not the
log's group offsets, not a table of request ids.

Every shard gets every batch, if only as an empty push, so all of them move along the same chains,
and "all shards at one vector of E" is a moment they agree on: a cut. `mark` names the state at
exactly that vector and keeps a copy while pushes go on; `part` turns it into named arrays for a
file.

Invariants
----------
- Only an applied push changes a shard; a pull creates nothing and an unknown key has a value that
  depends on the key alone (`init`), so what a model is does not depend on who read it.
- A push is validated, then rows are reserved, then it is applied, and nothing raises in between.
  What is refused for its content still moves E, as an empty push: a chain never stops at a batch.
- The same pushes in the same order give the same bytes, and a shard restored from a cut, given the
  rest again, is bit for bit one that never stopped. Row order, table growth and the number of
  shards leave no trace.
- A push names the incarnation of the shard whose progress it was planned by, and that is compared
  before E: after a restart from a cut, a range that lies ahead is a reason to rewind and not a
  reordering.
- Which shard owns a slot changes with a complete cut that says so, and with nothing else; a shard
  takes its slots of another map as a new incarnation, restored from that cut. So nothing is moved
  between two running shards.
- Who may push is an allow list, told anew to each incarnation by the holder of the clocks; never a
  remembered deny list, which a restart would forget.

Why not otherwise
-----------------
- *Acknowledgements with sequence numbers per learner:* a learner that dies takes its numbers with
  it, and a partition that moves to another learner would start without any. Positions of the log
  outlive both.
- *Rows by hash modulo the number of shards:* a checkpoint could then be loaded by that number only.
- *Python dicts of arrays:* an update of 16,384 rows would be as many small allocations. One index
  and one row store per table keep weights and state side by side and release the GIL.
- *FTRL on the learner:* its sigma needs the present weight, and the learner's is stale. With z and
  n on the shard a stale gradient still steps from where the weight is now.

Read in this order: `messages`, `slots`, `optimizers`, `table`, `state`, `shard`, `part`, `clocks`;
then the shells `server` and `client`, and `local`, which is both in memory.

- `clocks`: Clocks of learners, bounded staleness (K1 to K7), and operators' settings
- `optim`: Optimizers, over rows and over dense arrays
- `parts`: A shard's part of a checkpoint
- `process`: The process of a shard
- `server`: A shard behind gRPC
- `shard`: One shard
- `tables`: Tables of rows in memory
- `wire`: What travels between processes
- `bounds`: what bounds a model's training
- `compensation`: how a shard may compensate stale gradients
- `config`: settings of the parameter server, for the shards and for whoever calls them
- `encoding`: rows on the wire in 16 bits
- `kernel`: what several kernels of a shard share
- `messages`: what is said to a shard and to the clocks, and what they answer, as values
- `ports`: the boundary of the parameter server
- `slots`: key -> one of 1,024 virtual slots -> shard
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from paramserver.bounds import GOVERNOR_LEASE_MAX_MS, Bounds, PaceLevel
    from paramserver.compensation import NO_COMPENSATION, WAYS, Compensation
    from paramserver.config import NoAddress, ParamServerConfig, is_loopback
    from paramserver.encoding import ENCODINGS, Encoding, decode_rows, encode_rows
    from paramserver.kernel import plain, prefetch
    from paramserver.messages import (
        ChainProgress,
        DenseSpec,
        Epoch,
        Keys,
        MarkReply,
        ModelSpec,
        Outcome,
        Progress,
        PullReply,
        PullRequest,
        PushReply,
        PushRequest,
        Rows,
        StartOutcome,
        StartReply,
        StartRequest,
        TableSpec,
    )
    from paramserver.ports import (
        AllowRequest,
        ClockPort,
        JoinReply,
        PartInfo,
        PortRefused,
        PortUnreachable,
        ProgressReply,
        ServingFile,
        ShardPort,
    )
    from paramserver.slots import SLOTS, SlotMap, slot_of
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "ENCODINGS",
    "GOVERNOR_LEASE_MAX_MS",
    "NO_COMPENSATION",
    "SLOTS",
    "WAYS",
    "AllowRequest",
    "Bounds",
    "ChainProgress",
    "ClockPort",
    "Compensation",
    "DenseSpec",
    "Encoding",
    "Epoch",
    "JoinReply",
    "Keys",
    "MarkReply",
    "ModelSpec",
    "NoAddress",
    "Outcome",
    "PaceLevel",
    "ParamServerConfig",
    "PartInfo",
    "PortRefused",
    "PortUnreachable",
    "Progress",
    "ProgressReply",
    "PullReply",
    "PullRequest",
    "PushReply",
    "PushRequest",
    "Rows",
    "ServingFile",
    "ShardPort",
    "SlotMap",
    "StartOutcome",
    "StartReply",
    "StartRequest",
    "TableSpec",
    "decode_rows",
    "encode_rows",
    "is_loopback",
    "plain",
    "prefetch",
    "slot_of",
]
