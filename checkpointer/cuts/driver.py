"""The checkpointer without its clock, its log and its process: begin, cut, complete, gate, publish,
sweep (S5, X1, X2).

Every step is safe to repeat and safe to die in. What stands in the store decides what comes next: a
checkpoint is complete once its manifest is there, judged once its `gates.json` is, published once
the pointer has reached it; and announcements may be said again. So where the store fails, what was
under way is taken up by `recover` once it answers.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from checkpointer.config import CheckpointerConfig
from checkpointer.cuts.cut import Abandoned, Cut, Marked, Pace
from checkpointer.cuts.cut_runner import Cutting, Time, WorkerPool, best_effort
from checkpointer.cuts.move_preparation import Preparation
from checkpointer.cuts.part_writing import PartWriting
from checkpointer.cuts.publication import Publication, PublicationShell
from checkpointer.cuts.resharding import Resharding
from checkpointer.cuts.schedule import Due, Schedule
from checkpointer.cuts.step import NO_PAUSE, CutStep, MovePause
from checkpointer.gates import Evaluations
from checkpointer.store import (
    Catalogue,
    Damaged,
    Definition,
    Evaluation,
    Manifest,
    NotRemembered,
    TakenCut,
    UsedStore,
    assemble,
    definition_change,
    look_at,
    ref,
)
from paramserver import (
    ClockPort,
    PortRefused,
    PortUnreachable,
    Progress,
    ProgressReply,
    ShardPort,
    SlotMap,
)

#: The store is looked at this often while no cut is due.
LOOK_EVERY_MS = 10_000
#: What a writer left half written is swept at a start once it is older than this: nobody writes one
#: file for so long.
DRAFT_AGE_MS = 3_600_000
_log = logging.getLogger(__name__)

#: A cut for a move is judged without it if shards take so long to read it.
JUDGED_AFTER_MS = 5_000


class DriverShell(WorkerPool, PublicationShell, Protocol):
    """What the driver asks of its shell."""

    def read_evaluations(self) -> Iterable[Mapping[str, Any]]:
        """New records of `evaluations`, without waiting."""

    def first_vector(self) -> dict[str, int]:
        """chain -> E at which a new model begins (S5)."""


@dataclass
class Driver:
    """One model's checkpointer: `step` again and again. `recover` comes first, and again after
    the store has failed."""

    config: CheckpointerConfig
    definition: Definition
    shards: Mapping[int, ShardPort]  # also of shards that are not there yet
    clock: ClockPort
    catalogue: Catalogue
    shell: DriverShell
    time: Time
    code_version: str = ""
    #: of a model without a checkpoint; None = even, over `shards`
    slot_map: SlotMap | None = None
    used: UsedStore = field(default_factory=NotRemembered)
    schedule: Schedule = field(init=False)
    evaluations: Evaluations = field(init=False)
    cutting: Cutting = field(init=False)
    resharding: Resharding = field(init=False)
    parts: PartWriting = field(init=False)
    publication: Publication = field(init=False)
    attempts: int = 0
    #: the head complete cut as last seen; this is its only writer, but for an operator's rollback
    _head: Manifest | None = None
    #: a cut that was taken for a move, to be judged if it is still the head when no move comes of
    #: it
    _unjudged: Manifest | None = None
    recovered: bool = False
    _look_at_ms: int = 0

    def __post_init__(self) -> None:
        self.schedule = Schedule(
            interval_ms=self.config.interval_ms,
            event_interval_ms=self.config.event_interval_ms,
            idle_interval_ms=self.config.idle_interval_ms,
            retry_ms=self.config.retry_ms,
            retry_max_ms=self.config.retry_max_ms,
            barrier_kinds=self.definition.barrier_kinds,
        )
        name = self.definition.spec.name
        self.evaluations = Evaluations(name)
        slot_map = self.slot_map or SlotMap.even(len(self.shards))
        self.cutting = Cutting(self.shards, self.clock, self.shell, self.time, self.config.poll_ms)
        self.resharding = Resharding(name, self.shards, self.clock, self.shell.each, slot_map)
        self.parts = PartWriting(name, self.shards, self.clock, self.shell, self.time, self.config)
        self.publication = Publication(self.catalogue, self.shell, self.time, self.config)

    # --- once ---

    def recover(self) -> None:
        """Take up what a predecessor left: mend what a power cut did to the pointers, judge a head
        that was not, say again what is published and held.

        Raises ValueError if the checkpoints are of another definition of the model, OSError if the
        store fails.
        """
        for done in self.catalogue.mend():
            _log.warning("checkpoints of %s: %s", self.definition.spec.name, done)
        if swept := self.catalogue.sweep_drafts(DRAFT_AGE_MS):
            _log.info("%d files swept that were left half written", swept)
        head = self._find_head()
        if head is not None:
            self._take_up(head)
        self.recovered = True

    def _take_up(self, head: Manifest) -> None:
        if head.spec.digest != self.definition.spec.digest:
            raise ValueError(
                f"model {head.model!r}: {definition_change(head, self.definition)} since "
                f"checkpoint {head.name}; "
                "give the changed model a new name, or change it back"
            )
        self.evaluations.skip(head.vector)
        gates = self.catalogue.gates(head.name)
        if gates is None:
            self.publication.publish(head)
        elif gates.passed:
            self.catalogue.write_published(ref(head))
            self.publication.announce("published", head)
        else:
            self.publication.announce("rejected", head, gates.reason)
        self._repeat_hold()

    def _find_head(self) -> Manifest | None:
        """The head complete cut and, with it, the map in force (S6)."""
        self._head = head = self.catalogue.head()
        look_at(self.catalogue, self.used, head is not None)
        slot_map = None if head is None else self.catalogue.slot_map(head)
        if slot_map is not None:
            self.resharding.slot_map = slot_map
        return head

    def _repeat_hold(self) -> None:
        try:
            hold = self.catalogue.hold()
            if hold.ref is not None:
                held = self.catalogue.manifest(hold.ref.name, hold.ref.manifest_sha256)
                self.publication.announce("rolled_back", held, hold.reason, hold.revision)
        except Damaged as error:
            _log.error(
                "the operator's hold is not said again: %s; `everspun checkpoints restore` says "
                "it anew",
                error,
            )

    # --- again and again ---

    def step(self) -> CutStep:
        """Look at the shards; begin the model, or take and publish a cut, if that is due. A store
        that fails is an outcome: nothing is lost by it, and the next step takes up what was under
        way."""
        try:
            if not self.recovered:
                self.recover()
            return self._step()
        except (OSError, Damaged) as error:
            self.recovered = False
            return CutStep("store", f"{type(error).__name__}: {error}")

    def _step(self) -> CutStep:
        for record in self.shell.read_evaluations():
            self.evaluations.add(record)
        replies = self._look()
        if replies is None:
            return CutStep("unreachable", "a shard does not answer")
        if behind := self.resharding.behind(replies):
            return self._bring(behind)
        head = self._head
        missing = [shard for shard, reply in replies.items() if reply.progress is None]
        if missing and head is not None:
            self.resharding.bring(missing)
            return CutStep("not_restored", f"shards {missing} have not restored {head.name}")
        if missing:
            return self._begin(missing)
        standing = [reply.progress for reply in replies.values() if reply.progress is not None]
        coming = self.resharding.wanted(self.time.steady_ms())
        due = self.schedule.due(self.time.now_ms(), standing, self._head)
        if coming is None and due is None and not self._is_time_to_look():
            return self._judge() or CutStep("idle")
        in_force = self.resharding.slot_map
        head = self._find_head()  # an operator may have moved it (X4)
        if self.resharding.slot_map != in_force:
            return CutStep("idle")
        due = self.schedule.due(self.time.now_ms(), standing, head)
        if coming is not None and self.schedule.may_try(self.time.now_ms()):
            return self._prepare(coming, head, due)
        return self._judge() or CutStep("idle") if due is None else self._cut(due, head)

    @property
    def left_ms(self) -> int:
        """Until a cut is first due by wall time, ms; 0 = that may be now."""
        return self.schedule.left_ms(self.time.now_ms(), self._head)

    def _is_time_to_look(self) -> bool:
        """At the store, though no cut is due: an operator may have rolled training back
        meanwhile (X4)."""
        now_ms = self.time.steady_ms()
        if now_ms < self._look_at_ms:
            return False
        self._look_at_ms = now_ms + LOOK_EVERY_MS
        return True

    def _prepare(self, coming: Preparation, head: Manifest | None, due: Due | None) -> CutStep:
        """The next round before a move, or the move, once all shards of its map hold the head
        (S6)."""
        now_ms = self.time.steady_ms()
        ready = (
            coming.rounds > 0
            and head is not None
            and self.resharding.prepare(coming.slot_map, head.sha256)
        )
        if ready and coming.enough(now_ms):
            return self._cut(Due("scale"), head, coming, move=coming.slot_map)
        if ready or not coming.rounds or due is not None:
            coming.cut(now_ms)
            return self._cut(due or Due("scale"), head, coming)
        late = coming.lasts_ms(now_ms) > JUDGED_AFTER_MS
        return (self._judge() if late else None) or CutStep("preparing", self.resharding.waits)

    def _judge(self) -> CutStep | None:
        """Of a cut that was taken for a move, which has not come."""
        manifest = self._unjudged
        if manifest is None or self._head is None or manifest.sha256 != self._head.sha256:
            self._unjudged = None
            return None
        gates = self.publication.publish(manifest)
        self._unjudged = None
        return CutStep(gates.outcome, gates.reason, manifest=manifest, gates=gates)

    def _bring(self, behind: list[int]) -> CutStep:
        """Shards that stand at another map than the head's: they are told, or it is they who
        know of a newer one."""
        self._find_head()
        behind = self.resharding.bring(behind)
        return CutStep(
            "moving",
            f"shards {behind} are still to take the map of epoch {self.resharding.slot_map.epoch}",
        )

    def _look(self) -> dict[int, ProgressReply] | None:
        name = self.definition.spec.name
        try:
            return {index: self.shards[index].progress(name) for index in self.resharding.members}
        except PortUnreachable:
            return None

    def _begin(self, missing: list[int]) -> CutStep:
        """The vector is written down first: a shard that must begin again before the first cut
        begins where the others did, whatever retention has removed since."""
        vector = self._begun()
        if vector is None:
            look_at(self.catalogue, self.used, False)
            vector = self.shell.first_vector()
            self.catalogue.write_begun(vector)
        self.used.remember()
        try:
            for index in missing:
                self.shards[index].begin(self.definition.spec, vector, self.definition.dense)
        except PortUnreachable as error:
            return CutStep("unreachable", str(error))
        return CutStep(
            "begun", f"model {self.definition.spec.name!r} begins at {vector} on shards {missing}"
        )

    def _begun(self) -> dict[str, int] | None:
        """Where the model began; where the file cannot be read, as a shard says that has begun."""
        try:
            return self.catalogue.begun()
        except Damaged as error:
            _log.error("%s: it is written anew", error)
        name = self.definition.spec.name
        begun = [self.shards[index].progress(name).begun for index in self.resharding.members]
        known = next((vector for vector in begun if vector), None)
        if known is not None:
            self.catalogue.write_begun(dict(known))
        return None if known is None else dict(known)

    # --- a cut ---

    def _cut(
        self,
        due: Due,
        head: Manifest | None,
        coming: Preparation | None = None,
        move: SlotMap | None = None,
    ) -> CutStep:
        """`coming`: the move that it is taken for. `move`: the map that the checkpoint is to name;
        starts then stay stopped until all shards of it have it."""
        self.attempts += 1
        began = self.time.steady_ms()
        cut = self._new_cut(began, keep_hold=move is not None)
        end = self.cutting.perform(cut)
        cut_ms, taken_ms = self.time.steady_ms() - began, self.time.now_ms()
        if isinstance(end, Abandoned):
            return self._abandoned(due, end.reason, end.detail, cut.hold_ms, cut_ms)
        try:
            manifest = self._complete(end, taken_ms, head, cut, coming, move)
        except (PortUnreachable, PortRefused, Damaged, ValueError, OSError) as error:
            self._forget(end)
            best_effort(self.clock.release, cut.model, cut.cut)
            self._discard(end, stored=not isinstance(error, OSError))
            return self._abandoned(due, _reason(error), str(error), cut.hold_ms, cut_ms)
        pause = NO_PAUSE if move is None else self._spread(cut, move)
        if coming is not None and move is None:
            # They read while it is judged.
            self.resharding.prepare(coming.slot_map, manifest.sha256)
            if due.reason == "scale" and coming.rounds > 1:
                self._unjudged = manifest
                return CutStep(
                    "prepared", due=due, hold_ms=cut.hold_ms, cut_ms=cut_ms, manifest=manifest
                )
        gates = self.publication.publish(manifest)
        self._unjudged = None
        swept = self._sweep()
        self.schedule.completed()
        return CutStep(
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
            pause=pause,
            shards=0 if move is None else move.shards,
        )

    def _new_cut(self, began_ms: int, keep_hold: bool) -> Cut:
        config = self.config
        return Cut(
            self.definition.spec.name,
            # The time keeps the names of two checkpointers apart, the count those of one.
            f"{self.time.now_ms():x}x{self.attempts}",
            self.resharding.members,
            began_ms,
            Pace(config.hold_lease_ms, config.cut_timeout_ms, config.poll_ms),
            keep_hold=keep_hold,
        )

    def _spread(self, cut: Cut, move: SlotMap) -> MovePause:
        """The map is committed: tell its shards, keep starts stopped until all have it, and release
        them. Who does not take it in time does so later: the clock holder waits for that (S6)."""
        complete_ms = cut.held_for_ms(self.time.steady_ms())
        former, self.resharding.slot_map = self.resharding.members, move
        behind, until = self.resharding.members, self.time.steady_ms() + self.config.cut_timeout_ms
        while (behind := self.resharding.bring(behind)) and self.time.steady_ms() < until:
            self.parts.keep_hold(cut)
            self.time.sleep_ms(self.config.poll_ms)
        best_effort(self.clock.release, cut.model, cut.cut)
        pause_ms = cut.held_for_ms(self.time.steady_ms())
        self.resharding.bring([shard for shard in former if shard not in self.resharding.members])
        return MovePause(cut.hold_ms, complete_ms - cut.hold_ms, pause_ms - complete_ms)

    def _abandoned(self, due: Due, reason: str, detail: str, hold_ms: int, cut_ms: int) -> CutStep:
        self.schedule.abandoned(self.time.now_ms())
        self.resharding.coming = None
        return CutStep("abandoned", detail, due, reason, hold_ms, cut_ms)

    def _forget(self, marked: Marked) -> None:
        for index in self.resharding.members:
            best_effort(self.shards[index].unmark, self.definition.spec.name, marked.cut)

    def _discard(self, marked: Marked, stored: bool) -> None:
        """Parts of a cut that came to nothing: a disk that is full is not to stay full of them. Not
        `stored`: the store failed, and may have taken the manifest though it said that it had not.
        """
        self.recovered &= stored
        try:
            for name in self.catalogue.names():
                if name.endswith(f"-{marked.cut}"):
                    self.catalogue.delete(name)
        except OSError as error:
            _log.warning("parts of cut %s are left for the next sweep: %s", marked.cut, error)

    def _sweep(self) -> list[str]:
        """A store that deletes nothing costs room, and no checkpoint."""
        try:
            return self.catalogue.sweep(self.config.kept)
        except (OSError, Damaged) as error:
            _log.warning("nothing is swept: %s", error)
            self.recovered = False
            return []

    def _complete(
        self,
        marked: Marked,
        taken_ms: int,
        parent: Manifest | None,
        cut: Cut,
        coming: Preparation | None,
        move: SlotMap | None,
    ) -> Manifest:
        """Parts, then evaluations, then the manifest: with it the checkpoint exists (X2). What it
        holds is of `taken_ms`, when all had marked."""
        model, number = self.definition.spec.name, self.catalogue.next_number()
        url = self.catalogue.folder_url(f"{number:08d}-{marked.cut}")
        more = 0 if coming is None else coming.rounds - (move is None)
        upon = self._delta_upon(parent, more)
        infos = self.parts.write(
            self.resharding.members, marked, url, upon, cut if move is not None else None
        )
        evaluation = self._evaluation(
            marked, parent, 0 if move is not None else self.config.evaluation_wait_ms
        )
        manifest = assemble(
            self.definition,
            TakenCut(number, marked.cut, marked.vector, taken_ms, self.code_version),
            infos,
            parent,
            evaluation,
            move or self.resharding.slot_map,
            self.evaluations.late_share(marked.vector),
        )
        problems = self.catalogue.problems(manifest) + self.catalogue.serving_problems(manifest)
        if problems:
            raise Damaged("; ".join(problems))
        self.catalogue.write_manifest(manifest)
        self._head = manifest
        self.evaluations.take(manifest.vector)
        for index in self.resharding.members:
            best_effort(self.shards[index].settle, model, marked.cut, manifest.sha256)
        return manifest

    def _delta_upon(self, parent: Manifest | None, more: int) -> str | None:
        """The checksum of the manifest that deltas may build on; None: this checkpoint shall be a
        base. `more` deltas than configured may stand in a row."""
        deltas_max = self.config.deltas_max + more
        if parent is None or deltas_max == 0:
            return None
        try:
            return parent.sha256 if len(self.catalogue.chain(parent)) <= deltas_max else None
        except Damaged:
            return None  # something on the way to its base is gone: begin anew

    def _evaluation(self, marked: Marked, parent: Manifest | None, wait_ms: int) -> Evaluation:
        """The sums up to the cut. Learners say them right after their pushes, so a short wait
        finds nearly all."""
        expected = sum(_rows(chain, parent, marked.progress) for chain in marked.vector)
        until = self.time.steady_ms() + wait_ms
        while True:
            for record in self.shell.read_evaluations():
                self.evaluations.add(record)
            if (
                self.evaluations.rows_within(marked.vector) >= expected
                or self.time.steady_ms() >= until
            ):
                return self.evaluations.sums(marked.vector)
            self.time.sleep_ms(5)


def _reason(error: Exception) -> str:
    """Why a cut whose parts were to be written came to nothing: "manifest" is no fault of a
    store or a shard."""
    is_ours = isinstance(error, ValueError) and not isinstance(error, Damaged)
    return "manifest" if is_ours else "parts"


def _rows(chain: str, parent: Manifest | None, progress: Mapping[int, Progress]) -> int:
    """Rows learned on a chain since the parent."""
    now = next(iter(progress.values())).chains[chain].rows
    return now - (parent.chains[chain].rows if parent is not None and chain in parent.chains else 0)
