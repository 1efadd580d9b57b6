"""The plain Faust app beside the labeler in `bench.labeling`: the same log in its own broker,
measured the same way."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from typing import Any

from bench.labels.labeling_log import WARM_BEFORE_MS, WARM_FIRST_VIEW, Shop, Written, draw, write
from bench.measuring.machine import process_cpu_s
from bench.measuring.own_run import own_run
from everspun import LocalRun

#: A plain app does a few thousand impressions a CPU second: as many as take it some ten of them.
IMPRESSIONS = 40_000
WARM_IMPRESSIONS = 2_000
WHOLE_S = 240.0  # no longer than this for all of it
LOOK_S = 0.05


class CannotRun(RuntimeError):
    """The baseline is not there, or did not do its work; the message says why."""


class App:
    """The app's process, and the last line that it wrote."""

    def __init__(self, local: LocalRun) -> None:
        stream, self._log = local.config.stream, local.dir / "faust_join.log"
        command = [sys.executable, "-m", "bench.baselines.faust_join", stream.bootstrap_servers]
        command += [str(stream.partitions), str(local.dir / "faust_join"), "0", "0"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.pid, self.last = self._process.pid, {"impressions": 0, "clicks": 0, "found": 0}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self._deadline = time.monotonic() + WHOLE_S

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                self.last = json.loads(line)

    def wait_for(self, *logs: Written) -> dict[str, Any]:
        """Until it has done all events of these logs; what it had done then. Raises CannotRun."""
        impressions, clicks = sum(one.impressions for one in logs), sum(one.clicks for one in logs)
        while self.last["impressions"] < impressions or self.last["clicks"] < clicks:
            if self._process.poll() is not None or time.monotonic() > self._deadline:
                end = self._log.read_text()[-500:]
                raise CannotRun(
                    f"the Faust app stands at {self.last} of {impressions}, {clicks}: {end}"
                )
            time.sleep(LOOK_S)
        return dict(self.last)

    def close(self) -> None:
        """Stop it; it writes its last line. One that does not end is killed."""
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(5)


def measure(
    broker: str, rate: float, click_share: float, impressions: int = IMPRESSIONS
) -> dict[str, Any]:
    """Warm log, stop, measured log, go on, as for a labeler. Raises CannotRun."""
    if find_spec("faust") is None or find_spec("rocksdict") is None:
        raise CannotRun("faust-streaming or rocksdict is not installed")
    from bench.baselines.faust_join import versions

    shop = Shop(impressions, rate, click_share)
    warm = Shop(
        WARM_IMPRESSIONS, rate, start_ms=shop.start_ms - WARM_BEFORE_MS, first_view=WARM_FIRST_VIEW
    )
    with (
        own_run("bench.labels", "labeling.toml", broker) as local,
        contextlib.closing(App(local)) as app,
    ):
        log, stream = local.log(), local.config.stream
        warmed = write(log, stream, draw(warm), "json_single")
        before = app.wait_for(warmed)
        os.kill(app.pid, signal.SIGSTOP)
        written = write(log, stream, draw(shop), "json_single")
        cpu_s, began = process_cpu_s(app.pid), time.monotonic()
        os.kill(app.pid, signal.SIGCONT)
        after = app.wait_for(warmed, written)
        cpu_s, seconds = process_cpu_s(app.pid) - cpu_s, time.monotonic() - began
        kind = local.broker.kind
    return {
        "impressions_per_cpu_s": round(written.impressions / cpu_s),
        "cpu_s": round(cpu_s, 2),
        "seconds": round(seconds, 2),
        "impressions": written.impressions,
        "clicks": written.clicks,
        "clicks_found": after["found"] - before["found"],
        "broker": kind,
        "versions": versions(),
    }


def compare(found: dict[str, Any], options: Any) -> dict[str, Any]:
    """The baseline's own figure, and how many times as much each format does in a CPU second."""
    try:
        peer = measure(options.broker, options.rate, options.click_share)
    except (CannotRun, ImportError) as error:
        print(f"baseline skipped: {error}", file=sys.stderr)
        return {"faust_join": {"skipped": str(error)}}
    ratios = {
        name: round(found[form]["impressions_per_cpu_s"] / peer["impressions_per_cpu_s"], 2)
        for name, form in (("ratio_faust_join", "json_single"), ("ratio_faust_join_arrow", "arrow"))
        if form in found
    }
    return {"faust_join": peer} | ratios
