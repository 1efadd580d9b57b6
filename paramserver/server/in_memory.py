"""Both ports of the parameter server in memory, over the same cores as the server: no network, no
disk, no clock.

Time comes from the function that is handed in, parts of checkpoints go to the mapping that is
handed in. Nothing here is locked: whoever shares one between threads serialises the calls.
"""

from collections.abc import Callable, MutableMapping
from dataclasses import replace
from typing import Any, cast

from paramserver.clocks import AllowListSender, Clocks
from paramserver.messages import PullReply, PullRequest, PushReply, PushRequest, Reply, Request
from paramserver.parts import encode_part, part_info, part_name, serving_files
from paramserver.ports import (
    ClockPort,
    ClockRequest,
    DataChannelReply,
    DataChannelRequest,
    PartInfo,
    PrepareRequest,
    RemapRequest,
    ShardPort,
    ShardRequest,
    WritePartRequest,
)
from paramserver.shard import Shard


class LocalShard(ShardPort):
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

    def call(self, request: Request[Reply]) -> Reply:
        return cast(Reply, self._perform(cast(ShardRequest, request)))

    def _perform(self, request: ShardRequest) -> object:
        match request:
            case WritePartRequest(model, cut, url, parent):
                return self._write_part(model, cut, url, parent)
            case RemapRequest(epoch):
                if epoch > self.shard.slot_map.epoch and self.take_map is not None:
                    self.shard = self.take_map(self.shard)
                return self.shard.slot_map.epoch
            case PrepareRequest():
                return ""  # nothing is read ahead here
            case DataChannelRequest():
                return DataChannelReply()
            case _:
                return self.shard.perform(request)

    def pull(self, request: PullRequest) -> PullReply:
        return self.shard.pull(request)

    def push(self, request: PushRequest) -> PushReply:
        return self.shard.push(request)

    def _write_part(self, model: str, cut: str, url: str, parent: str | None) -> PartInfo:
        snapshot = self.shard.marked(model, cut, parent)
        target = f"{url.rstrip('/')}/{part_name(self.shard.index)}"
        data = encode_part(snapshot)
        self.files[target] = data
        serving = serving_files(snapshot)
        for told, pieces in serving:
            self.files[f"{url.rstrip('/')}/{told.path}"] = b"".join(pieces)
        info = part_info(snapshot, target, data)
        return replace(info, serving=tuple(told for told, _ in serving))


class LocalClock(ClockPort):
    """`ClockPort` over the clock core. `now_ms` answers the time, `tell` (below) carries the allow
    list."""

    def __init__(self, clocks: Clocks, now_ms: Callable[[], int]) -> None:
        self.clocks, self.now_ms = clocks, now_ms
        self.sender = AllowListSender(clocks)

    def call(self, request: Request[Reply]) -> Reply:
        answered: Any = self.clocks.perform(cast(ClockRequest, request), self.now_ms())
        return cast(Reply, answered)

    def tell(self, shards: dict[int, LocalShard]) -> None:
        """What the clock holder does at each beat: expire leases, and bring every shard the allow
        list (K5)."""
        self.sender.tick(self.now_ms())
        for index, shard in shards.items():
            while (sent := self.sender.message(index)) is not None:
                if not self.sender.answered(index, sent, shard.allow(sent)):
                    break
