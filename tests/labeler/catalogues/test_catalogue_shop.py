"""Labels of a shop whose items stand in a catalogue, over the log in memory (A1 to A3)."""

import json
from dataclasses import replace

import pytest
from labelled_shop import EXAMPLES, LABELER, STREAM, ZERO, Clock, beat, memory_log

from labeler.counting.heartbeats import Heartbeats
from labeler.labels import Labelling
from labeler.process.metrics import LabelerMetrics
from stream import LABEL, Partition, kind_of
from stream.columns import Feature
from stream.decoding.catalogues import HEARTBEAT_KEY
from stream.internal_topics import BatchHeader, decode_examples
from stream.log.rows import RocksStorage

DECLARED = {
    "title": Feature(kind="text", catalogue="items"),
    "tags": Feature(kind="list", catalogue="items"),
    "price": Feature(kind="numeric", catalogue="items"),
}
STREAM_OF = replace(STREAM, declared=DECLARED)
ITEMS = Partition("items", 0)


def item(log, key, value, ms):
    raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    log.append(ITEMS, raw, key.encode(), (), ms)


def item_beat(log, ms):
    headers = (("control", b"heartbeat"), ("clock_ms", str(ms).encode()))
    log.append(ITEMS, None, b"\0heartbeat", headers, ms)


def fill(log, seconds=4):
    """Views of two items ten times a second; the first is renamed, deleted and made again."""
    beat(log, ZERO)
    for n in range(seconds * 10):
        now = ZERO + n * 100
        view = {"id": str(n), "ts_ms": now, "session": "s", "source": "u", "vendor": "v",
                "item": f"i{n % 2}"}  # fmt: skip
        log.append(Partition("impressions", 0), json.dumps(view).encode(), b"s", (), now)
    for more in (0, 2_000, 4_000):
        beat(log, ZERO + seconds * 1_000 + more)


def fill_items(log):
    item_beat(log, ZERO)
    item(log, "i0", {"title": "first", "tags": ["a"], "price": 3}, ZERO + 500)
    item(log, "i1", b"{", ZERO + 700)
    item(log, "i0", {"title": "second"}, ZERO + 1_000)
    item(log, "i0", b'{"price": "much"}', ZERO + 1_100)
    item(log, "i0", None, ZERO + 2_000)
    item(log, "i0", {"title": "again"}, ZERO + 3_000)
    for more in (1_000, 2_500, 4_000, 6_000, 8_000):
        item_beat(log, ZERO + more)


def title_at(n):
    ms = n * 100
    if n % 2 or ms < 500 or 2_000 <= ms < 3_000:
        return ""
    return "first" if ms < 1_000 else "second" if ms < 2_000 else "again"


def run(log, clock, turns, disk=None, bytes_max=1 << 20):
    labelling = Labelling(STREAM_OF, replace(LABELER, catalogue_bytes_max=bytes_max), log)
    labelling.joined.catalogues.disk = disk
    labelling.own([0])
    reasons = set()
    for _ in range(turns):
        labelling.run_once(clock(), 0)
        reasons.add(labelling.waiting)
    return labelling, reasons


def rows_of(log):
    rows = []
    for record in log.records(EXAMPLES):
        if record.value and kind_of(BatchHeader.from_headers(record.headers).chain) == LABEL:
            rows += decode_examples(record.value).to_pylist()
    return rows


@pytest.mark.parametrize("turns", [400, 5])
def test_an_impression_is_given_its_row_as_of_its_arrival(turns):
    clock = Clock()
    log = memory_log(STREAM_OF, clock)
    fill(log)
    _, reasons = run(log, clock, 60)
    assert "catalogue" in reasons
    assert not rows_of(log)
    fill_items(log)
    for _ in range(400 // turns):
        last, _ = run(log, clock, turns)
    rows = rows_of(log)
    assert [row["f_title"] for row in rows] == [title_at(n) for n in range(40)]
    assert [row["f_tags"] for row in rows][6:12:2] == [["a"], ["a"], []]
    assert rows[6]["f_price"] == 3.0
    assert rows[0]["f_price"] != rows[0]["f_price"]
    metrics = LabelerMetrics()
    metrics._show_catalogues(last)


def test_bad_rows_are_in_quarantine_and_stop_nothing():
    clock = Clock()
    log = memory_log(STREAM_OF, clock)
    fill(log)
    fill_items(log)
    for _ in range(40):
        run(log, clock, 10)
    said = {r.key: r for r in log.records(Partition("quarantine", 0))}
    assert len(said) == len(log.records(Partition("quarantine", 0))) == 2
    assert {r.value for r in said.values()} == {b"{", b'{"price": "much"}'}
    assert {dict(r.headers)["topic"] for r in said.values()} == {b"items"}
    assert len(rows_of(log)) == 40


def test_rows_may_lie_on_disk_and_a_disk_that_fails_holds_labels_up(tmp_path):
    clock = Clock()
    log = memory_log(STREAM_OF, clock)
    fill(log)
    fill_items(log)
    (tmp_path / "full").write_text("")
    where = [tmp_path / "full" / "rows"]
    labelling, _ = run(log, clock, 40, lambda name: RocksStorage(where[0]), 1)
    assert labelling.totals.catalogue_failures
    assert len(rows_of(log)) < 40
    where[0] = tmp_path / "rows"
    for _ in range(300):
        labelling.run_once(clock(), 0)
    labelling.close()
    assert [row["f_title"] for row in rows_of(log)] == [title_at(n) for n in range(40)]


def test_live_catalogues_get_heartbeats_with_a_key_from_who_owns_partition_0():
    beats = Heartbeats(replace(STREAM_OF, replayed=False, partitions=2))
    assert ITEMS not in beats.due([1], ZERO)
    assert ITEMS in beats.due([0, 1], ZERO)
    assert ITEMS not in beats.due([0, 1], ZERO + 1)
    assert ITEMS in beats.due([0, 1], ZERO + STREAM_OF.heartbeat_ms)
    assert beats.key(ITEMS) == HEARTBEAT_KEY
    assert beats.key(Partition("impressions", 0)) is None
