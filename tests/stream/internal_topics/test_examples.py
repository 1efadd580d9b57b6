import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.columns import FeatureColumn, Impressions, impression_schema
from stream.internal_topics.examples import (
    BatchHeader,
    decode_examples,
    encode_examples,
    example_batch,
    examples_schema,
    rows_from,
    rows_of,
    schema_id,
    trim,
)
from stream.internal_topics.row_hash import hash_sum, row_hash_sum, row_hashes
from stream.kernels import HASH_MODULUS

FEATURES = (FeatureColumn("user", "categorical"), FeatureColumn("price", "numeric"))


def impressions(rows: int, first: int = 0) -> Impressions:
    number = np.arange(first, first + rows)
    names = [f"é{n}" * (n % 3) for n in number]
    floats = np.where(number % 2, np.nan, number).astype(np.float32)
    columns = [names, names, names, names, number.astype(np.int32), floats, names, names, floats]
    table = pa.table([pa.array(c) for c in columns], schema=impression_schema(FEATURES))
    i64, u64 = number.astype(np.int64), number.astype(np.uint64)
    return Impressions(i64 << 20, i64 + 1000, i64 + 900, u64, u64, u64, table)


def batch(events: Impressions) -> pa.RecordBatch:
    n = len(events)
    delays = np.where(events.ts_ms % 5, -1, 7).astype(np.int64)
    return example_batch(events, (delays >= 0).astype(np.int8), delays, np.ones(n, np.float32))


@given(st.integers(1, 40), st.lists(st.integers(0, 40), max_size=4))
def test_bytes_and_hash_do_not_depend_on_how_the_rows_were_assembled(rows: int, cuts: list[int]):
    whole = impressions(rows)
    edges = sorted({0, rows, *(c for c in cuts if c < rows)})
    parts = [impressions(rows + 5).slice(a, b) for a, b in itertools.pairwise(edges)]
    pieced = Impressions.concat(parts)
    taken = impressions(rows + 9).take(np.arange(rows))
    expected = encode_examples(batch(whole))
    for other in (pieced, taken, impressions(rows + 3).slice(0, rows)):
        assert encode_examples(batch(other)) == expected
        assert row_hash_sum(batch(other)) == row_hash_sum(batch(whole))
    assert encode_examples(decode_examples(expected)) == expected


def test_a_validity_buffer_without_nulls_changes_no_byte():
    rows = batch(impressions(4))
    masked = pa.array([0, 0, 0, 0, 0], mask=np.array([False, False, False, False, True])).slice(
        0, 4
    )
    columns = [
        masked.cast(c.type) if name == "label" else c
        for name, c in zip(rows.schema.names, rows.columns, strict=True)
    ]
    plain = [
        pa.array([0] * 4, pa.int8()) if n == "label" else c
        for n, c in zip(rows.schema.names, rows.columns, strict=True)
    ]
    assert encode_examples(pa.record_batch(columns, schema=rows.schema)) == encode_examples(
        pa.record_batch(plain, schema=rows.schema)
    )


def test_rows_survive_the_round_trip():
    rows = batch(impressions(10))
    back = decode_examples(encode_examples(rows))
    assert back.schema == examples_schema(FEATURES)
    for name in rows.schema.names:
        np.testing.assert_array_equal(
            rows.column(name).to_numpy(False), back.column(name).to_numpy(False)
        )


def test_an_empty_range_has_no_value_and_nothing_to_decode():
    assert encode_examples(batch(impressions(0))) == b""
    with pytest.raises(ValueError, match="value: there is none"):
        decode_examples(b"")


def test_a_null_is_refused():
    rows = batch(impressions(2))
    columns = [
        pa.array([None, "x"]) if n == "vendor" else c
        for n, c in zip(rows.schema.names, rows.columns, strict=True)
    ]
    loose = pa.schema([f.with_nullable(True) for f in rows.schema])
    with pytest.raises(ValueError, match="vendor"):
        encode_examples(pa.record_batch(columns, schema=loose))


def test_trim_keeps_what_lies_at_or_above_a_position():
    rows = batch(impressions(10))
    assert trim(rows, 3 << 20).column("position").to_pylist() == [n << 20 for n in range(3, 10)]
    assert trim(rows, (3 << 20) + 1).num_rows == 6
    assert trim(rows, 0).num_rows == 10
    assert trim(rows, 99 << 20).num_rows == 0


@given(st.integers(0, 30), st.integers(0, 30))
def test_the_hash_of_a_split_is_the_sum_of_its_parts(rows: int, at: int):
    whole = batch(impressions(rows))
    left, right = whole.slice(0, at), whole.slice(at)
    assert (row_hash_sum(left) + row_hash_sum(right)) % HASH_MODULUS == row_hash_sum(whole)


def test_a_row_has_one_hash_wherever_it_stands_in_a_batch():
    rows = batch(impressions(600))
    whole = row_hashes(rows)
    for start, end in ((0, 1), (3, 259), (255, 600), (9, 9)):
        for half, of_piece in zip(whole, row_hashes(rows.slice(start, end - start)), strict=True):
            assert of_piece.tolist() == half[start:end].tolist()
    assert len(set(whole[0].tolist())) == len(set(whole[1].tolist())) == 600


@pytest.mark.parametrize("column", examples_schema(FEATURES).names)
def test_the_hash_covers_every_column(column: str):
    rows = batch(impressions(3))
    changed = []
    for name, array in zip(rows.schema.names, rows.columns, strict=True):
        values = array.to_pylist()
        if name == column:
            values[0] = values[0] + ("x" if isinstance(values[0], str) else 1)
        changed.append(pa.array(values, array.type))
    other = pa.record_batch(changed, schema=rows.schema)
    assert row_hash_sum(other) != row_hash_sum(rows)
    assert row_hashes(other)[0][1] == row_hashes(rows)[0][1]


