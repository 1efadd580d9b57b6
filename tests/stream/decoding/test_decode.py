import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.config import StreamConfig
from stream.decoding.decode import decode_clicks, decode_impressions
from stream.hashing import hash_pair, hash_string, partition_of_key
from stream.record import Record

CONFIG = StreamConfig(partitions=1, categorical_features=("user",), numeric_features=("price",))
TS = 1_700_000_000_000


def impression(**changed: object) -> dict[str, object]:
    fields = {"id": "i1", "ts_ms": TS, "session": "s", "source": "u", "vendor": "v", "item": "x"}
    return {k: v for k, v in {**fields, **changed}.items() if v is not ...}


def page(*parts: dict[str, object], **changed: object) -> dict[str, object]:
    top = {"ts_ms": TS, "session": "s", "source": "u", "features": {"user": "top", "price": 1.5}}
    return {**top, **changed, "impressions": list(parts)}


def part(**changed: object) -> dict[str, object]:
    return {"id": "i1", "item": "x", "vendor": "v", **changed}


def raw(value: object, **options: object) -> bytes:
    return json.dumps(value, **options).encode()


def records(*values: bytes | None, first: int = 0, key: bytes | None = b"s") -> list[Record]:
    return [Record(first + i, TS + i, key, v) for i, v in enumerate(values)]


def decode(recs: list[Record], config: StreamConfig = CONFIG, partition: int = 0):
    return decode_impressions(
        recs, partition, np.array([r.timestamp_ms for r in recs], np.int64), config
    )


def clicks(*values: bytes | None, key: bytes | None = b"s"):
    recs = records(*values, key=key)
    return decode_clicks(recs, 0, np.array([r.timestamp_ms for r in recs], np.int64), CONFIG)


def test_one_impression_with_everything():
    full = impression(
        position=3,
        prediction=0.25,
        model_version="m7",
        features={"user": "ann", "price": 2, "junk": [1]},
    )
    rows, bad = decode(records(raw(full), first=5))
    assert bad == []
    assert rows.position.tolist() == [5 << 20]
    assert rows.arrival_ms.tolist() == [TS]
    assert rows.ts_ms.tolist() == [TS]
    assert rows.id.tolist() == hash_pair(pa.array(["s"]), pa.array(["i1"])).tolist()
    assert rows.source_hash.tolist() == [hash_string("u")]
    assert rows.table.to_pylist() == [
        {"id": "i1", "source": "u", "vendor": "v", "item": "x", "shown_at": 3, "prediction": 0.25,
         "model_version": "m7", "f_user": "ann", "f_price": 2.0}
    ]  # fmt: skip


def test_what_is_missing_has_its_stated_value():
    rows, bad = decode(
        records(raw(impression()), raw(impression(id="i2", features=None, prediction=None)))
    )
    assert bad == []
    for row in rows.table.to_pylist():
        assert (row["shown_at"], row["model_version"], row["f_user"]) == (-1, "", "")
        assert np.isnan([row["prediction"], row["f_price"]]).all()
    assert all(column.null_count == 0 for column in rows.table.columns)


def test_a_page_view_gives_a_row_each_and_shares_its_fields():
    view = page(
        part(id="a", position=0), part(id="b", features={"user": "own"}, vendor=None), vendor="w"
    )
    rows, bad = decode(
        records(raw(impression(id="before")), raw(view), raw(impression(id="after")))
    )
    assert bad == []
    assert rows.position.tolist() == [0, 1 << 20, (1 << 20) + 1, 2 << 20]
    assert rows.table["id"].to_pylist() == ["before", "a", "b", "after"]
    assert rows.table["vendor"].to_pylist() == ["v", "v", "w", "v"]
    assert rows.table["f_user"].to_pylist() == ["", "top", "own", ""]
    assert rows.table["f_price"].to_pylist()[1:3] == [1.5, 1.5]
    assert rows.table["shown_at"].to_pylist() == [-1, 0, -1, -1]


