"""Two versions in one system: every process is changed from an earlier version to this one and back
while events flow and requests are answered, role by role, on Apache Kafka.

    python -m bench.upgrade [--json] [--from REVISION] [--rate 100] [--seed N] [--keep]

The earlier version is a commit or tag of this repository (the last release if nothing is named),
and its processes run its own code. Replicas first, shards last, as docs/production.md says; back in
the same order. `lost`, `doubled`, `labels_wrong`, `rows_not_one` are counted as `bench.recovery`
counts them, by this version; `non_2xx` are requests that neither of the two replicas answered with
a 2xx. `seconds_to_resume_max`: from a process's end to everything that stood in the log then being
learned by every shard. Exit code 1 when something is off. Takes about six minutes.
"""

import contextlib
import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.failures.recovery import NOUGHT, STUCK_S, Run
from bench.failures.recovery_command import arguments, drawn, report, surroundings
from bench.failures.recovery_site import Site
from bench.failures.recovery_watch import Watch
from everspun import LocalRun
from everspun.launcher import Launcher
from everspun.status import scrape

RATE = 100.0
#: The last release: the commit that CHANGELOG.md calls 0.2.0.
RELEASE = "919fbc73273114bbb0638455acca9e8ba31071dd"
ROOT = Path(__file__).parents[2]
ORDER = ("replica", "labeler", "fraud", "learner", "checkpointer", "shard")
OVERRIDES = ("run.replicas=2",)
#: Between two requests, and how long each may take.
ASK_S, ANSWER_S = 0.05, 2.0
#: How long a process may take to end in order, and the next one to answer.
END_S, START_S = 40.0, 120.0
REPLICAS = ("replica-0", "replica-1")


class VersionedLauncher(Launcher):
    """Starts each process with the code in the folder that `trees` names."""

    trees: dict[str, Path]

    def _command(self, role: str, index: int) -> list[str]:
        tree = self.trees[f"{role}-{index}"]
        return ["env", "-C", str(tree), f"PYTHONPATH={tree}", *super()._command(role, index)]


@dataclass
class Asking:
    """A web application behind a balancer of two replicas: it asks one, and the other where that
    does not answer. From a thread of its own."""

    places: dict[str, str]  # replica -> its URL
    answers: Counter[str] = field(default_factory=Counter)
    versions: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="asking", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(10)
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._stopped.wait(ASK_S):
                self.answers[self._asked()] += 1
        except BaseException as error:
            self.failure = error

    def _asked(self) -> str:
        for name in random.sample(REPLICAS, 2):
            said = _answer(
                f"{self.places[name]}/predict", {"rows": [{"features": {"event": "any"}}]}
            )
            if said is not None:
                self.versions.add(str(said.get("model_version")))
                return "2xx"
        return "other"


