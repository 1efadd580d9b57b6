"""What a replica gives a request of sequences: the bits that a label would be joined by (J6)."""

import json
import threading

import numpy as np
import pyarrow as pa
import pytest

from checkpointer.process.counts_writer import CountsWriter
from checkpointer.serving.request import parse
from checkpointer.store import Damaged
from checkpointer.store.files import MemoryFiles
from checkpointer.tables.served_counts import CountsReader
from everspun import loads
from labeler.counts import JoinedCounts
from learners.models import Encoder
from stream import Partition, Record
from stream.columns import Impressions, impression_schema
from stream.columns.counters import KeyClicks, KeySequences, no_sequences, updated
from stream.columns.counters.counted_rows import counted_keys
from stream.internal_topics import CountRecord, encode_counts
from stream.log import MemoryLog, topic_specs

CONFIG = loads(
    """
[run]
fraud = 0
[stream]
counts_bucket_ms = 1000
counts_slices = 2
window_ms = 5000
grace_ms = 0
[features.user]
normalise = ["lower"]
[features.clicked]
kind = "sequence"
by = "user"
of = "item"
max_values = 3
shares = "item"
normalise = ["nfc"]
default = "nothing"
pool = "attention"
against = "item"
[features.lately]
kind = "sequence"
by = "user"
of = "item"
max_values = 3
ages = true
pool = "sum"
[features.by_source]
kind = "sequence"
by = "source"
of = "vendor"
max_values = 2
idle_ms = 2000
[model]
kind = "mlp"
categorical = ["item", "clicked", "lately", "by_source", "item*lately"]
dim = 4
"""
)
STREAM, BUCKET, N = CONFIG.stream, 1_600_000_000, 40
UNTIL_MS = (BUCKET + 4) * 1_000
USERS = [("Ann", "ANN", "bob", "cy", "")[i % 5] for i in range(N)]
SOURCES = [f"source-{i % 7}" for i in range(N)]
TIMES = [UNTIL_MS - 3_000 + 977 * i for i in range(N)]


def record(number: int, rng: np.random.Generator) -> CountRecord:
    """Whose clicks changed: all of them."""
    said = {}
    for one in STREAM.sequence_columns.kept:
        names = pa.array(["ann", "bob", "cy"] if one.by == "user" else SOURCES[:7])
        name = "f_user" if one.by == "user" else "source"
        columns = pa.table({name: names})
        keys = np.sort(counted_keys(one.by, columns, STREAM.declared, STREAM.kept_keys[one.by]))
        n = 6 * len(keys)
        times = (BUCKET + number) * 1_000 - rng.integers(0, 100_000, n)
        values = pa.array([f"Å-{i}" for i in rng.integers(0, 9, n)])
        clicks = KeyClicks(np.repeat(keys, 6), times, values, np.ones(n, np.int64))
        before = no_sequences().find(keys)
        said[one.name] = updated(before, clicks, BUCKET + number, one.held)
    return CountRecord(number, BUCKET + number, 1_000, 2, {}, {}, sequences=said)


def request(**more: object) -> pa.Table:
    rows = [
        {"source": s, "item": f"Å-{i % 9}", "vendor": "v", "ts_ms": t, "features": {"user": u}}
        for i, (s, u, t) in enumerate(zip(SOURCES, USERS, TIMES, strict=True))
    ]
    rows[0]["features"] |= more  # type: ignore[operator]
    encoder = Encoder(CONFIG.model)
    body = json.dumps({"rows": rows}).encode()
    return parse(body, encoder.features, N, encoder.reads_time).columns


def joined(counts: list[CountRecord], arrival_ms: int) -> pa.Table:
    parts = [part for one in counts for part in encode_counts(one, 1 << 20)]
    index = JoinedCounts(STREAM, 0)
    index.need(0, arrival_ms)
    index.read(Record(i, 0, None, value, headers) for i, (value, headers) in enumerate(parts))
    schema = impression_schema(STREAM.features)
    given = {"item": [f"Å-{i % 9}" for i in range(N)], "f_user": USERS, "source": SOURCES}
    table = pa.table(
        [
            pa.array(given.get(f.name, [("" if pa.types.is_string(f.type) else 0)] * N), f.type)
            for f in schema
        ],
        schema=schema,
    )
    at, hashes = np.full(N, arrival_ms, np.int64), np.zeros(N, np.uint64)
    rows = Impressions(np.arange(N), at, np.array(TIMES), hashes, hashes, hashes, table)
    return index.joined(rows).table.append_column("ts_ms", pa.array(TIMES))


