"""The clocks against the definition of stale synchronous parallel (K1-K5, I4), and the stop lease (X1)."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from paramserver.bounds import Bounds, Rung
from paramserver.clocks import Clocks
from paramserver.messages import Epoch, StartOutcome, StartRequest
from paramserver.ports import Refused

ADMITTED, FENCED = StartOutcome.ADMITTED, StartOutcome.FENCED
WAIT, WAIT_CUT = StartOutcome.WAIT_STALENESS, StartOutcome.WAIT_CUT


class Driver:
    """A clock holder and its shards, which confirm every list at once unless told not to."""

    def __init__(self, shards: int = 2, staleness: int = 0, lease_ms: int = 1_000, stated_max_ms: int = 5_000):
        self.clocks = Clocks(1, shards, staleness, lease_ms, stated_max_ms)
        self.now_ms = 0
        self.tickets = 0

    def confirm_all(self) -> None:
        allow = self.clocks.allow_list()
        for shard in range(self.clocks.shards):
            self.clocks.confirm(allow.era, allow.sequence, shard, 1)

    def join(self, learner: str) -> Epoch:
        epoch = self.clocks.join("m", learner, self.now_ms).epoch
        self.confirm_all()
        return epoch

    def start(self, epoch: Epoch, start: int, end: int | None = None, chain: str = "label/0", barrier: int = 0):
        self.tickets += 1
        end = start + 1 if end is None else end
        request = StartRequest("m", epoch, chain, start, end, barrier, self.tickets)
        return self.clocks.start(request, self.now_ms)

    def ended(self, epoch: Epoch, clock: int) -> bool:
        return self.clocks.ended("m", epoch, clock, self.now_ms)


def test_two_learners_at_s_0_walk_in_step():
    d = Driver()
    a, b = d.join("a"), d.join("b")
    assert d.start(a, 0).clock == 0
    assert d.start(b, 100).clock == 0
    assert d.start(a, 1).outcome is WAIT  # its own batch has not ended
    assert d.ended(a, 0)
    assert d.start(a, 1).outcome is WAIT  # b's has not
    assert d.ended(b, 0)
    assert d.start(a, 1).clock == 1


def test_at_s_0_a_learner_alone_has_one_batch_in_flight():
    d = Driver()
    a = d.join("a")
    assert d.start(a, 0).clock == 0
    assert d.start(a, 1).outcome is WAIT
    d.ended(a, 0)
    assert d.start(a, 1).clock == 1


def test_an_old_confirmation_is_not_one_of_the_present_list():
    d = Driver()
    a = d.join("a")
    old = d.clocks.allow_list()
    b = d.clocks.join("m", "b", 0).epoch
    for shard in range(2):
        d.clocks.confirm(old.era, old.sequence, shard, 1)
    assert d.start(b, 0).outcome is WAIT
    assert d.start(a, 0).outcome is ADMITTED


def test_a_batch_may_run_ahead_by_s():
    d = Driver(staleness=2)
    a, b = d.join("a"), d.join("b")
    assert d.start(b, 100).clock == 0
    assert [d.start(a, n).outcome for n in range(4)] == [ADMITTED] * 3 + [WAIT]


def test_unbounded_starts_never_wait():
    d = Driver(staleness=-1)
    a, b = d.join("a"), d.join("b")
    d.start(b, 100)
    assert {d.start(a, n).outcome for n in range(50)} == {ADMITTED}


def test_a_repeated_start_is_the_same_batch():
    d = Driver()
    a = d.join("a")
    assert d.start(a, 0).clock == 0
    assert d.start(a, 0).clock == 0
    assert d.clocks.counts["admitted"] == 1
    d.ended(a, 0)
    assert d.start(a, 0).clock == 1  # after a rewind the same range is a new batch


def test_a_start_that_arrives_late_admits_nothing():
    d = Driver()
    a = d.join("a")
    first = StartRequest("m", a, "label/0", 0, 1, 0, ticket=1)
    d.tickets = 1
    assert d.start(a, 0).clock == 0
    d.ended(a, 0)
    assert d.clocks.start(first, 0).outcome is WAIT
    assert not d.clocks.models["m"].members[a].outstanding


def test_ended_is_idempotent_and_knows_only_its_clock():
    d = Driver(staleness=1)
    a = d.join("a")
    d.start(a, 0)
    d.start(a, 1)
    assert d.ended(a, 0)
    assert d.ended(a, 0)
    assert d.clocks.models["m"].members[a].acknowledged == 1


def test_a_joined_learner_starts_only_when_every_shard_knows_it():
    d = Driver()
    a = d.clocks.join("m", "a", 0).epoch
    allow = d.clocks.allow_list()
    d.clocks.confirm(allow.era, allow.sequence, 0, 1)
    assert d.start(a, 0).outcome is WAIT
    assert d.clocks.unconfirmed() == [1]
    d.clocks.confirm(allow.era, allow.sequence, 1, 1)
    assert d.start(a, 0).outcome is ADMITTED


def test_join_and_unpark_enter_at_the_minimum_and_parking_lowers_no_clock():
    d = Driver()
    a, b = d.join("a"), d.join("b")
    for n in range(5):
        assert d.start(a, n).clock == n
        d.ended(a, n)
    assert d.start(b, 100).clock == 5  # unparked at the highest clock: nobody was outstanding, a stands at 5
    assert d.start(a, 5).clock == 5
    d.ended(a, 5)
    assert d.clocks.park("m", a, 0)
    assert d.start(a, 6).outcome is WAIT  # parking is no way past the bound
    assert d.clocks.join("m", "c", 0).clock == 5


def test_everybody_parked_then_the_highest_clock_counts():
    d = Driver()
    a, b = d.join("a"), d.join("b")
    d.start(a, 0)
    d.ended(a, 0)
    assert d.clocks.park("m", a, 0)
    assert d.start(b, 100).clock == 1


def test_a_parked_learner_holds_no_one_back():
    d = Driver()
    a, b = d.join("a"), d.join("b")
    assert d.start(b, 100).clock == 0
    assert d.start(a, 0).clock == 0
    d.ended(a, 0)
    d.ended(b, 0)
    d.clocks.park("m", b, 0)
    for n in range(1, 9):
        clock = d.start(a, n).clock
        assert clock == n
        d.ended(a, clock)


def test_park_with_a_batch_outstanding_changes_nothing():
    d = Driver()
    a = d.join("a")
    d.start(a, 0)
    assert d.clocks.park("m", a, 0)
    assert not d.clocks.models["m"].members[a].parked


def test_expel_fences_everywhere_before_it_leaves():
    d = Driver()
    a, b = d.join("a"), d.join("b")
    d.start(a, 0)
    d.start(b, 100)
    d.ended(a, 0)
    d.now_ms = 900
    assert d.clocks.renew("m", a, "computing", d.now_ms) is not None
    d.now_ms = 1_500
    d.clocks.tick(d.now_ms)
    allow = d.clocks.allow_list()
    assert allow.epochs == (a,)
    assert not d.ended(b, 0)
    assert d.clocks.renew("m", b, "computing", d.now_ms) is None
    assert d.start(b, 101).outcome is FENCED
    assert d.start(a, 1).outcome is WAIT  # b may still be pushing to shard 1
    d.clocks.confirm(allow.era, allow.sequence, 0, 1)
    assert d.start(a, 1).outcome is WAIT
    d.clocks.confirm(allow.era, allow.sequence, 1, 1)
    assert d.start(a, 1).outcome is ADMITTED


def test_a_lease_is_prolonged_by_words_only_for_so_long():
    d = Driver(lease_ms=1_000, stated_max_ms=3_000)
    a = d.join("a")
    d.start(a, 0)
    for now in range(500, 10_000, 500):
        d.now_ms = now
        d.clocks.tick(now)
        if d.clocks.renew("m", a, "computing", now) is None:
            break
    assert 3_000 < d.now_ms <= 4_000


def test_waiting_for_the_clock_and_being_parked_keep_a_lease():
    d = Driver(lease_ms=1_000, stated_max_ms=2_000)
    a, b = d.join("a"), d.join("b")
    assert d.clocks.hold("m", "cut", 60_000, {}, 0)
    for now in range(500, 20_000, 500):
        d.now_ms = now
        d.clocks.tick(now)
        assert d.start(a, 0).outcome is WAIT_CUT
        assert d.clocks.renew("m", b, "parked", now) == {0: 1, 1: 1}


def test_joining_again_fences_the_older_epoch():
    d = Driver()
    a = d.join("a")
    d.start(a, 0)
    again = d.clocks.join("m", "a", 0).epoch
    assert again != a
    assert d.clocks.allow_list().epochs == (again,)
    assert d.start(a, 1).outcome is FENCED
    assert d.start(again, 0).outcome is WAIT
    d.confirm_all()
    assert d.start(again, 0).outcome is ADMITTED


def test_a_new_era_admits_nothing_before_every_shard_has_it():
    d = Driver()
    d.join("a")
    later = Clocks(2, 2, 0)
    b = later.join("m", "a", 0).epoch
    assert b.era == 2
    later.confirm(1, 99, 0, 1)  # an answer to the old era
    later.confirm(2, later.allow_list().sequence, 1, 1)
    assert later.start(StartRequest("m", b, "label/0", 0, 1), 0).outcome is WAIT
    assert later.unconfirmed() == [0]


def test_a_hold_stops_starts_but_not_what_catches_up():
    d = Driver(staleness=2)
    a, b = d.join("a"), d.join("b")
    d.start(a, 0, 10)
    assert d.clocks.hold("m", "cut", 1_000, {"label/0": 10}, 0)
    assert not d.clocks.hold("m", "other", 1_000, {}, 0)
    reply = d.start(b, 10, 20)
    assert reply.outcome is WAIT_CUT
    assert reply.highest == {"label/0": 10}
    assert d.start(b, 5, 10).outcome is ADMITTED
    assert d.start(b, 10, 10, barrier=1).outcome is ADMITTED
    assert d.start(b, 0, 5, chain="label/1").outcome is WAIT_CUT
    d.clocks.release("m", "other")
    assert d.start(b, 10, 20).outcome is WAIT_CUT
    d.clocks.release("m", "cut")
    assert d.start(b, 10, 20).outcome is ADMITTED


def test_a_hold_runs_out_by_itself():
    d = Driver()
    a = d.join("a")
    assert d.clocks.hold("m", "cut", 1_000, {}, 0)
    d.now_ms = 999
    assert d.start(a, 0).outcome is WAIT_CUT
    d.now_ms = 1_000
    assert d.start(a, 0).outcome is ADMITTED
    assert d.clocks.hold("m", "other", 1_000, {}, 1_000)


def test_a_learner_stopped_by_a_hold_reenters_at_the_minimum():
    d = Driver()
    a, b = d.join("a"), d.join("b")
    d.start(a, 0)
    d.start(b, 100, 101, "label/1")
    d.ended(a, 0)
    assert d.clocks.hold("m", "cut", 1_000, {"label/1": 105}, 0)
    d.ended(b, 0)
    for n in range(101, 105):
        clock = d.start(b, n, n + 1, "label/1").clock
        assert clock == n - 100
        d.ended(b, clock)
    d.clocks.release("m", "cut")
    assert d.start(a, 1).clock == 5


def test_a_learner_fenced_in_the_middle_of_a_batch_breaks_the_hold():
    d = Driver()
    a = d.join("a")
    d.start(a, 0)
    assert d.clocks.hold("m", "cut", 10_000, {}, 0)
    d.now_ms = 2_000
    d.clocks.tick(d.now_ms)
    assert not d.clocks.hold("m", "cut", 10_000, {}, d.now_ms)
    assert d.clocks.hold("m", "cut-2", 10_000, {}, d.now_ms)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="staleness -2"):
        Clocks(1, 2, -2)
    d = Driver()
    a = d.join("a")
    with pytest.raises(Refused, match="doing 'sleeping'"):
        d.clocks.renew("m", a, "sleeping", 0)
    with pytest.raises(Refused, match="staleness -2"):
        d.clocks.set_staleness("m", -2)
    with pytest.raises(ValueError, match="shard 7"):
        d.clocks.confirm(1, 1, 7, 1)


def test_a_paused_learner_keeps_its_lease_and_holds_nobody_back():
    d = Driver(staleness=0, lease_ms=1_000)
    a, b = d.join("a"), d.join("b")
    assert d.start(a, 0).clock == 0
    d.clocks.set_paused("m", True)
    assert d.ended(a, 0)
    for _ in range(30):
        d.now_ms += 500
        assert d.start(a, 1).outcome is StartOutcome.WAIT_PAUSED
        assert d.start(b, 100).outcome is StartOutcome.WAIT_PAUSED
        d.clocks.tick(d.now_ms)
    d.clocks.set_paused("m", False)
    assert d.start(a, 1).outcome is ADMITTED  # b, which never started, counts as parked
    assert d.start(b, 100).outcome is ADMITTED


def test_concurrency_bounds_the_batches_of_all_learners():
    d = Driver(staleness=-1)
    a, b, c = d.join("a"), d.join("b"), d.join("c")
    d.clocks.set_concurrency("m", 2)
    assert d.start(a, 0).clock == 0
    assert d.start(a, 1).clock == 1
    assert d.start(b, 100).outcome is WAIT
    assert d.ended(a, 1)
    assert d.start(b, 100).clock == 0
    assert d.start(c, 200).outcome is WAIT
    d.clocks.set_concurrency("m", 0)
    assert d.start(c, 200).outcome is ADMITTED
    with pytest.raises(Refused, match="concurrency -1"):
        d.clocks.set_concurrency("m", -1)


def test_at_s_0_and_concurrency_1_learners_take_turns():
    d = Driver(staleness=0)
    a, b = d.join("a"), d.join("b")
    d.clocks.set_concurrency("m", 1)
    turns = []
    for _ in range(6):
        for who, name in ((a, "a"), (b, "b")):
            if d.start(who, len(turns)).outcome is ADMITTED:
                turns.append(name)
                assert d.start(b if who is a else a, 500).outcome is WAIT
                clock = next(iter(d.clocks.models["m"].members[who].outstanding))
                assert d.ended(who, clock)
    assert turns == ["a", "b"] * 6


def test_the_batch_of_a_dead_learner_counts_until_every_shard_has_fenced_it():
    d = Driver(staleness=-1, lease_ms=1_000)
    a, b = d.join("a"), d.join("b")
    d.clocks.set_concurrency("m", 1)
    assert d.start(a, 0).outcome is ADMITTED
    d.now_ms += 900
    d.clocks.renew("m", b, "waiting", d.now_ms)
    d.now_ms += 900
    d.clocks.tick(d.now_ms)
    assert d.start(b, 1).outcome is WAIT
    d.confirm_all()
    assert d.start(b, 1).outcome is ADMITTED


def test_what_an_operator_ordered_outlives_the_clock_holder():
    d = Driver(staleness=2)
    d.clocks.set_paused("m", True)
    d.clocks.set_staleness("m", 0)
    d.clocks.set_concurrency("m", 3)
    d.clocks.set_compensation("m", "dc_asgd")
    again = Driver(staleness=2)
    again.clocks.obey(d.clocks.orders)
    assert again.clocks.ways() == {"m": "dc_asgd"}
    a = again.join("a")
    assert again.clocks.join("m", "b", 0).staleness == 0
    assert again.start(a, 0).outcome is StartOutcome.WAIT_PAUSED
    assert again.clocks.models["m"].concurrency == 3
    reconfigured = Driver(staleness=5)
    reconfigured.clocks.obey(d.clocks.orders)
    assert reconfigured.clocks.join("m", "a", 0).staleness == 5  # the config has been changed since


def govern(d: Driver, sequence: int, rung: Rung, lease_ms: int = 1_000, governor: str = "g") -> Bounds:
    return d.clocks.govern("m", governor, sequence, rung, lease_ms, d.now_ms)


def test_a_governor_tightens_until_its_lease_runs_out():
    d = Driver(staleness=-1)
    a, b = d.join("a"), d.join("b")
    said = govern(d, 1, Rung(0, 1))
    assert said == Bounds(Rung(-1), False, 2, "g", Rung(0, 1), 1_000, 1)
    assert said.in_force == Rung(0, 1)
    assert d.start(a, 0).outcome is ADMITTED
    assert d.start(b, 100).outcome is WAIT
    d.now_ms += 999
    assert d.start(b, 100).outcome is WAIT
    d.now_ms += 1
    assert d.clocks.bounds("m", d.now_ms) == Bounds(Rung(-1), False, 2, sequence=1)
    assert d.start(b, 100).outcome is ADMITTED
    assert d.clocks.orders == {}  # nothing of it is durable


@pytest.mark.parametrize(
    ("ordered", "governed", "in_force"),
    [
        (Rung(1, 0), Rung(4, 0), Rung(1, 0)),
        (Rung(-1, 3), Rung(0, 8), Rung(0, 3)),
        (Rung(0, 0), Rung(-1, 2), Rung(0, 2)),
        (Rung(-1, 0), Rung(-1, 0), Rung(-1, 0)),
    ],
)
def test_of_two_words_the_tighter_number_is_in_force(ordered: Rung, governed: Rung, in_force: Rung):
    d = Driver(staleness=ordered.staleness)
    d.clocks.set_concurrency("m", ordered.concurrency)
    assert govern(d, 1, governed).in_force == in_force


def test_an_overtaken_word_and_another_governor_change_nothing():
    d = Driver(staleness=4)
    govern(d, 2, Rung(0))
    assert govern(d, 1, Rung(1)).governed == Rung(0)
    assert govern(d, 2, Rung(1), 9_000).left_ms == 1_000
    assert govern(d, 9, Rung(1), governor="other").governor == "g"
    assert govern(d, 3, Rung(0), lease_ms=0).governor == ""  # given back
    assert govern(d, 1, Rung(1)).governor == ""
    assert govern(d, 1, Rung(1), governor="other").governor == "other"


def test_the_last_cut_is_told_by_name():
    d = Driver(staleness=0)
    assert d.clocks.bounds("m", 0).cut == ""
    d.clocks.hold("m", "c1", 100, {}, 0)
    d.clocks.release("m", "c1")
    assert govern(d, 1, Rung(0)).cut == d.clocks.bounds("m", 0).cut == "c1"


def test_a_governor_does_not_lift_a_pause():
    d = Driver(staleness=0)
    a = d.join("a")
    d.clocks.set_paused("m", True)
    assert govern(d, 1, Rung(-1)).paused
    assert d.start(a, 0).outcome is StartOutcome.WAIT_PAUSED


@pytest.mark.parametrize(
    "word", [(0, Rung(0), 1, "g"), (1, Rung(-2), 1, "g"), (1, Rung(0, -1), 1, "g"), (1, Rung(0), -1, "g"),
             (1, Rung(0), 600_001, "g"), (1, Rung(0), 1, "")],
)  # fmt: skip
def test_a_word_that_cannot_be_is_refused(word: tuple[int, Rung, int, str]):
    d = Driver(staleness=0)
    with pytest.raises(Refused, match="expected"):
        govern(d, *word)
    assert d.clocks.bounds("m", 0).governor == ""


class Ssp(RuleBasedStateMachine):
    """Learners, shards and a clock holder with every message free to be late, repeated or lost.

    I4: after the read of batch c, admitted under s, no shard applies for the first time an update stamped <= c - s - 1.
    """

    SHARDS = 2
    LEARNERS = 3
    who = st.integers(0, LEARNERS - 1)
    any_shard = st.integers(0, SHARDS - 1)

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.allowed: list[tuple[int, tuple[Epoch, ...]]] = [(0, ())] * self.SHARDS
        self.read_floor = -1  # the largest c - s - 1 of any read
        self.running: dict[tuple[Epoch, int], set[int]] = {}  # batch -> shards that have not applied it
        self.ended: set[tuple[Epoch, int]] = set()
        self.sent: list[StartRequest] = []
        self.minimum = 0
        self.words = 0

    @initialize(staleness=st.integers(0, 2))
    def begin(self, staleness: int) -> None:
        self.clocks = Clocks(1, self.SHARDS, staleness, lease_ms=100, stated_max_ms=300)
        self.epochs = [self.clocks.join("m", str(n), 0).epoch for n in range(self.LEARNERS)]
        for shard in range(self.SHARDS):
            self.tell(shard)

    @rule(n=who)
    def join_again(self, n: int) -> None:
        """A learner that crashed or was fenced: what it sent under its old epoch may still arrive."""
        self.epochs[n] = self.clocks.join("m", str(n), self.now_ms).epoch

    @rule(shard=any_shard)
    def tell(self, shard: int) -> None:
        allow = self.clocks.allow_list()
        self.allowed[shard] = (allow.sequence, allow.epochs)
        self.clocks.confirm(allow.era, allow.sequence, shard, 1)

    @rule(n=who, length=st.integers(1, 2))
    def start(self, n: int, length: int) -> None:
        at = len(self.sent)
        self._start(StartRequest("m", self.epochs[n], "c", at, at + length, 0, ticket=at + 1))

    @rule(n=who)
    def start_more(self, n: int) -> None:
        self.start(n, 1)

    @precondition(lambda self: self.sent)
    @rule(back=st.integers(1, 6))
    def start_arrives_again(self, back: int) -> None:
        request = self.sent[-min(back, len(self.sent))]
        before = self.clocks.counts["admitted"]
        self.clocks.start(request, self.now_ms)
        assert self.clocks.counts["admitted"] == before, "a message was admitted as a second batch"

    def _start(self, request: StartRequest) -> None:
        self.sent.append(request)
        reply = self.clocks.start(request, self.now_ms)
        if reply.outcome is not ADMITTED:
            return
        batch = (request.epoch, reply.clock)
        assert batch not in self.running
        assert batch not in self.ended
        self.running[batch] = set(range(self.SHARDS))
        # The read is at once: the earliest, and so the hardest for the bound.
        s = self.clocks.bounds("m", self.now_ms).in_force.staleness
        self.read_floor = max(self.read_floor, reply.clock - s - 1)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), shards=st.sampled_from([(0,), (1,), (0, 1)]), end=st.booleans())
    def push(self, data: st.DataObject, shards: tuple[int, ...], end: bool) -> None:
        batch = data.draw(st.sampled_from(sorted(self.running)))
        for shard in shards:
            if batch[0] in self.allowed[shard][1] and shard in self.running[batch]:
                assert batch[1] > self.read_floor, f"stamp {batch[1]} arrives after a read that was to see it"
                self.running[batch].discard(shard)
        if end and not self.running[batch]:
            self._end(batch)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        self._end(data.draw(st.sampled_from(sorted(self.running))))

    def _end(self, batch: tuple[Epoch, int]) -> None:
        del self.running[batch]
        self.ended.add(batch)
        self.clocks.ended("m", *batch, self.now_ms)

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def ended_arrives_again(self, data: st.DataObject) -> None:
        self.clocks.ended("m", *data.draw(st.sampled_from(sorted(self.ended))), self.now_ms)

    @rule(n=who, doing=st.sampled_from(["computing", "waiting", "parked"]))
    def renew(self, n: int, doing: str) -> None:
        self.clocks.renew("m", self.epochs[n], doing, self.now_ms)

    @rule(ms=st.integers(10, 60))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms
        self.clocks.tick(self.now_ms)

    @rule(top=st.integers(0, 60), release=st.booleans())
    def hold(self, top: int, release: bool) -> None:
        if release:
            self.clocks.release("m", "cut")
        else:
            self.clocks.hold("m", "cut", 100, {"c": top}, self.now_ms)

    @rule(s=st.integers(0, 3), lease_ms=st.integers(0, 100))
    def govern(self, s: int, lease_ms: int) -> None:
        self.words += 1
        self.clocks.govern("m", "g", self.words, Rung(s), lease_ms, self.now_ms)

    @invariant()
    def the_minimum_never_falls(self) -> None:
        if hasattr(self, "clocks"):
            minimum = self.clocks.models["m"].minimum()
            assert minimum >= self.minimum
            self.minimum = minimum

    @invariant()
    def parked_means_nothing_outstanding(self) -> None:
        for member in self.clocks.models["m"].members.values() if hasattr(self, "clocks") else ():
            assert not (member.parked and member.outstanding)
            assert all(clock < member.started for clock in member.outstanding)


TestSsp = Ssp.TestCase
TestSsp.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
