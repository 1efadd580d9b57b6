"""Stale synchronous parallel clocks (K1-K7) and the stop lease of cuts (X1), as a pure core.

Who holds slot 0 runs one `Clocks`. A learner joins under a new epoch, asks to start each batch, and
says when it ended. Time is an argument; the only instruction that comes out is the *allow list*:
whoever runs the core sends `allow_list()` to every shard, again and again, and reports each answer
with `confirm`.

Terms. A member has *started* c batches; its next one is stamped c. It has *acknowledged* a iff
every batch stamped below a has ended. The *minimum* is the smallest acknowledged number of the
active members; with nobody active it is the highest clock of this era. Every value below only grows
while an era lasts, which is what the bound (I4) rests on: a batch stamped c is admitted with
everyone at c - s or above, and whoever enters later enters at that or above.

Two questions that the rules leave open are answered here. (1) A joined learner counts as parked
until its first admitted start, so that seeking and rewinding hold no one back. (2) Join answers at
once (K4), and a start waits until every shard has confirmed a list with the new epoch: an admitted
learner is never fenced for being too early, and a restarted clock holder has raised the era on
every shard before its first start (K5).

The bound is that of Ho et al., "More Effective Distributed ML via a Stale Synchronous Parallel
Parameter Server", 2013.
"""

from collections import Counter
from collections.abc import Mapping
from typing import assert_never

from paramserver.bounds import GOVERNOR_LEASE_MAX_MS, Bounds, GovernorLease, PaceLevel
from paramserver.clocks.allow import Allow
from paramserver.clocks.model_clocks import Member, ModelClocks, Range, StartHold
from paramserver.clocks.operator_settings import OperatorSettings
from paramserver.compensation import WAYS
from paramserver.messages import Epoch, StartOutcome, StartReply, StartRequest
from paramserver.ports import (
    BoundsRequest,
    ClockRequest,
    EndedRequest,
    GovernRequest,
    HoldRequest,
    JoinReply,
    JoinRequest,
    ParkRequest,
    PortRefused,
    ReleaseRequest,
    RenewReply,
    RenewRequest,
    SetCompensationRequest,
    SetConcurrencyRequest,
    SetPausedRequest,
    SetShardsRequest,
    SetStalenessRequest,
    ShardsOrderedRequest,
)
from paramserver.slots import SLOTS

#: Members of all models together; beyond it `join` is refused.
LEARNERS_MAX = 4_096
#: What a learner may say it does when it renews its lease (K3).
DOINGS = frozenset({"computing", "rewinding", "waiting", "parked"})


