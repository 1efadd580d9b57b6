"""Is the promise true? Real processes on Apache Kafka, killed with -9 at random while events flow,
and every event counted afterwards.

    python -m bench.recovery [--json] [--kills 24] [--freezes 3] [--stores 3] [--workers 2]
    [--seed N] [--rate 150]

`lost` and `doubled` are counted by id against the site's own list; that each event changed a shard
exactly once is read from parameters: the model has one row an event, which every training of it
raises by 1. A kill is recovered from once every chain on every shard has moved beyond where the log
stood at the kill. Kills hit workers of the replica and its follower too, and some come while the
store of checkpoints is away, slow or full. `mixtures` counts answers of the replica that are not
what the checkpoint they name holds; `seconds_to_follow` is the time from the last end of a burst
until every replica serves the newest checkpoint, by all of its workers. Exit code 1 when something
is off. Takes about eight minutes and 4 GB.
"""

import contextlib
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from rich.console import Console

from bench.failures.outages_faults import Fault, StoreAway, StoreFull, give_back_disk, small_disk
from bench.failures.recovery_check import (
    Coverage,
    Events,
    Parameters,
    Planted,
    read_events,
    wrong_labels,
)
from bench.failures.recovery_command import arguments, drawn, report, surroundings
from bench.failures.recovery_plan import BROKER, FOLLOWER, STORE_FAULTS, WORKER, Kill, plan
from bench.failures.recovery_serving import LOOK_S, Asker, followed_after, mixtures
from bench.failures.recovery_site import Site
from bench.failures.recovery_watch import Watch
from bench.failures.slow_store import StoreSlow, slowable_store
from bench.measuring.machine import child_named
from checkpointer.store import Catalogue, open_store
from everspun import LocalRun
from everspun.commands.system import full_audit
from everspun.status import scrape
from learners.models import make_model

KILLS, FREEZES, STORES, WORKERS, RATE = 24, 3, 3, 2, 150.0
#: Every replica is to follow again within this from the end of a fault.
FOLLOW_S, FOLLOWED_S_MAX = 10.0, 60.0
#: A kill waits so long at most for the moment at which it is to hit.
AIM_S, AIM_LOOK_S = 3.0, 0.002
#: Of the checkpoints' file system.
DISK_MB = 512
STORE: dict[str, type[Fault]] = dict(
    zip(STORE_FAULTS, (StoreAway, StoreSlow, StoreFull), strict=True)
)
BASELINES = 5
#: A pipeline in which nothing at all moves for this long is stuck; a slow one on a busy machine is
#: waited for.
STUCK_S = 120.0
#: What must be 0 in a right run.
NOUGHT = ("lost", "doubled", "strangers", "holes", "labels_wrong", "rows_not_one", "not_resumed")
NOUGHT_SERVED = ("mixtures", "not_followed")


class Failed(RuntimeError):
    """The run could not be brought to its end; the message says where it stuck."""


@dataclass
class Happened:
    """One kill, as it came about."""

    kill: Kill
    at: float  # monotonic seconds
    mark: dict[str, int]
    while_recovering: bool
    ended: float = 0.0  # when what was done was over
    aimed: str = ""  # "cut", while a checkpoint was written; "swap", as one was published
    resumed_s: float | None = None


