"""One odd record costs itself: it is quarantined with field and fix, the good ones around it come
out, and its time and memory are bounded."""

import json
import struct
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stream.decoding.decode
from stream.columns import FIELD_CHARS_MAX, REASON_CHARS_MAX, Feature
from stream.config import StreamConfig
from stream.decoding.decode import decode_activity, decode_clicks, decode_impressions
from stream.decoding.schema import impression_shape
from stream.record import CONTROL, HEARTBEAT, Record

TS = 1_700_000_000_000
CONFIG = StreamConfig(partitions=1, categorical_features=("user",), numeric_features=("price",))
GOOD = {"id": "i", "ts_ms": TS, "session": "s", "source": "u", "vendor": "v", "item": "x"}
#: Thread CPU that a record of 4 MiB may take, generously: 300 ms are meant, on a machine of its
#: own.
CPU_S_MAX = 3.0


def text(**changed: object) -> bytes:
    return json.dumps({**GOOD, **changed}).encode()


def arrow(columns: dict[str, object], compression: str | None = None) -> bytes:
    table, sink = pa.table(columns), pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def columns(rows: int = 1, **changed: object) -> dict[str, object]:
    made: dict[str, object] = {name: [value] * rows for name, value in GOOD.items()}
    return {k: v for k, v in {**made, **changed}.items() if v is not None}


def judged(
    value: bytes | None, config: StreamConfig = CONFIG, **parts: object
) -> tuple[str, str] | None:
    """What is said of this value, None if it is good. The good ones around it always come out."""
    around = [Record(i, TS, b"s", text(id=f"good{i}")) for i in (0, 1, 3)]
    odd = Record(2, TS, b"s", value)._replace(**parts)
    records = [around[0], around[1], odd, around[2]]
    rows, bad = decode_impressions(records, 0, np.full(4, TS), config)
    assert [i for i in rows.table["id"].to_pylist() if i.startswith("good")] == [
        "good0",
        "good1",
        "good3",
    ]
    assert {b.record.offset for b in bad} <= {2}
    for b in bad:
        assert len(b.field.encode()) <= 4 * FIELD_CHARS_MAX
        assert len(b.reason.encode()) <= 4 * REASON_CHARS_MAX
    counted = decode_activity(records, 0, np.full(4, TS), False, config)
    assert set(counted.unknown.tolist()) <= {2}
    decode_clicks(records, 0, np.full(4, TS), config)
    return (bad[0].field, bad[0].reason) if bad else None


