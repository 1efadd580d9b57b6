"""The checkpointer without its clock, its log and its process: begin, cut, complete, gate, publish, sweep (S5, X1, X2).

Every step is safe to repeat and safe to die in. What stands in the store decides what comes next: a checkpoint is
complete once its manifest is there, judged once its `gates.json` is, published once the pointer has reached it; and
announcements may be said again.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from checkpointer.announcement import Announcement, Ref, announce, ref
from checkpointer.catalogue import Catalogue, Gates
from checkpointer.config import CheckpointerConfig
from checkpointer.cut import Abandoned, AskHold, AskProgress, Cut, Instruction, Mark, Marked, Pace, Release, Unmark
from checkpointer.evaluations import Evaluations
from checkpointer.gates import Findings, judge
from checkpointer.manifest import Damaged, Definition, Evaluation, Manifest, assemble
from checkpointer.schedule import Due, Schedule
from paramserver.messages import Progress
from paramserver.ports import ClockPort, PartInfo, ProgressReply, Refused, ShardPort, Unreachable

T = TypeVar("T")
R = TypeVar("R")


class Time(Protocol):
    def now_ms(self) -> int:
        """The host's clock, ms since 1970."""

    def steady_ms(self) -> int:
        """A clock that nobody sets: what leases and limits are measured by."""

    def sleep_ms(self, ms: int) -> None:
        """May raise to end the process: every step is safe to die in."""


class Outside(Protocol):
    """What the driver asks of its shell."""

    def announce(self, announcement: Announcement) -> None:
        """Say it on `checkpoints`, now or as soon as the log answers again."""

    def check(self, ref: Ref) -> Findings:
        """Ask a clean process about a checkpoint."""

    def read_evaluations(self) -> Iterable[Mapping[str, Any]]:
        """New records of `evaluations`, without waiting."""

    def first_vector(self) -> dict[str, int]:
        """chain -> E at which a new model begins (S5)."""

    def each(self, call: Callable[[T], R], items: list[T]) -> list[R]:
        """`call` on all items, at once if possible; raises the first exception after all have ended."""


@dataclass(frozen=True)
class Step:
    """What one look came to: "idle" | "unreachable" | "begun" | "not_restored" | "abandoned" | "published" |
    "rejected"."""

    outcome: str
    detail: str = ""
    due: Due | None = None
    reason: str = ""  # why a cut was abandoned, in one word
    hold_ms: int = 0
    cut_ms: int = 0  # the cut alone, from the first question to all marked
    total_ms: int = 0  # from due to announced
    manifest: Manifest | None = None
    gates: Gates | None = None
    rows_learned: int = 0  # since the parent
    deltas: int = 0  # between the manifest and its base
    swept: tuple[str, ...] = ()


