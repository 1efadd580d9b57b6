"""What stands in a catalogue is the same bits in training and in serving, for every kind of feature
that may stand in one (A3, A5)."""

import json
import random
import re
from dataclasses import replace

import numpy as np
import pytest
import skew
from catalogue_rows import beat

from checkpointer.serving.request import parse
from everspun import loads
from labeler.catalogues import CatalogueBegin, JoinedCatalogues
from learners.models import make_model
from stream import Record
from stream.decoding import decode_impressions
from stream.decoding.catalogues import CatalogueColumns, NewestRows, WrongRow
from stream.internal_topics import decode_examples, encode_examples, example_batch
from stream.log.rows import MemoryStorage, StoredRows

ITEMS, ROWS = 12, 60


def declaration(rng):
    """As `skew` draws one, with all that may stand in a catalogue there; beside them, what an event
    sends."""
    text = skew.declaration(rng, catalogues=False)
    while 'kind = "mlp"' in text:
        text = skew.declaration(rng, catalogues=False)
    parts = re.split(r"(?=^\[)", text, flags=re.MULTILINE)
    sent = {f"[features.{one}]" for one in re.findall(r'^(?:by|of) = "(\w+)"', text, re.MULTILINE)}
    moved = [
        part.rstrip() + '\ncatalogue = "items"\n\n'
        if part.startswith("[features.")
        and not re.search(r"^(by|of) =", part, re.MULTILINE)
        and part.split("\n")[0] not in sent
        else part
        for part in parts
    ]
    return "".join(moved).replace(
        "partitions = 1", "partitions = 1\ncatalogue_row_bytes_max = 9999"
    )


def rows_of(config, rng):
    """Records of a catalogue: for most items one row, for some none, or none that can be read."""
    out = [beat(0, skew.TS_MS - 1_000)]
    for item in range(ITEMS):
        if item % 5 == 4:
            continue
        bag, odd = {}, rng.random() < 0.2
        for column in config.stream.catalogue_columns:
            if rng.random() < 0.8:
                bag[column.name] = skew._value(column, bag, rng, odd)
        raw = json.dumps(bag).encode()
        out.append(Record(len(out), skew.TS_MS - 500, f"i{item}".encode(), raw))
    return [*out, beat(len(out), skew.TS_MS - 400), beat(len(out) + 1, skew.TS_MS + 1)]


def events_of(config, rng):
    found = [skew.event(config, rng, n) for n in range(ROWS)]
    for one in found:
        one["item"] = f"i{rng.randrange(ITEMS)}"
    return found


def room():
    return StoredRows(MemoryStorage(), 1 << 30)


def learned(config, events, rows):
    """The rows of `examples`, joined by the labeler's code; events that cannot be read are left."""
    stream = config.stream
    records = [Record(i, skew.TS_MS, b"s", json.dumps(e).encode()) for i, e in enumerate(events)]
    arrived = np.full(len(records), skew.TS_MS)
    impressions, bad = decode_impressions(records, 0, arrived, stream)
    joined = JoinedCatalogues(
        stream, lambda name: StoredRows(MemoryStorage(), 1 << 30), {"items": CatalogueBegin(0)}
    )
    for at in range(0, len(rows), 5):
        joined.read("items", rows[at : at + 5])
    assert not joined.lacks(skew.TS_MS)
    if len(events[0]["features"]) % 2:  # some of later rows, some of those that are the state
        joined.need(0, skew.TS_MS)
        joined.settle()
    impressions = joined.joined(impressions)
    n = len(impressions)
    batch = example_batch(impressions, np.zeros(n, np.int8), np.full(n, -1), np.ones(n, np.float32))
    wrong = {one.record.offset for one in bad}
    return decode_examples(encode_examples(batch)), [
        i for i in range(len(events)) if i not in wrong
    ]


def newest(config, rows):
    limits = (config.stream.record_bytes_max, config.stream.catalogue_row_bytes_max)
    held = NewestRows(
        CatalogueColumns(config.stream.declared, *limits),
        {"items": StoredRows(MemoryStorage(), 1 << 30)},
    )
    held.read("items", rows)
    return held


def asked(model, events):
    """A request that says of an event what an event says: ids, and no attribute."""
    rows = [{k: v for k, v in one.items() if k not in ("id", "session")} for one in events]
    body = json.dumps({"rows": rows}).encode()
    return parse(body, model.encoder.features, len(rows), model.encoder.reads_time).columns


@pytest.mark.parametrize("seed", range(12))
def test_training_and_serving_are_given_the_same_bits(seed):
    rng = random.Random(f"catalogue {seed}")
    config = loads(declaration(rng))
    model = make_model(config.model)
    rows, events = rows_of(config, rng), events_of(config, rng)
    trained, good = learned(config, events, rows)
    held = newest(config, rows)
    columns = held.filled(asked(model, [events[i] for i in good]))
    mine, theirs = model.encoder.encode(trained), model.encoder.encode(columns, serving=True)
    assert skew.bits(mine) == skew.bits(theirs)
    assert mine.clipped == theirs.clipped
    assert len(good) > 20
    alone = held.filled(asked(model, [events[good[0]]]))
    assert skew.bits(model.encoder.encode(alone, serving=True)) == skew.bits(
        mine.take(np.array([0]))
    )


def test_wrong_rows_are_refused_by_what_the_labeler_refuses():
    """Also of attributes that this model does not read: else the two would differ."""
    config = loads(
        '[features.a]\ncatalogue = "items"\n[features.b]\nkind = "numeric"\ncatalogue = "items"\n'
        '[model]\nkind = "lr"\ncategorical = ["a"]\n'
    )
    rows = [Record(0, 1, b"x", b'{"a": "1", "b": "no number"}')]
    held = newest(config, rows)
    assert held.wrong == 1
    assert held.held["items"].get([b"x"]) == [b""]
    with pytest.raises(WrongRow):
        held.columns.readers["items"].read(rows[0])


def test_a_request_that_says_an_attribute_keeps_it():
    config = loads(
        '[features.tags]\nkind = "list"\nweighted = true\ncatalogue = "items"\n'
        '[model]\nkind = "lr"\ncategorical = ["tags", "item"]\n'
    )
    model = make_model(config.model)
    held = newest(config, [Record(0, 5_000, b"x", b'{"tags": ["a"], "tags_weights": [2]}')])
    said = [{"item": "x"}, {"item": "x", "features": {"tags": ["b"]}}, {"item": "y"}]
    columns = held.filled(
        parse(json.dumps({"rows": said}).encode(), model.encoder.features, 10).columns
    )
    assert columns.column("f_tags").to_pylist() == [["a"], ["b"], []]
    assert columns.column("f_tags_weights").to_pylist() == [[2.0], [], []]
    assert held.age_s(7_000) == 2.0
    assert replace(config.stream, declared={}).catalogues == {}
