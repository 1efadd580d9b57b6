"""The records that tell of one event: found by halving, for chains only grow along a partition."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from checkpointer.store import Announcement, Catalogue, Manifest, decode
from everspun.audit import read_all, read_from
from everspun.trace.journey import EventRecords
from stream import Partition, Record, StreamConfig, label_chain, position
from stream.decoding import decode_impressions
from stream.internal_topics import BatchHeader, MalformedRecord, decode_examples
from stream.log import Reader

#: So many records are read one after the other rather than halved again; and so many before the
#: place, for writers that repeated themselves (C5).
NEAR = 256


class Span(NamedTuple):
    """What one record says of a chain: `[start, end)`."""

    record: Record
    start: int
    end: int
    said: object


class NotThere(ValueError):
    """The event's record is not in the log."""


class EventPlace(NamedTuple):
    """Where an event stands in `impressions`."""

    partition: int
    offset: int
    row: int = 0


def find(
    reader: Reader, stream: StreamConfig, model: str, at: EventPlace, evaluations: Partition
) -> EventRecords:
    """What the log knows of it; `evaluations`: where scores of its partition stand. Raises
    NotThere, and what logs raise."""
    partition, offset, row = at
    chain = label_chain(partition)
    place = position(offset, row)
    found = EventRecords(partition, place, _arrival_ms(reader, stream, at))
    examples = Partition(stream.examples, partition)
    batch = _covering(reader, examples, place, lambda record: _of_chain(record, chain))
    if batch is None:
        return found
    assert isinstance(batch.said, BatchHeader)
    found = replace(
        found,
        header=batch.said,
        labelled_ms=batch.record.timestamp_ms,
        examples_offset=batch.record.offset,
        row=_row(batch.record, place),
    )
    scored = _covering(reader, evaluations, place, lambda r: _of_model(r, model, chain))
    if scored is not None:
        assert isinstance(scored.said, dict)
        learned_ms = scored.record.timestamp_ms
        found = replace(found, evaluation=scored.said, learned_ms=learned_ms)
    return found


def checkpoint_of(catalogue: Catalogue, chain: str, place: int) -> Manifest | None:
    """The first complete one that is beyond a position; None = none is. Raises OSError."""
    first = None
    for manifest in catalogue.newest_first():
        if manifest.vector.get(chain, 0) <= place:
            break
        first = manifest
    return first


def published_of(
    reader: Reader, topic: str, model: str, chain: str, place: int
) -> tuple[Announcement, int] | None:
    """The first announcement of a version beyond a position, and when it was written."""
    for record in read_all(reader, Partition(topic, 0)):
        try:
            said = decode(record.value)
        except MalformedRecord:
            continue
        if said.kind == "published" and said.model == model and said.vector.get(chain, 0) > place:
            return said, record.timestamp_ms
    return None


def _arrival_ms(reader: Reader, stream: StreamConfig, place: EventPlace) -> int:
    """When its record came. Raises NotThere where no event stands at the place."""
    partition, offset, row = place
    at = Partition(stream.impressions, partition)
    record = next(read_from(reader, at, offset), None)
    if record is None or record.offset != offset:
        first = reader.beginning_offsets([at])[at]
        end = reader.end_offsets([at])[at]
        raise NotThere(
            f"{at.topic}[{partition}]: no record at offset {offset}; offsets {first} to {end - 1} "
            "are there"
        )
    if record.is_heartbeat:
        raise NotThere(
            f"{at.topic}[{partition}] offset {offset} is a heartbeat, by which time goes on, and "
            "no event; give the offset of an event"
        )
    arrivals = np.array([record.timestamp_ms], dtype=np.int64)
    rows, bad = decode_impressions([record], partition, arrivals, stream)
    # Of a record that is bad here, or needs the schema of a registry, the labeler has judged.
    if not bad and row >= len(rows):
        raise NotThere(
            f"--row {row}: the record at offset {offset} has {len(rows)} impressions, from 0"
        )
    return record.timestamp_ms


def _of_chain(record: Record, chain: str) -> Span | None:
    try:
        header = BatchHeader.from_headers(record.headers)
    except MalformedRecord:
        return None
    return Span(record, header.start, header.end, header) if header.chain == chain else None


def _of_model(record: Record, model: str, chain: str) -> Span | None:
    try:
        said = json.loads(record.value or b"")
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or said.get("model") != model or said.get("chain") != chain:
        return None
    start, end = said.get("start"), said.get("end")
    if type(start) is not int or type(end) is not int:
        return None
    return Span(record, start, end, said)


def _covering(
    reader: Reader, at: Partition, place: int, read: Callable[[Record], Span | None]
) -> Span | None:
    """The first record whose range holds the place."""
    low, high = reader.beginning_offsets([at])[at], reader.end_offsets([at])[at]
    while high - low > NEAR:
        middle = (low + high) // 2
        seen = next(_spans(reader, at, middle, high, read), None)
        if seen is None or seen.start > place:
            high = middle
        else:
            low = max(middle, seen.record.offset)
    for span in _spans(reader, at, max(0, low - NEAR), high + NEAR, read):
        if span.start <= place < span.end:
            return span
    return None


def _spans(
    reader: Reader, at: Partition, first: int, end: int, read: Callable[[Record], Span | None]
) -> Iterator[Span]:
    for record in read_from(reader, at, first):
        if record.offset >= end:
            return
        if (span := read(record)) is not None:
            yield span


def _row(record: Record, place: int) -> tuple[int, float] | None:
    """Label and weight of the row at a position, if there is one."""
    if not record.value:
        return None
    rows = decode_examples(record.value)
    positions = rows.column("position").to_numpy()
    at = int(np.searchsorted(positions, place))
    if at == len(positions) or positions[at] != place:
        return None
    return int(rows.column("label")[at].as_py()), float(rows.column("weight")[at].as_py())
