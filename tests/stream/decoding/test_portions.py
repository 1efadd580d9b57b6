"""Records that are small and unpack to much are decoded a few at a time."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stream.decoding.portions
from stream.columns import StreamSize
from stream.config import StreamConfig
from stream.decoding.decode import decode_impressions
from stream.decoding.portions import fitting
from stream.log import RecordColumns
from stream.record import Record

TS = 1_700_000_000_000
CONFIG = StreamConfig(partitions=1, categorical_features=("user",))
GOOD = {"id": "i", "ts_ms": TS, "session": "s", "source": "u", "vendor": "v", "item": "x"}


def arrow(rows: int, dictionary: bool = False, compression: str | None = "zstd") -> bytes:
    columns = {name: pa.array([value]).take(pa.array([0] * rows)) for name, value in GOOD.items()}
    if dictionary:
        columns["source"] = pa.DictionaryArray.from_arrays(
            pa.array([0] * rows, pa.int8()), pa.array(["x" * 1_000])
        )
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(
        sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=compression)
    ) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def page(impressions: int) -> bytes:
    shared = {"ts_ms": TS, "session": "s", "source": "x" * 1_000, "vendor": "y" * 1_000}
    return json.dumps(
        {**shared, "impressions": [{"id": f"{i}"} for i in range(impressions)]}
    ).encode()


def records(values: list[bytes]) -> RecordColumns:
    return RecordColumns.of([Record(i, TS, b"s", value) for i, value in enumerate(values)])


@pytest.mark.parametrize(
    "value",
    [arrow(100_000), arrow(20_000, dictionary=True), page(10_000)],
    ids=["packed", "dictionary", "page"],
)
def test_small_records_that_become_large_are_few(value: bytes):
    assert len(value) < 1 << 21
    assert fitting(records([value] * 500), CONFIG) < 12


@pytest.mark.parametrize(
    "value",
    [json.dumps(GOOD).encode(), page(20), arrow(500, compression=None)[:-8], b"{", b""],
    ids=range(5),
)
def test_usual_records_are_decoded_together(value: bytes):
    count = min(2_000, (2 << 20) // max(1, len(value)))
    assert fitting(records([value] * count), CONFIG) == count


def test_one_is_taken_however_large_it_is():
    small = replace(CONFIG, decoded_bytes_max=1_000)
    assert fitting(records([arrow(1_000)] * 3), small) == 1
    assert fitting(records([]), CONFIG) == 0


def test_a_claim_that_no_number_holds_is_a_large_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        stream.decoding.portions, "measure", lambda value: StreamSize(1 << 62, 1 << 62, 0, 1 << 40)
    )
    assert fitting(records([arrow(1)] * 3), CONFIG) == 1


def test_a_record_that_cannot_be_measured_is_as_large_as_it_is(monkeypatch: pytest.MonkeyPatch):
    def unforeseen(value: bytes) -> StreamSize:
        raise OverflowError("date value out of range")

    monkeypatch.setattr(stream.decoding.portions, "measure", unforeseen)
    assert fitting(records([arrow(1)] * 3), CONFIG) == 3


@settings(max_examples=settings.default.max_examples * 60 // 100, deadline=None)
@given(
    values=st.lists(
        st.one_of(
            st.integers(1, 300).map(page),
            st.builds(arrow, st.integers(1, 300), st.booleans()),
            st.just(json.dumps(GOOD).encode()),
        ),
        min_size=1,
        max_size=8,
    ),
    allowed=st.integers(1_000, 400_000),
)
def test_what_fits_takes_no_more_than_is_allowed(values: list[bytes], allowed: int):
    """Unless it is one record."""
    config = replace(CONFIG, decoded_bytes_max=allowed)
    given = records(values)
    fits = fitting(given, config)
    rows, _ = decode_impressions(given[:fits], 0, np.full(fits, TS), CONFIG)
    assert fits == 1 or rows.table.nbytes <= allowed
