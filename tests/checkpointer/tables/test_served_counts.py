"""What a replica gives a request of counters: the bits that a label would be joined by (J5)."""

import threading

import numpy as np
import pyarrow as pa
import pytest

from checkpointer.process.counts_writer import CountsWriter
from checkpointer.store import Damaged
from checkpointer.store.files import MemoryFiles
from checkpointer.tables.catalogue_follower import CatalogueFollower
from checkpointer.tables.served_counts import CountsReader
from everspun import loads
from labeler.counts import JoinedCounts
from learners.models import Encoder
from stream import Partition, Record
from stream.columns import Impressions, impression_schema
from stream.columns.counters import KeyTotals, counter_keys
from stream.columns.counters.counted_rows import counted_keys
from stream.internal_topics import CountRecord, encode_counts
from stream.log import MemoryLog, topic_specs
from stream.monitoring import Loop

CONFIG = loads(
    """
[run]
fraud = 0
[stream]
counts_bucket_ms = 1000
counts_slices = 2
window_ms = 5000
grace_ms = 0
[features.colour]
normalise = ["lower"]
[features.rate]
kind = "counter"
of = "item"
half_life_ms = 4000
[features.shows]
kind = "counter"
of = "colour"
half_life_ms = 0
gives = "shows"
buckets = [1, 10, 100]
[model]
kind = "fm"
categorical = ["item", "shows"]
numeric = ["rate"]
dim = 4
"""
)
STREAM, BUCKET, N = CONFIG.stream, 1_600_000_000, 40
ITEMS = [f"item-{i}" for i in range(N)]
COLOURS = [("Red", "RED", "blue", "")[i % 4] for i in range(N)]


def record(number: int, rng: np.random.Generator) -> CountRecord:
    rows = {}
    for one in STREAM.counter_columns.counted:
        keys = counter_keys(STREAM.hash_key, [one.of])[one.of]
        values = pa.array(ITEMS if one.of == "item" else ["red", "blue"])
        name = "item" if one.of == "item" else "f_colour"
        hashed = counted_keys(one.of, pa.table({name: values}), STREAM.declared, keys)
        hashed = np.sort(hashed)
        many = rng.random((2, len(hashed))) * 50
        bucket = np.full(len(hashed), BUCKET + number, np.int64)
        rows[one.name] = KeyTotals(hashed, many[0], many[1], bucket)
    return CountRecord(number, BUCKET + number, 1_000, 2, rows, {})


def request(**more: object) -> pa.Table:
    columns = {"item": ITEMS, "f_colour": COLOURS}
    missing = np.full(N, np.nan, np.float32)
    columns |= {"f_rate": missing, "f_shows": missing, **more}
    return pa.table(columns)


def joined(counts: list[CountRecord], arrival_ms: int) -> pa.Table:
    parts = [part for one in counts for part in encode_counts(one, 1 << 20)]
    index = JoinedCounts(STREAM, 0)
    index.need(0, arrival_ms)
    index.read(Record(i, 0, None, value, headers) for i, (value, headers) in enumerate(parts))
    schema = impression_schema(STREAM.features)
    given = {"item": ITEMS, "f_colour": COLOURS}
    table = pa.table(
        [
            pa.array(given.get(f.name, [("" if pa.types.is_string(f.type) else 0)] * N), f.type)
            for f in schema
        ],
        schema=schema,
    )
    at, hashes = np.full(N, arrival_ms, np.int64), np.zeros(N, np.uint64)
    rows = Impressions(np.arange(N), at, at, hashes, hashes, hashes, table)
    return index.joined(rows).table


def served(counts: list[CountRecord]) -> CountsReader:
    """Through the log, the checkpointer's thread, the store and a replica's look."""
    log, files = MemoryLog(lambda: 1), MemoryFiles()
    for spec in topic_specs(STREAM):
        log.create(spec.name, spec.partitions)
    for one in counts:
        for value, headers in encode_counts(one, 1 << 20):
            log.append(Partition(STREAM.counts, 0), value, None, headers, 1)
    writer = CountsWriter(STREAM, log, files, "shop", threading.Event(), lambda topic: None)
    for _ in range(4):
        writer.turn(0)
    reader = CountsReader(files)
    reader.look("shop", CONFIG.model, 1)
    return reader


