"""Workers and what is kept for requests: counters, sequences and catalogues, while they change.
Each answers bit for bit what one process answers (X5, J5, J6, A5)."""

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from checkpointer import ServingConfig
from checkpointer.serving import Replica, of_rows
from checkpointer.store import Catalogue, CountsFile, Directory, Manifest, encode_counts_file
from checkpointer.tables import CatalogueFollower
from checkpointer.workers import FedReplica
from checkpointer.workers.board import Board
from checkpointer.workers.fed_replica import Feed
from checkpointer.workers.follower import Handover
from everspun import loads
from stream import Partition
from stream.columns.counters import (
    CounterTotals,
    KeyClicks,
    KeyTotals,
    Sequences,
    counter_keys,
    no_sequences,
    updated,
)
from stream.columns.counters.counted_rows import counted_keys
from stream.log import MemoryLog, topic_specs
from stream.monitoring import TimeLimit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memfd_create")
CONFIG = loads(
    """
[run]
fraud = 0
[stream]
counts_bucket_ms = 1000
[features.rate]
kind = "counter"
of = "item"
half_life_ms = 0
[features.shows]
kind = "counter"
of = "source"
half_life_ms = 0
gives = "shows"
buckets = [1, 10, 100]
[features.lately]
kind = "sequence"
by = "source"
of = "item"
max_values = 3
shares = "item"
pool = "sum"
[features.colour]
catalogue = "items"
[model]
kind = "fm"
categorical = ["item", "source", "shows", "lately", "colour"]
numeric = ["rate"]
dim = 4
table_optimizer = "sgd"
table_options = {rate = 1.0}
"""
)
STREAM, WORKERS, WAIT_S, BUCKET = CONFIG.stream, 3, 60.0, 1_600_000_000
SERVING = ServingConfig(poll_ms=5, follow_topic=False, workers=WORKERS)
ITEMS = [f"item-{i}" for i in range(6)]
SOURCES = [f"source-{i}" for i in range(4)]
ROWS = [
    {"source": s, "item": i, "vendor": "v", "features": {"colour": c} if c else {}}
    for s in SOURCES
    for i in ITEMS
    for c in ("", "blue")
]
BODY = json.dumps({"rows": ROWS}).encode()


def counts_of(bucket: int) -> bytes:
    """All totals and sequences as of a bucket."""
    draw = np.random.default_rng(bucket)
    totals = {}
    for one in STREAM.counter_columns.counted:
        keys = counter_keys(STREAM.hash_key, [one.of])[one.of]
        columns = pa.table({one.of: ITEMS if one.of == "item" else SOURCES})
        hashed = np.sort(counted_keys(one.of, columns, STREAM.declared, keys))
        shown, clicked = draw.random((2, len(hashed))) * 50
        at = np.full(len(hashed), bucket, np.int64)
        totals[one.name] = CounterTotals(KeyTotals(hashed, shown, clicked, at))
    kept = {}
    for said in STREAM.sequence_columns.kept:
        keys = STREAM.kept_keys[said.by]
        columns = pa.table({"source": SOURCES})
        hashed = np.sort(counted_keys(said.by, columns, STREAM.declared, keys))
        n = 5 * len(hashed)
        times = 1_000 * bucket - draw.integers(0, 10_000, n)
        clicks = KeyClicks(
            np.repeat(hashed, 5), times, pa.array(draw.choice(ITEMS, n)), np.ones(n, np.int64)
        )
        kept[said.name] = Sequences(updated(no_sequences().find(hashed), clicks, bucket, said.held))
    given = STREAM.sequence_columns.served(kept, bucket)
    return encode_counts_file(
        CountsFile(bucket, 1_000, STREAM.negative_rate, STREAM.kept_keys, totals, given)
    )


