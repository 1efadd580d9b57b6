"""Does a bad record cost more than itself? Records that nobody can use, of all kinds and on all
topics, among good events: real processes on Apache Kafka, killed with -9 meanwhile, and every event
counted afterwards.

    python -m bench.poison [--json] [--good 1000000] [--bad 100000] [--kills 12] [--seed N] [--rate
    2000]

First good events alone, then among bad records, then with kills besides. `lost`, `doubled` and
`wrong` are counted by id against the site's own list; `stopped_for_good` counts chains that do not
reach their ends and processes that stay away. `label_lag_ratio`: the 99th percentile of how long
after its deadline a label stands in the log, among bad records to without them, both before the
kills. `bad_record_cpu_ms_max`: thread CPU of decoding one record of up to 4 MiB in this process;
`bad_record_cpu_ratio_max`: to a good one of its size. `memory_over_idle_mb_max`: the most that any
process took above what it held before the first event. `quarantine_wrong`: bad events that do not
stand in quarantine with their bytes and a reason, and good ones that do. Exit code 1 when something
is off. Takes about twenty minutes and 8 GB.
"""

import contextlib
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.attacks.poison_check import check_quarantine, label_lags, p99_s
from bench.attacks.poison_cost import Cost, costs
from bench.attacks.poison_inputs import Now
from bench.attacks.poison_writer import Poison
from bench.failures.recovery import STUCK_S, Failed, Run
from bench.failures.recovery_check import Events, read_events, wrong_labels
from bench.failures.recovery_command import arguments, drawn, report, surroundings
from bench.failures.recovery_plan import BROKER, plan
from bench.failures.recovery_site import Site
from bench.failures.recovery_watch import Watch
from bench.measuring.machine import Memory
from everspun import LocalRun
from everspun.commands.system import full_audit
from everspun.launcher import RunStopped
from stream.log import wall_clock_ms

GOOD, BAD, KILLS, RATE = 1_000_000, 100_000, 12, 2_000.0
#: Of the good events so many come without bad ones, and so many among them before anybody is
#: killed.
ALONE_SHARE, BESIDE_SHARE = 0.2, 0.4
#: People to an impression a second: nobody looks at so much that the fraud filter takes him for a
#: machine.
USERS_PER_RATE = 30
#: Good events go on for so long behind the last bad one: a click is quarantined once an impression
#: stands behind it.
BEHIND_S = 3.0
#: Labels come to themselves for so long before anything is measured.
WARM_S = 10.0
#: Bounds of what is promised.
BOUNDS = {
    "lost": 0,
    "doubled": 0,
    "stopped_for_good": 0,
    "wrong": 0,
    "quarantine_wrong": 0,
    "label_lag_ratio": 2.0,
    "bad_record_cpu_ms_max": 300.0,
    "bad_record_cpu_ratio_max": 3.0,
    "memory_over_idle_mb_max": 512.0,
}


