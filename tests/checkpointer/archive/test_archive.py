"""The archive gives back the records that went in, and a log that goes on below what the broker
holds."""

import contextlib
import io

import pyarrow.parquet as pq
import pytest
from archived_history import BEGIN, HOUR, history, record
from hypothesis import given
from hypothesis import strategies as st

from checkpointer.archive.archive import Archive, Archiving
from checkpointer.archive.archived_log import ArchivedLog, Cursor
from checkpointer.cuts import EndsAtTime, find_spans, vector_at
from checkpointer.store import Damaged
from checkpointer.store.files import MemoryFiles
from stream import Partition, Record, StreamConfig, position
from stream.internal_topics import (
    Again,
    BatchHeader,
    decode_examples,
)
from stream.log import MemoryLog, OffsetOutOfRange, Unavailable


def archived(records: list[Record], archive: Archive, bytes_max: int = 1 << 20) -> Archiving:
    core = Archiving.resumed(0, archive.head(0), bytes_max, HOUR, "v1")
    for one in records:
        for file, kept in core.add(one, 0):
            archive.write(file, kept)
    if core.waiting:
        archive.write(*core.close())
    return core


def test_what_comes_out_is_what_went_in_bit_for_bit():
    archive, went_in = Archive(MemoryFiles()), history()
    archived(went_in, archive)
    assert [r for path in archive.paths(0) for r in archive.records(path)] == went_in
    files = [archive.describe(path) for path in archive.paths(0)]
    assert [f.first_offset for f in files] == [0, 4, 6, 9], "a file an event hour, by its first row"
    assert files[-1].next_offset == 12
    assert sum(f.rows for f in files) == 90


def test_files_are_found_in_one_look_among_whatever_else_lies_there():
    class Counted(MemoryFiles):
        looks = 0

        def below(self, path: str) -> list[str]:
            self.looks += 1
            return super().below(path)

        def names(self, path: str) -> list[str]:
            raise AssertionError("a folder at a time")

    files = Counted()
    archive = Archive(files)
    archived(history(), archive)
    found = archive.paths(0)
    for stray in ("p0-%020d (copy).parquet", "p0-%d²².parquet", "p²-%020d.parquet", "p0-%d.tmp"):
        files.contents[found[0].rpartition("/")[0] + "/" + stray % 0] = b""
    files.contents["p0-5.parquet"] = b""
    files.looks = 0
    assert archive.paths(0) == archive.paths() == found
    assert files.looks == 2
    log, partition = MemoryLog(lambda: BEGIN), Partition("examples", 0)
    log.create("examples", 1)
    for _ in range(12):
        log.append(partition, None)
    log.delete_below(partition, 12)
    reader = ArchivedLog(log, archive, "examples").reader()
    assert reader.beginning_offsets([partition]) == {partition: 0}


def test_any_engine_reads_the_columns():
    archive = Archive(MemoryFiles())
    archived(history(), archive)
    path = archive.paths(0)[0]
    assert path.startswith("date=2025-06-15/hour=15/p0-")
    table = pq.read_table(io.BytesIO(archive.files.read(path)))
    assert {"source", "label", "arrival_ms", "record"} <= set(table.column_names)


def test_a_record_that_nobody_can_read_keeps_its_bytes():
    archive = Archive(MemoryFiles())
    odd = [
        record(0, 0, 5, BEGIN),
        record(1, 5, 5, BEGIN)._replace(value=b"not arrow"),
        record(2, 10, 5, BEGIN),
    ]
    archived(odd, archive)
    assert [r for path in archive.paths(0) for r in archive.records(path)] == odd


def test_repeats_and_dangling_records_are_not_kept():
    archive, made = Archive(MemoryFiles()), history(4)
    stream = [
        *made[:2],
        made[0]._replace(offset=2),
        record(3, 900, 5, BEGIN),
        made[2]._replace(offset=4),
    ]
    core = archived(stream, archive)
    assert [r.offset for path in archive.paths(0) for r in archive.records(path)] == [0, 1, 4]
    assert core.repeats == 2


