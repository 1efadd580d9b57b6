"""What it costs to decode an event, by the form in which a site sends it.

    python -m bench.event_formats [--json] [--events 200000]

The same impressions with two features, one a record and 50 in a page view: as JSON, in an envelope
of CloudEvents, as Avro and Protobuf with a schema's id in front, and as Arrow IPC of 4,096 rows.
Decoded by the labeler's decoder in polls of 2,000 records, on one thread, CPU time, the best of
three. `library_us` is what the library alone takes for the same values (fastavro's
`schemaless_reader`, protobuf's `FromString`, orjson's `loads`), into Python's objects and no
further. Takes about a CPU minute and 1 GB.
"""

import argparse
import io
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import fastavro
import numpy as np
import orjson
import pyarrow as pa
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from bench.measuring.machine import machine
from stream import Record, StreamConfig
from stream.decoding import decode_impressions, fitting
from stream.log import RecordColumns
from stream.registry import AVRO, PROTOBUF, RegisteredSchema

EVENTS, PAGE, ARROW_ROWS, POLL = 200_000, 50, 4_096, 2_000
TS = 1_700_000_000_000
CONFIG = StreamConfig(partitions=1, categorical_features=("user",), numeric_features=("price",))
_OWN = ("id", "item", "vendor")
_TOP = ("session", "source")


def _avro_schema() -> dict[str, Any]:
    def record(name: str, *fields: tuple[str, Any]) -> dict[str, Any]:
        return {
            "type": "record",
            "name": name,
            "fields": [{"name": field, "type": kind} for field, kind in fields],
        }

    bag = record("Bag", ("user", ["null", "string"]), ("price", ["null", "double"]))
    shown = [("position", ["null", "int"])]
    part = record("Part", *((n, "string") for n in _OWN), *shown, ("features", ["null", bag]))
    return record(
        "Event",
        ("ts_ms", "long"),
        *((n, "string") for n in _TOP),
        *((n, ["null", "string"]) for n in _OWN),
        *shown,
        ("impressions", ["null", {"type": "array", "items": part}]),
        ("features", ["null", "Bag"]),
    )


def _proto_file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="e.proto", syntax="proto3", package="e")

    def message(name: str, *fields: tuple[str, int, str, bool]) -> None:
        made = file.message_type.add(name=name)
        for number, (field, kind, of, many) in enumerate(fields, 1):
            one = made.field.add(name=field, number=number, type=kind, label=3 if many else 1)
            if of:
                one.type_name = f".e.{of}"
            if not many and kind != 11:
                one.proto3_optional, one.oneof_index = True, len(made.oneof_decl)
                made.oneof_decl.add(name=f"_{field}")

    text, number, real, inner = 9, 3, 1, 11
    message("Bag", ("user", text, "", False), ("price", real, "", False))
    own = [(n, text, "", False) for n in _OWN] + [("position", number, "", False)]
    message("Part", *own, ("features", inner, "Bag", False))
    top = [("ts_ms", number, "", False), *((n, text, "", False) for n in _TOP)]
    message(
        "Event", *top, *own, ("features", inner, "Bag", False), ("impressions", inner, "Part", True)
    )
    return file


SCHEMA, FILE = _avro_schema(), _proto_file()
PARSED = fastavro.parse_schema(json.loads(json.dumps(SCHEMA)))
SCHEMAS = {
    1: RegisteredSchema(1, AVRO, json.dumps(SCHEMA)),
    2: RegisteredSchema(2, PROTOBUF, files=(FILE.SerializeToString(),)),
}


def _message() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(FILE)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("e.Event"))


MESSAGE = _message()


def impressions(events: int) -> Iterator[dict[str, Any]]:
    """So many, each with its own user and price."""
    for i in range(events):
        yield {
            "id": f"i-{i}",
            "item": f"lamp-{i % 997}",
            "vendor": f"v-{i % 50}",
            "position": i % 40,
            "features": {"user": f"u-{i % 9973}", "price": 29.9 + i % 100},
        }


