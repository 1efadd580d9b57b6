"""Shards, and the clock holder that is shard 0: the shell around `Shard` and `Clocks`, as the
server runs it.

On disk and beside the checkpoints a shard keeps its incarnation, and the clock holder an operator's
words (S2, K6). It restores from the head complete cut (X2), and the clock holder's incarnation is
its era (K5).
"""

import random
from dataclasses import replace
from typing import Any

from sim_network import Process, World
from sim_scenario import MODEL, SHARDS, Scenario
from sim_toy import HOME_MAP, SPEC
from sim_watch import Watch

from checkpointer.store import Catalogue, Files, Manifest, cut_parts
from everspun.roles import StoredState
from paramserver import (
    AllowRequest,
    Bounds,
    MarkReply,
    PaceLevel,
    PartInfo,
    PortUnreachable,
    ProgressReply,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    SlotMap,
)
from paramserver.clocks import (
    NO_SETTINGS,
    AllowListSender,
    Clocks,
    decode_settings,
    encode_settings,
)
from paramserver.clocks.operator_settings import StoredSettings
from paramserver.parts import NO_HEAD, HeadCut, encode_part, part_info, part_name, serving_files
from paramserver.shard import Shard, SlotMapUpdater, Standby, StandbyReader, next_incarnation

ALLOW_EVERY_MS = 200
LEASE_MS = 3000
START_AGAIN_MS, STORE_AGAIN_MS = 700, 500