class Fleet:
    """One process, a follower, and workers; all with catalogues of one log."""

    def __init__(self, root: str, train: Callable[..., Manifest]) -> None:
        self.root, self._train, self.number = root, train, 0
        self.model = CONFIG.model.name
        self.catalogue = Catalogue(Directory(root), self.model)
        self.log = MemoryLog(lambda: 1)
        for spec in topic_specs(STREAM):
            self.log.create(spec.name, spec.partitions)
        self.change()
        self.board, self.parent = Board(WORKERS), None
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind("")
        self.listener.listen()
        self.listener.setblocking(False)
        self.alone = self._made(Replica).start()
        self.follows = self._made(Replica, with_catalogues=False)
        self.handover = Handover(self.follows, self.board, self.listener)
        self.follows.start()
        self.workers = [self._made(FedReplica).start() for _ in range(WORKERS)]
        address = self.listener.getsockname()
        self.feeds = [
            Feed(address, self.board, self.board.workers[n], worker)
            for n, worker in enumerate(self.workers)
        ]

    def _made(self, kind: Any, with_catalogues: bool = True) -> Any:
        made = kind(self.root, self.model, SERVING, fallback=0.5, features=STREAM.features)
        if with_catalogues:
            made.fills.catalogues = CatalogueFollower(STREAM, self.log, 1 << 20)
        return made

    def change(self) -> None:
        """Another checkpoint, other counts, and other rows of the catalogue."""
        self.number += 1
        number, path = self.number, Path(self.root) / self.model
        path.mkdir(exist_ok=True)
        draft = path / "draft"
        draft.write_bytes(counts_of(BUCKET + number))
        draft.rename(path / "counters.arrow")
        at = Partition(STREAM.catalogues["items"], 0)
        for item in ITEMS[:4]:
            colour = {"colour": f"c{number}-{item}"}
            self.log.append(at, json.dumps(colour).encode(), item.encode(), (), number)
        rows = [dict(row, features={"colour": f"c{number}-{ITEMS[0]}"}) for row in ROWS]
        self._train(self.catalogue, number, [*ROWS, *rows], number / 7, CONFIG.model)

    def states(self) -> list[Any]:
        found = []
        for replica in (self.alone, *self.workers):
            served, counts = replica.served, replica.fills.counts
            newest = replica.fills.catalogues.newest
            found.append(
                (
                    served and served.manifest.number,
                    counts and counts.file.bucket,
                    newest and newest.age_s(0),
                )
            )
        return found

    def until_same(self) -> None:
        newest = (self.number, BUCKET + self.number, -self.number / 1_000)
        limit = TimeLimit(WAIT_S)
        while set(self.states()) != {newest}:
            assert not limit.over, self.states()
            self.handover.accept()
            for replica in (self.alone, self.follows):
                replica.fills._counts._look_at_ms = 0  # a bucket is over
            self.handover.tell()
            for feed in self.feeds:
                feed.turn(0.002)

    def close(self) -> None:
        for replica in (self.alone, self.follows, *self.workers):
            replica.close()
        self.listener.close()


def bits(replica: Replica) -> tuple[str, bytes]:
    said = replica.predict(BODY)
    assert not said["fallback"]
    return said["model_version"], said["probabilities"].tobytes()


@pytest.fixture
def fleet(tmp_path, train) -> Iterator[Fleet]:
    made = Fleet(str(tmp_path), train)
    yield made
    made.close()


def test_workers_answer_bit_for_bit_what_one_process_does_while_all_kept_state_changes(fleet):
    fleet.until_same()
    allowed, said = set[tuple[str, bytes]](), list[tuple[str, bytes]]()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            said.extend(bits(worker) for worker in fleet.workers)

    seen = set()
    asking = threading.Thread(target=ask)
    for step in range(4):
        expected = bits(fleet.alone)
        assert [bits(worker) for worker in fleet.workers] == [expected] * WORKERS
        assert expected not in seen
        seen.add(expected)
        allowed.add(expected)
        if step == 0:
            asking.start()
        if step < 3:
            fleet.change()
            fleet.until_same()
    stop.set()
    asking.join()
    assert said
    assert {version for version, _ in said} <= {version for version, _ in allowed}
    for worker in fleet.workers:
        rows = worker.fills.filled(table_of(worker)).to_pydict()
        same = fleet.alone.fills.filled(table_of(fleet.alone)).to_pydict()
        assert str(rows) == str(same)
        assert len(set(rows["f_colour"])) > 3
        assert max(map(len, rows["f_lately"])) == 3
        assert len(set(rows["f_rate"])) == len(ITEMS)


def table_of(replica: Replica) -> pa.Table:
    assert replica.served is not None
    return of_rows(ROWS, replica.served.features, True).columns
