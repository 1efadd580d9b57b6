"""A feature that was renamed is read by both names, one that is retired by nobody
(docs/features.md)."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from checkpointer.serving.request import parse
from everspun import loads
from everspun.config import ConfigError
from learners.models import Encoder
from stream import Record
from stream.decoding import count_undeclared, decode_impressions
from stream.internal_topics import decode_examples, encode_examples, example_batch

TS_MS = 1_700_000_000_000
CONFIG = loads("""
[stream]
partitions = 1
[features.colour]
alias = "color"
[features.tags]
kind = "list"
alias = "labels"
[features.price]
kind = "numeric"
alias = "cost"
transform = "log1p"
[features.gone]
kind = "numeric"
retired = "2026-12-01"
[model]
categorical = ["item", "colour", "tags"]
numeric = ["price"]
""")
NEW = {"colour": "red", "tags": ["a", "b"], "price": 3.5}
OLD = {"color": "red", "labels": ["a", "b"], "cost": 3.5}
EVENT = {"id": "i", "ts_ms": TS_MS, "session": "s", "source": "u", "vendor": "v", "item": "x"}


def rows_of(value):
    records = [Record(0, TS_MS, b"s", value)]
    rows, bad = decode_impressions(records, 0, np.array([TS_MS]), CONFIG.stream)
    n = len(rows)
    batch = example_batch(rows, np.zeros(n, np.int8), np.full(n, -1), np.ones(n, np.float32))
    return decode_examples(encode_examples(batch)) if n else None, bad


def of_json(**features):
    return rows_of(json.dumps(EVENT | {"features": features}).encode())


def of_arrow(**features):
    table = pa.table({name: [one] for name, one in EVENT.items()}
                     | {f"f_{name}": [one] for name, one in features.items()})  # fmt: skip
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return rows_of(sink.getvalue().to_pybytes())


def bits(encoded):
    bags = [(b.keys.tobytes(), b.ends.tobytes()) for b in encoded.bags]
    return encoded.keys.tobytes(), encoded.numbers.tobytes(), bags


@pytest.mark.parametrize("made", [of_json, of_arrow])
def test_an_event_of_the_old_name_is_one_of_the_new(made):
    expected, bad = made(**NEW)
    assert not bad
    nothing = dict.fromkeys(NEW)
    for given in (OLD, nothing | OLD, NEW | {"color": "blue", "gone": 1.0}):
        rows, bad = made(**given)
        assert not bad
        assert encode_examples(rows) == encode_examples(expected)
    assert "f_gone" not in expected.schema.names


def test_a_request_and_an_older_record_are_read_by_it_too():
    encoder = Encoder(CONFIG.model)
    rows, _ = of_json(**NEW)
    mine = bits(encoder.encode(rows))
    row = {name: EVENT[name] for name in ("source", "vendor", "item")}
    columns = {name: [value] for name, value in (row | OLD).items()}
    for body in ({"rows": [row | {"features": OLD}]}, {"columns": columns}):
        asked = parse(json.dumps(body).encode(), encoder.features, 10)
        assert asked.ignored == ()
        assert bits(encoder.encode(asked.columns, serving=True)) == mine
    names = {f"f_{new}": f"f_{old}" for new, old in zip(NEW, OLD, strict=True)}
    older = rows.rename_columns([names.get(name, name) for name in rows.schema.names])
    found = encoder.encode(older)
    assert bits(found) == mine
    assert not found.filled


def test_what_is_wrong_is_said_by_the_name_that_was_sent():
    _, (bad,) = of_json(labels=[None])
    assert bad.field in ("features.labels[0]", "features.tags[0]")
    found = Counter()
    sent = OLD | {"gone": 1.0, "colur": "red"}
    value = json.dumps(EVENT | {"features": sent}).encode()
    count_undeclared(found, [Record(0, TS_MS, b"s", value)], CONFIG.stream)
    assert found == {"colur": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[features.a]\nalias = "item"', "alias = 'item': that is another feature's name"),
        ('[features.a]\nalias = "b"\n[features.b]', "alias = 'b': that is another feature's"),
        ('[features.a]\nalias = "b"\npersonal = true', "neither weighted nor personal"),
        (
            '[features.a]\nretired = "2026"\n[model]\ncategorical = ["a"]',
            "'a' is retired since 2026: take it out",
        ),
    ],
)
def test_a_declaration_that_cannot_be_is_named(text, said):
    with pytest.raises(ConfigError, match=said):
        loads(text)
