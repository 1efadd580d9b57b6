"""Does anything around the processes stop them, and is it said? Stores, brokers, disks, clocks and topics fail one
after another under real processes on Apache Kafka, while events flow.

    python -m bench.outages [--json] [--times 1] [--only NAME ...] [--rate 100]

Each fault lasts until `everspun status` names it (exit code 1), a minute at most; then it ends, or the command that
status names is typed. `seconds_to_follow_max` is the longest time from then until everything that the log held has been
learned by every shard, and the replica serves something newer. `silent` counts faults that status did not name within
a minute. At the end every event is counted by id. Takes about 15 minutes and 4 GB.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.outages_faults import FAULTS, Fault, give_back_disk, served_version, small_disk, wrong_clock
from bench.recovery_check import read_events
from bench.recovery_site import Site
from bench.recovery_watch import Watch
from checkpointer.catalogue import Catalogue
from checkpointer.store import open_store
from everspun.local_run import LocalRun

RATE, BASELINES = 100.0, 3
#: How long a fault may last unnamed, and how long a run may take to follow again before it is given up.
NAMED_S, FOLLOW_S = 60.0, 180.0
#: A fault lasts at least so long, though it is named sooner: some do harm only with time.
LASTS_S = 10.0
#: Of the checkpoints' file system. The run writes some 20 MB of them.
DISK_MB = 256
_COMMAND = re.compile(r"everspun lost [^\n;`]+")


@dataclass
class Outcome:
    """One fault, as it came about."""

    name: str
    said: str = ""  # by status, first of all that is about it
    seconds_to_named: float | None = None
    typed: str = ""
    seconds_to_follow: float | None = None
    skipped: str = ""
    heals_itself: bool = False

    @property
    def silent(self) -> bool:
        return not self.skipped and not self.heals_itself and self.seconds_to_named is None


@dataclass
class Run:
    """One run of the bench over a started pipeline."""

    local: LocalRun
    site: Site
    watch: Watch
    console: Console
    usual_s: float = 0.0  # from the log to every shard, without a fault

    def status(self) -> tuple[int, list[str]]:
        """Exit code of `everspun status`, and what it calls broken."""
        done = self._everspun("status", "--json")
        with contextlib.suppress(ValueError):
            return done.returncode, list(json.loads(done.stdout.splitlines()[-1])["broken"]) if done.stdout else []
        return done.returncode, [(done.stdout + done.stderr).strip()[-300:]]

    def measure(self) -> None:
        """How long the log takes to every shard when nothing is wrong, and that status then says so."""
        until = time.monotonic() + FOLLOW_S
        while len(self.site.delivered) < self.local.config.stream.partitions and time.monotonic() < until:
            time.sleep(0.1)
        took = [self._follow_s() for _ in range(BASELINES)]
        if None in took:
            raise RuntimeError("the pipeline does not move before any fault")
        self.usual_s = statistics.median(s for s in took if s is not None)
        code, broken = self.status()
        if code:
            raise RuntimeError(f"status calls a healthy run wrong: {broken}")

    def one(self, fault: Fault) -> Outcome:
        outcome = Outcome(fault.name, skipped=fault.why_not(), heals_itself=fault.heals_itself)
        if outcome.skipped:
            return outcome
        before = {line.split(":")[0] for line in self.status()[1]}
        began = time.monotonic()
        fault.begin()
        try:
            self._until_named(fault, outcome, before, began)
            outcome.typed = self._type(outcome) if fault.command else ""
        finally:
            fault.end()
        served, ended = served_version(self.local), time.monotonic()
        if self._follow_s(FOLLOW_S) is not None and self._serves_beyond(served, ended + FOLLOW_S):
            outcome.seconds_to_follow = round(max(0.0, time.monotonic() - ended - self.usual_s), 1)
        return outcome

    def _until_named(self, fault: Fault, outcome: Outcome, before: set[str], began: float) -> None:
        longest = LASTS_S if fault.heals_itself else NAMED_S
        while (passed := time.monotonic() - began) < longest:
            fault.go_on()
            code, broken = self.status()
            fresh = [line for line in broken if line.split(":")[0] not in before]
            if code and fresh and outcome.seconds_to_named is None:
                outcome.seconds_to_named, outcome.said = round(time.monotonic() - began, 1), fresh[0][:300]
            if outcome.seconds_to_named is not None and passed >= LASTS_S:
                return

    def _type(self, outcome: Outcome) -> str:
        """Type the commands that status names."""
        typed: list[str] = []
        _, broken = self.status()
        for command in {found.group(0).strip() for line in broken for found in _COMMAND.finditer(line)}:
            words = shlex.split(command)[1:]
            if "--reason" not in words:
                words += ["--reason", "bench"]
            done = self._everspun(*[word for word in words if word != "..."])
            typed.append(command if done.returncode == 0 else f"{command} -> {done.stdout.strip()[:200]}")
        return "; ".join(typed)

    def _follow_s(self, timeout_s: float = NAMED_S) -> float | None:
        """From now until all that the log confirmed by now is learned everywhere."""
        return self.watch.seconds_beyond(dict(self.site.delivered), time.monotonic(), timeout_s)

    def _serves_beyond(self, version: float, until: float) -> bool:
        while served_version(self.local) <= version:
            if time.monotonic() > until:
                return False
            time.sleep(0.2)
        return True

    def _everspun(self, *words: str) -> "subprocess.CompletedProcess[str]":
        config = self.local.config
        placed = {
            "run.dir": config.run.dir,
            "stream.bootstrap_servers": config.stream.bootstrap_servers,
            "checkpointer.root": config.checkpointer.root,
        }
        sets = [part for key, value in placed.items() for part in ("--set", f"{key}={json.dumps(str(value))}")]
        command = [sys.executable, "-m", "everspun", *words, "--config", str(self.local.config_path), *sets]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def count(self) -> dict[str, int]:
        """Every event by id, against the site's own list; what an operator declared lost is counted apart."""
        self.site.stop(int(FOLLOW_S * 1_000))
        if self._follow_s(FOLLOW_S) is None:
            raise RuntimeError(f"not all learned: {self.watch.describe(self.site.delivered)}")
        config = self.local.config
        catalogue = Catalogue(open_store(config.checkpointer.root), config.model.name)
        reader = self.local.log().reader()
        try:
            events = read_events(reader, config.stream, catalogue.begun() or {})
        finally:
            reader.close()
        return {
            "impressions": len(self.site.sent),
            "missing": len(events.lost(self.site.sent)),
            "doubled": len(events.doubled()),
            "quarantined": events.quarantined,
        }


