"""The faults of `bench.outages`: what goes wrong around the processes, one at a time, and how
each ends."""

import os
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from everspun import LocalRun
from everspun.status import scrape
from stream import Partition

#: Read at each look at the clock by the roles that `CLOCK_ROLES` names: ms to be added to what
#: their host says.
CLOCK_FILE, CLOCK_ROLES = "EVERSPUN_BENCH_CLOCK", "EVERSPUN_BENCH_CLOCK_ROLES"
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
#: A module that Python imports at its start: another host's clock, without another host.
_SITECUSTOMIZE = f"""
import os, sys, time
_file = os.environ.get({CLOCK_FILE!r})
def _mine():
    with open("/proc/self/cmdline") as f:
        said = f.read().split(chr(0))
    roles = os.environ.get({CLOCK_ROLES!r}, "").split(",")
    return "role" in said and said[said.index("role") + 1] in roles
if _file and _mine():
    _time, _time_ns = time.time, time.time_ns
    def _off_ms():
        try:
            with open(_file) as f:
                return int(f.read() or 0)
        except (OSError, ValueError):
            return 0
    time.time = lambda: _time() + _off_ms() / 1e3
    time.time_ns = lambda: _time_ns() + _off_ms() * 1_000_000
"""


class Fault(ABC):
    """Something that goes wrong, and ends. `heals_itself`: it may be over before anybody looks,
    and is no silence."""

    heals_itself: ClassVar[bool] = False
    #: Whether a person must decide: the bench types the command that `everspun status` names.
    command: ClassVar[str] = ""

    def __init__(self, local: LocalRun):
        self.local = local

    @property
    def name(self) -> str:
        words = "".join(f" {c.lower()}" if c.isupper() else c for c in type(self).__name__)
        return words.strip()

    def why_not(self) -> str:
        """Why this fault cannot be made on this machine; "" if it can."""
        return ""

    @abstractmethod
    def begin(self) -> None: ...

    def go_on(self) -> None:  # noqa: B027 (most faults need nothing more to last)
        """Called again and again while it lasts."""

    @abstractmethod
    def end(self) -> None: ...

    @property
    def root(self) -> Path:
        return Path(self.local.config.checkpointer.root)


class StoreAway(Fault):
    """The folder of the model's checkpoints is gone, and something else stands there."""

    def begin(self) -> None:
        self._place = self.root / self.local.config.model.name
        self._place.rename(self._place.with_suffix(".away"))
        self._place.write_text("not a folder")

    def end(self) -> None:
        self._place.unlink()
        self._place.with_suffix(".away").rename(self._place)


class StoreFull(Fault):
    """The disk of the checkpoints fills up."""

    def why_not(self) -> str:
        return (
            ""
            if os.path.ismount(self.root)
            else "no file system of its own could be mounted (needs root)"
        )

    def begin(self) -> None:
        with (self.root / ".ballast").open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                while True:
                    try:
                        if file.write(b"0" * size) < size:
                            break
                    except OSError:
                        break

    def go_on(self) -> None:
        self.begin()  # what retention freed is taken again

    def end(self) -> None:
        (self.root / ".ballast").unlink()


class StoreReadOnly(Fault):
    """The file system of the checkpoints becomes read-only, as ext4 does after an I/O error."""

    why_not = StoreFull.why_not

    def begin(self) -> None:
        _remount(self.root, "ro")

    def end(self) -> None:
        _remount(self.root, "rw")


class PointerEmpty(Fault):
    """`published.json` is of zero bytes, as after a power cut."""

    heals_itself = True

    def begin(self) -> None:
        os.truncate(self.root / self.local.config.model.name / "published.json", 0)

    def end(self) -> None:
        """It is for the checkpointer to mend."""


class BrokerKilled(Fault):
    def begin(self) -> None:
        self.local.broker.kill()

    def end(self) -> None:
        self.local.broker.restart()


