"""Made-up records of `examples`, and what is kept of them, counted slowly."""

import random
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from labeler.counts.adder import Adder
from stream import Record, StreamConfig, offset_of, position
from stream.columns import Feature, Impressions, impression_schema
from stream.internal_topics import (
    BatchHeader,
    CountRecord,
    encode_counts,
    encode_examples,
    examples_schema,
)

BUCKET_MS, SLICES, WAIT_MS = 1_000, 3, 5_000
IDLE_MS = 7_000
START_MS = 1_000_000


def stream_config(**more: object) -> StreamConfig:
    return StreamConfig(
        partitions=2,
        window_ms=WAIT_MS,
        grace_ms=0,
        heartbeat_ms=1_000,
        flush_ms=1_000,
        counts_bucket_ms=BUCKET_MS,
        counts_slices=SLICES,
        declared={
            "rate": Feature(kind="counter", of="item", half_life_ms=4_000),
            "shows": Feature(kind="counter", of="item", half_life_ms=0, gives="shows"),
            "clicked": Feature(kind="sequence", by="source", of="item", max_values=2),
            "ages": Feature(kind="sequence", by="source", of="item", max_values=2, ages=True),
            "lately": Feature(
                kind="sequence", by="source", of="item", max_values=3, idle_ms=IDLE_MS
            ),
        },
        **more,  # type: ignore[arg-type]
    )


@dataclass
class Example:
    position: int
    arrival_ms: int
    item: str
    label: int
    bucket: int = 0  # where it stands
    sign: int = 1

    @property
    def source(self) -> str:
        return f"user-{offset_of(self.position) % 3}"

    @property
    def ts_ms(self) -> int:
        return self.arrival_ms - offset_of(self.position) * 37 % 900

    @property
    def delay_ms(self) -> int:
        return offset_of(self.position) * 113 % 2_500 if self.label else -1


@dataclass
class Partition:
    """One partition of `examples` as it is written."""

    number: int
    records: list[Record] = field(default_factory=list)
    rows: list[Example] = field(default_factory=list)
    offset: int = 0  # of impressions
    arrival_ms: int = START_MS
    retracted: int = 0

    def label(self, items: list[tuple[str, int]], after_ms: int) -> None:
        """A range of these (item, label), that arrived so long after the last one."""
        start, self.arrival_ms = position(self.offset), self.arrival_ms + after_ms
        rows = [
            Example(position(self.offset + i), self.arrival_ms, item, label)
            for i, (item, label) in enumerate(items)
        ]
        self.offset += max(1, len(items))
        self._add("label", start, position(self.offset), rows, len(rows))
        self._count(rows, 1)

    def retract(self, which: list[Example], clean: list[Example]) -> None:
        """A record that takes these back; the clean ones count nothing."""
        self._add("retract", self.retracted, self.retracted + 1, [*which, *clean], 0, len(which))
        self.retracted += 1
        self._count(which, -1)

    def repeat(self) -> None:
        """The last record, written again by a labeler that was thought dead."""
        self.records.append(self.records[-1]._replace(offset=len(self.records)))

    def _count(self, rows: list[Example], sign: int) -> None:
        bucket = self.arrival_ms // BUCKET_MS
        self.rows += [
            Example(r.position, r.arrival_ms, r.item, r.label, bucket, sign) for r in rows
        ]

    def _add(
        self, kind: str, start: int, end: int, rows: list[Example], labelled: int, taken: int = 0
    ) -> None:
        header = BatchHeader(
            chain=f"{kind}/{self.number}",
            start=start,
            end=end,
            schema_id="",
            config_hash="",
            labelled=labelled,
            rejected=taken,
            arrival_max_ms=self.arrival_ms,
        )
        self.records.append(
            Record(len(self.records), 0, None, encode_examples(_batch(rows)), header.to_headers())
        )


def _batch(rows: list[Example]) -> pa.RecordBatch:
    schema = examples_schema(())
    columns: dict[str, list[object]] = {
        "position": [r.position for r in rows],
        "arrival_ms": [r.arrival_ms for r in rows],
        "label": [r.label for r in rows],
        "ts_ms": [r.ts_ms for r in rows],
        "click_delay_ms": [r.delay_ms for r in rows],
        "source": [r.source for r in rows],
        "item": [r.item for r in rows],
    }
    return pa.RecordBatch.from_arrays(
        [pa.array(columns.get(f.name) or _plain(f, len(rows)), f.type) for f in schema],
        schema=schema,
    )


def _plain(column: pa.Field, rows: int) -> list[object]:
    return [("" if pa.types.is_string(column.type) else 0)] * rows


