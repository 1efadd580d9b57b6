"""Where the processes of a system answer, on this host and on others: by role files, `[hosts]`, or
DNS."""

import logging
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from everspun.config import Config
from everspun.hosts import indexed
from everspun.launcher import ordered_scale
from everspun.status.scraping import Report, ask, local_places

logger = logging.getLogger(__name__)

#: A name of so many addresses at most is asked for all of them.
ADDRESSES_MAX = 256
#: A name service that says nothing for so long is not waited for, s.
RESOLVED_WITHIN_S = 2.0


@dataclass(frozen=True)
class Place:
    """Where a process answers. `host`: its name in `[hosts]`, "" on this host or by
    `hosts.answering`."""

    address: str
    port: int
    host: str = ""

    def __str__(self) -> str:
        return f"{self.address}:{self.port}" + (f" (host {self.host})" if self.host else "")


def configured_places(config: Config, ordered: Mapping[str, int] | None = None) -> dict[str, Place]:
    """`<role>-<index>` -> where `[hosts]` says that it answers. `ordered`: role -> how many run
    instead of those configured; None = as the launcher of this host was told."""
    hosts = config.hosts
    if not hosts.roles:
        return {}
    if ordered is None:
        ordered = ordered_scale(Path(config.run.dir))
    found = {}
    for (role, index), host in hosts.dealt(config.counts(), ordered).items():
        port = config.run.port_of(role, index)
        found[f"{role}-{index}"] = Place(hosts.addresses[host], port, host)
    return found


def answering_places(config: Config) -> dict[str, Place]:
    """The same by `hosts.answering`. What stands behind a name of several addresses has a name of
    its own only once it was asked: until then it is `<role>@<address>`."""
    found: dict[str, Place] = {}
    counts = config.counts() | {"shard": len(config.paramserver.addresses) or config.run.shards}
    for role, pattern in config.hosts.answering.items():
        for index, address in indexed(pattern, counts[role]):
            host, _, port = address.rpartition(":")
            if index is not None:
                found[f"{role}-{index}"] = Place(host, int(port))
                continue
            for one in resolved(host):
                found[f"{role}@{one}"] = Place(one, int(port))
    return found


def resolved(host: str) -> list[str]:
    """The addresses of a name, sorted; [] where the name service knows none, or says nothing."""
    asked: Future[set[str]] = Future()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
            asked.set_result({str(one[4][0]) for one in found})
        except Exception as error:
            asked.set_exception(error)

    threading.Thread(target=ask, name="resolving", daemon=True).start()  # no exit waits for it
    try:
        return sorted(asked.result(RESOLVED_WITHIN_S))[:ADDRESSES_MAX]
    except (OSError, TimeoutError, UnicodeError) as error:
        logger.debug("%s is not known: %s", host, error)
        return []


def places(config: Config, ordered: Mapping[str, int] | None = None) -> dict[str, Place]:
    """Every process that this host can know of. A role file of this host goes before the
    configuration. `ordered` as in `configured_places`."""
    local = {
        name: Place(host, port) for name, (host, port) in local_places(Path(config.run.dir)).items()
    }
    return configured_places(config, ordered) | answering_places(config) | local


def scrape_all(config: Config, ordered: Mapping[str, int] | None = None) -> dict[str, Report]:
    """A report of every process that answers, wherever it runs. `ordered` as in
    `configured_places`."""
    known = places(config, ordered)
    answers = ask({name: (place.address, place.port) for name, place in known.items()})
    return {
        (answer.process or name) if "@" in name else name: answer.report
        for name, answer in answers.items()
    }


def unanswered(config: Config, reports: dict[str, Report]) -> list[str]:
    """Processes that `[hosts]` places elsewhere and that do not answer, in words."""
    here = local_places(Path(config.run.dir))
    return [
        f"{name} does not answer at {place}: does `everspun run --host {place.host}` run there?"
        for name, place in sorted(configured_places(config).items())
        if name not in reports and name not in here
    ]
