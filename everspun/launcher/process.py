"""What a launcher knows of each process that it started."""

from dataclasses import dataclass
from typing import IO, Any

from everspun.launcher.restarts import Restarts

#: Something that goes on going wrong is said this often, ms.
SAY_AGAIN_MS = 60_000


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

    @property
    def name(self) -> str:
        return f"{self.role}-{self.index}"


@dataclass
class Trouble:
    """Something that the launcher could not do, and tries again."""

    what: str
    since_ms: int  # wall clock
    count: int = 0
    last_ms: int = 0  # monotonic
    said_ms: int = -SAY_AGAIN_MS
