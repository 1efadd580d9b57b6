"""The breaker's process: its own early join (`Labelling` with the tally's core) and `Judging` over
the simulated log.

The judge's shell blocks where it flushes, so it runs on a task of its own. Two processes share the
join; the one that owns partition 0 judges, and one that sleeps through losing it wakes up and goes
on writing.
"""

from collections import deque
from collections.abc import Callable

from sim_client import Client, ClientAppend, ClientWriter
from sim_log import Broker, Message
from sim_network import Process, World
from sim_scenario import BREAKER, Scenario
from sim_tasks import Resume, Task
from sim_watch import Watch

from labeler import LabelerConfig
from labeler.breaker import tally_stream
from labeler.breaker.early_join import TallyEmitter, tally_settings
from labeler.breaker.runner import Judging
from labeler.labels import Labelling
from stream import Partition, Record
from stream.log import Headers

GROUP = "breakers"
TURN_MS = 1000
GROUP_EVERY_MS = 400
IDLE_MS = 2000


class JudgeWriter(ClientWriter):
    """One record after the other, as an idempotent producer keeps them in order; `flush` waits
    on the judge's task."""

    def __init__(self, client: "JudgeClient") -> None:
        super().__init__(client)
        self._pause = client.pause
        self._queue: deque[tuple[Message, ClientAppend]] = deque()
        self._busy = False

    def append(
        self,
        partition: Partition,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
    ) -> ClientAppend:
        self.poll()
        sent = ClientAppend(self)
        self._queue.append(
            (Message(partition.topic, partition.partition, key, value, headers), sent)
        )
        self._pump()
        return sent

    def _pump(self) -> None:
        if self._busy or not self._queue or self._failure:
            return
        self._busy = True
        process, (message, sent) = self._client.process, self._queue[0]

        def landed(record: Record) -> None:
            if not self._failure:
                self._busy = False
                self._queue.popleft()
                sent.landed(record)
                self._pump()

        def leave() -> None:
            if not self._failure:
                process.reach("append")
                self._client.broker.append(process, message, landed, self._failed)

        process.after(process.world.rng.choice((0, 0, 4)), leave)

    def flush(self, timeout_ms: int) -> None:
        self.poll()
        while self._queue:
            self._pause()
            self.poll()


class JudgeClient(Client):
    """`pause`: called on the task that writes, until `heard` of something."""

    def __init__(
        self, process: Process, broker: Broker, heard: Callable[[], None], pause: Callable[[], None]
    ) -> None:
        super().__init__(process, broker, heard)
        self.pause = pause

    def writer(self) -> JudgeWriter:
        return JudgeWriter(self)


class BreakerNode(Process):
    role = "breaker"

    def __init__(
        self, world: World, index: int, scenario: Scenario, broker: Broker, watch: Watch
    ) -> None:
        super().__init__(world, f"breaker-{index}")
        self.scenario, self.broker, self.watch = scenario, broker, watch
        self.stream = tally_stream(scenario.stream, BREAKER)
        settings = LabelerConfig(
            fold_records_max=scenario.fold_records_max,
            outbox_max=3,
            feed_records_max=200,
            take_records_max=64,
            send_timeout_ms=1200,
            retry_ms=300,
        )
        self.settings: LabelerConfig = tally_settings(settings)
        self.task: Task

    def boot(self) -> None:
        self.owned: frozenset[int] = frozenset()
        self.resume: Resume | None = None
        self.tallied_ms = 0
        self.tally_log = Client(self, self.broker, lambda: self.after(1, self.tally))
        self.tallying = Labelling(
            self.stream, self.settings, self.tally_log, emitter=TallyEmitter(self.stream, BREAKER)
        )
        self.judging = Judging(
            self.stream, BREAKER, JudgeClient(self, self.broker, self.go_on, self.pause), 300
        )
        self.task = Task(self.judge)
        self.ask_group()
        self.after(self.world.rng.random() * TURN_MS, self.tally_loop)
        self.after(0, self.task.start)

    def died(self) -> None:
        self.task.kill()

    def stop(self) -> None:
        self.broker.leave(self, GROUP)

    def ask_group(self) -> None:
        share = self.broker.assigned(self, GROUP)
        if share is not None and frozenset(share) != self.owned:
            self.world.trace(self.name, f"owns {share}, owned {sorted(self.owned)}")
            self.owned = frozenset(share)
            self.tallying.own(self.owned)
            self.tallied_ms = 0
        self.after(GROUP_EVERY_MS * (0.7 + 0.6 * self.world.rng.random()), self.ask_group)

    # --- the threads of the service: the main one tallies, `judge` judges ---

    def tally_loop(self) -> None:
        if self.tally_log.behind() or self.world.time.now_ms - self.tallied_ms > IDLE_MS:
            self.tally()
        self.after(TURN_MS * (0.5 + self.world.rng.random()), self.tally_loop)

    def tally(self) -> None:
        self.tallied_ms = self.world.time.now_ms
        while self.tallying.run_once(self.clock_ms(), 0):
            pass
        for line in self.tallying.tasks.values():
            if line.core.stopped is not None:
                raise AssertionError(f"{self.name}: {line.core.stopped}")

    def judge(self) -> None:
        judging = self.judging
        while True:
            judging.own(0 in self.owned)
            restarts, said = judging.totals.restarts, judging.totals.watermarks
            while judging.run_once(self.clock_ms(), 0):
                pass
            if judging.totals.restarts > restarts:
                self.world.trace(self.name, "the judge begins again")
            if judging.totals.watermarks > said and judging.breaker is not None:
                self.watch.bands.remembers(self.name, judging.breaker, judging._memory_end)
            self.pause(TURN_MS * (0.5 + self.world.rng.random()))

    def pause(self, for_ms: float | None = None) -> None:
        """Called on the task: until something is heard, or for so long."""

        def arrange(resume: Resume) -> None:
            self.resume = resume
            if for_ms is not None:
                self.after(for_ms, self.go_on)

        self.task.wait(arrange)

    def go_on(self) -> None:
        resume, self.resume = self.resume, None
        if resume is not None:
            resume(None)
