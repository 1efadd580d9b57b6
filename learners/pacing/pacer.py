"""The pace of one learner: what to read, start, pull, compute, push and end, and when. Events in,
instructions out.

A learner keeps nothing that outlives it. Where it stands is what the shards answer (S1, S2); which
records count is folded from the log (C2); when it may start is the clock's word (K1, K2). So a
crash needs no recovery here: the next one joins, asks, seeks.

What must hold, and where it is held:
- A batch is started only at the folded end of its chain (`Position.fold`), and its pieces reach
  each shard in that order: one push per shard under way (`_lanes`), never past an unacknowledged
  piece of the same partition.
- A start or push once sent is sent again until it is answered, even when its batch was abandoned
  meanwhile: only the answer tells that it cannot take effect later. So a batch is reported ended
  (K1) when nothing of it is under way.
- A position names the incarnations that answered when it was sought. Any newer one, wherever seen,
  rewinds it (S2).
- Fenced anywhere is stopped everywhere: everything is dropped, then joined anew (K3).
"""

from collections.abc import Sequence
from typing import Any, assert_never

from learners.config import LearnerConfig
from learners.pacing import events
from learners.pacing import instructions as do
from learners.pacing.batch_in_flight import BatchInFlight, ready_to_push
from learners.pacing.events import Event
from learners.pacing.instructions import Call, Instruction
from learners.pacing.pending_calls import PendingCalls, says_fenced
from learners.pacing.position import CannotGoOn, Position
from learners.pacing.shard_view import ShardView
from learners.pacing.start_scheduler import StartScheduler
from paramserver import (
    Epoch,
    JoinReply,
    Outcome,
    ProgressReply,
    PullReply,
    PushReply,
    SlotMap,
    StartOutcome,
    StartReply,
)
from stream import Fold

_COUNTS = (
    "rewinds",
    "fenced",
    "abandoned",
    "gaps",
    "splits",
    "dangling",
    "repeats",
    "unreachable",
    "partly",
)


