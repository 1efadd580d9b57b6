"""Records of a catalogue: rows, what is wrong with others, and how much of them is held (A1)."""

import json

import pytest

from stream import Record
from stream.columns import Feature
from stream.decoding.catalogues import (
    CatalogueColumns,
    WrongRow,
)

DECLARED = {
    "title": Feature(kind="text", catalogue="items", alias="name"),
    "genres": Feature(kind="list", weighted=True, catalogue="items"),
    "year": Feature(kind="numeric", catalogue="items"),
    "shelf": Feature(type="integer", catalogue="items"),
    "taste": Feature(kind="vector", width=2, catalogue="items"),
    "sent": Feature(),
}
READER = CatalogueColumns(DECLARED, 10_000, 500).readers["items"]


def record(value, key=b"i1", **more):
    raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    return Record(7, 1, key, raw, **more)


def said(value):
    row = READER.read(record(value))
    return READER.attributes(row.value)


def test_a_row_says_its_declared_attributes_in_their_order():
    row = {"title": "Toy Story", "genres": ["a", "b"], "genres_weights": [1, 2], "other": {"x": 1}}
    assert said(row) == ["Toy Story", ["a", "b"], [1, 2], None, None, None]
    assert said({"name": "by its former name", "year": 1995, "shelf": 3, "taste": [0.1, 2]}) == [
        "by its former name", None, None, 1995, 3, [0.1, 2]
    ]  # fmt: skip
    assert said({}) == [None] * 6
    twice = b'{"x": {"year": 1, "year": 2}, "x": ":", "year": 3, "other": [{}]}'
    assert said(twice) == [None, None, None, 3, None, None], "of what nobody declared"


def test_a_record_without_a_value_deletes_and_a_heartbeat_says_nothing():
    assert READER.read(record(None)) == (b"i1", b"")
    beat = (("control", b"heartbeat"), ("clock_ms", b"1"))
    assert READER.read(record(None, b"\0heartbeat", headers=beat)) is None
    assert READER.attributes(b"") == [None] * 6


@pytest.mark.parametrize(
    ("one", "name", "words"),
    [
        (record(b"{"), "value", "not JSON"),
        (record(b'{"title": "\\ud83d"}'), "value", "not JSON"),
        (record(b'{"year": 1, "genres": ["a"], "year": 2}'), "year", "is given twice"),
        (record(b'{"name": "a", "n\\u0061me": "b"}'), "name", "is given twice"),
        (record(b'{"x": ' + b"[" * 1_000 + b"]" * 1_000 + b', "x": 1}'), "value", "deep"),
        (record([1]), "value", "an object of attributes"),
        (record({"title": ["x"]}), "title", "declared text"),
        (record({"year": "1995"}), "year", "send a number"),
        (record({"year": 1e39}), "year", "32-bit"),
        (record({"shelf": 1.5}), "shelf", "integer"),
        (record({"taste": [1]}), "taste", "width 2"),
        (record({"genres": ["a"], "genres_weights": [1, 2]}), "genres_weights", "one for each"),
        (record({"genres": [None]}), "genres[0]", "null"),
        (record({"title": "x" * 490}), "value", "catalogue_row_bytes_max"),
        (record(b" " * 10_001), "value", "record_bytes_max"),
        (record({}, b""), "key", "missing"),
        (record({}, None), "key", "missing"),
        (record({}, b"\xff"), "key", "UTF-8"),
        (record({}, b"x" * 1_025), "key", "1024"),
        (Record(7, 1, b"k", b"", batch_fault=3), "record", "batch"),
    ],
)
def test_what_is_no_row_is_said_by_field_and_fix(one, name, words):
    with pytest.raises(WrongRow, match=words) as caught:
        READER.read(one)
    assert caught.value.name == name
