"""Three hosts, each a network namespace with an address and a Kafka broker of its own, SASL_SSL
that enforces the least rights of each role, TLS and a token between shards and their callers: how
much slower than one machine, at what CPU, and how soon after a host is killed with its disk.

    python -m bench.cluster [--json] [--impressions 300000] [--rate 200] [--latency-ms 2]
        [--kill b,a] [--cut-s 15]

`ratio_loopback`: a backlog of so many impressions learned a second, to the same roles on one
machine with Unix sockets and three brokers without TLS, while nothing else comes; `cpu_ratio`: CPU
of all roles and brokers an impression, to the same. Each is the median of three backlogs, on one
machine of three before and three after, since a machine that is shared gets faster and slower;
behind five that are not measured, and brokers compile all the way, as they do wherever they run for
long. The rest is of a second cluster, whose site shows `--rate` impressions a second.

`seconds_to_resume_max`: from the start of the killed host, whose broker died with it and keeps its
log, to a model on the replica that is newer than at the kill, and every process answering. `lost`
and `doubled`: impressions of all that were sent that no class has, or two. `second_start_refused`:
of a role at a place that answers.
`seconds_after_cut_max`: then the wire between two hosts is cut for a while, each pair in turn, and
so the roles and brokers of both; from its heal to a newer model and every process answering.

Takes about fourteen minutes and 8 GB; `--impressions 2000 --kill b --cut-s 0`, the smallest, five.
The wires are a process of their own, which takes cores too.
"""

import argparse
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.failures.recovery_check import Events, read_events
from bench.failures.recovery_site import Site
from bench.failures.recovery_watch import Watch
from bench.hosts.cluster_flow import USERS, WRITE_RATE, Drained, drained, on_loopback, served
from bench.hosts.cluster_hosts import Host, Network
from checkpointer.store import Catalogue, open_store
from everspun import OPERATOR, SITE, Config, access, grants, load
from everspun.commands.system import full_audit
from everspun.status import configured_places, scrape_all
from stream.log import KafkaLog, create_topics
from stream.monitoring import TimeLimit

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "stream"))
import secured_broker
import secured_cluster

HOSTS = ("a", "b", "c")
ROLES = {
    "a": ["shard:0", "labeler", "checkpointer"],
    "b": ["shard:1", "learner:0", "fraud"],
    "c": ["learner:1", "replica", "governor", "archiver"],
}
WAIT_S = 100.0
#: What both systems do; where they do it is filled in.
CONFIG = """
[run]
shards = 2
learners = 2
archivers = 1
{run}
[stream]
partitions = 2
window_ms = 2_000
grace_ms = 500
dedup_ms = 180_000
skew_ms = 500
age_max_ms = 600_000
jump_max_ms = 60_000
session_timeout_ms = {session_ms}
categorical_features = ["event"]
{stream}
[fraud]
cell_ms = 500
settle_ms = 500
window_ms = 5_000
[model]
name = "shop"
kind = "lr"
categorical = ["item"]
[governor]
enabled = true
[checkpointer]
interval_ms = 2_000
idle_interval_ms = 2_000
entropy_max = 0
{checkpointer}
{more}
"""
RUN = """
dir = "{dir}/here"
hash_secret_file = "{dir}/hash.secret"
metrics_host = "{own}"
metrics_port = {metrics}
"""
MORE = """
[hosts]
addresses = {addresses}
roles = {roles}
[paramserver]
transport = "tcp"
addresses = {shards}
port = {port}
cert = "{dir}/server.pem"
key = "{dir}/server.key"
ca = "{dir}/ca.pem"
token_file = "{dir}/shards.token"
[archive]
root = "{dir}/archive"
"""
#: Labelers stand still while a backlog is written: their group keeps them so long (Kafka's own
#: default). Where hosts are killed, it is the project's default.
STANDING_MS, KILLED_MS = 45_000, 6_000
#: On one machine: an empty place for each.
LOOPBACK = CONFIG.format(run="", stream="", checkpointer="", more="", session_ms=STANDING_MS)


