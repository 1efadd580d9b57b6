"""A labeler process: the shell around `PartitionLabeler` and `CountingReader`, for the partitions its group gives it.

Its order of work is the service's: fold `examples[p]` and go on at its end (C2, C4); side records before the range
that counts them (C6); one unacknowledged record of a chain; after any failed send the producer is dropped unflushed,
what was known of the partitions is forgotten, and the log is folded again (C5).
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from sim_log import Broker, Message
from sim_network import Process, World
from sim_scenario import FRAUD, Scenario

from labeler.config import LabelerConfig
from labeler.counting import CountingReader, SignalEnds
from labeler.emission import REJECTED, Emission
from labeler.partition import PartitionLabeler
from labeler.resume import ExamplesFold, ResumePoint
from labeler.signals import Signal, decode_signal
from labeler.verdict_book import VerdictBook
from stream.record import CLOCK_MS, CONTROL, HEARTBEAT
from stream.verdicts import input_name

GROUP = "labelers"
POLL_MS = 350
GROUP_EVERY_MS = 400
RETRY_MS = 300


class Line:
    """One partition being labelled: its core, its reading positions, and what is still to be sent."""

    def __init__(self, core: PartitionLabeler) -> None:
        self.core = core
        self.impressions_at = core.point.impressions_offset
        self.clicks_at = core.point.clicks_offset
        self.unsent: deque[Emission] = deque()
        self.unfinished = True  # the last step may have left something to do
        self.busy = False


class Count:
    """One input being counted."""

    def __init__(self, reader: CountingReader) -> None:
        self.reader, self.at = reader, reader.offset
        self.unsent: deque[Signal] = deque()
        self.busy = False


class LabelerNode(Process):
    role = "labeler"

    def __init__(self, world: World, index: int, scenario: Scenario, broker: Broker) -> None:
        super().__init__(world, f"labeler-{index}")
        self.scenario, self.config, self.broker = scenario, scenario.stream, broker
        c = self.config
        self.settings = LabelerConfig(await_verdicts=scenario.fraud)
        self.inputs = [input_name(topic, p) for topic in (c.impressions, c.clicks) for p in range(c.partitions)]
        self.folds = 0
        self.beats = False  # whether it writes heartbeats

    def boot(self) -> None:
        self.assigned: list[int] = []
        self.drop()
        self.ask_group()
        self.after(self.world.rng.random() * POLL_MS, self.poll)
        if not self.config.replayed:
            self.after(0, self.heartbeat)

    def stop(self) -> None:
        self.broker.leave(self, GROUP)

    def drop(self) -> None:
        """Drop the producer, and forget every position (C5)."""
        self.producer = getattr(self, "producer", 0) + 1
        self.lines: dict[int, Line] = {}
        self.counts: dict[str, Count] = {}
        self.book: VerdictBook | None = None
        self.folded_at_ms = 0

    def failed(self, what: str) -> None:
        self.world.trace(self.name, f"a send failed ({what}): folds again")
        self.drop()
        self.folded_at_ms = self.world.time.now_ms + RETRY_MS

    # --- the group ---

    def ask_group(self) -> None:
        share = self.broker.assigned(self, GROUP)
        if share is not None and share != self.assigned:
            self.world.trace(self.name, f"has {share}, had {self.assigned}")
            for p in set(self.assigned) - set(share):
                self.lines.pop(p, None)
                for topic in (self.config.impressions, self.config.clicks):
                    self.counts.pop(input_name(topic, p), None)
            self.assigned = share
        self.after(GROUP_EVERY_MS * (0.7 + 0.6 * self.world.rng.random()), self.ask_group)

    def heartbeat(self) -> None:
        """T2, live: into both topics of every partition owned; the header carries this process's clock."""
        for p in self.assigned:
            for topic in (self.config.impressions, self.config.clicks):
                headers = ((CONTROL, HEARTBEAT.encode()), (CLOCK_MS, str(self.clock_ms()).encode()))
                message = Message(topic, p, None, None, headers)
                self.broker.append(self, message, lambda r: None, lambda: None)
        self.after(self.config.heartbeat_ms, self.heartbeat)

    # --- one turn ---

    def poll(self) -> None:
        self.after(POLL_MS * (0.5 + self.world.rng.random()), self.poll)
        if self.world.time.now_ms < self.folded_at_ms:
            return
        self.fold_new()
        judged = False
        if self.book is not None:
            records = self.broker.fetch(self, self.config.verdicts, 0, self.book.next_offset, 200)
            self.book.read(records)
            judged = bool(records)
        for p in list(self.lines):
            self.turn(p, judged)
        for name in list(self.counts):
            self.count(name)

    def fold_new(self) -> None:
        """Fold the chains of partitions that are new here, from what the log holds now (C2)."""
        c = self.config
        new = [p for p in self.assigned if p not in self.lines]
        if not new:
            return
        points: dict[int, ResumePoint] = {}
        for p in new:
            records = self.read_all(c.examples, p)
            if records is None:
                return
            fold = ExamplesFold(p, from_first=True)
            fold.add(records)
            points[p] = fold.point or ResumePoint.fresh(0, 0, 0)
        if self.scenario.fraud:
            signals = self.read_all(c.signals, 0)
            if signals is None:
                return
            self.begin_counting(new, [decode_signal(record) for record in signals])
            held = [line.core.point for line in self.lines.values()]
            self.book = VerdictBook.at(self.inputs, [*points.values(), *held])
            for line in self.lines.values():
                line.core.use(self.book)
        for p, point in points.items():
            self.folds += 1
            self.world.trace(self.name, f"goes on with partition {p} at {point.start >> 20}.{point.start & 0xFFFFF}")
            self.lines[p] = Line(PartitionLabeler(c, self.settings, p, point, self.book))

    def read_all(self, topic: str, partition: int) -> list[Any] | None:
        end = self.broker.end(self, topic, partition)
        return None if end is None else self.broker.fetch(self, topic, partition, 0, end)

    def begin_counting(self, new: list[int], signals: list[Signal]) -> None:
        ends = SignalEnds()
        for signal in signals:
            ends.on_signal(signal)
        for p in new:
            for topic in (self.config.impressions, self.config.clicks):
                name = input_name(topic, p)
                at = ends.resume_point(name, 0)
                self.counts[name] = Count(CountingReader(self.config, FRAUD, topic, p, at))

    def turn(self, p: int, judged: bool) -> None:
        """Read what the core wants, and send what it has decided. `judged`: there is news of verdicts."""
        line, rng, c = self.lines[p], self.world.rng, self.config
        if line.unsent or line.busy:
            return
        news = judged or line.unfinished
        records = self.broker.fetch(self, c.impressions, p, line.impressions_at, rng.choice((1, 6, 50, 50)))
        if records and line.core.wants_impressions():
            news = True
            line.impressions_at = records[-1].offset + 1
            line.core.on_impressions(records)
        for _ in range(3):
            records = self.broker.fetch(self, c.clicks, p, line.clicks_at, rng.choice((1, 6, 50, 50)))
            if not records or not line.core.wants_clicks():
                break
            news = True
            line.clicks_at = records[-1].offset + 1
            line.core.on_clicks(records)
        if not news:
            return
        limit = rng.choice((1, 3, 16))
        line.unsent.extend(line.core.step(limit))
        line.unfinished = len(line.unsent) == limit
        if line.core.stopped is not None:
            raise AssertionError(f"{self.name}: {line.core.stopped}")
        self.send_next(p, line)

    def mine(self, line: Any, held: Any, work: Callable[..., None]) -> Callable[..., None]:
        """`work`, unless the producer was dropped or the line lost meanwhile."""
        producer = self.producer

        def guarded(*args: Any) -> None:
            if self.producer == producer and held() is line:
                work(*args)

        return guarded

    def send_next(self, p: int, line: Line) -> None:
        if not line.unsent or line.busy:
            return
        line.busy = True
        emission = line.unsent[0]
        left = [len(emission.before)]
        held = lambda: self.lines.get(p)  # noqa: E731
        lost = self.mine(line, held, lambda: self.failed(f"examples/{p}"))

        def side_landed(_: Any) -> None:
            left[0] -= 1
            if left[0] == 0:
                self.send_batch(p, line, emission)

        for side in emission.before:
            topic = self.config.rejected if side.topic == REJECTED else self.config.quarantine
            message = Message(topic, 0, side.key, side.value, tuple(side.headers))
            self.broker.append(self, message, self.mine(line, held, side_landed), lost)
        if not emission.before:
            self.after(
                self.world.rng.choice((0, 0, 3)), self.mine(line, held, lambda: self.send_batch(p, line, emission))
            )

    def send_batch(self, p: int, line: Line, emission: Emission) -> None:
        held = lambda: self.lines.get(p)  # noqa: E731

        def landed(_: Any) -> None:
            line.unsent.popleft()
            line.busy, line.unfinished = False, True
            self.send_next(p, line)

        message = Message(self.config.examples, p, None, emission.value, tuple(emission.header.to_headers()))
        lost = self.mine(line, held, lambda: self.failed(f"examples/{p}"))
        self.broker.append(self, message, self.mine(line, held, landed), lost)

    # --- counting, at the head (F1) ---

    def count(self, name: str) -> None:
        it = self.counts[name]
        topic, _, p = name.rpartition("/")
        records = self.broker.fetch(self, topic, int(p), it.at, self.world.rng.choice((1, 6, 50, 50)))
        if records:
            it.at = records[-1].offset + 1
            it.unsent.extend(it.reader.on_records(records))
        self.send_signal(name, it)

    def send_signal(self, name: str, it: Count) -> None:
        if not it.unsent or it.busy:
            return
        it.busy = True
        signal = it.unsent[0]
        held = lambda: self.counts.get(name)  # noqa: E731

        def landed(_: Any) -> None:
            it.unsent.popleft()
            it.busy = False
            self.send_signal(name, it)

        message = Message(self.config.signals, 0, signal.key, signal.value, tuple(signal.headers))
        lost = self.mine(it, held, lambda: self.failed(name))
        self.broker.append(self, message, self.mine(it, held, landed), lost)
