"""Records of a catalogue: rows, what is wrong with others, and how much of them is held (A1)."""

import json

import pytest

from stream import Record
from stream.columns import Feature
from stream.decoding.catalogues import (
    CatalogueColumns,
    CatalogueFailed,
    DiskRows,
    HeldRows,
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
    assert READER.read(record(None)) == (b"i1", None)
    beat = (("control", b"heartbeat"), ("clock_ms", b"1"))
    assert READER.read(record(None, b"\0heartbeat", headers=beat)) is None
    assert READER.attributes(None) == [None] * 6


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


def test_rows_beyond_the_limit_of_memory_lie_on_disk(tmp_path):
    held = HeldRows("items", 1_000, DiskRows(tmp_path / "rows"))
    keys = [f"k{i}".encode() for i in range(20)]
    for key in keys:
        held.put(key, key * 2)
    assert len(held) == 20
    assert held.on_disk == 15
    assert held.bytes <= 1_000
    assert [held.get(key) for key in keys] == [key * 2 for key in keys]
    for key in keys[::2]:
        held.put(key, None)
        held.put(b"unknown", None)
    for key in keys[1::2]:
        held.put(key, b"new")
    assert [held.get(key) for key in keys] == [None, b"new"] * 10
    assert len(held) == 10
    held.close()
    again = HeldRows("items", 0, DiskRows(tmp_path / "rows"))
    again.put(b"k", b"v")
    assert again.get(b"k1") is None  # each start begins with none
    again.close()


def test_without_a_disk_the_limit_is_said():
    held = HeldRows("items", 400)
    held.put(b"a", b"1")
    held.put(b"b", b"1")
    with pytest.raises(CatalogueFailed, match=r"items: 2 rows take .* catalogue_bytes_max"):
        held.put(b"c", b"1")
    held.put(b"a", b"2")  # what is there may change


def test_a_disk_that_fails_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    held = HeldRows("items", 0, DiskRows(tmp_path / "file" / "rows"))
    with pytest.raises(CatalogueFailed, match="free its disk"):
        held.put(b"a", b"1")