class Cluster:
    """Three hosts with a broker each and one configuration. `with` it."""

    def __init__(self, dir: Path, latency_ms: float, session_ms: int) -> None:
        self.dir, self._session_ms = dir, session_ms
        dir.mkdir()
        self.network = Network(HOSTS, latency_ms)
        self.hosts: dict[str, Host] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Cluster":
        try:
            self._begin()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _begin(self) -> None:
        self._stack.callback(self.network.end)
        self.network.begin()
        os.environ["EVERSPUN_KAFKA_PASSWORD"] = secured_broker.PASSWORD
        self.brokers = secured_cluster.SecuredCluster(
            self.dir / "kafka",
            tuple(access("shop")),
            self.network.addresses,
            self.network.within,
            compiler=(),
        )
        self._stack.callback(self.brokers.stop)
        names = (f"IP:{address}" for address in self.network.addresses.values())
        secured_broker.certificates(self.dir, ",".join(names))
        (self.dir / "shards.token").write_text("t" * 40)
        (self.dir / "hash.secret").write_text("h" * 40)
        path = self.dir / "everspun.toml"
        path.write_text(self._text())
        self.config = self.seen_by(OPERATOR, path)
        secured_broker.grant(self.brokers.address, grants(self.config.stream, "shop"))
        create_topics(self.config.stream)
        self.hosts = {name: Host(self.network, name, self.dir, path) for name in HOSTS}
        for host in self.hosts.values():
            self._stack.callback(host.stop)
            host.start()
        self.site_stream = self.seen_by(SITE, path).stream

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def seen_by(self, user: str, path: Path) -> Config:
        return load(path, (f'stream.sasl_username="{user}"',))

    def site(self, rate: float, seed: int, **changed: Any) -> Site:
        """Another one, which has not begun."""
        return Site(KafkaLog(self.site_stream), self.site_stream, rate, seed, **changed)

    def _text(self) -> str:
        kafka = {
            "bootstrap_servers": self.brokers.servers,
            "security_protocol": "SASL_SSL",
            "ssl_cafile": str(self.dir / "kafka" / "ca.pem"),
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": "{role}",
            "replication": len(HOSTS),
        }
        return cluster_text(
            self.dir,
            self.network.addresses,
            self.network.own,
            free_range(1_000),
            self._session_ms,
            kafka,
        )

    def pids(self) -> dict[str, int]:
        """Of every role and broker."""
        found = dict(self.brokers.pids)
        for host in self.hosts.values():
            found |= host.pids()
        return {name: pid for name, pid in found.items() if not name.startswith("launcher")}

    def kill(self, name: str) -> int:
        self.brokers.kill(name)
        return self.hosts[name].kill()

    def start(self, name: str) -> None:
        self.brokers.start(name)
        self.hosts[name].start()

    def wait(self, what: Callable[[], bool], doing: str) -> float:
        """Seconds until it is so. Raises TimeoutError with the hosts' last words."""
        began, limit = time.monotonic(), TimeLimit(WAIT_S)
        while not what():
            if limit.over:
                words = "\n".join(host.words() for host in self.hosts.values())
                raise TimeoutError(f"{doing} took more than {WAIT_S:g} s\n{words}")
            time.sleep(0.2)
        return time.monotonic() - began

    def missing(self) -> set[str]:
        return set(configured_places(self.config, {})) - set(scrape_all(self.config))


def cluster_text(
    dir: Path,
    addresses: dict[str, str],
    own: str,
    metrics: int,
    session_ms: int,
    kafka: dict[str, Any],
) -> str:
    """The configuration of all three hosts."""
    port = free_range(2)
    shards = [f"{addresses['a']}:{port}", f"{addresses['b']}:{port + 1}"]
    return CONFIG.format(
        session_ms=session_ms,
        run=RUN.format(dir=dir, own=own, metrics=metrics),
        stream="\n".join(f"{key} = {json.dumps(value)}" for key, value in kafka.items()),
        checkpointer=f'root = "{dir}/checkpoints"',
        more=MORE.format(
            dir=dir,
            addresses=table(addresses),
            roles=table(ROLES),
            shards=json.dumps(shards),
            port=port,
        ),
    )


