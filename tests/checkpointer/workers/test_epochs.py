"""Places of rows are used again only once no process can read them (X5): tables against
dictionaries, read by workers that hear late, hold on to what they read, and are killed."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointer.tables import HEAD, VERSION_MAX, TableVersion
from checkpointer.tables.cells import DEAD, cell_of, key_at, tag_of
from checkpointer.tables.versioned_table import VersionedTable
from checkpointer.workers.epochs import READS_NONE, Epochs, HeldVersions, epoch_of

WORKERS, DIM, KEYS = 2, 2, 12
Rows = dict[int, float]


@dataclass
class Memory:
    """As the follower's."""

    epochs: Epochs
    generation: int

    def allocate(self, nbytes: int) -> Any:
        return np.zeros(nbytes, np.uint8)

    def oldest_read(self) -> int:
        return self.epochs.oldest(self.generation)


@dataclass
class Worker:
    held: HeldVersions
    heard: list[tuple[int, TableVersion, Rows]] = field(default_factory=list)  # not read yet
    reading: list[tuple[TableVersion, Rows]] = field(default_factory=list)  # the last one answers


class Play:
    """A follower's tables and its workers, each a step at a time, in any order."""

    def __init__(self, epochs: type[Epochs] = Epochs, held: type[HeldVersions] = HeldVersions):
        self.epochs, self.held = epochs(np.full(WORKERS, READS_NONE, np.int64)), held
        self.workers: dict[int, Worker] = {}
        self.generation, self.writes = 0, 0
        self.load([])

    def load(self, keys: list[int]) -> None:
        """A base, into tables of their own."""
        self.generation += 1
        self.table = VersionedTable(DIM, 4, memory=Memory(self.epochs, self.generation))
        self.rows: Rows = {}
        self.change(keys, [])

    def change(self, keys: list[int], gone: list[int]) -> None:
        self.writes += 1
        self.table.remove(np.array(sorted(set(gone)), np.uint64))
        found = np.array(sorted(set(keys)), np.uint64)
        self.table.add(found, np.full((len(found), DIM), self.writes, np.float32))
        self.table.publish()
        kept = {key: row for key, row in self.rows.items() if key not in gone}
        self.rows = kept | dict.fromkeys(found.tolist(), float(self.writes))
        for worker in self.workers.values():
            self.tell(worker)

    def tell(self, worker: Worker) -> None:
        """What is sent is arrays and numbers: the table does not know who makes a version of it."""
        epoch = epoch_of(self.generation, self.table.number)
        worker.heard.append((epoch, replace(self.table.current), dict(self.rows)))

    def begin(self, number: int) -> None:
        if number not in self.workers:
            self.epochs.enter(number)
            self.workers[number] = Worker(self.held())
            self.tell(self.workers[number])

    def kill(self, number: int) -> None:
        if self.workers.pop(number, None) is not None:
            self.epochs.leave(number)

    def hear(self, number: int) -> None:
        worker = self.workers.get(number)
        if worker is not None and worker.heard:
            epoch, version, rows = worker.heard.pop(0)
            worker.held.take(epoch, [version])
            worker.reading.append((version, rows))

    def finish(self, number: int) -> None:
        """A request of an earlier cut ends."""
        worker = self.workers.get(number)
        if worker is not None and len(worker.reading) > 1:
            del worker.reading[0]

    def state(self, number: int) -> None:
        worker = self.workers.get(number)
        if worker is not None:
            self.epochs.rise(number, worker.held.oldest())

    def check(self) -> None:
        self.table.validate()
        for worker in self.workers.values():
            for version, rows in worker.reading:
                assert {key: row for key in range(KEYS) if (row := read(version, key))} == rows
                keys, found = version.items()
                assert dict(zip(keys.tolist(), found[:, 0].tolist(), strict=True)) == rows
                asked = np.arange(KEYS, dtype=np.uint64)
                slots = version.find(asked)
                assert [key in rows for key in range(KEYS)] == (slots >= 0).tolist()


def read(version: TableVersion, key: int) -> float:
    """As `cells.slot_of` reads a row's first weight, 0 = there is none; but in a circle, which rows
    that were used again too soon may stand in, for a while alone."""
    tag = np.uint64(tag_of(np.uint64(key), version.secret))
    slot = 0
    for cells in (version.cells, version.old):
        at = cell_of(cells, version.words, np.uint64(key), tag) if len(cells) else -1
        if at >= 0:
            slot = int(cells[at]) & 0xFFFFFFFF
            break
    for _ in range(1_000):
        if not slot:
            return 0.0
        since, before = (int(word) for word in version.words[slot - 1, :2])
        if since & ~DEAD <= version.number:
            is_of_key = int(key_at(version.words, slot - 1)) == key
            is_there = is_of_key and not since & DEAD
            return float(version.weights[slot - 1, HEAD]) if is_there else 0.0
        slot = before
    raise AssertionError(f"key {key}: its rows stand in a circle")


