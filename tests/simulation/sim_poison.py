"""Somebody who writes where he should not: what says nothing, and what contradicts the log, on
every internal topic.

All of it counts for nothing (C8, F3): whoever looks on in the simulator passes over what carries
the header `junk`, so each invariant says that readers did so too, by what records say and not by
that header.
"""

import json
import random
from collections.abc import Iterator

from sim_log import Broker, Message
from sim_network import World
from sim_scenario import Scenario

from labeler.counting import Signal
from stream import Record
from stream.internal_topics import Watermark, encode_verdict

JUNK = (("junk", b"1"),)
RECORDS = 60
#: No log is so long.
BEYOND = 1 << 50
VALUES = (
    b"",
    b"[]",
    b"\xff\xff\xff\xff",
    b'{"kind":',
    b"null",
    b"[" * 5_000,
    b'{"model":"toy","kind":"published"}',
)


def is_junk(record: Record) -> bool:
    return record.header("junk") is not None


class Stranger:
    """Lands records at moments drawn from the seed."""

    def __init__(self, world: World, scenario: Scenario, broker: Broker, busy_ms: int) -> None:
        self.world, self.scenario, self.broker = world, scenario, broker
        self.rng = random.Random(f"poison/{scenario.seed}")
        for _ in range(RECORDS if scenario.poisoned else 0):
            world.time.at(world.time.now_ms + self.rng.randrange(1, busy_ms), self.write)

    def write(self) -> None:
        for message in self.draw():
            self.broker.land(message, "stranger")

    def draw(self) -> Iterator[Message]:
        c, rng = self.scenario.stream, self.rng
        p = rng.randrange(c.partitions)
        topic = rng.choice(
            (
                c.signals,
                c.verdicts,
                c.verdicts,
                c.examples,
                c.checkpoints,
                c.quarantine,
                c.bands,
                c.tallies,
            )
        )
        partition = p if topic in (c.examples, c.quarantine, c.tallies) else 0
        if topic == c.verdicts and rng.random() < 0.5 and self.scenario.inputs:
            # Every input at once, so that the lowest of all rises; by less than a record may be
            # ahead of its time.
            mark_ms = self.broker.clock_ms() + c.skew_ms
            for name in self.scenario.inputs:
                yield self.message(topic, 0, encode_verdict(Watermark(name, mark_ms, BEYOND)))
        elif topic == c.signals and rng.random() < 0.5:
            name = rng.choice((f"{c.impressions}/{p}", f"{c.clicks}/{p}", "nobody/7"))
            bucket_ms = self.broker.clock_ms() // c.signal_ms * c.signal_ms
            signal = Signal(name, 0, BEYOND, bucket_ms, bucket_ms + c.signal_ms, bucket_ms, 0, None)
            yield self.message(topic, 0, b"", signal.headers)
        else:
            yield self.message(
                topic, partition, rng.choice(VALUES), rng.choice(list(self.headers(topic, p)))
            )

    def headers(self, topic: str, p: int) -> Iterator[tuple[tuple[str, bytes], ...]]:
        """None, those of a real record with one taken out, doubled or made another, and those of
        orders."""
        yield ()
        records = [r for r in self.broker.records(topic, p) if not is_junk(r)]
        if records:
            found = list(records[-1].headers)
            if found:
                k = self.rng.randrange(len(found))
                yield tuple(found[:k] + found[k + 1 :])
                yield (*found, found[k])
                if found[k][0] not in ("again", "step", "schema_id", "config_hash", "hash_key"):
                    yield (
                        *found[:k],
                        (found[k][0], self.rng.choice((b"\xff", b"-1", b"x", b"9" * 40))),
                        *found[k + 1 :],
                    )
        yield (("set_aside", b"1"), ("topic", b"\xff"), ("partition", b"x"))
        yield (
            ("lost", b"1"),
            ("topic", topic.encode()),
            ("partition", b"0"),
            ("from", b"0"),
            ("to", b"9" * 30),
        )
        yield (
            ("chain", f"label/{p + 7}".encode()),
            ("start", b"0"),
            ("end", json.dumps(BEYOND).encode()),
        )

    def message(
        self, topic: str, partition: int, value: bytes, headers: tuple[tuple[str, bytes], ...] = ()
    ) -> Message:
        self.world.trace("stranger", f"{topic}[{partition}] {value[:40]!r} {headers[:2]}")
        return Message(topic, partition, b"", value, (*headers, *JUNK))
