"""Learners, clocks and a shard on virtual time: the product's cores, driven by a heap of events
instead of processes.

A learner is the real `Pacer`; the clock holder is the real `Clocks`; a shard the real `Shard`, with
its optimizers and its compensation; gradients are those of the model's kind. What is not real is
time: a pull or push takes PULL_MS, a control call CONTROL_MS, and a gradient `think_ms` on a core
of the learner's own, give or take JITTER, drawn from the batch. So a run is a function of its
settings, and takes what its arithmetic takes.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from everspun.replay import TrafficConfig, simulate
from learners import LearnerConfig
from learners.models import Model, clip
from learners.pacing import Batch, Pacer, events
from learners.pacing import instructions as do
from learners.training import Prepared, gradient
from paramserver import NO_COMPENSATION, Compensation, Outcome, PullRequest, PushReply, SlotMap
from paramserver.clocks import AllowListSender, Clocks
from paramserver.shard import Shard
from stream.hashing import partition_of_key
from stream.internal_topics import NO_CLICK, examples_schema

CONTROL_MS, PULL_MS = 1.0, 3.0
JITTER = 0.2
PARTITIONS = 16
LEASE_MS = 3_600_000


@dataclass(frozen=True)
class Work:
    """One batch, encoded once for all runs of one model."""

    batch: Batch
    prepared: Prepared
    label: Any
    weight: Any


def draw_work(model: Model, examples: int, batch_rows: int, seed: int) -> list[Work]:
    """A simulated shop's traffic, labelled, as batches of PARTITIONS partitions in the order of
    time."""
    shop = TrafficConfig(
        impressions=examples,
        users=20_000,
        items=5_000,
        vendors=200,
        click_rate=0.1,
        attacks=False,
        seed=seed,
    )
    history = simulate(shop).history
    label = np.zeros(examples, np.int8)
    label[history.click_impression] = 1
    of_user = {name: partition_of_key(name.encode(), PARTITIONS) for name in set(history.sources)}
    partitions = np.array([of_user[name] for name in history.sources])
    columns = {"source": history.sources, "vendor": history.vendors, "item": history.items}
    strings = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    found = []
    for p in range(PARTITIONS):
        mine = np.flatnonzero(partitions == p)
        for number, start in enumerate(range(0, len(mine), batch_rows)):
            at = mine[start : start + batch_rows]
            rows = _rows(at, history.ts_ms, label, strings, start)
            end = start + len(at)
            batch = Batch(
                p,
                f"label/{p}",
                start,
                end,
                number,
                number + 1,
                len(at),
                0,
                int(history.ts_ms[at[-1]]),
            )
            prepared = gradient.prepare(model, rows)
            found.append(
                Work(batch, prepared, label[at].astype(np.float32), np.ones(len(at), np.float32))
            )
    return sorted(found, key=lambda work: (work.batch.time_ms, work.batch.partition))


def _rows(
    at: Any, ts_ms: Any, label: Any, strings: dict[str, pa.Array], first: int
) -> pa.RecordBatch:
    n = len(at)
    taken = {name: array.take(pa.array(at)) for name, array in strings.items()}
    values = {
        "position": pa.array(np.arange(first, first + n)),
        "ts_ms": pa.array(ts_ms[at]),
        "arrival_ms": pa.array(ts_ms[at]),
        "label": pa.array(label[at]),
        "click_delay_ms": pa.array(np.full(n, NO_CLICK)),
        "weight": pa.array(np.ones(n, np.float32)),
        "shown_at": pa.array(np.zeros(n, np.int32)),
        "prediction": pa.array(np.full(n, np.nan, np.float32)),
        "model_version": pa.array([""] * n, pa.string()),
    } | taken
    schema = examples_schema(())
    return pa.record_batch([values[f.name] for f in schema], schema=schema)


@dataclass(frozen=True)
class Setting:
    learners: int
    staleness: int  # s; -1 = unbounded
    concurrency: int = 0
    compensation: Compensation = NO_COMPENSATION


@dataclass
class Trained:
    """One batch as it was learned: its loss before it was trained on, and how late its push
    came."""

    work: Work
    log_loss: float
    staleness: int
    at_ms: float


@dataclass
class VirtualTraining:
    """One run. `run` trains everything; `trained` is in the order of application."""

    model: Model
    works: Sequence[Work]
    setting: Setting
    think_ms: float = 50.0
    seed: int = 1
    on_trained: Callable[["VirtualTraining", Trained], None] | None = None
    now_ms: float = 0.0
    trained: list[Trained] = field(default_factory=list)

    def __post_init__(self) -> None:
        s = self.setting
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.shard = Shard(0, 1, SlotMap.even(1), s.compensation)
        self.clocks = Clocks(1, 1, s.staleness, lease_ms=LEASE_MS, stated_max_ms=LEASE_MS)
        self.sender = AllowListSender(self.clocks)
        if s.concurrency:
            self.clocks.set_concurrency(self.model.name, s.concurrency)
        ends = {f"label/{p}": 0 for p in range(PARTITIONS)}
        self.shard.begin(self.model.spec, ends, dict(self.model.initial_dense()))
        self.by_range = {(w.batch.partition, w.batch.start): w for w in self.works}
        self.learners = [VirtualLearner(self, i, s.learners) for i in range(s.learners)]

    def after(self, ms: float, work: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (self.now_ms + ms, self._count, work))

    def tell(self) -> None:
        """The allow list, as the clock holder brings it."""
        while not self.told():
            pass

    def told(self) -> bool:
        """Whether the list was sent to the incarnation that answered."""
        sent = self.sender.message(0)
        assert sent is not None, "there is one shard"
        return not self.sender.answered(0, sent, self.shard.allow(sent))

    def run(self) -> "VirtualTraining":
        for learner in self.learners:
            learner.begin()
        while len(self.trained) < len(self.works):
            self.now_ms, _, work = heapq.heappop(self._heap)
            work()
        return self

    @property
    def log_loss(self) -> float:
        """Progressive, over all rows."""
        return sum(t.log_loss for t in self.trained) / sum(t.work.batch.rows for t in self.trained)


class VirtualLearner:
    """The shell around one `Pacer`, as the worker runs it."""

    def __init__(self, world: VirtualTraining, index: int, learners: int) -> None:
        self.world, self.index = world, index
        self.pacer = Pacer(world.model.name, [0], LearnerConfig())
        self.partitions = [p for p in range(PARTITIONS) if p % learners == index]
        self.queues = {
            p: [w.batch for w in world.works if w.batch.partition == p] for p in self.partitions
        }
        self.seeks: dict[int, int] = {}
        self.paused: set[int] = set()
        self.busy_until_ms = 0.0
        self.wake_ms = float("inf")
        self.results: dict[tuple[int, int], float] = {}  # (partition, start) -> loss

    def begin(self) -> None:
        self.event(events.Assigned(self.partitions))

    def event(self, event: Any) -> None:
        for it in self.pacer.handle(event, int(self.world.now_ms)):
            self.perform(it)
        wake = self.pacer.next_wake_ms
        if wake < self.wake_ms:
            self.wake_ms = wake
            self.world.after(max(0.0, wake - self.world.now_ms), lambda: self.tick(wake))

    def tick(self, wake: float) -> None:
        if self.wake_ms == wake:
            self.wake_ms = float("inf")
            self.event(events.Tick())

    def perform(self, it: Any) -> None:
        world = self.world
        if isinstance(it, do.Seek):
            self.seeks[it.partition] = it.seek
            world.after(0, lambda: self.read(it.partition))
        elif isinstance(it, do.Pause):
            self.paused.add(it.partition)
        elif isinstance(it, do.Resume):
            self.paused.discard(it.partition)
            world.after(0, lambda: self.read(it.partition))
        elif isinstance(it, do.Compute):
            self.compute(it)
        elif isinstance(it, do.Stop):
            raise RuntimeError(it.reason)
        elif not isinstance(it, do.Evaluate):
            half = (PULL_MS if isinstance(it, do.Pull | do.Push) else CONTROL_MS) / 2
            world.after(half, lambda: self.served(it, half))

    def read(self, partition: int) -> None:
        queue = self.queues[partition]
        while queue and partition not in self.paused and partition in self.seeks:
            self.event(events.Records(self.seeks[partition], partition, [queue.pop(0)]))
        if not any(self.queues.values()):
            self.event(events.Idle())

    def served(self, it: Any, half: float) -> None:
        reply = self.reply(it)
        self.world.after(half, lambda: self.event(events.Answered(it.call, reply)))

    def reply(self, it: Any) -> Any:
        world, name, now = self.world, self.world.model.name, int(self.world.now_ms)
        clocks, shard = world.clocks, world.shard
        if isinstance(it, do.Join):
            joined = clocks.join(name, f"learner-{self.index}", now)
            world.tell()
            return joined
        if isinstance(it, do.AskProgress):
            return shard.progress(name)
        if isinstance(it, do.Start):
            return clocks.start(it.request(name), now)
        if isinstance(it, do.Ended):
            return clocks.ended(name, it.epoch, it.clock, now)
        if isinstance(it, do.Park):
            return clocks.park(name, it.epoch, now)
        if isinstance(it, do.Renew):
            return clocks.renew(name, it.epoch, it.doing, now)
        if isinstance(it, do.Pull):
            keys = self.work(it.batch).prepared.keys
            return shard.pull(PullRequest(name, it.epoch, it.slot_map.epoch, keys))
        assert isinstance(it, do.Push)
        return self.push(it)

    def push(self, it: do.Push) -> PushReply:
        work = self.world.by_range[it.partition, it.start]
        content, loss = it.result
        reply = self.world.shard.push(it.request(self.world.model.name, **content))
        if reply.outcome is not Outcome.APPLIED:
            raise RuntimeError(f"a push was {reply.outcome.value}: {reply.detail}")
        self.world.trained.append(Trained(work, loss, reply.staleness, self.world.now_ms))
        if self.world.on_trained is not None:
            self.world.on_trained(self.world, self.world.trained[-1])
        return reply

    def work(self, batch: Batch) -> Work:
        return self.world.by_range[batch.partition, batch.start]

    def compute(self, it: do.Compute) -> None:
        """On the learner's own core, one at a time."""
        world, work, pulled = self.world, self.work(it.batch), it.pulls[0]
        took = world.think_ms * (1 + JITTER * _uniform(world.seed, it.batch))
        began = max(world.now_ms, self.busy_until_ms)
        self.busy_until_ms = began + took
        result = differentiate(world.model, work, pulled.rows, pulled.dense)
        done = events.Computed(it.clock, it.start, it.end, result)
        world.after(self.busy_until_ms - world.now_ms, lambda: self.event(done))


def differentiate(model: Model, work: Work, rows: Any, dense: Any) -> tuple[dict[str, Any], float]:
    """(what a push carries, the batch's summed log loss before it is trained on)."""
    prepared = work.prepared
    p, gradients, dense_gradients = model.kind.differentiate(
        prepared.places, rows, dense, prepared.encoded, work.label, work.weight
    )
    content = {
        "row_hash": 0,
        "rows": len(work.label),
        "event_time_max_ms": work.batch.time_ms,
        "keys": prepared.keys,
        "gradients": gradients,
        "dense": dense_gradients,
    }
    return content, log_loss(p, work.label)


def log_loss(p: Any, label: Any) -> float:
    kept = clip(p).astype(np.float64)
    return float(-np.log(np.where(label > 0, kept, 1.0 - kept)).sum())


def _uniform(seed: int, batch: Batch) -> float:
    """In [-1, 1), a function of the batch."""
    return 2 * random.Random(f"{seed}/{batch.partition}/{batch.start}").random() - 1
