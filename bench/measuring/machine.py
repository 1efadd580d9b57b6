"""What processes cost, and how busy the machine was meanwhile (Linux: /proc)."""

import os
import platform
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def process_cpu_s(pid: int) -> float:
    """User and system seconds of a process and its children, those that have ended included; 0
    if it is gone."""
    try:
        fields = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) * TICK_S + sum(
        process_cpu_s(child) for child in children_of(pid)
    )


def threads_cpu_s(pid: int, names: tuple[str, ...]) -> float:
    """User and system seconds of those threads of a process whose names begin so."""
    found = 0.0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            if (thread / "comm").read_text().startswith(names):
                fields = (thread / "stat").read_text().rpartition(")")[2].split()
                found += (int(fields[11]) + int(fields[12])) * TICK_S
    return found


def family_memory_bytes(pid: int) -> int:
    """Memory of a process and its children, a page that several of them share counted once; 0 if
    it is gone. Pages of files (libraries) count as if nobody else had mapped them, of each place of
    a file the most that one of them has: by PSS a bench that has loaded the same libraries would
    take half of them off one process, and less off several."""
    own, files = 0, dict[tuple[str, ...], int]()
    for one in _family(pid):
        try:
            with open(f"/proc/{one}/smaps_rollup") as file:
                parts = [line.split() for line in file]
            mapped = _file_pages(one)
        except (FileNotFoundError, ProcessLookupError):
            continue
        own += sum(int(part[1]) for part in parts if part[0] in ("Pss_Anon:", "Pss_Shmem:"))
        files |= {place: max(kb, files.get(place, 0)) for place, kb in mapped.items()}
    return 1_024 * (own + sum(files.values()))


def _family(pid: int) -> list[int]:
    return [pid, *(one for child in children_of(pid) for one in _family(child))]


def _file_pages(pid: int) -> dict[tuple[str, ...], int]:
    """Resident KiB that a process has of a file's pages as they are on disk, by their place."""
    found: dict[tuple[str, ...], int] = {}
    place: tuple[str, ...] = ()
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                is_file = len(words) > 5 and words[5].startswith("/") and words[4] != "0"
                in_memory = is_file and words[5].startswith(("/memfd:", "/dev/"))
                place = (words[2], words[3], words[4]) if is_file and not in_memory else ()
            elif place and words[0] in ("Rss:", "Anonymous:"):
                sign = 1 if words[0] == "Rss:" else -1
                found[place] = found.get(place, 0) + sign * int(words[1])
    return found


def _stat(pid: int) -> list[str]:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def children_of(pid: int) -> list[int]:
    """Processes that its threads have begun."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += [int(child) for child in file.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def machine_busy_s() -> float:
    """Seconds that all processors together were busy since the start of the machine."""
    with open("/proc/stat") as file:
        fields = [int(value) for value in file.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) * TICK_S


def child_named(pid: int, name: str) -> int:
    """The child of a process that calls itself so; 0 = there is none now."""
    for child in children_of(pid):
        with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{child}/comm") as file:
            if file.read().strip() == name:
                return child
    return 0


@dataclass
class Meter:
    """CPU seconds of named processes, and of all others, from `start` to `stop`."""

    pids: dict[str, int]
    _before: dict[str, float]
    _busy: float

    @classmethod
    def start(cls, pids: dict[str, int]) -> "Meter":
        return cls(pids, {name: process_cpu_s(pid) for name, pid in pids.items()}, machine_busy_s())

    def stop(self) -> tuple[dict[str, float], float]:
        """(CPU seconds by name, CPU seconds of everything else on the machine)."""
        spent = {name: process_cpu_s(pid) - self._before[name] for name, pid in self.pids.items()}
        return spent, max(0.0, machine_busy_s() - self._busy - sum(spent.values()))


def machine() -> dict[str, Any]:
    """What a figure was measured on."""
    model = ""
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith(("model name", "Processor", "CPU part")):
                model = line.partition(":")[2].strip()
                break
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": model or platform.machine(),
        "python": platform.python_version(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def resident_mb(pid: int, peak: bool = False) -> float:
    """Memory of a process, now or at its highest, in MiB; 0 if it is gone."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    try:
        with open(f"/proc/{pid}/status") as file:
            return next(
                (int(line.split()[1]) / 1_024 for line in file if line.startswith(wanted)), 0.0
            )
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


class Memory:
    """The highest that each named process has held, over its restarts, against what it held at the
    beginning. Looks from a thread of its own: the kernel keeps each process's peak, which goes with
    the process."""

    def __init__(self, pids: Callable[[], dict[str, int]], look_s: float = 0.1):
        self._pids, self._look_s = pids, look_s
        self.idle_mb = {name: resident_mb(pid) for name, pid in pids().items()}
        self.peak_mb = dict(self.idle_mb)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._thread.start()

    def over_idle_mb(self) -> dict[str, float]:
        return {name: round(self.peak_mb[name] - idle, 1) for name, idle in self.idle_mb.items()}

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stopped.wait(self._look_s):
            for name, pid in self._pids().items():
                self.peak_mb[name] = max(self.peak_mb.get(name, 0.0), resident_mb(pid, peak=True))