def singles(events: int) -> list[dict[str, Any]]:
    """One impression a record."""
    top = {"ts_ms": TS, "session": "s-17", "source": "u-4"}
    return [top | one for one in impressions(events)]


def pages(events: int) -> list[dict[str, Any]]:
    """PAGE impressions a record."""
    top, shown = {"ts_ms": TS, "session": "s-17", "source": "u-4"}, list(impressions(events))
    return [top | {"impressions": shown[at : at + PAGE]} for at in range(0, events, PAGE)]


def as_avro(event: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, PARSED, event)
    return b"\0\0\0\0\x01" + out.getvalue()


def as_proto(event: dict[str, Any]) -> bytes:
    return b"\0\0\0\0\x02\x02\x04" + MESSAGE(**event).SerializeToString()


def in_envelope(event: dict[str, Any]) -> bytes:
    envelope = {"specversion": "1.0", "type": "shown", "source": "/shop", "id": "A-1"}
    return orjson.dumps(envelope | {"data": event})


def as_arrow(events: list[dict[str, Any]]) -> list[bytes]:
    values = []
    for at in range(0, len(events), ARROW_ROWS):
        table = pa.Table.from_pylist(events[at : at + ARROW_ROWS])
        bag = table.column("features").combine_chunks()
        table = table.drop(["features"])
        for name in ("user", "price"):
            table = table.append_column(f"f_{name}", bag.field(name))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        values.append(bytes(sink.getvalue()))
    return values


def decoded_us(values: list[bytes], events: int) -> float:
    """CPU microseconds an event, the best of three."""
    records = RecordColumns.of([Record(i, TS, b"s-17", value) for i, value in enumerate(values)])
    records = records.with_schemas(SCHEMAS)

    def run() -> None:
        left, rows = records, 0
        while len(left):
            together = left[: fitting(left[:POLL], CONFIG)]
            left = left[len(together) :]
            found, bad = decode_impressions(together, 0, np.full(len(together), TS), CONFIG)
            rows += len(found)
            assert not bad, bad[0]
        assert rows == events

    return _best_us(run, events)


def _best_us(run: Callable[[], object], events: int) -> float:
    taken = []
    for _ in range(3):
        began = time.process_time()
        run()
        taken.append(time.process_time() - began)
    return 1e6 * min(taken) / events


def _libraries() -> dict[str, Callable[[bytes], object]]:
    def avro(value: bytes) -> object:
        return fastavro.schemaless_reader(io.BytesIO(value[5:]), PARSED, None)

    return {"json": orjson.loads, "avro": avro, "protobuf": lambda v: MESSAGE.FromString(v[7:])}


def measure(events: int) -> dict[str, Any]:
    """By form, single and in page views."""
    found: dict[str, Any] = {}
    for shape, made in (("single", singles(events)), ("page", pages(events))):
        forms = {
            "json": [orjson.dumps(one) for one in made],
            "cloud_event": [in_envelope(one) for one in made],
            "avro": [as_avro(one) for one in made],
            "protobuf": [as_proto(one) for one in made],
        }
        if shape == "single":
            forms["arrow"] = as_arrow(made)
        costs = {name: decoded_us(values, events) for name, values in forms.items()}
        for name, values in forms.items():
            said = {"us": round(costs[name], 2), "to_json": round(costs[name] / costs["json"], 2)}
            if (library := _libraries().get(name)) is not None:
                said["library_us"] = round(
                    _best_us(lambda v=values, f=library: [f(one) for one in v], events), 2
                )
            said["bytes"] = round(sum(map(len, values)) / events, 1)
            found[f"{shape}_{name}"] = said
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    found = measure(options.events)
    for name, said in found.items():
        print(f"{name:20} {said}")
    if options.json:
        print(json.dumps(found | {"machine": machine()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