def table(values: dict[str, Any]) -> str:
    """An inline table of TOML."""
    return "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items()) + "}"


def free_range(count: int) -> int:
    """The first of so many ports, of which the first and the last are free."""
    for first in range(21_000 + count, 60_000, 1_100):
        with suppress(OSError), socket.socket() as low, socket.socket() as high:
            low.bind(("127.0.0.1", first))
            high.bind(("127.0.0.1", first + count))
            return first
    raise OSError("no ports are free")


def second_start(cluster: Cluster) -> bool:
    """Whether another `learner:1`, started here, is refused by name."""
    command = [sys.executable, "-m", "everspun", "role", "learner", "--index", "1"]
    command += ["--config", str(cluster.dir / "everspun.toml")]
    command += ["--set", f'run.dir="{cluster.dir}/second"']
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode == 2 and "learner-1 runs already at" in done.stderr


def measure(chosen: argparse.Namespace, console: Console) -> dict[str, Any]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="everspun-cluster-") as name:
        dir = Path(name)
        plain = _on_loopback(dir / "before", chosen.impressions, console)
        with Cluster(dir / "learning", chosen.latency_ms, STANDING_MS) as cluster:
            kind, far = cluster.network.kind, _learned(cluster, chosen.impressions, console)
        console.log(f"cluster: {_said(far)}")
        plain += _on_loopback(dir / "after", chosen.impressions, console)
        with Cluster(dir / "faults", chosen.latency_ms, KILLED_MS) as cluster:
            found = _of_faults(cluster, chosen, console)
    return {
        "ratio_loopback": round(_per_second(far) / _per_second(plain), 3),
        "cpu_ratio": round(_cpu_ms_each(far) / _cpu_ms_each(plain), 3),
        **found,
        "hosts": sorted({kind, found["hosts"]}),
        "loopback": [vars(one) for one in plain],
        "cluster": [vars(one) for one in far],
        "seconds": round(time.monotonic() - began, 1),
        "load_1_min": round(os.getloadavg()[0], 1),
        "cpus": os.cpu_count(),
    }


def _on_loopback(dir: Path, impressions: int, console: Console) -> list[Drained]:
    addresses = {name: f"127.0.0.{number}" for number, name in enumerate(HOSTS, 2)}
    brokers = secured_cluster.SecuredCluster(
        dir / "kafka", (), addresses, lambda _: [], compiler=()
    )
    try:
        found = on_loopback(dir / "system", LOOPBACK, impressions, brokers, console)
    finally:
        brokers.stop()
    console.log(f"loopback: {_said(found)}")
    return found


def _per_second(backlogs: list[Drained]) -> float:
    return statistics.median(one.per_second for one in backlogs)


def _cpu_ms_each(backlogs: list[Drained]) -> float:
    return statistics.median(one.cpu_ms_each for one in backlogs)


def _said(backlogs: list[Drained]) -> str:
    return f"{_per_second(backlogs):,.0f} impressions/s, {_cpu_ms_each(backlogs):.3f} ms of CPU"


def _serving(cluster: Cluster, rate: float, console: Console) -> tuple[Site, float]:
    """The site once all processes answer and a model is served, and after how long they did, s."""
    console.log(f"cluster: {cluster.network.kind}, three brokers answer; starting the roles")
    up_s = cluster.wait(lambda: not cluster.missing(), "the start of all processes")
    site = cluster.site(rate, 7)
    site.start()
    cluster.wait(lambda: served(cluster.config) >= 2, "the first served model")
    console.log(f"cluster: all answer after {up_s:.1f} s, and a model is served")
    return site, up_s


def _learned(cluster: Cluster, impressions: int, console: Console) -> list[Drained]:
    """Backlogs, while nothing else comes: as on loopback."""
    site, _ = _serving(cluster, 200.0, console)
    site.stop(60_000)
    return drained(
        cluster.config,
        lambda seed: cluster.site(WRITE_RATE, seed, users=USERS),
        impressions,
        cluster.pids,
    )


