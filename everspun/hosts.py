"""Which processes of which roles run where, and at which address each of them answers (pure).

Three ways to place them: all on one host; by `--roles shard:0,labeler:0-1` on each host; or by the
section `[hosts]`, which says it once for all hosts, so that every one of them finds the others.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from paramserver import is_loopback

if TYPE_CHECKING:
    from everspun.config import Config

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
PORT_LAST = 65_535
#: The highest `run.metrics_port` with which the launcher's, the last, is a port.
PORTS_MAX = PORT_LAST - PORTS_A_ROLE * len(ROLES)
INDEX_MAX = 1_023
#: So many processes a role has at most.
PROCESSES_MAX = INDEX_MAX + 1

#: What makes there be one of a role that may have none.
SWITCHES = {
    "fraud": "run.fraud = 1",
    "breaker": "run.breaker = 1",
    "governor": "governor.enabled = true",
    "archiver": "run.archivers = 1",
    "replica": "run.replicas = 1",
}

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
    many, and a role of which there is none."""
    found = []
    for role, indices in chosen.items():
        if indices is None and not counts[role]:
            found.append(none_of(role))
        for index in sorted(indices or ()):
            if index >= counts[role]:
                allowed = f"0 to {counts[role] - 1}" if counts[role] else "none"
                found.append(f"{role}:{index}: {reasons[role]}, so its indices are {allowed}")
    return found


def none_of(role: str) -> str:
    """What is said where a role is to run of which there is none."""
    return f"{role}: none is configured; {SWITCHES[role]} has one run, or leave {role!r} out"


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
            if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65_536:
                raise ValueError(f"answering.{role} = {address!r}: expected host:port")

    def placed(self, counts: Mapping[str, int]) -> dict[tuple[str, int], str]:
        """(role, index) -> host. Raises ValueError for a process that stands at two hosts, or at
        none; `counts`: how many there are."""
        places: dict[tuple[str, int], str] = {}
        for host, items in self.roles.items():
            for role, indices in parse_roles(items, f"roles.{host}:").items():
                if indices is None and not counts[role]:
                    raise ValueError(f"roles.{host}: {none_of(role)}")
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


def check_hosts(config: "Config") -> None:
    """Every process stands at one host of `[hosts]`, with a place for what others call and look
    at. Raises ValueError."""
    hosts, counts = config.hosts, config.counts()
    if not hosts.roles:
        return
    places = hosts.placed(counts)
    if not config.run.metrics_port or not config.run.metrics_port_each:
        raise ValueError(
            "[hosts] roles: other hosts look at fixed ports; set run.metrics_port, and "
            "run.metrics_host to an address that they reach"
        )
    if is_loopback(config.run.metrics_host) and not all(map(is_loopback, hosts.addresses.values())):
        raise ValueError(
            f"[hosts] roles: run.metrics_host = {config.run.metrics_host!r} is reached from its "
            "own host alone; '0.0.0.0', or this host's address"
        )
    servers = config.paramserver
    if len(hosts.roles) > 1 and servers.transport != "tcp":
        raise ValueError(
            f"[hosts] roles: paramserver.transport = {servers.transport!r} is reached from one "
            "host alone; 'tcp', and paramserver.addresses name host:port of every shard in order"
        )
    shards = sorted(index for role, index in places if role == "shard")
    if len(hosts.roles) > 1 and len(servers.addresses) <= shards[-1]:
        raise ValueError(
            f"[hosts] roles: shard:{shards[-1]} has no address; paramserver.transport = 'tcp' "
            "and paramserver.addresses name host:port of every shard in order"
        )
    for role, index in places:
        if role != "shard" and index >= counts[role]:
            raise ValueError(f"[hosts] roles: {role}:{index} is beyond the {counts[role]} of [run]")
        config.run.port_of(role, index)
    for index in shards if servers.transport == "tcp" and servers.addresses else ():
        _check_shard(config, index, hosts.addresses[places["shard", index]])


def _check_shard(config: "Config", index: int, here: str) -> None:
    """It is called where it stands: at `here`, and at the port that it takes there. An address that
    is none of `[hosts]` is a proxy's or another name."""
    where, port = config.paramserver.addresses[index], config.paramserver.port + index
    called, _, given = where.rpartition(":")
    called = called.strip("[]") if ":" in here else called
    if called == here and int(given) != port:
        raise ValueError(
            f"[hosts] roles: paramserver.addresses names {where!r} for shard:{index}, which "
            f"listens on paramserver.port + {index} = {port}; expected '{here}:{port}'"
        )
    if called != here and called in config.hosts.addresses.values():
        raise ValueError(
            f"[hosts] roles: paramserver.addresses names {where!r} for shard:{index}, which stands "
            f"at {here!r}; expected '{here}:{port}'"
        )


