"""The simulator's log by itself: with nobody else in its world, and time that passes while a
writer waits."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "simulation"))

from sim_client import Client, ClientWriter
from sim_log import Broker
from sim_network import Process, World

from stream.record import Partition


class Reader(Process):
    """Whoever reads and writes."""

    def boot(self) -> None:
        """Nothing is in memory."""


class WaitingWriter(ClientWriter):
    """Waits after each append: the simulated network reorders what is under way together, and who
    needs an order waits for one before it sends the next, as labelers do (C5)."""

    def append(self, *args: Any, **named: Any) -> Any:
        sent = super().append(*args, **named)
        time = self._client.process.world.time
        while not sent.done and not self._failure and time.step():
            pass
        return sent

    def flush(self, timeout_ms: int) -> None:
        self.poll()


class SimulatedLog(Client):
    def __init__(self, seed: int) -> None:
        world = World(seed)
        broker, reader = Broker(world), Reader(world, "reader")
        for process in (broker, reader):
            world.add(process)
            process.start()
        super().__init__(reader, broker, lambda: None)

    def writer(self) -> ClientWriter:
        return WaitingWriter(self)

    def create(self, topic: str, partitions: int, append_time: bool = False) -> None:
        self.broker.counts[topic] = partitions
        if not append_time:
            self.broker.create_time.add(topic)

    def delete_below(self, partition: Partition, offset: int) -> None:
        self.broker.first[partition] = offset
