"""The log that `bench.pipeline` measures: simulated traffic, written before anything reads it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from everspun import Config, ReplayConfig
from everspun.replay import History, Period, ReplayPlan
from stream import CLOCK_MS, CONTROL, HEARTBEAT, Partition, position
from stream.decoding import Shape, click_shape, impression_shape
from stream.hashing import Pseudonymiser, partition_of_key
from stream.log import Append, Log, Writer

FORMATS = ("json", "arrow")
#: Records sent between two waits for their acknowledgement.
IN_FLIGHT_MAX = 5_000
SECRET = b"bench.pipeline: names are drawn"
#: An Arrow record holds what a busy producer gathers in so much event time.
ARROW_MS = 10_000


class Entry(NamedTuple):
    """One record to append; a heartbeat has no partition and stands for one in every partition
    of both topics."""

    arrival_ms: int
    kind: str  # "impression" | "click" | "heartbeat"
    partition: int = -1
    key: bytes | None = None
    value: bytes | None = None
    rows: int = 0


@dataclass
class Written:
    """What `write` appended, and what that took."""

    impressions: int = 0
    clicks: int = 0
    records: int = 0
    impression_records: int = 0
    bytes: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    _last: dict[int, tuple[Append, int]] = field(default_factory=dict)

    def ends(self) -> dict[int, int]:
        """Partition -> the position behind its last impression."""
        return {p: position(sent.offset, rows - 1) + 1 for p, (sent, rows) in self._last.items()}

    def count(self, entry: Entry, sent: Append) -> None:
        self.records += 1
        self.bytes += len(entry.value or b"")
        if entry.kind == "impression":
            self.impressions += entry.rows
            self.impression_records += 1
            self._last[entry.partition] = (sent, entry.rows)
        else:
            self.clicks += entry.rows


def write(log: Log, config: Config, history: History, form: str) -> Written:
    """Append the whole history in one of FORMATS, its heartbeats, and a last one that closes
    everything (T2)."""
    stream = config.stream
    replay = ReplayConfig(barrier_ms=0, predict=False, attacks=False)
    plan = ReplayPlan(history, stream, replay, Pseudonymiser(stream.pseudonym_key_number, SECRET))
    (period,) = plan.periods()
    entries = json_entries(plan, period) if form == "json" else arrow_entries(plan, period)
    done, began, cpu = Written(), time.monotonic(), time.process_time()
    writer = log.writer()
    for number, entry in enumerate(entries):
        _append(writer, config, entry, done)
        if number % IN_FLIGHT_MAX == IN_FLIGHT_MAX - 1:
            writer.flush(stream.request_timeout_ms)
    _append(writer, config, Entry(period.end_ms, "heartbeat"), done)
    writer.flush(stream.request_timeout_ms)
    writer.close()
    done.seconds, done.cpu_s = time.monotonic() - began, time.process_time() - cpu
    return done


def _append(writer: Writer, config: Config, entry: Entry, done: Written) -> None:
    stream = config.stream
    if entry.kind == "heartbeat":
        headers = ((CONTROL, HEARTBEAT.encode()), (CLOCK_MS, str(entry.arrival_ms).encode()))
        for topic in (stream.impressions, stream.clicks):
            for p in range(stream.partitions):
                writer.append(Partition(topic, p), None, None, headers, entry.arrival_ms)
        return
    at = Partition(
        stream.impressions if entry.kind == "impression" else stream.clicks, entry.partition
    )
    done.count(
        entry,
        writer.append(at, entry.value, entry.key, (("producer", b"bench"),), entry.arrival_ms),
    )


def json_entries(plan: ReplayPlan, period: Period) -> Iterator[Entry]:
    """One page view or click a record, as a site in any language sends them."""
    for line in plan.lines(period, None):
        p = -1 if line.key is None else partition_of_key(line.key, plan.stream.partitions)
        yield Entry(line.arrival_ms, line.kind, p, line.key, line.value, line.rows)


# --- Arrow IPC, as our producer makes it
# --------------------------------------------------------------------------

Columns = dict[str, npt.NDArray[np.generic]]


def arrow_entries(plan: ReplayPlan, period: Period) -> Iterator[Entry]:
    """The same events in batches of ARROW_MS a partition; a batch arrives at its end."""
    views = _views(plan)
    of = plan.click_impression
    clicks: Columns = {
        name: views[name][of] for name in ("id", "session", "source", "vendor", "partition")
    }
    clicks["ts_ms"] = plan.click_ts_ms
    step = plan.stream.heartbeat_ms
    entries = [Entry(at, "heartbeat") for at in range(period.start_ms, period.end_ms, step)]
    for kind, shape, columns in (
        ("impression", impression_shape(()), views),
        ("click", click_shape(), clicks),
    ):
        entries += _batches(kind, shape, columns, plan.stream.partitions)
    return iter(sorted(entries, key=lambda entry: entry.arrival_ms))


def _views(plan: ReplayPlan) -> Columns:
    history = plan.history
    sessions = [plan.pseudonym(s) for s in history.sessions]
    placed = {s: partition_of_key(s.encode(), plan.stream.partitions) for s in set(sessions)}
    return {
        "id": np.array(history.ids),
        "ts_ms": history.ts_ms,
        "session": np.array(sessions),
        "source": np.array([plan.pseudonym(s) for s in history.sources]),
        "vendor": np.array(history.vendors),
        "item": np.array(history.items),
        "partition": np.array([placed[s] for s in sessions]),
    }


def _batches(kind: str, shape: Shape, columns: Columns, partitions: int) -> list[Entry]:
    ts, partition = columns["ts_ms"].astype(np.int64), columns["partition"].astype(np.int64)
    batch = ts // ARROW_MS * partitions + partition
    order = np.argsort(batch, kind="stable")
    return [
        Entry(
            int(ts[rows[0]] // ARROW_MS + 1) * ARROW_MS - 1,
            kind,
            int(partition[rows[0]]),
            value=_ipc(shape, columns, rows),
            rows=len(rows),
        )
        for rows in np.split(order, np.flatnonzero(np.diff(batch[order])) + 1)
    ]


def _ipc(shape: Shape, columns: Columns, rows: npt.NDArray[np.int64]) -> bytes:
    schema = pa.schema(list(shape.wire.items()))
    arrays = [
        pa.array(columns[f.name][rows], f.type)
        if f.name in columns
        else pa.nulls(len(rows), f.type)
        for f in schema
    ]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    return bytes(sink.getvalue())
