"""Hosts for `bench.cluster`: network namespaces with an address and a latency each, or, without the
right to make them, addresses of loopback."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from everspun.launcher import role_files

BRIDGE, NET = "evbr0", "10.77.0"


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

    def begin(self) -> None:
        """Make the namespaces; where that is not allowed, loopback has an address for each."""
        try:
            self._namespaces()
        except (OSError, subprocess.CalledProcessError) as error:
            self.end()
            self.kind += f" ({getattr(error, 'stderr', b'') or error})"
            self.addresses = {name: f"127.0.0.{n + 2}" for n, name in enumerate(self.names)}

    def _namespaces(self) -> None:
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{NET}.254/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        for number, name in enumerate(self.names, 1):
            space, near, far = f"ev-{name}", f"ev{name}0", f"ev{name}1"
            _ip("netns", "add", space)
            _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", space)
            _ip("link", "set", near, "master", BRIDGE, "up")
            _ip("-n", space, "addr", "add", f"{NET}.{number}/24", "dev", far)
            _ip("-n", space, "link", "set", far, "up")
            _ip("-n", space, "link", "set", "lo", "up")
            self.addresses[name] = f"{NET}.{number}"
        self.kind, self.own = "network namespaces", f"{NET}.254"
        self._delay()

    def _delay(self) -> None:
        """Half of the latency on the way out of each host. Without netem there is none."""
        for name in self.names:
            words = ["tc", "qdisc", "add", "dev", f"ev{name}1", "root", "netem", "delay"]
            done = subprocess.run(
                ["ip", "netns", "exec", f"ev-{name}", *words, f"{self.latency_ms / 2}ms"],
                capture_output=True,
                check=False,
            )
            if done.returncode:
                self.latency_ms = 0.0
                self.kind += " without netem"
                return

    def within(self, name: str) -> list[str]:
        """What stands before a command that runs on this host."""
        spaces = self.kind.startswith("network namespaces")
        return ["ip", "netns", "exec", f"ev-{name}"] if spaces else []

    def end(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", f"ev-{name}"], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)


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