def test_arrays_hold_impressions_and_page_views_in_order():
    mixed = [impression(id="a"), page(part(id="b"), part(id="c")), impression(id="d")]
    rows, bad = decode(records(raw(mixed, indent=2), raw([]), raw(impression(id="e"))))
    assert bad == []
    assert rows.table["id"].to_pylist() == ["a", "b", "c", "d", "e"]
    assert rows.position.tolist() == [0, 1, 2, 3, 2 << 20]


def test_an_empty_page_view_is_no_impression():
    rows, bad = decode(records(raw(page()), raw(impression())))
    assert bad == []
    assert len(rows) == 1


def arrow(rows: int = 2, **changed: object) -> bytes:
    columns: dict[str, object] = {
        name: [f"{name}{i}" for i in range(rows)] for name in ("id", "source", "vendor", "item")
    }
    columns |= {"session": ["s"] * rows, "ts_ms": [TS] * rows, "f_user": ["ann"] * rows}
    columns |= changed
    table = pa.table({k: v for k, v in columns.items() if v is not None})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def test_arrow_and_json_records_stand_mixed_in_log_order():
    rows, bad = decode(records(raw(impression(id="a")), arrow(), raw(impression(id="b")), arrow(1)))
    assert bad == []
    assert rows.table["id"].to_pylist() == ["a", "id0", "id1", "b", "id0"]
    assert rows.position.tolist() == [0, 1 << 20, (1 << 20) + 1, 2 << 20, 3 << 20]
    assert rows.table["f_user"].to_pylist() == ["", "ann", "ann", "", "ann"]


@pytest.mark.parametrize(
    ("value", "field", "says"),
    [
        (arrow(id=[1, 2]), "id", "string"),
        (arrow(item=None), "item", "missing"),
        (arrow(vendor=["v", None]), "vendor", "missing"),
        (arrow(ts_ms=[1.5, 2.5]), "ts_ms", "integer"),
        (arrow()[:100], "value", "Arrow"),
        (b"\xff\xff\xff\xffnonsense", "value", "Arrow"),
    ],
)
def test_a_bad_arrow_record_names_its_fault(value: bytes, field: str, says: str):
    rows, bad = decode(records(arrow(), value, arrow()))
    assert len(rows) == 4
    assert [(b.record.offset, b.field) for b in bad] == [(1, field)]
    assert says in bad[0].reason


