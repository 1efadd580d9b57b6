"""The replayer: writes a history into the topics in accelerated event time, and plays the site
while it does.

With barriers (E3) it keeps step with training: before a period it asks the replica for the
predictions of all the period's impressions, publishes them with prediction and model version,
closes the period with a barrier, and waits until cut k is published (or rejected) and the replica
serves it. Then the model version of an impression is a function of its event time, whatever the
speed of the machine.
"""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from everspun.config import Config
from everspun.launcher import role_files
from everspun.replay.history import History
from everspun.replay.plan import PRODUCER, Period, PlannedAnswers, PlannedRecord, ReplayPlan
from everspun.replay.writer import AnnouncedCuts, ReplayWriter, Stuck, wait_until
from stream import Partition
from stream.hashing import Pseudonymiser, partition_of_key
from stream.log import Log

__all__ = ["ReplayProgress", "Replayer", "Stuck"]

PREDICT_ROWS_MAX = 5_000
HTTP_TIMEOUT_S = 20.0


@dataclass
class ReplayProgress:
    """Where a replay stands, for the live table and the report."""

    periods: int = 0
    period: int = 0
    impressions: int = 0
    clicks: int = 0
    planted: int = 0
    now_ms: int = 0  # the replay's clock
    waited_s: float = 0.0  # at barriers
    started: float = field(default_factory=time.monotonic)
    finished: float = 0.0
    doing: str = "starting"
    cuts: list[dict[str, object]] = field(default_factory=list)

    @property
    def elapsed_s(self) -> float:
        return (self.finished or time.monotonic()) - self.started


class Replayer:
    """Writes one history. Runs in the caller's thread; `progress` may be read from another."""

    def __init__(
        self, config: Config, history: History, log: Log, run_dir: Path, secret: bytes
    ) -> None:
        self.config = config
        self.plan = ReplayPlan(
            history,
            config.stream,
            config.replay,
            Pseudonymiser(config.stream.pseudonym_key_number, secret),
        )
        self.run_dir = run_dir
        self.progress = ReplayProgress(planted=int(history.planted.sum()))
        self._log = log

    def run(self, stop: threading.Event) -> ReplayProgress:
        """Replay all periods. Raises Stuck, and what the log raises."""
        cuts = AnnouncedCuts(self.config, self._log)
        writer = ReplayWriter(self.config, self._log)
        periods = list(self.plan.periods())
        self.progress.periods = len(periods)
        try:
            if self.config.replay.predict:
                self.progress.doing = "waiting for the replica to serve a model"
                self._wait(lambda: not self._ask("/model")["fallback"], self.progress.doing, stop)
            for period in periods:
                if stop.is_set():
                    break
                self._replay(period, writer, cuts, stop)
        finally:
            self.progress.finished = time.monotonic()
            self.progress.doing = "done"
            writer.close()
            cuts.close()
        return self.progress

    def _replay(
        self, period: Period, writer: ReplayWriter, cuts: AnnouncedCuts, stop: threading.Event
    ) -> None:
        progress = self.progress
        progress.period = period.number
        answers = self._predict(period) if self.config.replay.predict else None
        progress.doing = "writing"
        for line in self.plan.lines(period, answers):
            self._send(line, writer)
            progress.now_ms = line.arrival_ms
        writer.heartbeat(period.end_ms, barrier=period.number)
        if (
            not period.number
        ):  # a barrier takes the breaker along (L9); without one, its early join closes by this
            writer.heartbeat(self.plan.last_ms)
        writer.flush()
        progress.now_ms = period.end_ms
        if period.number:
            self._wait_for_step(period, cuts, stop)

    # --- writing
    # ----------------------------------------------------------------------------------------------

    def _send(self, line: PlannedRecord, writer: ReplayWriter) -> None:
        stream = self.config.stream
        if line.kind == "heartbeat":
            writer.heartbeat(line.arrival_ms)
            return
        assert line.key is not None
        topic = stream.impressions if line.kind == "impression" else stream.clicks
        partition = Partition(topic, partition_of_key(line.key, stream.partitions))
        headers = (("producer", PRODUCER.encode()),)
        writer.append(partition, line.value, line.key, headers, line.arrival_ms)
        if line.kind == "impression":
            self.progress.impressions += line.rows
        else:
            self.progress.clicks += line.rows

    # --- playing the site
    # -------------------------------------------------------------------------------------

    def _predict(self, period: Period) -> PlannedAnswers:
        self.progress.doing = "asking the replica"
        columns = self.plan.columns(period)
        probabilities: list[float] = []
        version = ""
        for at in range(0, period.last - period.first, PREDICT_ROWS_MAX):
            rows = {name: values[at : at + PREDICT_ROWS_MAX] for name, values in columns.items()}
            reply = self._ask("/predict", {"columns": rows})
            probabilities += reply["probabilities"]
            version = str(reply["model_version"])
        return PlannedAnswers(probabilities, version)

    def ask_one(self, index: int) -> dict[str, object]:
        """One scored request, as a site would send it: an impression of the history by its
        index."""
        history = self.plan.history
        row = {
            "source": self.plan.pseudonym(history.sources[index]),
            "vendor": history.vendors[index],
            "item": history.items[index],
        }
        return {"request": row, "reply": self._ask("/predict", {"rows": [row]})}

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request to the first replica, tried again while it starts or restarts, for
        `stuck_s` at most."""
        end = time.monotonic() + self.config.replay.stuck_s
        while True:
            try:
                port = role_files(self.run_dir)["replica-0"]["http_port"]
                data = None if body is None else json.dumps(body).encode()
                request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data)
                request.add_header("Content-Type", "application/json")
                with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S) as answer:
                    return dict(json.loads(answer.read()))
            except urllib.error.HTTPError as error:
                if error.code < 500 or time.monotonic() > end:
                    raise Stuck(
                        f"the replica refused {path}: {error.read().decode()[:500]}"
                    ) from error
            except (KeyError, urllib.error.URLError, OSError) as error:
                if time.monotonic() > end:
                    raise Stuck(
                        f"no answer from the replica on {path} for {self.config.replay.stuck_s} s"
                    ) from error
            time.sleep(0.1)

    # --- keeping step
    # -----------------------------------------------------------------------------------------

    def _wait_for_step(self, period: Period, cuts: AnnouncedCuts, stop: threading.Event) -> None:
        began = time.monotonic()
        self.progress.doing = f"waiting for cut {period.number}"
        self._wait(lambda: period.number in cuts.read(), self.progress.doing, stop)
        announced = cuts.said.get(period.number, {})
        if self.config.replay.predict and announced.get("kind") == "published":
            name = announced["name"]
            self.progress.doing = f"waiting for the replica to serve {name}"
            self._wait(
                lambda: self._ask("/model").get("model_version") == name, self.progress.doing, stop
            )
        took = time.monotonic() - began
        self.progress.waited_s += took
        self.progress.cuts.append({**announced, "waited_s": took, "end_ms": period.end_ms})

    def _wait(self, reached: Callable[[], bool], what: str, stop: threading.Event) -> None:
        wait_until(reached, what, self.config.replay.stuck_s, stop)
