"""Hosts for `bench.cluster`: network namespaces with an address each, on wires that have a latency
and can be cut, or, without the right to make them, addresses of loopback."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.hosts.cluster_wires import PACKET_BYTES_MAX, device
from everspun.launcher import role_files

NET = "10.77.0"
#: Who measures, among the hosts.
OWN = "own"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass
class Network:
    """`names` of hosts -> their addresses; `kind` says of what kind they are."""

    names: tuple[str, ...]
    latency_ms: float
    kind: str = "addresses of loopback"
    addresses: dict[str, str] = field(default_factory=dict)
    own: str = "127.0.0.1"
    _wires: subprocess.Popen[str] | None = None

    def begin(self) -> None:
        """Make the namespaces; where that is not allowed, loopback has an address for each. Those
        of a run that was killed are removed."""
        self.end()
        try:
            self._namespaces()
        except (OSError, subprocess.CalledProcessError) as error:
            self.end()
            self.latency_ms = 0.0
            self.kind += f" ({getattr(error, 'stderr', b'') or error})"
            self.addresses = {name: f"127.0.0.{n + 2}" for n, name in enumerate(self.names)}

    def _namespaces(self) -> None:
        addresses = {name: f"{NET}.{number}" for number, name in enumerate(self.names, 1)}
        self.own = f"{NET}.254"
        command = [sys.executable, "-m", "bench.hosts.cluster_wires", str(self.latency_ms)]
        command += [f"{name}={at}" for name, at in [*addresses.items(), (OWN, self.own)]]
        pipe = subprocess.PIPE
        self._wires = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, start_new_session=True
        )
        self._hear("ready")
        for name, address in addresses.items():
            space = f"ev-{name}"
            _ip("netns", "add", space)
            _ip("link", "set", device(name), "netns", space)
            _ip("-n", space, "link", "set", "lo", "up")
            _up(device(name), address, "-n", space)
        _up(device(OWN), self.own)
        self.addresses, self.kind = addresses, "network namespaces"

    def _hear(self, word: str) -> None:
        assert self._wires is not None
        assert self._wires.stdout is not None
        said = self._wires.stdout.readline().strip()
        if said != word:
            raise OSError(f"no wires between hosts: {said or 'their process ended'}")

    @property
    def can_cut(self) -> bool:
        """Whether there are wires."""
        return self._wires is not None

    def cut(self, one: str, other: str) -> None:
        """What either sends the other is gone from now on."""
        self._tell(f"cut {one} {other}")

    def heal(self) -> None:
        """All wires are whole."""
        self._tell("heal")

    def _tell(self, what: str) -> None:
        assert self._wires is not None
        assert self._wires.stdin is not None
        self._wires.stdin.write(what + "\n")
        self._wires.stdin.flush()
        self._hear("done")

    def within(self, name: str) -> list[str]:
        """What stands before a command that runs on this host."""
        return ["ip", "netns", "exec", f"ev-{name}"] if self.can_cut else []

    def end(self) -> None:
        """Without its process the devices are gone too."""
        wires, self._wires = self._wires, None
        if wires is not None:
            wires.kill()
            wires.wait(10)
        for name in self.names:
            subprocess.run(["ip", "netns", "del", f"ev-{name}"], capture_output=True, check=False)


def _up(device: str, address: str, *space: str) -> None:
    _ip(*space, "addr", "add", f"{address}/24", "dev", device)
    _ip(*space, "link", "set", device, "mtu", str(PACKET_BYTES_MAX), "up")


class Host:
    """One launcher on its host, with a folder of its own."""

    def __init__(self, network: Network, name: str, dir: Path, config: Path) -> None:
        self.dir, self._log = dir / name, dir / f"{name}.log"
        address = network.addresses[name]
        self._command = [*network.within(name), sys.executable, "-m", "everspun", "run", "--quiet"]
        self._command += ["--host", name, "--config", str(config)]
        for key, value in (
            ("run.dir", self.dir),
            ("run.metrics_host", address),
            ("paramserver.host", address),
        ):
            self._command += ["--set", f'{key}="{value}"']
        self._launcher: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._launcher = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def pids(self) -> dict[str, int]:
        """Of its roles."""
        said = role_files(self.dir)
        return {name: int(str(one["pid"])) for name, one in said.items() if "pid" in one}

    def kill(self) -> int:
        """kill -9 every process at once, and remove the disk. Returns how many there were."""
        assert self._launcher is not None
        pids = [self._launcher.pid]
        for path in (self.dir / "roles").glob("*.lock"):
            with suppress(ValueError, IndexError):
                pids.append(int(path.read_text().split()[0]))
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._launcher.wait(20)
        shutil.rmtree(self.dir, ignore_errors=True)
        return len(pids)

    def stop(self) -> None:
        if self._launcher is not None and self._launcher.poll() is None:
            self._launcher.terminate()
            try:
                self._launcher.wait(40)
            except subprocess.TimeoutExpired:
                self._launcher.kill()

    def words(self) -> str:
        """The ends of its logs."""
        paths = [self._log, *sorted((self.dir / "logs").glob("*.log"))]
        return "\n".join(
            f"--- {path}\n{path.read_text(errors='replace')[-1200:]}"
            for path in paths
            if path.exists()
        )
