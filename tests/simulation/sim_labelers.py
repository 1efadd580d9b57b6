"""A labeler process: the labeler's own `Labelling` and `Head` over the simulated log, turned as
its service does."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from sim_adder import AdderThread
from sim_client import Client
from sim_log import Broker
from sim_network import Process, World
from sim_scenario import FRAUD, Scenario
from sim_store import FullPages

from labeler import LabelerConfig
from labeler.counting import Head
from labeler.counting.reader import SignalEnds
from labeler.io import TailReader
from labeler.join import label_strategies
from labeler.labels import Labelling, PartitionStop
from labeler.retraction import Retracting
from stream.log.rows import MemoryStorage, RowStorage

GROUP = "labelers"
TURN_MS = 500
GROUP_EVERY_MS = 400
#: However little there is to read, a turn is made at least this often.
IDLE_MS = 1200


class HeadThatFoldsAnew(Head):
    """Reads `signals` back at each fold: with as many polls as there were when the seeds were found
    that catch planted bugs (`caught.json`)."""

    def _fold(self, tail: TailReader) -> SignalEnds:
        self._folded = None
        return super()._fold(tail)


class LabelerNode(Process):
    role = "labeler"

    def __init__(self, world: World, index: int, scenario: Scenario, broker: Broker) -> None:
        super().__init__(world, f"labeler-{index}")
        self.scenario, self.config, self.broker = scenario, scenario.stream, broker
        self.disk: dict[bytes, bytes] = {}  # outlives a crash
        self.earlier: dict[bytes, bytes] = {}
        self.rows: dict[str, dict[bytes, bytes]] = {}  # by what they are of; outlives a crash
        self.earlier_rows: dict[str, dict[bytes, bytes]] = {}
        self.held = False  # whether it may not come up now (`sim_lost`)
        self.on_gone: Callable[[PartitionStop], None] = lambda stop: (
            None
        )  # told of each stop for want of input (C7)
        self.fate = random.Random(f"copy/{scenario.seed}/{index}")
        self.rows_fate = random.Random(f"rows/{scenario.seed}/{index}")
        if scenario.mixed and index:
            self.config = replace(self.config, batch_rows_max=5, flush_ms=1000)
        self.settings = LabelerConfig(
            await_verdicts=scenario.fraud,
            await_breaker=scenario.breaker,
            fold_records_max=scenario.fold_records_max,
            outbox_max=3,
            feed_records_max=200,
            take_records_max=64,
            retract_rows_max=12,
            send_timeout_ms=1200,
            retry_ms=300,
            pending_clicks_bytes_max=300,
            kept_bytes_max=2_000,
            catalogue_bytes_max=1_000,
            click_page_rows=1,
        )

    def start(self) -> None:
        if not self.held:
            super().start()

    def boot(self) -> None:
        self.owned: frozenset[int] = frozenset()
        self.label_log = Client(self, self.broker, lambda: self.soon(self.label))
        self.head_log = Client(self, self.broker, lambda: self.soon(self.count))
        first, *later = label_strategies(self.config)
        pages = self.found_on_disk()
        self.labelling = Labelling(self.config, self.settings, self.label_log, first, pages=pages)
        self.late_log = Client(self, self.broker, lambda: self.soon(self.label_late))
        self.late = (
            Labelling(self.config, self.settings, self.late_log, later[0], pages=pages)
            if later
            else None
        )
        self.find_rows()
        for one in (self.labelling, *([self.late] if self.late else ())):
            is_late = one is self.late
            one.joined.catalogues.disk = partial(self.storage, is_late)
            one.joined.counts.storage = self.storage(is_late, "counts")
        self.retract_log = Client(self, self.broker, lambda: self.soon(self.retract))
        self.retracting = Retracting(self.config, self.settings, self.retract_log)
        kind = Head if self.scenario.remembers_folds else HeadThatFoldsAnew
        self.head = kind(self.config, self.settings, FRAUD, self.head_log)
        self.adder: AdderThread | None = None
        if self.scenario.counters:
            self.adder = AdderThread(self, self.broker, self.scenario, self.storage(False, "adder"))
        self.labelled_ms = self.labelled_late_ms = self.counted_ms = self.retracted_ms = 0
        self.ask_group()
        self.after(self.world.rng.random() * TURN_MS, self.label_loop)
        self.after(self.world.rng.random() * TURN_MS, self.count_loop)
        if self.late is not None:
            self.after(self.world.rng.random() * TURN_MS, self.late_loop)
        if self.scenario.inputs:
            self.after(self.world.rng.random() * TURN_MS, self.retract_loop)

    def found_on_disk(self) -> RowStorage | None:
        """The local copy (C4): as it was left, as an earlier start found it, without some of its
        pages, that of another labeler, or none."""
        if not self.scenario.copies:
            return None
        earlier, self.earlier = self.earlier, dict(self.disk)
        kind = self.fate.choice(("own", "own", "earlier", "holes", "holes", "another's", "none"))
        if kind == "earlier":
            self.disk = dict(earlier)
        elif kind == "holes":
            self.disk = {
                key: value for key, value in sorted(self.disk.items()) if self.fate.random() < 0.7
            }
        elif kind == "another's":
            others = [
                one
                for one in self.world.processes.values()
                if isinstance(one, LabelerNode) and one is not self
            ]
            self.disk = {key: value for one in others for key, value in one.disk.items()}
        elif kind == "none":
            self.disk = {}
        self.world.trace(self.name, f"starts with a copy of {len(self.disk)} pages ({kind})")
        if self.scenario.store_fails:
            return FullPages(self.disk, lambda: self.world.time.now_ms < self.full_until_ms)
        return MemoryStorage(self.disk)

    def find_rows(self) -> None:
        """Rows on disk (A3a, J4a): as they were left, as an earlier start found them, those of
        another labeler, or none."""
        earlier = self.earlier_rows
        self.earlier_rows = {of: dict(rows) for of, rows in self.rows.items()}
        kind = self.rows_fate.choice(("own", "own", "own", "earlier", "another's", "none"))
        if kind == "earlier":
            self.rows = earlier
        elif kind == "another's":
            nodes = [one for one in self.world.processes.values() if isinstance(one, LabelerNode)]
            other = self.rows_fate.choice(nodes)
            self.rows = {of: dict(rows) for of, rows in other.rows.items()}
        elif kind == "none":
            self.rows = {}

    def storage(self, is_late: bool, of: str) -> MemoryStorage:
        rows = self.rows.setdefault(f"{of} {is_late}", {})
        return FullPages(rows, lambda: self.world.time.now_ms < self.full_until_ms)

    def died(self) -> None:
        if self.adder is not None:
            self.adder.task.kill()

    def stop(self) -> None:
        self.labelling.drain(self.clock_ms())
        self.broker.leave(self, GROUP)

    def soon(self, run_once: object) -> None:
        self.after(1, run_once)  # type: ignore[arg-type]

    def ask_group(self) -> None:
        share = self.broker.assigned(self, GROUP)
        if share is not None and frozenset(share) != self.owned:
            self.world.trace(self.name, f"owns {share}, owned {sorted(self.owned)}")
            self.owned = frozenset(share)
            self.labelling.own(self.owned)
            if self.late is not None:
                self.late.own(self.owned)
            self.retracting.own(self.owned)
            if self.adder is not None:
                self.adder.owned = 0 in self.owned
            self.labelled_ms = self.labelled_late_ms = self.counted_ms = 0
        self.after(GROUP_EVERY_MS * (0.7 + 0.6 * self.world.rng.random()), self.ask_group)

    # --- the threads of the service: `label`, `late` where the strategy reads twice, `head` ---

    def label_loop(self) -> None:
        if self.label_log.behind() or self.world.time.now_ms - self.labelled_ms > IDLE_MS:
            self.label()
        self.after(TURN_MS * (0.5 + self.world.rng.random()), self.label_loop)

    def label(self) -> None:
        """One turn. No record here may stop a partition: the site's bad records are for
        quarantine (L7)."""
        self.labelled_ms = self.world.time.now_ms
        self.run_once(self.labelling)

    def late_loop(self) -> None:
        if self.late_log.behind() or self.world.time.now_ms - self.labelled_late_ms > IDLE_MS:
            self.label_late()
        self.after(TURN_MS * (0.5 + self.world.rng.random()), self.late_loop)

    def label_late(self) -> None:
        self.labelled_late_ms = self.world.time.now_ms
        assert self.late is not None
        self.run_once(self.late)

    def retract_loop(self) -> None:
        if self.retract_log.behind() or self.world.time.now_ms - self.retracted_ms > IDLE_MS:
            self.retract()
        self.after(TURN_MS * (0.5 + self.world.rng.random()), self.retract_loop)

    def retract(self) -> None:
        self.retracted_ms = self.world.time.now_ms
        while self.retracting.run_once(self.clock_ms(), 0):
            pass

    def run_once(self, labelling: Labelling) -> None:
        folds = labelling.totals.refolds
        while labelling.run_once(self.clock_ms(), 0):
            pass
        if labelling.totals.refolds > folds:
            self.world.trace(self.name, "a send failed: folds again")
        for line in labelling.tasks.values():
            for stop in line.core.stops:
                if stop.gone is None:
                    raise AssertionError(f"{self.name}: {stop}")
                self.on_gone(stop)

    def count_loop(self) -> None:
        if self.head_log.behind() or self.world.time.now_ms - self.counted_ms > IDLE_MS:
            self.count()
        self.after(TURN_MS * (1.2 + self.world.rng.random()), self.count_loop)

    def count(self) -> None:
        self.counted_ms = self.world.time.now_ms
        self.head.own(self.owned)
        self.head.run_once(self.clock_ms(), 0)
        for name, why in self.head.totals.stopped.items():
            raise AssertionError(f"{self.name}: {name} is counted no more: {why}")
