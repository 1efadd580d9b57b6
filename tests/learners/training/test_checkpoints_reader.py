"""Which model versions are known to a learner: what `checkpoints` holds to its end, and no
search without end (E2)."""

import json

import pyarrow as pa

from learners.process.examples_reader import CheckpointsReader
from learners.training.progressive import Published
from stream import Partition
from stream.log import MemoryLog

TOPIC = Partition("checkpoints", 0)


class SlowLog(MemoryLog):
    """Every second poll gives nothing, as of a broker on a busy machine. Counts polls."""

    polls = 0

    def read(self, partition, offset, max_records):
        self.polls += 1
        return [] if self.polls % 2 else super().read(partition, offset, 1)


def announce(log: MemoryLog, name: str) -> None:
    log.append(
        TOPIC,
        json.dumps(
            {
                "model": "m",
                "kind": "published",
                "name": name,
                "event_time_max_ms": 5,
                "created_ms": 7,
            }
        ).encode(),
    )


def test_an_announced_version_is_found_however_slowly_the_broker_answers():
    log = SlowLog(now=lambda: 0)
    log.create("checkpoints", 1)
    for number in range(20):
        announce(log, f"v{number}")
    published = Published("m", live=False, versions_max=100)
    CheckpointsReader(log, "checkpoints", published).catch_up(pa.array(["v19", ""]))
    assert not published.unknown(pa.array([f"v{n}" for n in range(20)]))


def test_a_version_nobody_announced_is_not_looked_for_with_every_batch():
    log = SlowLog(now=lambda: 0)
    log.create("checkpoints", 1)
    announce(log, "v0")
    published = Published("m", live=False, versions_max=100)
    reader = CheckpointsReader(log, "checkpoints", published)
    reader.catch_up(pa.array(["strange"]))
    polls = log.polls
    for _ in range(50):
        reader.catch_up(pa.array(["strange", "v0"]))
    assert log.polls == polls
    announce(log, "v1")
    reader.catch_up(pa.array(["strange", "v1"]))  # another one is looked for at once
    assert published.unknown(pa.array(["strange", "v1"])) == {"strange"}
