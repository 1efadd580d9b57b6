"""How long training stands while slots move between shards: one shard, two, three, two, one, under
pushes.

    python -m bench.moves [--rows 1000000] [--to 2,3,2,1] [--batches-per-s 20] [--json]

Rows of 32 float32 (128 bytes). Shards are the product's processes over unix sockets (`everspun role
shard`), those that are to come stand by already; the checkpointer is its driver in this process,
without gates; one learner pushes 4,096 keys at a time, drawn uniformly, 20 times a second (0 = one
batch after the other, and all rows change all the time). Checkpoints go to a folder on this
machine's disk, synced. The optimizer is SGD at rate 1 and every gradient is -1, so a row's weight
is how often it was pushed: at the end all of them are compared with what the learner counts. Takes
about 1 minute and 4 GB.

Keys, of each move. `pause_ms`: from the stop of starts until every shard of the new map has it, as
the checkpointer measures it; `phases_ms`: its parts, as `everspun_move_pause_ms` names them.
`gap_ms`: the longest time between two batches that were learned for the first time, around the
move; `gap_ms_ahead`: while shards read ahead of it; `gap_ms_before`: in the second before it was
ordered. `seconds`: from the order to the move. `changed`: rows of the move's checkpoint. `moved`:
share of the rows whose shard changed. `rewound`: batches learned once more. `wrong`: rows whose
weight is not what was pushed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench.measuring.machine import machine
from bench.parameters.table import by_key
from checkpointer import CheckpointerConfig
from checkpointer.cuts import Driver
from checkpointer.gates import Findings
from checkpointer.store import Catalogue, Definition, model_state, open_store
from paramserver import (
    DenseSpec,
    Keys,
    ModelSpec,
    Outcome,
    ParamServerConfig,
    PortRefused,
    PortUnreachable,
    ProgressReply,
    PushRequest,
    SlotMap,
    StartOutcome,
    StartRequest,
    TableSpec,
)
from paramserver.wire import ClockClient, ShardPorts, connect
from stream.log import wall_clock_ms

DIM, FILLED, PUSHED = 32, 50_000, 4_096
MODEL, CHAIN = "moves", "label/0"
SPEC = ModelSpec(
    MODEL, "1", (TableSpec("t", DIM, "sgd", {"rate": 1.0}),), DenseSpec({}, "sgd", {"rate": 1.0})
)
ROWS, TO, BATCHES_PER_S = 1_000_000, "2,3,2,1", 20.0
STUCK_S = 120.0
CONFIG = """
[run]
dir = "{folder}"
shards = 1
[model]
name = "moves"
[checkpointer]
root = "{folder}/checkpoints"
[paramserver]
lease_ms = 60_000
"""


class Learner:
    """Pushes a batch every `pace_s`, or one after the other; batch n is the same whenever it is
    pushed. `learned[n]`: when every shard had it."""

    def __init__(self, ports: ShardPorts, clock: ClockClient, rows: int, pace_s: float) -> None:
        self.ports, self.clock, self.keys, self.pace_s = (
            ports,
            clock,
            by_key(np.arange(rows))[0],
            pace_s,
        )
        self.fills = -(-rows // FILLED)
        self.learned: list[float] = []
        self.rewound = 0
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def batch(self, n: int) -> Keys:
        if n < self.fills:
            return self.keys[n * FILLED : (n + 1) * FILLED]
        drawn = np.random.default_rng(n).integers(0, len(self.keys), PUSHED)
        return self.keys[np.unique(drawn)]

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self.stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            epoch = self.clock.join(MODEL, "learner").epoch
            while not self.stop.is_set():
                replies = self._standing()
                ends = {
                    reply.progress.chains[CHAIN].end
                    for reply in replies
                    if reply.progress is not None
                }
                n, due = min(ends), time.monotonic()
                self.rewound += max(0, len(self.learned) - n)
                while not self.stop.is_set() and self._learn(epoch, n, replies):
                    n += 1
                    if n > len(self.learned):
                        self.learned.append(time.monotonic())
                    if n > self.fills:
                        due = max(due + self.pace_s, time.monotonic())
                        self.stop.wait(due - time.monotonic())
        except BaseException as error:
            self.error = error

    def _standing(self) -> list[ProgressReply]:
        """What every shard of one map says, once all of them stand at it."""
        until = time.monotonic() + STUCK_S
        while time.monotonic() < until:
            with suppress(
                PortUnreachable
            ):  # one that goes over to the new map: asked again, up to STUCK_S
                first = self.ports[0].progress(MODEL)
                count = 1 if first.slot_map is None else first.slot_map.shards
                replies = [first, *(self.ports[shard].progress(MODEL) for shard in range(1, count))]
                if len({r.map_epoch for r in replies}) == 1 and all(
                    r.progress is not None for r in replies
                ):
                    return replies
            time.sleep(0.002)
        raise RuntimeError(f"shards do not stand at one map within {STUCK_S:.0f} s")

    def _learn(self, epoch: Any, n: int, replies: list[ProgressReply]) -> bool:
        """Start, push to every shard, end. False: shards are to be asked where they stand."""
        request = StartRequest(MODEL, epoch, CHAIN, n, n + 1)
        while (reply := self.clock.start(request)).outcome is not StartOutcome.ADMITTED:
            if self.stop.wait(0.002) or reply.outcome is StartOutcome.FENCED:
                return False
        slot_map, keys = replies[0].slot_map or SlotMap.even(1), self.batch(n)
        done = True
        for shard, mine in enumerate(slot_map.split(keys)):
            push = PushRequest(
                MODEL,
                epoch,
                slot_map.epoch,
                replies[shard].incarnation,
                CHAIN,
                n,
                n + 1,
                0,
                n,
                0,
                n,
                len(keys),
                keys={"t": keys[mine]},
                gradients={"t": np.full((len(mine), DIM), -1, np.float32)},
            )
            done = self._push(shard, push) and done
        self.clock.ended(MODEL, epoch, reply.clock)
        return done

    def _push(self, shard: int, push: PushRequest) -> bool:
        while not self.stop.is_set():
            try:
                outcome = self.ports[shard].push(push).outcome
            except (PortUnreachable, PortRefused):
                return False
            if outcome is not Outcome.NO_ERA:
                return outcome in (Outcome.APPLIED, Outcome.DUPLICATE)
            time.sleep(0.002)
        return False

    def gap_ms(self, since: float, until: float) -> float:
        """The longest pause between two batches in a span of time."""
        times = [since, *(t for t in list(self.learned) if since < t < until), until]
        return round(1_000 * max(b - a for a, b in pairwise(times)), 1)


class MoveShell:
    """`driver.Outside` and `driver.Time`, without a log and without gates."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def now_ms(self) -> int:
        return wall_clock_ms()

    def steady_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def sleep_ms(self, ms: int) -> None:
        time.sleep(ms / 1_000)

    def announce(self, announcement: Any) -> None:
        pass

    def check(self, ref: Any) -> Findings:
        return Findings(answers=(0.5,))

    def read_evaluations(self) -> tuple[()]:
        return ()

    def first_vector(self) -> dict[str, int]:
        return {CHAIN: 0}

    def each(self, call: Callable[[Any], Any], items: list[Any]) -> list[Any]:
        return list(self._pool.map(call, items))