def stored(counts: list[CountRecord]) -> MemoryFiles:
    """Through the log and the checkpointer's thread."""
    log, files = MemoryLog(lambda: 1), MemoryFiles()
    for spec in topic_specs(STREAM):
        log.create(spec.name, spec.partitions)
    for one in counts:
        for value, headers in encode_counts(one, 1 << 20):
            log.append(Partition(STREAM.counts, 0), value, None, headers, 1)
    writer = CountsWriter(STREAM, log, files, "shop", threading.Event(), lambda topic: None)
    for _ in range(4):
        writer.turn(0)
    return files


def look(files: MemoryFiles) -> CountsReader:
    reader = CountsReader(files)
    reader.look("shop", CONFIG.model, 1)
    return reader


def test_a_request_is_given_the_bits_that_a_label_would_be():
    counts = [record(n, np.random.default_rng(n)) for n in (1, 2, 3)]
    newest = look(stored(counts)).newest
    assert newest is not None
    asked, label = newest.filled(request()), joined(counts, UNTIL_MS + STREAM.wait_ms)
    for name in ("f_clicked", "f_lately", "f_by_source"):
        assert asked.column(name).to_pylist() == label.column(name).to_pylist()
    assert {len(one) for one in asked.column("f_clicked").to_pylist()} == {0, 3}
    assert len(set(map(str, asked.column("f_lately").to_pylist()))) > 5
    encoder = Encoder(CONFIG.model)
    mine, theirs = encoder.encode(asked, serving=True), encoder.encode(label)
    assert len(mine.bags) == 4
    for one, other in zip(mine.bags, theirs.bags, strict=True):
        assert [column.tobytes() for column in one] == [column.tobytes() for column in other]
    assert mine.keys.tobytes() == theirs.keys.tobytes()


def test_what_is_too_old_is_given_to_nobody():
    quiet = CountRecord(1, BUCKET + 9, 1_000, 2, quiet=True)
    newest = look(stored([record(1, np.random.default_rng(1)), quiet])).newest
    assert newest is not None
    given = newest.filled(request())
    assert given.column("f_by_source").to_pylist() == [[]] * N
    assert [] in given.column("f_clicked").to_pylist()
    assert {len(one) for one in given.column("f_clicked").to_pylist()} == {0, 3}


def test_what_a_request_says_itself_stays():
    newest = look(stored([record(1, np.random.default_rng(1))])).newest
    assert newest is not None
    given = newest.filled(request(clicked=["own"], lately=["5", "6"]))
    assert given.column("f_clicked").to_pylist()[0] == ["own"]
    assert given.column("f_lately").to_pylist()[0] == ["5", "6"]
    assert len(given.column("f_clicked").to_pylist()[1]) == 3


def test_without_a_file_nobody_ever_clicked():
    newest = look(MemoryFiles()).newest
    assert newest is not None
    assert newest.filled(request()).column("f_clicked").to_pylist() == [[]] * N


def test_a_damaged_file_is_named():
    files = stored([record(1, np.random.default_rng(1))])
    value = files.read("shop/counters.arrow")
    for cut in (len(value) - 200, len(value) - 1_000):
        files.write("shop/counters.arrow", value[:cut])
        with pytest.raises(Damaged, match=r"counters\.arrow"):
            look(files)


def test_a_replica_is_told_of_a_sequence_by_what_it_is_kept():
    names = [feature.name for feature in Encoder(CONFIG.model).features]
    assert names == ["clicked", "user", "lately", "by_source"]
    assert CONFIG.model.declared["user"]["normalise"] == ["lower"]
    rows: KeySequences = no_sequences()
    assert len(rows.find(np.zeros(3, np.uint64)).lengths) == 3