class BrokerFrozen(Fault):
    """Connections stand, and nothing answers."""

    def begin(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def end(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    @property
    def _pid(self) -> int:
        pid = self.local.broker.pid
        assert pid is not None
        return pid


class ClockTwoDaysAhead(Fault):
    """The clock of the labeler's host."""

    by_ms: ClassVar[int] = 2 * DAY_MS

    def begin(self) -> None:
        Path(os.environ[CLOCK_FILE]).write_text(str(self.by_ms))

    def end(self) -> None:
        Path(os.environ[CLOCK_FILE]).write_text("0")


class ClockAnHourBehind(ClockTwoDaysAhead):
    by_ms = -HOUR_MS


class UnreadInputDeleted(Fault):
    """Retention passes what the labelers, which are frozen meanwhile, have not read."""

    command = "everspun lost"

    def begin(self) -> None:
        launcher, stream = self.local.launcher, self.local.config.stream
        frozen = [
            launcher.freeze("labeler", index) for index in range(self.local.config.run.labelers)
        ]
        try:
            admin = KafkaAdminClient(bootstrap_servers=stream.bootstrap_servers)
            try:
                at = TopicPartition(stream.impressions, 0)
                reader = self.local.log().reader()
                try:
                    ours = Partition(at.topic, at.partition)
                    end = reader.end_offsets([ours])[ours]
                finally:
                    reader.close()
                admin.delete_records({at: end})
            finally:
                admin.close()
        finally:
            for process in frozen:
                process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """The command is."""


class TransactionLeftOpen(Fault):
    """A producer of somebody else's begins a transaction on `impressions` and hangs."""

    def begin(self) -> None:
        stream = self.local.config.stream
        self._producer = KafkaProducer(
            bootstrap_servers=stream.bootstrap_servers,
            transactional_id="somebody-else",
            transaction_timeout_ms=600_000,
        )
        self._producer.init_transactions()
        self._producer.begin_transaction()
        self._producer.send(stream.impressions, key=b"s", value=b"{}", partition=0)
        self._producer.flush()

    def end(self) -> None:
        self._producer.abort_transaction()
        self._producer.close()


class ShardStateLost(Fault):
    """A machine is replaced: a shard starts without what it had on its disk."""

    heals_itself = True

    def begin(self) -> None:
        self.local.launcher.kill("shard", 0)
        shutil.rmtree(Path(self.local.config.run.dir) / "state" / "shard-0", ignore_errors=True)

    def end(self) -> None:
        """It finds what it needs by itself."""


class ReplicaKeepsDying(Fault):
    def begin(self) -> None:
        self.go_on()

    def go_on(self) -> None:
        if self.local.launcher.alive()["replica-0"]:
            self.local.launcher.kill("replica", 0)

    def end(self) -> None:
        """It is left alone."""


class RoleFileJunk(Fault):
    """A role's file is half written, by a disk that was full for a moment."""

    def begin(self) -> None:
        self._file = Path(self.local.config.run.dir) / "roles" / "replica-0.json"
        self._was = self._file.read_bytes()
        self._file.write_text("[]")

    def end(self) -> None:
        if self._file.read_bytes() == b"[]":
            self._file.write_bytes(self._was)


class LabelersHang(Fault):
    """All labelers are stopped: processes that are there and do nothing."""

    def begin(self) -> None:
        launcher = self.local.launcher
        self._frozen = [
            launcher.freeze("labeler", index) for index in range(self.local.config.run.labelers)
        ]

    def end(self) -> None:
        for process in self._frozen:
            process.send_signal(signal.SIGCONT)


class PartitionsAdded(Fault):
    """Somebody gives `impressions` more partitions. They stay: nothing ends it but a decision,
    so it comes last."""

    def begin(self) -> None:
        stream = self.local.config.stream
        admin = KafkaAdminClient(bootstrap_servers=stream.bootstrap_servers)
        try:
            admin.create_partitions({stream.impressions: stream.partitions + 1})
        finally:
            admin.close()

    def end(self) -> None:
        """Labels of the old partitions go on meanwhile."""


FAULTS: tuple[type[Fault], ...] = (
    StoreAway,
    StoreFull,
    StoreReadOnly,
    PointerEmpty,
    BrokerKilled,
    BrokerFrozen,
    ClockTwoDaysAhead,
    ClockAnHourBehind,
    ShardStateLost,
    ReplicaKeepsDying,
    RoleFileJunk,
    LabelersHang,
    UnreadInputDeleted,
    TransactionLeftOpen,
    PartitionsAdded,
)


def wrong_clock(folder: Path) -> Iterator[None]:
    """While this generator stands, processes started here read the clock that its file says (for
    `contextmanager`)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    (folder / "off_ms").write_text("0")
    paths = os.environ.get("PYTHONPATH", "")
    changed = {
        "PYTHONPATH": os.pathsep.join([str(folder), *([paths] if paths else [])]),
        CLOCK_FILE: str(folder / "off_ms"),
        CLOCK_ROLES: "labeler",
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def small_disk(root: Path, megabytes: int) -> bool:
    """Give a folder a file system of its own, in memory; False where that may not be done."""
    root.mkdir(parents=True, exist_ok=True)
    if sys.platform != "linux" or os.getuid():
        return False
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(root)],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def give_back_disk(root: Path) -> None:
    """Unmount what `small_disk` mounted, also while something still stands on it."""
    subprocess.run(["umount", "--lazy", str(root)], capture_output=True, check=False)


def served_version(local: LocalRun) -> float:
    """What the replica serves; -1 if it does not say."""
    report = scrape(local.dir).get("replica-0")
    return -1.0 if report is None else report.value("everspun_served_version", -1.0)


def _remount(root: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(root)], check=True, capture_output=True)
