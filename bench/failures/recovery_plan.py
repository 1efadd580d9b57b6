"""Which process dies when: a function of the seed.

Kills come in bursts of two or three, each kill of another role than the one before it and soon
enough after it to hit while that one is still recovering. Between bursts the pipeline comes to
itself. Some bursts begin with a process that is not killed but frozen, long enough to be taken for
dead and replaced, and then wakes up and goes on. Others begin with the store of checkpoints, which
is away, slow or full for a while.
"""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

BROKER = "broker"
#: Processes of the first replica, where it has workers.
WORKER, FOLLOWER = "worker", "follower"
#: What befalls the store of checkpoints, and for how long, s.
STORE_FAULTS = ("store away", "store slow", "store full")
STORE_S = (4.0, 8.0)
#: Roles whose processes are frozen: those that others take over from, or fence.
FROZEN_ROLES = ("labeler", "learner", "shard")
#: Longer than a group's session and a learner's lease.
FROZEN_S = (7.0, 12.0)


@dataclass(frozen=True)
class Kill:
    """`after_s`: pause before it, since the kill before it, or since the burst before has been
    recovered from."""

    role: str
    index: int
    after_s: float
    first: bool  # of its burst
    down_s: float = 0.0  # of a broker or the store: how long it stays so
    frozen_s: float = 0.0  # not killed, but stopped for so long

    @property
    def said(self) -> str:
        """In a few words."""
        if self.role in STORE_FAULTS:
            return f"{self.role} for {self.down_s:.0f} s"
        name = self.role if self.role in (BROKER, FOLLOWER) else f"{self.role}-{self.index}"
        return f"stop for {self.frozen_s:.0f} s {name}" if self.frozen_s else f"kill -9 {name}"


def plan(
    kills: int, freezes: int, seed: int, processes: Mapping[str, int], stores: int = 0
) -> list[Kill]:
    """`processes`: role -> how many run; "broker" is one of them. Every role gets its share of
    kills, at least `kills // roles`; `freezes` and faults of the store, in turns, come besides.

    Raises ValueError with fewer than two roles.
    """
    if len(processes) < 2:
        raise ValueError(f"roles {sorted(processes)}: a burst needs two of them")
    rng = random.Random(seed)
    out: list[Kill] = []
    sizes = _bursts(kills, rng)
    freezing = set(rng.sample(range(len(sizes)), min(freezes, len(sizes))))
    others = [number for number in range(len(sizes)) if number not in freezing]
    failing = sorted(rng.sample(others, min(stores, len(others)))) if stores else []
    for number, size in enumerate(sizes):
        last = ""
        for place in range(size):
            role = _next_role(
                Counter(k.role for k in out if not k.frozen_s),
                last,
                processes,
                rng,
                out[len(out) - place :],
            )
            after_s = rng.uniform(0.5, 2.0) if place == 0 else rng.uniform(0.05, 2.0)
            down_s = rng.uniform(0.5, 4.0) if role == BROKER else 0.0
            out.append(Kill(role, rng.randrange(processes[role]), after_s, place == 0, down_s))
            last = role
        if number in freezing:
            at = len(out) - size
            out[at:at] = [
                _freeze(out[at], Counter(k.role for k in out if k.frozen_s), processes, rng)
            ]
            out[at + 1] = replace(out[at + 1], after_s=rng.uniform(0.5, 5.0), first=False)
        if number in failing:
            at, role = len(out) - size, STORE_FAULTS[failing.index(number) % len(STORE_FAULTS)]
            out[at] = replace(out[at], after_s=rng.uniform(0.5, 3.0), first=False)
            out.insert(at, Kill(role, 0, rng.uniform(0.5, 2.0), True, rng.uniform(*STORE_S)))
    return out


def _freeze(
    before: Kill, had: Counter[str], processes: Mapping[str, int], rng: random.Random
) -> Kill:
    """One of those frozen least often, and of another role than the kill that follows."""
    allowed = [role for role in FROZEN_ROLES if role in processes and role != before.role]
    fewest = min(had[role] for role in allowed)
    role = rng.choice([role for role in allowed if had[role] == fewest])
    return Kill(
        role, rng.randrange(processes[role]), before.after_s, True, frozen_s=rng.uniform(*FROZEN_S)
    )


def _bursts(kills: int, rng: random.Random) -> list[int]:
    """Sizes of two and three that add up."""
    sizes: list[int] = []
    left = kills
    while left:
        size = left if left <= 3 else 2 if left == 4 else rng.choice((2, 3))
        sizes.append(size)
        left -= size
    return sizes


def _next_role(
    had: Counter[str],
    last: str,
    processes: Mapping[str, int],
    rng: random.Random,
    burst: list[Kill],
) -> str:
    """One of those that died least often; never the one before, and the broker once a burst."""
    barred = {last} | {k.role for k in burst if k.role == BROKER}
    allowed = [role for role in sorted(processes) if role not in barred]
    fewest = min(had[role] for role in allowed)
    return rng.choice([role for role in allowed if had[role] == fewest])
