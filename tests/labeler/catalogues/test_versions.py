"""Rows as of an impression's arrival, however catalogue and impressions were read (A3)."""

import json
import random

import numpy as np
import pyarrow as pa
import pytest

from labeler.catalogues import CatalogueBegin, RowVersions
from stream import Record, StreamConfig
from stream.columns import Feature
from stream.decoding.catalogues import CatalogueColumns
from stream.log.rows import MemoryStorage, StoredRows

START_MS = 1_600_000_000_000
DECLARED = {"title": Feature(kind="text", catalogue="items")}
STREAM = StreamConfig(declared=DECLARED, heartbeat_ms=100, flush_ms=100)


def beat(ms):
    return None, b"\0heartbeat", (("control", b"heartbeat"), ("clock_ms", str(ms).encode())), ms


def log_of(*records):
    return [
        Record(i, ms, key, value, headers) for i, (value, key, headers, ms) in enumerate(records)
    ]


def row(key, title, ms):
    value = title if title is None or isinstance(title, bytes) else json.dumps({"title": title})
    raw = value.encode() if isinstance(value, str) else value
    return raw, key.encode(), (), ms


def versions(storage=None, declared=DECLARED, **begin):
    reader = CatalogueColumns(declared, 1_000, 1_000).readers["items"]
    held = StoredRows(storage or MemoryStorage(), 1_000)
    return RowVersions(STREAM, reader, held, CatalogueBegin(0, **begin)), reader


def titles(one, reader, keys, arrivals):
    found = one.find(pa.array(keys), np.array(arrivals, np.int64))
    return [reader.attributes(found.rows[place])[0] for place in found.places]


def drawn(seed):
    """(records, what the title of a key is as of a time)."""
    rng, now, records, truth = random.Random(seed), START_MS, [beat(START_MS)], []
    for n in range(300):
        now += rng.choice((0, 1, 20, 100))
        if n % 7 == 0:
            records.append(beat(now))
            continue
        key = f"k{rng.randrange(6)}"
        title = rng.choice((None, b"no row", *(f"t{n}" for _ in range(4))))
        records.append(row(key, title, now))
        if title != b"no row":
            truth.append((now, key, title))
    records += [beat(now + 1_000), beat(now + 70_000)]

    def as_of(key, ms):
        return next((t for at, k, t in reversed(truth) if k == key and at <= ms), None)

    return log_of(*records), as_of, now


@pytest.mark.parametrize("seed", range(6))
def test_it_is_a_function_of_the_log_and_of_the_arrival(seed):
    log, as_of, end = drawn(seed)
    rng = random.Random(seed)
    one, reader = versions()
    at, asked = 0, START_MS
    while asked < end:
        asked += rng.choice((1, 30, 300))
        while one.lacks(asked):
            more = rng.choice((1, 5, 50))
            one.read(log[at : at + more])
            at += more
        keys = [f"k{rng.randrange(7)}" for _ in range(5)] + [""]
        arrivals = [asked + 0 * i for i in range(6)]
        assert titles(one, reader, keys, arrivals) == [as_of(k, asked) for k in keys]
        if rng.random() < 0.5:
            one.settle(asked)


@pytest.mark.parametrize("seed", range(6))
def test_a_reading_that_is_dropped_goes_on_from_what_was_written(seed, monkeypatch):
    monkeypatch.setattr("labeler.catalogues.versions.PLACE_EVERY", 5)
    log, as_of, end = drawn(seed)
    rng, storage = random.Random(seed), MemoryStorage()
    asked, gone_on = START_MS, 0
    one, reader = versions(storage)
    while asked < end:
        if rng.random() < 0.1:
            one, reader = versions(storage)
            assert one.low_ms <= asked
            gone_on += one.next_offset > 0
        while one.lacks(asked):
            at, more = one.next_offset, rng.choice((1, 5, 50))
            one.read(log[at : at + more])
        keys = [f"k{rng.randrange(7)}" for _ in range(5)]
        assert titles(one, reader, keys, [asked] * 5) == [as_of(k, asked) for k in keys]
        if rng.random() < 0.5:
            one.settle(asked)
        asked += rng.choice((1, 30, 300))
    assert gone_on


