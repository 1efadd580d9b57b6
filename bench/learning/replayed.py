"""A recorded history replayed through a whole local system, and what came of it; for benches and
tests."""

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.measuring.machine import Meter
from everspun import LocalRun
from everspun.commands.data import replay_secret
from everspun.replay import Replayer, ReplayProgress, attacks, history
from everspun.status import Quality, StatusFollower

REFERENCE = Path(__file__).resolve().parents[2] / "tests" / "reference" / "examples.py"
REFERENCE_TIMEOUT_S = 600


@dataclass
class Replayed:
    """What a finished replay leaves: the two losses, the steps, the cost, and the reference's
    word on the same log."""

    quality: Quality
    progress: ReplayProgress
    cpu_s: dict[str, float]  # by process, the broker's too
    others_cpu_s: float
    reference: dict[str, Any]
    restarts: dict[str, int]  # of processes that died by themselves

    @property
    def rejected_cuts(self) -> int:
        return sum(cut.get("kind") != "published" for cut in self.progress.cuts)


def replay(dir: Path, broker: str, overrides: tuple[str, ...] = (), say: str = "") -> Replayed:
    """Run the demo's configuration with these overrides from nothing to the last cut. Raises
    Stuck, RunStopped."""
    text = files("everspun").joinpath("demo.toml").read_text()
    local = LocalRun.begin(dir.absolute(), text, broker, overrides)
    try:
        local.start()
        return _replay(local, say)
    finally:
        local.stop()


def _replay(local: LocalRun, say: str) -> Replayed:
    config = local.config
    recorded = history.load(config.replay.source, Path(config.replay.cache_dir).expanduser())
    if config.replay.attacks:
        recorded = attacks.plant(recorded, config.replay.attack_seed)
    replayer = Replayer(config, recorded, local.log(), local.dir, replay_secret())
    pids = {name: process.popen.pid for name, process in local.launcher.processes.items()}
    if local.broker.pid is not None:
        pids["broker"] = local.broker.pid
    meter = Meter.start(pids)
    failure: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        try:
            replayer.run(stop)
        except BaseException as error:  # raised where it is waited for
            failure.append(error)

    thread = threading.Thread(target=work, name="replay", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(2.0)
            local.launcher.raise_if_failed()
            if say:
                _say(say, replayer.progress)
    finally:
        stop.set()
        thread.join(10)
    if failure:
        raise failure[0]
    spent, others = meter.stop()
    follower = StatusFollower(config, local.log())
    while follower.read_evaluations(1_000):
        pass
    follower.close()
    restarts = {name: p.restarts for name, p in local.launcher.processes.items() if p.restarts}
    return Replayed(follower.quality, replayer.progress, spent, others, reference(local), restarts)


def reference(local: LocalRun) -> dict[str, Any]:
    """The independent replay of this run's own batches and cuts, in a process of its own."""
    config = local.config
    command = [
        sys.executable,
        str(REFERENCE),
        local.broker.address,
        "--topic",
        config.stream.examples,
    ]
    command += [
        "--barrier-ms",
        str(config.replay.barrier_ms),
        "--prior",
        str(config.model.prior_rate),
    ]
    command += [
        "--alpha",
        str(config.model.table_options["alpha"]),
        "--keys",
        ",".join(config.model.categorical),
        "--declared",
        json.dumps(config.model.declared),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=REFERENCE_TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(f"the reference failed: {done.stderr[-2_000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _say(who: str, progress: ReplayProgress) -> None:
    """Where it stands, on one line of a terminal."""
    if not sys.stderr.isatty():
        return
    at = f"period {progress.period}/{progress.periods}, {progress.impressions:,} impressions"
    print(
        f"\r{who}: {at} in {progress.elapsed_s:.0f} s: {progress.doing:<60}",
        end="",
        file=sys.stderr,
        flush=True,
    )
    if progress.finished:
        print(file=sys.stderr)
