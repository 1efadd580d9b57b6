"""Simulated traffic whose every click is known, with a given share of late ones, through the
labeling core."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bench.labels.labeling_log import PAGE_ROWS, PRODUCER, Entry, Views, columns
from labeler import LabelerConfig
from labeler.join import LabelStrategy, ResumePoint
from labeler.labels import Emission, ExamplesEmitter, PartitionLabeler, Reading
from stream import CLOCK_MS, CONTROL, HEARTBEAT, LABEL, Record, StreamConfig
from stream.decoding import Shape, click_shape, impression_shape
from stream.kernels import I64

HOUR_MS = 3_600_000
WINDOW_MS, LATE_WINDOW_MS, GRACE_MS = HOUR_MS, 4 * HOUR_MS, 60_000
START_MS = 1_700_000_000_000
RECORD_MS = 30_000  # a record holds the events of so long
_POLL = 64


@dataclass(frozen=True)
class Traffic:
    """How much, how late and how fast it changes."""

    impressions: int
    late_share: float  # of clicks, later than WINDOW_MS, all within LATE_WINDOW_MS
    drift: float  # amplitude by which an item's logit swings within 12 hours
    seed: int
    hours: int = 26
    items: int = 50


def draw(traffic: Traffic) -> tuple[Views, npt.NDArray[np.bool_]]:
    """The events, and of each impression whether it is ever clicked."""
    rng = np.random.default_rng(traffic.seed)
    n = traffic.impressions // PAGE_ROWS * PAGE_ROWS
    ts_ms = START_MS + np.sort(rng.integers(0, traffic.hours * HOUR_MS, n))
    item = rng.integers(0, traffic.items, n)
    base = rng.normal(-1.2, 0.8, traffic.items)
    phase = rng.uniform(0, 2 * np.pi, traffic.items)
    swing = traffic.drift * np.sin(2 * np.pi * (ts_ms - START_MS) / (12 * HOUR_MS) + phase[item])
    clicked = rng.random(n) < 1 / (1 + np.exp(-(base[item] + swing)))
    delay_ms = _within(rng.exponential(600_000, n), WINDOW_MS - 1)
    later_ms = WINDOW_MS + 1 + _within(rng.exponential(HOUR_MS, n), LATE_WINDOW_MS - WINDOW_MS - 2)
    click_ts_ms = ts_ms + np.where(rng.random(n) < traffic.late_share, later_ms, delay_ms).astype(
        np.int64
    )
    order = np.flatnonzero(clicked)
    order = order[np.argsort(click_ts_ms[order], kind="stable")]
    views = Views(
        np.arange(n) // PAGE_ROWS,
        ts_ms,
        rng.integers(0, 5_000, n),
        item,
        item % 7,
        order,
        click_ts_ms[order],
    )
    return views, clicked


def _within(delay: npt.NDArray[np.float64], most: int) -> npt.NDArray[np.float64]:
    """Folded back into [0, most)."""
    return np.asarray(delay % most)


def entries(shape: Shape, table: dict[str, pa.Array], ts_ms: I64, topic: str) -> Iterator[Entry]:
    """Arrow records of one partition; each arrives when its time is over."""
    schema = pa.schema(list(shape.wire.items()))
    nulls = {f.name: pa.nulls(len(ts_ms), f.type) for f in schema if f.name not in table}
    whole = pa.table([table.get(f.name, nulls.get(f.name)) for f in schema], schema=schema)
    edges = np.flatnonzero(np.diff(ts_ms // RECORD_MS)) + 1
    for first, last in zip([0, *edges.tolist()], [*edges.tolist(), len(ts_ms)], strict=True):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_batch(whole.slice(first, last - first).combine_chunks().to_batches()[0])
        arrival_ms = (int(ts_ms[first]) // RECORD_MS + 1) * RECORD_MS
        yield Entry(arrival_ms, topic, 0, None, bytes(sink.getvalue()), last - first)


def records(events: Iterator[Entry], stream: StreamConfig, end_ms: int) -> list[Record]:
    """A log of one partition: heartbeats between the entries, and one at the end that closes
    everything."""
    out: list[Record] = []
    beat_ms = START_MS

    def beat(at_ms: int) -> None:
        headers = ((CONTROL, HEARTBEAT.encode()), (CLOCK_MS, str(at_ms).encode()))
        out.append(Record(len(out), at_ms, None, None, headers))

    for entry in events:
        while entry.arrival_ms >= beat_ms:
            beat(beat_ms)
            beat_ms += stream.heartbeat_ms
        out.append(Record(len(out), entry.arrival_ms, entry.key, entry.value, PRODUCER))
    while beat_ms <= end_ms + stream.heartbeat_ms:
        beat(beat_ms)
        beat_ms += stream.heartbeat_ms
    return out


def logs(views: Views, stream: StreamConfig) -> tuple[list[Record], list[Record]]:
    """`impressions[0]` and `clicks[0]`."""
    end_ms = int(views.ts_ms[-1]) + LATE_WINDOW_MS + GRACE_MS + stream.flush_ms + stream.signal_ms
    shown, clicked = columns(views, slice(None), stream), columns(views, views.click, stream)
    clicked["ts_ms"] = pa.array(views.click_ts_ms)
    kept = {name: clicked[name] for name in ("id", "session", "source", "vendor", "ts_ms")}
    shapes = impression_shape(stream.features), click_shape()
    return (
        records(entries(shapes[0], shown, views.ts_ms, stream.impressions), stream, end_ms),
        records(entries(shapes[1], kept, views.click_ts_ms, stream.clicks), stream, end_ms),
    )


def label(
    stream: StreamConfig, strategy: LabelStrategy, impressions: list[Record], clicks: list[Record]
) -> list[Emission]:
    """What a labeler writes of these logs. RuntimeError where it stops."""
    fresh = ResumePoint.fresh if strategy.kind == LABEL else ResumePoint.fresh_late
    reading = Reading(strategy, ExamplesEmitter(stream))
    settings = LabelerConfig(await_verdicts=False)
    core = PartitionLabeler(stream, settings, 0, fresh(0, 0, 0), None, reading)
    out: list[Emission] = []
    at = [0, 0]
    while True:
        moved = False
        for which, (log, wants, take) in enumerate(
            (
                (impressions, core.wants_impressions, core.on_impressions),
                (clicks, core.wants_clicks, core.on_clicks),
            )
        ):
            if at[which] < len(log) and wants():
                take(log[at[which] : at[which] + _POLL])
                at[which] += _POLL
                moved = True
        written = core.step()
        out += written
        if core.stopped:
            raise RuntimeError(str(core.stopped))
        if not moved and not written:
            return out
