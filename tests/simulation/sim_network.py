"""A deterministic network, and the processes that stand in it.

A call is two messages. Each may be late, lost or repeated, and the caller cannot tell which: it
hears the answer once, or after its deadline that there was none, though the work may have been
done, or may yet be. Processes crash (what is in memory is gone), restart, and sleep (everything
stands still, then goes on as if nothing had been).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sim_clock import Action, Trace, VirtualTime

from paramserver import PortRefused


@dataclass
class LinkFaults:
    """What a process's links do to messages until a moment: set by a fault, gone by itself."""

    until_ms: int = 0
    delay_ms: int = 0
    jitter_ms: int = 0  # large jitter is what reorders
    lose: float = 0.0  # probability that a message is lost
    lose_answer: float = 0.0  # probability that the work is done and the answer lost
    repeat: float = 0.0  # probability that a request arrives twice
    cut_from: frozenset[str] = frozenset()  # peers that cannot be reached
    hits: int = 0  # messages that this weather touched
    name: str = ""


class Process:
    """One process. `boot` builds what is in memory from `disk` and the logs; `disk` alone
    survives a crash."""

    role = ""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name = world, name
        self.alive, self.life = False, 0
        self.asleep_until_ms = 0
        self.clock_offset_ms = 0
        self.leapt_ms = 0
        self.full_until_ms = 0  # its disk, until then
        self.link_faults: list[LinkFaults] = []
        self.disk: dict[str, Any] = {}
        self._deferred: list[Action] = []

    # --- what a role implements ---

    def boot(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """An orderly end: drain. The default has nothing to drain."""

    def died(self) -> None:
        """A crash: what must be let go outside of memory. The default holds nothing."""

    # --- life and death ---

    def start(self) -> None:
        if not self.alive:
            self.alive, self.life = True, self.life + 1
            self.world.trace(self.name, f"starts (life {self.life})")
            self.boot()

    def crash(self) -> None:
        if self.alive:
            self.alive, self.life = False, self.life + 1
            self.asleep_until_ms, self._deferred = 0, []
            self.world.trace(self.name, "dies")
            self.died()

    def reach(self, point: str) -> None:
        """This process is at a point where a fault would hurt: one may have been laid there."""
        self.world.reached(self, point)

    def sleep(self, for_ms: int) -> None:
        """Stand still: timers and messages wait, and then all come at once, in their order."""
        until = self.world.time.now_ms + for_ms
        self.asleep_until_ms = max(self.asleep_until_ms, until)
        self.world.time.at(until, self._wake)

    def _wake(self) -> None:
        if self.asleep_until_ms > self.world.time.now_ms:
            return
        deferred, self._deferred = self._deferred, []
        for action in deferred:
            action()

    @property
    def asleep(self) -> bool:
        return self.asleep_until_ms > self.world.time.now_ms

    def clock_ms(self) -> int:
        """This host's clock, which a fault may have moved."""
        return self.world.time.now_ms + self.clock_offset_ms

    def steady_ms(self) -> int:
        """This host's monotonic clock: it never goes back, and a fault may have made it leap
        forward."""
        return self.world.time.now_ms + self.leapt_ms

    @staticmethod
    def guarded(work: Callable[[], Any]) -> Any:
        """The work's result; a refusal is one too."""
        try:
            return work()
        except PortRefused as refusal:
            return refusal

    def after(self, delay_ms: float, action: Action) -> None:
        """A timer of this life: it does not fire after a crash, and fires late after a sleep."""
        self.world.time.after(delay_ms, partial(self._fire, self.life, action))

    def _fire(self, life: int, action: Action) -> None:
        if self.life != life:
            return
        if self.asleep_until_ms > self.world.time.now_ms:
            self._deferred.append(partial(self._fire, life, action))
        else:
            action()

    def fault_bursts(self) -> list[LinkFaults]:
        if not self.link_faults:
            return self.link_faults
        self.link_faults = [w for w in self.link_faults if w.until_ms > self.world.time.now_ms]
        return self.link_faults


@dataclass
class World:
    """What every process of one simulated run shares."""

    seed: int
    loud: bool = False
    time: VirtualTime = field(default_factory=VirtualTime)
    processes: dict[str, Process] = field(default_factory=dict)
    trap: Callable[[Process, str], None] | None = None

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.trace = Trace(self.time, self.loud)
        self.network = Network(self)
        self.foul_ms = self.time.now_ms  # until when a fault is known to be at work

    def add(self, process: Process) -> Process:
        self.processes[process.name] = process
        return process

    def fair_for_ms(self) -> int:
        """For how long no fault has been at work anywhere."""
        now = self.time.now_ms
        for p in self.processes.values():
            if not p.alive or p.asleep or p.fault_bursts() or p.clock_offset_ms:
                self.foul_ms = max(self.foul_ms, now)
        return now - self.foul_ms

    def reached(self, process: Process, point: str) -> None:
        if self.trap is not None:
            self.trap(process, point)


Answer = Callable[[Any], None]


class Network:
    """Calls between processes. Everything random comes from the world's one generator."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calls = 0

    def reachable(self, a: Process, b: Process) -> bool:
        """Whether a's messages can reach b just now (a lossy link may still lose them)."""
        if not a.link_faults and not b.link_faults:
            return True
        for at, peer in ((a, b), (b, a)):
            for w in at.fault_bursts():
                if peer.name in w.cut_from:
                    w.hits += 1
                    return False
        return True

    def latency_ms(self, a: Process, b: Process) -> float:
        rng = self.world.rng
        delay = 1 + 7 * rng.random()
        if not a.link_faults and not b.link_faults:
            return delay
        for at in (a, b):
            for w in at.fault_bursts():
                if w.delay_ms or w.jitter_ms:
                    delay += w.delay_ms + rng.random() * w.jitter_ms
                    w.hits += 1
        return delay

    def chance(self, a: Process, b: Process, what: str) -> bool:
        if not a.link_faults and not b.link_faults:
            return False
        for at in (a, b):
            for w in at.fault_bursts():
                p = getattr(w, what)
                if p and self.world.rng.random() < p:
                    w.hits += 1
                    return True
        return False

    def call(
        self,
        caller: Process,
        callee: Process,
        work: Callable[[], Any],
        answered: Answer,
        unanswered: Action,
        deadline_ms: int = 1000,
    ) -> None:
        """Have `callee` do `work`; exactly one of `answered(result)` and `unanswered()` follows, in
        this life.

        An exception of the work's own kind (a refusal) is a result. After a crash of the caller
        neither follows.
        """
        self.calls += 1
        made = Call(self, caller, callee, work, answered, unanswered)
        self.carry(caller, callee, made.perform)
        if self.chance(caller, callee, "repeat"):
            self.carry(caller, callee, made.perform)
        caller.after(deadline_ms, made.expire)

    def carry(self, a: Process, b: Process, arrive: Action) -> None:
        """One message from a to b, to this life of b (a message does not outlive the connection
        it was sent on)."""
        if not b.alive or not self.reachable(a, b) or self.chance(a, b, "lose"):
            return
        b.after(self.latency_ms(a, b), arrive)


class Call:
    """One call under way: performed as often as its request arrives, heard of once."""

    __slots__ = ("_answered", "_callee", "_caller", "_network", "_pending", "_unanswered", "_work")

    def __init__(
        self,
        network: Network,
        caller: Process,
        callee: Process,
        work: Callable[[], Any],
        answered: Answer,
        unanswered: Action,
    ) -> None:
        self._network, self._caller, self._callee = network, caller, callee
        self._work, self._answered, self._unanswered = work, answered, unanswered
        self._pending = True

    def perform(self) -> None:
        result = self._work()
        if not self._network.chance(self._caller, self._callee, "lose_answer"):
            self._network.carry(self._callee, self._caller, partial(self._deliver, result))

    def _deliver(self, result: Any) -> None:
        if self._pending:
            self._pending = False
            self._answered(result)

    def expire(self) -> None:
        if self._pending:
            self._pending = False
            self._unanswered()
