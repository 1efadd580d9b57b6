"""The checkpointer and the replica: their own `Driver` and `Follower`, over the simulated network.

The store of checkpoints is durable; of some seeds it is away or full for a while (`sim_store`). A
replica's model is the weights it loaded, and is compared with its manifest at every swap (I6).
"""

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sim_log import Broker, Message
from sim_network import Process, World
from sim_scenario import MODEL, Scenario
from sim_shards import ShardNode
from sim_tasks import Task
from sim_toy import HOME_MAP, SPEC
from sim_violation import Violation
from sim_watch import Watch

from checkpointer import CheckpointerConfig
from checkpointer.cuts import Driver
from checkpointer.gates import Findings
from checkpointer.serving import bring
from checkpointer.serving.replica import Follower
from checkpointer.store import Announcement, Catalogue, Damaged, Definition, Files, Manifest, Ref
from checkpointer.store import decode as decode_announcement
from checkpointer.tables import ModelTables
from paramserver import MarkReply, ModelSpec, PartInfo, PortUnreachable, ProgressReply, SlotMap
from stream.internal_topics import MalformedRecord

LOOK_MS = 400
PATIENCE_MS = 100
#: A large table is still being copied when pushes have long gone on.
WRITE_AFTER_MS = (0, 0, 60, 400)


class Remote:
    """What a checkpointer asks of one shard's ports (and of the clocks', on shard 0), for a task
    that blocks."""

    def __init__(self, node: "CheckpointerNode", index: int) -> None:
        self.node, self.index = node, index

    def _ask(self, work: Callable[[ShardNode], Any], deadline_ms: int = 400) -> Any:
        shard = self.node.world.processes[f"shard-{self.index}"]
        assert isinstance(shard, ShardNode)
        nothing = object()
        answer = self.node.task.wait(
            lambda resume: self.node.world.network.call(
                self.node, shard, lambda: work(shard), resume, lambda: resume(nothing), deadline_ms
            )
        )
        if answer is nothing:
            raise PortUnreachable(f"{shard.name} does not answer")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def begin(
        self, spec: ModelSpec, vector: dict[str, int], dense: dict[str, object]
    ) -> ProgressReply:
        return self._ask(lambda shard: shard.begin(vector))  # type: ignore[no-any-return]

    def progress(self, model: str) -> ProgressReply:
        return self._ask(lambda shard: shard.progress())  # type: ignore[no-any-return]

    def mark(self, model: str, cut: str, vector: dict[str, int]) -> MarkReply:
        return self._ask(lambda shard: shard.mark(cut, vector))  # type: ignore[no-any-return]

    def unmark(self, model: str, cut: str) -> None:
        self._ask(lambda shard: shard.unmark(cut))

    def write_part(self, model: str, cut: str, url: str, parent: str | None) -> PartInfo:
        self.node.watch.writes(cut)
        self.node.sleep_ms(self.node.rng.choice(WRITE_AFTER_MS))
        info: PartInfo = self._ask(lambda shard: shard.write_part(cut, url, parent), 1500)
        self.node.reach("part")
        return info

    def settle(self, model: str, cut: str, manifest_sha256: str) -> None:
        self._ask(lambda shard: shard.settle(cut, manifest_sha256))

    def remap(self, epoch: int) -> int:
        return self._ask(lambda shard: shard.bring(epoch))  # type: ignore[no-any-return]

    def prepare(self, slot_map: SlotMap, manifest_sha256: str) -> str:
        self.node.reach("prepare")
        return self._ask(lambda shard: shard.prepare(slot_map, manifest_sha256))  # type: ignore[no-any-return]

    def shards_ordered(self, model: str) -> int:
        return self._ask(lambda shard: shard.shards_ordered())  # type: ignore[no-any-return]

    def hold(self, model: str, cut: str, lease_ms: int, highest: dict[str, int]) -> bool:
        granted: bool = self._ask(lambda shard: shard.hold(cut, lease_ms, highest))
        self.node.reach("held")
        return granted

    def release(self, model: str, cut: str) -> None:
        self._ask(lambda shard: shard.release(cut))


