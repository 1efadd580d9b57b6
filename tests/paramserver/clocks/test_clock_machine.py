"""The clocks under any order of messages, against the definition of stale synchronous parallel
(I4)."""

from clock_driver import ADMITTED
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from paramserver.bounds import PaceLevel
from paramserver.clocks.allow_list_sender import AllowListSender
from paramserver.clocks.clocks import Clocks
from paramserver.messages import Epoch, StartRequest
from paramserver.ports import AllowReply
from paramserver.shard.allow_list import AllowList


class Ssp(RuleBasedStateMachine):
    """Learners, shards and a clock holder with every message free to be late, repeated or lost.

    I4: after the read of batch c, admitted under s, no shard applies for the first time an update
    stamped <= c - s - 1.
    """

    SHARDS = 2
    LEARNERS = 3
    who = st.integers(0, LEARNERS - 1)
    any_shard = st.integers(0, SHARDS - 1)

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.allowed = [AllowList() for _ in range(self.SHARDS)]
        self.read_floor = -1  # the largest c - s - 1 of any read
        self.running: dict[
            tuple[Epoch, int], set[int]
        ] = {}  # batch -> shards that have not applied it
        self.ended: set[tuple[Epoch, int]] = set()
        self.sent: list[StartRequest] = []
        self.minimum = 0
        self.words = 0

    @initialize(staleness=st.integers(0, 2))
    def begin(self, staleness: int) -> None:
        self.clocks = Clocks(1, self.SHARDS, staleness, lease_ms=100, stated_max_ms=300)
        self.sender = AllowListSender(self.clocks)
        self.epochs = [self.clocks.join("m", str(n), 0).epoch for n in range(self.LEARNERS)]
        for shard in range(self.SHARDS):
            self.tell(shard)

    @rule(n=who)
    def join_again(self, n: int) -> None:
        """A learner that crashed or was fenced: what it sent under its old epoch may still
        arrive."""
        self.epochs[n] = self.clocks.join("m", str(n), self.now_ms).epoch

    @rule(shard=any_shard)
    def tell(self, shard: int) -> None:
        """The clock holder's own sender, to a shard that judges lists as a real one does."""
        sent = self.sender.message(shard)
        assert sent is not None
        self.allowed[shard].adopt(sent, 1, 1)
        if self.sender.answered(shard, sent, AllowReply(1, 1)):
            self.tell(shard)

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
            if batch[0] in self.allowed[shard].epochs and shard in self.running[batch]:
                assert batch[1] > self.read_floor, (
                    f"stamp {batch[1]} arrives after a read that was to see it"
                )
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
        self.clocks.govern("m", "g", self.words, PaceLevel(s), lease_ms, self.now_ms)

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
TestSsp.settings = settings(
    max_examples=settings.default.max_examples * 2, stateful_step_count=50, deadline=None
)