def step_until(driver: Driver, done: Callable[[Any], bool], learner: Learner | None = None) -> Any:
    until = time.monotonic() + STUCK_S
    while time.monotonic() < until:
        step = driver.step()
        if learner is not None and learner.error is not None:
            raise learner.error
        if done(step):
            return step
        time.sleep(0.02)
    raise RuntimeError(
        f"nothing came of it within {STUCK_S:.0f} s; the last step: {step.outcome} {step.detail}"
    )


def move(driver: Driver, learner: Learner, clock: ClockClient, shards: int) -> dict[str, Any]:
    before, rewound = driver.resharding.slot_map, learner.rewound
    time.sleep(1.0)
    began = time.monotonic()
    clock.set_shards(MODEL, shards)
    step = step_until(driver, lambda step: step.shards == shards, learner)
    ended = time.monotonic()
    reached = len(learner.learned)
    until = ended + STUCK_S
    while (
        len(learner.learned) <= reached and time.monotonic() < until
    ):  # the gap is over once training goes on
        time.sleep(0.005)
    after = driver.resharding.slot_map
    return {
        "shards": shards,
        "pause_ms": sum(step.pause),
        "phases_ms": step.pause._asdict(),
        "gap_ms": learner.gap_ms(began, time.monotonic()),
        "gap_ms_ahead": learner.gap_ms(began, ended - sum(step.pause) / 1_000),
        "gap_ms_before": learner.gap_ms(began - 1.0, began),
        "changed": sum(part.rows for part in step.manifest.parts),
        "seconds": round(ended - began, 2),
        "moved": round(float((before.owner != after.owner).mean()), 3),
        "rewound": learner.rewound - rewound,
    }


