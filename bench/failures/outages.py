"""Does anything around the processes stop them, and is it said? Stores, brokers, disks, clocks and
topics fail one after another under real processes on Apache Kafka, while events flow.

    python -m bench.outages [--json] [--times 1] [--only NAME ...] [--rate 100] [--prometheus
    PROGRAM] [--keep FOLDER]

Each fault lasts until `everspun status` names it (exit code 1) and, where this machine has a
Prometheus, an alert of `deploy/monitoring` fires that did not before, a minute at most; then it
ends, or the command that status names is typed. `seconds_to_follow_max` is the longest time from
then until everything that the log held has been learned by every shard and the replica serves
something newer, beyond what that takes without a fault. `silent` counts faults that status did not
name within a minute, or no alert; without a Prometheus alerts are not judged: `silent` and
`silent_alerts` are null then, and `silent_status` counts those of status. At the end every event is
found by id in its class (learned, rejected, lost by an operator's word, quarantined); `missing` are
in none. Takes about 15 minutes and 4 GB.
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

from bench.failures.outages_alerts import Alerts, Exported, prometheus_at
from bench.failures.outages_classes import Place, classes, read_kept_out
from bench.failures.outages_faults import (
    FAULTS,
    Fault,
    give_back_disk,
    served_version,
    small_disk,
    wrong_clock,
)
from bench.failures.recovery_check import read_events
from bench.failures.recovery_site import Site
from bench.failures.recovery_watch import Watch
from checkpointer.store import Catalogue, open_store
from everspun import LocalRun

RATE, BASELINES = 100.0, 3
#: How long a fault may last unnamed, and how long a run may take to follow again before it is given
#: up.
NAMED_S, FOLLOW_S = 60.0, 180.0
#: A fault lasts at least so long, though it is named sooner: some do harm only with time.
LASTS_S = 10.0
#: How long a run that begins may still be named, and what is over: there, some rules look back for
#: longer.
CALM_S, CALM_BETWEEN_S = 30.0, 25.0
#: Of the checkpoints' file system. The run writes some 20 MB of them.
DISK_MB = 256
#: What a person types where something must be decided, as status writes it.
COMMAND = re.compile(r"everspun (?:lost|clock|clocks) [^\n;`]+")
TYPED_MAX = 3
#: In the place of what `recovery.toml` says for kills: here clocks are wrong, and outages last a
#: minute.
OVERRIDES = ("checkpointer.keep=50", "stream.jump_max_ms=600000", "stream.skew_ms=1000")


@dataclass
class Outcome:
    """One fault, as it came about."""

    name: str
    said: str = ""  # by status, first of all that is about it
    seconds_to_named: float | None = None
    alert: str = ""
    seconds_to_alert: float | None = None
    typed: str = ""
    seconds_to_follow: float | None = None
    skipped: str = ""
    heals_itself: bool = False
    alerts_watched: bool = False

    @property
    def is_to_be_told(self) -> bool:
        return not self.skipped and not self.heals_itself

    @property
    def silent(self) -> bool:
        return self.is_to_be_told and not self.said_everywhere

    @property
    def said_everywhere(self) -> bool:
        return self.seconds_to_named is not None and (
            not self.alerts_watched or self.seconds_to_alert is not None
        )


@dataclass
class Run:
    """One run of the bench over a started pipeline."""

    local: LocalRun
    site: Site
    watch: Watch
    console: Console
    alerts: Alerts | None = None
    usual_s: float = 0.0  # from the log to every shard and to the replica, without a fault

    def status(self) -> tuple[int, list[str]]:
        """Exit code of `everspun status`, and what it calls broken."""
        done = self._everspun("status", "--json")
        with contextlib.suppress(ValueError):
            return done.returncode, list(
                json.loads(done.stdout.splitlines()[-1])["broken"]
            ) if done.stdout else []
        return done.returncode, [(done.stdout + done.stderr).strip()[-300:]]

    def measure(self) -> None:
        """How long the log takes to every shard when nothing is wrong, and that status then says
        so."""
        self.watch.wait_for(self.local.config.stream.partitions, FOLLOW_S)
        end = time.monotonic() + FOLLOW_S
        while (
            len(self.site.delivered) < self.local.config.stream.partitions
            and time.monotonic() < end
        ):
            time.sleep(0.1)
        # the first one waits for kernels, for consumer groups, and for a first checkpoint
        self._follow_s()
        took = [self._follow_s() for _ in range(BASELINES)]
        if None in took:
            raise RuntimeError(
                f"it does not move before any fault: {self.watch.describe(self.site.delivered)}"
            )
        self.usual_s = statistics.median(s for s in took if s is not None)
        if not self._calm():
            raise RuntimeError(
                f"a healthy run is called wrong: {self.status()[1]}, {self._firing()}"
            )

    def _calm(self, within_s: float = CALM_S) -> bool:
        """Whether nothing is named and no alert fires, soon."""
        end = time.monotonic() + within_s
        while self._firing() or self.status()[0]:
            if time.monotonic() > end:
                return False
            time.sleep(1.0)
        return True

    def _firing(self) -> dict[str, float]:
        return self.alerts.firing() if self.alerts is not None else {}

    def one(self, fault: Fault) -> Outcome:
        outcome = Outcome(fault.name, skipped=fault.why_not(), heals_itself=fault.heals_itself)
        outcome.alerts_watched = self.alerts is not None
        if outcome.skipped:
            return outcome
        self._calm(CALM_BETWEEN_S)  # what an earlier fault left is not this one's
        before = {line.split(":")[0] for line in self.status()[1]} | set(self._firing())
        began = time.monotonic()
        fault.begin()
        try:
            self._until_named(fault, outcome, before, began)
        finally:
            fault.end()
        if fault.command:
            outcome.typed = self._type()
        if (took := self._follow_s()) is not None:
            outcome.seconds_to_follow = round(max(0.0, took - self.usual_s), 1)
        return outcome

    def _until_named(self, fault: Fault, outcome: Outcome, before: set[str], began: float) -> None:
        longest = LASTS_S if fault.heals_itself else NAMED_S
        while (passed := time.monotonic() - began) < longest:
            fault.go_on()
            code, broken = self.status()
            fresh = [line for line in broken if line.split(":")[0] not in before]
            if code and fresh and outcome.seconds_to_named is None:
                outcome.seconds_to_named, outcome.said = (
                    round(time.monotonic() - began, 1),
                    fresh[0][:300],
                )
            fired = {name: at for name, at in self._firing().items() if name not in before}
            if fired and outcome.seconds_to_alert is None:
                outcome.seconds_to_alert = round(max(0.0, min(fired.values()) - began), 1)
            outcome.alert = ", ".join(sorted(fired)) or outcome.alert
            if outcome.said_everywhere and passed >= LASTS_S:
                return

    def _type(self) -> str:
        """Type the commands that status names, until it names none: one may lead to the next."""
        typed: list[str] = []
        for _ in range(TYPED_MAX):
            commands = {
                found.group(0).strip()
                for line in self.status()[1]
                for found in COMMAND.finditer(line)
            }
            for command in sorted(commands):
                done = self._everspun(*filled(command))
                typed.append(
                    command if done.returncode == 0 else f"{command} -> {done.stdout.strip()[:200]}"
                )
            if not commands:
                break
        return "; ".join(typed)

    def _follow_s(self, timeout_s: float = FOLLOW_S) -> float | None:
        """From now until all that the log confirmed by now is learned everywhere, and something
        newer is served."""
        began, served = time.monotonic(), served_version(self.local)
        if self.watch.seconds_beyond(dict(self.site.delivered), began, timeout_s) is None:
            return None
        while served_version(self.local) <= served:
            if time.monotonic() - began > timeout_s:
                return None
            time.sleep(0.2)
        return time.monotonic() - began

    def _everspun(self, *words: str) -> "subprocess.CompletedProcess[str]":
        command = everspun_command(self.local, *words)
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def count(self) -> dict[str, int]:
        """Every event by id and by class, against the site's own list."""
        self.site.stop(int(FOLLOW_S * 1_000))
        if self.watch.seconds_beyond(dict(self.site.delivered), time.monotonic(), FOLLOW_S) is None:
            raise RuntimeError(f"not all learned: {self.watch.describe(self.site.delivered)}")
        config = self.local.config
        catalogue = Catalogue(open_store(config.checkpointer.root), config.model.name)
        reader, begin = self.local.log().reader(), catalogue.begun() or {}
        try:
            events = read_events(reader, config.stream, begin)
            kept = read_kept_out(reader, config.stream, begin)
        finally:
            reader.close()
        placed = {id_: Place(*at) for id_, at in self.site.placed.items()}
        counted = classes(self.site.sent, placed, events, kept)
        return {"impressions": len(self.site.sent), **counted}


