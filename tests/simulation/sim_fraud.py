"""The fraud filter's process: the shell around `FraudFilter`, its tables on disk as a changelog keeps them.

One ordered producer: verdicts, acknowledged, and only then watermarks; then the commit (F2). After a failed send the
producer and the filter are dropped, and the filter is made anew from the tables.
"""

import copy
from collections.abc import Callable
from typing import Any

from sim_log import Broker, Message
from sim_network import Process, World
from sim_scenario import FRAUD, Scenario

from labeler.fraud import FraudFilter, Step
from labeler.fraud_tables import Tables
from labeler.signals import decode_signal
from stream.verdicts import encode_verdict, input_name

POLL_MS = 150
NAMES = ("pairs", "sources", "vendors", "progress")


class Journal:
    """The changelog of all tables: what was written since it was last flushed may be lost in a crash, from the end."""

    def __init__(self) -> None:
        self.flushed: dict[str, dict[str, Any]] = {name: {} for name in NAMES}
        self.open: list[tuple[str, str, Any]] = []

    def flush(self, count: int | None = None) -> None:
        for table, key, value in self.open[:count]:
            if value is None:
                self.flushed[table].pop(key, None)
            else:
                self.flushed[table][key] = value
        self.open.clear()

    def tables(self) -> Tables:
        return Tables(*(JournalledTable(self, name) for name in NAMES))


class JournalledTable:
    """A table in memory, every change of which goes to the journal."""

    def __init__(self, journal: Journal, name: str) -> None:
        self.journal, self.name = journal, name
        self.rows: dict[str, Any] = copy.deepcopy(journal.flushed[name])

    def get(self, key: str, default: Any = None) -> Any:
        return self.rows.get(key, default)

    def __setitem__(self, key: str, value: Any) -> None:
        self.rows[key] = value
        self.journal.open.append((self.name, key, value))

    def pop(self, key: str, default: Any = None) -> Any:
        if key in self.rows:
            self.journal.open.append((self.name, key, None))
        return self.rows.pop(key, default)

    def items(self) -> Any:
        return list(self.rows.items())

    def __len__(self) -> int:
        return len(self.rows)


class FraudNode(Process):
    role = "fraud filter"

    def __init__(self, world: World, scenario: Scenario, broker: Broker) -> None:
        super().__init__(world, "fraud-filter")
        self.scenario, self.config, self.broker = scenario, scenario.stream, broker
        c = self.config
        self.views = [input_name(c.impressions, p) for p in range(c.partitions)]
        self.clicks = [input_name(c.clicks, p) for p in range(c.partitions)]

    def boot(self) -> None:
        journal: Journal = self.disk.setdefault("journal", Journal())
        journal.flush(self.world.rng.randrange(len(journal.open) + 1))  # what had got out before the end
        self.journal = journal
        self.generation = 0
        self.restart()
        self.poll()

    def restart(self) -> None:
        """The filter anew, from tables that are whole up to here: nothing was lost, for nothing died."""
        self.journal.flush()
        self.generation += 1
        self.filter = FraudFilter(FRAUD, self.views, self.clicks, self.journal.tables())
        self.busy = False

    def poll(self) -> None:
        self.after(POLL_MS * (0.5 + self.world.rng.random()), self.poll)
        if self.busy:
            return
        limit = self.world.rng.choice((1, 5, 40))
        records = self.broker.fetch(self, self.config.signals, 0, self.filter.next_offset, limit)
        if not records:
            return
        self.busy = True
        step = self.filter.on_signals([(record.offset, decode_signal(record)) for record in records])
        self.world.stepped()
        self.journal.flush()  # rows and promises are out before anything is said
        self.send(list(step.verdicts), lambda: self.send(list(step.watermarks), lambda: self.commit(step)))

    def send(self, said: list[Any], then: Callable[[], None]) -> None:
        """One at a time, in order; `then` once the log holds them all."""
        if not said:
            then()
            return
        generation = self.generation

        def landed(_: Any) -> None:
            if self.generation == generation:
                self.send(said[1:], then)

        def failed() -> None:
            if self.generation == generation:
                self.world.trace(self.name, "a send failed: made anew from its tables")
                self.generation += 1
                self.after(200, self.restart)

        message = Message(self.config.verdicts, 0, b"", encode_verdict(said[0]))
        self.broker.append(self, message, landed, failed)

    def commit(self, step: Step) -> None:
        self.filter.commit(step)
        self.busy = False
