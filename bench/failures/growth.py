"""Does anything grow but the model? The memory of each role while events flow, beside a role that
cannot start and a topic of evaluations that holds much already.

    python -m bench.growth [--json] [--minutes 20] [--rate 400] [--evaluations 300000] [--broker
    kafka]

The first third of the time is left out, and at least three minutes: a labeler's heaps take two to
fill where much else computes. `growth_percent_max` is, of all roles, the largest growth from the
median of the first to the median of the last quarter of what follows (resident memory;
`slope_percent_per_hour` is its straight line; `cpu_percent_from` and `cpu_percent_to` are CPU of a
core in both quarters). One replica finds the lock of its place taken for all of the time:
`others_restarted` counts restarts of all others, `named` is whether `everspun status` named it at
the end. `status_cpu_s` is what status takes beyond importing its modules, `status_mib` its peak
memory. Takes the time given and 3 GB.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.failures.outages import everspun_command
from bench.failures.recovery_site import Site
from bench.measuring.machine import machine, process_cpu_s
from everspun import READY_TIMEOUT_S, LocalRun, NotReady
from everspun.launcher import lock_file, unlock
from everspun.status import scrape
from stream import Partition
from stream.log import wall_clock_ms
from stream.monitoring import TimeLimit

LOOK_S = 5.0
WARM_UP_S = 180.0
#: It is given one place more than there are, and somebody stands there.
CANNOT_START = "replica-1"
OVERRIDES = (
    'model.kind="lr"',
    'model.name="growth"',
    'model.categorical=["source", "item"]',
    "run.replicas=2",
    # what is remembered of ids, late verdicts and lists of keys is full long before the first third
    # is over
    "paramserver.key_lists_bytes_max=1048576",
    "stream.dedup_ms=30000",
    "labeler.retract_horizon_ms=300000",
    "checkpointer.keep=5",
    "checkpointer.interval_ms=5000",
)


def resident_mib(pid: int) -> float:
    """Raises OSError where the process is gone."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


class Look(NamedTuple):
    """At a role: seconds since the start, resident memory, CPU seconds since its own."""

    at_s: float
    mib: float
    cpu_s: float