def filled(command: str) -> list[str]:
    """The words behind `everspun` of a command as status names it, with what a person would fill
    in."""
    words = [word if word != "..." else "bench" for word in shlex.split(command)[1:]]
    return words if "--reason" in words else [*words, "--reason", "bench"]


def everspun_command(local: LocalRun, *words: str) -> list[str]:
    """The command line that a person would type beside this run."""
    sets = [part for override in local.launcher.overrides for part in ("--set", override)]
    return [sys.executable, "-m", "everspun", *words, "--config", str(local.config_path), *sets]


def log_outcome(console: Console, one: Outcome) -> None:
    """What became of one fault, in two lines."""
    console.log(
        f"{one.name:24} named after {one.seconds_to_named} s, alert after "
        f"{one.seconds_to_alert} s, "
        f"follows after {one.seconds_to_follow} s"
    )
    console.log(f"    {one.skipped or one.said} | {one.alert} | {one.typed}", markup=False)


def silences(outcomes: Sequence[Outcome], alerts_judged: bool) -> dict[str, int | None]:
    """How many faults were not told, by whom; None = nobody looked."""
    told = [one for one in outcomes if one.is_to_be_told]
    by_alerts = sum(one.seconds_to_alert is None for one in told)
    return {
        "silent": sum(one.silent for one in told) if alerts_judged else None,
        "silent_status": sum(one.seconds_to_named is None for one in told),
        "silent_alerts": by_alerts if alerts_judged else None,
    }


