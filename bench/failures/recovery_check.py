"""What became of every event, counted without the code that is being judged: from the logs' raw
records, from the parameters in the checkpoints' files, and from the site's own list.
"""

import contextlib
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from checkpointer.store import Catalogue, Entry, model_state
from everspun.audit import read_all
from labeler.labels import rejected_ids
from learners.models import TABLE, Model
from stream import ROW_BITS, Partition, Record, StreamConfig, label_chain
from stream.internal_topics import MalformedRecord
from stream.log import Reader

EVENT = "f_event"
#: Offsets of records that nobody of the system wrote and nobody is to heed.
Planted = Mapping[Partition, Container[int]]
NOTHING_PLANTED: Planted = {}


@dataclass
class Learnable:
    """The folded rows of one partition of `examples`: what a model that stands at an end has
    learned below it."""

    positions: list[int] = field(default_factory=list)  # rising
    ids: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    end: int = 0
    holes: int = 0  # records that begin above the end (C2)


@dataclass
class Events:
    """What became of every id."""

    partitions: dict[str, Learnable] = field(default_factory=dict)  # by chain
    rejected: set[str] = field(default_factory=set)
    quarantined: int = 0

    def labelled(self) -> Counter[str]:
        return Counter(id_ for one in self.partitions.values() for id_ in one.ids)

    def lost(self, sent: Iterable[str]) -> list[str]:
        """Sent, and in no class."""
        known = self.labelled().keys() | self.rejected
        return [id_ for id_ in sent if id_ not in known]

    def doubled(self) -> list[str]:
        """Labelled more than once, or labelled and rejected."""
        return [id_ for id_, count in self.labelled().items() if count > 1 or id_ in self.rejected]

    def strangers(self, sent: Mapping[str, int]) -> list[str]:
        """Labelled or rejected, and never sent."""
        return [id_ for id_ in self.labelled().keys() | self.rejected if id_ not in sent]


def read_events(
    reader: Reader,
    stream: StreamConfig,
    begin: Mapping[str, int],
    planted: Planted = NOTHING_PLANTED,
) -> Events:
    """Fold `examples` record by record, and read what was kept out. `planted` records are passed
    over."""
    events = Events()
    for p in range(stream.partitions):
        chain = label_chain(p)
        one = events.partitions[chain] = Learnable(end=begin[chain])
        for record in _unplanted(reader, Partition(stream.examples, p), planted):
            if (
                record.header("chain") or b""
            ).decode() == chain:  # late clicks and retractions stand there too
                _fold(one, record)
        for record in _unplanted(reader, Partition(stream.rejected, p), planted):
            with contextlib.suppress(MalformedRecord):
                events.rejected.update(rejected_ids(record))
        events.quarantined += sum(1 for _ in read_all(reader, Partition(stream.quarantine, p)))
    return events


def _unplanted(reader: Reader, partition: Partition, planted: Planted) -> Iterator[Record]:
    skipped = planted.get(partition, ())
    return (record for record in read_all(reader, partition) if record.offset not in skipped)


def _fold(one: Learnable, record: Record) -> None:
    start, end = (int(record.header(name) or b"-1") for name in ("start", "end"))
    if start > one.end:
        one.holes += 1
    elif end > one.end:
        if record.value:
            rows = pa.ipc.open_stream(record.value).read_all().to_pydict()
            for at, id_, label in zip(rows["position"], rows[EVENT], rows["label"], strict=True):
                if at >= one.end:
                    one.positions.append(at)
                    one.ids.append(id_)
                    one.labels.append(label)
        one.end = end


# --- labels
# --------------------------------------------------------------------------------------------------