BAD = [
    (None, "value", "empty"),
    (b"", "value", "empty"),
    (b"   ", "value", "JSON"),
    (b"nonsense", "value", "JSON"),
    (b"17", "value", "the number 17"),
    (b"{" + b"[" * 100 + b"]" * 100 + b"}", "value", ""),
    (b"[" * 100_000, "value", ""),
    (raw(impression()) + raw(impression()), "value", "JSON"),
    (raw(impression()) + b"\n" + raw(impression()), "value", "JSON"),
    (raw(impression())[:-1], "value", "JSON"),
    (raw(impression())[1:], "value", "JSON"),
    (raw(impression())[:-1] + b', "junk": "', "value", "JSON"),
    (raw(impression())[:-1] + b', "junk": [', "value", "JSON"),
    (b'}, {"id": "i1"', "value", "JSON"),
    (b"[" + raw(impression()) + b",]", "value", "JSON"),
    (b"[" + raw(impression()) + raw(impression()) + b"]", "value", "JSON"),
    (raw([impression(), 5]), "value", "the number 5"),
    (raw(impression()).replace(b"i1", b"\xff"), "value", "UTF-8"),
    (raw(impression()).replace(b'"i1"', b'"i1", "id": "i2"'), "id", "twice"),
    (raw(impression(id=17)), "id", "the number 17; send it as a string"),
    (raw(impression(id=...)), "id", "missing"),
    (raw(impression(id="")), "id", "empty"),
    (raw(impression(id="x" * 1025)), "id", "1025 bytes"),
    (raw(impression(vendor=...)), "vendor", "missing"),
    (raw(impression(item=["x"])), "item", "a list"),
    (raw(impression(ts_ms=1_700_000_000)), "ts_ms", "seconds"),
    (raw(impression(ts_ms=1_700_000_000.5)), "ts_ms", "integer"),
    (raw(impression(ts_ms=str(TS))), "ts_ms", "integer"),
    (raw(impression(ts_ms=TS * 1000)), "ts_ms", "milliseconds"),
    (raw(impression(ts_ms=-5)), "ts_ms", "milliseconds"),
    (raw(impression(ts_ms=10**30)), "ts_ms", "milliseconds"),
    (raw(impression(ts_ms=...)), "ts_ms", "missing"),
    (raw(impression(position=-1)), "position", "-1"),
    (raw(impression(position=1.5)), "position", "1.5"),
    (raw(impression(position=2**40)), "position", "integer"),
    (raw(impression(prediction=1.5)), "prediction", "[0, 1]"),
    (raw(impression(prediction="0.5")), "prediction", "[0, 1]"),
    (raw(impression(features=[1])), "features", "object"),
    (raw(impression(features={"user": 5})), "features.user", "string"),
    (raw(impression(features={"price": "5"})), "features.price", "numeric"),
    (raw(impression(features={"price": 1e39})), "features.price", "32-bit"),
    (raw(impression(features={"price": True})), "features.price", "boolean true"),
    (raw(page(part(), part(id=5))), "id", "the number 5"),
    (raw(page(part(), None)), "impressions[1]", "null"),
    (raw({**page(), "impressions": {}}), "impressions", "array"),
    (raw(page(part(), session="")), "session", "empty"),
]


@pytest.mark.parametrize(("value", "field", "says"), BAD)
def test_a_bad_record_is_named_and_harms_no_other(value: bytes | None, field: str, says: str):
    around = [raw(impression(id=f"good{i}")) for i in range(4)]
    rows, bad = decode(records(around[0], around[1], value, around[2], around[3]))
    assert rows.table["id"].to_pylist() == ["good0", "good1", "good2", "good3"]
    assert rows.position.tolist() == [0, 1 << 20, 3 << 20, 4 << 20]
    assert [(b.record.offset, b.field) for b in bad] == [(2, field)]
    assert says in bad[0].reason


def test_many_bad_records_are_each_found():
    values = [raw(impression(id=str(i) if i % 3 else i)) for i in range(50)]
    rows, bad = decode(records(*values))
    assert [b.record.offset for b in bad] == list(range(0, 50, 3))
    assert rows.table["id"].to_pylist() == [str(i) for i in range(50) if i % 3]


def test_a_misplaced_record_names_producer_and_partitioner():
    config = StreamConfig(partitions=4)
    good = partition_of_key(b"s", 4)
    value = raw(impression())
    recs = [Record(0, TS, b"s", value, (("producer", b"shop-7"),))]
    rows, bad = decode(recs, config, good)
    assert (len(rows), bad) == (1, [])
    rows, bad = decode(recs, config, (good + 1) % 4)
    assert len(rows) == 0
    assert bad[0].field == "partition"
    for word in ("shop-7", "murmur2", f"partition {good} of 4"):
        assert word in bad[0].reason


def test_a_record_without_session_takes_its_key():
    rows, bad = decode(
        records(
            raw(impression(session=...)), raw([impression(session="t"), impression(session=None)])
        )
    )
    assert bad == []
    assert rows.id.tolist() == hash_pair(pa.array(["s", "t", "s"]), pa.array(["i1"] * 3)).tolist()
    for key in (None, b"", b"\xff"):
        rows, bad = decode(records(raw(impression(session=...)), key=key))
        assert len(rows) == 0
        assert bad[0].field == "session"


