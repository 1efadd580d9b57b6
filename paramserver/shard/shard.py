"""One shard: what it answers to learners, to the clock holder, and to cuts. A pure state machine
with one writer.

A push is judged in this order, and only the last step changes anything:

    slot map epoch (S6)  ->  era and epoch (K5)  ->  incarnation (S2)  ->  begun (S5)  ->  E (S1)
    ->  content (S4)

so a push of a former incarnation is told so before its range is compared with an E it never knew,
and a chain never stops at a batch: what is refused for content ends as an empty push.
"""

from collections.abc import Iterable, Mapping
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from paramserver.compensation import NO_COMPENSATION, WAYS, Compensation
from paramserver.encoding import Encoding
from paramserver.kernel import plain
from paramserver.messages import (
    ChainProgress,
    Epoch,
    Keys,
    MarkReply,
    ModelSpec,
    Outcome,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
)
from paramserver.parts import Snapshot, first_cut, next_cut
from paramserver.ports import (
    AllowReply,
    AllowRequest,
    BeginRequest,
    CoreRequest,
    MarkRequest,
    PortRefused,
    ProgressReply,
    ProgressRequest,
    SettleRequest,
    UnmarkRequest,
)
from paramserver.shard.allow_list import AllowList
from paramserver.shard.marked_cut import MarkedCut, Parent, kind_upon
from paramserver.shard.state import COPY_ROWS, ModelState
from paramserver.shard.state_copy import StateCopy
from paramserver.slots import SlotMap, foreign_key

NO_CHAIN = ChainProgress(end=-1)


def judge(end: int, barrier: int, request: PushRequest) -> Outcome:
    """What `[start, end)` is to a chain that stands at `end` with its last barrier (S1, E3)."""
    if request.start == request.end == end and request.barrier > barrier:
        return Outcome.APPLIED
    if request.end <= end:
        return Outcome.DUPLICATE
    if request.start > end:
        return Outcome.GAP
    if request.start < end:
        return Outcome.OVERLAP
    return Outcome.APPLIED


