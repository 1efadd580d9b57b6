"""Somebody writes to the inputs in transactions: positions that are no record of anybody (T6).

What stands there looks like a record that was written before, as what was aborted does: a page view
under its ids, a click. Whoever reads it learns more than there is.
"""

import random

from sim_log import ABORTED, Broker, Message
from sim_network import World
from sim_scenario import Scenario

#: Of a run.
TRANSACTIONS = 30


class Transactions:
    """Ends them at moments drawn from the seed: a marker behind what was committed, or behind
    what is aborted."""

    def __init__(self, world: World, scenario: Scenario, broker: Broker, busy_ms: int) -> None:
        self.world, self.scenario, self.broker = world, scenario, broker
        self.rng = random.Random(f"transactions/{scenario.seed}")
        for _ in range(TRANSACTIONS if scenario.transactions and not scenario.faultless else 0):
            world.time.at(world.time.now_ms + self.rng.randrange(1, busy_ms), self.end)

    def end(self) -> None:
        c, rng = self.scenario.stream, self.rng
        topic, p = rng.choice((c.impressions, c.clicks)), rng.randrange(c.partitions)
        written = [r for r in self.broker.committed(topic, p) if not r.is_heartbeat]
        if not written:
            return
        stamp_ms = self.broker.records(topic, p)[-1].timestamp_ms
        for record in rng.choices(written, k=rng.randrange(4)):
            value = (record.value or b"").replace(b'"id": "', b'"id": "never-')
            value = rng.choice((record.value or b"", value))
            self.broker.land(Message(topic, p, record.key, value, ABORTED, stamp_ms), "producer")
        self.broker.land(Message(topic, p, None, b"", ABORTED, stamp_ms), "producer")