def growth(looks: Sequence[Look]) -> dict[str, float]:
    """Of one role after the warm-up, % of its mean: from first to last quarter, and by the hour
    along its line."""
    times_s, mib = [one.at_s for one in looks], [one.mib for one in looks]
    quarter = max(1, len(mib) // 4)
    mean = statistics.fmean(mib)
    grown = statistics.median(mib[-quarter:]) - statistics.median(mib[:quarter])
    slope = float(np.polyfit(times_s, mib, 1)[0]) if len(mib) > 1 else 0.0
    return {
        "mib": round(mean, 1),
        "growth_percent": round(100 * grown / mean, 2),
        "slope_percent_per_hour": round(100 * 3_600 * slope / mean, 1),
        "cpu_percent_from": round(cpu_percent(looks[: quarter + 1]), 1),
        "cpu_percent_to": round(cpu_percent(looks[-quarter - 1 :]), 1),
    }


def cpu_percent(looks: Sequence[Look]) -> float:
    """Of a core, from the first look to the last."""
    passed_s = looks[-1].at_s - looks[0].at_s
    return 100 * (looks[-1].cpu_s - looks[0].cpu_s) / passed_s if passed_s else 0.0


def fill(local: LocalRun, count: int) -> None:
    """Evaluations of a model of before, as many as a busy week leaves behind."""
    bins = [[10.0, 0.5, 0.4]] * 20
    body = {"model": "before", "chain": "label/0", "rows": 128, "clicks": 38, "log_loss_sum": 77.0}
    body |= {
        "prediction_sum": 38.0,
        "label_sum": 38.0,
        "bins": bins,
        "ts_ms_max": 1,
        "slices": {},
        "staleness": [1],
    }
    text = json.dumps(body | {"start": "START", "end": "END"})
    at, writer = Partition(local.config.stream.evaluations, 0), local.log().writer()
    with contextlib.closing(writer):
        for n in range(count):
            value = text.replace('"START"', str(n)).replace('"END"', str(n + 1)).encode()
            writer.append(at, value, None, (), wall_clock_ms())
            if n % 10_000 == 0:
                writer.flush(60_000)
        writer.flush(60_000)


def start(local: LocalRun) -> None:
    """All roles but the one that cannot. Raises NotReady."""
    local.launcher.start()
    limit = TimeLimit(READY_TIMEOUT_S)
    while missing := set(local.launcher.processes) - {CANNOT_START} - set(scrape(local.dir)):
        if limit.over:
            raise NotReady(f"{', '.join(sorted(missing))} did not come up")
        time.sleep(0.5)


def sample(local: LocalRun, minutes: float) -> dict[str, list[Look]]:
    """role -> every look after the warm-up."""
    warm_s = max(20 * minutes, WARM_UP_S)
    began, found = time.monotonic(), dict[str, list[Look]]()
    while (passed := time.monotonic() - began) < 60 * minutes:
        for name, process in list(local.launcher.processes.items()):
            if name != CANNOT_START and passed > warm_s:
                with contextlib.suppress(OSError):  # being started again, which is counted
                    pid = process.popen.pid
                    look = Look(passed, resident_mib(pid), process_cpu_s(pid))
                    found.setdefault(name, []).append(look)
        time.sleep(LOOK_S)
    return found


#: Begins a command, and writes what it took to the file named first. A process's peak memory counts
#: what its parent held when it forked, so that is a small one.
_COST = """
import os, resource, subprocess, sys
process = subprocess.Popen(sys.argv[2:])
_, _, used = os.wait4(process.pid, 0)
process.returncode = 0
open(sys.argv[1], "w").write(f"{used.ru_utime + used.ru_stime} {used.ru_maxrss / 1024}")
"""


def cost(command: list[str]) -> tuple[float, float, str]:
    """CPU seconds, peak memory (MiB) and output of a command."""
    with tempfile.NamedTemporaryFile("r") as took:
        measured = [sys.executable, "-S", "-c", _COST, took.name, *command]
        said = subprocess.run(measured, capture_output=True, text=True, check=True).stdout
        cpu_s, mib = map(float, took.read().split())
        return cpu_s, mib, said


def status(local: LocalRun) -> dict[str, Any]:
    said_s, mib, said = cost(everspun_command(local, "status", "--json"))
    imports_s, _, _ = cost(
        [sys.executable, "-c", "import everspun.commands.system.status, everspun.__main__"]
    )
    broken = json.loads(said.splitlines()[-1])["broken"]
    return {
        "status_cpu_s": round(said_s - imports_s, 2),
        "status_imports_cpu_s": round(imports_s, 2),
        "status_mib": round(mib, 1),
        "named": any(line.startswith(CANNOT_START) for line in broken),
        "broken": broken,
    }


def bench(minutes: float, rate: float, evaluations: int, broker: str) -> dict[str, Any]:
    dir = Path(tempfile.mkdtemp(prefix="everspun-growth-"))
    text = (Path(__file__).parent / "recovery.toml").read_text()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, dir, ignore_errors=True)
        local = LocalRun.begin(dir / "run", text, broker, OVERRIDES)
        stack.callback(local.stop)
        fill(local, evaluations)
        (local.dir / "roles").mkdir()
        stack.callback(
            unlock, lock_file(local.dir / "roles" / f"{CANNOT_START}.lock", CANNOT_START)
        )
        start(local)
        site = Site(local.log(), local.config.stream, rate, seed=1)
        site.start()
        samples = sample(local, minutes)
        said = status(local)
        roles = {name: growth(looks) for name, looks in samples.items()}
        restarts = {n: p.restarts for n, p in local.launcher.processes.items()}
        refused = restarts.pop(CANNOT_START)
        site.stop(60_000)
    return {
        "growth_percent_max": max(role["growth_percent"] for role in roles.values()),
        "others_restarted": sum(restarts.values()),
        "starts_refused": refused,
        **said,
        "roles": roles,
        "minutes": minutes,
        "impressions": len(site.sent),
        "evaluations_before": evaluations,
        **machine(),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=400.0, help="impressions a second (400)")
    parser.add_argument(
        "--evaluations", type=int, default=300_000, help="that stand in the log before (300,000)"
    )
    parser.add_argument("--broker", default="kafka")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args(arguments)
    if chosen.minutes * 60 < WARM_UP_S + 4 * LOOK_S:
        parser.error(f"--minutes {chosen.minutes:g}: at least 4, of which 3 are warm-up")
    result = bench(chosen.minutes, chosen.rate, chosen.evaluations, chosen.broker)
    print(
        json.dumps(result)
        if chosen.json
        else "\n".join(f"{key:24} {value}" for key, value in result.items())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
