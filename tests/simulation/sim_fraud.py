"""The fraud filter's process: the shell around `FraudFilter`, its tables on disk as a changelog
keeps them.

One ordered producer: verdicts, acknowledged, and only then watermarks (F2); every so often rows,
and once those are out, the fold position. After a failed send the filter is made anew from the
tables, and reads on from where they stand.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from sim_log import Broker, Message
from sim_network import Process, World
from sim_scenario import FRAUD, Scenario
from sim_watch import Watch

from labeler.counting import Signal, contradiction, decode_signal
from labeler.fraud import FraudFilter
from labeler.fraud.activity_pages import counts_in
from labeler.fraud.filter import FilterStep
from labeler.fraud.tables import TABLES, Tables
from stream import Record, position
from stream.internal_topics import MalformedRecord, encode_verdict, input_name

POLL_MS = 150
COMMIT_MS = 1500
FLUSH_MS = 100  # rows on their way to the changelogs


class Journal:
    """The changelogs of all tables. What was written since the last flush may be lost in a crash:
    from the end of each changelog, and of each by itself."""

    def __init__(self) -> None:
        self.flushed: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
        self.open: dict[str, list[tuple[str, Any]]] = {name: [] for name in TABLES}

    def flush(self, keep: Callable[[int], int] = lambda length: length) -> None:
        """`keep` of a changelog's unflushed length says how much of it got out."""
        for name, written in self.open.items():
            for key, value in written[: keep(len(written))]:
                if value is None:
                    self.flushed[name].pop(key, None)
                else:
                    self.flushed[name][key] = value
            written.clear()

    def tables(self) -> Tables:
        return Tables(*(JournalledTable(self, name) for name in TABLES))


class JournalledTable:
    """A table in memory, every change of which goes to the journal."""

    def __init__(self, journal: Journal, name: str) -> None:
        self.journal, self.name = journal, name
        self.rows: dict[str, Any] = copy.deepcopy(journal.flushed[name])

    def get(self, key: str, default: Any = None) -> Any:
        return self.rows.get(key, default)

    def __setitem__(self, key: str, value: Any) -> None:
        self.rows[key] = value
        self.journal.open[self.name].append((key, value))

    def pop(self, key: str, default: Any = None) -> Any:
        if key in self.rows:
            self.journal.open[self.name].append((key, None))
        return self.rows.pop(key, default)

    def items(self) -> Any:
        return list(self.rows.items())

    def __len__(self) -> int:
        return len(self.rows)


class FraudNode(Process):
    role = "fraud filter"

    def __init__(self, world: World, scenario: Scenario, broker: Broker, watch: Watch) -> None:
        super().__init__(world, "fraud-filter")
        self.scenario, self.config, self.broker, self.watch = (
            scenario,
            scenario.stream,
            broker,
            watch,
        )
        c = self.config
        self.views = [input_name(c.impressions, p) for p in range(c.partitions)]
        self.steps = 0
        self.clicks = [input_name(c.clicks, p) for p in range(c.partitions)]
        self.inputs = [
            (input_name(topic, p), topic, p)
            for topic in (c.impressions, c.clicks)
            for p in range(c.partitions)
        ]

    def boot(self) -> None:
        self.journal: Journal = self.disk.setdefault("journal", Journal())
        self.journal.flush(lambda length: self.world.rng.randrange(length + 1))
        self.generation = 0
        self.restart()
        self.poll()

    def restart(self) -> None:
        """The filter anew, from the tables, which nothing was lost of: no process died."""
        self.journal.flush()
        self.generation += 1
        self.watch.recount.forgets()
        self.filter = FraudFilter(FRAUD, self.views, self.clicks, self.journal.tables())
        self.busy = False
        self.committed_ms = self.world.time.now_ms

    def poll(self) -> None:
        self.after(POLL_MS * (0.5 + self.world.rng.random()), self.poll)
        if self.busy:
            return
        limit = self.world.rng.choice((1, 5, 40))
        records = self.broker.fetch(self, self.config.signals, 0, self.filter.next_offset, limit)
        if not records:
            return
        self.busy = True
        ends = {name: position(len(self.broker.records(t, p))) for name, t, p in self.inputs}
        heard = [(record.offset, self.heard(record, ends)) for record in records]
        step = self.filter.on_signals(heard)
        self.steps += 1
        self.watch.recount.decides(step, self.steps)
        self.journal.flush()  # promises are out before anything is said
        self.say(step)

    def heard(self, record: Record, ends: Mapping[str, int]) -> Signal | None:
        """What a record says; None where it says nothing, or more than its input's log holds
        (F3)."""
        try:
            signal = decode_signal(record)
        except MalformedRecord:
            return None
        return (
            None
            if contradiction(signal, record.timestamp_ms, ends, self.config.watermark_ahead_ms)
            else signal
        )

    def say(self, step: FilterStep) -> None:
        """All verdicts, acknowledged; then the watermarks (F2)."""
        self.send(
            list(step.verdicts), lambda: self.send(list(step.watermarks), lambda: self.said(step))
        )

    def send(self, said: list[Any], then: Callable[[], None]) -> None:
        """One at a time, in order; `then` once the log holds them all."""
        if not said:
            then()
            return
        generation = self.generation
        self.reach("verdict")

        def landed(_: Any) -> None:
            if self.generation == generation:
                self.send(said[1:], then)

        def failed() -> None:
            if self.generation == generation:
                self.world.trace(self.name, "a send failed: made anew from its tables")
                self.generation += 1
                self.after(200, self.restart)

        headers = (("step", str(self.steps).encode()),)
        message = Message(self.config.verdicts, 0, b"", encode_verdict(said[0]), headers)
        self.broker.append(self, message, landed, failed)

    def said(self, step: FilterStep) -> None:
        """The log holds it all. Every so often, rows, and when they are out, the fold position."""
        if self.world.time.now_ms - self.committed_ms < COMMIT_MS:
            self.busy = False
            return
        self.committed_ms = self.world.time.now_ms
        self.filter.save()
        generation = self.generation
        self.after(
            FLUSH_MS * self.world.rng.random(),
            lambda: self.generation == generation and self.commit(step),
        )
        self.reach("rows")  # a crash before the flush may cut a group of pages short

    def commit(self, step: FilterStep) -> None:
        self.journal.flush()
        self.reach("commit")
        signals = self.broker.records(self.config.signals, 0)
        self.watch.recount.check(step, counts_in(self.filter.tables.activity), signals)
        self.filter.commit(step)
        self.busy = False
