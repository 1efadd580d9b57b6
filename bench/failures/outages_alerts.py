"""Which alert rules of `deploy/monitoring` fire: a Prometheus of this machine over a run, for
`bench.outages`."""

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from everspun.launcher import NAME, Launcher, LauncherMetrics, write_targets
from everspun.status import InputWatch
from stream import StreamConfig, start_metrics

DEPLOYED = Path(__file__).parents[2] / "deploy" / "monitoring"
ANSWER_S, READY_S = 5.0, 60.0
_LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def prometheus_at(given: str) -> str:
    """The program to use: as given, else that of the PATH; "" = there is none."""
    return given or shutil.which("prometheus") or ""


class Exported:
    """What `everspun run` tells Prometheus of its launcher, for a launcher that runs within this
    process."""

    def __init__(self, launcher: Launcher, stream: StreamConfig) -> None:
        self._launcher = launcher
        self._inputs = InputWatch.of(stream, launcher.note)
        self._metrics = LauncherMetrics(launcher.said, lambda: self._inputs.count)
        start_metrics(launcher.dir, "launcher", 0, self._metrics)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="targets", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        self._inputs.close()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stopped.wait(1.0):
            self._launcher.attempt("exporting metrics", self._metrics.look)
            self._launcher.attempt(
                "writing the targets of Prometheus", lambda: write_targets(self._launcher.dir)
            )


class Alerts:
    """A Prometheus with the deployed configuration and rules, over the targets of one run."""

    def __init__(self, program: str, run_dir: Path, dir: Path) -> None:
        """Raises TimeoutError where it does not come up."""
        dir.mkdir(parents=True)
        (dir / "prometheus.yml").write_text(placed(run_dir))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        command = [
            program,
            f"--config.file={dir / 'prometheus.yml'}",
            f"--storage.tsdb.path={dir / 'data'}",
        ]
        command.append(f"--web.listen-address=127.0.0.1:{self._port}")
        self._log = (dir / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL
        )
        self._firing: dict[str, float] = {}  # since when, monotonic s
        self._stopped, self._looked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        self._thread.start()
        if not self._looked.wait(READY_S):
            self.close()
            raise TimeoutError(
                f"Prometheus does not come up: {(dir / 'prometheus.log').read_text()[-500:]}"
            )

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(10)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._log.close()

    def firing(self) -> dict[str, float]:
        """Each alert that fires, with the process that it is about -> since when, monotonic s."""
        return dict(self._firing)

    def _run(self) -> None:
        while not self._stopped.wait(0.5):
            try:
                now = self._ask()
            except (urllib.error.URLError, OSError):
                continue  # not up yet, or busy; what fired last goes on firing
            self._firing = {name: self._firing.get(name, time.monotonic()) for name in now}
            self._looked.set()

    def _ask(self) -> set[str]:
        """An alert is known by its name, and by whom it is about: its other words change with
        its value."""
        with _LOOPBACK.open(
            f"http://127.0.0.1:{self._port}/api/v1/alerts", timeout=ANSWER_S
        ) as answer:
            alerts = json.load(answer)["data"]["alerts"]
        return {
            " ".join(filter(None, (one["labels"]["alertname"], one["labels"].get("process"))))
            for one in alerts
            if one["state"] == "firing"
        }


def placed(run_dir: Path) -> str:
    """The deployed configuration, for the rules where they stand and the targets of this run."""
    text = (DEPLOYED / "prometheus.yml").read_text()
    text = text.replace("- alerts.yml", f"- {DEPLOYED / 'alerts.yml'}")
    return text.replace(f"../../var/run/{NAME}", str(run_dir / NAME))