HALF = '"\\ud83d"'
ODD = [
    (text().replace(b'"s"', HALF.encode()), "session", "half of a character"),
    (text().replace(b'"u"', HALF.encode()), "source", "half of a character"),
    (
        text(features={"user": 1}).replace(b"1}", HALF.encode() + b"}"),
        "features.user",
        "half of a character",
    ),
    (text(junk=[1]).replace(b"[1]", b"[" + HALF.encode() + b"]"), "value", "half of a character"),
    (text(junk=1).replace(b": 1}", b": " + HALF.encode() + b"}"), "junk", "half of a character"),
    (b'{"\\ud800":1,' + text()[1:], "\\ud800", "half of a character"),
    (text().replace(str(TS).encode(), b"1" * 5000), "ts_ms", "5000 digits"),
    (text(position=7).replace(b"7}", b"7" * 5000 + b"}"), "position", "5000 digits"),
    (b'{"junk":' + b"9" * 5000 + b"," + text(id=17)[1:], "id", "the number 17"),
    (text(position=7).replace(b"7}", b"7" * 5000 + b"]"), "value", "not JSON"),
    (text(prediction=1).replace(b": 1}", b": 1e999}"), "prediction", "inf"),
    (text(junk=1).replace(b": 1}", b": 1e999}"), "value", "too big"),
    (text(junk=1).replace(b": 1}", b": " + b"[" * 900 + b"]" * 900 + b"}"), "value", "901 deep"),
    (b"\xef\xbb\xbf" + text(), "value", "byte order mark"),
    (text().decode().encode("utf-16"), "value", "UTF-16"),
    (text().decode().encode("utf-16-le"), "value", "UTF-16"),
    (b"\x00\x00\x00\x00\x07" + text(), "value", "schema registry"),
    (text(item="x" * 3_000_000), "item", "3000000 bytes"),
    (text(item={"a": "x" * 3_000_000}), "item", "from string to object"),
    (text(id=["x"] * 40_000), "id", "a list of 40000"),
    (arrow(columns()).replace(b"session", b"\xff\xfe\xfdsess"), "value", "not UTF-8"),
    (arrow(columns()) + arrow(columns()), "value", "behind the end"),
    (arrow(columns(id=pa.array([b"i"], pa.binary()))), "id", "cast it to string"),
    (arrow(columns(ts_ms=pa.array([TS], pa.timestamp("ms")))), "ts_ms", "cast it to int64"),
    (arrow(columns(ts_ms=pa.array([2**63 + 5], pa.uint64()))), "ts_ms", "uint64"),
    (arrow(columns(id=None)), "id", "missing"),
    (arrow(columns(f_price=["5"])), "f_price", "cast it to double"),
    (arrow(columns(id=[None], junk=pa.array([2**62], pa.timestamp("s")))), "id", "missing"),
    (
        arrow(columns(id=[None], junk=pa.array([1], pa.timestamp("s", tz="Mars/Olympus")))),
        "id",
        "missing",
    ),
]


@pytest.mark.parametrize(("value", "field", "says"), ODD)
def test_what_is_odd_is_named_and_harms_no_other(value: bytes, field: str, says: str):
    said = judged(value)
    assert said is not None
    assert said[0] == field
    assert says in said[1]


FINE = [
    text(junk=2**53 + 1, features={"price": 2**53 + 1}),
    text(features={"price": float("nan")}, prediction=float("nan")),
    b'{"junk":1,"junk":2,' + text()[1:],
    b'{"junk":' + b"9" * 5000 + b"," + text()[1:],
    *(
        arrow(columns(source=pa.array(["u"]).cast(kind)))
        for kind in (pa.large_string(), pa.string_view())
    ),
    arrow(columns(2, source=pa.array(["u", "u"]).dictionary_encode())),
    arrow(
        columns(
            2,
            item=pa.DictionaryArray.from_arrays(
                pa.array([0, 0]), pa.array(["x"], pa.string_view())
            ),
        )
    ),
    arrow(columns(junk=pa.array([2**62], pa.timestamp("s")))),
    arrow(columns(f_price=pa.array([2**53 + 1], pa.int64()), ts_ms=pa.array([TS], pa.uint64()))),
    *(arrow(columns(100), compression) for compression in ("zstd", "lz4")),
]


@pytest.mark.parametrize("value", FINE)
def test_what_can_be_read_is_read(value: bytes):
    assert judged(value) is None


DECLARED = {
    "word": Feature(),
    "number": Feature(type="integer"),
    "tags": Feature("list", weighted=True),
    "seen": Feature("list", type="integer"),
    "title": Feature("text"),
    "made": Feature("time"),
    "picture": Feature("vector", width=2),
    "photo": Feature("image"),
}


@pytest.mark.parametrize("name", DECLARED)
def test_a_declared_feature_that_no_row_has_may_be_a_column_of_nulls(name: str):
    config = StreamConfig(partitions=1, declared=DECLARED)
    given = arrow(columns(2, **{f"f_{name}": pa.nulls(2)}))
    assert judged(given, config) is None
    without, _ = decode_impressions([Record(0, TS, b"s", text())], 0, np.array([TS]), config)
    rows, _ = decode_impressions([Record(0, TS, b"s", given)], 0, np.array([TS]), config)
    assert rows.table[f"f_{name}"].to_pylist() == without.table[f"f_{name}"].to_pylist() * 2


