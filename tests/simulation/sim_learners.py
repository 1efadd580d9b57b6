"""A learner: the shell around `Pacer`, as the worker runs it, over a consumer group of
`examples`."""

from typing import Any

import numpy as np
import pyarrow as pa
from sim_admitted import WORDS, words_on
from sim_decoded import header_of, rows_of
from sim_log import Broker
from sim_network import Process, World
from sim_scenario import MODEL, SHARDS, TABLE, Scenario
from sim_toy import gradients, keys_on, names_of, partition_of_chain
from sim_watch import Watch

from learners import LearnerConfig
from learners.pacing import Pacer, events
from learners.pacing import instructions as do
from learners.training import gradient
from paramserver import Keys, PullRequest, PushReply, SlotMap, StartOutcome
from stream import Record, partition_of
from stream.internal_topics import MalformedRecord, row_hash_sum

GROUP = "learners"
POLL_MS = 150
GROUP_EVERY_MS = 400


def as_batch(partition: int, record: Record) -> events.Batch | None:
    """None for a record that says nothing, or of a chain that has no place here (C8)."""
    try:
        header = header_of(record.headers)
    except MalformedRecord:
        return None
    if partition_of(header.chain) != partition:
        return None
    return events.Batch(
        partition=partition,
        chain=header.chain,
        start=header.start,
        end=header.end,
        record=record.offset,
        next_record=record.offset + 1,
        rows=header.labelled,
        barrier=header.barrier,
        time_ms=header.arrival_max_ms,
        value=record.value,
    )


def rows_between(batch: events.Batch, start: int, end: int) -> pa.RecordBatch | None:
    """The rows of a batch that stand in `[start, end)`."""
    return gradient.rows_between(rows_of(batch.value), batch, start, end) if batch.value else None


