"""Three hosts, each a network namespace with an address of its own, SASL_SSL Kafka that enforces
the least rights of each role, TLS and a token between shards and their callers: a host is killed
with its disk, and started again.

    python -m bench.cluster [--json] [--rate 200] [--latency-ms 2]

`seconds_to_resume_max`: from the start of the killed host to a model on the replica of another one
that is newer than at the kill, and every process answering. `second_start_refused`: a
second start of a role at a place that answers already must be refused. One broker, not three; no
partitions and no comparison with loopback: *not measured here*. Takes some minutes.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from bench.failures.cluster_hosts import Host, Network
from bench.failures.recovery_site import Site
from everspun import OPERATOR, SITE, Config, access, grants, load
from everspun.commands.system import full_audit
from everspun.status import configured_places, scrape_all
from stream.log import KafkaLog, create_topics

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "stream"))
import secured_broker

HOSTS = ("a", "b", "c")
ROLES = {
    "a": ["shard:0", "labeler", "checkpointer"],
    "b": ["shard:1", "learner:0", "fraud"],
    "c": ["learner:1", "replica", "governor", "archiver"],
}
WAIT_S = 100.0
CONFIG = """
[run]
dir = "{dir}/here"
hash_secret_file = "{dir}/hash.secret"
shards = 2
learners = 2
archivers = 1
metrics_host = "{own}"
metrics_port = {metrics}
[hosts]
addresses = {addresses}
roles = {roles}
[stream]
partitions = 2
window_ms = 2_000
grace_ms = 500
dedup_ms = 180_000
skew_ms = 500
age_max_ms = 600_000
jump_max_ms = 60_000
heartbeat_ms = 500
signal_ms = 250
flush_ms = 500
batch_rows_max = 128
categorical_features = ["event"]
{kafka}
[fraud]
cell_ms = 500
settle_ms = 500
window_ms = 5_000
[model]
name = "shop"
kind = "lr"
categorical = ["item"]
[paramserver]
transport = "tcp"
addresses = {shards}
port = {port}
cert = "{dir}/server.pem"
key = "{dir}/server.key"
ca = "{dir}/ca.pem"
token_file = "{dir}/shards.token"
[governor]
enabled = true
[archive]
root = "{dir}/archive"
[checkpointer]
root = "{dir}/checkpoints"
interval_ms = 1_000
entropy_max = 0
"""


class Cluster:
    """A broker, three hosts with one configuration, and a site. `with` it."""

    def __init__(self, dir: Path, rate: float, latency_ms: float) -> None:
        self.dir, self.rate = dir, rate
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
        secured = secured_broker.start(
            self.dir / "kafka", tuple(access("shop")), secured_broker.AUTHORIZER, self.network.own
        )
        self._stack.callback(secured.broker.stop)
        names = (f"IP:{address}" for address in self.network.addresses.values())
        secured_broker.certificates(self.dir, ",".join(names))
        (self.dir / "shards.token").write_text("t" * 40)
        (self.dir / "hash.secret").write_text("h" * 40)
        path = self.dir / "everspun.toml"
        path.write_text(self._text(secured.settings("SCRAM-SHA-512")))
        self.config = self.seen_by(OPERATOR, path)
        secured.grant(grants(self.config.stream, "shop"))
        create_topics(self.config.stream)
        self.hosts = {name: Host(self.network, name, self.dir, path) for name in HOSTS}
        for host in self.hosts.values():
            self._stack.callback(host.stop)
            host.start()
        stream = self.seen_by(SITE, path).stream
        self.site = Site(KafkaLog(stream), stream, self.rate, seed=7)

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def seen_by(self, user: str, path: Path) -> Config:
        return load(path, (f'stream.sasl_username="{user}"',))

    def _text(self, kafka: dict[str, Any]) -> str:
        at = self.network.addresses
        port, metrics = free_range(2), free_range(1_000)
        kafka |= {"sasl_username": "{role}"}
        return CONFIG.format(
            dir=self.dir,
            own=self.network.own if self.network.kind.startswith("net") else "127.0.0.1",
            metrics=metrics,
            port=port,
            addresses=table(at),
            roles=table(ROLES),
            kafka="\n".join(f"{key} = {json.dumps(value)}" for key, value in kafka.items()),
            shards=json.dumps([f"{at['a']}:{port}", f"{at['b']}:{port + 1}"]),
        )

    def served(self) -> float:
        """The version on the replica; -1 without one."""
        report = scrape_all(self.config).get("replica-0")
        return -1.0 if report is None else report.value("everspun_served_version", -1.0)

    def wait(self, what: Callable[[], bool], doing: str) -> float:
        """Seconds until it is so. Raises TimeoutError with the hosts' last words."""
        began = time.monotonic()
        while not what():
            if time.monotonic() - began > WAIT_S:
                words = "\n".join(host.words() for host in self.hosts.values())
                raise TimeoutError(f"{doing} took more than {WAIT_S:g} s\n{words}")
            time.sleep(0.2)
        return time.monotonic() - began

    def missing(self) -> set[str]:
        return set(configured_places(self.config, {})) - set(scrape_all(self.config))


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


def measure(rate: float, latency_ms: float, hosts: tuple[str, ...]) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="everspun-cluster-") as dir,
        Cluster(Path(dir), rate, latency_ms) as cluster,
    ):
        up_s = cluster.wait(lambda: not cluster.missing(), "the start of all processes")
        cluster.site.start()
        cluster.wait(lambda: cluster.served() >= 2, "the first served model")
        refused = second_start(cluster)
        resumed = {name: seconds_to_resume(cluster, name) for name in hosts}
        cluster.site.stop(60_000)
        found = full_audit(cluster.config, KafkaLog(cluster.config.stream), at_rest=False)
        return {
            "hosts": cluster.network.kind,
            "latency_ms": cluster.network.latency_ms,
            "events_per_s": rate,
            "seconds_up": round(up_s, 1),
            "seconds_to_resume": resumed,
            "seconds_to_resume_max": max(resumed.values()),
            "second_start_refused": refused,
            "audit_right": found.right,
            "audit_wrong": [f.check for f in found.findings if not f.right],
            "load_1_min": round(os.getloadavg()[0], 1),
        }


def seconds_to_resume(cluster: Cluster, name: str) -> float:
    """Of a host that is killed with its disk, and started two seconds later."""
    before = cluster.served()
    killed = cluster.hosts[name].kill()
    time.sleep(2)
    cluster.hosts[name].start()
    passed = cluster.wait(
        lambda: cluster.served() > before + 1 and not cluster.missing(),
        f"the return of host {name} ({killed} processes)",
    )
    return round(passed, 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument("--rate", type=float, default=200.0, help="impressions a second")
    parser.add_argument("--latency-ms", type=float, default=2.0, help="from host to host and back")
    parser.add_argument("--kill", default="b,a", help="hosts to kill, one after the other")
    options = parser.parse_args()
    found = measure(options.rate, options.latency_ms, tuple(options.kill.split(",")))
    print(json.dumps(found, indent=None if options.json else 1))


if __name__ == "__main__":
    main()