def random_partitions(rng: random.Random, records: int) -> list[Partition]:
    """Two partitions of so many records each: labels, repeats, and rows taken back."""
    out = [Partition(p) for p in range(2)]
    for one in out:
        one.label([], rng.randrange(1, 3_000))
        for _ in range(records):
            kind = rng.random()
            labelled = [r for r in one.rows if r.sign > 0]
            if kind < 0.15 and labelled:
                which = rng.sample(labelled, min(len(labelled), rng.randrange(1, 4)))
                left = [r for r in one.rows if r.sign < 0]
                taken = {r.position for r in left}
                which = [r for r in which if r.position not in taken]
                one.retract(which, [r for r in labelled if r not in which][:2])
            elif kind < 0.25:
                one.repeat()
            else:
                items = [
                    (f"item-{rng.randrange(6)}" if rng.random() < 0.9 else "", rng.randrange(2))
                    for _ in range(rng.randrange(6))
                ]
                one.label(items, rng.choice((0, 200, 900, 1_100, 2_500)))
    return out


def recount(partitions: list[Partition], bucket: int, half_life_ms: int) -> dict[str, list[float]]:
    """Item -> [negatives, clicks] as of the end of a bucket."""
    found: dict[str, list[float]] = {}
    for one in partitions:
        for row in one.rows:
            if row.bucket <= bucket and row.item:
                age = max(0, bucket - row.arrival_ms // BUCKET_MS) * BUCKET_MS
                left = 0.5 ** (age / half_life_ms) if half_life_ms else 1.0
                found.setdefault(row.item, [0.0, 0.0])[row.label] += row.sign * left
    return {item: [float(np.maximum(n, 0.0)) for n in counts] for item, counts in found.items()}


def clicks_of(
    partitions: list[Partition], bucket: int, most: int, idle_ms: int
) -> dict[str, list[tuple[int, str]]]:
    """Source -> (time, item) of the clicks held as of the end of a bucket, newest first."""
    rows = [r for one in partitions for r in one.rows if r.label and r.item and r.bucket <= bucket]
    found: dict[str, list[tuple[int, str]]] = {}
    last: dict[str, int] = {}
    for number in sorted({row.bucket for row in rows}):
        here = [row for row in rows if row.bucket == number]
        for source in {row.source for row in here}:
            if (number - last.get(source, number)) * BUCKET_MS > idle_ms:
                found[source] = []
        for row in sorted(here, key=lambda row: -row.sign):
            clicks, click = found.setdefault(row.source, []), (row.ts_ms + row.delay_ms, row.item)
            if row.sign > 0:
                clicks.append(click)
                last[row.source] = number
            elif click in clicks:
                clicks.remove(click)
        for clicks in found.values():
            clicks.sort(key=lambda click: (-click[0], click[1]))
            del clicks[2 * most :]
    alive = {s for s in last if (bucket - last[s]) * BUCKET_MS <= idle_ms}
    return {source: clicks for source, clicks in found.items() if source in alive and clicks}


def add_all(
    partitions: list[Partition], rng: random.Random, memory: list[CountRecord] | None = None
) -> list[CountRecord]:
    """Read in any interleaving."""
    adder = Adder(stream_config(), memory or [])
    left = {one.number: adder.next_offset(one.number) for one in partitions}
    out: list[CountRecord] = []
    while any(left[one.number] < len(one.records) for one in partitions):
        one = rng.choice([p for p in partitions if left[p.number] < len(p.records)])
        for _ in range(rng.randrange(1, 4)):
            if left[one.number] < len(one.records):
                adder.take(one.number, one.records[left[one.number]])
                left[one.number] += 1
        if rng.random() < 0.5:
            out += closed(adder)
    return out + closed(adder)


def closed(adder: Adder) -> list[CountRecord]:
    """All that it publishes now, as if it were acknowledged."""
    out: list[CountRecord] = []
    while more := adder.step():
        out += more
        adder.commit()
    return out


def records_of(counts: list[CountRecord], bytes_max: int = 1 << 20) -> list[Record]:
    """As they stand in the log."""
    parts = [part for record in counts for part in encode_counts(record, bytes_max)]
    return [Record(i, 0, None, value, headers) for i, (value, headers) in enumerate(parts)]


def impressions(arrivals: list[int], age_ms: int = 0, **columns: list[str]) -> Impressions:
    """Of these arrivals, (n,), shown `age_ms` before; `columns` by their names."""
    n = len(arrivals)
    times, hashes, schema = (
        np.array(arrivals, np.int64),
        np.zeros(n, np.uint64),
        impression_schema(()),
    )
    table = pa.table(
        [pa.array(columns.get(f.name) or _plain(f, n), f.type) for f in schema], schema=schema
    )
    return Impressions(np.arange(n), times, times - age_ms, hashes, hashes, hashes, table)
