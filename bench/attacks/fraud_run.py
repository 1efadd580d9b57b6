"""The fraud filter's core over a whole history: what it would have said, when, and what that
rejects.

No process and no broker: events are counted in buckets of a minute as the counting readers count
them, judged, and a verdict rejects what it covers where it stands before V(i) (L3).
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from everspun.replay import HOUR_MS, History
from labeler import FraudConfig
from labeler.counting import Signal, group
from labeler.fraud import FraudFilter, dict_tables, run_step
from stream import StreamConfig
from stream.decoding import DecodedActivity
from stream.hashing import hash_pair, hash_strings, session_of
from stream.internal_topics import Verdict, Watermark
from stream.kernels import Bools

SIGNAL_MS = 60_000
WAIT_MS = StreamConfig().wait_ms
HEARTBEAT_MS = HOUR_MS
VIEWS, CLICKS = "impressions/0", "clicks/0"
#: Signals judged at a time.
BATCH = 8


@dataclass(frozen=True)
class Judged:
    """What the filter said of a history: verdicts, each with the lowest watermark sent before it;
    the impressions that they reject, bool (n,); events counted, and CPU seconds of the filter for
    them (tables in memory)."""

    verdicts: list[tuple[int, Verdict]]
    rejected: Bools
    events: int
    cpu_s: float

    @property
    def by_rule(self) -> dict[str, int]:
        names, counts = np.unique(
            [verdict.rule for _, verdict in self.verdicts], return_counts=True
        )
        return dict(zip(names.tolist(), counts.tolist(), strict=True))


def signals(history: History, config: FraudConfig) -> Iterator[Signal]:
    """Both inputs as they would be counted, in order of time, with an empty signal each hour
    (heartbeats)."""
    everyone = np.arange(len(history))
    columns = [pa.array(names, pa.string()) for names in (history.sources, history.vendors)]
    ids = hash_pair(*(pa.array(names, pa.string()) for names in (history.sessions, history.ids)))
    sides = [
        (VIEWS, history.ts_ms, everyone),
        (CLICKS, history.click_ts_ms, history.click_impression),
    ]
    nobody = np.zeros(0, np.int64)
    cut: list[tuple[int, str, npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for name, ts_ms, who in sides:
        bucket = ts_ms // SIGNAL_MS
        for rows in np.split(np.arange(len(ts_ms)), np.flatnonzero(np.diff(bucket)) + 1):
            if len(rows):
                cut.append((int(bucket[rows[0]]) * SIGNAL_MS, name, ts_ms[rows], who[rows]))
    first = int(history.ts_ms[0]) // HEARTBEAT_MS * HEARTBEAT_MS
    last = int(max(history.ts_ms[-1], history.click_ts_ms[-1])) + 3 * HOUR_MS
    for at in range(first, last, HEARTBEAT_MS):
        cut += [(at, name, nobody, nobody) for name, *_ in sides]
    cut.sort(key=lambda one: one[0])
    ends = dict.fromkeys((VIEWS, CLICKS), 0)
    for at, name, ts_ms, who in cut:
        start, ends[name] = ends[name], ends[name] + max(1, len(who))
        rows = None
        if len(who):
            source, vendor = (column.take(pa.array(who)) for column in columns)
            events = DecodedActivity(nobody, ts_ms, nobody, source, vendor, ids[who], nobody)
            rows = group([events], config.cell_ms, config.gap_fast_ms)
        yield Signal(name, start, ends[name], at, at + SIGNAL_MS, at, 0, rows)


def judge(history: History, config: FraudConfig) -> Judged:
    """Run the core over the history."""
    filter = FraudFilter(config, [VIEWS], [CLICKS], dict_tables())
    verdicts: dict[str, tuple[int, Verdict]] = {}
    low = {VIEWS: 0, CLICKS: 0}

    def send(records: Sequence[Verdict | Watermark]) -> None:
        for record in records:
            if isinstance(record, Verdict):
                verdicts.setdefault(record.id, (min(low.values()), record))
            else:
                low[record.input] = record.watermark_ms

    counted = list(enumerate(signals(history, config)))
    began = time.process_time()
    for at in range(0, len(counted), BATCH):
        run_step(filter, counted[at : at + BATCH], send)
    cpu_s = time.process_time() - began
    said = list(verdicts.values())
    return Judged(said, rejected(history, said), filter.counts.events, cpu_s)


def rejected(history: History, verdicts: list[tuple[int, Verdict]]) -> Bools:
    """Which impressions a verdict covers that stands before all watermarks have passed their
    deadline (L3)."""
    found = np.zeros(len(history), np.bool_)
    rows = _rows_of(history)
    session = session_of(hash_strings(pa.array(history.sessions, pa.string())))
    for low_ms, one in verdicts:
        assert one.source is not None
        mine = rows.get((one.source, one.vendor), _NOBODY)
        ts_ms = history.ts_ms[mine]
        meant = (ts_ms >= max(one.from_ms, low_ms - WAIT_MS)) & (ts_ms < one.to_ms)
        found[mine[meant & ~np.isin(session[mine], one.spared)]] = True
    return found


_NOBODY = np.zeros(0, np.int64)


def _rows_of(history: History) -> dict[tuple[str, str | None], npt.NDArray[np.int64]]:
    """The impressions of each (source, vendor)."""
    sources, source = np.unique(np.array(history.sources), return_inverse=True)
    vendors, vendor = np.unique(np.array(history.vendors), return_inverse=True)
    pair = source * len(vendors) + vendor
    order = np.argsort(pair, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(pair[order])) + 1)
    return {(str(sources[source[part[0]]]), str(vendors[vendor[part[0]]])): part for part in parts}
