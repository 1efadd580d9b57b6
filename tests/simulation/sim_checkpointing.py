"""The checkpointer and the replica: shells around `Cut`, `Schedule`, `Catalogue` and `Follower`.

The store of checkpoints is durable and always there; what fails is the processes around it. A replica's model is the
weights it loaded, and is compared with its manifest at every swap (I6).
"""

import random
from typing import Any

from sim_log import Broker, Message
from sim_network import Process, World
from sim_scenario import MODEL, SHARDS, Scenario
from sim_shards import ShardNode
from sim_toy import SPEC
from sim_watch import Watch

from checkpointer import cut as do
from checkpointer.announcement import Ref, announce
from checkpointer.announcement import decode as decode_announcement
from checkpointer.catalogue import Catalogue, Gates
from checkpointer.cut import Cut, Pace
from checkpointer.files import Files
from checkpointer.manifest import Damaged, Evaluation, Manifest, agree, part_problem, parts_of
from checkpointer.replica import Follower, steps
from checkpointer.schedule import Schedule
from paramserver.messages import Progress
from paramserver.part import weights
from paramserver.partfile import decode_part
from paramserver.ports import PartInfo

LOOK_MS = 400


class CheckpointerNode(Process):
    """Looks at the shards, cuts when a cut is due, writes the manifest last, publishes."""

    role = "checkpointer"

    def __init__(
        self, world: World, scenario: Scenario, broker: Broker, files: Files, watch: Watch, every_ms: int
    ) -> None:
        super().__init__(world, "checkpointer")
        self.scenario, self.broker, self.files, self.watch, self.every_ms = scenario, broker, files, watch, every_ms
        self.counts: dict[str, int] = {}

    def boot(self) -> None:
        self.rng = random.Random(f"cuts/{self.world.seed}/{self.life}")
        self.catalogue = Catalogue(self.files, MODEL)
        self.schedule = Schedule(interval_ms=self.every_ms, retry_ms=300)
        self.cut: Cut | None = None
        self.busy = False
        self._publish_pending()
        self.look()

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def shard(self, index: int) -> ShardNode:
        node = self.world.processes[f"shard-{index}"]
        assert isinstance(node, ShardNode)
        return node

    # --- when ---

    def look(self) -> None:
        """Ask every shard where it stands, and cut if that is due."""
        self.after(LOOK_MS, self.look)
        if self.busy:
            return
        told: dict[int, Progress | None] = {}

        def answered(index: int, reply: Any) -> None:
            told[index] = reply.progress
            if len(told) == SHARDS:
                self.consider(told)

        for index in range(SHARDS):
            shard = self.shard(index)
            self.world.network.call(self, shard, shard.progress, lambda r, i=index: answered(i, r), lambda: None, 200)

    def consider(self, told: dict[int, Progress | None]) -> None:
        if self.busy:
            return
        head = self.catalogue.head()
        if head is None:
            self._begin(told)
        shards = [p for p in told.values() if p is not None]
        if len(shards) < SHARDS:
            return
        due = self.schedule.due(self.clock_ms(), shards, head)
        if due is not None:
            self.busy = True
            name = f"{self.rng.randrange(16**6):06x}"
            self.world.trace(self.name, f"cut {name} is due: {due}")
            self.cut = Cut(MODEL, name, range(SHARDS), self.steady_ms(), Pace(1500, 6000, 40))
            self.pace(self.cut)

    def _begin(self, told: dict[int, Progress | None]) -> None:
        """S5: while there is no manifest, whoever has not begun begins at the same vector."""
        vector = {f"label/{p}": 0 for p in range(self.scenario.stream.partitions)}
        for index, progress in told.items():
            if progress is None:
                shard = self.shard(index)
                work = lambda s=shard: s.begin(vector)  # noqa: E731
                self.world.network.call(self, shard, work, lambda r: None, lambda: None, 500)

    # --- one cut ---

    def pace(self, cut: Cut) -> None:
        """The cut's clock, until it is done."""
        if self.cut is cut and not cut.done:
            self.perform(cut, cut.tick(self.steady_ms()))
            if not cut.done:
                self.after(max(1, min(cut.next_wake_ms - self.steady_ms(), 100)), lambda: self.pace(cut))

    def perform(self, cut: Cut, instructions: list[do.Instruction]) -> None:
        for it in instructions:
            if isinstance(it, do.Marked):
                self.world.trace(self.name, f"marked {it.cut} at {it.vector}")
                self.write_parts(it)
            elif isinstance(it, do.Abandoned):
                self.abandon(it.reason, it.detail)
            else:
                self.ask(cut, it)

    def ask(self, cut: Cut, it: Any) -> None:
        shard = self.shard(getattr(it, "shard", 0))
        now = self.steady_ms

        def answer(report: Any) -> Any:
            def heard(reply: Any) -> None:
                refused = isinstance(reply, Exception)
                self.perform(cut, cut.refused(str(reply), now()) if refused else report(reply))

            return heard

        if isinstance(it, do.AskHold):
            work = lambda: shard.hold(it.cut, it.lease_ms, it.highest)  # noqa: E731
            heard = answer(lambda reply: cut.held(reply, now()))
        elif isinstance(it, do.AskProgress):
            work, heard = shard.progress, answer(lambda reply: cut.told(it.shard, reply, now()))
        elif isinstance(it, do.Mark):
            work = lambda: shard.mark(it.cut, it.vector)  # noqa: E731
            heard = answer(lambda reply: cut.marked(it.shard, it.cut, reply, now()))
        elif isinstance(it, do.Unmark):
            work, heard = lambda: shard.unmark(it.cut), lambda reply: None
        else:
            assert isinstance(it, do.Release)
            work, heard = lambda: shard.release(it.cut), lambda reply: None
        silent = (lambda: heard(None)) if not isinstance(it, do.Unmark | do.Release) else (lambda: None)
        self.world.network.call(self, shard, work, heard, silent, 400)

    def abandon(self, reason: str, detail: str) -> None:
        self.world.trace(self.name, f"abandons: {reason}: {detail}")
        self.count(f"abandoned: {reason}")
        self.schedule.abandoned(self.clock_ms())
        self.cut, self.busy = None, False

    # --- parts, then the manifest, then the word ---

    def write_parts(self, marked: do.Marked) -> None:
        number = self.catalogue.next_number()
        folder = f"{number:08d}-{marked.cut}"
        infos: dict[int, PartInfo] = {}
        tries = [0]

        def write(index: int) -> None:
            shard = self.shard(index)
            self.world.network.call(
                self,
                shard,
                lambda: shard.write_part(marked.cut, f"{MODEL}/{folder}"),
                lambda reply: wrote(index, reply),
                lambda: again(index),
                800,
            )

        def again(index: int) -> None:
            tries[0] += 1
            if tries[0] > 8:
                failed("a shard does not write its part")
            else:
                write(index)

        def failed(why: str) -> None:
            if self.busy and self.cut is not None:
                self.abandon("parts", why)

        def wrote(index: int, reply: Any) -> None:
            if isinstance(reply, Exception):
                failed(str(reply))
                return
            infos[index] = reply
            if len(infos) == SHARDS and self.cut is not None:
                self.complete(marked, number, infos)

        for index in range(SHARDS):
            write(index)

    def complete(self, marked: do.Marked, number: int, infos: dict[int, PartInfo]) -> None:
        """Every part is durable: the manifest makes them a checkpoint (X2)."""
        chains, next_record, event_time_max_ms = agree({i: info.progress for i, info in infos.items()})
        head = self.catalogue.head()
        manifest = Manifest(
            model=MODEL,
            number=number,
            cut=marked.cut,
            spec=SPEC,
            model_config={},
            chains=chains,
            next_record=next_record,
            event_time_max_ms=event_time_max_ms,
            created_ms=self.clock_ms(),
            evaluation=Evaluation(),
            parent=None if head is None else head.sha256,
            code_version="simulated",
            parts=parts_of(list(infos.values())),
        )
        self.catalogue.write_manifest(manifest)
        self.world.trace(self.name, f"complete: {manifest.name} at {manifest.vector}")
        self.watch.complete(manifest, self.files)
        self.count("complete")
        for index in range(SHARDS):
            shard = self.shard(index)
            work = lambda s=shard: s.settle(marked.cut, manifest.sha256)  # noqa: E731
            self.world.network.call(self, shard, work, lambda r: None, lambda: None, 400)
        self.cut, self.busy = None, False
        self.publish(manifest)

    def _publish_pending(self) -> None:
        """What was complete when an earlier life ended."""
        for entry in self.catalogue.entries():
            if entry.manifest is not None and (entry.gates is None or self.rng.random() < 0.3):
                self.publish(entry.manifest)

    def publish(self, manifest: Manifest) -> None:
        """The gates' word, the pointer, the announcement; an announcement may be heard twice."""
        gates = self.catalogue.gates(manifest.name)
        if gates is None:
            passed = manifest.number == 0 or self.rng.random() < 0.85
            gates = Gates("published" if passed else "rejected", "" if passed else "golden", self.clock_ms())
            self.catalogue.write_gates(manifest.name, gates)
        if gates.passed:
            self.catalogue.write_published(Ref(manifest.number, manifest.name, manifest.sha256))
        url = self.catalogue.folder_url(manifest.name)
        said = announce(gates.outcome, manifest, url, self.clock_ms(), gates.reason)
        message = Message(self.scenario.stream.checkpoints, 0, MODEL.encode(), said.encode())
        self.broker.append(self, message, lambda r: None, lambda: self.after(300, lambda: self.publish(manifest)))


