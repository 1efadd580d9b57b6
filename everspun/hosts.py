"""Which processes of which roles run where, and at which address each of them answers (pure).

Three ways to place them: all on one host; by `--roles shard:0,labeler:0-1` on each host; or by the
section `[hosts]`, which says it once for all hosts, so that every one of them finds the others.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

#: Roles in the order in which they are started; they are stopped in the opposite order of the data:
#: readers last.
ROLES = (
    "shard",
    "checkpointer",
    "fraud",
    "breaker",
    "labeler",
    "learner",
    "governor",
    "archiver",
    "replica",
)
#: Each role has so many ports from `run.metrics_port` on, one for each index.
PORTS_A_ROLE = 100
#: The highest `run.metrics_port` with which the launcher's, the last, is a port.
PORTS_MAX = 65_535 - PORTS_A_ROLE * len(ROLES)
INDEX_MAX = 1_023

_ITEM = re.compile(r"([a-z]+)(?::(\d{1,9})(?:-(\d{1,9}))?)?")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")

#: Role -> the indices that are meant; None = all that there are.
Chosen = dict[str, frozenset[int] | None]


def parse_roles(items: Collection[str], where: str) -> Chosen:
    """What `shard:0`, `labeler:0-1`, `learner` mean together. Raises ValueError, naming the item,
    for what is none."""
    chosen: Chosen = {}
    for item in items:
        found = _ITEM.fullmatch(item.strip())
        if found is None or found[1] not in ROLES:
            raise ValueError(
                f"{where} {item.strip()!r}: expected ROLE, ROLE:INDEX or ROLE:FIRST-LAST with a "
                f"role of {', '.join(ROLES)}"
            )
        role, first, last = found[1], found[2], found[3] or found[2]
        if first is None:
            chosen[role] = None
            continue
        if not int(first) <= int(last) <= INDEX_MAX:
            raise ValueError(
                f"{where} {item.strip()!r}: indices rise, from 0 to {INDEX_MAX} at most"
            )
        before = chosen.get(role, frozenset())
        if before is not None:
            chosen[role] = before | frozenset(range(int(first), int(last) + 1))
    return chosen


def beyond(chosen: Chosen, counts: Mapping[str, int], reasons: Mapping[str, str]) -> list[str]:
    """What is chosen and cannot be: an index beyond `counts`, with the reason why there are so
    many."""
    found = []
    for role, indices in chosen.items():
        for index in sorted(indices or ()):
            if index >= counts[role]:
                allowed = f"0 to {counts[role] - 1}" if counts[role] else "none"
                found.append(f"{role}:{index}: {reasons[role]}, so its indices are {allowed}")
    return found


@dataclass(frozen=True)
class Placement:
    """The processes that one launcher runs. `chosen` None = all of all roles. `places`: (role,
    index) -> host where `[hosts]` says so, `own` this one's name: what is ordered beyond what is
    placed is dealt out to the hosts that have this role."""

    chosen: Mapping[str, frozenset[int] | None] | None = None
    own: str = ""
    places: Mapping[tuple[str, int], str] = field(default_factory=dict)

    def indices(self, role: str, count: int) -> list[int]:
        """Which of the `count` processes of a role are this launcher's; of shards also those that
        stand by (S6i)."""
        if self.chosen is None:
            return list(range(count))
        if role not in self.chosen:
            return []
        mine = self.chosen[role]
        if mine is None:
            return list(range(count))
        if role == "shard":
            return sorted(mine)
        added = [index for index, host in dealt(self.places, role, count) if host == self.own]
        return sorted({index for index in mine if index < count} | set(added))


def dealt(
    places: Mapping[tuple[str, int], str], role: str, count: int
) -> Iterator[tuple[int, str]]:
    """(index, host) of those of `count` processes that `places` does not name, in turns over the
    hosts that have this role."""
    hosts = sorted({host for (one, _), host in places.items() if one == role})
    for index in range(count if hosts else 0):
        if (role, index) not in places:
            yield index, hosts[index % len(hosts)]


ALL = Placement()


@dataclass(frozen=True)
class HostsConfig:
    """Where roles run and answer, for a system on several hosts. Empty = all on this one."""

    addresses: dict[str, str] = field(
        default_factory=dict,
        metadata={"help": "host -> name or address at which the other hosts reach it"},
    )
    roles: dict[str, tuple[str, ...]] = field(
        default_factory=dict,
        metadata={
            "help": "host -> what `everspun run` starts there: ['shard:0', 'labeler:0-1', "
            "'checkpointer']; a process stands at one host; a role without index is all of it"
        },
    )
    answering: dict[str, str] = field(
        default_factory=dict,
        metadata={
            "help": "role -> host:port of its metrics, where something else than `everspun run` "
            "places processes; {index} stands for each index, and a name of several addresses for "
            "all of them"
        },
    )

    def __post_init__(self) -> None:
        for host, address in self.addresses.items():
            if not _HOST.fullmatch(host):
                raise ValueError(f"addresses.{host}: a host's name has letters, digits, . _ -")
            if not address or any(c in address for c in "/ @"):
                raise ValueError(
                    f"addresses.{host} = {address!r}: expected a name or an address, without a port"
                )
        for host, items in self.roles.items():
            if host not in self.addresses:
                raise ValueError(f"roles.{host}: has no address; add addresses.{host}")
            parse_roles(items, f"roles.{host}:")
        for role, address in self.answering.items():
            host, colon, port = address.rpartition(":")
            if role not in ROLES:
                raise ValueError(f"answering.{role}: not a role; allowed are {', '.join(ROLES)}")
            if not colon or not host or not port.isdigit() or not 0 < int(port) < 65_536:
                raise ValueError(f"answering.{role} = {address!r}: expected host:port")

    def placed(self, counts: Mapping[str, int]) -> dict[tuple[str, int], str]:
        """(role, index) -> host. Raises ValueError for a process that stands at two hosts, or at
        none; `counts`: how many there are."""
        places: dict[tuple[str, int], str] = {}
        for host, items in self.roles.items():
            for role, indices in parse_roles(items, f"roles.{host}:").items():
                for index in sorted(range(counts[role]) if indices is None else indices):
                    if (other := places.setdefault((role, index), host)) != host:
                        raise ValueError(
                            f"roles: {role}:{index} stands at {other!r} and at {host!r}; it may "
                            "run once"
                        )
        missing = [
            f"{role}:{index}"
            for role, count in counts.items()
            for index in range(count)
            if self.roles and (role, index) not in places
        ]
        if missing:
            raise ValueError(f"roles: no host runs {', '.join(missing)}; name it under a host")
        return places

    def placement(self, host: str, counts: Mapping[str, int]) -> Placement:
        """What the launcher of this host runs. Raises ValueError for a host without roles."""
        if host not in self.roles:
            raise ValueError(
                f"this host is {host!r}, and [hosts] roles names {', '.join(sorted(self.roles))}: "
                "say which one it is with --host, or what it is to run with --roles"
            )
        places = self.placed(counts)
        mine: dict[str, frozenset[int] | None] = {}
        for (role, index), where in places.items():
            if where == host:
                mine[role] = (mine.get(role) or frozenset()) | {index}
        return Placement(mine, host, places)

    def dealt(
        self, counts: Mapping[str, int], ordered: Mapping[str, int]
    ) -> dict[tuple[str, int], str]:
        """(role, index) -> host of what is to run, where other numbers of a role are ordered."""
        places = self.placed(counts)
        there = {
            (role, index): host
            for (role, index), host in places.items()
            if index < ordered.get(role, index + 1)
        }
        for role, count in ordered.items():
            there |= {(role, index): host for index, host in dealt(places, role, count)}
        return there


def metrics_port(base: int, each: bool, role: str, index: int) -> int:
    """Where a process serves its metrics: at `base`, or, where `each` has a port of its own, at one
    for its role and index from there on. 0 = any free one. Raises ValueError beyond the last."""
    if not base or not each:
        return base
    if index >= PORTS_A_ROLE:
        raise ValueError(
            f"{role}:{index}: run.metrics_port = {base} has room for indices up to "
            f"{PORTS_A_ROLE - 1} of a role"
        )
    return base + PORTS_A_ROLE * (ROLES.index(role) if role in ROLES else len(ROLES)) + index


def indexed(address: str, count: int) -> Iterator[tuple[int | None, str]]:
    """(index, address) of a pattern: one for each index where it has `{index}`, else one."""
    if "{index}" in address:
        yield from ((index, address.replace("{index}", str(index))) for index in range(count))
    else:
        yield None, address