class Shard:
    """The core of one shard process, for all models. Calls are serialised by the shell; none
    waits."""

    def __init__(
        self,
        index: int,
        incarnation: int,
        slot_map: SlotMap,
        compensation: Compensation = NO_COMPENSATION,
        memory_bytes_max: int = 0,
        index_secret: int = 0,
    ) -> None:
        """`compensation` is how stale gradients are met where no operator has ordered otherwise;
        `memory_bytes_max`, what the rows of one model may take, 0 = no limit. A map in which the
        shard owns nothing means that it stands by (S6). `index_secret`: 64 bits that no other
        process has (`paramserver.tables.hash_index`)."""
        if index < 0:
            raise ValueError(f"shard {index}: expected 0, 1, 2, ...")
        self.index, self.incarnation, self.slot_map = index, incarnation, slot_map
        self._models: dict[str, ModelState] = {}
        self._cuts: dict[str, MarkedCut] = {}  # at most one a model: a copy of it is held in memory
        self._parents: dict[str, Parent] = {}
        self.allowed = AllowList()  # nobody, until this incarnation is told (K5)
        self._compensation, self._memory_bytes_max = compensation, memory_bytes_max
        self._index_secret = index_secret
        self._ways: dict[str, str] = {}  # model -> the way that an operator has ordered

    def perform(self, request: CoreRequest) -> object:
        """What is answered to a call that needs nothing beside the shard's state."""
        match request:
            case BeginRequest(spec, vector, dense):
                return self.begin(spec, vector, dense)
            case ProgressRequest(model):
                return self.progress(model)
            case MarkRequest(model, cut, vector):
                return self.mark(model, cut, vector)
            case UnmarkRequest(model, cut):
                self.unmark(model, cut)
            case SettleRequest(model, cut, manifest_sha256):
                self.settle(model, cut, manifest_sha256)
            case AllowRequest():
                return self.allow(request)
            case _:
                assert_never(request)
        return None

    # --- who may push
    # -------------------------------------------------------------------------------------------

    @property
    def stands_by(self) -> bool:
        """Whether its map gives it nothing (S6)."""
        return self.index >= self.slot_map.shards

    def allow(self, request: AllowRequest) -> AllowReply:
        """Exactly these epochs may push and pull, in this era (K5). Answers incarnation and map
        epoch, and adopts the list only if it is for them (S6).

        Refused if the era is older than the shard's: another clock holder has taken over.
        """
        if self.allowed.adopt(request, self.incarnation, self.slot_map.epoch):
            self._ways = {model: way for model, way in request.ways.items() if way in WAYS}
            for model, state in self._models.items():
                state.compensate(self._compensation_of(model))
        return AllowReply(self.incarnation, self.slot_map.epoch)

    @property
    def era(self) -> int | None:
        """The era this incarnation was told, or None."""
        return self.allowed.era

    def _gate(self, epoch: Epoch, map_epoch: int) -> Outcome | None:
        """Why this epoch or map is not served, or None. The map comes first: a shard that stands by
        is told no era, and would say so for ever."""
        return (
            Outcome.WRONG_MAP if map_epoch != self.slot_map.epoch else self.allowed.refuses(epoch)
        )

    def _compensation_of(self, model: str) -> Compensation:
        return self._compensation._replace(way=self._ways.get(model, self._compensation.way))

    # --- progress
    # ----------------------------------------------------------------------------------------------

    @property
    def models(self) -> list[str]:
        return list(self._models)

    def begin(
        self, spec: ModelSpec, vector: Mapping[str, int], dense: Mapping[str, object]
    ) -> ProgressReply:
        """Set the first ends of all chains and the initial dense arrays (S5); the same again is
        harmless.

        Refused for another definition or other ends than the model has here, and for a spec or
        dense value that cannot be.
        """
        known = self._models.get(spec.name)
        if known is not None:
            if known.spec.digest != spec.digest:
                raise PortRefused(
                    f"model {spec.name!r} is {known.spec.digest} here, not {spec.digest}: give "
                    f"the new one a new name"
                )
            if known.begun != dict(vector):
                raise PortRefused(
                    f"model {spec.name!r} began at {known.begun}, not at {dict(vector)}: restore "
                    f"a checkpoint"
                )
            return self.progress(spec.name)
        if self.stands_by:
            raise PortRefused(
                f"shard {self.index} stands by: its map has shards 0 to {self.slot_map.shards - 1}"
            )
        try:
            state = self._new_state(spec, dict(vector))
            state.dense.initialize(dense)
        except (ValueError, TypeError) as error:
            raise PortRefused(f"model {spec.name!r}: {error}") from error
        self._models[spec.name] = state
        return self.progress(spec.name)

    def progress(self, model: str) -> ProgressReply:
        state = self._models.get(model)
        if state is None:
            return ProgressReply(
                self.incarnation, self.slot_map.epoch, None, slot_map=self.slot_map
            )
        at = state.progress
        return ProgressReply(
            self.incarnation, self.slot_map.epoch, at, dict(state.begun), self.slot_map
        )

    def restore(self, parts: Iterable[Snapshot], manifest_sha256: str) -> ProgressReply:
        """Begin a model from the full parts of one complete cut, of this or any other number of
        shards (X2).

        Takes what belongs to this shard's slots, from one part after the other. Refused if the
        model has begun in this incarnation (a shard goes back only under a new one: S2, X4), or if
        the parts are of different cuts or lack a slot.
        """
        try:
            snapshot = first_cut(parts, self.index, self.slot_map)
            if snapshot.spec.name in self._models:
                raise PortRefused(
                    f"model {snapshot.spec.name!r} has begun here: restore needs a new incarnation"
                )
            state = self._new_state(snapshot.spec, snapshot.begun)
            state.load(snapshot)
        except ValueError as error:
            raise PortRefused(f"restore from manifest {manifest_sha256}: {error}") from error
        self._models[snapshot.spec.name] = state
        self._parents[snapshot.spec.name] = Parent(
            manifest_sha256, state.version, self.slot_map.epoch
        )
        return self.progress(snapshot.spec.name)

    def follow(self, parts: Iterable[Snapshot], manifest_sha256: str) -> ProgressReply:
        """Go on to the next complete cut: its parts, deltas or full ones, build upon the one that
        this incarnation was restored from or followed last. It costs what the parts hold (X3).

        Refused if anything was pushed since, or the parts build on another cut or lack a slot: then
        nothing has changed.
        """
        try:
            model, parent = self._last_cut()
            cut, anew = next_cut(parts, self.index, self.slot_map, parent.manifest_sha256)
            state = self._models[model]
            if (cut.spec.name, cut.spec.digest) != (model, state.spec.digest):
                raise ValueError(
                    f"it is of {cut.spec.name!r} {cut.spec.digest}, not of {model!r} "
                    f"{state.spec.digest}"
                )
        except ValueError as error:
            raise PortRefused(f"follow to manifest {manifest_sha256}: {error}") from error
        state.follow(cut, anew)
        self._parents[model] = Parent(manifest_sha256, state.version, self.slot_map.epoch)
        return self.progress(model)

    def _last_cut(self) -> tuple[str, Parent]:
        """The one model here, which stands at a complete cut. ValueError if there is none, or it
        went on."""
        for model, parent in self._parents.items():
            if len(self._models) == 1 and self._models[model].version == parent.version:
                return model, parent
        raise ValueError(f"shard {self.index} does not stand at one complete cut of one model")

    # --- pull and push
    # ------------------------------------------------------------------------------------------

    def pull(self, request: PullRequest, encoding: Encoding = Encoding.FLOAT32) -> PullReply:
        """Rows and dense arrays as they are now; changes nothing (S3). Refused for a table or key
        not of this shard.

        `encoding`: of the rows, as they are to travel."""
        state = self._models.get(request.model)
        outcome = self._gate(request.epoch, request.map_epoch) or (
            Outcome.NOT_BEGUN if state is None else None
        )
        if outcome is not None or state is None:
            return PullReply(outcome or Outcome.NOT_BEGUN, {}, {}, 0, self.incarnation)
        rows = {
            name: self._pull_table(state, name, keys, encoding)
            for name, keys in request.keys.items()
        }
        dense = state.dense.pull() if request.dense else {}
        return PullReply(Outcome.APPLIED, rows, dense, state.version, self.incarnation)

    def _pull_table(
        self, state: ModelState, name: str, keys: Keys, encoding: Encoding
    ) -> npt.NDArray[Any]:
        table = state.tables.get(name)
        if table is None:
            raise PortRefused(f"model {state.spec.name!r} has no table {name!r}")
        if keys.dtype != np.uint64 or keys.ndim != 1:
            raise PortRefused(
                f"table {name!r}: keys are {keys.dtype} {keys.shape}, expected uint64 (n,)"
            )
        keys = plain(keys)
        foreign = foreign_key(keys, self.slot_map.owner, self.index)
        if foreign >= 0:
            raise PortRefused(
                f"table {name!r}: key {keys[foreign]} belongs to another shard than {self.index}"
            )
        return table.pull(keys, encoding)

    def push(self, request: PushRequest, refusal: str = "") -> PushReply:
        """Apply a batch if it starts where the shard ends, else say what it is (S1, S2, S4, K5).

        `refusal`: why its content is refused, where that is known before it is looked at.

        MemoryError, if rows cannot be reserved, leaves everything as it was: the push may be sent
        again.
        """
        state = self._models.get(request.model)
        outcome = self._gate(request.epoch, request.map_epoch)
        if outcome is None and request.incarnation != self.incarnation:
            outcome = Outcome.WRONG_INCARNATION
        if outcome is not None:
            return self._answer(outcome, state, request)
        if state is None:
            return self._answer(
                Outcome.NOT_BEGUN, state, request, f"model {request.model!r} has not begun here"
            )
        at = state.chains.get(request.chain)
        if at is None:
            return self._answer(
                Outcome.NOT_BEGUN, state, request, f"begin did not name chain {request.chain!r}"
            )
        outcome = judge(at.end, at.barrier, request)
        if outcome is not Outcome.APPLIED:
            return self._answer(outcome, state, request)
        staleness = max(0, state.version - request.read_version)
        refusal = refusal or state.refusal(request)
        if not refusal:
            state.reserve(request)
        state.apply(request, empty=bool(refusal))
        outcome = Outcome.PARTLY_APPLIED if refusal else Outcome.APPLIED
        return self._answer(outcome, state, request, refusal, staleness)

    def _answer(
        self,
        outcome: Outcome,
        state: ModelState | None,
        request: PushRequest,
        detail: str = "",
        staleness: int = 0,
    ) -> PushReply:
        """Every answer carries E, incarnation, map epoch and version; E = -1 where the chain has
        not begun."""
        end = NO_CHAIN.end if state is None else state.chains.get(request.chain, NO_CHAIN).end
        version = 0 if state is None else state.version
        return PushReply(
            outcome, end, self.incarnation, self.slot_map.epoch, version, staleness, detail
        )

    # --- cuts
    # ----------------------------------------------------------------------------------------------

    def mark(self, model: str, cut: str, vector: Mapping[str, int]) -> MarkReply:
        """Name the state at exactly this vector (chain -> E) as the cut, or refuse (X1).

        A marked cut keeps an exact copy, made while pushes go on: what a mark costs does not grow
        with the tables. The same mark again answers the same, whatever was pushed since. One cut a
        model is kept: a later mark replaces it.
        """
        state = self._state(model)
        marked = self._cuts.get(model)
        if marked is not None and marked.name == cut and marked.vector == dict(vector):
            return MarkReply(True, self.incarnation, marked.copy.head.progress)
        if state.vector != dict(vector):
            return MarkReply(False, self.incarnation, state.progress)
        self._drop_cut(model)
        copy = state.copy()
        parent = self._parents.get(model)
        known = (
            parent is not None
            and parent.map_epoch == self.slot_map.epoch
            and copy.knows_since(parent.version)
        )
        if parent is not None and known:
            copy.know(parent.manifest_sha256, parent.version)
        self._cuts[model] = MarkedCut(cut, dict(vector), copy, parent if known else None)
        return MarkReply(True, self.incarnation, copy.head.progress)

    def unmark(self, model: str, cut: str) -> None:
        """Forget the marked copy; harmless if there is none of this name."""
        marked = self._cuts.get(model)
        if marked is not None and marked.name == cut:
            self._drop_cut(model)

    def _drop_cut(self, model: str) -> None:
        marked = self._cuts.pop(model, None)
        if marked is not None:
            marked.copy.drop()

    def copying(self, model: str, cut: str, parent: str | None = None) -> StateCopy:
        """The copy of the marked state, to be advanced between pushes and written as a part.

        A delta if `parent` is the manifest of this shard's own last cut, taken or restored, and the
        slots are those of then; else all of it (X2). Refused if this cut is not marked here, or was
        begun as the other kind.
        """
        marked = self._cuts.get(model)
        if marked is None or marked.name != cut:
            raise PortRefused(
                f"cut {cut!r} of model {model!r} is not marked on shard {self.index}: mark it again"
            )
        known, copy = marked.parent, marked.copy
        upon = parent if known is not None and known.manifest_sha256 == parent else None
        if upon == copy.parent:
            return copy
        if copy.begun or known is None or upon is None:
            raise PortRefused(
                f"cut {cut!r} of model {model!r} is copied {kind_upon(copy.parent)} already: mark "
                f"it again"
            )
        copy.narrow(upon, known.version)
        return copy

    def marked(self, model: str, cut: str, parent: str | None = None) -> Snapshot:
        """The marked state, the rest of its rows copied at once while the writer waits. As
        `copying` else."""
        copy = self.copying(model, cut, parent)
        while not copy.advance(COPY_ROWS):
            pass
        return copy.snapshot()

    def settle(self, model: str, cut: str, manifest_sha256: str) -> None:
        """The cut is complete as this manifest: it becomes the parent, its copy is dropped.
        Repeating is harmless.

        A cut that is not marked here (the shard restarted since) changes nothing: its next part is
        then a full one.
        """
        marked = self._cuts.get(model)
        if marked is not None and marked.name == cut:
            self._parents[model] = Parent(manifest_sha256, marked.copy.version, self.slot_map.epoch)
            self._models[model].forget(marked.copy.version)
            self._drop_cut(model)

    def retire(self) -> None:
        """Another incarnation takes over (S6): nobody asks for these cuts again, and copies
        under way end."""
        for model in list(self._cuts):
            self._drop_cut(model)

    def parent(self, model: str) -> Parent | None:
        """The cut a delta may build on, or None: the next part must be full."""
        return self._parents.get(model)

    # --- looking
    # ----------------------------------------------------------------------------------------------

    def rows(self, model: str) -> int:
        """Rows of all tables of a model on this shard."""
        return sum(len(table) for table in self._state(model).tables.values())

    def rows_bytes(self, model: str) -> int:
        """What they take, bytes: what `memory_bytes_max` is held against."""
        return self._state(model).rows_bytes

    def dropped(self, model: str) -> dict[str, int]:
        """Gradients that this incarnation dropped since their keys got no row, by why."""
        return self._state(model).dropped

    def reseeded(self, model: str) -> int:
        """How often an index of this incarnation was made anew, for keys that crowd together as
        honest ones do not."""
        return self._state(model).reseeded

    def beyond_history(self, model: str) -> int:
        """Pushes that were compensated by less than what was applied since they read
        (`delay_compensation.GradientHistory`)."""
        return self._state(model).compensator.beyond_history

    def snapshot(self, model: str) -> Snapshot:
        """A copy of the present state, without naming it."""
        return self._state(model).snapshot()

    def validate(self) -> None:
        """AssertionError if an invariant does not hold. Reads everything; for tests."""
        for name, state in self._models.items():
            assert state.spec.name == name
            assert state.slot_map is self.slot_map
            state.validate()
        assert self._cuts.keys() | self._parents.keys() <= self._models.keys()
        for model, marked in self._cuts.items():
            ends = {chain: at.end for chain, at in marked.copy.head.progress.chains.items()}
            assert ends == marked.vector, "a cut is the state at exactly its vector"
            assert all(ends[c] <= e for c, e in self._models[model].vector.items()), (
                "a cut is never ahead of its shard"
            )

    def _new_state(self, spec: ModelSpec, begun: dict[str, int]) -> ModelState:
        compensation = self._compensation_of(spec.name)
        limit, secret = self._memory_bytes_max, self._index_secret
        return ModelState(spec, self.index, self.slot_map, begun, compensation, limit, secret)

    def _state(self, model: str) -> ModelState:
        state = self._models.get(model)
        if state is None:
            raise PortRefused(
                f"model {model!r} has not begun on shard {self.index}: begin or restore it"
            )
        return state