def test_headers_do_not_hide_an_event():
    beat = ((CONTROL, HEARTBEAT.encode()), ("clock_ms", b"1"))
    assert judged(text(id=17), headers=beat) is not None
    rows, bad = decode_impressions([Record(0, TS, b"s", text(), beat)], 0, np.array([TS]), CONFIG)
    assert (len(rows), bad) == (1, [])
    for junk in (b"abc", b"-1", b"9" * 5000, b""):
        assert (
            Record(0, TS, None, None, ((CONTROL, HEARTBEAT.encode()), ("barrier", junk))).barrier
            is None
        )
    assert judged(None, headers=(("h", b""),) * 100_000) == (
        "value",
        stream.decoding.decode._EMPTY_VALUE[1],
    )


# --- bounds
# --------------------------------------------------------------------------------------------------


def claiming(size: int) -> bytes:
    """A compressed stream of which one buffer says that it unpacks to so much."""
    value = bytearray(arrow(columns(100), "zstd"))
    at = value.rindex(
        struct.pack("<I", 0xFD2FB528)
    )  # a zstd frame; its Arrow length stands before it
    value[at - 8 : at] = struct.pack("<q", size)
    return bytes(value)


def dictionary_bomb(rows: int) -> bytes:
    large = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(rows, np.int8)), pa.array(["x" * (1 << 20)])
    )
    same = {n: pa.array([GOOD[n]] * rows).dictionary_encode() for n in GOOD if n != "ts_ms"}
    return arrow({**same, "ts_ms": [TS] * rows, "item": large}, "zstd")


def view_bomb(rows: int) -> bytes:
    one = pa.array(["x" * 1_000_000], pa.string_view())
    views, data = one.buffers()[1].to_pybytes(), one.buffers()[2]
    many = pa.Array.from_buffers(pa.string_view(), rows, [None, pa.py_buffer(views * rows), data])
    return arrow(columns(rows, item=many))


def zeros(length: int) -> bytes:
    return arrow(
        columns(junk=pa.array([np.zeros(length, np.uint8).tobytes()], pa.binary())), "zstd"
    )


def many_batches(count: int) -> bytes:
    sink, table = pa.BufferOutputStream(), pa.table(columns())
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for _ in range(count):
            writer.write_table(table)
    return bytes(sink.getvalue())


def shared_strings(impressions: int) -> bytes:
    part = [{"id": str(i), "item": "x"} for i in range(impressions)]
    page = {
        "ts_ms": TS,
        "session": "s",
        "source": "u" * 1024,
        "vendor": "v" * 1024,
        "model_version": "m" * 1024,
    }
    return json.dumps(
        {**page, "features": {"user": "a" * 1024}, "impressions": part}, separators=(",", ":")
    ).encode()


LARGE = [
    ("claims 2^40 bytes", lambda: claiming(2**40), "decoded_bytes_max"),
    ("claims 2^62 bytes", lambda: claiming(2**62), "decoded_bytes_max"),
    ("zeros", lambda: zeros(1 << 28), "decoded_bytes_max"),
    ("dictionary", lambda: dictionary_bomb(1 << 18), "decoded_bytes_max"),
    ("views", lambda: view_bomb(50_000), "decoded_bytes_max"),
    ("rows", lambda: arrow({"id": pa.nulls((1 << 20) + 1)}), "rows"),
    ("batches", lambda: many_batches(300), "256 batches"),
    ("page view", lambda: shared_strings(100_000), "decoded_bytes_max"),
    ("objects", lambda: b"[" + b"{}," * 1_398_000 + b"{}]", "send at most 209700 in"),
    ("value", lambda: text(junk="x" * (5 << 20)), "record_bytes_max"),
]


