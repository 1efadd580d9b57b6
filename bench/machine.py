"""What processes cost, and how busy the machine was meanwhile (Linux: /proc)."""

import os
import platform
from dataclasses import dataclass
from typing import Any

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def process_cpu_s(pid: int) -> float:
    """User and system seconds of a process and its children, those that have ended included; 0 if it is gone."""
    try:
        fields = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) * TICK_S + sum(
        process_cpu_s(child) for child in _children(pid)
    )


def _stat(pid: int) -> list[str]:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def _children(pid: int) -> list[int]:
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
