"""Both ports of the parameter server in memory, over the same cores as the server: no network, no
disk, no clock.

Time comes from the function that is handed in, parts of checkpoints go to the mapping that is
handed in. Nothing here is locked: whoever shares one between threads serialises the calls.
"""

from collections.abc import Callable, MutableMapping

from paramserver.bounds import Bounds, Rung
from paramserver.clocks.clocks import Clocks
from paramserver.messages import (
    Epoch,
    MarkReply,
    ModelSpec,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    StartReply,
    StartRequest,
)
from paramserver.parts.safetensors_file import encode_part, part_info, part_name
from paramserver.ports import AllowReply, JoinReply, PartInfo, ProgressReply
from paramserver.shard.shard import Shard
from paramserver.slots import SlotMap


class LocalShard:
    """`ShardPort` over a shard core. `files` maps a URL to the bytes written there; `take_map`
    answers a new incarnation of the shard, from the head complete cut (S6)."""

    def __init__(
        self,
        shard: Shard,
        files: MutableMapping[str, bytes] | None = None,
        take_map: Callable[[Shard], Shard] | None = None,
    ) -> None:
        self.shard, self.take_map = shard, take_map
        self.files: MutableMapping[str, bytes] = {} if files is None else files

    def begin(
        self, spec: ModelSpec, vector: dict[str, int], dense: dict[str, object]
    ) -> ProgressReply:
        return self.shard.begin(spec, vector, dense)

    def progress(self, model: str) -> ProgressReply:
        return self.shard.progress(model)

    def pull(self, request: PullRequest) -> PullReply:
        return self.shard.pull(request)

    def push(self, request: PushRequest) -> PushReply:
        return self.shard.push(request)

    def mark(self, model: str, cut: str, vector: dict[str, int]) -> MarkReply:
        return self.shard.mark(model, cut, vector)

    def unmark(self, model: str, cut: str) -> None:
        self.shard.unmark(model, cut)

    def write_part(self, model: str, cut: str, url: str, parent: str | None) -> PartInfo:
        snapshot = self.shard.marked(model, cut, parent)
        target = f"{url.rstrip('/')}/{part_name(self.shard.index)}"
        data = encode_part(snapshot)
        self.files[target] = data
        return part_info(snapshot, target, data)

    def settle(self, model: str, cut: str, manifest_sha256: str) -> None:
        self.shard.settle(model, cut, manifest_sha256)

    def allow(
        self,
        era: int,
        sequence: int,
        epochs: list[Epoch],
        incarnation: int | None = None,
        ways: dict[str, str] | None = None,
        map_epoch: int | None = None,
    ) -> AllowReply:
        if incarnation is not None and incarnation != self.shard.incarnation:
            return AllowReply(self.shard.incarnation, self.shard.slot_map.epoch)
        return self.shard.allow(era, sequence, epochs, ways, map_epoch)

    def remap(self, epoch: int) -> int:
        if epoch > self.shard.slot_map.epoch and self.take_map is not None:
            self.shard = self.take_map(self.shard)
        return self.shard.slot_map.epoch

    def prepare(self, slot_map: SlotMap, manifest_sha256: str) -> str:
        """Nothing is read ahead here."""
        return ""


class LocalClock:
    """`ClockPort` over the clock core. `now_ms` answers the time, `tell` (below) carries the
    allow list."""

    def __init__(self, clocks: Clocks, now_ms: Callable[[], int]) -> None:
        self.clocks, self.now_ms = clocks, now_ms

    def tell(self, shards: dict[int, LocalShard]) -> None:
        """What the clock holder does at each beat: expire leases, and bring every shard the
        allow list (K5)."""
        self.clocks.tick(self.now_ms())
        for index, shard in shards.items():
            allow = self.clocks.allow_list()
            for _ in range(2):  # the second time under the incarnation that answered the first
                named = AllowReply(self.clocks.incarnations.get(index, 0), self.clocks.map_epoch)
                answered = shard.allow(
                    allow.era,
                    allow.sequence,
                    list(allow.epochs),
                    named.incarnation,
                    self.clocks.ways(),
                    named.map_epoch,
                )
                holds = allow.sequence if answered == named else 0
                self.clocks.confirm(allow.era, holds, index, answered.incarnation)
                if answered == named:
                    break

    def join(self, model: str, learner: str) -> JoinReply:
        return self.clocks.join(model, learner, self.now_ms())

    def start(self, request: StartRequest) -> StartReply:
        return self.clocks.start(request, self.now_ms())

    def ended(self, model: str, epoch: Epoch, clock: int) -> bool:
        return self.clocks.ended(model, epoch, clock, self.now_ms())

    def park(self, model: str, epoch: Epoch) -> bool:
        return self.clocks.park(model, epoch, self.now_ms())

    def renew(self, model: str, epoch: Epoch, doing: str) -> dict[int, int] | None:
        return self.clocks.renew(model, epoch, doing, self.now_ms())

    def hold(self, model: str, cut: str, lease_ms: int, highest: dict[str, int]) -> bool:
        return self.clocks.hold(model, cut, lease_ms, highest, self.now_ms())

    def release(self, model: str, cut: str) -> None:
        self.clocks.release(model, cut)

    def set_staleness(self, model: str, staleness: int) -> None:
        self.clocks.set_staleness(model, staleness)

    def set_concurrency(self, model: str, concurrency: int) -> None:
        self.clocks.set_concurrency(model, concurrency)

    def set_compensation(self, model: str, way: str) -> None:
        self.clocks.set_compensation(model, way)

    def set_shards(self, model: str, shards: int) -> None:
        self.clocks.set_shards(model, shards)

    def shards_ordered(self, model: str) -> int:
        return self.clocks.shards_ordered(model)

    def set_paused(self, model: str, paused: bool) -> None:
        self.clocks.set_paused(model, paused)

    def bounds(self, model: str) -> Bounds:
        return self.clocks.bounds(model, self.now_ms())

    def govern(self, model: str, governor: str, sequence: int, rung: Rung, lease_ms: int) -> Bounds:
        return self.clocks.govern(model, governor, sequence, rung, lease_ms, self.now_ms())