@pytest.mark.parametrize("died_at", range(12))
def test_an_archiver_that_dies_anywhere_leaves_the_same_records(died_at: int):
    """Killed after a file and before its pointer, then begun again with other sizes of files."""
    files, went_in = MemoryFiles(), history()
    archived(went_in[:died_at], Archive(files))
    pointer = files.contents.get("p0.json")
    archived(went_in[died_at : died_at + 2], Archive(files))
    if pointer is None:
        files.contents.pop("p0.json", None)
    else:
        files.contents["p0.json"] = pointer
    archive = Archive(files)
    head = archive.head(0)
    archived(went_in[head.next_offset if head else 0 :], archive, bytes_max=1)
    log = MemoryLog(lambda: BEGIN)
    log.create("examples", 1)
    for _ in range(len(went_in)):
        log.append(Partition("examples", 0), None)
    log.delete_below(Partition("examples", 0), len(went_in))
    assert [r.offset for r in drained(ArchivedLog(log, archive, "examples"))] == list(range(12))


def drained(log: ArchivedLog, from_offset: int = 0, at_once: int = 5) -> list[Record]:
    reader, partition = log.reader(), Partition("examples", 0)
    reader.assign([partition])
    reader.seek(partition, from_offset)
    found: list[Record] = []
    while reader.position(partition) < reader.end_offsets([partition])[partition]:
        found += reader.poll(at_once, 0).get(partition, [])
    return found


@pytest.mark.parametrize("retained_from", [0, 1, 5, 11, 12])
@pytest.mark.parametrize("from_offset", [0, 3, 11])
def test_the_log_goes_on_below_retention(retained_from: int, from_offset: int):
    archive, went_in = Archive(MemoryFiles()), history()
    archived(went_in[:11], archive)
    log, partition = MemoryLog(lambda: BEGIN), Partition("examples", 0)
    log.create("examples", 1)
    for one in went_in:
        log.append(partition, one.value, one.key, one.headers, one.timestamp_ms)
    log.delete_below(partition, min(retained_from, 11))
    long = ArchivedLog(log, archive, "examples")
    assert long.reader().beginning_offsets([partition]) == {partition: 0}
    assert drained(long, from_offset) == went_in[from_offset:]


def test_a_gap_between_archive_and_broker_is_no_silence():
    archive, went_in = Archive(MemoryFiles()), history()
    archived(went_in[:5], archive)
    log, partition = MemoryLog(lambda: BEGIN), Partition("examples", 0)
    log.create("examples", 1)
    for one in went_in:
        log.append(partition, one.value, one.key, one.headers, one.timestamp_ms)
    log.delete_below(partition, 8)
    with pytest.raises(OffsetOutOfRange, match=r"offset 5 is outside \[8, 12\]"):
        drained(ArchivedLog(log, archive, "examples"))


def test_paused_partitions_give_nothing_from_the_archive_either():
    archive, went_in = Archive(MemoryFiles()), history()
    archived(went_in, archive)
    log, partition = MemoryLog(lambda: BEGIN), Partition("examples", 0)
    log.create("examples", 1)
    for _ in went_in:
        log.append(partition, None)
    log.delete_below(partition, 12)
    reader = ArchivedLog(log, archive, "examples").reader()
    reader.assign([partition])
    reader.seek(partition, 0)
    reader.pause([partition])
    assert reader.poll(5, 0) == {}
    reader.resume([partition])
    assert [r.offset for r in reader.poll(3, 0)[partition]] == [0, 1, 2]