class ReplicaNode(Process):
    """Follows announcements and the pointer, loads whole chains, swaps at once."""

    role = "replica"

    def __init__(
        self, world: World, index: int, scenario: Scenario, broker: Broker, files: Files, watch: Watch
    ) -> None:
        super().__init__(world, f"replica-{index}")
        self.scenario, self.broker, self.files, self.watch = scenario, broker, files, watch

    def boot(self) -> None:
        self.catalogue = Catalogue(self.files, MODEL)
        self.follower = Follower(MODEL, retry_ms=2000)
        self.follower.on_published(self.catalogue.published_refs())
        self.follower.on_hold(self.catalogue.hold())
        self.heard_to = 0
        self.served: dict[int, float] = {}
        self.poll()

    def poll(self) -> None:
        self.after(500, self.poll)
        for record in self.broker.fetch(self, self.scenario.stream.checkpoints, 0, self.heard_to, 10):
            self.heard_to = record.offset + 1
            self.follower.on_announcement(decode_announcement(record.value or b""))
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
        by_sha = {m.sha256: m for m in self.catalogue.newest_first()}
        held = self.follower.serving.manifest_sha256 if self.follower.serving else None
        rows = dict(self.served)
        for manifest in steps(target, held, by_sha.get):
            if manifest.is_full:
                rows = {}
            for part in manifest.parts:
                data = self.files.read(f"{MODEL}/{manifest.name}/{part.path}")
                if problem := part_problem(part, data):
                    raise Damaged(problem)
                keys, values = weights(decode_part(data)).tables[SPEC.tables[0].name]
                rows.update(zip(keys.tolist(), values[:, 0].tolist(), strict=True))
        self.served = rows
        self.follower.loaded(ref)
        self.watch.serves(self.name, target, rows)