class LearnerNode(Process):
    role = "learner"

    def __init__(
        self, world: World, index: int, scenario: Scenario, broker: Broker, watch: Watch
    ) -> None:
        super().__init__(world, f"learner-{index}")
        self.scenario, self.broker, self.watch = scenario, broker, watch
        self.pacer: Pacer
        self.stopped_for: str | None = None

    def boot(self) -> None:
        self.pacer = Pacer(MODEL, range(SHARDS), LearnerConfig(wait_ms=40))
        self.seeks: dict[
            int, tuple[int, int]
        ] = {}  # partition -> (number of the seek, next record)
        self.paused: set[int] = set()
        self.assigned: list[int] = []
        self.wake_at_ms: int | None = None
        self.ask_at_ms = 0
        self.poll()

    def stop(self) -> None:
        self.broker.leave(self, GROUP)

    # --- the log ---

    def poll(self) -> None:
        share = (
            self.broker.assigned(self, GROUP) if self.world.time.now_ms >= self.ask_at_ms else None
        )
        if share is not None:
            self.ask_at_ms = self.world.time.now_ms + GROUP_EVERY_MS
        if share is not None and share != self.assigned:
            gone = [p for p in self.assigned if p not in share]
            new = [p for p in share if p not in self.assigned]
            self.assigned = share
            for p in gone:
                self.seeks.pop(p, None)
            if gone:
                self.event(events.Revoked(gone))
            if new:
                self.event(events.Assigned(new))
        found = False
        for p in list(self.seeks):
            if p in self.paused or p not in self.seeks:
                continue
            seek, at = self.seeks[p]
            limit = self.world.rng.choice((1, 3, 20))
            records = self.broker.fetch(self, self.scenario.stream.examples, p, at, limit)
            if records:
                found = True
                self.seeks[p] = (seek, records[-1].offset + 1)
                self.event(
                    events.Records(
                        seek, p, [b for b in (as_batch(p, r) for r in records) if b is not None]
                    )
                )
        if not found:
            self.event(events.Idle())
        self.after(POLL_MS * (0.5 + self.world.rng.random()), self.poll)

    # --- the core ---

    def event(self, event: Any) -> None:
        """Hand one event to the core and do what it says, in order."""
        for instruction in self.pacer.handle(event, self.steady_ms()):
            self.perform(instruction)
        self.arm()

    def arm(self) -> None:
        wake = self.pacer.next_wake_ms
        if self.wake_at_ms is None or wake < self.wake_at_ms:
            self.wake_at_ms = wake

            def tick() -> None:
                if self.wake_at_ms == wake:
                    self.wake_at_ms = None
                    self.event(events.Tick())

            self.after(max(1, wake - self.steady_ms()), tick)

    def perform(self, it: Any) -> None:
        if isinstance(it, do.Seek):
            self.seeks[it.partition] = (it.seek, it.record or 0)
        elif isinstance(it, do.Pause):
            self.paused.add(it.partition)
        elif isinstance(it, do.Resume):
            self.paused.discard(it.partition)
        elif isinstance(it, do.Compute):
            self.reach("pulled")
            took = self.world.rng.choice((1, 5, 40))
            self.after(
                took,
                lambda: self.event(
                    events.Computed(
                        it.clock, it.start, it.end, (it.start, it.end, it.batch, it.slot_map)
                    )
                ),
            )
        elif isinstance(it, do.Stop):
            self.stopped_for = it.reason
            self.world.trace(self.name, f"stops: {it.reason}")
        elif not isinstance(it, do.Evaluate):
            self.call(it)

    def call(self, it: Any) -> None:
        shard: Any = self.world.processes[f"shard-{getattr(it, 'shard', 0)}"]
        work = self.work(it, shard)

        def answered(reply: Any) -> None:
            if isinstance(reply, PushReply):
                self.watch.told(it.shard, it.epoch, reply)
                self.reach("pushed")
            if isinstance(reply, Exception):
                self.event(events.Refused(it.call, str(reply)))
            else:
                self.event(events.Answered(it.call, reply))

        self.world.network.call(
            self, shard, work, answered, lambda: self.event(events.Unreachable(it.call)), 800
        )

    def work(self, it: Any, shard: Any) -> Any:
        """What the callee will do, with everything the message carries bound now."""
        if isinstance(it, do.Join):
            return lambda: self.guarded(
                lambda: shard.clocks.join(MODEL, self.name, shard.steady_ms())
            )
        if isinstance(it, do.AskProgress):
            return shard.progress
        if isinstance(it, do.Start):
            return lambda: self.start_of(it, shard)
        if isinstance(it, do.Ended):
            return lambda: shard.clocks.ended(MODEL, it.epoch, it.clock, shard.steady_ms())
        if isinstance(it, do.Park):
            return lambda: shard.clocks.park(MODEL, it.epoch, shard.steady_ms())
        if isinstance(it, do.Renew):
            return lambda: self.guarded(
                lambda: shard.clocks.renew(MODEL, it.epoch, it.doing, shard.steady_ms())
            )
        if isinstance(it, do.Pull):
            rows = rows_between(it.batch, it.batch.start, it.batch.end)
            keys = {} if rows is None else self.keys(it.slot_map, it.shard, it.batch.chain, rows)
            request = PullRequest(MODEL, it.epoch, it.slot_map.epoch, keys)
            return lambda: shard.pull(request, it.clock)
        assert isinstance(it, do.Push)
        return self.push(it, shard)

    def start_of(self, it: do.Start, shard: Any) -> Any:
        now_ms = shard.steady_ms()
        reply = shard.clocks.start(it.request(MODEL), now_ms)
        self.watch.bounded(shard.clocks.bounds(MODEL, now_ms).in_force, now_ms)
        if reply.outcome is StartOutcome.ADMITTED:
            self.watch.admitted(it.epoch, reply.clock, shard.clocks, now_ms)
        return reply

    def push(self, it: do.Push, shard: Any) -> Any:
        _, _, batch, slot_map = it.result
        rows = rows_between(batch, it.start, it.end)
        content: dict[str, Any] = {"row_hash": 0, "rows": 0}
        if rows is not None and rows.num_rows:
            keys = self.keys(slot_map, it.shard, it.chain, rows)
            content = {
                "row_hash": row_hash_sum(rows),
                "rows": rows.num_rows,
                "event_time_max_ms": int(rows.column("ts_ms").to_numpy().max()),
                "keys": keys,
                "gradients": {table: gradients(len(of_table)) for table, of_table in keys.items()},
            }
        request = it.request(MODEL, **content)

        def work() -> PushReply:
            reply: PushReply = shard.push(request, it.clock)
            return reply

        return work

    def keys(
        self, slot_map: SlotMap, shard: int, chain: str, rows: pa.RecordBatch
    ) -> dict[str, Keys]:
        names = names_of(chain, rows)
        names = np.sort(names[names >= 0])
        keys = {TABLE: keys_on(slot_map, shard, partition_of_chain(chain), names)}
        return keys | {WORDS: words_on(slot_map, shard, names)} if self.scenario.words else keys
