"""Valid records whose output is larger than the log takes: it is split, as a function of the log
(C3, F1, I7)."""

import hashlib
import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler.counting.reader import CountingPoint, CountingReader
from labeler.fraud_config import FraudConfig
from labeler.labels.batching import Boundaries
from labeler.labels.emission import quarantine_records, rejected_ids, rejected_records
from stream import Record, StreamConfig, position
from stream.decoding import BadRecord, decode_impressions
from stream.internal_topics import Verdict, cuts, encode_examples, example_batch, row_bytes

ZERO = 1_700_000_000_000
STREAM = StreamConfig(
    partitions=1, replayed=True, record_bytes_max=60_000, categorical_features=("event",)
)


def view(offset: int, rows: int, length: int, at_ms: int = ZERO) -> Record:
    """A page view of so many impressions that share strings of this length."""
    shared = {name: name[0] * length for name in ("source", "vendor", "model_version")}
    body = {"ts_ms": at_ms, "session": "s", **shared, "features": {"event": "f" * length}}
    body["impressions"] = [{"id": f"{offset}-{k}", "item": "i"} for k in range(rows)]
    return Record(offset, at_ms, b"s", json.dumps(body).encode())


def beat(offset: int, at_ms: int) -> Record:
    headers = (("control", b"heartbeat"), ("clock_ms", str(at_ms).encode()))
    return Record(offset, at_ms, None, None, headers)


@settings(max_examples=settings.default.max_examples * 60 // 100, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=25),
    rows=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    limit=st.integers(1, 20),
    data=st.data(),
)
def test_ranges_tile_and_fit_however_they_were_polled(
    sizes: list[int], rows: list[int], limit: int, data: st.DataObject
):
    counts = np.array([*rows, 0], np.int32)
    total = int(counts.sum())
    taken = np.resize(np.array(sizes, np.int64), total)
    offsets = np.arange(len(counts), dtype=np.int64)
    arrival = np.full(len(counts), ZERO, np.int64)
    arrival[-1] += 10_000

    def ranges(pieces: list[int], start: int) -> list[tuple[int, int, int]]:
        boundaries, out, at = Boundaries(start, 1_000, 5, limit), [], 0
        for piece in pieces:
            end = min(at + piece, len(counts))
            before, until = int(counts[:at].sum()), int(counts[:end].sum())
            boundaries.add(offsets[at:end], arrival[at:end], counts[at:end], taken[before:until])
            at = end
            while (found := boundaries.first()) is not None:
                out.append((found.start, found.end, found.rows))
                boundaries.advance(found.end)
        return out

    whole = ranges([len(counts)], 0)
    some = data.draw(st.lists(st.integers(1, 3), min_size=len(counts), max_size=len(counts)))
    assert ranges(some, 0) == whole
    assert [a[1] for a in whole[:-1]] == [b[0] for b in whole[1:]]
    assert sum(count for _, _, count in whole) == total
    through = 0
    for _, _, count in whole:
        assert count <= 1 or int(taken[through : through + count].sum()) <= limit
        through += count
    for k in range(len(whole)):  # a labeler that goes on anywhere makes the same ones
        assert ranges([len(counts)], whole[k][0]) == whole[k:]


def test_a_page_view_of_shared_strings_becomes_batches_that_fit():
    records = [view(0, 300, 800)]
    events, bad = decode_impressions(records, 0, np.full(1, ZERO), STREAM)
    assert not bad
    names = [name for name in events.table.column_names if name != "id"]
    sizes = row_bytes([events.table.column(name) for name in names], len(events))
    for start, end in pairwise(cuts(sizes, 4_096, STREAM.record_bytes_max)):
        rows = events.slice(start, end)
        label = np.zeros(len(rows), np.int8)
        value = encode_examples(
            example_batch(rows, label, label.astype(np.int64), label.astype(np.float32))
        )
        assert len(value) < 2 * STREAM.record_bytes_max
        assert len(value) == pytest.approx(sizes[start:end].sum(), rel=0.2)


