"""What counters, sequences and a catalogue of many keys cost where memory is bounded.

Keys are written to disk first, as a labeler's adder and its reading have written them. Then
labelled rows go through the adder, and impressions are joined, as `bench.kept` does. `memory_mb` is
the most that the process has grown by, files that the kernel maps for it left out; `mapped_mb` are
those. `load_s` is what a start takes to fill the rooms of both.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bench.labels.kept_rows import (
    A_SECOND,
    CLICKED,
    COUNTERS,
    PARTITIONS,
    ROWS,
    SEQUENCES,
    START_MS,
    impressions_of,
    long_tail,
    named,
    record_of,
    rows_of,
)
from labeler import LabelerConfig
from labeler.catalogues import CatalogueBegin, JoinedCatalogues
from labeler.counts import Adder, JoinedCounts, kept_state
from stream import CLOCK_MS, CONTROL, HEARTBEAT, Record, StreamConfig
from stream.columns import Feature
from stream.columns.counters import KeptState, KeySequences, KeyTotals, counter_keys
from stream.decoding.catalogues import HEARTBEAT_KEY
from stream.hashing import hash_strings
from stream.internal_topics import encode_counts
from stream.log.rows import RocksStorage, StoredRows

HELD, CHUNK, SEED, BUCKET_MS = 3, 100_000, 1, 60_000
#: Labels are so far ahead of the impressions that are joined, and so many records before the first.
BEHIND_MS, BEFORE = 30_000, 8
LIMITS = LabelerConfig()
TITLE = {"title": Feature(kind="text", catalogue="items")}


def kept_keys(keys: int, impressions: int, slices: int) -> dict[str, Any]:
    stream = StreamConfig(
        partitions=PARTITIONS,
        window_ms=600_000,
        grace_ms=0,
        declared=COUNTERS | SEQUENCES,
        counts_values_max=2 * keys,
        counts_slices=slices,
        sequences_bytes_max=1 << 30,
    )
    began, rss = time.perf_counter(), _anonymous_mb()
    with tempfile.TemporaryDirectory() as folder:
        dir = Path(folder)
        _fill(stream, dir / "counts", keys)
        shutil.copytree(dir / "counts", dir / "read")
        _told(f"{keys} keys are on disk after {time.perf_counter() - began:.0f} s")
        found = _measured(stream, dir, keys, impressions, rss)
        found |= _catalogue(dir, keys, impressions // 4, rss)
    found["state_us"] = round(found["add_us"] + found["join_us"], 2)
    return {"bench": "kept", "keys": keys, "impressions": impressions, "slices": slices} | found


def _told(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _anonymous_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def _mapped_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssFile")) / 1024


def _missed(stored: StoredRows) -> float:
    """Share of the rows that were asked for and not in memory."""
    return round(stored.misses / max(1, stored.hits + stored.misses), 3)


def _hashed(stream: StreamConfig, of: str, ranks: Any) -> Any:
    what = "item" if of == "item" else "user"
    return hash_strings(named(what, ranks), counter_keys(stream.hash_key, [of])[of])


def _fill(stream: StreamConfig, dir: Path, keys: int) -> None:
    """Every key was shown ten times and clicked once; every user has clicked so many items."""
    rng, state = np.random.default_rng(SEED), _opened(stream, dir)
    bucket = START_MS // BUCKET_MS - 1
    for first in range(0, keys, CHUNK):
        n = min(CHUNK, keys - first)
        ranks, buckets = np.arange(first, first + n), np.full(n, bucket)
        for one in stream.counter_columns.counted:
            hashes = _hashed(stream, one.of, ranks)
            state.totals[one.name].put(KeyTotals(hashes, np.full(n, 9.0), np.ones(n), buckets))
        for kept in stream.sequence_columns.kept:
            times = START_MS - np.sort(rng.integers(1, 10_000_000, (n, HELD)), 1).reshape(-1)
            items = named("item", long_tail(rng, keys, n * HELD))
            ends = np.arange(n + 1) * HELD
            hashes = _hashed(stream, kept.by, ranks)
            state.sequences[kept.name].put(KeySequences(hashes, buckets, ends, times, items))
        state.flush()
        if first // CHUNK % 10 == 9:
            _told(f"{first + n} keys written")
    place = {"number": 1, "bucket": bucket, "offset": 0, "since": 0, "places": [[bucket, 0]]}
    state.commit(place)
    state.stored.close()


def _opened(stream: StreamConfig, dir: Path) -> KeptState:
    return kept_state(stream, RocksStorage(dir), LIMITS.kept_bytes_max)


def _load_s(state: KeptState) -> float:
    """CPU seconds of the first look."""
    began = time.process_time()
    for kept in (*state.totals.values(), *state.sequences.values()):
        kept.find(np.zeros(0, np.uint64))
    return time.process_time() - began


def _measured(
    stream: StreamConfig, dir: Path, keys: int, impressions: int, rss: float
) -> dict[str, Any]:
    rng, at_ms, mapped = np.random.default_rng(SEED), START_MS, _mapped_mb()
    adder = Adder(stream, (), _opened(stream, dir / "counts"))
    adder.number = adder.written
    index = JoinedCounts(stream, 0, _opened(stream, dir / "read"), START_MS + stream.wait_ms)
    index.need(0, START_MS + stream.wait_ms)
    load_s = _load_s(adder.state) + _load_s(index.state)
    add_s = join_s = most_mb = mapped_mb = 0.0
    offset, records = 1, impressions // ROWS
    for i in range(records + BEFORE):
        n, span_ms = ROWS, ROWS * 1_000 // A_SECOND
        arrived = at_ms + np.sort(rng.integers(0, span_ms, n))
        at_ms += span_ms
        who, what = long_tail(rng, keys, n), long_tail(rng, keys, n)
        batch = rows_of(rng, who, what, arrived, rng.random(n) < CLICKED)
        record = record_of(batch, at_ms, i % PARTITIONS, i // PARTITIONS)
        asked = impressions_of(batch, stream.wait_ms - BEHIND_MS)
        began = time.process_time()
        adder.take(i % PARTITIONS, record)
        closed = adder.step()
        values = [v for one in closed for v in encode_counts(one, stream.record_bytes_max)]
        adder.commit()
        middle = time.process_time()
        index.read(Record(offset + k, 0, None, *value) for k, value in enumerate(values))
        if i >= BEFORE:
            index.need(0, int(asked.arrival_ms[0]))
            index.joined(asked)
        ended = time.process_time()
        offset += len(values)
        if i >= BEFORE:
            add_s, join_s = add_s + middle - began, join_s + ended - middle
        most_mb = max(most_mb, _anonymous_mb() - rss)
        mapped_mb = max(mapped_mb, _mapped_mb() - mapped)
    rows = records * ROWS
    for state in (adder.state, index.state):
        state.stored.close()
    return {
        "add_us": round(1e6 * add_s / rows, 2),
        "join_us": round(1e6 * join_s / rows, 2),
        "load_s": round(load_s, 1),
        "memory_mb": round(most_mb),
        "mapped_mb": round(mapped_mb),
    }


def _catalogue(dir: Path, keys: int, impressions: int, rss: float) -> dict[str, Any]:
    """Rows of a title, as a labeler has written them; then impressions are joined."""
    stream = StreamConfig(declared=TITLE)
    stored = StoredRows(RocksStorage(dir / "items"), LIMITS.catalogue_bytes_max)
    joined = JoinedCatalogues(stream, lambda name: stored, {"items": CatalogueBegin(0)})
    for first in range(0, keys, CHUNK):
        ranks = range(first, min(first + CHUNK, keys))
        names = [b"item-%d" % i for i in ranks]
        stored.storage.write(names, [orjson.dumps([f"the title of item {i}"]) for i in ranks])
    _told(f"{keys} rows of a catalogue are on disk")
    beat = ((CONTROL, HEARTBEAT.encode()), (CLOCK_MS, str(START_MS).encode()))
    joined.read("items", [Record(0, START_MS, HEARTBEAT_KEY, None, beat)])
    rng, join_s, most_mb = np.random.default_rng(SEED), 0.0, 0.0
    for _ in range(impressions // ROWS):
        items = long_tail(rng, keys, ROWS)
        times = np.full(ROWS, START_MS)
        batch = rows_of(rng, items, items, times, np.zeros(ROWS, np.bool_))
        asked = impressions_of(batch, 0)
        began = time.process_time()
        joined.joined(asked)
        join_s += time.process_time() - began
        most_mb = max(most_mb, _anonymous_mb() - rss)
    joined.close()
    rows = max(1, impressions // ROWS * ROWS)
    return {
        "catalogue_us": round(1e6 * join_s / rows, 2),
        "catalogue_misses": _missed(stored),
        "catalogue_memory_mb": round(most_mb),
    }
