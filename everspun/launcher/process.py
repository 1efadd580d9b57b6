"""What a launcher knows of each process that it started."""

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from everspun.launcher.restarts import Restarts

#: Something that goes on going wrong is said this often, ms.
SAY_AGAIN_MS = 60_000


#: Signals that a process gets by what lies beneath it -> what that may be.
_BENEATH = {
    signal.SIGBUS: "a file that it had mapped was cut short or cannot be read, or its disk fails "
    "(dmesg); what it did stands in its log",
    signal.SIGSEGV: "a fault in a library; what it did stands in its log",
    signal.SIGILL: "a library that is made for another processor",
    signal.SIGKILL: "killed by somebody, or by the kernel for want of memory (dmesg)",
}


def signal_words(number: int) -> str:
    """Why a process ended, in words, that this signal ended."""
    try:
        sent = signal.Signals(number)
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"
    return f"signal {sent.name}" + (f": {_BENEATH[sent]}" if sent in _BENEATH else "")


def is_stopped(pid: int) -> bool:
    """Whether this process stands still by a signal; False where the system does not say (Linux
    does)."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:1] in _STOPPED
    except OSError:
        return False


#: States of a process in /proc: stopped by a signal, or by who traces it.
_STOPPED = ([b"T"], [b"t"])


class NeverStarted:
    """Stands in for the process that the operating system has refused so far."""

    pid = 0
    returncode = 127

    def poll(self) -> int:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        return self.returncode

    def send_signal(self, number: int) -> None:
        """There is nobody to tell."""

    kill = terminate = lambda self: None


@dataclass
class Process:
    """One role's process and its history of starts."""

    role: str
    index: int
    popen: Any  # subprocess.Popen[bytes], or NeverStarted
    log: IO[bytes] | None
    history: Restarts
    restarts: int = 0
    leaving: bool = False  # told to drain, and to stay away
    renewing: bool = False  # told to drain, and is started again at once
    started_ms: int = 0  # monotonic
    due_ms: int | None = None  # monotonic; when it is to be started again
    log_begin: int = 0  # byte of its log where its last start begins
    reason: str = ""  # why it ended last
    hang: str = ""  # why it is being ended, if it hangs
    said_ms: int = -SAY_AGAIN_MS
    stopped_ms: int | None = None  # monotonic; since when it stands still by a signal

    @property
    def name(self) -> str:
        return f"{self.role}-{self.index}"

    def notice_stop(self, now_ms: int) -> None:
        """It is there, and SIGSTOP or a debugger lets it do nothing, or it goes on again."""
        if not is_stopped(self.popen.pid):
            self.stopped_ms = None
        elif self.stopped_ms is None:
            self.stopped_ms = now_ms


@dataclass
class Trouble:
    """Something that the launcher could not do, and tries again."""

    what: str
    since_ms: int  # wall clock
    count: int = 0
    last_ms: int = 0  # monotonic
    said_ms: int = -SAY_AGAIN_MS