@dataclass
class Run:
    """One run of the bench over a started pipeline."""

    local: LocalRun
    site: Site
    watch: Watch
    kills: list[Kill]
    console: Console
    happened: list[Happened] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    broker_failure: BaseException | None = None
    planted: Planted = field(default_factory=dict)
    asker: Asker | None = None

    def measure_without_kills(self) -> None:
        """How long the same measure takes when nobody dies: window, grace and all."""
        chains = self.local.config.stream.partitions
        self._until(lambda: len(self.site.delivered) == chains, lambda: "the site delivers nothing")
        for _ in range(BASELINES):
            seconds = self.watch.seconds_beyond(
                dict(self.site.delivered), time.monotonic(), STUCK_S
            )
            if seconds is None:
                raise Failed("the shards do not move before any kill")
            self.baseline.append(seconds)
        self.console.log(
            f"without kills: {statistics.median(self.baseline):.1f} s from the log to every shard"
        )

    def kill_all(self) -> None:
        for number, kill in enumerate(self.kills):
            if kill.first:
                self._recover()
            self._wait(kill.after_s)
            self._kill(kill)
            one = self.happened[-1]
            others = "while another recovers" if one.while_recovering else ""
            self.console.log(f"{number + 1:>3}/{len(self.kills)} {kill.said:28} {others}")
        self._recover()

    def _kill(self, kill: Kill) -> None:
        self._look()
        recovering = {h.kill.role for h in self.happened if h.resumed_s is None}
        aimed, mark = self._aim(kill), dict(self.site.delivered)
        if kill.role == BROKER:
            self.local.broker.kill()
            threading.Thread(
                target=self._broker_returns, args=(kill.down_s,), name="broker", daemon=True
            ).start()
        elif kill.role in STORE:
            fault = STORE[kill.role](self.local)
            fault.begin()
            threading.Timer(kill.down_s, fault.end).start()
        elif kill.role in (WORKER, FOLLOWER):
            self._kill_part(f"worker {kill.index}" if kill.role == WORKER else FOLLOWER)
        else:
            self._kill_role(kill)
        now = time.monotonic()
        lasts_s = kill.frozen_s or kill.down_s
        others = bool(recovering - {kill.role})
        self.happened.append(Happened(kill, now, mark, others, now + lasts_s, aimed))

    def _kill_role(self, kill: Kill) -> None:
        launcher, name = self.local.launcher, f"{kill.role}-{kill.index}"
        self._until(lambda: launcher.alive()[name], lambda: f"{name} was not started again")
        if kill.frozen_s:
            frozen = launcher.freeze(kill.role, kill.index)
            threading.Timer(kill.frozen_s, frozen.send_signal, (signal.SIGCONT,)).start()
        else:
            launcher.kill(kill.role, kill.index)

    def _kill_part(self, name: str) -> None:
        """A process of the first replica."""

        def part() -> int:
            return child_named(self.local.launcher.processes["replica-0"].popen.pid, name)

        self._until(part, lambda: f"the replica has no {name}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(part() or -1, signal.SIGKILL)

    def _aim(self, kill: Kill) -> str:
        """Wait until what is to be killed is at its work; return at which."""
        if kill.role in (BROKER, *STORE) or kill.frozen_s:
            return ""
        is_reader = kill.role in ("replica", WORKER, FOLLOWER)
        if not is_reader and kill.role not in ("checkpointer", "shard"):
            return ""
        config = self.local.config
        folder = Path(config.checkpointer.root, config.model.name)
        before, end = _published_at(folder), time.monotonic() + AIM_S
        while time.monotonic() < end:
            if is_reader and _published_at(folder) > before:
                return "swap"
            if not is_reader and _is_writing(folder):
                return "cut"
            time.sleep(AIM_LOOK_S)
        return ""

    def _broker_returns(self, after_s: float) -> None:
        time.sleep(after_s)
        try:
            self.local.broker.restart()
        except BaseException as error:
            self.broker_failure = error

    def _recover(self) -> None:
        """Until all kills so far are recovered from."""
        if not self.happened:
            return
        self._until(
            lambda: all(h.resumed_s is not None for h in self.happened),
            lambda: f"not recovered: {self.watch.describe(self.site.delivered)}",
        )
        self._follow()
        self.console.log(
            f"        recovered, the last one after {self.happened[-1].resumed_s:.1f} s"
        )

    def _follow(self) -> None:
        """Until every replica follows again; for so long at most."""
        end = time.monotonic() + FOLLOWED_S_MAX
        while self.asker is not None and time.monotonic() < end:
            if followed_after(self.asker.looks, max(h.ended for h in self.happened)) is not None:
                return
            self._wait(LOOK_S)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._look()
            time.sleep(min(0.05, max(0.0, end - time.monotonic())))

    def _look(self) -> None:
        """Note which kills have been recovered from, and raise what went wrong beside."""
        self.local.launcher.raise_if_failed()
        asker = None if self.asker is None else self.asker.failure
        for failure in (self.broker_failure, self.site.failure, self.watch.failure, asker):
            if failure is not None:
                raise failure
        for one in self.happened:
            if one.kill.role in STORE and time.monotonic() < one.ended:
                continue
            if one.resumed_s is None and (at := self.watch.beyond_at(one.mark, one.at)) is not None:
                one.resumed_s = at - one.at

    def _until(self, holds: Callable[[], bool], otherwise: Callable[[], str]) -> None:
        """Raises Failed once nothing has moved for STUCK_S."""
        ends, since = self.watch.ends, time.monotonic()
        while not holds():
            self._look()
            if self.watch.ends != ends:
                ends, since = self.watch.ends, time.monotonic()
            if time.monotonic() - since > STUCK_S:
                raise Failed(f"stuck for {STUCK_S:g} s: {otherwise()}")
            time.sleep(0.05)

    # --- the end
    # ----------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Everything sent is labelled and learned; then the labelers end, and a last checkpoint
        holds it all."""
        watch = self.watch
        with self.console.status("draining"):
            self.site.stop(int(STUCK_S * 1_000))
            last = dict(self.site.delivered)
            self._until(
                lambda: watch.beyond(last), lambda: f"not all learned: {watch.describe(last)}"
            )
            for role in ("labeler", "fraud"):
                self.local.launcher.retire(role)
            ends = self._ends()
            self._until(lambda: watch.at(ends), lambda: f"not at the end: {watch.describe(ends)}")
            self._until(
                lambda: self._published(ends), lambda: "no checkpoint of the end was published"
            )
            self._until(
                self._serves_published, lambda: "the replica does not serve the last checkpoint"
            )

    @property
    def catalogue(self) -> Catalogue:
        config = self.local.config
        return Catalogue(open_store(config.checkpointer.root), config.model.name)

    def _ends(self) -> dict[str, int]:
        """Where the chains end in the log."""
        reader = self.local.log().reader()
        try:
            events = read_events(
                reader, self.local.config.stream, self.catalogue.begun() or {}, self.planted
            )
        finally:
            reader.close()
        return {chain: one.end for chain, one in events.partitions.items()}

    def _published(self, ends: dict[str, int]) -> bool:
        published = self.catalogue.published()
        return (
            published is not None
            and ends.items() <= self.catalogue.manifest(published.name).vector.items()
        )

    def _serves_published(self) -> bool:
        published = self.catalogue.published()
        served = scrape(self.local.dir)["replica-0"].value("everspun_served_version", -1)
        return published is not None and served == published.number

    def judge(self, seed: int) -> dict[str, Any]:
        """All keys of the result."""
        config, catalogue = self.local.config, self.catalogue
        reader = self.local.log().reader()
        try:
            events = read_events(reader, config.stream, catalogue.begun() or {})
            labels_wrong = wrong_labels(reader, config.stream, events)
        finally:
            reader.close()
        parameters = Parameters(make_model(config.model), events)
        covered = [
            parameters.check(catalogue, e) for e in catalogue.entries() if e.manifest is not None
        ]
        audit = full_audit(config, self.local.log(), at_rest=True)
        wrong = [f"{f.check}: {f.found}" for f in audit.findings if not f.right]
        return {
            **self._of_kills(seed),
            **self._of_events(events, covered),
            **self._of_answers(self.asker, events),
            "labels_wrong": labels_wrong,
            "audit_right": audit.right,
            "audit_wrong": wrong,
        }

    def _of_kills(self, seed: int) -> dict[str, Any]:
        kills = [h for h in self.happened if not h.kill.frozen_s and h.kill.role not in STORE]
        seconds: dict[str, list[float]] = {}
        for one in kills:
            if one.resumed_s is not None:
                seconds.setdefault(one.kill.role, []).append(one.resumed_s)
        everything = [s for of_role in seconds.values() for s in of_role]
        return {
            "seed": seed,
            "kills": len(kills),
            "kills_by_role": dict(Counter(h.kill.role for h in kills)),
            "kills_while_recovering": sum(h.while_recovering for h in kills),
            "kills_during_a_cut": sum(h.aimed == "cut" for h in kills),
            "kills_at_a_swap": sum(h.aimed == "swap" for h in kills),
            "freezes_by_role": dict(Counter(h.kill.role for h in self.happened if h.kill.frozen_s)),
            "store_faults": dict(
                Counter(h.kill.role for h in self.happened if h.kill.role in STORE)
            ),
            "not_resumed": sum(h.resumed_s is None for h in self.happened),
            "seconds_to_resume_p50": _p50(everything),
            "seconds_to_resume_max": round(max(everything, default=0.0), 2),
            "seconds_to_resume_by_role": {
                r: {"p50": _p50(s), "max": round(max(s), 2)} for r, s in seconds.items() if s
            },
            "seconds_without_a_kill_p50": _p50(self.baseline),
        }

    def _of_answers(self, asker: Asker | None, events: Events) -> dict[str, Any]:
        if asker is None:
            return {}
        vectors = {
            e.name: e.manifest.vector for e in self.catalogue.entries() if e.manifest is not None
        }
        wrong = mixtures(asker.answers, vectors, events)
        ended: list[float] = []  # of each burst
        for one in self.happened:
            before = 0.0 if one.kill.first else ended.pop()
            ended.append(max(before, one.ended))
        followed = [followed_after(asker.looks, end) for end in ended]
        seconds = [s for s in followed if s is not None and s < FOLLOWED_S_MAX]
        return {
            "answers": len(asker.answers),
            "answers_not_got": asker.unanswered,
            "answers_of_fallback": asker.fallbacks,
            "mixtures": len(wrong),
            "mixed": [one._asdict() for one in wrong[:3]],
            "seconds_to_follow_p50": _p50(seconds),
            "seconds_to_follow_max": round(max(seconds, default=0.0), 2),
            "followed_within_10_s": sum(s <= FOLLOW_S for s in seconds),
            "bursts": len(ended),
            "not_followed": len(followed) - len(seconds),
        }

    def _of_events(self, events: Events, covered: list[Coverage]) -> dict[str, Any]:
        sent = self.site.sent
        return {
            "impressions": len(sent),
            "clicks": len(self.site.clicked),
            "labelled": sum(len(one.ids) for one in events.partitions.values()),
            "positives": sum(sum(one.labels) for one in events.partitions.values()),
            "rejected": len(events.rejected),
            "quarantined": events.quarantined,
            "lost": len(events.lost(sent)),
            "doubled": len(events.doubled()),
            "strangers": len(events.strangers(sent)),
            "holes": sum(one.holes for one in events.partitions.values()),
            "checkpoints": len(covered),
            "rows_not_one": sum(one.wrong for one in covered),
            "rows_wrong_in": [vars(one) for one in covered if one.wrong][:5],
            "producer_reconnects": self.site.resent,
        }


def _p50(values: list[float]) -> float:
    return round(statistics.median(values), 2) if values else 0.0


def _published_at(folder: Path) -> int:
    """When the pointer to the newest checkpoint was written last."""
    try:
        return (folder / "published.json").stat().st_mtime_ns
    except OSError:  # the store is away
        return 0


def _is_writing(folder: Path) -> bool:
    """Whether files of a checkpoint lie there without a manifest."""
    newest = max(folder.glob("0*"), default=None)
    return newest is not None and not (newest / "manifest.json").exists()


def processes_of(local: LocalRun) -> dict[str, int]:
    """Role -> how many processes; the broker, and those of a replica of workers, are roles too."""
    workers = local.config.serving.workers
    parts = {WORKER: workers, FOLLOWER: 1} if workers > 1 else {}
    return {role: n for role, n in local.launcher.counts().items() if n} | parts | {BROKER: 1}


class Faults(NamedTuple):
    """How many of each."""

    kills: int = KILLS
    freezes: int = FREEZES
    stores: int = STORES


def bench(
    faults: Faults, workers: int, seed: int, rate: float, broker: str, console: Console
) -> tuple[dict[str, Any], Path]:
    """Run it. Returns the result and the folder of the run. Raises Failed, and what ended a
    process for good."""
    dir = Path(tempfile.mkdtemp(prefix="everspun-recovery-"))
    text = Path(__file__).with_suffix(".toml").read_text()
    with surroundings() as where, contextlib.ExitStack() as stack:
        console.log(f"seed {seed}; run folder {dir}")
        stack.enter_context(slowable_store(Path(stack.enter_context(TemporaryDirectory()))))
        local = LocalRun.begin(dir, text, broker, (f"serving.workers={workers}",))
        stack.callback(local.stop)
        root = Path(local.config.checkpointer.root)
        can_fill = small_disk(root, DISK_MB)
        if can_fill:
            stack.callback(give_back_disk, root)
        with console.status("starting the roles (the first run on a machine compiles kernels)"):
            local.start()
        watch = Watch(local.config)
        stack.callback(watch.close)
        site = Site(local.log(), local.config.stream, rate, seed)
        site.start()
        stores = faults.stores if can_fill else min(faults.stores, len(STORE_FAULTS) - 1)
        planned = plan(faults.kills, faults.freezes, seed, processes_of(local), stores)
        run = Run(local, site, watch, planned, console)
        run.asker = Asker(local.config, run.catalogue, seed, site.sent)
        stack.callback(run.asker.close)
        watch.wait_for(local.config.stream.partitions, STUCK_S)
        run.measure_without_kills()
        run.kill_all()
        run.drain()
        with console.status("counting"):
            result = run.judge(seed)
        result |= where(local, rate)
    return result, dir


def main(typed: list[str] | None = None) -> int:
    parser = arguments(__doc__, RATE)
    parser.add_argument("--kills", type=int, default=KILLS, help=f"how many in all ({KILLS})")
    parser.add_argument(
        "--freezes",
        type=int,
        default=FREEZES,
        help=f"processes stopped and woken, besides ({FREEZES})",
    )
    parser.add_argument(
        "--stores", type=int, default=STORES, help=f"times that the store fails ({STORES})"
    )
    parser.add_argument(
        "--workers", type=int, default=WORKERS, help=f"of the replica ({WORKERS}); 1 = none"
    )
    chosen = parser.parse_args(typed)
    seed = drawn(chosen.seed)
    console = Console(stderr=True)
    faults = Faults(chosen.kills, chosen.freezes, chosen.stores)
    result, dir = bench(faults, chosen.workers, seed, chosen.rate, chosen.broker, console)
    wrong = [key for key in (*NOUGHT, *NOUGHT_SERVED) if result[key]]
    wrong += [] if result["audit_right"] else ["audit"]
    return report(result, wrong, dir, chosen, console)


if __name__ == "__main__":
    sys.exit(main())