def test_heartbeats_are_passed_over():
    beat = Record(1, TS, None, None, (("control", b"heartbeat"), ("clock_ms", b"1")))
    first, last = records(raw(impression()), raw(impression(id="i2")))
    rows, bad = decode([first, beat, last._replace(offset=2)])
    assert bad == []
    assert rows.position.tolist() == [0, 2 << 20]
    assert len(decode([beat])[0]) == 0


def test_clicks_have_their_own_fields():
    full = {"id": "i1", "ts_ms": TS, "session": "s", "source": "u", "item": "x", "vendor": "v"}
    bare = {"id": "i2", "ts_ms": TS}
    rows, bad = clicks(raw([full, bare]), raw({"id": "i3"}))
    assert rows.position.tolist() == [0, 1]
    assert rows.id.tolist() == hash_pair(pa.array(["s", "s"]), pa.array(["i1", "i2"])).tolist()
    assert rows.vendor_hash.tolist() == [hash_string("v"), 0]
    assert rows.source_hash.tolist() == [hash_string("u"), 0]
    assert rows.table.to_pylist() == [{"source": "u", "vendor": "v"}, {"source": "", "vendor": ""}]
    assert [(b.record.offset, b.field) for b in bad] == [(1, "ts_ms")]


@settings(max_examples=settings.default.max_examples * 150 // 100)
@given(
    st.lists(
        st.sampled_from(
            [v for v, _, _ in BAD]
            + [
                raw(impression()),
                raw(page(part(), part(id="z"))),
                raw([impression(), page(part())], indent=1),
                arrow(),
                arrow(id=[1, 2]),
                raw([]),
            ]
        ),
        max_size=12,
    ),
    st.lists(st.integers(0, 12), max_size=3),
)
def test_polls_change_nothing(values: list[bytes | None], cuts: list[int]):
    recs = records(*values)
    whole, whole_bad = decode(recs)
    edges = sorted({0, len(recs), *(c for c in cuts if c < len(recs))})
    parts = [decode(recs[a:b]) for a, b in itertools.pairwise(edges)]
    assert [b for _, bad in parts for b in bad] == whole_bad
    for name in ("position", "arrival_ms", "ts_ms", "id", "source_hash", "vendor_hash"):
        pieces = [getattr(rows, name) for rows, _ in parts] or [getattr(whole, name)]
        np.testing.assert_array_equal(np.concatenate(pieces), getattr(whole, name))
    if parts:
        together = pa.concat_tables([rows.table for rows, _ in parts]).combine_chunks()
        assert str(together.to_pylist()) == str(whole.table.to_pylist())


pieces = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\\",
        b"\n",
        b" ",
        b"\x00",
        b'"id"',
        b'"ts_ms"',
        b'"i"',
        b"1700000000000",
        b'"impressions"',
        b'"features"',
        b"null",
        b"1e5",
        b"NaN",
        raw(impression()),
        raw(part()),
        b"\xc3",
        b"\xa9",
    ]
)


@settings(max_examples=settings.default.max_examples * 3)
@given(st.lists(st.lists(pieces, min_size=1, max_size=8).map(b"".join), max_size=4))
def test_rubbish_never_shifts_rows(rubbish: list[bytes]):
    """A good record after each piece of rubbish always comes out as itself, and each piece is
    judged as when alone."""
    values = [v for i, piece in enumerate(rubbish) for v in (piece, raw(impression(id=f"good{i}")))]
    rows, bad = decode(records(*values))
    ids = dict(zip((rows.position >> 20).tolist(), rows.table["id"].to_pylist(), strict=True))
    for i, piece in enumerate(rubbish):
        assert ids[2 * i + 1] == f"good{i}"
        alone, alone_bad = decode([Record(2 * i, TS, b"s", piece)])
        assert bool(alone_bad) == (2 * i in [b.record.offset for b in bad])
        assert len(alone) == int((rows.position >> 20 == 2 * i).sum())