def test_a_person_is_forgotten_and_the_rest_reads_on():
    archive, went_in = Archive(MemoryFiles()), history()
    archived(went_in, archive)
    before = [r for path in archive.paths() for r in archive.records(path)]
    count = sum(
        (decode_examples(r.value).column("source").to_numpy(False) == "u3").sum()
        for r in before
        if r.value
    )
    assert archive.forget(["u3"]) == (count, [])
    assert count > 0
    assert archive.forget(["u3"]) == (0, [])
    after = [r for path in archive.paths() for r in archive.records(path)]
    assert [r.offset for r in after] == [r.offset for r in before]
    for one in after:
        header = BatchHeader.from_headers(one.headers)
        left = decode_examples(one.value) if one.value else None
        assert header.labelled == (left.num_rows if left else 0)
        assert left is None or "u3" not in left.column("source").to_pylist()


def test_a_retraction_comes_back_with_what_is_to_be_learned_again_and_without_who_is_forgotten():
    again = Again({"source": ["u3", "u9"], "vendor": ["v"]}, [7]).encode()
    went_in = [record(0, 0, 5, BEGIN), record(1, 5, 6, BEGIN, "retract/0", again=again)]
    archive = Archive(MemoryFiles())
    archived(went_in, archive)
    assert [r for path in archive.paths() for r in archive.records(path)] == went_in
    archive.forget(["u3"])
    left = [r for path in archive.paths() for r in archive.records(path)]
    assert Again.decode(BatchHeader.from_headers(left[1].headers).again).named == {
        "source": ["u9"],
        "vendor": ["v"],
    }


def test_a_damaged_file_is_refused_by_name():
    files = MemoryFiles()
    archive = Archive(files)
    archived(history(), archive)
    path = archive.paths(0)[0]
    files.contents[path] = files.contents[path][:-40]
    with pytest.raises(Damaged, match="date=2025-06-15/hour=15/p0-"):
        archive.records(path)


def span_at(at_ms: int, records: list[Record]) -> EndsAtTime:
    span = EndsAtTime(0, at_ms)
    for one in records:
        if span.add(one):
            break
    return span


def test_spans_tile():
    """From T1 to T2 and from T2 to T3 is T1 to T3, record for record."""
    made = history()
    moments = [BEGIN - 1, BEGIN + HOUR, BEGIN + HOUR + 1, BEGIN + 2 * HOUR + 7, BEGIN + 100 * HOUR]
    ends = [vector_at([span_at(at, made)], {0: 0})["label/0"] for at in moments]
    assert ends == sorted(ends)
    assert ends[0] == 0
    assert ends[-1] == 120
    for at, end in zip(moments, ends, strict=True):
        first = next(
            (r for r in made if BatchHeader.from_headers(r.headers).arrival_max_ms >= at), None
        )
        assert end == (120 if first is None else BatchHeader.from_headers(first.headers).start)


def test_looking_for_a_moment_in_a_log_that_falls_silent_ends():
    log, partition = MemoryLog(lambda: BEGIN), Partition("examples", 0)
    log.create("examples", 1)
    log.append(partition, None)
    reader = log.reader()
    reader.poll = lambda max_records, timeout_ms: {}
    with pytest.raises(Unavailable, match="nothing comes"):
        find_spans(reader, StreamConfig(partitions=1), BEGIN, lambda: None)


@given(st.integers(0, 12), st.integers(-1, 30))
def test_a_moment_of_which_records_are_gone_is_lacking(gone: int, hours: int):
    made, at_ms = history(), BEGIN + hours * HOUR
    log, partition = MemoryLog(lambda: BEGIN), Partition("examples", 0)
    log.create("examples", 1)
    for one in made:
        log.append(partition, one.value, one.key, one.headers, one.timestamp_ms)
    log.delete_below(partition, gone)
    (span,) = find_spans(log.reader(), StreamConfig(partitions=1), at_ms, lambda: None)
    left = [BatchHeader.from_headers(one.headers).arrival_max_ms for one in made[gone:]]
    whole = gone == 0 or (bool(left) and left[0] < at_ms)
    assert (span.lacks == "") == whole
    assert whole or f"records 0 to {gone - 1}, from " in span.lacks


