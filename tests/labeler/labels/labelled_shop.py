"""A shop over the log in memory, and what is read back of its labels."""

import json
import random

from labeler.config import LabelerConfig
from labeler.labels.runner import Labelling
from stream import Chain, Fold, Partition, StreamConfig
from stream.internal_topics import BatchHeader, decode_examples
from stream.log import MemoryLog, topic_specs

ZERO = 1_600_000_000_000
STREAM = StreamConfig(
    partitions=1,
    replayed=True,
    window_ms=1_000,
    grace_ms=100,
    dedup_ms=500,
    flush_ms=100,
    signal_ms=100,
    heartbeat_ms=100,
    jump_max_ms=10_000,
    batch_rows_max=8,
    age_max_ms=5_000,
    skew_ms=100,
)
LABELER = LabelerConfig(await_verdicts=False, retry_ms=10, fold_records_max=10_000)
IMPRESSIONS, CLICKS, EXAMPLES = (
    Partition("impressions", 0),
    Partition("clicks", 0),
    Partition("examples", 0),
)


class Clock:
    def __init__(self):
        self.now_ms = ZERO

    def __call__(self):
        self.now_ms += 1
        return self.now_ms


def memory_log(stream=STREAM, clock=None):
    log = MemoryLog(clock or Clock())
    for spec in topic_specs(stream):
        log.create(spec.name, spec.partitions)
    return log


def beat(log, stamp_ms, partition=0):
    headers = (("control", b"heartbeat"), ("clock_ms", str(stamp_ms).encode()))
    for topic in ("impressions", "clicks"):
        log.append(Partition(topic, partition), None, None, headers, stamp_ms)


def fill(log, seconds=4, seed=0, session="s"):
    """A shop: ten views a second, a third of them clicked, heartbeats; ends with all deadlines
    passed."""
    rng = random.Random(seed)
    beat(log, ZERO)
    clicks = []
    for n in range(seconds * 10):
        now = ZERO + n * 100
        view = {
            "id": str(n),
            "ts_ms": now,
            "session": session,
            "source": f"u{n % 5}",
            "vendor": "v",
            "item": "i",
        }
        log.append(IMPRESSIONS, json.dumps(view).encode(), session.encode(), (), now)
        if rng.random() < 0.33:
            clicks.append((now + rng.randrange(1, 900), n))
    for at, n in sorted(clicks):
        log.append(
            CLICKS,
            json.dumps({"id": str(n), "ts_ms": at, "session": session}).encode(),
            session.encode(),
            (),
            at,
        )
    for more in (0, 2_000, 4_000):
        beat(log, ZERO + seconds * 1_000 + more)
    return {n for _, n in clicks}


def work(labelling, clock, turns=1_000, still_max=40):
    """Turn until nothing moves for a while."""
    still = 0
    while still < still_max and turns:
        still = 0 if labelling.run_once(clock(), 0) else still + 1
        turns -= 1
    assert turns, "never came to rest"


def folded(log):
    """Rows (position, label) of the chain, as any reader folds them, and what each record was."""
    chain, rows, kinds = Chain(), [], []
    for record in log.records(EXAMPLES):
        header = BatchHeader.from_headers(record.headers)
        kind, before = chain.fold(header.start, header.end, header.barrier or None)
        kinds.append(kind)
        if kind is Fold.EXTENDS and record.value:
            batch = decode_examples(record.value)
            found = zip(
                batch.column("position").to_pylist(), batch.column("label").to_pylist(), strict=True
            )
            rows += [row for row in found if row[0] >= before]
    return rows, kinds


def started(log, clock, stream=STREAM, labeler=LABELER, pages=None):
    labelling = Labelling(stream, labeler, log, pages=pages)
    labelling.own(range(stream.partitions))
    work(labelling, clock)
    return labelling


def headers(log, partition=0, kind="label"):
    found = [
        BatchHeader.from_headers(r.headers) for r in log.records(Partition("examples", partition))
    ]
    return [header for header in found if header.chain.startswith(kind)]


def total(log, name):
    return sum(getattr(header, name) for header in headers(log))


def fill_later(log, seconds):
    """More of the shop, ten minutes later."""
    later = ZERO + 9_000
    beat(log, later)
    for n in range(10 * seconds):
        now = later + n * 100
        view = {
            "id": f"later{n}",
            "ts_ms": now,
            "session": "s",
            "source": "u",
            "vendor": "v",
            "item": "i",
        }
        log.append(IMPRESSIONS, json.dumps(view).encode(), b"s", (), now)
    for more in (0, 2_000, 4_000):
        beat(log, later + seconds * 1_000 + more)
