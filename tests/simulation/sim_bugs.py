"""The planted bugs, most of them a small patch of one method. A bug's name is that of the
protocol's list."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import sim_bugs_breaker  # noqa: F401, registers its bugs
import sim_bugs_catalogues  # noqa: F401, so does this
import sim_bugs_clocks  # noqa: F401, so does this
import sim_bugs_copy  # noqa: F401, so does this
import sim_bugs_counts  # noqa: F401, and this
import sim_bugs_cuts  # noqa: F401, so does this
import sim_bugs_folders  # noqa: F401, so does this
import sim_bugs_governor  # noqa: F401, so does this
import sim_bugs_late  # noqa: F401, and this
import sim_bugs_lost  # noqa: F401, and this
import sim_bugs_maps  # noqa: F401, and this
import sim_bugs_poison  # noqa: F401, and this
import sim_bugs_retract  # noqa: F401, and this
import sim_bugs_store  # noqa: F401, and this
import sim_bugs_tables  # noqa: F401, and this
from sim_bug import BUGS, Patch, bug, replaced
from sim_fraud import FraudNode
from sim_labelers import LabelerNode
from sim_site import Site

from labeler.counting import Head
from labeler.counting.heartbeats import Heartbeats
from labeler.fraud import FraudFilter, activity_pages
from labeler.io import Outbox
from labeler.join import ResumePoint
from labeler.labels import Labelling, VerdictIndex
from learners.pacing import Pacer, Position
from learners.pacing.start_scheduler import StartScheduler
from paramserver import Outcome, PushReply
from paramserver.clocks import Clocks
from paramserver.clocks.model_clocks import ModelClocks
from paramserver.shard import shard as shard_module
from stream import Chain, Fold, offset_of
from stream.decoding import ArrivalClock
from stream.internal_topics import ClockOverride

__all__ = ["BUGS"]

# --- chains and resume points
# -----------------------------------------------------------------------------------


@bug(
    "no trim",
    "rows below the chain's end are learned with the record that reaches over it (C2)",
    first=6,
    step=7,
)
def no_trim() -> list[Patch]:
    fold = Chain.fold

    def bad(self: Chain, start: int, end: int, barrier: int | None = None) -> tuple[Fold, int]:
        return fold(self, start, end, barrier)[0], start

    return [replaced(Chain.fold, bad)]


@bug(
    "overlap taken for duplicate",
    "a push that reaches over the shard's end is answered as already applied (S1)",
    first=6,
    step=7,
)
def overlap_as_duplicate() -> list[Patch]:
    """Readers that trim never send such a push, so the one who sends it is broken too."""
    judge = shard_module.judge

    def bad(end: int, barrier: int, request: Any) -> Outcome:
        found = judge(end, barrier, request)
        return Outcome.DUPLICATE if found is Outcome.OVERLAP else found

    return [replaced(shard_module.judge, bad, of=shard_module), *no_trim()]


@bug(
    "ids not re-read after a restart",
    "the resumed reader begins at the end, and knows no ids before it (L2)",
)
def ids_not_reread() -> list[Patch]:
    return [replaced(ResumePoint.impressions_offset, property(lambda self: offset_of(self.start)))]


def _resume_without(**lost: Any) -> list[Patch]:
    after = ResumePoint.after.__func__  # type: ignore[attr-defined]

    def bad(cls: type[ResumePoint], header: Any, barrier: int) -> ResumePoint:
        return replace(after(cls, header, barrier), **lost)

    return [replaced(ResumePoint.after, classmethod(bad))]


@bug("arrival maximum lost on restart", "a resumed reader takes the next stamp as it is (T1, C4)")
def arrival_lost() -> list[Patch]:
    return _resume_without(ids_arrival_max_ms=0, clicks_arrival_max_ms=0)


@bug(
    "resume point without watermarks",
    "a resumed labeler knows no watermark but those it reads (C4)",
)
def no_watermarks() -> list[Patch]:
    return _resume_without(watermarks={})


@bug("dangling record accepted", "a record above the chain's end becomes its end (C2)")
def dangling_accepted() -> list[Patch]:
    judge = Chain.judge

    def bad(self: Chain, start: int, end: int, barrier: int | None = None) -> Fold:
        found = judge(self, start, end, barrier)
        return Fold.EXTENDS if found is Fold.DANGLES else found

    return [replaced(Chain.judge, bad)]


@bug(
    "barrier counts at the chain's end alone",
    "one that stands below, or below where a model begins, is a repeat to everyone (E3b)",
    first=9,
    step=48,
)
def barrier_at_end_alone() -> list[Patch]:
    judge = Chain.judge

    def bad(self: Chain, start: int, end: int, barrier: int | None = None) -> Fold:
        found = judge(self, start, end, barrier)
        return Fold.REPEAT if found is Fold.BARRIER and start < (self.end or 0) else found

    return [replaced(Chain.judge, bad)]


@bug(
    "chain goes on after a failed send",
    "the next batch is sent though the one before is in doubt (C5)",
)
def goes_on_after_failure() -> list[Patch]:
    def bad(self: Labelling, now_ms: int) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = self._log.writer()
        for line in self.tasks.values():
            line.outbox._before = line.outbox._sent = None
            if line.outbox._queue:
                line.outbox._queue.popleft()

    return [replaced(Labelling._forget, bad)]


@bug("side records after the range", "a range is written without waiting for what it counts (C6)")
def side_records_late() -> list[Patch]:
    put = Outbox.put

    def bad(self: Any, outgoing: Any) -> None:
        put(self, replace(outgoing, before=()))

    return [replaced(Outbox.put, bad)]


# --- time
# --------------------------------------------------------------------------------------------------


@bug(
    "heartbeat 'now' on a replay",
    "a labeler writes heartbeats of its own clock into history (T2)",
    first=1,
    step=2,
)
def heartbeat_now() -> list[Patch]:
    made = Head.__init__

    def bad(self: Head, stream: Any, *rest: Any) -> None:
        made(self, stream, *rest)
        self._heartbeats = Heartbeats(replace(stream, replayed=False))

    return [replaced(Head.__init__, bad)]


@bug(
    "silent partition without heartbeat",
    "only partitions where somebody is about get heartbeats (T2)",
    step=2,
)
def silent_partition() -> list[Patch]:
    due = Heartbeats.due

    def bad(self: Heartbeats, partitions: Any, now_ms: int) -> Any:
        return [at for at in due(self, partitions, now_ms) if at.topic == "impressions"]

    return [replaced(Heartbeats.due, bad)]


@bug("last heartbeat too early", "the replay ends when its events do (T2)", first=1, step=2)
def last_heartbeat_early() -> list[Patch]:
    replay = Site._replay

    def bad(self: Site) -> None:
        replay(self)
        self.last_ms = self.steps[-1][0] + 1

    return [replaced(Site._replay, bad)]


@bug(
    "jump believed as it stands",
    "a timestamp far ahead moves time before heartbeats confirm it (T3)",
)
def jump_at_once() -> list[Patch]:
    return [_clock_with(jump_max_ms=10**9)]


@bug(
    "first timestamp believed as it stands",
    "a partition begins at a time that its heartbeats contradict (T3)",
)
def first_at_once() -> list[Patch]:
    return [_clock_with(skew_ms=10**9)]


def _clock_with(**wrong: int) -> Patch:
    made = ArrivalClock.__init__

    def bad(
        self: ArrivalClock,
        jump_max_ms: int,
        skew_ms: int,
        maximum_ms: int = 0,
        *,
        confirm_ms: int = 0,
        overrides: Collection[ClockOverride] = (),
    ) -> None:
        right = {
            "jump_max_ms": jump_max_ms,
            "skew_ms": skew_ms,
            "maximum_ms": maximum_ms,
            "confirm_ms": confirm_ms,
        }
        made(self, **{**right, **wrong}, overrides=overrides)

    return replaced(ArrivalClock.__init__, bad)


# --- fraud
# --------------------------------------------------------------------------------------------------


@bug(
    "verdict counted by reading time instead of position", "whatever was read by then applies (L3)"
)
def verdict_by_reading_time() -> list[Patch]:
    heard = VerdictIndex._on_verdict

    def bad(self: VerdictIndex, said: Any, offset: int) -> None:
        before = len(self._held)
        heard(self, said, offset)
        if len(self._held) > before:
            self._held.entries[-1] = replace(self._held.entries[-1], low_ms=0)

    return [replaced(VerdictIndex._on_verdict, bad)]


@bug("watermark sent before its verdicts", "the watermark goes out first (F1)")
def watermark_first() -> list[Patch]:
    def bad(self: FraudNode, step: Any) -> None:
        self.send(
            list(step.watermarks), lambda: self.send(list(step.verdicts), lambda: self.said(step))
        )

    return [replaced(FraudNode.say, bad)]


@bug(
    "verdict lost between table and send",
    "the fold position is written before the verdicts are (F2)",
    first=3,
    step=16,
)
def verdict_lost() -> list[Patch]:
    say, said = FraudNode.say, FraudNode.said

    def bad(self: FraudNode, step: Any) -> None:
        said(self, step)
        self.busy = True
        say(self, step)

    def nothing(self: FraudNode, step: Any) -> None:
        self.busy = False

    return [replaced(FraudNode.say, bad), replaced(FraudNode.said, nothing)]


@bug(
    "table counts a repeat",
    "what comes again is counted, whatever the pages say was counted already (F2)",
)
def counts_a_repeat() -> list[Patch]:
    def bad(self: FraudFilter, signal: Any) -> bool:
        self._counted[signal.input] = max(self._counted[signal.input], signal.end)
        return True

    return [replaced(FraudFilter._is_new, bad)]


@bug(
    "half a group of pages counts",
    "pages that a crash cut off from the last of their group are added up (F2)",
    first=2,
    step=4,
)
def half_a_group() -> list[Patch]:
    def bad(pages: Any, first: int) -> Any:
        while first in pages:
            yield [{**pages[first], "ends": pages[first]["ends"] or {}}]
            first += 1

    return [
        replaced(activity_pages.groups_from, bad, of=activity_pages),
        patch.object(activity_pages, "PAGE_BYTES_MAX", 300),
    ]


@bug(
    "counting reader bound by the head of the line",
    "clicks are counted only as far as labels have read them (L5)",
)
def counting_bound() -> list[Patch]:
    count = LabelerNode.count

    def bad(self: LabelerNode) -> None:
        reader = self.head._reader
        held = {}
        if reader is not None:
            for at in [at for at in reader._positions if at.topic == self.config.clicks]:
                line = self.labelling.tasks.get(at.partition)
                if line is None or not line.core.wants_clicks():
                    held[at] = reader._positions.pop(at)
        count(self)
        if reader is self.head._reader and reader is not None:
            reader._positions.update(
                {at: offset for at, offset in held.items() if at in self.head.counts}
            )

    return [replaced(LabelerNode.count, bad)]


# --- shards and clocks
# ------------------------------------------------------------------------------------------


@bug(
    "push applied twice after a lost acknowledgement",
    "a push that is sent again is applied again (S1)",
)
def push_twice() -> list[Patch]:
    judge = shard_module.judge

    def bad(end: int, barrier: int, request: Any) -> Outcome:
        found = judge(end, barrier, request)
        again = found is Outcome.DUPLICATE and request.end == end and request.start < end
        return Outcome.APPLIED if again else found

    return [replaced(shard_module.judge, bad, of=shard_module)]


@bug("clock not raised on unpark", "a learner that comes back goes on at its own old clock (K3)")
def clock_not_raised() -> list[Patch]:
    admit = Clocks._admit

    def bad(self: Clocks, model: Any, member: Any, *rest: Any) -> Any:
        member.parked = False
        return admit(self, model, member, *rest)

    return [replaced(Clocks._admit, bad)]


@bug(
    "expel before fence",
    "an expelled learner leaves the minimum before every shard has fenced it (K3)",
)
def expel_before_fence() -> list[Patch]:
    def bad(self: ModelClocks) -> int:
        active = (
            m.acknowledged for m in self.members.values() if not m.parked and m.fenced_at is None
        )
        return min(active, default=self.highest)

    return [replaced(ModelClocks.minimum, bad)]


@bug("two own batches in flight at s = 0", "a learner does not count itself among the active (K2)")
def two_own_batches() -> list[Patch]:
    def bad(self: ModelClocks, member: Any, clock: int, now_ms: int) -> bool:
        others = [m.acknowledged for m in self.members.values() if m is not member and not m.parked]
        s = self.in_force(now_ms).staleness
        return s < 0 or min(others, default=clock) >= clock - s

    def may_ask(self: StartScheduler, outstanding: int, now_ms: int) -> bool:
        return self.asked is None and now_ms >= self.at_ms and outstanding < 2

    return [replaced(ModelClocks.admits, bad), replaced(StartScheduler.may_ask, may_ask)]


@bug("concurrency not looked at", "batches under way at once are not counted (K6)", first=4, step=5)
def concurrency_not_looked_at() -> list[Patch]:
    return [replaced(ModelClocks.running, lambda self: 0)]


@bug(
    "operator's bound only in memory",
    "a clock holder that restarts takes the configured one (K6)",
    first=1,
    step=5,
)
def bound_only_in_memory() -> list[Patch]:
    return [replaced(Clocks.load_settings, lambda self, settings: None)]


@bug(
    "incarnations remembered per learner",
    "pushes name the newest incarnation seen, not that of the position (S2)",
)
def incarnations_per_learner() -> list[Patch]:
    def saw(self: Pacer, shard: int, incarnation: int) -> None:
        self.shard_view.saw(shard, incarnation)
        for position in self.positions.values():
            if position is not None:
                position.incarnations[shard] = max(incarnation, position.incarnations[shard])
        for flight in self.flights.values():
            flight.incarnations[shard] = max(incarnation, flight.incarnations[shard])

    push_told = Pacer._told_push

    def told(self: Pacer, call: Any, reply: PushReply) -> None:
        wrong = reply.outcome in (Outcome.WRONG_INCARNATION, Outcome.GAP)
        if wrong and call.clock in self.flights:
            self._saw(call.shard, reply.incarnation)
            self._push_again(call._replace(incarnation=reply.incarnation))
        else:
            push_told(self, call, reply)

    return [replaced(Pacer._saw, saw), replaced(Pacer._told_push, told)]


@bug("batch of a rewound learner never ended", "an abandoned batch is left to the clock (K1)")
def never_ended() -> list[Patch]:
    end = Pacer._end

    def bad(self: Pacer, clock: int, abandoned: bool) -> None:
        if not abandoned:
            end(self, clock, abandoned)

    return [replaced(Pacer._end, bad)]


@bug(
    "clock holder restarted into an old era",
    "the era does not grow with the clock holder's restart (K5)",
)
def old_era() -> list[Patch]:
    made = Clocks.__init__

    def bad(self: Clocks, era: int, *rest: Any, **named: Any) -> None:
        made(self, 1, *rest, **named)

    return [replaced(Clocks.__init__, bad)]


@bug("fold from the first retained record", "a reader's chain begins where its log does (C2)")
def fold_from_first() -> list[Patch]:
    sought = Position.sought

    def bad(*told: Any) -> Position:
        position = sought(*told)
        for chain in position.chains.values():
            chain.end = None
        return position

    return [replaced(Position.sought, staticmethod(bad))]
