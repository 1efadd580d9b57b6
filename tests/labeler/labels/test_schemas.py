"""Events in Avro are labelled and counted as in JSON, and wait while the registry is away (T5a)."""

import io
import json
from dataclasses import replace
from typing import Any

import fastavro
import pytest
from labelled_shop import (
    CLICKS,
    EXAMPLES,
    IMPRESSIONS,
    LABELER,
    STREAM,
    Clock,
    fill,
    memory_log,
    work,
)

from labeler.counting import Head
from labeler.fraud_config import FraudConfig
from labeler.labels.runner import Labelling
from stream import Partition
from stream.log import MemoryLog
from stream.registry import AVRO, AbsentSchema, RegisteredSchema
from stream.registry.schema_log import SchemaLog, SchemaTable

IMPRESSION_ID, CLICK_ID = 1, 2
COUNTING = replace(LABELER, count_always=True)
QUARANTINE, SIGNALS = Partition("quarantine", 0), Partition("signals", 0)


def schema(name: str, *strings: str) -> dict[str, Any]:
    fields = [{"name": "ts_ms", "type": "long"}, *({"name": n, "type": "string"} for n in strings)]
    return {"type": "record", "name": name, "fields": fields}


IMPRESSION = schema("Impression", "id", "session", "source", "vendor", "item")
CLICK = schema("Click", "id", "session")
KNOWN = (
    RegisteredSchema(IMPRESSION_ID, AVRO, json.dumps(IMPRESSION)),
    RegisteredSchema(CLICK_ID, AVRO, json.dumps(CLICK)),
)


def in_avro(log: MemoryLog) -> MemoryLog:
    """The same records, those in JSON by the schemas of a registry."""
    made = memory_log(clock=lambda: 0)
    for at, parsed, id in ((IMPRESSIONS, IMPRESSION, IMPRESSION_ID), (CLICKS, CLICK, CLICK_ID)):
        for record in log.records(at):
            value = record.value
            if value is not None:
                out = io.BytesIO()
                fastavro.schemaless_writer(out, fastavro.parse_schema(parsed), json.loads(value))
                value = b"\0" + id.to_bytes(4) + out.getvalue()
            made.append(at, value, record.key, record.headers, record.timestamp_ms)
    return made


@pytest.fixture
def shop() -> MemoryLog:
    log = memory_log()
    fill(log)
    return log


def labelled(log: Any, clock: Clock) -> Labelling:
    labelling = Labelling(STREAM, LABELER, log)
    labelling.own([0])
    work(labelling, clock)
    return labelling


def counted(log: Any, clock: Clock) -> Head:
    head = Head(STREAM, COUNTING, FraudConfig(), log)
    head.own([0])
    work(head, clock)
    return head


def test_the_examples_and_signals_of_avro_are_those_of_json_byte_for_byte(shop: MemoryLog):
    binary, clock = in_avro(shop), Clock()
    with_registry = SchemaLog(binary, SchemaTable(*KNOWN), ("impressions", "clicks"))
    labelled(shop, clock)
    labelled(with_registry, clock)
    counted(shop, clock)
    counted(with_registry, clock)
    for at in (EXAMPLES, SIGNALS, QUARANTINE):
        wanted, found = shop.records(at), binary.records(at)
        assert [(r.value, r.key) for r in found] == [(r.value, r.key) for r in wanted]
    assert shop.records(EXAMPLES)
    assert shop.records(SIGNALS)


def test_while_the_registry_is_away_nothing_is_labelled_counted_or_quarantined(shop: MemoryLog):
    binary, clock, table = in_avro(shop), Clock(), SchemaTable()
    with_registry = SchemaLog(binary, table, ("impressions", "clicks"))
    labelling, head = labelled(with_registry, clock), counted(with_registry, clock)
    for at in (EXAMPLES, SIGNALS, QUARANTINE):
        assert not [r for r in binary.records(at) if r.value]
    assert labelling.tasks[0].core.stopped is None
    assert not head.totals.stopped
    table.schemas |= {one.id: one for one in KNOWN}
    work(labelling, clock)
    work(head, clock)
    labelled(shop, clock)
    counted(shop, clock)
    values = [[r.value for r in log.records(EXAMPLES) if r.value] for log in (binary, shop)]
    assert values[0] == values[1]
    assert not binary.records(QUARANTINE)
    assert sum(bool(r.value) for r in binary.records(SIGNALS)) > 0


def test_an_id_that_nobody_knows_is_quarantined_with_its_bytes(shop: MemoryLog):
    binary, clock = in_avro(shop), Clock()
    absent = SchemaTable(KNOWN[0], AbsentSchema(CLICK_ID))
    labelled(SchemaLog(binary, absent, ("impressions", "clicks")), clock)
    clicks = [r.value for r in binary.records(CLICKS) if r.value]
    assert clicks
    assert [r.value for r in binary.records(QUARANTINE)] == clicks