def _answer(url: str, question: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """What a replica answers with a 2xx; None where it does not."""
    data = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            text = answer.read()
    except (OSError, http.client.HTTPException):  # HTTPError is an OSError
        return None
    found = json.loads(text)
    return found if isinstance(found, dict) else {}


@dataclass
class Upgrade:
    """Changes the processes of a run."""

    run: Run
    launcher: VersionedLauncher
    seconds: list[float] = field(default_factory=list)

    def to(self, tree: Path, version: str) -> None:
        """All of them, one after the other."""
        for role in ORDER:
            for name in sorted(n for n in self.launcher.trees if n.rpartition("-")[0] == role):
                self._change(name, tree)
                self.run.console.log(f"{name:15} runs {version}, {self.seconds[-1]:.1f} s")

    def _change(self, name: str, tree: Path) -> None:
        run, watch = self.run, self.run.watch
        self.launcher.trees[name] = tree
        before = self.launcher.processes[name].popen
        mark, began = dict(run.site.delivered), time.monotonic()
        before.send_signal(signal.SIGTERM)
        before.wait(END_S)
        run._until(
            lambda: name in scrape(run.local.dir) and self.launcher.alive()[name],
            lambda: f"{name} does not answer",
        )
        run._until(lambda: watch.beyond(mark), lambda: f"not learned: {watch.describe(mark)}")
        self.seconds.append(time.monotonic() - began)
        _wait_ready(run, name)


def _wait_ready(run: Run, name: str) -> None:
    """A replica is given requests once it is ready."""
    if name in REPLICAS:
        place = _places(run.local)[name]
        run._until(lambda: _answer(f"{place}/readyz") is not None, lambda: f"{name} is not ready")


def _places(local: LocalRun) -> dict[str, str]:
    port = local.config.serving.port
    return {name: f"http://127.0.0.1:{port + i}" for i, name in enumerate(REPLICAS)}


def _free_port() -> int:
    """The first of two."""
    for first in range(28_000, 60_000, 7):
        with contextlib.suppress(OSError), socket.socket() as a, socket.socket() as b:
            a.bind(("127.0.0.1", first))
            b.bind(("127.0.0.1", first + 1))
            return first
    raise OSError("no two ports are free")


def tree_of(revision: str, dir: Path) -> Path:
    """The repository's files at a revision, in a folder. Raises CalledProcessError where there
    is no such revision."""
    dir.mkdir(parents=True)
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "--format=tar", revision],
        check=True,
        stdout=subprocess.PIPE,
    )
    subprocess.run(["tar", "-x", "-C", str(dir)], input=packed.stdout, check=True)
    return dir


def bench(
    revision: str, rate: float, seed: int, broker: str, console: Console
) -> tuple[dict[str, Any], Path]:
    """Run it. Returns the result and the folder of the run."""
    dir = Path(tempfile.mkdtemp(prefix="everspun-upgrade-"))
    text = (Path(__file__).parent / "recovery.toml").read_text()
    with surroundings() as where, contextlib.ExitStack() as stack:
        console.log(f"seed {seed}; from {revision}; run folder {dir}")
        old = tree_of(revision, dir / "earlier")
        overrides = (*OVERRIDES, f"serving.port={_free_port()}")
        local = LocalRun.begin(dir / "run", text, broker, overrides)
        stack.callback(local.stop)
        launcher = VersionedLauncher(
            local.launcher.config_path, local.config.run, local.launcher.overrides
        )
        launcher.trees = {
            f"{role}-{index}": old
            for role, count in launcher.counts().items()
            for index in range(count)
        }
        local.launcher = launcher
        with console.status("starting the earlier version (the first time it compiles kernels)"):
            local.start()
        watch = Watch(local.config)
        stack.callback(watch.close)
        site = Site(local.log(), local.config.stream, rate, seed)
        site.start()
        run = Run(local, site, watch, [], console)
        watch.wait_for(local.config.stream.partitions, STUCK_S)
        run.measure_without_kills()
        for name in REPLICAS:
            _wait_ready(run, name)
        asking = Asking(_places(local))
        stack.callback(asking.close)
        upgrade = Upgrade(run, launcher)
        upgrade.to(ROOT, "this version")
        upgrade.to(old, "the earlier one")
        asking.close()
        upgrade.to(ROOT, "this version")
        run.drain()
        with console.status("counting"):
            result = run.judge(seed)
        result |= {
            "from": revision,
            "changes": len(upgrade.seconds),
            "seconds_to_resume_max": round(max(upgrade.seconds), 1),
            "requests": asking.answers.total(),
            "non_2xx": asking.answers["other"],
            "versions_served": len(asking.versions),
        } | where(local, rate)
    return result, dir


def main(typed: list[str] | None = None) -> int:
    parser = arguments(__doc__, RATE)
    parser.add_argument(
        "--from", dest="revision", default=RELEASE, help="commit or tag of the earlier version"
    )
    chosen = parser.parse_args(typed)
    seed = drawn(chosen.seed)
    console = Console(stderr=True)
    result, dir = bench(chosen.revision, chosen.rate, seed, chosen.broker, console)
    wrong = [key for key in (*NOUGHT, "non_2xx") if result[key]]
    wrong += [] if result["audit_right"] else ["audit"]
    return report(result, wrong, dir, chosen, console)


if __name__ == "__main__":
    sys.exit(main())