@dataclass
class PoisonRun:
    """One run over a started pipeline: good events alone, among bad ones, and with kills
    besides."""

    run: Run
    poison: Poison
    good: int
    rate: float
    memory: Memory
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)  # arrival, ms
    before: int = 0  # events sent while the pipeline came to itself
    stopped: list[str] = field(default_factory=list)  # what did not come to its end, a line each

    @property
    def events(self) -> int:
        """Sent since the first span began."""
        return self._sent() - self.before

    def _sent(self) -> int:
        return len(self.run.site.sent) + len(self.run.site.clicked)

    def all(self) -> None:
        time.sleep(WARM_S)
        console, self.before = self.run.console, self._sent()
        with self._noted("alone"):
            self._until_events(ALONE_SHARE, "good events alone")
        seconds = (1 - ALONE_SHARE) * self.good / (self.rate * 1.45)  # clicks come besides
        self.poison.begin(self.poison.count / max(1.0, seconds))
        with self._noted("beside"):
            self._until_events(ALONE_SHARE + BESIDE_SHARE, "among bad records")
        last = dict(self.run.site.delivered)  # labelled before a kill, or its lag were a kill's
        self.run._until(
            lambda: self.run.watch.beyond(last),
            lambda: f"not learned: {self.run.watch.describe(last)}",
        )
        with self._noted("killed"):
            self.run.kill_all()
            self._until_events(1.0, "after the kills")
        self.poison.join(2 * STUCK_S)
        time.sleep(BEHIND_S)
        console.log(
            f"{self.events:,} good events, {sum(self.poison.kinds.values()):,} bad records in the "
            f"log"
        )

    @contextlib.contextmanager
    def _noted(self, name: str) -> Any:
        began = _now_ms()
        yield
        self.spans[name] = (began, _now_ms())

    def _until_events(self, share: float, what: str) -> None:
        run = self.run
        with run.console.status(what) as status:
            while self.events < share * self.good:
                run._look()
                if self.poison.failure is not None:
                    raise self.poison.failure
                behind = run.watch.describe(run.site.delivered)
                status.update(
                    f"{what}: {self.events:,} of {self.good:,} good, {self.poison.made:,} bad; "
                    f"{behind}"
                )
                time.sleep(0.2)
        run.console.log(f"{what}: {self.events:,} good events, {self.poison.made:,} bad records")

    def drain(self) -> None:
        """To the end of everything; what does not come there is noted."""
        self.run.planted = self.poison.written
        try:
            self.run.drain()
        except (Failed, RunStopped, TimeoutError) as error:
            self.stopped.append(str(error))

    # --- the result
    # ----------------------------------------------------------------------------------------------

    def judge(self) -> dict[str, Any]:
        run, planted = self.run, self.poison.written
        config, begun = run.local.config, run.catalogue.begun() or {}
        prefix = f"e{run.site.seed}-"
        reader = run.local.log().reader()
        try:
            events = read_events(reader, config.stream, begun, planted)
            wrong = wrong_labels(reader, config.stream, events, planted, prefix)
            quarantine = check_quarantine(reader, config.stream, planted)
            arrival_ms, lag_ms = label_lags(reader, config.stream, begun, planted)
        finally:
            reader.close()
        audit = full_audit(config, run.local.log(), at_rest=True)
        lags = {name: p99_s(lag_ms, arrival_ms, span) for name, span in self.spans.items()}
        return {
            **_counts(events, run, prefix),
            "stopped_for_good": len(self.stopped) + sum(h.resumed_s is None for h in run.happened),
            "stopped": self.stopped,
            "wrong": wrong,
            "label_lag_ratio": round(lags["beside"] / max(0.001, lags["alone"]), 2),
            "label_lag_p99_s": lags,
            "memory_over_idle_mb_max": round(max(self.memory.over_idle_mb().values()), 1),
            "memory_over_idle_mb": self.memory.over_idle_mb(),
            "bad_records": sum(self.poison.kinds.values()),
            "bad_kinds": len(self.poison.kinds),
            "bad_refused": dict(self.poison.refused),
            "bad_events": quarantine.expected,
            "quarantined": quarantine.found,
            "quarantined_fuzz": quarantine.fuzz,
            "quarantine_wrong": quarantine.wrong,
            "quarantine_wrong_first": (quarantine.missing + quarantine.bytes_wrong)[:5],
            "kills": len(run.happened),
            "audit_right": audit.right,
            "audit_wrong": [f"{f.check}: {f.found}" for f in audit.findings if not f.right],
        }


def _counts(events: Events, run: Run, prefix: str) -> dict[str, Any]:
    site = run.site
    return {
        "good_events": len(site.sent) + len(site.clicked),
        "impressions": len(site.sent),
        "lost": len(events.lost(site.sent)),
        "doubled": sum(one.startswith(prefix) for one in events.doubled()),
        "holes": sum(one.holes for one in events.partitions.values()),
        "rejected": len(events.rejected),
    }