class CheckpointerNode(Process):
    """Runs the driver on a task, and is its `DriverShell` and its `Time`."""

    role = "checkpointer"

    def __init__(
        self,
        world: World,
        scenario: Scenario,
        broker: Broker,
        files: Files,
        watch: Watch,
        every_ms: int,
    ) -> None:
        super().__init__(world, "checkpointer")
        self.scenario, self.broker, self.files, self.watch = scenario, broker, files, watch
        self.config = CheckpointerConfig(
            interval_ms=every_ms,
            idle_interval_ms=every_ms,
            keep=50,
            deltas_max=3,
            hold_lease_ms=1500,
            cut_timeout_ms=6000,
            retry_ms=300,
            retry_max_ms=1000,
            poll_ms=40,
            evaluation_wait_ms=20,
        )
        self.counts: Counter[str] = Counter()
        self.task: Task

    def boot(self) -> None:
        self.rng = random.Random(f"gates/{self.world.seed}/{self.life}")
        remotes: list[Any] = [Remote(self, index) for index in range(self.scenario.shards_max)]
        definition = Definition(SPEC, {}, {}, barrier_kinds=self.scenario.stream.barrier_kinds)
        self.catalogue = WatchedCatalogue(self)
        self.driver = Driver(
            self.config,
            definition,
            dict(enumerate(remotes)),
            remotes[0],
            self.catalogue,
            self,
            self,
            "simulated",
            HOME_MAP,
        )
        self.task = Task(self.drive)
        self.after(0, self.task.start)

    def died(self) -> None:
        self.task.kill()

    def drive(self) -> None:
        while True:
            step = self.driver.step()
            self.counts[f"{step.outcome} {step.reason}".strip()] += 1
            if step.shards:
                self.watch.count(f"moves to {step.shards} shards")
            if (
                step.reason == "timeout"
                and self.world.fair_for_ms() > self.config.cut_timeout_ms + 3000
            ):
                raise Violation(
                    "X1", f"a cut in fair weather is not done after {step.cut_ms} ms: {step.detail}"
                )
            if step.outcome == "idle":
                self.sleep_ms(LOOK_MS)
            elif step.outcome in ("store", "unreachable", "not_restored", "preparing", "moving"):
                self.sleep_ms(PATIENCE_MS)
            else:
                self.world.trace(
                    self.name, f"{step.outcome} {step.reason} {step.detail} {step.due}"
                )

    # --- driver.Time ---

    def now_ms(self) -> int:
        return self.clock_ms()

    def sleep_ms(self, ms: int) -> None:
        self.task.wait(lambda resume: self.after(ms, lambda: resume(None)))

    # --- driver.Outside ---

    def announce(self, announcement: Announcement) -> None:
        """Until the log has it; a repeat changes nothing."""
        message = Message(
            self.scenario.stream.checkpoints, 0, MODEL.encode(), announcement.encode()
        )
        again = lambda: self.after(300, lambda: self.announce(announcement))  # noqa: E731
        self.broker.append(self, message, lambda r: None, again)

    def check(self, ref: Ref) -> Findings:
        passed = ref.number == 0 or self.rng.random() < 0.85
        return Findings(answers=(0.5,)) if passed else Findings(error="the golden set says no")

    def read_evaluations(self) -> Iterable[Mapping[str, Any]]:
        return ()

    def first_vector(self) -> dict[str, int]:
        return dict(self.scenario.begin)

    def each(self, call: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return [call(item) for item in items]


class WatchedCatalogue(Catalogue):
    """The catalogue, with an eye on what becomes complete."""

    def __init__(self, node: CheckpointerNode) -> None:
        super().__init__(node.files, MODEL)
        self.node = node

    def write_manifest(self, manifest: Manifest) -> Ref:
        self.node.reach("manifest")
        ref = super().write_manifest(manifest)
        self.node.world.trace(self.node.name, f"complete: {manifest.name} at {manifest.vector}")
        self.node.watch.complete(manifest, self.node.files)
        self.node.reach("complete")
        return ref


class ReplicaNode(Process):
    """Follows announcements and the pointer, loads whole chains, swaps at once."""

    role = "replica"

    def __init__(
        self,
        world: World,
        index: int,
        scenario: Scenario,
        broker: Broker,
        files: Files,
        watch: Watch,
    ) -> None:
        super().__init__(world, f"replica-{index}")
        self.scenario, self.broker, self.files, self.watch = scenario, broker, files, watch

    def boot(self) -> None:
        self.catalogue = Catalogue(self.files, MODEL)
        self.follower = Follower(MODEL, retry_ms=2000)
        try:
            self.follower.on_published(self.catalogue.published_refs())
            self.follower.on_hold(self.catalogue.hold())
        except OSError:  # it begins anew a little later
            self.after(500, self.boot)
            return
        self.heard_to = 0
        self.tables: ModelTables | None = None
        self.held: Manifest | None = None
        self.poll()

    def poll(self) -> None:
        self.after(500, self.poll)
        for record in self.broker.fetch(
            self, self.scenario.stream.checkpoints, 0, self.heard_to, 10
        ):
            self.heard_to = record.offset + 1
            with contextlib.suppress(MalformedRecord):
                self.follower.on_announcement(decode_announcement(record.value))
        with contextlib.suppress(OSError):  # the store is away: it is asked again
            self.follow()

    def follow(self) -> None:
        if (pointer := self.catalogue.published()) is not None:
            self.follower.on_published([pointer])
        wanted = self.follower.wanted(self.steady_ms())
        if wanted is not None:
            try:
                self.load(wanted)
            except Damaged as error:
                self.follower.refuse(wanted, str(error), self.steady_ms())

    def load(self, ref: Ref) -> None:
        target = self.catalogue.manifest(ref.name, ref.manifest_sha256)
        before = self.tables
        self.tables = bring(self.catalogue, target, self.held, before)
        self.held = target
        if self.tables is before:
            self.watch.count("deltas applied by replicas")
        self.follower.loaded(ref)
        keys, values = self.tables.current.tables[SPEC.tables[0].name].items()
        rows = dict(zip(keys.tolist(), values[:, 0].tolist(), strict=True))
        self.watch.serves(self.name, target, rows)