def unreached(config: "Config", index: int) -> str:
    """Why nobody reaches a shard that runs here at its address; "" if they do. `paramserver.host`
    is each host's own, so a file for all of them need not say it."""
    servers = config.paramserver
    if servers.transport != "tcp" or index >= len(servers.addresses):
        return ""
    where = servers.addresses[index]
    if not is_loopback(servers.host) or is_loopback(where.rpartition(":")[0].strip("[]")):
        return ""
    return (
        f"paramserver.host = {servers.host!r}: shard:{index} is called at {where!r} "
        "(paramserver.addresses), and listens for its own host alone; '0.0.0.0', or this host's "
        "address"
    )


@dataclass(frozen=True)
class Listening:
    """A port that a process takes: `key` = `first` gives it, and it binds to `address`."""

    process: str
    key: str
    first: int
    port: int
    address: str

    @property
    def fault(self) -> str:
        """Why it is none; "" if it is one."""
        if self.port <= PORT_LAST:
            return ""
        most = PORT_LAST - (self.port - self.first)
        return (
            f"{self.key} = {self.first}: {self.process} would take port {self.port}; allowed is "
            + (f"up to {most}" if most > 0 else f"an index up to {PORT_LAST - self.first}")
        )

    def meets(self, other: "Listening") -> bool:
        """Whether both cannot be had on one host."""
        ours, theirs = _bound(self.address), _bound(other.address)
        return self.port == other.port and (ours == theirs or "" in (ours, theirs))


def own_ports(config: "Config", role: str, index: int) -> Iterator[Listening]:
    """The ports that callers of a shard or a replica know; metrics have others."""
    servers, serving, process = config.paramserver, config.serving, f"{role}:{index}"
    given: list[tuple[str, int, str]] = []
    if role == "shard" and servers.transport == "tcp":
        given = [("paramserver.port", servers.port, servers.host)]
        if servers.lanes:
            given.append(("paramserver.lane_port", servers.lane_port, servers.host))
    elif role == "replica":
        given = [
            ("serving.port", serving.port, serving.host),
            ("serving.grpc_port", serving.grpc_port, serving.host),
        ]
    for key, first, address in given:
        if first:
            yield Listening(process, key, first, first + index, address)


def check_ports(config: "Config") -> None:
    """Raises ValueError, with the keys, for a port beyond the last, and for one that is taken twice
    on a host."""
    run = config.run
    taken: dict[tuple[str, int], list[Listening]] = {}
    places = _standing(config)
    launchers = [(("launcher", 0), host) for host in sorted(set(places.values()))]
    launchers = launchers if run.metrics_port_each else []
    for (role, index), host in [*places.items(), *launchers]:
        ports = list(own_ports(config, role, index))
        if at := run.port_of(role, index):
            ports.append(
                Listening(
                    f"{role}:{index}", "run.metrics_port", run.metrics_port, at, run.metrics_host
                )
            )
        for one in ports:
            if one.fault:
                raise ValueError(one.fault)
            others = taken.setdefault((host, one.port), [])
            for other in filter(one.meets, others):
                raise ValueError(
                    f"{one.key} = {one.first}: {one.process} would take port {one.port}, which "
                    f"{other.key} = {other.first} gives to {other.process}; choose another"
                )
            others.append(one)


def _standing(config: "Config") -> dict[tuple[str, int], str]:
    """(role, index) -> what names its host. Where pods, or shards' addresses, say that there are
    several hosts and not which, each process has one of its own."""
    counts, addresses = config.counts(), config.paramserver.addresses
    if config.hosts.roles:
        return config.hosts.placed(counts)
    if config.paramserver.transport == "tcp":
        counts["shard"] = max(counts["shard"], len(addresses))
    apart = not config.run.metrics_port_each
    apart |= len({address.rpartition(":")[0] for address in addresses}) > 1
    return {
        (role, index): f"{role}:{index}" if apart else ""
        for role, count in counts.items()
        for index in range(count)
    }


def _bound(address: str) -> str:
    """An address as one that binds there is told from others; "" = all of a host."""
    plain = address.strip("[]")
    return {"0.0.0.0": "", "::": "", "localhost": "127.0.0.1"}.get(plain, plain)