class ShardNode(Process):
    """One shard process. Every method below is what a remote call performs."""

    def __init__(
        self, world: World, index: int, scenario: Scenario, files: Files, watch: Watch
    ) -> None:
        super().__init__(world, f"shard-{index}")
        self.role = "clock holder" if index == 0 else "shard"
        self.index, self.scenario, self.files, self.watch = index, scenario, files, watch
        self.stored = StoredState(files, MODEL)
        self.fate = random.Random(f"state/{world.seed}/{index}")
        self.core: Shard
        self.clocks: Clocks | None = None
        self.settings_revision = 0

    def boot(self) -> None:
        """A store that does not say what it must ends the process, and it is started again."""
        try:
            self.begin_life()
        except OSError as error:
            self.world.trace(self.name, f"ends: {error}")
            self.crash()
            self.world.time.after(START_AGAIN_MS, self.start)

    def begin_life(self) -> None:
        self.looking = False
        self.unstored: dict[str, bytes] = {}  # what the store has not taken yet
        self.standby_reader = StandbyReader(self.standby)
        self.core = self.incarnate(*self.head())
        self.updater = SlotMapUpdater(self.core.slot_map, self.standby_reader)
        if self.index == 0:
            s = self.scenario.staleness
            self.clocks = Clocks(
                self.core.incarnation, SHARDS, s, lease_ms=LEASE_MS, stated_max_ms=120_000
            )
            self.clocks.remap(self.core.slot_map.epoch, self.core.slot_map.shards)
            kept = self.kept_settings()
            self.clocks.load_settings(kept.models)
            self.settings_revision = kept.revision
            self.watch.leased.clear()  # a lease is lost with its clock holder (K7)
            self.sender = AllowListSender(self.clocks)
            self._tell_shards()

    # --- the map (S6) ---

    def head(self) -> tuple[Manifest | None, SlotMap]:
        """The head complete cut and the map that it names."""
        catalogue = Catalogue(self.files, MODEL)
        head = catalogue.head()
        return head, (head and catalogue.slot_map(head)) or HOME_MAP

    def standby(self, slot_map: SlotMap) -> Standby:
        name, catalogue = f"shard-{self.index}.json", Catalogue(self.files, MODEL)
        told = self.in_store(name, "incarnation")
        incarnation = next_incarnation(
            self.disk.get("incarnation"),
            None if told is None else int(told),
            catalogue.head() is not None,
        )
        missed = (
            self.scenario.loses_folders and "incarnation" in self.disk and self.fate.random() < 0.7
        )
        alone = "incarnation" in self.disk
        self.disk["incarnation"] = incarnation
        if not missed:  # else the store did not take it
            try:
                self.to_store(name, str(incarnation).encode(), alone)
            except OSError:  # whose folder is lost again would begin as the same
                del self.disk["incarnation"]
                raise
        return Standby(slot_map, lambda own: Shard(self.index, incarnation, own))

    def in_store(self, name: str, kept: str) -> bytes | None:
        """What stands there; where it fails and the folder has its own copy, that is enough."""
        try:
            return self.stored.read(name)
        except OSError:
            if kept not in self.disk:
                raise
            return None

    def to_store(self, name: str, data: bytes, later: bool = True) -> None:
        """At once or, where the folder may be alone with it for a while, when it takes it."""
        try:
            self.stored.write(name, data)
            self.unstored.pop(name, None)
        except OSError:
            if not later:
                raise
            if not self.unstored:
                self.after(STORE_AGAIN_MS, self.store_again)
            self.unstored[name] = data

    def store_again(self) -> None:
        waiting, self.unstored = self.unstored, {}
        for name, data in waiting.items():
            self.to_store(name, data)

    def cut_of(self, head: Manifest | None, slot_map: SlotMap) -> HeadCut:
        if head is None:
            return NO_HEAD
        return HeadCut(
            slot_map,
            head.sha256,
            lambda held: cut_parts(Catalogue(self.files, MODEL), head, held or None),
        )

    def incarnate(self, head: Manifest | None, slot_map: SlotMap) -> Shard:
        """A new incarnation under this map, restored from the head."""
        return self.begun(head, self.standby_reader.take(slot_map, self.cut_of(head, slot_map)))

    def begun(self, head: Manifest | None, core: Shard) -> Shard:
        """A new incarnation that stands at the head."""
        self.watch.stands_at(self.index, core.incarnation, {})
        self.watch.takes_map(self.index, core.slot_map)
        if head is not None and not core.stands_by:
            self.watch.begun(self.index, core.incarnation, head.vector)
            self.watch.lexicons.restored(self.index, core.incarnation, head.sha256, core.slot_map)
            self.world.trace(self.name, f"incarnation {core.incarnation} restores {head.name}")
        return core

    def remap(self, epoch: int) -> int:
        if self.updater.on_epoch(epoch):
            self.look_later()
        return self.core.slot_map.epoch

    def bring(self, epoch: int) -> int:
        """`ShardPort.remap`."""
        if epoch == self.core.slot_map.epoch and not self.core.models:
            self.updater.restore()
            self.look_later()
        return self.remap(epoch)

    def prepare(self, slot_map: SlotMap, manifest_sha256: str) -> str:
        answer = self.updater.prepare(slot_map, manifest_sha256, self.steady_ms())
        if answer.look:
            self.look_later()
        return answer.waits

    def look_later(self) -> None:
        """What waits for the store happens later."""
        if not self.looking:
            self.looking = True
            self.after(self.world.rng.choice((5, 50, 300)), self.look)

    def look(self) -> None:
        """As the thread of a shard's process does, by the same updater."""
        self.looking = False
        try:
            self.look_at_head()
        except OSError as error:
            self.updater.failed(str(error), self.steady_ms())
            self.look_later()

    def look_at_head(self) -> None:
        head, slot_map = self.head()
        looked = self.updater.look(self.cut_of(head, slot_map), self.steady_ms())
        if looked.taken is not None:
            self.take_map(self.begun(head, looked.taken))
        elif looked.ahead:
            self.watch.count("read ahead of a move")
            self.reach("ahead")

    def take_map(self, core: Shard) -> None:
        if self.clocks is not None:
            self.clocks.remap(core.slot_map.epoch, core.slot_map.shards)
        self.core = core
        self.world.trace(
            self.name,
            f"takes the map of epoch {core.slot_map.epoch}: {core.slot_map.shards} shards",
        )
        self.reach("remap")

    # --- the clock holder ---

    def _tell_shards(self) -> None:
        """Send the allow list to every shard, again and again (K5), and fence whose lease has run
        out (K3)."""
        self.sender.tick(self.steady_ms())
        for index in self.sender.shards():
            self._tell(index)
        self.after(ALLOW_EVERY_MS, self._tell_shards)

    def _tell(self, index: int) -> None:
        sender, sent = self.sender, self.sender.message(index)
        if sent is None:
            return  # the map has no such shard any more
        shard: Any = self.world.processes[f"shard-{index}"]

        def told(answered: Any) -> None:
            if isinstance(answered, Exception):
                self.world.trace(self.name, f"shard-{index} refuses the list: {answered}")
                return
            self.remap(answered.map_epoch)
            if sender.answered(index, sent, answered):
                self._tell(index)

        if index == self.index:
            told(self.allow(sent))
        else:
            self.world.network.call(self, shard, lambda: shard.allow(sent), told, lambda: None, 400)

    # --- what is asked of a shard ---

    def allow(self, request: AllowRequest) -> Any:
        if request.map_epoch is not None:
            self.remap(request.map_epoch)
        return self.guarded(lambda: self.core.allow(request))

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
            self.watch.mapped(
                self.index, reply.outcome, request.map_epoch, self.core.slot_map.epoch
            )
        return reply

    def push(self, request: PushRequest, clock: int) -> PushReply:
        reply = self.take(request)
        told = self.core.era is not None and self.core.era >= request.epoch.era
        self.watch.mapped(self.index, reply.outcome, request.map_epoch, self.core.slot_map.epoch)
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
            serving = serving_files(snapshot)
            for told, pieces in serving:
                path = f"{folder}/{told.path}".removeprefix(self.files.url(""))
                self.files.write(path, b"".join(pieces))
            return replace(
                part_info(snapshot, url, data), serving=tuple(told for told, _ in serving)
            )

        try:
            return self.guarded(work)
        except OSError as error:
            return PortUnreachable(f"{self.name}: {error}")

    def settle(self, cut: str, manifest_sha256: str) -> None:
        self.core.settle(MODEL, cut, manifest_sha256)

    # --- an operator's words (K6) ---

    def kept_settings(self) -> StoredSettings:
        """The newer of what the disk and the store say."""
        copies = [self.disk.get("orders"), self.in_store("orders.json", "orders")]
        return max(
            (decode_settings(copy) for copy in copies if copy),
            key=lambda kept: kept.revision,
            default=NO_SETTINGS,
        )

    def keep_settings(self) -> None:
        assert self.clocks is not None
        self.settings_revision += 1
        data = encode_settings(self.clocks.settings, self.settings_revision)
        self.disk["orders"] = data
        self.to_store("orders.json", data)

    # --- what is asked of the clock holder ---

    def ordered(self, staleness: int, concurrency: int) -> None:
        """An operator's word: durable before it is acknowledged (K6)."""
        assert self.clocks is not None
        self.clocks.set_staleness(MODEL, staleness)
        self.clocks.set_concurrency(MODEL, concurrency)
        self.keep_settings()
        self.watch.staleness, self.watch.concurrency = staleness, concurrency

    def bounds(self) -> Bounds:
        assert self.clocks is not None
        return self.clocks.bounds(MODEL, self.steady_ms())

    def govern(self, governor: str, sequence: int, level: PaceLevel, lease_ms: int) -> Bounds:
        """A governor's word (K7)."""
        assert self.clocks is not None
        now_ms = self.steady_ms()
        self.watch.leased.said(governor, sequence, level, now_ms + lease_ms, now_ms)
        return self.clocks.govern(MODEL, governor, sequence, level, lease_ms, now_ms)

    def ordered_shards(self, shards: int) -> None:
        """Likewise (S6)."""
        assert self.clocks is not None
        self.clocks.set_shards(MODEL, shards)
        self.keep_settings()
        self.watch.shards = shards

    def shards_ordered(self) -> int:
        assert self.clocks is not None
        return self.clocks.shards_ordered(MODEL)

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
