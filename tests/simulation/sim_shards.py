"""Shards, and the clock holder that is shard 0: the shell around `Shard` and `Clocks`, as the server runs it.

On disk a shard keeps its incarnation and nothing else. It restores from the head complete cut (X2), and the clock
holder's incarnation is its era (K5).
"""

from typing import Any

from sim_network import Process, World
from sim_scenario import MODEL, SHARDS, Scenario
from sim_toy import SLOT_MAP, SPEC
from sim_watch import Watch

from checkpointer.catalogue import Catalogue
from checkpointer.files import Files
from checkpointer.manifest import Manifest
from paramserver.bounds import Bounds, Rung
from paramserver.clocks import Clocks
from paramserver.delta import whole
from paramserver.messages import Epoch, MarkReply, PullReply, PullRequest, PushReply, PushRequest
from paramserver.orders import decode_orders, encode_orders
from paramserver.partfile import decode_part, encode_part, part_info, part_name
from paramserver.ports import PartInfo, ProgressReply
from paramserver.shard import Shard
from paramserver.state import Snapshot

ALLOW_EVERY_MS = 200
LEASE_MS = 3000


def snapshots_of(files: Files, manifest: Manifest) -> list[Snapshot]:
    """The parts of one cut, as they are: full or deltas."""
    return [decode_part(files.read(f"{manifest.model}/{manifest.name}/{part.path}")) for part in manifest.parts]


def model_of(files: Files, manifest: Manifest) -> Snapshot:
    """The whole model of a cut, by way of its base."""
    chain = Catalogue(files, manifest.model).chain(manifest)
    return whole((one.sha256, snapshots_of(files, one)) for one in chain)