def clicks_of(offset: int, rows: int, length: int, at_ms: int) -> Record:
    """One Arrow record: names that are short in it, and long in every row (a dictionary)."""
    names = pa.array([f"{k:04d}" + "v" * length for k in range(20)])
    column = pa.DictionaryArray.from_arrays(pa.array(np.arange(rows) % 20, pa.int32()), names)
    ids = [f"{offset}-{k}" for k in range(rows)]
    source = pa.DictionaryArray.from_arrays(pa.array(np.arange(rows) // 20, pa.int32()), names)
    times = [at_ms + k for k in range(rows)]
    table = pa.table(
        {"id": ids, "ts_ms": times, "session": ["s"] * rows, "vendor": column, "source": source}
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return Record(offset, at_ms, b"s", sink.getvalue().to_pybytes())


@pytest.mark.long
def test_signals_fit_and_a_reader_that_begins_within_a_record_goes_on():
    log = [
        clicks_of(0, 5, 10, ZERO),
        clicks_of(1, 400, 900, ZERO),
        clicks_of(2, 7, 900, ZERO),
        beat(3, ZERO + 60_000),
    ]

    def read(at: CountingPoint, step: int) -> list:
        reader = CountingReader(STREAM, FraudConfig(), STREAM.clicks, 0, at)
        rest = [record for record in log if record.offset >= reader.offset]
        return [s for k in range(0, len(rest), step) for s in reader.on_records(rest[k : k + step])]

    whole = read(CountingPoint(0, 0), 10)
    assert len(whole) > 5
    assert all(len(signal.value) < STREAM.record_bytes_max for signal in whole)
    assert [s.end for s in whole[:-1]] == [s.start for s in whole[1:]]
    assert sum(sum(s.rows.column("count").to_pylist()) for s in whole if s.rows is not None) == 412
    assert all(s.end > s.start for s in whole)
    said = [(s.headers, s.value) for s in whole]
    assert [(s.headers, s.value) for s in read(CountingPoint(0, 0), 1)] == said
    for k, one in enumerate(whole[:-1]):
        assert [
            (s.headers, s.value) for s in read(CountingPoint(one.end, one.arrival_max_ms), 2)
        ] == said[k + 1 :]


def test_a_record_that_cannot_be_read_is_unknown_whatever_is_raised(
    monkeypatch: pytest.MonkeyPatch,
):
    """L5: counting is bound by nothing."""
    log = [clicks_of(k, 2, 3, ZERO) for k in range(5)] + [beat(5, ZERO + 60_000)]
    reader = CountingReader(STREAM, FraudConfig(), STREAM.clicks, 0, CountingPoint(0, 0))
    read = reader._read

    def raises(records, arrival_ms):
        if 3 in records.offset:
            raise RuntimeError("a decoder's fault")
        return read(records, arrival_ms)

    monkeypatch.setattr(reader, "_read", raises)
    (signal,) = reader.on_records(log)
    assert signal.unknown == 1
    assert sum(signal.rows.column("count").to_pylist()) == 8


def test_of_a_large_bad_record_the_beginning_is_kept_and_its_name():
    value = b"{" + b"x" * 5_000
    one = BadRecord(
        Record(7, ZERO, b"k" * 40_000, value, (("producer", b"p" * 9_000),)),
        "f" * 9_000,
        "why \ud800" * 999,
    )
    (side,) = quarantine_records("impressions", 0, [one], 1_000)
    headers = dict(side.headers)
    assert side.value == value[:1_000]
    assert headers["value_sha256"] == hashlib.sha256(value).hexdigest().encode()
    assert headers["value_bytes"] == b"5001"
    assert sum(len(v) for v in headers.values()) < 24_000
    (whole,) = quarantine_records("impressions", 0, [one], 10_000)
    assert whole.value == value
    assert "value_sha256" not in dict(whole.headers)


def test_rejections_are_split_by_rows():
    events, _ = decode_impressions([view(0, 50, 800)], 0, np.full(1, ZERO), STREAM)
    verdict = Verdict("i", "r", "reject", "s", None, ZERO, ZERO + 1, "why")
    sides = rejected_records(
        "impressions", 0, events, np.zeros(50, np.int64), lambda _: verdict, 60_000
    )
    assert len(sides) > 1
    assert all(len(side.value) < 70_000 for side in sides)
    assert len({side.key for side in sides}) == len(sides)
    ids = [one for side in sides for one in rejected_ids(Record(0, 0, side.key, side.value))]
    assert ids == [f"0-{k}" for k in range(50)]
    assert sides[0].key == f"impressions/0/{position(0)}".encode()