def test_a_hole_between_archive_and_log_is_lacking():
    made, log, partition = history(), MemoryLog(lambda: BEGIN), Partition("examples", 0)
    log.create("examples", 1)
    for one in made:
        log.append(partition, one.value, one.key, one.headers, one.timestamp_ms)
    archive = Archive(MemoryFiles())
    archived(made[:5], archive)
    log.delete_below(partition, 8)
    reader = ArchivedLog(log, archive, "examples").reader()
    (span,) = find_spans(reader, StreamConfig(partitions=1), BEGIN + 100 * HOUR, lambda: None)
    assert span.lacks == "records 5 to 7"
    jumps = EndsAtTime(0, BEGIN + 100 * HOUR)
    for one in [*made[:5], *made[8:]]:
        jumps.add(one)
    assert jumps.lacks == "records 5 to 7"


def test_retractions_begin_where_labels_have_obeyed_verdicts():
    made = [
        record(0, 0, 10, BEGIN, verdicts_offset=3),
        record(1, position(2), 4, BEGIN, "retract/0"),
    ]
    made.append(record(2, 10, 10, BEGIN + HOUR, verdicts_offset=7))
    vector = vector_at([span_at(BEGIN + HOUR, made)], {0: 0})
    assert vector == {"label/0": 10, "late/0": 10, "retract/0": position(3)}
    assert vector_at([span_at(BEGIN, made)], {0: 0})["retract/0"] == position(3)
    assert vector_at([span_at(BEGIN, [])], {0: 55}) == {"label/0": 55, "late/0": 55, "retract/0": 0}


@given(st.data())
def test_a_flipped_byte_is_damage_or_changes_nothing(data: st.DataObject):
    """Whatever byte it is: no exception but Damaged, and never other records than those that
    went in."""
    archive = Archive(MemoryFiles())
    archived(history(4), archive)
    path = archive.paths(0)[0]
    whole, records = bytearray(archive.files.read(path)), archive.records(path)
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    archive.files.write(path, bytes(whole))
    with contextlib.suppress(Damaged):
        assert archive.records(path) == records


def test_a_file_that_could_not_be_read_comes_next_again():
    files, went_in = MemoryFiles(), history()
    archive = Archive(files)
    archived(went_in, archive)
    read, fails = files.read, [False, True, False, True, True]

    def away_for_a_moment(path):
        if fails and fails.pop(0):
            raise OSError("the store is away for a moment")
        return read(path)

    files.read = away_for_a_moment
    cursor, found = Cursor(archive, archive.paths(0), 0, 12), []
    for _ in range(20):
        with contextlib.suppress(OSError):
            found += cursor.take(5)
    assert found == went_in


def test_damage_is_named_before_anything_is_forgotten():
    """Whatever byte it is: what `verify` would find is not written as if it had been so."""
    archive = Archive(MemoryFiles())
    archived(history(4), archive)
    path = archive.paths(0)[0]
    whole, records = archive.files.read(path), archive.records(path)
    rows = archive.count(["u3"])
    assert archive.forget(["u3"]) == rows
    left, found = archive.records(path), set()
    assert left != records
    for at in range(4, len(whole), 23):
        flipped = whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
        archive.files.write(path, flipped)
        forgotten = archive.forget(["u3"])
        if forgotten.damaged:
            found.add("damage")
            assert archive.files.read(path) == flipped
            assert forgotten.rows == 0
            assert path in forgotten.damaged[0]
        else:
            found.add("whole")
            assert (forgotten, archive.records(path)) == (rows, left)
        archive.files.write(path, flipped)
        archive.count(["u3"])
    assert "damage" in found


def test_a_damaged_file_keeps_nobody_in_the_others():
    archive = Archive(MemoryFiles())
    archived(history(400), archive, bytes_max=2_000)
    paths = archive.paths()
    assert len(paths) > 2
    archive.files.write(paths[1], archive.files.read(paths[1])[:-9])
    rows, damaged = archive.count(["u3"])
    assert [paths[1] in line for line in damaged] == [True]
    assert archive.forget(["u3"]) == (rows, damaged)
    assert archive.count(["u3"]) == (0, damaged)
    assert rows > 0
