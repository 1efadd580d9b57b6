"""Three Apache Kafkas in one quorum, each at an address of its own, that ask for TLS and SASL."""

import base64
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import secured_broker
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from everspun.launcher import BrokerError
from everspun.launcher.broker import _die_with_parent, _resolve_jars, _run
from stream.monitoring import TimeLimit

START_TIMEOUT_S = 120
#: Asks a broker, as the administrator, how many of them there are.
ASK_MS = 4_000
#: Compiles little: a test is over before more pays. TLS takes several times its CPU then: what
#: encrypts by the processor's own instructions is of the compiler that comes last.
QUICK_START = ("-XX:TieredStopAtLevel=1",)
PROPERTIES = """\
process.roles=broker,controller
node.id={number}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller},LOGIN://{host}:{login}
advertised.listeners=PLAINTEXT://{host}:{port},LOGIN://{host}:{login}
controller.listener.names=CONTROLLER
controller.quorum.voters={voters}
log.dirs={logs}
auto.create.topics.enable=false
offsets.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1000
log.cleaner.enable=false
num.network.threads=2
num.io.threads=2
"""


class SecuredCluster:
    """`hosts`: name -> address; `within`: what stands before a command that runs on a host;
    `compiler`: options of Java. Raises BrokerError where they do not come up."""

    def __init__(
        self,
        dir: Path,
        users: Sequence[str],
        hosts: Mapping[str, str],
        within: Callable[[str], list[str]],
        compiler: Sequence[str] = QUICK_START,
    ) -> None:
        self.dir, self.hosts, self._within = dir, dict(hosts), within
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        names = ",".join(f"IP:{address}" for address in hosts.values())
        secured_broker.certificates(dir, f"{secured_broker.NAMES},{names}")
        self.port, self._controller, self.login = secured_broker.free_ports(3)
        java = ["java", "-Xms128m", "-Xmx384m", "-XX:+UseSerialGC"]
        self._java = [*java, *compiler, "-cp", f"{_resolve_jars()}/*"]
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22].replace("-", "a")
        try:
            for number, name in enumerate(hosts, 1):
                self._format(number, name, cluster, users)
            for name in hosts:
                self.start(name)
            self._until_all_answer()
        except BaseException:
            self.stop()
            raise

    @property
    def address(self) -> str:
        """Where the administrator, and nobody else, comes in without a word."""
        return ",".join(f"{host}:{self.port}" for host in self.hosts.values())

    @property
    def servers(self) -> str:
        """For clients of `secured_broker.settings`."""
        return ",".join(f"{host}:{self.login}" for host in self.hosts.values())

    @property
    def pids(self) -> dict[str, int]:
        return {f"broker-{name}": process.pid for name, process in self._running.items()}

    def start(self, name: str) -> None:
        with (self.dir / f"broker-{name}.log").open("ab") as output:
            self._running[name] = subprocess.Popen(
                [*self._within(name), *self._java, "kafka.Kafka", str(self._properties(name))],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def kill(self, name: str) -> None:
        """kill -9; its log stays."""
        process = self._running.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)

    def stop(self) -> None:
        for name in list(self._running):
            self.kill(name)

    def _properties(self, name: str) -> Path:
        return self.dir / f"broker-{name}.properties"

    def _format(self, number: int, name: str, cluster: str, users: Sequence[str]) -> None:
        host = self.hosts[name]
        voters = (f"{n}@{at}:{self._controller}" for n, at in enumerate(self.hosts.values(), 1))
        text = PROPERTIES.format(
            number=number,
            host=host,
            port=self.port,
            controller=self._controller,
            login=self.login,
            voters=",".join(voters),
            logs=self.dir / f"broker-{name}",
        )
        text += secured_broker.properties(self.dir, secured_broker.AUTHORIZER)
        self._properties(name).write_text(text)
        given = ["-t", cluster, "-c", str(self._properties(name)), *secured_broker.scram(users)]
        _run([*self._java, "kafka.tools.StorageTool", "format", *given], START_TIMEOUT_S)

    def _until_all_answer(self) -> None:
        limit = TimeLimit(START_TIMEOUT_S)
        while not limit.over:
            for name, process in self._running.items():
                if process.poll() is not None:
                    tail = (self.dir / f"broker-{name}.log").read_bytes()[-2000:]
                    raise BrokerError(f"broker {name} ended:\n{tail.decode(errors='replace')}")
            if all(self._count(host) == len(self.hosts) for host in self.hosts.values()):
                return
            time.sleep(0.5)
        raise BrokerError(f"{len(self.hosts)} brokers did not come up in {START_TIMEOUT_S} s")

    def _count(self, host: str) -> int:
        """How many brokers there are, says the one at this address; 0 where it does not answer."""
        try:
            admin = KafkaAdminClient(
                bootstrap_servers=f"{host}:{self.port}",
                request_timeout_ms=ASK_MS,
                bootstrap_timeout_ms=ASK_MS,
            )
        except (OSError, ValueError, KafkaError):
            return 0
        try:
            return len(admin.describe_cluster()["brokers"])
        except KafkaError:
            return 0
        finally:
            admin.close()
