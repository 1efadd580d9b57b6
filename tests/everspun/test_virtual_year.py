"""A virtual year of a small shop, new people every day: what the cores keep does not grow.

Each core is given 365 days of events at a few a day. What it holds is measured as the memory that
was allocated since it was made and not freed (`tracemalloc`, which numpy reports to, and Arrow's
own count), after 60 days and at the end of the year: by then everything with a window or a limit
that a year reaches is full.
"""

import gc
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import pyarrow as pa
import pytest

from checkpointer.gates import Evaluations
from everspun.status import Quality, UsualRate, quality
from labeler import FraudConfig, LabelerConfig
from labeler.counting.reader import CountingPoint as CountedTo
from labeler.counting.reader import CountingReader
from labeler.fraud import FraudFilter, dict_tables, run_step
from labeler.join import ResumePoint
from labeler.labels import PartitionLabeler
from stream import CLOCK_MS, CONTROL, HEARTBEAT, Record, StreamConfig

DAYS, WARM_DAYS = 365, 60
HOUR_MS = 3_600_000
ZERO = 1_700_000_000_000 // HOUR_MS * HOUR_MS
#: The shop is visited so many times a day, and each time so many views and clicks come.
SLOTS, VIEWS, CLICKS = 4, 3, 1
SLOT_MS = 24 * HOUR_MS // SLOTS
STREAM = StreamConfig(
    partitions=1, heartbeat_ms=SLOT_MS, jump_max_ms=2 * SLOT_MS, signal_ms=HOUR_MS
)
#: Bytes that a measure may be off by, over a year, beside 3%: caches of the interpreter's own.
SLACK = 32_768

Day = Callable[[int], None]


class Log:
    """One partition of both inputs, a day at a time."""

    def __init__(self) -> None:
        self.offsets = [0, 0]

    def day(self, number: int) -> tuple[list[Record], list[Record]]:
        views, clicks = list[Record](), list[Record]()
        for slot in range(SLOTS * number, SLOTS * number + SLOTS):
            at_ms = ZERO + slot * SLOT_MS
            beat = ((CONTROL, HEARTBEAT.encode()), (CLOCK_MS, str(at_ms).encode()))
            for records, topic in ((views, 0), (clicks, 1)):
                records.append(Record(self._next(topic), at_ms, None, None, beat))
            for n in range(VIEWS):
                who = {"session": "s", "source": f"u{slot}-{n}", "vendor": f"v{n}", "item": f"i{n}"}
                event = {"id": f"{slot}-{n}", "ts_ms": at_ms + 60_000 * (n + 1), **who}
                value = json.dumps({**event, "features": {}}).encode()
                views.append(Record(self._next(0), event["ts_ms"], b"s", value))
                if n < CLICKS:
                    at = {"ts_ms": event["ts_ms"] + 30_000}
                    value = json.dumps({**event, **at}).encode()
                    clicks.append(Record(self._next(1), at["ts_ms"], b"s", value))
        return views, clicks

    def _next(self, topic: int) -> int:
        self.offsets[topic] += 1
        return self.offsets[topic] - 1


def labelling() -> Day:
    """The labeler of one partition."""
    log, labelled = Log(), [0]
    settings = LabelerConfig(await_verdicts=False)
    core = PartitionLabeler(STREAM, settings, 0, ResumePoint.fresh(0, 0, 0), None)

    def day(number: int) -> None:
        views, clicks = log.day(number)
        core.on_impressions(views)
        core.on_clicks(clicks)
        labelled[0] += sum(one.header.labelled for one in core.step(1_000))
        if number == DAYS - 1:
            assert labelled[0] > 0.99 * DAYS * SLOTS * VIEWS

    return day


def judging() -> Day:
    """The counting readers and the fraud filter behind them, its tables with it."""
    log, fraud = Log(), FraudConfig()
    readers = [
        CountingReader(STREAM, fraud, topic, 0, CountedTo(0, 0))
        for topic in (STREAM.impressions, STREAM.clicks)
    ]
    judge = FraudFilter(fraud, ["impressions/0"], ["clicks/0"], dict_tables())
    sent = [0]

    def day(number: int) -> None:
        signals = [
            signal
            for reader, records in zip(readers, log.day(number), strict=True)
            for signal in reader.on_records(records)
        ]
        first = sent[0]
        run_step(judge, enumerate(signals, first), lambda records: None)
        sent[0] += len(signals)
        if number == DAYS - 1:
            assert judge.counts.events > 0.99 * DAYS * SLOTS * (VIEWS + CLICKS)
            assert judge.counts.dangling == judge.counts.stale == 0

    return day


def evaluation(number: int) -> dict[str, object]:
    return {
        "model": "m",
        "chain": "label/0",
        "start": number,
        "end": number + 1,
        "rows": 9,
        "clicks": 3,
        "log_loss_sum": 5.0,
        "prediction_sum": 3.0,
        "label_sum": 3.0,
        "bins": [[1.0, 0.5, 0.4]] * 20,
        "ts_ms_max": ZERO + number * 6 * HOUR_MS,
        "slices": {},
        "staleness": [1],
    }


def evaluating() -> Day:
    """Sums by checkpoint, one a day, and what `everspun status` adds up."""
    sums, status = Evaluations("m", starts_max=100), Quality("m")

    def day(number: int) -> None:
        for hour in range(4 * number, 4 * number + 4):
            assert sums.add(evaluation(hour))
            assert status.add(json.dumps(evaluation(hour)).encode())
        sums.take({"label/0": 4 * number + 4})

    return day


def watching() -> Day:
    """The usual rate of a stream, looked at each ten minutes."""
    rate = UsualRate()

    def day(number: int) -> None:
        for look in range(24 * 6):
            rate.look(ZERO + 24 * HOUR_MS * number + 600_000 * look, 5)

    return day


def held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes()


CORES = {core.__name__: core for core in (labelling, judging, evaluating, watching)}


def year(core: Callable[[], Day]) -> tuple[int, int]:
    """Bytes that `core` holds after `WARM_DAYS`, and after a year."""
    # Days are plotted for longer than a year: a limit that this year is to reach.
    quality.DAYS_MAX = WARM_DAYS // 2
    core()(0)  # what is made once: kernels, schemas, caches of the libraries
    tracemalloc.start()
    before, day = held(), core()
    for number in range(WARM_DAYS):
        day(number)
    warm = held() - before
    for number in range(WARM_DAYS, DAYS):
        day(number)
    return warm, held() - before


@pytest.mark.parametrize(
    "core",
    [
        pytest.param("labelling", marks=pytest.mark.slow),
        pytest.param("judging", marks=pytest.mark.slow),
        "evaluating",
        "watching",
    ],
)
def test_what_is_kept_does_not_grow(core: str):
    # In a process of its own: threads that other tests left behind allocate what they like.
    run = subprocess.run(
        [sys.executable, __file__, core], capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr
    warm, after = json.loads(run.stdout)
    assert after <= 1.03 * warm + SLACK, f"{warm} bytes, a year later {after}"


if __name__ == "__main__":
    print(json.dumps(year(CORES[sys.argv[1]])))
