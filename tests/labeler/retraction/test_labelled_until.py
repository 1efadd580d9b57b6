"""How far labels are, read off the end of `examples`: what is new is read, and nothing twice
(L3)."""

from collections.abc import Iterable

import pytest

from labeler.retraction.labelled_until import LOOK_RECORDS, LabelledUntil
from stream import Partition, Record, StreamConfig, position
from stream.internal_topics import BatchHeader
from stream.log import MemoryLog

PARTITIONS, COUNT = 3, 40
FIRST_MS = 1_000


def stream(jump_max_ms: int = 100_000) -> StreamConfig:
    return StreamConfig(partitions=PARTITIONS, jump_max_ms=jump_max_ms, heartbeat_ms=100)


class CountingLog(MemoryLog):
    """Counts what its readers were given."""

    def __init__(self) -> None:
        super().__init__(lambda: 0)
        self.given = 0

    def reader(self):  # type: ignore[no-untyped-def]
        reader = super().reader()
        poll = reader.poll

        def counted(max_records: int, timeout_ms: int) -> dict[Partition, list[Record]]:
            found = poll(max_records, timeout_ms)
            self.given += sum(map(len, found.values()))
            return found

        reader.poll = counted
        return reader


@pytest.fixture
def log() -> CountingLog:
    """COUNT impressions of each partition, ten ms one after the other, and no labels."""
    made = CountingLog()
    made.create("examples", PARTITIONS)
    made.create("impressions", PARTITIONS)
    for p in range(PARTITIONS):
        for n in range(COUNT):
            made.append(Partition("impressions", p), b"x", None, (), FIRST_MS + 10 * n)
    return made


def label(log: MemoryLog, p: int, rows: Iterable[int], kind: str = "label") -> None:
    """A record for each of these impressions."""
    for n in rows:
        header = BatchHeader(
            f"{kind}/{p}", position(n), position(n + 1), "s", "c", arrival_max_ms=FIRST_MS + 10 * n
        )
        log.append(Partition("examples", p), None, None, header.to_headers())


def looked(until: LabelledUntil, asked_ms: int, kind: str = "label") -> list[int]:
    """Of each partition, after a look."""
    until.look({(p, kind): asked_ms for p in range(PARTITIONS)})
    return [until.until_ms((p, kind)) for p in range(PARTITIONS)]


def test_labels_reach_the_arrival_of_the_first_impression_without_one(log: CountingLog):
    until = LabelledUntil(log, stream(), ["label"])
    assert looked(until, 5_000) == [0, 0, 0]
    label(log, 0, range(COUNT))
    label(log, 1, range(10))
    assert looked(until, 5_000) == [FIRST_MS + 10 * (COUNT - 1), FIRST_MS + 100, 0]
    log.append(Partition("impressions", 0), b"x", None, (), 50_000)
    assert looked(until, 5_000)[0] == 50_000


def test_a_stamp_that_is_judged_first_is_not_believed(log: CountingLog):
    label(log, 0, range(COUNT))
    log.append(Partition("impressions", 0), b"x", None, (), 50_000)
    until = LabelledUntil(log, stream(jump_max_ms=1_000), ["label"])
    assert looked(until, 5_000)[0] == FIRST_MS + 10 * (COUNT - 1)


def test_a_look_reads_what_is_new_and_impressions_only_where_labels_are_short(log: CountingLog):
    for p in range(PARTITIONS):
        label(log, p, range(20))
    until = LabelledUntil(log, stream(), ["label"])
    assert looked(until, FIRST_MS + 150) == [FIRST_MS + 190] * PARTITIONS
    assert log.given == 20 * PARTITIONS
    label(log, 2, range(20, 25))
    assert looked(until, FIRST_MS + 190) == [FIRST_MS + 190, FIRST_MS + 190, FIRST_MS + 240]
    assert log.given == 20 * PARTITIONS + 5
    looked(until, FIRST_MS + 195)
    assert log.given == 20 * PARTITIONS + 5 + 2, "one impression of each that is short"


def test_readings_are_told_apart(log: CountingLog):
    until = LabelledUntil(log, stream(), ["label", "late"])
    label(log, 0, range(30))
    label(log, 0, range(5), "late")
    assert looked(until, 0) == [FIRST_MS + 290, 0, 0]
    assert looked(until, 0, "late") == [FIRST_MS + 40, 0, 0]


def test_of_what_lies_far_behind_the_last_records_are_read(log: CountingLog):
    until = LabelledUntil(log, stream(), ["label", "late"])
    label(log, 0, range(3), "late")
    assert looked(until, 0, "late")[0] == FIRST_MS + 20
    label(log, 0, range(LOOK_RECORDS + 5))
    assert looked(until, 0, "late")[0] == 0, "not to be seen among the last records"
    assert looked(until, 0)[0] == FIRST_MS + 10 * (LOOK_RECORDS + 4)
    assert log.given == 3 + LOOK_RECORDS


def test_an_end_that_lost_its_tail_is_read_anew(log: CountingLog):
    label(log, 0, range(30))
    until = LabelledUntil(log, stream(), ["label"])
    assert looked(until, 0)[0] == FIRST_MS + 290
    log.delete("examples")
    log.create("examples", PARTITIONS)
    label(log, 0, range(10))
    assert looked(until, 0)[0] == FIRST_MS + 90
