"""A partition whose next record names a schema not known yet waits; others go on, and none is
lost."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from registered_events import CONFIG, IMPRESSION, TS, avro, avro_schema, impression

from stream.decoding import decode_impressions
from stream.log import MemoryLog, RecordColumns
from stream.record import Partition
from stream.registry.schema_log import SchemaLog, SchemaReader, SchemaTable

TOPIC = "impressions"
ONE, TWO = Partition(TOPIC, 0), Partition(TOPIC, 1)
OTHER = Partition("verdicts", 0)


def started(*known: Any) -> tuple[MemoryLog, SchemaTable, SchemaReader]:
    log, table = MemoryLog(lambda: TS), SchemaTable(*known)
    log.create(TOPIC, 2)
    log.create("verdicts", 1)
    reader = SchemaLog(log, table, (TOPIC,)).reader()
    assert isinstance(reader, SchemaReader)
    return log, table, reader


def polled(reader: SchemaReader, most: int = 100) -> dict[Partition, list[int]]:
    return {at: [r.offset for r in records] for at, records in reader.poll(most, 0).items()}


def test_a_record_waits_for_its_schema_with_all_behind_it():
    log, table, reader = started(avro_schema(IMPRESSION, 1))
    for id in (1, 2, 1):
        log.append(ONE, avro(IMPRESSION, impression(), id))
    log.append(TWO, avro(IMPRESSION, impression(), 1))
    log.append(OTHER, b"\0\0\0\0\x09")
    reader.assign([ONE, TWO, OTHER])
    for at in (ONE, TWO, OTHER):
        reader.seek(at, 0)
    assert polled(reader) == {ONE: [0], TWO: [0], OTHER: [0]}
    assert reader.waiting == [ONE]
    assert reader.position(ONE) == 1, "it stands in front of what it holds back"
    log.append(ONE, avro(IMPRESSION, impression(), 1))
    log.append(TWO, avro(IMPRESSION, impression(), 1))
    assert polled(reader) == {TWO: [1]}
    assert polled(reader) == {}
    table.schemas[2] = avro_schema(IMPRESSION, 2)
    assert polled(reader) == {ONE: [1, 2]}
    assert polled(reader) == {ONE: [3]}
    assert reader.waiting == []


def test_what_is_given_out_can_be_decoded():
    log, _, reader = started(avro_schema(IMPRESSION, 1))
    log.append(ONE, avro(IMPRESSION, impression(), 1))
    reader.assign([ONE])
    reader.seek(ONE, 0)
    (records,) = reader.poll(10, 0).values()
    together = RecordColumns.concat([RecordColumns.of(records), RecordColumns.of(records)])[:1]
    rows, bad = decode_impressions(together, 0, np.full(1, TS), CONFIG)
    assert (len(rows), bad) == (1, [])


def test_seek_and_assign_let_go_of_what_was_held():
    log, table, reader = started()
    for _ in range(3):
        log.append(ONE, avro(IMPRESSION, impression(), 1))
    reader.assign([ONE])
    reader.seek(ONE, 0)
    assert polled(reader) == {}
    table.schemas[1] = avro_schema(IMPRESSION, 1)
    reader.seek(ONE, 2)
    assert polled(reader) == {ONE: [2]}
    reader.assign([])
    reader.assign([ONE])
    reader.seek(ONE, 1)
    assert polled(reader) == {ONE: [1, 2]}


def test_who_reads_may_pause_what_waits():
    log, table, reader = started()
    log.append(ONE, avro(IMPRESSION, impression(), 1))
    reader.assign([ONE])
    reader.seek(ONE, 0)
    polled(reader)
    reader.pause([ONE])
    table.schemas[1] = avro_schema(IMPRESSION, 1)
    assert polled(reader) == {}
    reader.resume([ONE])
    assert polled(reader) == {ONE: [0]}
    log.append(ONE, avro(IMPRESSION, impression(), 1))
    assert polled(reader) == {ONE: [1]}


@given(st.lists(st.integers(0, 3), max_size=12), st.data())
@settings(max_examples=settings.default.max_examples // 2)
def test_every_record_is_given_once_in_order_whenever_its_schema_comes(
    ids: list[int], data: st.DataObject
):
    log, table, reader = started()
    for id in ids:
        log.append(ONE, avro(IMPRESSION, impression(), id) if id else b"{}")
    reader.assign([ONE])
    reader.seek(ONE, 0)
    seen: list[int] = []
    for _ in range(60):
        seen += polled(reader, data.draw(st.integers(1, 4))).get(ONE, [])
        assert reader.position(ONE) == len(seen)
        assert all(ids[at] == 0 or ids[at] in table.schemas for at in seen)
        if data.draw(st.booleans()):
            id = data.draw(st.integers(1, 3))
            table.schemas[id] = avro_schema(IMPRESSION, id)
    table.schemas |= {id: avro_schema(IMPRESSION, id) for id in (1, 2, 3)}
    while found := polled(reader):
        seen += found[ONE]
    assert seen == list(range(len(ids)))