class Clocks:
    """The clocks of all models. `era` is larger than any before it: the clock holder's incarnation
    serves (K5).

    `shards` is the number of shards; `staleness` is s, -1 for unbounded. A lease lasts `lease_ms`
    from each sign of life; signs without progress prolong it for at most `stated_max_ms` (K3).
    """

    def __init__(
        self,
        era: int,
        shards: int,
        staleness: int = 2,
        lease_ms: int = 10_000,
        stated_max_ms: int = 120_000,
    ) -> None:
        if era < 1 or shards < 1 or staleness < -1 or not 0 < lease_ms <= stated_max_ms:
            raise ValueError(
                f"clocks: era {era} and shards {shards} must be at least 1, staleness {staleness} "
                f"at least -1, "
                f"lease_ms {lease_ms} positive and at most stated_max_ms {stated_max_ms}"
            )
        self.era = era
        self.shards = self.shards_configured = shards
        self.map_epoch = 1  # of the map whose shards these are (S6)
        self._shards_max = shards
        self.staleness = staleness
        self.lease_ms = lease_ms
        self.stated_max_ms = stated_max_ms
        self.models: dict[str, ModelClocks] = {}
        self.incarnations: dict[int, int] = {}  # shard -> the newest incarnation seen (S2)
        self.counts: Counter[str] = Counter()  # "admitted", "wait_cut", "joined", "expelled", ...
        self.settings: dict[str, OperatorSettings] = {}  # model -> what an operator has ordered
        self._sequence = 1
        self._epochs_given = 0
        self._confirmed = dict.fromkeys(
            range(shards), 0
        )  # shard -> newest sequence it has confirmed

    def perform(self, request: ClockRequest, now_ms: int) -> object:
        """What is answered to a call: which one is for whom."""
        match request:
            case StartRequest():
                return self.start(request, now_ms)
            case JoinRequest(model, learner):
                return self.join(model, learner, now_ms)
            case EndedRequest(model, epoch, clock):
                return self.ended(model, epoch, clock, now_ms)
            case ParkRequest(model, epoch):
                return self.park(model, epoch, now_ms)
            case RenewRequest(model, epoch, doing):
                seen = self.renew(model, epoch, doing, now_ms)
                return RenewReply(seen is None, seen or {})
            case HoldRequest(model, cut, lease_ms, highest):
                return self.hold(model, cut, lease_ms, highest, now_ms)
            case ReleaseRequest(model, cut):
                self.release(model, cut)
            case SetStalenessRequest(model, staleness):
                self.set_staleness(model, staleness)
            case SetConcurrencyRequest(model, concurrency):
                self.set_concurrency(model, concurrency)
            case SetCompensationRequest(model, way):
                self.set_compensation(model, way)
            case SetPausedRequest(model, paused):
                self.set_paused(model, paused)
            case SetShardsRequest(model, shards):
                self.set_shards(model, shards)
            case ShardsOrderedRequest(model):
                return self.shards_ordered(model)
            case BoundsRequest(model):
                return self.bounds(model, now_ms)
            case GovernRequest(model, governor, sequence, level, lease_ms):
                return self.govern(model, governor, sequence, level, lease_ms, now_ms)
            case _:
                assert_never(request)
        return None

    # --- the allow list
    # -------------------------------------------------------------------------------------

    def allow_list(self) -> Allow:
        """What every shard must hold now. Sent repeatedly, since a shard that starts holds none
        (K5)."""
        members = (m for model in self.models.values() for m in model.members.values())
        return Allow(
            self.era, self._sequence, tuple(sorted(m.epoch for m in members if m.fenced_at is None))
        )

    @property
    def sequence(self) -> int:
        """Of the present list: it rises with every change."""
        return self._sequence

    def ways(self) -> dict[str, str]:
        """Model -> the compensation that an operator has ordered; it goes to the shards with the
        allow list."""
        return {
            model: said.compensation for model, said in self.settings.items() if said.compensation
        }

    def unconfirmed(self) -> list[int]:
        """Shards that have not confirmed the present list."""
        return [shard for shard, sequence in self._confirmed.items() if sequence < self._sequence]

    def confirm(self, era: int, sequence: int, shard: int, incarnation: int) -> None:
        """`shard` answered: as `incarnation` it holds list `sequence` of `era` (0: it answered, but
        holds none).

        A confirmation outlives the incarnation that gave it: the next one holds nothing until it is
        told, and is told no older list, since lists name the incarnation they are for.
        """
        if shard not in range(self._shards_max):
            raise ValueError(f"shard {shard} confirmed, expected 0..{self._shards_max - 1}")
        if shard not in self._confirmed:
            return  # it was asked under a map that is over
        self.incarnations[shard] = max(incarnation, self.incarnations.get(shard, 0))
        if era != self.era:
            return
        self._confirmed[shard] = max(sequence, self._confirmed[shard])
        everywhere = self._everywhere()
        for model in self.models.values():
            gone = [
                m
                for m in model.members.values()
                if m.fenced_at is not None and m.fenced_at <= everywhere
            ]
            for (
                member
            ) in gone:  # fenced on every shard, so no batch of it can arrive any more: leave (K3)
                del model.members[member.epoch]

    def remap(self, epoch: int, shards: int) -> None:
        """Another map is in force: no start is admitted until every shard of it has confirmed a
        list (S6). A shard that is no more of it is asked no more: what it holds counts for nobody.
        """
        if (epoch, shards) == (self.map_epoch, self.shards):
            return
        self.map_epoch, self.shards = epoch, shards
        self._shards_max = max(self._shards_max, shards)
        self._sequence += 1
        self._confirmed = dict.fromkeys(range(shards), 0)

    @property
    def settled(self) -> bool:
        """Whether every shard of the map has confirmed a list since it is in force."""
        return self._everywhere() > 0

    def _everywhere(self) -> int:
        return min(self._confirmed.values())

    # --- membership
    # -----------------------------------------------------------------------------------------

    def join(self, model: str, learner: str, now_ms: int) -> JoinReply:
        """Enter under a new epoch; an older epoch of the same learner is fenced first.

        Raises Refused with more than LEARNERS_MAX members.
        """
        if sum(len(m.members) for m in self.models.values()) >= LEARNERS_MAX:
            raise PortRefused(
                f"{LEARNERS_MAX} learners have joined already: stop some, or wait until their "
                f"leases expire"
            )
        clocks = self._model(model)
        for member in clocks.members.values():
            if member.learner == learner and member.fenced_at is None:
                self._fence(clocks, member, "rejoined")
        self._sequence += 1
        self._epochs_given += 1
        epoch = Epoch(self.era, self._epochs_given)
        clock = clocks.minimum()
        clocks.members[epoch] = Member(
            learner, epoch, self._sequence, now_ms + self.lease_ms, now_ms, clock
        )
        self.counts["joined"] += 1
        return JoinReply(epoch, clock, self.lease_ms, clocks.staleness)

    def park(self, model: str, epoch: Epoch, now_ms: int) -> bool:
        """Leave the minimum until the next start. With batches outstanding nothing changes.
        False = fenced."""
        return self.renew(model, epoch, "parked", now_ms) is not None

    def renew(self, model: str, epoch: Epoch, doing: str, now_ms: int) -> dict[int, int] | None:
        """Renew the lease; answers shard -> newest incarnation, or None = fenced. Raises Refused
        on another `doing`."""
        if doing not in DOINGS:
            raise PortRefused(f"renew: doing {doing!r}, expected one of {sorted(DOINGS)}")
        member = self._member(model, epoch)
        if member is None:
            return None
        if doing == "parked" and not member.outstanding:
            member.parked = True
        self._renew(member, now_ms)
        return dict(self.incarnations)

    def tick(self, now_ms: int) -> None:
        """Fence every member whose lease has run out."""
        for model in self.models.values():
            for member in model.members.values():
                if member.fenced_at is None and now_ms > member.lease_until_ms:
                    self._fence(model, member, "expelled")

    def _fence(self, model: ModelClocks, member: Member, why: str) -> None:
        """First off the list; out of the minimum only once every shard has confirmed that (K3)."""
        self._sequence += 1
        member.fenced_at = self._sequence
        self.counts[why] += 1
        if member.outstanding and model.hold is not None:
            model.hold.broken = True

    def _renew(self, member: Member, now_ms: int) -> None:
        """A member that holds others back must come on within `stated_max_ms`, whatever it says
        it does (K3)."""
        until = now_ms + self.lease_ms
        if not member.parked:
            until = min(until, member.progress_ms + self.stated_max_ms)
        member.lease_until_ms = max(member.lease_until_ms, until)

    def _came_on(self, member: Member, now_ms: int) -> None:
        member.progress_ms = max(member.progress_ms, now_ms)
        self._renew(member, now_ms)

    def _model(self, model: str) -> ModelClocks:
        if model not in self.models:
            self.models[model] = self._as_set(model)
        return self.models[model]

    def _as_set(self, model: str) -> ModelClocks:
        settings = self.settings.get(model, OperatorSettings())
        return ModelClocks(
            settings.bound(self.staleness), paused=settings.paused, concurrency=settings.concurrency
        )

    def _member(self, model: str, epoch: Epoch) -> Member | None:
        clocks = self.models.get(model)
        member = clocks.members.get(epoch) if clocks else None
        return member if member is not None and member.fenced_at is None else None

    # --- batches
    # --------------------------------------------------------------------------------------------

    def start(self, request: StartRequest, now_ms: int) -> StartReply:
        """May this batch start? A repeat of a start still running gets the clock it has (K1, K2,
        X1)."""
        member = self._member(request.model, request.epoch)
        if member is None:
            return self._answer(StartOutcome.FENCED)
        asked = Range(request.chain, request.start, request.end, request.barrier)
        for clock, running in member.outstanding.items():
            if running == asked:
                member.ticket = max(
                    member.ticket, request.ticket
                )  # or an older copy could start it again, once ended
                self._renew(member, now_ms)
                return StartReply(StartOutcome.ADMITTED, clock)
        if request.ticket:
            if (
                request.ticket <= member.ticket
            ):  # overtaken by a later message: nobody waits for this answer
                return self._answer(StartOutcome.WAIT_STALENESS)
            member.ticket = request.ticket
        return self._admit(self.models[request.model], member, asked, now_ms)

    def _admit(self, model: ModelClocks, member: Member, asked: Range, now_ms: int) -> StartReply:
        hold = model.holding(now_ms)
        if hold is not None and not hold.catches_up(asked):
            if not member.outstanding:
                member.parked = True
            self._waited(member, now_ms)
            return self._answer(StartOutcome.WAIT_CUT, highest=dict(hold.highest))
        if hold is None and model.paused:
            if not member.outstanding:
                member.parked = True
            self._waited(member, now_ms)
            return self._answer(StartOutcome.WAIT_PAUSED)
        # entering raises a clock to the minimum, and never lowers it: parking passes no bound (K3)
        if member.parked:
            member.started = max(member.started, model.minimum())
        clock = member.started
        if member.allowed_at > self._everywhere() or not model.admits(member, clock, now_ms):
            self._waited(member, now_ms)
            return self._answer(StartOutcome.WAIT_STALENESS)
        member.parked = False
        member.outstanding[clock] = asked
        member.started = clock + 1
        model.highest = max(model.highest, member.started)
        self._came_on(member, now_ms)
        return self._answer(StartOutcome.ADMITTED, clock=clock)

    def _waited(self, member: Member, now_ms: int) -> None:
        """'Wait' renews the lease (K3), and without limit only if what it waits for is not its
        own batch."""
        if member.outstanding:
            self._renew(member, now_ms)
        else:
            self._came_on(member, now_ms)

    def ended(self, model: str, epoch: Epoch, clock: int, now_ms: int) -> bool:
        """Batch `clock` was acknowledged by every shard, or abandoned (K1). False = fenced. Safe
        to repeat."""
        member = self._member(model, epoch)
        if member is None:
            return False
        if member.outstanding.pop(clock, None) is not None:
            self.counts["ended"] += 1
            self._came_on(member, now_ms)
        if not member.outstanding and self.models[model].holding(now_ms) is not None:
            member.parked = True  # stopped with nothing outstanding (X1)
        return True

    def _answer(
        self, outcome: StartOutcome, clock: int = -1, highest: dict[str, int] | None = None
    ) -> StartReply:
        self.counts[outcome.value] += 1
        return StartReply(outcome, clock, highest or {})

    # --- cuts and the operator
    # ------------------------------------------------------------------------------

    def hold(
        self, model: str, cut: str, lease_ms: int, highest: dict[str, int], now_ms: int
    ) -> bool:
        """Stop starts above `highest` for `lease_ms`; renewed by repeating, `highest` then only
        grows.

        False: another cut holds, or a learner was fenced in the middle of a batch under this one.
        Abandon it.
        """
        clocks = self._model(model)
        present = clocks.hold
        if present is not None and present.cut != cut and clocks.holding(now_ms) is not None:
            return False
        if present is None or present.cut != cut or now_ms >= present.until_ms:
            present = clocks.hold = StartHold(cut, now_ms, {})
            clocks.last_cut = cut
        if present.broken:
            return False
        present.until_ms = max(present.until_ms, now_ms + lease_ms)
        for chain, end in highest.items():
            present.highest[chain] = max(end, present.highest.get(chain, end))
        for member in clocks.members.values():
            if not member.outstanding:
                # Really parked, not only left out: it must re-enter at the minimum, which may rise
                # meanwhile.
                member.parked = True
        return True

    def release(self, model: str, cut: str) -> None:
        """Let starts resume; without effect if another cut holds."""
        clocks = self.models.get(model)
        if clocks is not None and clocks.hold is not None and clocks.hold.cut == cut:
            clocks.hold = None

    def set_staleness(self, model: str, staleness: int) -> None:
        """The bound s from the next start on; -1 = unbounded. Raises Refused below -1."""
        if staleness < -1:
            raise PortRefused(f"staleness {staleness}, expected 0, 1, 2, ... or -1 for unbounded")
        self._model(model).staleness = staleness
        self.settings[model] = self.settings.get(model, OperatorSettings())._replace(
            staleness=staleness, configured=self.staleness
        )

    def set_concurrency(self, model: str, concurrency: int) -> None:
        """At most this many batches of all learners under way at once; 0 = no limit. Raises Refused
        below 0.

        It comes after K2: with s = 0 and 1 learners take turns, and no push is stale at all.
        """
        if concurrency < 0:
            raise PortRefused(f"concurrency {concurrency}, expected 0 (no limit), 1, 2, ...")
        self._model(model).concurrency = concurrency
        self.settings[model] = self.settings.get(model, OperatorSettings())._replace(
            concurrency=concurrency
        )

    def set_compensation(self, model: str, way: str) -> None:
        """How every shard meets stale gradients from the next list on; "" = as configured.
        Raises Refused."""
        if way not in ("", *WAYS):
            raise PortRefused(
                f"compensation {way!r}, expected one of {', '.join(WAYS)}, or nothing for the "
                f"configured one"
            )
        self.settings[model] = self.settings.get(model, OperatorSettings())._replace(
            compensation=way
        )
        self._sequence += 1

    def bounds(self, model: str, now_ms: int) -> Bounds:
        """What bounds a model's training, and by whose word. Changes nothing."""
        return (self.models.get(model) or self._as_set(model)).bounds(now_ms)

    def govern(
        self, model: str, governor: str, sequence: int, level: PaceLevel, lease_ms: int, now_ms: int
    ) -> Bounds:
        """A governor's lease, for `lease_ms`; 0 gives it back (K7). Answers what then bounds the
        model: another governor's name there says that its lease is in force, and nothing was taken.
        Raises Refused."""
        if not governor or sequence < 1 or not 0 <= lease_ms <= GOVERNOR_LEASE_MAX_MS:
            raise PortRefused(
                f"governor {governor!r}, sequence {sequence}, lease_ms {lease_ms}: expected a "
                f"name, 1 or more, and 0 "
                f"to {GOVERNOR_LEASE_MAX_MS}"
            )
        if level.staleness < -1 or level.concurrency < 0:
            raise PortRefused(
                f"level {tuple(level)}, expected a bound of -1 or more and a concurrency of 0 or "
                "more"
            )
        self._model(model).govern(
            GovernorLease(governor, sequence, level, now_ms + lease_ms), now_ms
        )
        return self.bounds(model, now_ms)

    def set_shards(self, model: str, shards: int) -> None:
        """How many shards there are to be from the next move on (S6). Raises Refused for a
        number that cannot be."""
        if not 1 <= shards <= SLOTS:
            raise PortRefused(f"shards {shards}, expected 1 to {SLOTS}")
        before = self.settings.get(model, OperatorSettings())
        self.settings[model] = before._replace(
            shards=shards, shards_configured=self.shards_configured
        )

    def shards_ordered(self, model: str) -> int:
        """How many shards there are to be: as ordered, else as configured."""
        return self.settings.get(model, OperatorSettings()).shards_wanted(self.shards_configured)

    def set_paused(self, model: str, paused: bool) -> None:
        """Admit no start but what a cut must catch up with, or admit them again."""
        self._model(model).paused = paused
        self.settings[model] = self.settings.get(model, OperatorSettings())._replace(paused=paused)

    def load_settings(self, settings: Mapping[str, OperatorSettings]) -> None:
        """Take over what operators have ordered of an earlier clock holder, before anybody
        joins."""
        self.settings = dict(settings)
