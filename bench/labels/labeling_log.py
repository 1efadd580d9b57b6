"""The log that `bench.labeling` measures: page views of a busy shop and their clicks, in three
formats.

Everything is drawn and laid out by column, so that a log of millions is written in seconds. The
same events stand in all formats: Arrow IPC records of what one producer gathers, one JSON page view
a record, one JSON impression a record.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from stream import CLOCK_MS, CONTROL, HEARTBEAT, Partition, StreamConfig, position
from stream.decoding import Shape, click_shape, impression_shape
from stream.hashing import partitions_of_keys
from stream.kernels import I64
from stream.log import Append, Log, Writer

FORMATS = ("arrow", "json_page_views", "json_single")
PAGE_ROWS = 20
ARROW_ROWS = 500  # what a producer gathers in one record (`ProducerConfig.batch_rows_max`)
ARRIVAL_LAG_MS = 100  # from an event to the log
CLICK_DELAY_MEAN_MS = 20_000
IN_FLIGHT_MAX = 20_000
#: Page views of a log that only warms up are numbered from here, those of the measured one from 0,
#: a day later.
WARM_FIRST_VIEW = 1_000_000_000
WARM_BEFORE_MS = 86_400_000
PRODUCER = (("producer", b"bench"),)


@dataclass(frozen=True)
class Shop:
    """How many events, how fast they arrive, and who acts."""

    impressions: int
    rate: float  # impressions a second of arrival time
    click_share: float = 0.02
    users: int = 50_000
    items: int = 20_000
    vendors: int = 500
    start_ms: int = 1_700_000_000_000
    first_view: int = 0  # page views are numbered, so that no id is used twice
    seed: int = 1


@dataclass(frozen=True)
class Views:
    """Impressions in order of time, all (n,); a page view is PAGE_ROWS of them. `click` (m,) are
    the rows clicked, by time of the click, `click_ts_ms` (m,)."""

    view: I64
    ts_ms: I64
    user: I64
    item: I64
    vendor: I64
    click: I64
    click_ts_ms: I64

    @property
    def end_ms(self) -> int:
        return (
            int(max(self.ts_ms[-1], self.click_ts_ms[-1] if len(self.click_ts_ms) else 0))
            + ARRIVAL_LAG_MS
        )


def draw(shop: Shop) -> Views:
    """A function of the shop alone. People and items are heavy-tailed (Zipf 1.05)."""
    rng = np.random.default_rng(shop.seed)
    views = shop.impressions // PAGE_ROWS
    n = views * PAGE_ROWS
    at_ms = shop.start_ms + (np.sort(rng.random(views)) * n / shop.rate * 1000).astype(np.int64)
    item = _zipf(rng, shop.items, n)
    click = np.flatnonzero(rng.random(n) < shop.click_share)
    click_ts = np.repeat(at_ms, PAGE_ROWS)[click] + rng.exponential(
        CLICK_DELAY_MEAN_MS, len(click)
    ).astype(np.int64)
    order = np.argsort(click_ts, kind="stable")
    return Views(
        view=np.repeat(shop.first_view + np.arange(views), PAGE_ROWS),
        ts_ms=np.repeat(at_ms, PAGE_ROWS),
        user=np.repeat(_zipf(rng, shop.users, views), PAGE_ROWS),
        item=item,
        vendor=rng.integers(shop.vendors, size=shop.items)[item],
        click=click[order],
        click_ts_ms=click_ts[order],
    )


def _zipf(rng: np.random.Generator, kinds: int, count: int) -> I64:
    weights = np.cumsum(1.0 / np.arange(1, kinds + 1) ** 1.05)
    return np.searchsorted(weights, rng.random(count) * weights[-1]).astype(np.int64)


class Entry(NamedTuple):
    """One record to append."""

    arrival_ms: int
    topic: str
    partition: int
    key: bytes | None
    value: bytes
    rows: int


@dataclass
class Written:
    """What was appended."""

    impressions: int = 0
    clicks: int = 0
    records: int = 0
    bytes: int = 0
    end_ms: int = 0
    _last: dict[Partition, tuple[Append, int]] = field(default_factory=dict)

    def ends(self, topic: str) -> dict[int, int]:
        """Partition -> the position behind the last event of this topic; what has none is left
        out."""
        return {
            at.partition: position(sent.offset, rows - 1) + 1
            for at, (sent, rows) in self._last.items()
            if at.topic == topic
        }


def write(log: Log, stream: StreamConfig, views: Views, form: str, close: bool = True) -> Written:
    """Append impressions and clicks by arrival, a heartbeat each `heartbeat_ms`, and with `close`
    one by which every label is due."""
    done, writer = Written(), log.writer()
    streams = [impression_entries(views, stream, form), click_entries(views, stream, form)]
    for entries in streams:
        _write_topic(writer, stream, entries, views, done)
    done.end_ms = views.end_ms + stream.wait_ms + stream.flush_ms + stream.signal_ms + 1
    for topic in (stream.impressions, stream.clicks) if close else ():
        _beat(writer, stream, topic, done.end_ms)
    writer.flush(60_000)
    writer.close()
    return done


def _write_topic(
    writer: Writer, stream: StreamConfig, entries: Iterator[Entry], views: Views, done: Written
) -> None:
    beat_ms = int(views.ts_ms[0]) // stream.heartbeat_ms * stream.heartbeat_ms
    for entry in entries:
        while entry.arrival_ms >= beat_ms:
            _beat(writer, stream, entry.topic, beat_ms)
            beat_ms += stream.heartbeat_ms
        at = Partition(entry.topic, entry.partition)
        sent = writer.append(at, entry.value, entry.key, PRODUCER, entry.arrival_ms)
        done._last[at] = (sent, entry.rows)
        done.records += 1
        done.bytes += len(entry.value)
        if entry.topic == stream.impressions:
            done.impressions += entry.rows
        else:
            done.clicks += entry.rows
        if done.records % IN_FLIGHT_MAX == 0:
            writer.flush(60_000)


def _beat(writer: Writer, stream: StreamConfig, topic: str, at_ms: int) -> None:
    headers = ((CONTROL, HEARTBEAT.encode()), (CLOCK_MS, str(at_ms).encode()))
    for p in range(stream.partitions):
        writer.append(Partition(topic, p), None, None, headers, at_ms)


# --- columns
# --------------------------------------------------------------------------------------------------


def _names(prefix: str, numbers: I64) -> pa.Array:
    """`prefix` and the number, as a site names things."""
    kinds, at = np.unique(numbers, return_inverse=True)
    return pa.array([f"{prefix}{k}" for k in kinds.tolist()], pa.string()).take(pa.array(at))


def columns(views: Views, rows: I64 | slice, stream: StreamConfig) -> dict[str, pa.Array]:
    """Flat columns of these impressions, by the names of `Shape.wire`; the declared features
    have a column each."""
    item = views.item[rows]
    shown_at = np.arange(len(views.view), dtype=np.int64)[rows] % PAGE_ROWS
    found = {
        "id": _names("i", views.view[rows] * PAGE_ROWS + shown_at),
        "session": _names("s-", views.view[rows]),
        "source": _names("user-", views.user[rows]),
        "vendor": _names("vendor-", views.vendor[rows]),
        "item": _names("item-", item),
        "ts_ms": pa.array(views.ts_ms[rows]),
        "position": pa.array(shown_at),
    }
    for feature in stream.features:
        is_text = feature.type == pa.string()
        found[feature.column] = _names("c", item % 50) if is_text else pa.array(item * 0.25)
    return found


def impression_entries(views: Views, stream: StreamConfig, form: str) -> Iterator[Entry]:
    shape, topic = impression_shape(stream.features), stream.impressions
    table = columns(views, slice(None), stream)
    placed = partitions_of_keys(table["session"], stream.partitions).astype(np.int64)
    if form == "arrow":
        yield from _arrow(topic, shape, table, views.ts_ms, placed, stream.partitions)
        return
    sessions, pages = table["session"].to_pylist(), _json_rows(table, stream)
    step = PAGE_ROWS if form == "json_page_views" else 1
    for at in range(0, len(sessions), step):
        head, own = pages[at]
        if step == 1:
            value = f"{{{head}, {own}}}"
        else:
            rows = ", ".join(f"{{{mine}}}" for _, mine in pages[at : at + step])
            value = f'{{{head}, "impressions": [{rows}]}}'
        yield Entry(
            int(views.ts_ms[at]) + ARRIVAL_LAG_MS,
            topic,
            int(placed[at]),
            sessions[at].encode(),
            value.encode(),
            step,
        )


def _json_rows(table: dict[str, pa.Array], stream: StreamConfig) -> list[tuple[str, str]]:
    """Per impression what its page view shares, and what is its own, as the inside of a JSON
    object."""
    shared = zip(*(table[name].to_pylist() for name in ("ts_ms", "session", "source")), strict=True)
    own = zip(
        *(table[name].to_pylist() for name in ("id", "item", "vendor", "position")), strict=True
    )
    features = [table[f.column].to_pylist() for f in stream.features]
    names = [f.name for f in stream.features]
    rows = []
    for i, ((ts_ms, session, source), (id, item, vendor, shown_at)) in enumerate(
        zip(shared, own, strict=True)
    ):
        extra = json.dumps({name: values[i] for name, values in zip(names, features, strict=True)})
        rows.append(
            (
                f'"ts_ms": {ts_ms}, "session": "{session}", "source": "{source}"',
                f'"id": "{id}", "item": "{item}", "vendor": "{vendor}", "position": {shown_at}, '
                f'"features": {extra}',
            )
        )
    return rows


def click_entries(views: Views, stream: StreamConfig, form: str) -> Iterator[Entry]:
    shown = columns(views, views.click, stream)
    table = {name: shown[name] for name in ("id", "session", "source", "vendor")}
    table["ts_ms"] = pa.array(views.click_ts_ms)
    placed = partitions_of_keys(table["session"], stream.partitions).astype(np.int64)
    if form == "arrow":
        yield from _arrow(
            stream.clicks, click_shape(), table, views.click_ts_ms, placed, stream.partitions
        )
        return
    rows = zip(
        *(table[name].to_pylist() for name in ("ts_ms", "session", "source", "vendor", "id")),
        strict=True,
    )
    for (ts_ms, session, source, vendor, id), p in zip(rows, placed.tolist(), strict=True):
        value = (
            f'{{"ts_ms": {ts_ms}, "session": "{session}", "source": "{source}", "vendor": '
            f'"{vendor}", "id": "{id}"}}'
        )
        yield Entry(ts_ms + ARRIVAL_LAG_MS, stream.clicks, p, session.encode(), value.encode(), 1)


def _arrow(
    topic: str, shape: Shape, table: dict[str, pa.Array], ts_ms: I64, placed: I64, partitions: int
) -> Iterator[Entry]:
    """Records of ARROW_ROWS events of one partition; a record arrives when it is full, or after
    a second."""
    schema = pa.schema(list(shape.wire.items()))
    nulls = {f.name: pa.nulls(len(ts_ms), f.type) for f in schema if f.name not in table}
    whole = pa.table([table.get(f.name, nulls.get(f.name)) for f in schema], schema=schema)
    entries: list[Entry] = []
    for p in range(partitions):
        rows = np.flatnonzero(placed == p)
        mine = whole.take(pa.array(rows))
        for first, last in _records(ts_ms[rows]):
            value = _ipc(mine.slice(first, last - first))
            entries.append(
                Entry(
                    int(ts_ms[rows[last - 1]]) + ARRIVAL_LAG_MS, topic, p, None, value, last - first
                )
            )
    yield from sorted(entries, key=lambda entry: entry.arrival_ms)


def _records(ts_ms: I64) -> Iterator[tuple[int, int]]:
    """[first, last) of each record."""
    first = 0
    while first < len(ts_ms):
        last = min(first + ARROW_ROWS, int(np.searchsorted(ts_ms, ts_ms[first] + 1000)))
        yield first, last
        first = last


def _ipc(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows.combine_chunks().to_batches()[0])
    return bytes(sink.getvalue())
