"""What the pipeline keeps, and catalogues say, of a row that somebody asks about by hand: read from
the store and from the topics, once."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson
import pyarrow as pa

from checkpointer.store import Catalogue
from checkpointer.tables import (
    COUNTS,
    AskedRows,
    CountsReader,
    KnownValues,
    ServedCounts,
    declared_by,
)
from everspun.audit import read_all
from everspun.status import duration
from learners import ModelConfig
from stream import Partition, StreamConfig
from stream.columns import FEATURE_PREFIX, KEYS, Feature
from stream.columns.counters import KeySequences
from stream.decoding.catalogues import CatalogueColumns
from stream.log import KafkaLog, Log


def known_values(
    stream: StreamConfig, store: Catalogue, model: ModelConfig, asked: pa.Table, now_ms: int
) -> KnownValues:
    """Of one row, in the columns of a request. Raises Damaged, and LogError where it asks for rows
    of a catalogue that cannot be read."""
    declared = declared_by(model)
    rows = None
    if any(one.catalogue for one in declared.values()):
        columns = catalogue_columns(stream)
        rows = rows_of(KafkaLog(stream), stream, columns, columns.keys(asked))
    return KnownValues(declared, counts_of(store, model, now_ms), rows)


def counts_of(store: Catalogue, model: ModelConfig, now_ms: int) -> ServedCounts | None:
    """The counters and sequences beside a model's checkpoints; None = it reads none. Raises
    Damaged."""
    reader = CountsReader(store.files)
    reader.look(model.name, model, now_ms)
    return reader.newest


def catalogue_columns(stream: StreamConfig) -> CatalogueColumns:
    """As a replica and the labeler read them."""
    return CatalogueColumns(
        stream.declared, stream.record_bytes_max, stream.catalogue_row_bytes_max
    )


def rows_of(
    source: Log,
    stream: StreamConfig,
    columns: CatalogueColumns,
    asked: Mapping[str, Collection[bytes]],
) -> AskedRows:
    """The newest rows of these keys, by catalogue: each topic that is asked is read whole, and no
    row of another key is kept. Raises LogError."""
    rows = AskedRows(columns, asked)
    if not any(asked.values()):
        return rows
    reader = source.reader()
    try:
        for name in (name for name, keys in asked.items() if keys):
            topic = Partition(stream.catalogues[name], 0)
            rows.read(name, read_all(reader, topic))
    finally:
        reader.close()
    return rows


class KnownLine(NamedTuple):
    """What is known of a value that was asked about."""

    asked: str  # FEATURE=VALUE
    feature: str
    said_by: str  # 'counts', 'catalogue NAME'
    value: str
    age_s: float | None  # None = nothing is known yet


@dataclass(frozen=True)
class KnownOfValues:
    """Of `FEATURE=VALUE`s by which something is kept or looked up, in their order."""

    looked_at: frozenset[str]  # features
    lines: list[KnownLine]

    def knows(self, asked: str) -> bool:
        """Whether anything is kept or looked up by it."""
        return asked.partition("=")[0] in self.looked_at


def of_values(
    stream: StreamConfig,
    store: Catalogue,
    model: ModelConfig,
    asked: Sequence[str],
    now_ms: int,
) -> KnownOfValues:
    """Of what the model reads. Raises Damaged, and LogError where a catalogue cannot be read."""
    declared = declared_by(model)
    by = frozenset(one.looked_up_by for one in declared.values() if one.looked_up_by)
    pairs = [(one, *one.partition("=")[::2]) for one in asked]
    wanted: dict[str, set[bytes]] = {}
    for one in stream.catalogued.values():
        values = {value.encode() for _, name, value in pairs if name == one.key and value}
        wanted.setdefault(one.catalogue, set()).update(values)
    columns = catalogue_columns(stream)
    rows = rows_of(KafkaLog(stream), stream, columns, wanted) if wanted else None
    counts = counts_of(store, model, now_ms)
    lines: list[KnownLine] = []
    for said, name, value in pairs:
        if counts is not None:
            lines += _kept(said, name, value, declared, counts, now_ms)
        if rows is not None and value:
            lines += _looked_up(said, name, value, stream.catalogued, rows, now_ms)
    return KnownOfValues(by, lines)


def _kept(
    said: str,
    name: str,
    value: str,
    declared: Mapping[str, Feature],
    counts: ServedCounts,
    now_ms: int,
) -> Iterator[KnownLine]:
    table = pa.table({name if name in KEYS else FEATURE_PREFIX + name: [value]})
    age_s = counts.age_s(now_ms)
    numbers, totals = counts.values(table), counts.shows_and_clicks(table)
    clicks = counts.clicks(table)
    for feature, one in declared.items():
        if one.kept_by != name:
            continue
        if feature in totals:
            shows, clicked = (float(found[0]) for found in totals[feature])
            text = f"{float(numbers[feature][0]):.6g} ({shows:.6g} shows, {clicked:.6g} clicks)"
        else:
            text = _clicks_text(clicks[feature], now_ms)
        yield KnownLine(said, feature, COUNTS, text, age_s)


def _clicks_text(clicks: KeySequences, now_ms: int) -> str:
    told = zip(clicks.values.to_pylist(), clicks.times.tolist(), strict=True)
    found = [f"{value} ({duration((now_ms - time) / 1_000)} ago)" for value, time in told]
    return ", ".join(found) or "no clicks"


def _looked_up(
    said: str,
    name: str,
    value: str,
    declared: Mapping[str, Feature],
    rows: AskedRows,
    now_ms: int,
) -> Iterator[KnownLine]:
    for catalogue in dict.fromkeys(one.catalogue for one in declared.values()):
        features = [
            f for f, one in declared.items() if (one.catalogue, one.key) == (catalogue, name)
        ]
        row = rows.row(catalogue, value.encode())
        age_s = (now_ms - row.written_ms) / 1_000 if row.written_ms else None
        by = f"catalogue {catalogue}"
        if features and row.wrong:
            yield KnownLine(said, "(a newer record)", by, f"cannot be read: {row.wrong}", None)
        if features and not row.there:
            text = "the row was deleted" if row.written_ms else "no row"
            yield KnownLine(said, "(all)", by, text, age_s)
            continue
        attributes = rows.attributes(catalogue, value.encode())
        for feature in features:
            text = orjson.dumps(attributes[feature]).decode()
            yield KnownLine(said, feature, by, text, age_s)
