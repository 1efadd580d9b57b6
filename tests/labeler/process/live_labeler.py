"""A labeler's process on threads of this one, over a real broker: what tests of handovers share."""

import json
import threading
import time

from labeler.config import LabelerConfig
from labeler.fraud_config import FraudConfig
from labeler.process.metrics import LabelerMetrics
from labeler.process.process import Service
from stream import Partition, StreamConfig
from stream.hashing import partition_of_key

PARTITIONS = 2


def now_ms():
    return time.time_ns() // 1_000_000


def short_times(broker, topic_prefix, **others):
    """A configuration with a window of a second."""
    return StreamConfig(
        bootstrap_servers=broker.address,
        topic_prefix=topic_prefix,
        partitions=PARTITIONS,
        window_ms=1_000,
        grace_ms=500,
        dedup_ms=1_000,
        flush_ms=200,
        heartbeat_ms=200,
        signal_ms=100,
        skew_ms=5_000,
        **others,
    )


class Running:
    """One labeler, until `end`. It awaits no verdicts."""

    def __init__(self, stream, log, dir=None, **settings):
        self.stop = threading.Event()
        chosen = LabelerConfig(await_verdicts=False, **settings)
        service = Service(stream, chosen, FraudConfig(), log, LabelerMetrics(), now_ms, dir=dir)
        self.thread = threading.Thread(target=service.run, args=(self.stop,))
        self.thread.start()

    def end(self):
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


def examples_from_the_beginning(log, stream):
    """A reader of all partitions of `examples`."""
    reader = log.reader()
    examples = [Partition(stream.examples, p) for p in range(PARTITIONS)]
    reader.assign(examples)
    for at in examples:
        reader.seek(at, 0)
    return reader


def show(writer, stream, n, item="i"):
    """Write impression `n`, one of nine sessions'. Returns what a click of it needs: its partition,
    session and event time."""
    session, ts_ms = f"s{n % 9}", now_ms()
    p = partition_of_key(session.encode(), PARTITIONS)
    view = {
        "id": str(n),
        "ts_ms": ts_ms,
        "session": session,
        "source": "u",
        "vendor": "v",
        "item": item,
    }
    value = json.dumps(view).encode()
    writer.append(Partition(stream.impressions, p), value, session.encode(), (), ts_ms)
    return p, session, ts_ms
