"""Our side of `bench.training`: a broker, a learner and a shard as processes, that stand still
between their turns."""

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.learning.training_data import Drawn, Records
from bench.measuring.machine import Meter
from everspun import LocalRun
from everspun.launcher import Launcher, log_tail
from learners.models import Model, make_model
from paramserver import Outcome, PortUnreachable, PullRequest
from paramserver.wire import connect
from stream import Partition, begin_vector

STUCK_S = 120.0
#: More than a learner can take in a turn, records a second: so many are always ahead of it.
RECORDS_A_SECOND = 100


class TwoRoles(Launcher):
    """A shard and a learner alone: nothing is labelled, cut or served here."""

    def counts(self) -> dict[str, int]:
        return {"shard": 1, "learner": 1}


@dataclass
class Turn:
    """What one turn did."""

    examples: int
    seconds: float
    cpu_s: dict[str, float]
    others_s: float


@dataclass
class Site:
    local: LocalRun
    model: Model
    records: Records
    rows_learned: int = 0
    _stopped: list[int] = field(default_factory=list)

    @classmethod
    def begin(
        cls,
        folder: Path,
        text: str,
        broker: str,
        overrides: tuple[str, ...],
        drawn: Drawn,
        seed: int,
        launcher: type[TwoRoles] = TwoRoles,
    ) -> "Site":
        """Write the first records and start the roles; they learn what is written."""
        local = LocalRun.begin(folder, text, broker, overrides)
        config = local.config
        local.launcher = launcher(local.config_path, config.run, local.launcher.overrides)
        records = Records(drawn, local.log().writer(), config.stream.examples, seed)
        return cls(local, make_model(config.model), records)

    def start(self) -> None:
        self.local.start()
        ports, self.clock = connect(self.local.config.paramserver, self.local.config.run.dir, 1)
        self.shard = ports[0]
        self.shard.begin(self.model.spec, begin_vector({0: 0}, 0), dict(self.model.initial_dense()))

    def rows(self) -> int:
        """Rows that the shard has applied."""
        progress = self.shard.progress(self.model.name).progress
        return 0 if progress is None else sum(chain.rows for chain in progress.chains.values())

    def learn(self, examples: int) -> None:
        """Wait until so many were applied."""
        moved, before = time.monotonic(), -1
        while before < examples:
            now = 0
            with suppress(PortUnreachable):
                now = self.rows()
            if now != before:
                moved, before = time.monotonic(), now
            self.local.launcher.raise_if_failed()
            if time.monotonic() - moved > STUCK_S:
                raise RuntimeError(
                    f"nothing was learned for {STUCK_S:.0f} s; logs: {self.local.dir / 'logs'}"
                )
            time.sleep(0.02)

    def pull(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.float32]:
        """The weights of these keys as they are."""
        order = np.argsort(keys)
        epoch, table = (
            self.clock.join(self.model.name, "bench").epoch,
            self.model.spec.tables[0].name,
        )
        deadline = time.monotonic() + STUCK_S
        while time.monotonic() < deadline:
            reply = self.shard.pull(
                PullRequest(self.model.name, epoch, 1, {table: keys[order]}, dense=False)
            )
            if reply.outcome is Outcome.APPLIED:
                out = np.empty_like(reply.rows[table])
                out[order] = reply.rows[table]
                return out
            time.sleep(0.05)
        raise RuntimeError(f"the shard does not answer a pull: {reply.outcome.value}")

    def pause(self) -> None:
        roles = self.local.launcher.processes
        self._stopped = [roles["learner-0"].popen.pid, roles["shard-0"].popen.pid]
        for pid in self._stopped:
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in reversed(self._stopped):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._stopped = []

    def turn(self, seconds: float, ahead: int) -> Turn:
        """Go on for so long, with at least `ahead` records unread."""
        self.top_up(ahead)
        roles = self.local.launcher.processes
        pids = {name: process.popen.pid for name, process in roles.items()}
        if self.local.broker.pid is not None:
            pids["broker"] = self.local.broker.pid
        self.resume()
        before, meter, began = self.rows(), Meter.start(pids), time.monotonic()
        time.sleep(seconds)
        after, ended = self.rows(), time.monotonic()
        cpu_s, others_s = meter.stop()
        for name, process in roles.items():
            if process.restarts or process.popen.poll() is not None:
                raise RuntimeError(
                    f"{name} died:\n{log_tail(self.local.dir / 'logs' / f'{name}.log')}"
                )
        self.pause()
        return Turn(after - before, ended - began, cpu_s, others_s)

    def top_up(self, ahead: int) -> None:
        """While all stand still. The shard is asked where it is, so it is woken for that."""
        if self._stopped:
            os.kill(self._stopped[1], signal.SIGCONT)
        learned = self.rows() // self.records.drawn.rows
        if self._stopped:
            os.kill(self._stopped[1], signal.SIGSTOP)
        missing = learned + ahead - self.records.written
        if missing > 0:
            self.records.append(missing)

    def losses(self, batches: int) -> list[float]:
        """Progressive log loss per example of each of the first batches, from `evaluations`."""
        reader, topic = (
            self.local.log().reader(),
            Partition(self.local.config.stream.evaluations, 0),
        )
        reader.assign([topic])
        reader.seek(topic, reader.beginning_offsets([topic])[topic])
        found: dict[int, float] = {}
        deadline = time.monotonic() + 30
        while len(found) < batches and time.monotonic() < deadline:
            for record in reader.poll(500, 500).get(topic, []):
                said: dict[str, Any] = json.loads(record.value or b"{}")
                found.setdefault(
                    said["start"] // self.records.drawn.rows, said["log_loss_sum"] / said["rows"]
                )
        reader.close()
        return [found[batch] for batch in range(batches) if batch in found]

    def stop(self) -> None:
        self.resume()
        for port in ("shard", "clock"):
            if hasattr(self, port):
                getattr(self, port).close()
        self.local.stop()