def bench(times: int, only: Sequence[str], rate: float, console: Console) -> dict[str, Any]:
    """Run it. Raises what ended a process for good."""
    dir = Path(tempfile.mkdtemp(prefix="everspun-outages-"))
    text = (Path(__file__).parent / "recovery.toml").read_text()
    load, began = os.getloadavg(), time.monotonic()
    outcomes: list[Outcome] = []
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, dir, ignore_errors=True)
        stack.enter_context(contextlib.contextmanager(wrong_clock)(dir / "clock"))
        local = LocalRun.begin(dir / "run", text, "kafka", overrides=("checkpointer.keep=50",))
        stack.callback(local.stop)
        if small_disk(Path(local.config.checkpointer.root), DISK_MB):
            stack.callback(give_back_disk, Path(local.config.checkpointer.root))
        with console.status("starting the roles (the first run on a machine compiles kernels)"):
            local.start()
        watch = Watch(local.config)
        stack.callback(watch.close)
        site = Site(local.log(), local.config.stream, rate, seed=1)
        site.start()
        run = Run(local, site, watch, console)
        watch.wait_for(local.config.stream.partitions, FOLLOW_S)
        run.measure()
        console.log(f"without a fault: {run.usual_s:.1f} s from the log to every shard")
        for kind in FAULTS * times:
            fault = kind(local)
            if only and not any(word in fault.name for word in only):
                continue
            outcomes.append(one := run.one(fault))
            console.log(f"{one.name:24} named after {one.seconds_to_named} s, follows after {one.seconds_to_follow} s")
            console.log(f"    {one.skipped or one.said} {one.typed}", markup=False)
        counted = run.count()
    followed = [one.seconds_to_follow for one in outcomes if not one.skipped]
    return {
        "silent": sum(one.silent for one in outcomes),
        "seconds_to_follow_max": None if None in followed else max((s for s in followed if s is not None), default=0.0),
        "not_following": sum(s is None for s in followed),
        "skipped": sum(bool(one.skipped) for one in outcomes),
        **counted,
        "usual_s": round(run.usual_s, 2),
        "faults": [asdict(one) for one in outcomes],
        "seconds": round(time.monotonic() - began, 1),
        "load_before": [round(x, 1) for x in load],
        "cpus": os.cpu_count(),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--times", type=int, default=1, help="how often each fault (1)")
    parser.add_argument("--only", nargs="*", default=(), metavar="NAME", help="faults whose name holds one of these")
    parser.add_argument("--rate", type=float, default=RATE, help=f"impressions a second ({RATE:g})")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args(arguments)
    result = bench(chosen.times, chosen.only, chosen.rate, Console(stderr=True))
    if chosen.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            if key != "faults":
                print(f"{key:24} {value}")
    return 0 if not result["silent"] and not result["not_following"] and not result["doubled"] else 1


if __name__ == "__main__":
    sys.exit(main())
