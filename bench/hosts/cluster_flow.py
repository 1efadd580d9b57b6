"""How fast a system learns a backlog, what it spends on it, and the same on one machine without
TLS, for `bench.cluster`."""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench.failures.recovery_site import Site
from bench.failures.recovery_watch import Watch
from bench.measuring.machine import Meter, threads_cpu_s
from everspun import Config, LocalRun
from everspun.status import scrape_all
from stream.log import KafkaLog
from stream.monitoring import TimeLimit

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "stream"))
from secured_cluster import SecuredCluster

#: Events a second of a backlog that is written, by so many users, and the longest it is waited
#: for, s. A few hundred users would all be suspects of the fraud filter at that rate.
WRITE_RATE, USERS, LEARN_S = 25_000.0, 30_000, 240.0
#: Backlogs that are measured, and those before them that are not: behind two, Java's compilers took
#: half of the brokers' CPU with TLS, and a quarter without.
BACKLOGS, WARM_BACKLOGS = 3, 5
WAIT_S = 100.0


@dataclass(frozen=True)
class Drained:
    """A backlog that was learned."""

    impressions: int
    seconds: float
    cpu_s_of: dict[str, float]  # role or broker -> CPU seconds
    cpu_s_elsewhere: float  # of who measures, and of the wires between hosts
    cpu_s_compiling: float  # of the brokers' CPU: their compilers

    @property
    def cpu_s(self) -> float:
        return sum(self.cpu_s_of.values())

    @property
    def per_second(self) -> float:
        return self.impressions / self.seconds

    @property
    def cpu_ms_each(self) -> float:
        return 1_000 * self.cpu_s / self.impressions


def drained(
    config: Config,
    site: Callable[[int], Site],
    impressions: int,
    pids: Callable[[], Mapping[str, int]],
) -> list[Drained]:
    """Of `impressions` each. `site`: of a seed, one that has not begun; `pids`: name of a process
    -> its id. Raises TimeoutError."""
    watch = Watch(config)
    try:
        watch.wait_for(config.stream.partitions, WAIT_S)
        seeds = range(91, 91 + WARM_BACKLOGS + BACKLOGS)
        every = [_drain(config, watch, site(seed), impressions, pids) for seed in seeds]
        return every[WARM_BACKLOGS:]
    finally:
        watch.close()


def _drain(
    config: Config,
    watch: Watch,
    site: Site,
    impressions: int,
    pids: Callable[[], Mapping[str, int]],
) -> Drained:
    """While labelers are stopped a backlog is written; the clock runs from their going on until
    every shard has learned it."""
    labelers = [pid for name, pid in pids().items() if name.startswith("labeler")]
    _all(labelers, signal.SIGSTOP)
    try:
        site.start()
        until = time.monotonic() + LEARN_S
        while len(site.sent) < impressions and time.monotonic() < until:
            time.sleep(0.05)
        site.stop(60_000)
        time.sleep(config.stream.wait_ms / 1_000)  # every label is due
        meter, began = Meter.start(dict(pids())), time.monotonic()
        compiled_s = _compiling_s(meter)
    finally:
        _all(labelers, signal.SIGCONT)
    seconds = watch.seconds_beyond(dict(site.delivered), began, LEARN_S)
    spent, elsewhere = meter.stop()
    compiling = _compiling_s(meter) - compiled_s
    if seconds is None:
        raise TimeoutError(f"not all is learned: {watch.describe(site.delivered)}")
    by_name = {name: round(s, 1) for name, s in spent.items()}
    return Drained(len(site.sent), seconds, by_name, round(elsewhere, 1), round(compiling, 1))


def _compiling_s(meter: Meter) -> float:
    """CPU seconds of the brokers' compilers until now."""
    pids = (pid for name, pid in meter.pids.items() if name.startswith("broker"))
    return sum(threads_cpu_s(pid, ("C1 Compiler", "C2 Compiler")) for pid in pids)


def _all(pids: list[int], sent: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, sent)


def on_loopback(
    dir: Path, text: str, impressions: int, brokers: SecuredCluster, console: Console
) -> list[Drained]:
    """The same roles on one machine: Unix sockets, brokers that let everybody in who comes by the
    administrator's door. Raises NotReady, BrokerError, TimeoutError."""
    local = LocalRun.begin(
        dir,
        text,
        brokers.address.partition(",")[0],
        (
            f'archive.root="{dir}/archive"',
            f'stream.bootstrap_servers="{brokers.address}"',
            f"stream.replication={len(brokers.hosts)}",
        ),
    )
    try:
        with console.status("loopback: starting the roles"):
            local.start()
        limit = TimeLimit(WAIT_S)
        warm = Site(KafkaLog(local.config.stream), local.config.stream, 200.0, seed=90)
        warm.start()
        while served(local.config) < 2:
            if limit.over:
                logs = sorted((dir / "logs").glob("*.log"))
                words = "\n".join(f"--- {one}\n{one.read_text()[-600:]}" for one in logs)
                raise TimeoutError(f"loopback: no second model is served in {WAIT_S:g} s\n{words}")
            time.sleep(0.2)
        warm.stop(60_000)
        stream = local.config.stream
        return drained(
            local.config,
            lambda seed: Site(KafkaLog(stream), stream, WRITE_RATE, seed, users=USERS),
            impressions,
            lambda: _pids(local, brokers),
        )
    finally:
        local.stop()


def _pids(local: LocalRun, brokers: SecuredCluster) -> dict[str, int]:
    roles = {name: process.popen.pid for name, process in local.launcher.processes.items()}
    return roles | brokers.pids


def served(config: Config) -> float:
    """The version on the replica; -1 without one."""
    report = scrape_all(config).get("replica-0")
    return -1.0 if report is None else report.value("everspun_served_version", -1.0)