class ShardNode(Process):
    """One shard process. Every method below is what a remote call performs."""

    def __init__(self, world: World, index: int, scenario: Scenario, files: Files, watch: Watch) -> None:
        super().__init__(world, f"shard-{index}")
        self.role = "clock holder" if index == 0 else "shard"
        self.index, self.scenario, self.files, self.watch = index, scenario, files, watch
        self.core: Shard
        self.clocks: Clocks | None = None

    def boot(self) -> None:
        incarnation = self.disk["incarnation"] = self.disk.get("incarnation", 0) + 1
        self.core = Shard(self.index, incarnation, SLOT_MAP)
        self.watch.stands_at(self.index, incarnation, {})
        head = Catalogue(self.files, MODEL).head()
        if head is not None:
            self.core.restore([model_of(self.files, head)], head.sha256)
            self.watch.begun(self.index, incarnation, head.vector)
            self.world.trace(self.name, f"incarnation {incarnation} restores {head.name}")
        if self.index == 0:
            s = self.scenario.staleness
            self.clocks = Clocks(incarnation, SHARDS, s, lease_ms=LEASE_MS, stated_max_ms=120_000)
            self.clocks.obey(decode_orders(self.disk.get("orders", b"{}")))
            self.watch.leased.clear()  # a lease is lost with its clock holder (K7)
            self._tell_shards()

    # --- the clock holder ---

    def _tell_shards(self) -> None:
        """Send the allow list to every shard, again and again (K5), and fence whose lease has run out (K3)."""
        assert self.clocks is not None
        self.clocks.tick(self.steady_ms())
        for index in range(SHARDS):
            self._tell(index)
        self.after(ALLOW_EVERY_MS, self._tell_shards)

    def _tell(self, index: int) -> None:
        clocks = self.clocks
        assert clocks is not None
        era, sequence, epochs = clocks.allow_list()
        named = clocks.incarnations.get(index, 0)
        shard: Any = self.world.processes[f"shard-{index}"]

        def told(answered: Any) -> None:
            if isinstance(answered, Exception):
                self.world.trace(self.name, f"shard-{index} refuses the list: {answered}")
                return
            before = clocks.unconfirmed()
            clocks.confirm(era, sequence if answered == named else 0, index, answered)
            if answered != named and index in before:
                self._tell(index)

        if index == self.index:
            told(self.allow(era, sequence, list(epochs), named))
        else:
            self.world.network.call(
                self, shard, lambda: shard.allow(era, sequence, list(epochs), named), told, lambda: None, 400
            )

    # --- what is asked of a shard ---

    def allow(self, era: int, sequence: int, epochs: list[Epoch], incarnation: int | None) -> Any:
        if incarnation not in (None, self.core.incarnation):
            return self.core.incarnation
        return self.guarded(lambda: self.core.allow(era, sequence, epochs))

    def begin(self, vector: dict[str, int]) -> Any:
        reply = self.guarded(lambda: self.core.begin(SPEC, vector, {}))
        if isinstance(reply, ProgressReply):
            self.watch.begun(self.index, self.core.incarnation, vector)
        return reply

    def progress(self) -> ProgressReply:
        return self.core.progress(MODEL)

    def pull(self, request: PullRequest, clock: int) -> Any:
        reply = self.guarded(lambda: self.core.pull(request))
        if isinstance(reply, PullReply):
            self.watch.read(self.index, request.epoch, clock, reply)
        return reply

    def push(self, request: PushRequest, clock: int) -> PushReply:
        reply = self.take(request)
        told = self.core.era is not None and self.core.era >= request.epoch.era
        self.watch.pushed(self.index, request, clock, reply, told)
        self.reach("pushed")
        return reply

    def take(self, request: PushRequest) -> PushReply:
        return self.core.push(request)

    def mark(self, cut: str, vector: dict[str, int]) -> MarkReply | Exception:
        self.reach("mark")
        reply = self.guarded(lambda: self.core.mark(MODEL, cut, vector))
        if isinstance(reply, MarkReply):
            self.watch.marked(self.index, vector, reply)
        return reply  # type: ignore[no-any-return]

    def unmark(self, cut: str) -> None:
        self.core.unmark(MODEL, cut)

    def write_part(self, cut: str, folder: str, parent: str | None) -> PartInfo | Exception:
        def work() -> PartInfo:
            snapshot = self.core.marked(MODEL, cut, parent)
            data, url = encode_part(snapshot), f"{folder}/{part_name(self.index)}"
            self.files.write(url.removeprefix(self.files.url("")), data)
            self.reach("part")
            return part_info(snapshot, url, data)

        return self.guarded(work)

    def settle(self, cut: str, manifest_sha256: str) -> None:
        self.core.settle(MODEL, cut, manifest_sha256)

    # --- what is asked of the clock holder ---

    def ordered(self, staleness: int, concurrency: int) -> None:
        """An operator's word: durable before it is acknowledged (K6)."""
        assert self.clocks is not None
        self.clocks.set_staleness(MODEL, staleness)
        self.clocks.set_concurrency(MODEL, concurrency)
        self.disk["orders"] = encode_orders(self.clocks.orders)
        self.watch.staleness, self.watch.concurrency = staleness, concurrency

    def bounds(self) -> Bounds:
        assert self.clocks is not None
        return self.clocks.bounds(MODEL, self.steady_ms())

    def govern(self, governor: str, sequence: int, rung: Rung, lease_ms: int) -> Bounds:
        """A governor's word (K7)."""
        assert self.clocks is not None
        now_ms = self.steady_ms()
        self.watch.leased.said(governor, sequence, rung, now_ms + lease_ms, now_ms)
        return self.clocks.govern(MODEL, governor, sequence, rung, lease_ms, now_ms)

    def hold(self, cut: str, lease_ms: int, highest: dict[str, int]) -> bool:
        assert self.clocks is not None
        self.reach("held")
        granted = self.clocks.hold(MODEL, cut, lease_ms, highest, self.steady_ms())
        if granted:
            self.watch.held(cut)
        return granted

    def release(self, cut: str) -> None:
        assert self.clocks is not None
        self.clocks.release(MODEL, cut)
