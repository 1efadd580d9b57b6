"""docs/events.md and docs/schemas say what the decoder does."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from everspun.launcher import Broker
from everspun.launcher.broker import console_producer
from stream.config import StreamConfig
from stream.decoding import decode_clicks, decode_impressions
from stream.hashing import partition_of_key
from stream.log.kafka import KafkaLog
from stream.log.kafka_admin import create_topics
from stream.monitoring import TimeLimit
from stream.record import Partition, Record

DOCS = Path(__file__).resolve().parents[3] / "docs"
SCHEMAS = {
    path.name: json.loads(path.read_text()) for path in sorted((DOCS / "schemas").glob("*.json"))
}
REGISTRY = Registry().with_resources(
    [(s["$id"], Resource.from_contents(s)) for s in SCHEMAS.values()]
)
EXAMPLES = re.findall(r"```json (\w+)\n(.*?)```", (DOCS / "events.md").read_text(), re.S)
CONFIG = StreamConfig(partitions=1, categorical_features=("user",), numeric_features=("price",))
TS = 1_700_000_000_000


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(SCHEMAS[f"{name}.schema.json"], registry=REGISTRY)


def decodes(kind: str, text: str) -> int | None:
    """How many events the decoder finds; None if it says that the record is bad."""
    decode = decode_impressions if kind == "impressions_record" else decode_clicks
    events, bad = decode([Record(0, TS, b"s-17", text.encode())], 0, np.array([TS]), CONFIG)
    return None if bad else len(events)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_are_schemas(name: str):
    Draft202012Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize(("kind", "text"), EXAMPLES)
def test_each_example_is_valid_and_decodes(kind: str, text: str):
    assert list(validator(kind).iter_errors(json.loads(text))) == []
    assert decodes(kind, text)


def test_there_are_examples_of_all_kinds():
    assert [kind for kind, _ in EXAMPLES].count("impressions_record") >= 3
    assert [kind for kind, _ in EXAMPLES].count("clicks_record") >= 2


VALUES = [..., None, "", "x", "x" * 1025, 5, -1, 1.5, 0.5, True, [], {}, TS, TS // 1000, TS * 1000]
FIELDS = {
    "impressions_record": [
        "id",
        "ts_ms",
        "source",
        "vendor",
        "item",
        "features",
        "position",
        "prediction",
        "model_version",
        "session",
        "impressions",
    ],
    "clicks_record": ["id", "ts_ms", "source", "vendor", "session", "item"],
}


@pytest.mark.long
@pytest.mark.parametrize(("kind", "text"), EXAMPLES)
def test_schema_and_decoder_agree_on_every_field(kind: str, text: str):
    """Each field of each example, at the top and inside a page view, replaced by values of every
    type."""
    for path in places(json.loads(text)):
        for name in FIELDS[kind]:
            for value in VALUES:
                event = json.loads(text)
                spot = event
                for step in path:
                    spot = spot[step]
                spot.pop(name, None) if value is ... else spot.update({name: value})
                valid = validator(kind).is_valid(event)
                decoded = decodes(kind, json.dumps(event)) is not None
                # What a page view says for all, and each of its impressions for itself, is not
                # read.
                unread = name in ("vendor", "model_version") and isinstance(
                    spot.get("impressions"), list
                )
                assert valid == decoded or (unread and decoded), (
                    f"{path} {name} = {value!r}: schema {valid}"
                )


def places(event: object, path: tuple = ()) -> list[tuple]:
    """Where the objects of an example are, features left out."""
    found: list[tuple] = []
    if isinstance(event, list):
        for i, one in enumerate(event):
            found += places(one, (*path, i))
    elif isinstance(event, dict):
        found = [path] + [
            p for k, v in event.items() if isinstance(v, list) for p in places(v, (*path, k))
        ]
    return found


@pytest.mark.kafka
def test_kafkas_console_producer_is_understood(
    broker_of_kind: Callable[[str], Broker], topic_prefix: str
):
    broker = broker_of_kind("kafka")
    config = StreamConfig(
        bootstrap_servers=broker.address, topic_prefix=topic_prefix, categorical_features=("user",)
    )
    create_topics(config)
    lines = "".join(
        f"s-{i}|" + EXAMPLES[0][1].replace("\n", " ").replace("s-17", f"s-{i}") + "\n"
        for i in range(8)
    )
    command = console_producer(broker.address, config.impressions)
    done = subprocess.run(
        command, input=lines.encode(), capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    reader = KafkaLog(config).reader()
    partitions = [Partition(config.impressions, p) for p in range(4)]
    reader.assign(partitions)
    for partition in partitions:
        reader.seek(partition, 0)
    seen, limit = 0, TimeLimit(20)
    while seen < 8 and not limit.over:
        for partition, records in reader.poll(100, 200).items():
            arrivals = np.array([r.timestamp_ms for r in records])
            events, bad = decode_impressions(records, partition.partition, arrivals, config)
            assert bad == []
            assert all(partition_of_key(r.key or b"", 4) == partition.partition for r in records)
            seen += len(events)
    reader.close()
    assert seen == 8
