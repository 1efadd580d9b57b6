"""Faults: what is done to which role and when, drawn from the seed, and the table of what was done.

The first fault of a seed walks through the table cell by cell, so that no cell of it stays empty;
the rest are drawn. Whatever is done ends by itself, and at the latest when the run says that faults
stop (I8).
"""

import random
from collections import Counter
from dataclasses import dataclass

from sim_network import LinkFaults, Process, World
from sim_scenario import Scenario
from sim_store import Store

KINDS = (
    "crash",
    "restart",
    "delay",
    "reorder",
    "duplicate",
    "partition",
    "clock jump",
    "sleep",
    "lost ack",
)
EVERYWHERE = (
    "labeler",
    "fraud filter",
    "learner",
    "shard",
    "clock holder",
    "checkpointer",
    "replica",
    "broker",
)
ROLES = (*EVERYWHERE, "breaker")


#: Where a fault hurts most: the points that processes of a role pass, and what may be laid there as
#: a trap.
POINTS = {
    "labeler": ("append",),
    "breaker": ("append",),
    "fraud filter": ("rows", "verdict", "commit"),
    "learner": ("pulled", "pushed"),
    "shard": ("pushed", "mark", "part"),
    "clock holder": ("pushed", "mark", "part", "held"),
    "checkpointer": ("held", "part", "manifest", "complete"),
}
TRAPS = ("crash", "restart", "sleep", "partition", "lost ack")


@dataclass(frozen=True)
class Fault:
    at_ms: int  # after the beginning of the run
    kind: str
    role: str
    which: int  # which of the role's processes
    for_ms: int
    by_ms: int  # of a clock jump
    point: str = ""  # strikes the process that passes this point ...
    passes: int = 0  # ... for the so many-th time after `at_ms`
    apart: bool = False  # and meanwhile the clock holder does not reach the other shards


#: Not of the table: only shards keep a folder that others cannot make anew.
LOST_FOLDER = "lost folder"
#: Nor are what the store does, and the disks of labelers' copies: the role is who stands where it
#: strikes.
STORE_AWAY, STORE_FULL, DISK_FULL = "store away", "store full", "disk full"
#: Where a store hurts most.
STORING = (
    ("checkpointer", "part"),
    ("shard", "part"),
    ("shard", "mark"),
    ("clock holder", "part"),
)
TRAPS_A_SEED = 3
#: Where a move is hurt: while a cut is read ahead of it, and when a shard goes over.
MOVING = (
    ("shard", "ahead"),
    ("shard", "remap"),
    ("clock holder", "ahead"),
    ("checkpointer", "prepare"),
)
MOVE_FAULTS = 2
BREAKER_FAULTS = 2
COPY_RESTARTS = 3
#: In every fourth seed a learner sleeps for longer than its lease, and keeps its partitions.
EXPULSION = 1
#: In live seeds from here on, of this remainder by 6 (some with counters), the broker stands still
#: for longer than labels wait, and with it all heartbeats.
NIGHTS_FROM, NIGHTS = 1_000, 4
#: In others the fraud filter dies while its rows are on their way to the changelogs.
CUT_SHORT = 2


def plan(scenario: Scenario, span_ms: int) -> list[Fault]:
    """The faults of a run, in order of time. All but moves, folders and stores draw from one
    generator, in this order."""
    rng = random.Random(f"faults/{scenario.seed}")
    faults = _of_roles(scenario, span_ms, rng)
    faults += _in_the_midst(scenario, span_ms, rng)
    faults += _of_moves(scenario, span_ms)
    faults += _of_folders(scenario, span_ms)
    if scenario.store_fails:
        faults += _of_stores(scenario.seed, span_ms)
    faults += _of_breakers(scenario, span_ms, rng)
    faults += _of_labelers(scenario, span_ms, rng)
    faults += _of_nights(scenario, span_ms)
    return sorted(faults, key=lambda f: f.at_ms)