def bench(
    times: int,
    only: Sequence[str],
    rate: float,
    console: Console,
    prometheus: str = "",
    keep: Path | None = None,
) -> dict[str, Any]:
    """Run it. `prometheus`: the program; "" = alerts are not watched. Raises what ended a
    process for good."""
    dir = keep or Path(tempfile.mkdtemp(prefix="everspun-outages-"))
    text = (Path(__file__).parent / "recovery.toml").read_text()
    load, began = os.getloadavg(), time.monotonic()
    outcomes: list[Outcome] = []
    with contextlib.ExitStack() as stack:
        if keep is None:
            stack.callback(shutil.rmtree, dir, ignore_errors=True)
        stack.enter_context(contextlib.contextmanager(wrong_clock)(dir / "clock"))
        local = LocalRun.begin(dir / "run", text, "kafka", overrides=OVERRIDES)
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
        if prometheus:
            stack.callback(Exported(local.launcher, local.config.stream).close)
            run.alerts = Alerts(prometheus, local.dir, dir / "prometheus")
            stack.callback(run.alerts.close)
        run.measure()
        console.log(
            f"without a fault: {run.usual_s:.1f} s from the log to every shard and to the replica"
        )
        for kind in FAULTS * times:
            fault = kind(local)
            if only and not any(word in fault.name for word in only):
                continue
            outcomes.append(one := run.one(fault))
            log_outcome(console, one)
        counted = run.count()
    followed = [one.seconds_to_follow for one in outcomes if not one.skipped]
    return {
        **silences(outcomes, run.alerts is not None),
        "seconds_to_follow_max": None
        if None in followed
        else max((s for s in followed if s is not None), default=0.0),
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
    parser.add_argument(
        "--only", nargs="*", default=(), metavar="NAME", help="faults whose name holds one of these"
    )
    parser.add_argument("--rate", type=float, default=RATE, help=f"impressions a second ({RATE:g})")
    parser.add_argument(
        "--prometheus",
        default="",
        metavar="PROGRAM",
        help="else that of the PATH, where there is one",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="run in this folder, and leave it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args(arguments)
    program = prometheus_at(chosen.prometheus)
    result = bench(
        chosen.times,
        chosen.only,
        chosen.rate,
        Console(stderr=True, width=200),
        program,
        chosen.keep,
    )
    if chosen.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            if key != "faults":
                print(f"{key:24} {value}")
    wrong = ("silent", "silent_status", "not_following", "doubled", "missing")
    return 1 if any(result[key] for key in wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
