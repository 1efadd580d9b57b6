import json
import math

import pyarrow as pa
import pytest

from checkpointer.serving.arrow_request import read_table
from checkpointer.serving.request import BadRequest, of_rows, parse
from stream.columns import CATEGORICAL, NUMERIC, FeatureColumn

FEATURES = (FeatureColumn("colour", CATEGORICAL), FeatureColumn("price", NUMERIC))


def ask(body, rows_max=100):
    return parse(
        json.dumps(body).encode() if not isinstance(body, bytes) else body, FEATURES, rows_max
    )


def test_rows_and_columns_say_the_same():
    rows = ask(
        {
            "rows": [
                {
                    "source": "s",
                    "vendor": "v",
                    "item": "i",
                    "features": {"colour": "red", "price": 9},
                },
                {"item": "j", "features": {"price": None}},
                {"source": None, "features": None, "position": 3, "id": "x"},
            ]
        }
    )
    columns = ask(
        {
            "columns": {
                "source": ["s", None, None],
                "vendor": ["v", None, None],
                "item": ["i", "j", None],
                "colour": ["red", None, None],
                "f_price": [9.0, None, None],
                "position": [1, 2, 3],
            }
        }
    )
    assert rows.columns.column_names == [
        "shown_at",
        "source",
        "vendor",
        "item",
        "f_colour",
        "f_price",
    ]
    for name in ("source", "vendor", "item", "f_colour"):
        assert rows.columns[name].to_pylist() == columns.columns[name].to_pylist()
    assert rows.columns["item"].to_pylist() == ["i", "j", ""]
    prices = rows.columns["f_price"].to_pylist()
    assert prices[0] == columns.columns["f_price"].to_pylist()[0] == 9.0
    assert all(map(math.isnan, prices[1:]))
    assert rows.columns["shown_at"].to_pylist() == [-1, -1, 3]
    assert columns.columns["shown_at"].to_pylist() == [1, 2, 3]
    assert rows.ignored == columns.ignored == ()


def test_a_table_without_rows_kills_nobody():
    """An offset of a list without a row behind is in nobody's validation, and whoever follows it
    aborts the process."""
    offset = pa.py_buffer((240).to_bytes(4, "little"))
    tags = pa.Array.from_buffers(
        pa.list_(pa.string()), 0, [None, offset], children=[pa.array([], pa.string())]
    )
    batch = pa.record_batch([tags, pa.array([], pa.string())], ["colour", "item"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    assert read_table(sink.getvalue().to_pybytes(), FEATURES, 10, 10**6).rows == 0


def test_features_no_model_knows_yet_are_ignored_and_named():
    assert ask({"rows": [{"features": {"size": "xl"}}]}).ignored == ("size",)
    assert ask({"columns": {"item": ["i"], "size": ["xl"]}}).ignored == ("size",)


def test_no_rows_are_an_answerable_request():
    assert ask({"rows": []}).columns.num_rows == 0
    assert of_rows([{}, {"item": "i"}], FEATURES).columns["item"].to_pylist() == ["", "i"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", ["body", "not JSON"]),
        (b"\xff", ["body", "not JSON"]),
        ([], ["body", "list", "'rows'"]),
        ({"rows": [], "columns": {}}, ["body", "columns"]),
        ({"row": []}, ["body", "['row']"]),
        ({"rows": {}}, ["rows", "{}", "list"]),
        ({"rows": [{}, 7]}, ["row 1", "7", "object"]),
        ({"rows": [{"features": [1]}]}, ["row 0", "features", "[1]"]),
        ({"rows": [{"itm": "x"}]}, ["itm", "unknown field", "item"]),
        ({"rows": [{}, {"item": 7}]}, ["row 1", "item = 7", 'send "7"']),
        ({"rows": [{"features": {"price": "12"}}]}, ["row 0", "price = '12'", "without quotes"]),
        ({"rows": [{"features": {"price": True}}]}, ["row 0", "price = True", "number"]),
        ({"rows": [{"features": {"colour": 1.5}}]}, ["row 0", "colour = 1.5", "string"]),
        ({"rows": [{"features": {"price": 1e300}}]}, ["row 0", "price", "finite"]),
        ({"rows": [{"features": {"price": 10**400}}]}, ["row 0", "price", "3.4e38"]),
        ({"rows": [{"item": "x" * 1025}]}, ["row 0", "item", "1024 bytes"]),
        (b'{"rows": [{"item": "\\ud800"}]}', ["row 0", "item", "surrogates"]),
        ({"rows": [{"position": 1.5}]}, ["row 0", "position = 1.5", "integer"]),
        ({"columns": {}}, ["columns", "{}"]),
        ({"columns": {"item": "i"}}, ["columns, item", "list"]),
        ({"columns": {"item": ["i"], "source": []}}, ["columns, source", "0 values", "item has 1"]),
        ({"rows": [{}] * 101}, ["101 rows", "at most 100"]),
    ],
)
def test_bad_requests_name_row_field_value_and_fix(body, words):
    with pytest.raises(BadRequest) as caught:
        ask(body)
    for word in words:
        assert word in str(caught.value)