def wrong_labels(
    reader: Reader,
    stream: StreamConfig,
    events: Events,
    planted: Planted = NOTHING_PLANTED,
    prefix: str = "",
) -> int:
    """Labelled rows that the rule over the logs' own stamps decides otherwise, or finds elsewhere
    (L1, L2): the label is 1 iff a click of this id has an event time within the window, and came in
    time. Of ids with another prefix nothing is known."""
    wrong = 0
    for p in range(stream.partitions):
        shown = _first(_raw(reader, Partition(stream.impressions, p), planted))
        clicks: dict[str, list[tuple[int, int]]] = {}
        for id_, _, arrival_ms, ts_ms in _raw(reader, Partition(stream.clicks, p), planted):
            clicks.setdefault(id_, []).append((arrival_ms, ts_ms))
        one = events.partitions[label_chain(p)]
        for at, id_, label in zip(one.positions, one.ids, one.labels, strict=True):
            if not id_.startswith(prefix):
                continue
            position, arrival_ms, ts_ms = shown.get(id_, (-1, 0, 0))
            first_ms, last_ms = (
                arrival_ms - stream.grace_ms,
                arrival_ms + stream.window_ms + stream.grace_ms,
            )
            clicked = any(
                first_ms <= arrived <= last_ms
                and -stream.early_click_ms <= clicked_ms - ts_ms <= stream.window_ms
                for arrived, clicked_ms in clicks.get(id_, ())
            )
            wrong += position != at or clicked != bool(label)
    return wrong


def _first(rows: Iterable[tuple[str, int, int, int]]) -> dict[str, tuple[int, int, int]]:
    first: dict[str, tuple[int, int, int]] = {}
    for id_, *rest in rows:
        first.setdefault(id_, (rest[0], rest[1], rest[2]))
    return first


def _raw(
    reader: Reader, partition: Partition, planted: Planted
) -> Iterable[tuple[str, int, int, int]]:
    """(id, position, arrival, event time) of every event of a topic, read without the product's
    decoder."""
    arrival_ms = 0
    for record in read_all(reader, partition):
        arrival_ms = max(arrival_ms, record.timestamp_ms)
        if record.value and record.offset not in planted.get(partition, ()):
            rows = pa.ipc.open_stream(record.value).read_all()
            columns = rows.column("id").to_pylist(), rows.column("ts_ms").to_pylist()
            for row, (id_, ts_ms) in enumerate(zip(*columns, strict=True)):
                yield id_, record.offset << ROW_BITS | row, arrival_ms, ts_ms


# --- parameters
# -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coverage:
    """Rows of one checkpoint against the events at or below its vector."""

    checkpoint: str
    expected: int
    missing: int  # events that were not learned
    beyond: int  # rows of events above the vector, or of none
    not_one: int  # rows that are not exactly 1.0

    @property
    def wrong(self) -> int:
        return self.missing + self.beyond + self.not_one


class Parameters:
    """Compares each checkpoint's rows with the folded events: exactly one row an event, exactly
    1.0."""

    def __init__(self, model: Model, events: Events):
        self._positions: dict[str, npt.NDArray[np.int64]] = {}
        self._keys: dict[str, npt.NDArray[np.uint64]] = {}
        for chain, one in events.partitions.items():
            self._positions[chain] = np.array(one.positions, np.int64)
            columns = pa.record_batch({EVENT: pa.array(one.ids, pa.string())})
            self._keys[chain] = model.encoder.encode(columns).keys[:, 0]

    def check(self, catalogue: Catalogue, entry: Entry) -> Coverage:
        """Of one complete checkpoint, from its files and those it builds on."""
        assert entry.manifest is not None
        vector = entry.manifest.vector
        expected = np.concatenate(
            [
                keys[: np.searchsorted(self._positions[chain], vector[chain])]
                for chain, keys in self._keys.items()
            ]
        )
        table = model_state(catalogue, entry.manifest).tables[TABLE]
        keys, rows = table.keys, table.rows[:, 0]
        missing, beyond = (
            len(np.setdiff1d(expected, keys)),
            len(keys) - int(np.isin(keys, expected).sum()),
        )
        repeated = len(keys) - len(np.unique(keys))
        return Coverage(
            entry.name,
            len(expected),
            missing,
            beyond + repeated,
            int((rows != np.float32(1.0)).sum()),
        )