def _of_roles(scenario: Scenario, span_ms: int, rng: random.Random) -> list[Fault]:
    """Anywhere, one after another; the last of them at points of the code."""
    seed, count, fraud = scenario.seed, scenario.faults, scenario.fraud
    faults: list[Fault] = []
    expulsion = seed % 4 == EXPULSION
    for k in range(count):
        cell = seed * 5 + k if k < 1 else rng.randrange(len(KINDS) * len(EVERYWHERE))
        kind, role = KINDS[cell % len(KINDS)], EVERYWHERE[cell // len(KINDS) % len(EVERYWHERE)]
        if role == "fraud filter" and not fraud:
            role = rng.choice(("labeler", "learner", "shard"))
        point, passes = "", 0
        if scenario.retention and (kind, role) == ("clock jump", "broker"):
            kind = "delay"  # what is gone may have moved time, and the oracle begins anew behind it
        if scenario.clocks_ahead and kind == "clock jump":
            kind = "delay"  # whose clock that fault moves is right again too early
        if expulsion and role == "learner":
            role = "replica"
        if k >= count - TRAPS_A_SEED and (points := POINTS.get(role)):
            point, kind = rng.choice(points), rng.choice(TRAPS)
            passes = 1 if role == "checkpointer" else rng.choice((1, 2, 5))
        faults.append(
            Fault(
                at_ms=0
                if point and rng.random() < 0.3
                else rng.randrange(span_ms // 20, span_ms * 19 // 20),
                kind=kind,
                role=role,
                which=rng.randrange(4),
                for_ms=int(300 * 30 ** rng.random()),  # 0.3 to 9 s
                by_ms=rng.choice((-4000, -1500, 1500, 4000, 20000)),
                point=point,
                passes=passes,
            )
        )
    return faults


def _in_the_midst(scenario: Scenario, span_ms: int, rng: random.Random) -> list[Fault]:
    """Of a batch, and of rows on their way to the changelogs."""
    faults: list[Fault] = []
    if scenario.seed % 4 == EXPULSION:
        # A learner is expelled in the midst of a batch, and a shard does not hear of it.
        at = rng.randrange(span_ms // 6, span_ms * 2 // 3)
        for_ms = rng.randrange(6000, 9000)
        faults.append(
            Fault(at, "sleep", "learner", 0, for_ms, 0, "pulled", rng.choice((1, 2, 3)), True)
        )
    if scenario.fraud and scenario.seed % 4 == CUT_SHORT:
        at = rng.randrange(span_ms // 2)
        faults.append(Fault(at, "crash", "fraud filter", 0, 500, 0, "rows", rng.choice((1, 2, 3))))
    return faults


def _of_moves(scenario: Scenario, span_ms: int) -> list[Fault]:
    """In the midst of a move (S6)."""
    faults: list[Fault] = []
    if scenario.tuning == "shards":  # drawn apart from the rest
        move = random.Random(f"moves/{scenario.seed}")
        for role, point in move.sample(MOVING, MOVE_FAULTS):
            at, trap, for_ms = (
                move.randrange(span_ms // 2),
                move.choice(TRAPS),
                int(300 * 30 ** move.random()),
            )
            faults.append(Fault(at, trap, role, 0, for_ms, 0, point, move.choice((1, 2, 3))))
    return faults


def _of_folders(scenario: Scenario, span_ms: int) -> list[Fault]:
    """Machines are replaced, and their folders with them."""
    faults: list[Fault] = []
    if scenario.loses_folders:  # drawn apart from the rest
        lost = random.Random(f"folders/{scenario.seed}")
        for role in ("clock holder", "shard", lost.choice(("clock holder", "shard"))):
            at, for_ms = (
                lost.randrange(span_ms // 10, span_ms * 19 // 20),
                int(300 * 30 ** lost.random()),
            )
            faults.append(Fault(at, LOST_FOLDER, role, lost.randrange(4), for_ms, 0))
    return faults


def _of_breakers(scenario: Scenario, span_ms: int, rng: random.Random) -> list[Fault]:
    """Of breakers, anywhere and as they append."""
    faults: list[Fault] = []
    if scenario.breaker:
        for k in range(BREAKER_FAULTS):
            kind = KINDS[(scenario.seed // 11 * BREAKER_FAULTS + k) % len(KINDS)]
            at, for_ms = rng.randrange(span_ms), int(300 * 30 ** rng.random())
            faults.append(
                Fault(at, kind, "breaker", rng.randrange(2), for_ms, rng.choice((-1500, 4000)))
            )
            trap = rng.choice(TRAPS)
            faults.append(
                Fault(at, trap, "breaker", 0, for_ms, 0, "append", rng.choice((1, 2, 5, 20)))
            )
    return faults


def _of_labelers(scenario: Scenario, span_ms: int, rng: random.Random) -> list[Fault]:
    """Of labelers of whose chains several are written, or whose copies are full."""
    faults: list[Fault] = []
    # writers of different ranges must follow each other while appends of the one before are under
    # way
    if scenario.mixed:
        for _ in range(6):
            kind = rng.choice(("sleep", "partition", "restart", "lost ack"))
            at, for_ms = rng.randrange(span_ms), rng.randrange(2000, 6000)
            faults.append(Fault(at, kind, "labeler", rng.randrange(2), for_ms, 0))
    if scenario.copies:  # labelers that start where something waits in their copies
        for _ in range(COPY_RESTARTS):
            at, kind = (
                rng.randrange(span_ms // 3, span_ms * 19 // 20),
                rng.choice(("crash", "restart")),
            )
            faults.append(Fault(at, kind, "labeler", rng.randrange(2), rng.randrange(100, 1000), 0))
    return faults


def _of_nights(scenario: Scenario, span_ms: int) -> list[Fault]:
    """A silence of all partitions (J4b), drawn apart from the rest."""
    s = scenario
    if s.seed < NIGHTS_FROM or s.seed % 6 != NIGHTS or s.retention or s.clocks_ahead:
        return []
    rng = random.Random(f"night/{s.seed}")
    at, for_ms = rng.randrange(span_ms // 2), s.stream.wait_last_ms + rng.randrange(2_000, 8_000)
    return [Fault(at, "sleep", "broker", 0, for_ms, 0)]


def _of_stores(seed: int, span_ms: int) -> list[Fault]:
    """Drawn apart from the rest: two that last, two where a cut is being written, and disks."""
    rng = random.Random(f"store/{seed}")
    found = []
    for kind in (STORE_AWAY, STORE_FULL):
        at, for_ms = rng.randrange(span_ms // 10, span_ms * 3 // 4), rng.randrange(3_000, 12_000)
        found.append(Fault(at, kind, "checkpointer", 0, for_ms, 0))
        role = rng.choice(("shard", "clock holder"))  # and one begins meanwhile
        found.append(Fault(at + 500, "crash", role, rng.randrange(4), 300, 0))
        at, (role, point) = rng.randrange(span_ms // 2), rng.choice(STORING)
        if kind == STORE_FULL:  # a manifest is the smallest of what is written, and the last
            role, point = "checkpointer", "manifest"
        found.append(Fault(at, kind, role, 0, rng.randrange(300, 6_000), 0, point, 1))
    for which in range(2):
        at, for_ms = rng.randrange(span_ms // 10, span_ms * 3 // 4), rng.randrange(2_000, 9_000)
        found.append(Fault(at, DISK_FULL, "labeler", which, for_ms, 0))
    return found


class Faults:
    """Performs a plan on a world. `table` counts what was done to whom."""

    def __init__(self, world: World, faults: list[Fault], store: Store) -> None:
        self.world, self.faults, self.store = world, faults, store
        self.table: Counter[tuple[str, str]] = Counter()
        self.rng = random.Random(f"weather/{world.seed}")
        self.laid: dict[Fault, int] = {}
        for fault in faults:
            begin = self.lay if fault.point else self.strike
            world.time.at(world.time.now_ms + fault.at_ms, lambda f=fault, b=begin: b(f))
        world.trap = self.passed
        self.over = False

    def targets(self, role: str) -> list[Process]:
        return [p for p in self.world.processes.values() if p.role == role]

    def lay(self, fault: Fault) -> None:
        self.laid[fault] = fault.passes

    def passed(self, process: Process, point: str) -> None:
        """A process is at a point: strike it there, if a trap was laid for this pass. It has
        done what it was about."""
        if not self.laid:
            return
        for fault in [f for f in self.laid if (f.role, f.point) == (process.role, point)]:
            self.laid[fault] -= 1
            if self.laid[fault] == 0:
                del self.laid[fault]
                self.world.trace("TRAP", f"{process.name} at {point!r}")
                if fault.kind in (STORE_AWAY, STORE_FULL):  # it is about to write
                    self.strike(fault, process)
                else:
                    self.world.time.after(0, lambda f=fault: self.strike(f, process))

    def strike(self, fault: Fault, target: Process | None = None) -> None:
        targets = self.targets(fault.role)
        if self.over or not targets:
            return
        target = target or targets[fault.which % len(targets)]
        if not target.alive and fault.kind in ("crash", "restart", "sleep"):
            targets = [t for t in targets if t.alive]
            if not targets:
                return
            target = targets[0]
        self.table[fault.kind, fault.role] += 1
        ends_ms = self.world.time.now_ms + fault.for_ms
        self.world.foul_ms = max(self.world.foul_ms, ends_ms)
        self.world.trace(
            "FAULT", f"{fault.kind} of {target.name} for {fault.for_ms} ms (by {fault.by_ms})"
        )
        getattr(self, "_" + fault.kind.replace(" ", "_"))(target, fault)

    def _crash(self, target: Process, fault: Fault) -> None:
        target.crash()
        self.world.time.after(fault.for_ms, target.start)

    def _restart(self, target: Process, fault: Fault) -> None:
        target.stop()
        target.crash()
        self.world.time.after(20, target.start)

    def _lost_folder(self, target: Process, fault: Fault) -> None:
        """It comes back on another machine: nothing is there of what it kept on disk (S2, K6)."""
        self.world.trace(target.name, "loses its state folder")
        target.crash()
        target.disk.clear()
        self.world.time.after(fault.for_ms, target.start)

    def _store_away(self, target: Process, fault: Fault) -> None:
        self.store.away_until_ms = self.world.time.now_ms + fault.for_ms

    def _store_full(self, target: Process, fault: Fault) -> None:
        self.store.full_until_ms = self.world.time.now_ms + fault.for_ms

    def _disk_full(self, target: Process, fault: Fault) -> None:
        target.full_until_ms = self.world.time.now_ms + fault.for_ms

    def _sleep(self, target: Process, fault: Fault) -> None:
        target.sleep(max(3000, fault.for_ms))
        if fault.apart:
            for holder in self.targets("clock holder"):
                others = frozenset(shard.name for shard in self.targets("shard"))
                until = self.world.time.now_ms + fault.for_ms + 2000
                holder.link_faults.append(LinkFaults(until_ms=until, cut_from=others, name="apart"))

    def _clock_jump(self, target: Process, fault: Fault) -> None:
        target.clock_offset_ms = fault.by_ms
        target.leapt_ms += max(0, fault.by_ms)
        self.world.time.after(fault.for_ms, lambda: setattr(target, "clock_offset_ms", 0))

    def _weather(self, target: Process, fault: Fault, **what: object) -> None:
        until = self.world.time.now_ms + fault.for_ms
        target.link_faults.append(LinkFaults(until_ms=until, name=fault.kind, **what))  # type: ignore[arg-type]

    def _delay(self, target: Process, fault: Fault) -> None:
        self._weather(target, fault, delay_ms=self.rng.choice((50, 300, 900)))

    def _reorder(self, target: Process, fault: Fault) -> None:
        self._weather(target, fault, jitter_ms=self.rng.choice((100, 700, 2500)))

    def _duplicate(self, target: Process, fault: Fault) -> None:
        self._weather(target, fault, repeat=0.5, jitter_ms=60)

    def _lost_ack(self, target: Process, fault: Fault) -> None:
        self._weather(target, fault, lose_answer=0.5)

    def _partition(self, target: Process, fault: Fault) -> None:
        others = sorted(
            name for name in self.world.processes if name != target.name and name != "site"
        )
        cut = others if self.rng.random() < 0.5 else self.rng.sample(others, (len(others) + 1) // 2)
        self._weather(target, fault, cut_from=frozenset(cut))

    def stop(self) -> None:
        """From now on nothing goes wrong: weather clears, clocks are right, everyone wakes and
        is up."""
        self.over = True
        self.store.mend()
        for process in self.world.processes.values():
            process.link_faults.clear()
            process.clock_offset_ms = process.full_until_ms = 0
            if process.asleep:
                process.asleep_until_ms = self.world.time.now_ms
                process._wake()
            process.start()


def print_table(table: Counter[tuple[str, str]]) -> str:
    """Faults by role, as text."""
    width = max(len(k) for k in KINDS) + 1
    lines = [" " * width + "".join(f"{role:>14}" for role in ROLES)]
    for kind in KINDS:
        lines.append(f"{kind:<{width}}" + "".join(f"{table[kind, role]:>14}" for role in ROLES))
    return "\n".join(lines)