@dataclass
class Driver:
    """One model's checkpointer. `recover` once, then `step` again and again."""

    config: CheckpointerConfig
    definition: Definition
    shards: dict[int, ShardPort]
    clock: ClockPort
    catalogue: Catalogue
    outside: Outside
    time: Time
    code_version: str = ""
    schedule: Schedule = field(init=False)
    evaluations: Evaluations = field(init=False)
    attempts: int = 0
    map_epoch: int = 0
    #: the head complete cut as last seen; this is its only writer, but for an operator's rollback
    _head: Manifest | None = None

    def __post_init__(self) -> None:
        self.schedule = Schedule(
            self.config.interval_ms,
            self.config.event_interval_ms,
            self.config.retry_ms,
            self.definition.barrier_kinds,
        )
        self.evaluations = Evaluations(self.definition.spec.name)

    # --- once ---

    def recover(self) -> None:
        """Take up what a predecessor left: judge a head that was not, and say again what is published and held.

        Raises ValueError if the checkpoints are of another definition of the model, Damaged if what is held is.
        """
        self._head = head = self.catalogue.head()
        if head is None:
            return
        if head.spec.digest != self.definition.spec.digest:
            raise ValueError(
                f"model {head.model!r}: checkpoint {head.name} holds definition {head.spec.digest}, the config says "
                f"{self.definition.spec.digest}; give the changed model a new name"
            )
        self.evaluations.skip(head.vector)
        gates = self.catalogue.gates(head.name)
        if gates is None:
            self._publish(head)
        elif gates.passed:
            self.catalogue.write_published(ref(head))
            self._announce("published", head)
        else:
            self._announce("rejected", head, gates.reason)
        self._repeat_hold()

    def _repeat_hold(self) -> None:
        hold = self.catalogue.hold()
        if hold.ref is not None:
            held = self.catalogue.manifest(hold.ref.name, hold.ref.manifest_sha256)
            self._announce("rolled_back", held, hold.reason, hold.revision)

    # --- again and again ---

    def step(self) -> Step:
        """Look at the shards; begin the model, or take and publish a cut, if that is due."""
        for record in self.outside.read_evaluations():
            self.evaluations.add(record)
        replies = self._look()
        if replies is None:
            return Step("unreachable", "a shard does not answer")
        head = self._head
        missing = [shard for shard, reply in replies.items() if reply.progress is None]
        if missing and head is not None:
            return Step("not_restored", f"shards {missing} have not restored {head.name}")
        if missing:
            return self._begin(missing)
        standing = [reply.progress for reply in replies.values() if reply.progress is not None]
        if self.schedule.due(self.time.now_ms(), standing, head) is None:
            return Step("idle")
        self._head = head = self.catalogue.head()  # an operator may have moved it (X4)
        due = self.schedule.due(self.time.now_ms(), standing, head)
        return Step("idle") if due is None else self._cut(due, head)

    def _look(self) -> dict[int, ProgressReply] | None:
        name = self.definition.spec.name
        try:
            replies = {index: shard.progress(name) for index, shard in self.shards.items()}
        except Unreachable:
            return None
        self.map_epoch = max(reply.map_epoch for reply in replies.values())
        return replies

    def _begin(self, missing: list[int]) -> Step:
        """The vector is written down first: a shard that must begin again before the first cut begins where the
        others did, whatever retention has removed since."""
        vector = self.catalogue.begun()
        if vector is None:
            vector = self.outside.first_vector()
            self.catalogue.write_begun(vector)
        try:
            for index in missing:
                self.shards[index].begin(self.definition.spec, vector, self.definition.dense)
        except Unreachable as error:
            return Step("unreachable", str(error))
        return Step("begun", f"model {self.definition.spec.name!r} begins at {vector} on shards {missing}")

    # --- a cut ---

    def _cut(self, due: Due, head: Manifest | None) -> Step:
        self.attempts += 1
        began = self.time.steady_ms()
        config = self.config
        pace = Pace(config.hold_lease_ms, config.cut_timeout_ms, config.poll_ms)
        # The time keeps the names of two checkpointers apart, the count those of one.
        name = f"{self.time.now_ms():x}x{self.attempts}"
        cut = Cut(self.definition.spec.name, name, sorted(self.shards), began, pace)
        end = self._perform(cut)
        cut_ms = self.time.steady_ms() - began
        if isinstance(end, Abandoned):
            return self._abandoned(due, end.reason, end.detail, cut.hold_ms, cut_ms)
        try:
            manifest = self._complete(end, head)
        except (Unreachable, Refused, Damaged, ValueError) as error:
            self._forget(end)
            return self._abandoned(due, "parts", str(error), cut.hold_ms, cut_ms)
        gates = self._publish(manifest)
        swept = self.catalogue.sweep(config.keep, config.keep_rejected)
        return Step(
            outcome=gates.outcome,
            detail=gates.reason,
            due=due,
            hold_ms=cut.hold_ms,
            cut_ms=cut_ms,
            total_ms=self.time.steady_ms() - began,
            manifest=manifest,
            gates=gates,
            rows_learned=sum(_rows(chain, head, end.progress) for chain in end.vector),
            deltas=len(self.catalogue.chain(manifest)) - 1,
            swept=tuple(swept),
        )

    def _abandoned(self, due: Due, reason: str, detail: str, hold_ms: int, cut_ms: int) -> Step:
        self.schedule.abandoned(self.time.now_ms())
        return Step("abandoned", detail, due, reason, hold_ms, cut_ms)

    def _perform(self, cut: Cut) -> Marked | Abandoned:
        """Carry out what the cut says until it is done. What it says in one breath is asked at once."""
        while True:
            said = cut.tick(self.time.steady_ms())
            while said:
                end = next((i for i in said if isinstance(i, Marked | Abandoned)), None)
                answers = self.outside.each(self._call, [i for i in said if not isinstance(i, Marked | Abandoned)])
                if end is not None:
                    return end
                said = [more for asked, answer in answers for more in self._told(cut, asked, answer)]
            self.time.sleep_ms(max(1, min(self.config.poll_ms, cut.next_wake_ms - self.time.steady_ms())))

    def _call(self, asked: Instruction) -> tuple[Instruction, Any]:
        """One call to a port: the instruction and its answer; Refused is one, None is none within the deadline."""
        try:
            return asked, self._ask(asked)
        except Refused as refused:
            return asked, refused
        except Unreachable:
            return asked, None

    def _ask(self, asked: Instruction) -> Any:
        model = self.definition.spec.name
        match asked:
            case AskHold(_, cut, lease_ms, highest):
                return self.clock.hold(model, cut, lease_ms, highest)
            case AskProgress(shard):
                return self.shards[shard].progress(model)
            case Mark(shard, cut, vector):
                return self.shards[shard].mark(model, cut, vector)
            case Unmark(shard, cut):
                return self.shards[shard].unmark(model, cut)
            case Release(_, cut):
                return self.clock.release(model, cut)
        raise AssertionError(asked)

    def _told(self, cut: Cut, asked: Instruction, answer: Any) -> list[Instruction]:
        """What the cut makes of an answer."""
        now_ms = self.time.steady_ms()
        if isinstance(answer, Refused):
            return cut.refused(str(answer), now_ms)
        match asked:
            case AskHold():
                return cut.held(answer, now_ms)
            case AskProgress(shard):
                return cut.told(shard, answer, now_ms)
            case Mark(shard, name, _):
                return cut.marked(shard, name, answer, now_ms)
        return []

    def _forget(self, marked: Marked) -> None:
        for shard in self.shards.values():
            _try(shard.unmark, self.definition.spec.name, marked.cut)

    def _complete(self, marked: Marked, parent: Manifest | None) -> Manifest:
        """Parts, then evaluations, then the manifest: with it the checkpoint exists (X2)."""
        model, number = self.definition.spec.name, self.catalogue.next_number()
        url = self.catalogue.folder_url(f"{number:08d}-{marked.cut}")

        upon = self._delta_upon(parent)

        def write(shard: int) -> PartInfo:
            return self.shards[shard].write_part(model, marked.cut, url, upon)

        infos = self.outside.each(write, sorted(self.shards))
        evaluation = self._evaluation(marked, parent)
        manifest = assemble(
            self.definition,
            number,
            marked.cut,
            marked.vector,
            infos,
            parent,
            evaluation,
            self.time.now_ms(),
            self.code_version,
            self.map_epoch,
        )
        problems = self.catalogue.problems(manifest)
        if problems:
            raise Damaged("; ".join(problems))
        self.catalogue.write_manifest(manifest)
        self._head = manifest
        self.evaluations.take(manifest.vector)
        for shard in self.shards.values():
            _try(shard.settle, model, marked.cut, manifest.sha256)
        return manifest

    def _delta_upon(self, parent: Manifest | None) -> str | None:
        """The checksum of the manifest that deltas may build on; None: this checkpoint shall be a base."""
        if parent is None or self.config.deltas_max == 0:
            return None
        try:
            return parent.sha256 if len(self.catalogue.chain(parent)) <= self.config.deltas_max else None
        except Damaged:
            return None  # something on the way to its base is gone: begin anew

    def _evaluation(self, marked: Marked, parent: Manifest | None) -> Evaluation:
        """The sums up to the cut. Learners say them right after their pushes, so a short wait finds nearly all."""
        expected = sum(_rows(chain, parent, marked.progress) for chain in marked.vector)
        until = self.time.steady_ms() + self.config.evaluation_wait_ms
        while True:
            for record in self.outside.read_evaluations():
                self.evaluations.add(record)
            if self.evaluations.rows_within(marked.vector) >= expected or self.time.steady_ms() >= until:
                return self.evaluations.sums(marked.vector)
            self.time.sleep_ms(5)

    # --- publication ---

    def _publish(self, manifest: Manifest) -> Gates:
        """Gates, their record, the pointer, the announcement: in this order, so that each is found if the next is."""
        findings = self.outside.check(ref(manifest))
        gates = judge(findings, manifest.evaluation, self._reference(manifest), self.config, self.time.now_ms())
        self.catalogue.write_gates(manifest.name, gates)
        if gates.passed:
            self.catalogue.write_published(ref(manifest))
        self._announce(gates.outcome, manifest, gates.reason)
        return gates

    def _reference(self, manifest: Manifest) -> Evaluation | None:
        published = self.catalogue.published()
        if published is None or published.name == manifest.name:
            return None
        try:
            return self.catalogue.manifest(published.name, published.manifest_sha256).evaluation
        except Damaged:
            return None  # deleted or damaged since: there is nothing to compare with, and it serves nobody any more

    def _announce(self, kind: str, manifest: Manifest, reason: str = "", revision: int = 0) -> None:
        url = self.catalogue.folder_url(manifest.name)
        self.outside.announce(announce(kind, manifest, url, self.time.now_ms(), reason, revision))


def _try(call: Callable[..., object], *arguments: object) -> None:
    """A call that helps but need not succeed: the next mark replaces a copy that was neither settled nor dropped."""
    with suppress(Unreachable, Refused):
        call(*arguments)


def _rows(chain: str, parent: Manifest | None, progress: Mapping[int, Progress]) -> int:
    """Rows learned on a chain since the parent."""
    now = next(iter(progress.values())).chains[chain].rows
    return now - (parent.chains[chain].rows if parent is not None and chain in parent.chains else 0)
