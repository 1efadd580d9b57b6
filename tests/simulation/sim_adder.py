"""The adder of a labeler's process (J2): `Adding` over the simulated log. Its shell blocks where it
flushes, so it runs on a task of its own, as the breaker's judge does."""

from sim_breaker import JudgeClient
from sim_log import Broker
from sim_network import Process
from sim_scenario import Scenario
from sim_tasks import Resume, Task

from labeler.counts import Adding
from stream.log.rows import RowStorage

TURN_MS = 500


class AdderThread:
    """One life of it."""

    def __init__(
        self, process: Process, broker: Broker, scenario: Scenario, storage: RowStorage
    ) -> None:
        self.process = process
        self.owned = False
        self.resume: Resume | None = None
        client = JudgeClient(process, broker, self.go_on, self.pause)
        self.adding = Adding(scenario.stream, client, 300, None, storage, 2_000)
        self.task = Task(self.add)
        process.after(0, self.task.start)

    def add(self) -> None:
        adding = self.adding
        while True:
            adding.own(self.owned)
            restarts = adding.totals.restarts
            while adding.run_once(self.process.clock_ms(), 0):
                pass
            if adding.totals.restarts > restarts:
                self.process.world.trace(self.process.name, "the adder begins again")
            self.pause(TURN_MS * (0.5 + self.process.world.rng.random()))

    def pause(self, for_ms: float | None = None) -> None:
        """Called on the task: until something is heard, or for so long."""

        def arrange(resume: Resume) -> None:
            self.resume = resume
            if for_ms is not None:
                self.process.after(for_ms, self.go_on)

        self.task.wait(arrange)

    def go_on(self) -> None:
        resume, self.resume = self.resume, None
        if resume is not None:
            resume(None)