def _of_faults(cluster: Cluster, chosen: argparse.Namespace, console: Console) -> dict[str, Any]:
    site, up_s = _serving(cluster, chosen.rate, console)
    refused = second_start(cluster)
    resumed = {}
    for host in chosen.kill.split(","):
        resumed[host] = seconds_to_resume(cluster, host)
        console.log(f"cluster: host {host} killed, and back after {resumed[host]} s")
    followed = {}
    if cluster.network.can_cut and chosen.cut_s:
        for one, other in itertools.combinations(HOSTS, 2):
            passed = seconds_after_cut(cluster, one, other, chosen.cut_s)
            followed[f"{one}-{other}"] = passed
            console.log(f"cluster: {one} and {other} were cut, and all follows after {passed} s")
    site.stop(60_000)
    events = learned_all(cluster, site.delivered)
    audit = full_audit(cluster.config, KafkaLog(cluster.config.stream), at_rest=False)
    return {
        "seconds_to_resume_max": max(resumed.values()),
        "seconds_after_cut_max": max(followed.values(), default=None),
        "lost": len(events.lost(site.sent)),
        "doubled": len(events.doubled()),
        "impressions": len(site.sent),
        "seconds_to_resume": resumed,
        "seconds_after_cut": followed,
        "second_start_refused": refused,
        "audit_right": audit.right,
        "audit_wrong": [f"{f.check}: {f.found}" for f in audit.findings if not f.right],
        "hosts": cluster.network.kind,
        "latency_ms": cluster.network.latency_ms,
        "events_per_s": chosen.rate,
        "seconds_up": round(up_s, 1),
    }


def learned_all(cluster: Cluster, delivered: dict[str, int]) -> Events:
    """What became of every event, once every shard has learned what the log confirmed."""
    watch = Watch(cluster.config)
    try:
        if watch.seconds_beyond(delivered, time.monotonic(), WAIT_S) is None:
            raise TimeoutError(f"not all is learned: {watch.describe(delivered)}")
    finally:
        watch.close()
    config = cluster.config
    catalogue = Catalogue(open_store(config.checkpointer.root), config.model.name)
    reader = KafkaLog(config.stream).reader()
    try:
        return read_events(reader, config.stream, catalogue.begun() or {})
    finally:
        reader.close()


def seconds_to_resume(cluster: Cluster, name: str) -> float:
    """Of a host that is killed with its disk, and started two seconds later."""
    before = served(cluster.config)
    killed = cluster.kill(name)
    time.sleep(2)
    cluster.start(name)
    passed = cluster.wait(
        lambda: served(cluster.config) > before + 1 and not cluster.missing(),
        f"the return of host {name} ({killed} processes)",
    )
    return round(passed, 1)


def seconds_after_cut(cluster: Cluster, one: str, other: str, cut_s: float) -> float:
    """From the heal of the wire between two hosts, which was cut so long."""
    cluster.network.cut(one, other)
    time.sleep(cut_s)
    cluster.network.heal()
    before = served(cluster.config)
    passed = cluster.wait(
        lambda: served(cluster.config) > before + 1 and not cluster.missing(),
        f"what follows the cut between {one} and {other}",
    )
    return round(passed, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument("--impressions", type=int, default=300_000, help="of the backlog")
    parser.add_argument("--rate", type=float, default=200.0, help="impressions a second beside it")
    parser.add_argument("--latency-ms", type=float, default=2.0, help="from host to host and back")
    parser.add_argument("--kill", default="b,a", help="hosts to kill, one after the other")
    parser.add_argument("--cut-s", type=float, default=15.0, help="of each pair of hosts; 0: none")
    chosen = parser.parse_args()
    found = measure(chosen, Console(stderr=True, width=120))
    print(json.dumps(found, indent=None if chosen.json else 1))


if __name__ == "__main__":
    main()