class Pacer:
    """One learner of one model. Call `handle` with every event; perform what it returns, in
    order."""

    def __init__(self, model: str, shards: Sequence[int], config: LearnerConfig | None = None):
        """`config` has the limit of every queue, wait and retry."""
        self.model, self.config = model, config or LearnerConfig()
        self.epoch: Epoch | None = None
        self.positions: dict[
            int, Position | None
        ] = {}  # of the assigned partitions; None = not known where
        self.flights: dict[int, BatchInFlight] = {}  # by clock, rising
        self.parked = False
        self.stopped: str | None = None
        self.refusal = ""  # the last one, to be shown
        self.counts = dict.fromkeys(_COUNTS, 0)
        self._calls = PendingCalls()
        self._starts = StartScheduler(
            self.config.wait_ms, self.config.retry_ms, self.config.outstanding_max
        )
        self.shard_view = ShardView(shards)
        self._pushes: dict[int, do.Push] = {}  # shard -> the one push under way
        self._ending: dict[int, bool] = {}  # clocks whose end is not confirmed -> whether abandoned
        self._lease_ms = self._renew_at_ms = self._now_ms = 0
        self._idle = self._draining = False
        self._out: list[Instruction] = []

    def handle(self, event: Event, now_ms: int) -> list[Instruction]:
        """Take one event; returns what to do now, in this order. `now_ms` never falls."""
        self._now_ms, self._out = now_ms, []
        if self.stopped is None:
            self._take(event)
        if self.stopped is None:
            self._advance()
        return self._out

    def _take(self, event: Event) -> None:
        match event:
            case events.Answered():
                self._on_answered(event)
            case events.Unreachable():
                self._on_unreachable(event)
            case events.Refused():
                self._on_refused(event)
            case events.Assigned():
                self._on_assigned(event)
            case events.Revoked():
                self._on_revoked(event)
            case events.Records():
                self._on_records(event)
            case events.Idle():
                self._idle = True
            case events.Truncated():
                self._on_truncated(event)
            case events.Computed():
                self._on_computed(event)
            case events.Tick():
                pass  # `_advance` looks at the time
            case events.Drain():
                self._draining = True
            case _:
                assert_never(event)

    @property
    def next_wake_ms(self) -> int:
        """When a `Tick` is due at the latest."""
        due = [self._now_ms + 10 * self.config.retry_ms]
        if (again := self._calls.next_ms) is not None:
            due.append(again)
        if self.epoch is not None:
            due.append(self._renew_at_ms)
            if self._starts.asked is None and self._starts.at_ms > self._now_ms and self._queued:
                due.append(self._starts.at_ms)
        return min(due)

    @property
    def waiting(self) -> str:
        """Why nothing is being trained, in one word: staleness | cut | paused | idle | none
        (something is)."""
        return "none" if self.flights else self._starts.waiting if self._queued else "idle"

    @property
    def doing(self) -> str:
        """What a lease is renewed with (K3)."""
        if self.parked:
            return "parked"
        return "rewinding" if self._seeking else "computing" if self.flights else "waiting"

    @property
    def _queued(self) -> bool:
        return any(position and position.queue for position in self.positions.values())

    @property
    def _seeking(self) -> bool:
        return None in self.positions.values()

    def _on_assigned(self, event: events.Assigned) -> None:
        for partition in event.partitions:
            self.positions.setdefault(partition, None)

    def _on_revoked(self, event: events.Revoked) -> None:
        for partition in event.partitions:
            self._abandon(partition)
            self.positions.pop(partition, None)

    def _on_records(self, event: events.Records) -> None:
        position = self.positions.get(event.partition)
        if position is None or position.seek != event.seek:
            return  # read before a rewind
        for batch in event.batches:
            self._idle = False
            try:
                kind = position.fold(batch)
            except CannotGoOn as reason:
                self._stop(str(reason))
                return
            self.counts["repeats"] += kind is Fold.REPEAT
            self.counts["dangling"] += kind is Fold.DANGLES
        if not position.paused and len(position.queue) >= self.config.queue_batches_max:
            position.paused = True
            self._out.append(do.Pause(position.partition))

    def _on_truncated(self, event: events.Truncated) -> None:
        position = self.positions.get(event.partition)
        if position is not None and position.seek == event.seek:
            self._stop(str(position.lost(event.first)))

    def _on_computed(self, event: events.Computed) -> None:
        flight = self.flights.get(event.clock)
        piece = (event.start, event.end)
        if flight is None or flight.abandoned or piece not in flight.results:
            return
        flight.results[piece] = event.result
        if flight.scored and flight.batch.rows and piece == flight.whole:
            self._out.append(do.Evaluate(flight.clock, flight.batch, event.result))

    def _on_answered(self, event: events.Answered) -> None:
        call = self._calls.answered(event.call)
        if call is None:
            return  # of an epoch that is over
        if says_fenced(event.reply):
            self._fenced()
        else:
            self._told(call, event.reply)

    def _told(self, call: Call, reply: Any) -> None:
        """The answer to a call, which is of the kind that `events.Answered` says."""
        match call:
            case do.Join():
                self._told_join(reply)
            case do.AskProgress():
                self._told_progress(call, reply)
            case do.Start():
                self._told_start(call, reply)
            case do.Pull():
                self._told_pull(call, reply)
            case do.Push():
                self._told_push(call, reply)
            case do.Ended():
                self._ending.pop(call.clock, None)
            case do.Park():
                self.parked = True
            case do.Renew():
                for shard, incarnation in reply.items():
                    self._saw(shard, incarnation)
            case _:
                assert_never(call)

    def _on_unreachable(self, event: events.Unreachable) -> None:
        if (call := self._calls.answered(event.call)) is not None:
            self.counts["unreachable"] += 1
            self._retry(call)

    def _on_refused(self, event: events.Refused) -> None:
        self.refusal = event.reason
        if (call := self._calls.answered(event.call)) is not None:
            self._retry(call, times=10)

    def _retry(self, call: Call, times: int = 1) -> None:
        self._calls.retry(call, self._now_ms + times * self.config.retry_ms)

    def _told_join(self, reply: JoinReply) -> None:
        self.epoch, self._lease_ms = reply.epoch, reply.lease_ms
        self._starts.joined(reply.staleness, self._now_ms)
        self._renew_at_ms = self._now_ms + reply.lease_ms // 3
        self.parked = True  # until the first start

    def _told_progress(self, call: do.AskProgress, reply: ProgressReply) -> None:
        self._saw(call.shard, reply.incarnation)
        self._learn_map(
            reply.slot_map or SlotMap.even(len(self.shard_view.shards), reply.map_epoch)
        )
        if not self.shard_view.take(call.shard, reply):
            self._retry(call)

    def _told_start(self, call: do.Start, reply: StartReply) -> None:
        self._starts.told(reply, len(self.flights), self.positions.values(), self._now_ms)
        if reply.outcome is StartOutcome.ADMITTED:
            self._admitted(call, reply.clock)

    def _admitted(self, call: do.Start, clock: int) -> None:
        position = self.positions.get(call.batch.partition)
        if position is None or position.seek != call.seek or self._draining:
            self._end(clock, abandoned=True)  # rewound, lost or draining since it was asked for
            return
        position.take(call.batch)
        flight = self.flights[clock] = BatchInFlight.of(call.batch, clock, call.epoch, position)
        if position.paused and len(position.queue) <= self.config.queue_batches_max // 2:
            position.paused = False
            self._out.append(do.Resume(position.partition))
        if not flight.pulled:
            for shard in flight.incarnations:
                self._send(do.Pull(0, shard, clock, flight.epoch, flight.slot_map, flight.batch))

    def _told_pull(self, call: do.Pull, reply: PullReply) -> None:
        self._saw(call.shard, reply.incarnation)
        flight = self.flights.get(call.clock)
        if flight is None or flight.abandoned:
            return
        elif reply.outcome is Outcome.NO_ERA:
            self._retry(call)
        elif (
            reply.outcome is not Outcome.APPLIED
            or reply.incarnation != flight.incarnations[call.shard]
        ):
            self._rewind(flight.batch.partition)
        else:
            flight.pulls[call.shard] = reply
            self.shard_view.versions[call.shard] = reply.version

    def _told_push(self, call: do.Push, reply: PushReply) -> None:
        del self._pushes[call.shard]
        self.shard_view.versions[call.shard] = reply.version
        self._saw(call.shard, reply.incarnation)
        if call.incarnation < self.shard_view.seen[call.shard]:
            return  # rewound, and refused whenever a repeat of it arrives
        outcome = reply.outcome
        if outcome is Outcome.NO_ERA:
            self._push_again(call)
        elif (flight := self.flights[call.clock]).abandoned:
            if outcome is Outcome.GAP:
                # a repeat may still be under way and fit later: only a new epoch stops it
                self._fenced()
        elif flight.acknowledge(call, reply):
            self.counts["splits"] += outcome is Outcome.OVERLAP
            self.counts["partly"] += outcome is Outcome.PARTLY_APPLIED
        elif outcome is Outcome.GAP and flight.gaps < self.config.gap_retries_max:
            flight.gaps += 1
            self.counts["gaps"] += 1
            self._push_again(call)
        else:
            self._rewind(call.partition)

    def _push_again(self, call: do.Push) -> None:
        self._pushes[call.shard] = call
        self._retry(call)

    # --- rewind, abandon, fence
    # ---------------------------------------------------------------------------------

    def _saw(self, shard: int, incarnation: int) -> None:
        """A newer incarnation, wherever seen, rewinds every position that names an older one
        (S2)."""
        if not self.shard_view.saw(shard, incarnation):
            return
        for partition, position in self.positions.items():
            if position is not None and position.incarnations.get(shard, incarnation) < incarnation:
                self._rewind(partition)
        push = self._pushes.get(shard)
        if (
            push is not None and push.incarnation < incarnation
        ):  # the new one refuses it, whenever it arrives
            del self._pushes[shard]
            self._calls.drop(push)

    def _learn_map(self, slot_map: SlotMap) -> None:
        """A newer map rewinds every position (S6). What is under way to a shard that it has no
        more is over."""
        if not self.shard_view.learned(slot_map):
            return
        for partition in list(self.positions):
            self._rewind(partition)
        for shard in [shard for shard in self._pushes if shard not in self.shard_view.shards]:
            self._calls.drop(self._pushes.pop(shard))

    def _rewind(self, partition: int) -> None:
        if self.positions.get(partition) is None:
            return
        self.counts["rewinds"] += 1
        self._abandon(partition)
        self.positions[partition] = None
        self._out.append(do.Pause(partition))

    def _abandon(self, partition: int) -> None:
        for flight in self.flights.values():
            if flight.batch.partition == partition and not flight.abandoned:
                flight.abandoned = True
                self.counts["abandoned"] += 1

    def _fenced(self) -> None:
        """Stop everything; joining anew fences on every shard what is still under way (K3, K5)."""
        self.counts["fenced"] += 1
        self.epoch, self.parked = None, False
        self._calls.clear()
        self._starts.asked = None
        for state in (self._pushes, self.shard_view.told, self._ending, self.flights):
            state.clear()
        for partition, position in self.positions.items():
            if position is not None:
                self.positions[partition] = None
                self._out.append(do.Pause(partition))

    def _stop(self, reason: str) -> None:
        if self.stopped is None:
            self.stopped = reason
            self._out.append(do.Stop(reason))

    # --- what to do next
    # ----------------------------------------------------------------------------------------

    def _advance(self) -> None:
        for call in self._calls.due(self._now_ms):
            if self._meant(call):
                self._send(call)
        if self.epoch is None:
            if self._draining:
                self._stop("")
            elif self.positions and not self._calls.any(do.Join):
                self._send(do.Join(0))
            return
        self._find_positions()
        for flight in self.flights.values():
            for start, end in flight.take_missing():
                self._out.append(
                    do.Compute(
                        flight.clock, flight.batch, start, end, flight.pulls, flight.slot_map
                    )
                )
        for shard in self.shard_view.shards:
            if shard not in self._pushes and (ready := ready_to_push(self.flights.values(), shard)):
                self._send(ready.push(shard, self.shard_view.versions.get(shard, 0)))
        self._end_flights()
        self._start()
        self._park()
        if self._now_ms >= self._renew_at_ms:
            self._renew_at_ms = self._now_ms + self._lease_ms // 3
            self._send(do.Renew(0, self.epoch, self.doing))

    def _meant(self, call: Call) -> bool:
        """Whether a call that was not answered is still wanted."""
        if isinstance(call, do.Pull):
            flight = self.flights.get(call.clock)
            return flight is not None and not flight.abandoned
        if isinstance(call, do.AskProgress):
            return self._seeking and call.shard in self.shard_view.missing
        return not isinstance(call, do.Renew | do.Park)  # both are decided anew

    def _send(self, call: Call) -> None:
        call = self._calls.make(call)
        if isinstance(call, do.Start):
            self._starts.asked = call
        elif isinstance(call, do.Push):
            self._pushes[call.shard] = call
        self._out.append(call)

    def _find_positions(self) -> None:
        """Ask every shard where it stands; when all have answered, seek to the smallest (S2)."""
        if not self._seeking:
            return
        asked = {call.shard for call in self._calls.of(do.AskProgress)}
        for shard in self.shard_view.missing:
            if shard not in asked:
                self._send(do.AskProgress(0, shard))
        if self.shard_view.missing:
            return
        for partition, position in self.positions.items():
            if position is None:
                found = Position.sought(
                    partition, self._calls.number(), self.shard_view.told, self.shard_view.slot_map
                )
                self.positions[partition] = found
                self._out += [
                    do.Seek(found.seek, partition, found.next_record),
                    do.Resume(partition),
                ]
                self._idle = False
        self.shard_view.told = {}

    def _end_flights(self) -> None:
        under_way = {push.clock for push in self._pushes.values()}
        for flight in list(self.flights.values()):
            if flight.acknowledged or (flight.abandoned and flight.clock not in under_way):
                del self.flights[flight.clock]
                self._end(flight.clock, flight.abandoned)

    def _end(self, clock: int, abandoned: bool) -> None:
        assert self.epoch is not None
        self._ending[clock] = abandoned
        self._send(do.Ended(0, self.epoch, clock, abandoned))

    def _start(self) -> None:
        if self._draining or not self._starts.may_ask(len(self.flights), self._now_ms):
            return
        # An abandoned range is started again only once its end is confirmed, or it would get the
        # stamp that ends (K1).
        if any(self._ending.values()) or self._calls.any(do.Park):
            return
        found = self._starts.candidate(self.positions.values())
        if found is not None:
            assert self.epoch is not None
            self.parked = False
            batch, position = found
            self._send(do.Start(0, self.epoch, batch, position.seek))

    def _park(self) -> None:
        """Nothing under way and nothing to read: hold no one back (K3)."""
        if (
            self.flights
            or self._ending
            or self._starts.asked is not None
            or self._calls.any(do.Park)
        ):
            return
        if self.parked:
            if self._draining:
                self._stop("")
        elif self._draining or (
            not self._queued and (self._idle or self._seeking or not self.positions)
        ):
            assert self.epoch is not None
            self._send(do.Park(0, self.epoch))