def test_a_request_is_given_the_bits_that_a_label_would_be():
    counts = [record(n, np.random.default_rng(n)) for n in (1, 2, 3)]
    newest = served(counts).newest
    assert newest is not None
    given = newest.filled(request())
    until_ms = (BUCKET + 4) * 1_000
    label = joined(counts, until_ms + STREAM.wait_ms)
    for name in ("f_rate", "f_shows"):
        mine, theirs = (t.column(name).to_numpy().tobytes() for t in (given, label))
        assert mine == theirs
    assert len(set(given.column("f_rate").to_pylist())) == N
    assert newest.age_s(until_ms + 7_000) == 7.0
    encoder = Encoder(CONFIG.model)
    asked, learned = encoder.encode(given), encoder.encode(label)
    assert asked.keys.tobytes() == learned.keys.tobytes()
    assert asked.numbers.tobytes() == learned.numbers.tobytes()


def test_what_a_request_says_itself_stays():
    newest = served([record(1, np.random.default_rng(1))]).newest
    assert newest is not None
    said = np.where(np.arange(N) < 3, 0.5, np.nan).astype(np.float32)
    given = newest.filled(request(f_rate=said)).column("f_rate").to_pylist()
    assert given[:3] == [0.5] * 3
    assert 0.5 not in given[3:]


def test_without_a_file_nobody_was_ever_shown_anything():
    reader = CountsReader(MemoryFiles())
    reader.look("shop", CONFIG.model, 1)
    assert reader.newest is not None
    given = reader.newest.filled(request())
    assert given.column("f_rate").to_pylist() == pytest.approx([1 / 20] * N)
    assert given.column("f_shows").to_pylist() == [0.0] * N
    assert reader.newest.age_s(5) is None


def test_a_damaged_file_is_named_and_what_is_held_stays():
    files = MemoryFiles()
    reader = CountsReader(files)
    reader.look("shop", CONFIG.model, 1)
    held = reader.newest
    files.write("shop/counters.arrow", b"\x00" * 40)
    with pytest.raises(Damaged, match=r"counters\.arrow"):
        reader.look("shop", CONFIG.model, 10_000)
    assert reader.newest is held


def test_a_clock_that_is_set_back_holds_up_no_look():
    files = MemoryFiles()
    reader = CountsReader(files)
    reader.look("shop", CONFIG.model, 7_200_000)
    before = reader.newest
    reader.look("shop", CONFIG.model, 7_200_001)
    assert reader.newest is before
    reader.look("shop", CONFIG.model, 3_600_000)
    assert reader.newest is not before
    after = reader.newest
    reader.look("shop", CONFIG.model, 3_600_001)
    assert reader.newest is after


class Stuck(MemoryLog):
    """Its reader fails, and cannot be closed."""

    def reader(self):
        reader = super().reader()

        def fails(*arguments):
            raise KeyError("a fault of the client")

        reader.poll = reader.close = fails  # type: ignore[method-assign]
        return reader


def test_a_reader_that_cannot_be_closed_does_not_end_the_thread_that_writes(caplog):
    log, stop, pauses = Stuck(lambda: 1), threading.Event(), []
    log.create(STREAM.counts, 1)

    def wait(timeout=None):
        pauses.append(timeout)
        if len(pauses) == 3:
            stop.set()

    stop.wait = wait  # type: ignore[method-assign]
    writer = CountsWriter(STREAM, log, MemoryFiles(), "shop", stop, lambda topic: None)
    writer._run(Loop(lambda: 0.0))
    assert len(pauses) == 3
    assert "cannot be closed" in caplog.text


def test_no_fault_ends_the_thread_that_writes():
    stop, turns = threading.Event(), []

    class Failing(CountsWriter):
        def turn(self, wait_ms: int) -> None:
            turns.append(wait_ms)
            if len(turns) > 2:
                stop.set()
            raise KeyError("a fault of ours")

    writer = Failing(STREAM, MemoryLog(lambda: 1), MemoryFiles(), "shop", stop, lambda topic: None)
    stop.wait = lambda timeout=None: stop.is_set()  # type: ignore[method-assign]
    loop = Loop(lambda: 0.0)
    writer._run(loop)
    assert len(turns) == 3
    assert not loop.is_turning


def test_no_fault_ends_the_thread_that_reads_catalogues():
    follower = CatalogueFollower(STREAM, MemoryLog(lambda: 1), 1_000)
    follower._stop.wait = lambda timeout=None: follower._stop.is_set()  # type: ignore[method-assign]

    def fails() -> None:
        if follower.failures == 2:
            follower._stop.set()
        raise KeyError("a fault of ours")

    follower._read = fails  # type: ignore[method-assign]
    follower._run()
    assert follower.failures == 3