def test_values_that_change_columns_or_rows_change_the_hash():
    rows = batch(impressions(3))
    swapped = rows.rename_columns(
        [{"source": "vendor", "vendor": "source"}.get(n, n) for n in rows.schema.names]
    )
    assert row_hash_sum(swapped) != row_hash_sum(rows)
    doubled = (2 * row_hash_sum(rows)) % HASH_MODULUS
    assert doubled != row_hash_sum(rows) != 0


def test_the_hash_of_a_dictionary_column_is_that_of_its_strings():
    rows = batch(impressions(6))
    encoded = [c.dictionary_encode() if pa.types.is_string(c.type) else c for c in rows.columns]
    assert row_hash_sum(pa.record_batch(encoded, names=rows.schema.names)) == row_hash_sum(rows)


def test_the_hash_is_fixed_for_good():
    """Checkpoints hold it: a change of this value is a change of format."""
    assert f"{row_hash_sum(batch(impressions(5))):032x}" == "d854b138c78d87c44cb24c60a20d4c58"


halves = st.lists(st.integers(0, (1 << 128) - 1), max_size=20)


@given(halves)
def test_sums_carry(values: list[int]):
    low = np.array([v & (1 << 64) - 1 for v in values], np.uint64)
    high = np.array([v >> 64 for v in values], np.uint64)
    assert hash_sum(low, high) == sum(values) % HASH_MODULUS


HEADER = BatchHeader(
    "label/3",
    5 << 20,
    9 << 20,
    "00ff",
    "abcd",
    barrier=4,
    labelled=3,
    rejected=1,
    duplicate=2,
    withheld=4,
    quarantined=5,
    positives=2,
    clicks_read=9,
    clicks_joined=2,
    clicks_duplicate=1,
    clicks_quarantined=1,
    ts_ms_min=10,
    ts_ms_max=20,
    arrival_max_ms=30,
    clicks_offset=7,
    clicks_arrival_max_ms=29,
    ids_offset=4,
    ids_arrival_max_ms=28,
    verdicts_offset=11,
    watermarks={"impressions/3": 40, "a.clicks/3": 41},
)


def test_headers_survive_the_round_trip():
    assert BatchHeader.from_headers(HEADER.to_headers()) == HEADER
    plain = BatchHeader("label/0", 0, 0, "", "")
    assert BatchHeader.from_headers(plain.to_headers()) == plain
    assert "barrier" not in dict(plain.to_headers())
    assert HEADER.impressions == 15
    assert all(len(value) < 100 for _, value in HEADER.to_headers())


@pytest.mark.parametrize("name", [name for name, _ in HEADER.to_headers() if name != "barrier"])
def test_a_missing_header_is_named(name: str):
    with pytest.raises(ValueError, match=name):
        BatchHeader.from_headers(tuple(h for h in HEADER.to_headers() if h[0] != name))


def test_an_unreadable_header_is_named():
    headers = tuple((n, b"many" if n == "labelled" else v) for n, v in HEADER.to_headers())
    with pytest.raises(ValueError, match=r"labelled.*many"):
        BatchHeader.from_headers(headers)


def test_impossible_ranges_are_refused():
    with pytest.raises(ValueError, match=r"\[5, 4\)"):
        BatchHeader("label/0", 5, 4, "", "")


def test_a_schema_is_named_by_names_types_and_order():
    ids = {schema_id(examples_schema(f)) for f in (FEATURES, FEATURES[::-1], FEATURES[:1], ())}
    assert len(ids) == 4


def test_rows_of_a_piece_stand_by_their_impression_or_at_the_end_of_their_range():
    rows = batch(impressions(10))
    for chain in ("label/0", "late/0"):
        assert rows_of(rows, chain, 10 << 20, 3 << 20, 5 << 20).column("position").to_pylist() == [
            3 << 20,
            4 << 20,
        ]
    assert rows_of(rows, "retract/0", 7, 2, 7).num_rows == 10
    assert rows_of(rows, "retract/0", 7, 2, 6).num_rows == 0
    assert rows_of(rows, "retract/0", 7, 6, 7).num_rows == 10


def test_rows_from_keeps_impressions_in_any_order():
    rows = batch(impressions(4)).take(pa.array([3, 1, 0, 2]))
    assert rows_from(rows, 2 << 20).column("position").to_pylist() == [3 << 20, 2 << 20]
    assert rows_from(rows, 0).num_rows == 4


def record(column: pa.Array) -> bytes:
    sink = pa.BufferOutputStream()
    rows = pa.record_batch([column], names=["f_user"])
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return sink.getvalue().to_pybytes()


def test_strings_that_lie_outside_their_column_are_not_followed():
    offsets = np.array([0, 4, 1, 6], np.int32)
    broken = pa.StringArray.from_buffers(3, pa.py_buffer(offsets), pa.py_buffer(b"abcdef"))
    broken.validate()  # looks at the first and the last alone
    with pytest.raises(ValueError, match="non-monotonic offset"):
        decode_examples(record(broken))


def test_a_column_that_cannot_be_hashed_is_a_bad_record():
    with pytest.raises(ValueError, match="nulls by column"):
        decode_examples(record(pa.array(["a", None])))
    with pytest.raises(ValueError, match="expected"):
        decode_examples(record(pa.array([1.0])))