def wrong_rows(catalogue: Catalogue, learner: Learner) -> int:
    """Of the last checkpoint: rows whose weight is not how often they were pushed."""
    head = catalogue.head()
    assert head is not None
    table = model_state(catalogue, head).tables["t"]
    expected = np.zeros(len(learner.keys), np.float32)
    for n in range(head.vector[CHAIN]):
        expected[np.searchsorted(learner.keys, learner.batch(n))] += 1
    order = np.argsort(table.keys)
    if not np.array_equal(table.keys[order], learner.keys):
        raise RuntimeError(
            f"{len(table.keys)} rows in {head.name}, {len(learner.keys)} were pushed"
        )
    return int((table.rows[order][:, 0] != expected).sum())


def measure(rows: int, to: list[int], pace_s: float) -> dict[str, Any]:
    config = ParamServerConfig(lease_ms=60_000)
    with tempfile.TemporaryDirectory(prefix="moves-") as folder, ExitStack() as stack:
        path = Path(folder) / "everspun.toml"
        path.write_text(CONFIG.format(folder=folder))
        for index in range(max(to)):
            command = [
                sys.executable,
                "-m",
                "everspun",
                "role",
                "shard",
                "--index",
                str(index),
                "--config",
                str(path),
            ]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
        ports, clock = connect(config, folder, 1)
        stack.callback(clock.close)
        stack.callback(ports.close)
        shell = MoveShell(stack.enter_context(ThreadPoolExecutor(8)))
        catalogue = Catalogue(open_store(f"{folder}/checkpoints"), MODEL)
        settings = CheckpointerConfig(root=f"{folder}/checkpoints", interval_ms=0)
        driver = Driver(settings, Definition(SPEC, {}, {}), ports, clock, catalogue, shell, shell)
        driver.recover()
        step_until(driver, lambda step: step.outcome == "begun")
        learner = Learner(ports, clock, rows, pace_s)
        learner.start()
        stack.callback(learner.close)
        while len(learner.learned) < learner.fills + 50:
            if learner.error is not None:
                raise learner.error
            time.sleep(0.02)
        step_until(driver, lambda step: step.outcome == "published", learner)
        moves = [move(driver, learner, clock, shards) for shards in to]
        learner.close()
        driver.schedule.interval_ms = 1
        step_until(driver, lambda step: step.outcome in ("published", "idle"), learner)
        return {
            "moves": moves,
            "wrong": wrong_rows(catalogue, learner),
            "batches": len(learner.learned),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument(
        "--batches-per-s", type=float, default=BATCHES_PER_S, help="0 = one after the other"
    )
    parser.add_argument("--to", default=TO, help="numbers of shards, one after the other")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    pace_s = 1 / options.batches_per_s if options.batches_per_s else 0.0
    found = measure(options.rows, [int(n) for n in options.to.split(",")], pace_s)
    report = {
        "rows": options.rows,
        "batches_per_s": options.batches_per_s,
        **found,
        "load": round(load, 1),
        "machine": machine(),
    }
    print(json.dumps(report, indent=None if options.json else 1))


if __name__ == "__main__":
    main()