def test_rows_of_another_topic_or_declaration_are_read_anew():
    storage, log = MemoryStorage(), drawn(1)[0]
    one, _ = versions(storage, topic_id="a")
    one.read(log)
    one.settle(START_MS + 1_000)
    assert versions(storage, topic_id="a")[0].next_offset
    assert versions(storage)[0].next_offset  # the broker was not asked yet
    kept = dict(storage.rows)
    assert not versions(storage, topic_id="b")[0].next_offset
    assert storage.rows == {}
    storage.rows = kept
    more = DECLARED | {"price": Feature(kind="numeric", catalogue="items")}
    assert not versions(storage, more, topic_id="a")[0].next_offset


def test_rows_of_one_batch_are_given_what_each_could_have_known():
    one, reader = versions()
    log = log_of(
        beat(START_MS), row("a", "old", START_MS + 10), row("a", "new", START_MS + 20),
        row("a", None, START_MS + 30), beat(START_MS + 100),
    )  # fmt: skip
    one.read(log)
    arrivals = [START_MS + ms for ms in (9, 10, 19, 20, 29, 30, 99)]
    expected = [None, "old", "old", "new", "new", None, None]
    assert titles(one, reader, ["a"] * 7, arrivals) == expected
    assert one.lacks(START_MS + 100)
    assert not one.lacks(START_MS + 99)
    one.settle(START_MS + 25)
    assert titles(one, reader, ["a"] * 2, arrivals[4:6]) == ["new", None]
    with pytest.raises(ValueError, match="was passed"):
        titles(one, reader, ["a"], [START_MS + 9])


def test_what_was_held_is_given_back():
    one, _ = versions()
    log, _, end = drawn(1)
    one.read(log)
    held = one.bytes
    one.settle(end + 1)
    assert one.bytes < held
    assert not one._of
    assert not one._later
    assert one._later_bytes == 0


def test_bad_rows_are_said_once_with_their_bytes():
    one, _ = versions()
    one.read(log_of(
        beat(START_MS), row("a", b"{", START_MS + 1), row("b", b"[]", START_MS + 5),
        (b"{}", b"", (), START_MS + 9), beat(START_MS + 100),
    ))  # fmt: skip
    assert one.wrong == 3
    said = one.bad_between(START_MS + 1, START_MS + 5)
    assert [(bad.record.offset, bad.record.value, bad.field) for bad in said] == [
        (2, b"[]", "value")
    ]
    assert [bad.field for bad in one.bad_between(START_MS + 5, START_MS + 100)] == ["key"]
    assert len(one.bad_between(0, START_MS + 200)) == 3  # labelled again, said again


def test_bad_rows_are_held_within_a_limit(monkeypatch):
    monkeypatch.setattr("labeler.catalogues.versions.BAD_BYTES_MAX", 1_000)
    one, _ = versions()
    one.read(log_of(beat(START_MS), *(row("a", b"{", START_MS + i) for i in range(9)),
                    beat(START_MS + 99)))  # fmt: skip
    assert one.forgotten == 6
    assert len(one.bad_between(0, START_MS + 99)) == 3


def test_a_compacted_log_gives_what_the_whole_one_gave():
    """Of a replaced row only the last is left, and of heartbeats the newest: between rows that are
    days apart nothing tells the time (A4)."""
    day, now = 86_400_000, START_MS + 3 * 86_400_000
    whole = [beat(START_MS), row("a", "1", START_MS), row("b", "2", START_MS + 9)]
    for hour in range(1, 49):
        whole += [beat(START_MS + hour * 3_600_000)]
    whole += [row("a", "3", START_MS + day), row("c", None, START_MS + 2 * day)]
    kept = [whole[2], whole[-2], whole[-1]]
    newest = [row("b", "4", now), *(beat(now + ms) for ms in range(0, 130_000, 10_000))]
    for records in (kept + newest, sorted(whole, key=lambda one: one[3]) + newest):
        one, reader = versions()
        one.read(log_of(*records))
        assert not one.lacks(now + 1_000)
        found = titles(one, reader, ["a", "b", "c", "d"], [now - 1] * 4)
        assert found == ["3", "2", None, None]
        assert titles(one, reader, ["b"], [now]) == ["4"]