@pytest.mark.long
@pytest.mark.parametrize(
    ("make", "says"), [pytest.param(make, says, id=name) for name, make, says in LARGE]
)
def test_what_would_take_much_memory_is_refused_before_it_takes_it(make, says: str):
    value = make()
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    said = judged(value)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert said is not None
    assert says in said[1]
    assert peak < 2 * CONFIG.decoded_bytes_max + 4 * len(value)
    assert pa.default_memory_pool().max_memory() < 1 << 30
    assert pa.total_allocated_bytes() <= before + (1 << 20)


def test_a_page_view_of_17_mb_is_a_good_record():
    assert judged(shared_strings(4_096)) is None


def page(tail: dict[str, object]) -> bytes:
    part = {"id": "1", "item": "i", "vendor": "v"}
    parts = [part] * 100_000
    return json.dumps(
        {"ts_ms": TS, "session": "s", "source": "u", "impressions": [*parts, {**part, **tail}]}
    ).encode()


SLOW = {
    "many fields": lambda: b'{"id":17,' + b",".join(b'"%x":0' % i for i in range(400_000)) + b"}",
    "many digits": lambda: b'{"id":17,"a":' + b"9" * 4_000_000 + b"}",
    "a list of integers": lambda: b'{"id":"i","ts_ms":[' + b"9," * (1 << 19) + b"9]}",
    "many long integers": lambda: b'{"id":17,"a":[' + b",".join([b"9" * 5000] * 800) + b"]}",
    "many empty lists": lambda: b'{"id":17,"a":[' + b",".join([b"[]"] * 1_300_000) + b"]}",
    "many empty objects": lambda: b"[" + b"{}," * 1_000_000 + b"{}]",
    "many empty impressions": lambda: b'{"ts_ms":1,"impressions":[' + b"{}," * 1_000_000 + b"{}]}",
    "last of many": lambda: page({"id": 5}),
    "last of many, missing": lambda: page({"id": None}),
    "last of many, half": lambda: page({"item": "\ud800"}),
    "many keys twice": lambda: b'{"id":"a","id":"b",' + b",".join([b'"zz":0'] * 500_000) + b"}",
    "quotes": lambda: b'{"id":"' + b'\\"' * 2_000_000,
    "open brackets": lambda: b"[" * 4_000_000,
    "half characters": lambda: b'{"zz":["' + b"\\ud800" * 600_000 + b'"]}',
    "arrow, last of many": lambda: arrow(columns(50_000, id=[*["i"] * 49_999, None])),
    "arrow, many columns": lambda: arrow(
        columns(id=[None]) | {f"c{i}": [0] for i in range(35_000)}
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", SLOW)
def test_no_bad_record_takes_much_time(name: str):
    value = SLOW[name]()
    assert len(value) <= CONFIG.record_bytes_max
    record = [Record(0, TS, b"s", value)]
    decode_impressions([Record(0, TS, b"s", b"{}")], 0, np.array([TS]), CONFIG)  # compiles
    began = time.thread_time()
    rows, bad = decode_impressions(record, 0, np.array([TS]), CONFIG)
    assert time.thread_time() - began < CPU_S_MAX
    assert (len(rows), len(bad)) == (0, 1)


def cpu_s(value: bytes) -> float:
    """Of the thread, the least of three."""
    record, arrived = [Record(0, TS, b"s", value)], np.array([TS])
    taken = []
    for _ in range(3):
        began = time.thread_time()
        decode_impressions(record, 0, arrived, CONFIG)
        taken.append(time.thread_time() - began)
    return min(taken)


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "many fields",
        "many empty objects",
        "many empty impressions",
        "a list of integers",
        "arrow, many columns",
    ],
)
def test_a_bad_record_costs_about_as_much_as_a_good_one_of_its_size(name: str):
    bad, event = SLOW[name](), json.dumps(GOOD).encode()
    good = b"[" + b",".join([event] * (len(bad) // len(event))) + b"]"
    assert judged(good) is None
    assert cpu_s(bad) <= 3 * cpu_s(good)


def test_many_batches_cost_a_record_little(monkeypatch: pytest.MonkeyPatch):
    """What is looked at by a call a batch and column costs more than all that a small one holds."""
    calls = []

    def counting(column):
        calls.append(column)
        return 0

    monkeypatch.setattr("stream.decoding.arrow_values._string_bytes", counting)
    assert judged(many_batches(250)) is None
    assert not calls
    seen = arrow(columns(2, source=pa.array(["u", "u"]).dictionary_encode()))
    assert judged(seen) is None
    assert calls


def test_rows_of_plain_columns_are_added_up_where_they_may_be_too_large():
    rows, shape = 1_000, impression_shape(CONFIG.features)
    given = columns(rows, item=["x" * 1024] * rows)
    taken = rows * (shape.row_bytes + 1024 + sum(len(GOOD[n]) for n in GOOD if n != "ts_ms") - 1)
    assert judged(arrow(given), replace(CONFIG, decoded_bytes_max=taken)) is None
    said = judged(arrow(given), replace(CONFIG, decoded_bytes_max=taken - 1))
    assert said is not None
    assert f"take {taken} bytes" in said[1]


def test_of_a_large_record_the_parser_says_which_field_is_wrong():
    field, why = judged(b'{"id":17,' + b",".join(b'"%x":0' % i for i in range(200_000)) + b"}")
    assert field == "id"
    assert "string" in why


@pytest.mark.long
def test_an_arrow_stream_that_is_cut_anywhere_is_bad_or_whole():
    """Behind its schema it would read as a stream of no rows, and those that it held were gone
    without a word."""
    whole = arrow(columns(2))
    for length in range(8, len(whole)):
        record = [Record(0, TS, b"s", whole[:length])]
        rows, bad = decode_impressions(record, 0, np.array([TS]), CONFIG)
        assert (len(rows), len(bad)) in ((2, 0), (0, 1)), length


# --- the guard
# --------------------------------------------------------------------------------------------------


def test_a_record_that_makes_the_decoder_raise_costs_itself(monkeypatch: pytest.MonkeyPatch):
    read = stream.decoding.decode.read_json

    def raising(records, indices, *rest):
        if any(b"unforeseen" in bytes(records.value(int(i))) for i in indices):
            raise OverflowError("date value out of range")
        return read(records, indices, *rest)

    monkeypatch.setattr(stream.decoding.decode, "read_json", raising)
    said = judged(text(item="unforeseen"))
    assert said is not None
    assert "OverflowError: date value out of range" in said[1]


def test_a_broken_decoder_is_no_record_s_fault(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object):
        raise TypeError("a bug")

    monkeypatch.setattr(stream.decoding.decode, "read_json", broken)
    with pytest.raises(TypeError, match="a bug"):
        judged(text())


def test_a_reason_that_cannot_be_found_costs_nothing_more(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object):
        raise RecursionError("deep")

    monkeypatch.setattr("stream.decoding.json_values.explain_json", broken)
    said = judged(text(id=17))
    assert said is not None
    assert "RecursionError" in said[1]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["\ud800", "\udfff", TS, 10**400, "x" * 1025, 1e39]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = [
    "id",
    "ts_ms",
    "session",
    "source",
    "vendor",
    "item",
    "position",
    "prediction",
    "model_version",
    "features",
    "impressions",
    "junk",
]


@settings(max_examples=settings.default.max_examples)
@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4), st.booleans())
def test_any_json_is_rows_or_a_named_fault(changed: dict[str, object], ascii_only: bool):
    value = json.dumps({**GOOD, **changed}, ensure_ascii=ascii_only).encode(
        "utf-8", "surrogatepass"
    )
    said = judged(value)
    assert said is None or (
        said[0] and "please report" not in said[1] and "cannot be said" not in said[1]
    )
