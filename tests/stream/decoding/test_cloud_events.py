"""CloudEvents: the event in `data` is read as one that stands alone."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stream.config import StreamConfig
from stream.decoding import cloud_events
from stream.decoding.decode import decode_activity, decode_clicks, decode_impressions
from stream.record import Record

CONFIG = StreamConfig(partitions=1, categorical_features=("user",))
TS = 1_700_000_000_000
ENVELOPE = {"specversion": "1.0", "type": "shop.shown", "source": "/shop", "id": "A-1",
            "time": "2023-11-14T22:13:20Z", "datacontenttype": "application/json"}  # fmt: skip


def impression(**changed: Any) -> dict[str, Any]:
    fields = {"id": "i1", "ts_ms": TS, "session": "s", "source": "u", "vendor": "v", "item": "x"}
    return fields | changed


def decode(*values: Any, headers: tuple[tuple[str, bytes], ...] = ()) -> Any:
    records = [
        Record(i, TS, b"s", v if isinstance(v, bytes) else json.dumps(v).encode(), headers)
        for i, v in enumerate(values)
    ]
    return decode_impressions(records, 0, np.full(len(records), TS), CONFIG)


def test_structured_mode_gives_the_event_in_data():
    """The envelope's own `id` and `source` are none of the event's."""
    page = {
        "ts_ms": TS,
        "session": "s",
        "source": "u",
        "impressions": [
            {"id": "b", "item": "y", "vendor": "v"},
            {"id": "c", "item": "z", "vendor": "v"},
        ],
    }
    rows, bad = decode(
        impression(id="plain"),
        {**ENVELOPE, "data": impression(id="a", features={"user": "ann"})},
        {"data": page, **ENVELOPE},
        [{**ENVELOPE, "data": impression(id="d")}, {**ENVELOPE, "data": impression(id="e")}],
        {**ENVELOPE, "data": [impression(id="f")]},
    )  # fmt: skip
    assert not bad
    assert rows.table["id"].to_pylist() == ["plain", "a", "b", "c", "d", "e", "f"]
    assert set(rows.table["source"].to_pylist()) == {"u"}
    assert rows.table["f_user"].to_pylist()[1] == "ann"
    assert rows.position.tolist() == [0, 1 << 20, 2 << 20, (2 << 20) + 1, 3 << 20,
                                      (3 << 20) + 1, 4 << 20]  # fmt: skip


def test_binary_mode_is_the_event_itself():
    headers = (("ce_specversion", b"1.0"), ("ce_type", b"shown"), ("ce_id", b"A-1"),
               ("ce_source", b"/shop"), ("content-type", b"application/json"))  # fmt: skip
    rows, bad = decode(impression(), headers=headers)
    assert (len(rows), bad) == (1, [])


def test_clicks_and_counting_take_the_envelope_off():
    record = Record(0, TS, b"s", json.dumps({**ENVELOPE, "data": impression()}).encode())
    rows, bad = decode_clicks([record], 0, np.full(1, TS), CONFIG)
    assert (len(rows), bad) == (1, [])
    counted = decode_activity([record], 0, np.full(1, TS), False, CONFIG)
    assert counted.source.to_pylist() == ["u"]


@pytest.mark.parametrize(
    ("value", "field", "says"),
    [
        (ENVELOPE, "data", "is missing; send the event in it"),
        ({**ENVELOPE, "data": None}, "data", "is missing"),
        ({**ENVELOPE, "data_base64": "e30="}, "data", "data_base64 is given"),
        ({**ENVELOPE, "data": "text"}, "value", "holds the string 'text'"),
        ({**ENVELOPE, "data": impression(id=7)}, "id", "is the number 7; send it as a string"),
        ({**ENVELOPE, "data": {}}, "id", "is missing"),
        ({**ENVELOPE, "specversion": "0.3", "data": impression()}, "specversion", "'0.3'"),
        ({**ENVELOPE, "specversion": 1, "data": impression()}, "specversion", "the number 1"),
        ([{**ENVELOPE, "data": impression()}, ENVELOPE], "data", "is missing"),
        ({**ENVELOPE, "data": impression(), "data_base64": "e30="}, "data_base64", "beside data"),
        (b'{"specversion":"1.0","data":{},"data":{}}', "data", "is given twice in one object"),
        (b'{"specversion":"1.0","data":{},"data":null}', "data", "is given twice in one object"),
        (b'{"data":{},"specversion":"1.0","specversion":"1.0"}', "specversion", "is given twice"),
        (
            b'[{"specversion":"1.0","data":{}},{"data":{},"data":{},"specversion":"1.0"}]',
            "data",
            "is given twice in one object",
        ),
        (b'{"specversion":"1.0","data":{},"d\\u0061ta":{}}', "value", "written with an escape"),
        (b'{"specversion":"1.0","data":{"id":"i"}', "value", "is not JSON"),
        (b'{"specversion":"1.0","data":' + b"[" * 40 + b"]" * 40 + b"}", "value", "nested"),
    ],
)
def test_a_wrong_one_is_named_with_its_whole_bytes(value: Any, field: str, says: str):
    rows, bad = decode(value, impression(id="good"))
    assert rows.table["id"].to_pylist() == ["good"]
    assert bad[0].field == field
    assert says in bad[0].reason
    assert bad[0].record.value == (
        value if isinstance(value, bytes) else json.dumps(value).encode()
    )


def test_an_event_that_only_mentions_the_word_is_no_envelope():
    rows, bad = decode(
        impression(features={"user": '"specversion"'}), impression(features={"specversion": "1"}),
        {**impression(), "data": "what nobody reads"},
    )  # fmt: skip
    assert not bad
    assert len(rows) == 3


def test_only_what_is_read_of_an_envelope_may_not_stand_there_twice():
    """As in an event: of what nobody declared nothing is said."""
    inner = json.dumps(impression(data=1)).encode().replace(b"{", b'{"data":2,', 1)
    rows, bad = decode(
        b'{"specversion":"1.0","time":1,"time":2,"data":' + inner + b"}",
        b'{"\\u0064ata":"e","data":1,"data":2,' + inner[1:],
        b"[" + inner + b',{"specversion":"1.0","data":' + inner + b"}]",
    )  # fmt: skip
    assert reasons(bad) == []
    assert rows.table["id"].to_pylist() == ["i1", "i1", "i1", "i1"]


def reasons(bad: Any) -> list[tuple[str, str]]:
    return [(one.field, one.reason) for one in bad]


@pytest.mark.parametrize("one", [b"{}", b'{"a":{}}'])
def test_so_many_objects_that_none_is_an_event_are_counted_and_not_looked_at(
    one: bytes, monkeypatch: pytest.MonkeyPatch
):
    """1.4 million empty objects took 0.21 s before they were refused."""
    looked_at: list[bytes] = []
    monkeypatch.setattr(cloud_events, "_event_of", looked_at.append)
    value = b"[" + b",".join([b'{"specversion":"1.0","data":{}}', *[one] * 400_000]) + b"]"
    config = replace(CONFIG, record_bytes_max=1 << 24)
    rows, bad = decode_impressions([Record(0, TS, b"s", value)], 0, np.full(1, TS), config)
    (reason,) = [one.reason for one in bad]
    assert "objects; send at most" in reason
    assert (len(rows), looked_at) == (0, [])