def decoders(local: LocalRun, seed: int, console: Console) -> dict[str, Any]:
    """What decoding bad records costs, in this process."""
    dearest: list[Cost] = []
    with console.status("decoding bad records of up to 4 MiB") as status:
        now = Now(_now_ms(), 0, local.config.stream.partitions)
        for cost in costs(local.config.stream, random.Random(seed), now):
            status.update(
                f"decoding bad records: {cost.kind} of {cost.size:,} bytes took {cost.cpu_ms:.1f} "
                f"ms"
            )
            dearest.append(cost)
    by_ms, by_ratio = max(dearest, key=lambda c: c.cpu_ms), max(dearest, key=lambda c: c.ratio)
    return {
        "bad_record_cpu_ms_max": round(by_ms.cpu_ms, 1),
        "bad_record_cpu_ms_max_of": f"{by_ms.kind}, {by_ms.size} bytes",
        "bad_record_cpu_ratio_max": round(by_ratio.ratio, 2),
        "bad_record_cpu_ratio_max_of": f"{by_ratio.kind}, {by_ratio.size} bytes",
    }


def _now_ms() -> int:
    return wall_clock_ms()


def bench(
    good: int, bad: int, kills: int, seed: int, rate: float, broker: str, console: Console
) -> tuple[dict[str, Any], Path]:
    """Run it. Returns the result and the folder of the run. Raises Failed, and what ended a
    process for good."""
    dir = Path(tempfile.mkdtemp(prefix="everspun-poison-"))
    text = Path(__file__).with_suffix(".toml").read_text()
    with surroundings() as where, contextlib.ExitStack() as stack:
        console.log(f"seed {seed}; run folder {dir}")
        local = LocalRun.begin(dir, text, broker)
        stack.callback(local.stop)
        cost = decoders(local, seed, console)
        with console.status("starting the roles (the first run on a machine compiles kernels)"):
            local.start()
        time.sleep(2)
        memory = Memory(
            lambda: {name: one.popen.pid for name, one in local.launcher.processes.items()}
        )
        stack.callback(memory.close)
        watch = Watch(local.config)
        stack.callback(watch.close)
        site = Site(
            local.log(), local.config.stream, rate, seed, users=max(300, int(USERS_PER_RATE * rate))
        )
        processes = {role: count for role, count in local.launcher.counts().items() if count} | {
            BROKER: 1
        }
        run = Run(local, site, watch, plan(kills, 0, seed, processes), console)
        whole = PoisonRun(run, Poison(local.config.stream, bad, seed), good, rate, memory)
        site.start()
        watch.wait_for(local.config.stream.partitions, STUCK_S)
        run.measure_without_kills()
        whole.all()
        whole.drain()
        with console.status("counting"):
            result = whole.judge()
        result = {"seed": seed, **result, **cost}
        result |= where(local, rate)
    return result, dir


def beyond(result: dict[str, Any]) -> list[str]:
    """The keys of the result that are above what is promised."""
    return [key for key, bound in BOUNDS.items() if result[key] > bound] + (
        [] if result["audit_right"] else ["audit"]
    )


def main(typed: list[str] | None = None) -> int:
    parser = arguments(__doc__, RATE)
    parser.add_argument("--good", type=int, default=GOOD, help=f"impressions and clicks ({GOOD:,})")
    parser.add_argument(
        "--bad", type=int, default=BAD, help=f"records that nobody can use ({BAD:,})"
    )
    parser.add_argument(
        "--kills", type=int, default=KILLS, help=f"processes killed meanwhile ({KILLS})"
    )
    chosen = parser.parse_args(typed)
    seed = drawn(chosen.seed)
    console = Console(stderr=True)
    result, dir = bench(
        chosen.good, chosen.bad, chosen.kills, seed, chosen.rate, chosen.broker, console
    )
    return report(result, beyond(result), dir, chosen, console)


if __name__ == "__main__":
    sys.exit(main())