def play(steps: list[tuple[str, Any, Any]], **kinds: Any) -> None:
    game = Play(**kinds)
    for name, one, two in steps:
        if name == "load":
            game.load(one)
        elif name == "change":
            game.change(one, two)
        else:
            getattr(game, name)(one)
        game.check()


NAMES = ("begin", "kill", "hear", "hear", "finish", "state", "state")
SOME = st.lists(st.integers(0, KEYS - 1), max_size=KEYS)
STEPS = st.one_of(
    st.tuples(st.just("load"), SOME, st.just([])),
    st.tuples(st.just("change"), SOME, SOME),
    st.tuples(st.just("change"), SOME, SOME),
    st.tuples(st.sampled_from(NAMES), st.integers(0, WORKERS - 1), st.none()),
    st.tuples(st.sampled_from(NAMES), st.integers(0, WORKERS - 1), st.none()),
)


@settings(deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_a_worker_reads_what_it_was_told_of_whatever_the_others_do(steps):
    play(steps)


def drawn(seed: int) -> list[tuple[str, Any, Any]]:
    draw = random.Random(seed)

    def some() -> list[int]:
        return [draw.randrange(KEYS) for _ in range(draw.randrange(KEYS))]

    steps: list[tuple[str, Any, Any]] = [("begin", n, None) for n in range(WORKERS)]
    for _ in range(40):
        if draw.random() < 0.5:
            steps.append(("change", some(), some()))
        elif draw.random() < 0.1:
            steps.append(("load", some(), []))
        else:
            steps.append((draw.choice(NAMES), draw.randrange(WORKERS), None))
    return steps


class NobodyReads(Epochs):
    """The writer asks no worker."""

    def oldest(self, generation: int) -> int:
        return VERSION_MAX


class OneAsked(Epochs):
    """The writer asks the first worker alone."""

    def oldest(self, generation: int) -> int:
        return Epochs(self._words[:1]).oldest(generation)


class EarlierReadNothing(Epochs):
    """Who reads earlier tables counts as a reader of none of these."""

    def oldest(self, generation: int) -> int:
        known = self._words >= epoch_of(generation, 0)
        return Epochs(np.where(known, self._words, READS_NONE)).oldest(generation)


class StatesTheNewest(HeldVersions):
    """A worker forgets the requests that go on."""

    def oldest(self) -> int:
        return self._newest


class StatesAtOnce(Epochs):
    """A worker that begins counts only once it has stated an epoch."""

    def enter(self, reader: int) -> None:
        pass


@pytest.mark.parametrize(
    "kinds",
    [
        {"epochs": NobodyReads},
        {"epochs": OneAsked},
        {"epochs": EarlierReadNothing},
        {"epochs": StatesAtOnce},
        {"held": StatesTheNewest},
    ],
)
def test_planted_bugs_are_caught(kinds):
    def fails(seed: int) -> bool:
        try:
            play(drawn(seed), **kinds)
        except AssertionError:
            return True
        return False

    assert any(fails(seed) for seed in range(100))
    for seed in range(20):
        play(drawn(seed))


def test_an_epoch_is_whole_and_ordered():
    words = np.full(3, READS_NONE, np.int64)
    epochs = Epochs(words)
    assert epochs.oldest(5) == VERSION_MAX
    epochs.enter(1)
    assert epochs.oldest(5) == 0
    epochs.rise(1, epoch_of(5, 7))
    assert (epochs.oldest(4), epochs.oldest(5), epochs.oldest(6)) == (VERSION_MAX, 7, 0)
    epochs.rise(1, epoch_of(4, 9))
    assert epochs.oldest(5) == 7
    epochs.enter(2)
    epochs.rise(2, epoch_of(6, 1))
    assert epochs.oldest(5) == 7
    epochs.leave(1)
    assert (epochs.oldest(5), epochs.oldest(6)) == (VERSION_MAX, 1)
    assert epoch_of(5, VERSION_MAX) < epoch_of(6, 0) < READS_NONE


def test_places_are_used_again_once_workers_have_gone_on():
    game = Play()
    game.begin(0)
    game.begin(1)
    for _ in range(50):
        game.change(list(range(KEYS)), [])
        for number in range(WORKERS):
            game.hear(number)
            game.finish(number)
            game.state(number)
    assert game.table.slots_used <= 5 * KEYS
    used = game.table.slots_used
    for _ in range(10):  # one stands still: nothing is used again
        game.change(list(range(KEYS)), [])
        game.hear(0)
        game.finish(0)
        game.state(0)
    assert game.table.slots_used >= used + 6 * KEYS
    game.kill(1)
    game.change(list(range(KEYS)), [])
    used = game.table.slots_used
    for _ in range(5):
        game.change(list(range(KEYS)), [])
        game.hear(0)
        game.finish(0)
        game.state(0)
    assert game.table.slots_used == used
