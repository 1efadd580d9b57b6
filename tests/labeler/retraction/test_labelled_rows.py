"""Rows of `examples` read back from an arrival on: where it begins, what counts, and the archive
below the log (C2)."""

from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointer.archive import Archive, ArchivedLog
from checkpointer.archive.archive import Archiving
from checkpointer.store.files import MemoryFiles
from labeler.join import LabelStrategy
from labeler.retraction import labelled_rows
from labeler.retraction.labelled_rows import LabelledRows
from stream import Partition, position
from stream.internal_topics import BatchHeader, encode_examples, examples_schema
from stream.log import Log, MemoryLog

EXAMPLES = Partition("examples", 0)
READINGS = (LabelStrategy("label", 1, 1, 1), LabelStrategy("late", 2, 2, 2))
COUNT = 600
SCHEMA = examples_schema(())


def append(log: MemoryLog, chain: str, start: int, end: int, arrival_ms: int) -> None:
    values = {
        "position": position(start),
        "arrival_ms": arrival_ms,
        "ts_ms": arrival_ms,
        "click_delay_ms": -1,
    }
    columns = [
        pa.array([values.get(f.name, "" if f.type == pa.string() else 0)], f.type) for f in SCHEMA
    ]
    rows = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
    header = BatchHeader(
        chain, position(start), position(end), "s", "c", labelled=1, arrival_max_ms=arrival_ms
    )
    log.append(EXAMPLES, encode_examples(rows), None, header.to_headers())


@pytest.fixture
def log() -> MemoryLog:
    """COUNT labels, each ten ms after the one before; every third has a late row 500 ms behind
    it; some repeats."""
    made = MemoryLog(lambda: 0)
    made.create("examples", 1)
    for n in range(COUNT):
        append(made, "label/0", n, n + 1, 10 * n)
        if n % 3 == 0 and n >= 50:
            append(made, "late/0", n - 50, n - 47, 10 * (n - 50))
        if n % 50 == 49:
            append(made, "label/0", n - 5, n - 4, 10 * (n - 5))
    return made


def read(
    log: Log, from_ms: int, label_strategies: tuple[LabelStrategy, ...] = READINGS
) -> Iterator[tuple[str, int]]:
    for one in LabelledRows(log, EXAMPLES, label_strategies, 100).since(from_ms):
        yield one.kind, one.rows.column("arrival_ms")[0].as_py()


@pytest.mark.long
@pytest.mark.parametrize("from_ms", [0, 5, 2_000, 5_985, 99_999])
def test_every_row_from_then_on_comes_once_and_few_before(log: MemoryLog, from_ms: int):
    every = list(read(log, 0))
    assert [ms for kind, ms in every if kind == "label"] == list(range(0, 10 * COUNT, 10))
    found = list(read(log, from_ms))
    assert [one for one in found if one[1] >= from_ms] == [
        one for one in every if one[1] >= from_ms
    ]
    assert len(found) == len(set(found))
    if from_ms == 2_000:
        assert len(found) < len(every) - 200, "it begins where those rows are"


@pytest.mark.long
def test_what_is_not_wanted_is_folded_and_not_read(log: MemoryLog, monkeypatch: pytest.MonkeyPatch):
    """Repeats are told from what they repeat, whether that was read or not."""
    every, reads = list(read(log, 0)), []
    decode = labelled_rows.decode_examples
    monkeypatch.setattr(
        labelled_rows, "decode_examples", lambda value: reads.append(value) or decode(value)
    )
    third = {r.value: n for n, r in enumerate(log.records(EXAMPLES)) if n % 3 == 0}
    found = [
        (one.kind, one.rows.column("arrival_ms")[0].as_py())
        for one in LabelledRows(log, EXAMPLES, READINGS, 100).since(0, third.__contains__)
    ]
    assert 0 < len(found) < len(every) // 2
    assert set(found) <= set(every)
    assert len(found) == len(set(found)) == len(reads)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from((0, 3_000, 20_000, 1 << 30)), st.lists(st.integers(0, 120), max_size=6))
def test_what_is_kept_says_the_same_as_the_log(bytes_max: int, places: list[int]):
    log = MemoryLog(lambda: 0)
    log.create("examples", 1)
    keeps = LabelledRows(log, EXAMPLES, READINGS, 7, bytes_max)
    for turn, place in enumerate(places):
        for n in range(20 * turn, 20 * turn + 20):
            append(log, "label/0", n, n + 1, 10 * n)
            if n % 7 == 6:
                append(log, "late/0", n - 6, n + 1, 10 * n - 60)
            if n % 11 == 10:
                append(log, "label/0", n - 3, n - 2, 10 * (n - 3))
        if place % 3 == 0:
            keeps.forget(10 * place)
        said = [(one.kind, one.offset, one.rows) for one in keeps.since(10 * place)]
        fresh = LabelledRows(log, EXAMPLES, READINGS, 7)
        assert said == [(one.kind, one.offset, one.rows) for one in fresh.since(10 * place)]
        assert keeps.bytes <= bytes_max


def test_what_nobody_asks_for_any_more_is_not_kept(log: MemoryLog):
    rows = LabelledRows(log, EXAMPLES, READINGS, 100, 1 << 30)
    every = list(rows.since(0))
    before = rows.bytes
    rows.forget(3_000)
    assert 0 < rows.bytes < before
    rows._reader.poll = None  # type: ignore[assignment,method-assign]
    assert list(rows.since(3_000)) == [one for one in every if one.arrival_max_ms >= 3_000]
    rows.forget(1 << 40)
    assert rows.bytes == 0


def test_what_is_kept_is_read_once(log: MemoryLog):
    rows = LabelledRows(log, EXAMPLES, READINGS, 100, 1 << 30)
    assert list(rows.since(3_000))
    reader, polls = rows._reader, []
    poll = reader.poll
    reader.poll = lambda *given: polls.append(given) or poll(*given)
    every = [one.arrival_max_ms for one in rows.since(4_000)]
    assert (min(every), polls) == (4_000, [])
    append(log, "label/0", COUNT, COUNT + 1, 10 * COUNT)
    assert [one.arrival_max_ms for one in rows.since(10 * COUNT)] == [10 * COUNT]
    assert len(polls) == 1
    assert len(list(rows.since(0))) > len(every), "what was not read before is read now"
    rows.close()


def test_a_log_that_ends_before_what_was_read_is_read_anew(log: MemoryLog):
    rows = LabelledRows(log, EXAMPLES, READINGS, 100, 1 << 30)
    assert list(rows.since(0))
    log.delete("examples")
    log.create("examples", 1)
    append(log, "label/0", 0, 1, 5)
    assert [one.arrival_max_ms for one in rows.since(0)] == [5]


def test_only_asked_for_readings_are_read(log: MemoryLog):
    assert {kind for kind, _ in read(log, 0, READINGS[:1])} == {"label"}


@pytest.mark.long
def test_what_retention_took_is_found_in_the_archive(log: MemoryLog):
    archive = Archive(MemoryFiles())
    core = Archiving.resumed(0, None, 100_000, 1, "t")
    for record in log.records(EXAMPLES):
        for file, kept in core.add(record, 0):
            archive.write(file, kept)
    archive.write(*core.close())
    every = list(read(log, 0))
    log.delete_below(EXAMPLES, 500)
    assert len(list(read(log, 0))) < len(every)
    whole = ArchivedLog(log, archive, "examples")
    for from_ms in (0, 2_000, 5_000):
        assert [one for one in read(whole, from_ms) if one[1] >= from_ms] == [
            one for one in every if one[1] >= from_ms
        ]


def chains(starts: Iterator[tuple[str, int]]) -> MemoryLog:
    made = MemoryLog(lambda: 0)
    made.create("examples", 1)
    for chain, n in starts:
        append(made, chain, n, n + 1, 10 * n)
    return made


@pytest.mark.parametrize("at", [49, 51, 52, 119])
@pytest.mark.parametrize("beyond", [1, 10_000])
def test_what_dangles_leads_nowhere_wherever_it_is_read_from(at: int, beyond: int):
    """A record above its chain's end, by a labeler whose send before it was lost, or forged."""

    def told() -> Iterator[tuple[str, int]]:
        for n in range(120):
            if n == at:
                yield "label/0", n + beyond
            yield from (("label/0", n), ("late/0", n))

    found = list(read(chains(told()), 500))
    for kind in ("label", "late"):
        assert [ms for one, ms in found if one == kind and ms >= 500] == list(range(500, 1_200, 10))


def test_a_gap_of_a_chain_is_passed_over():
    """As where retention was faster than the archiver."""
    made = chains(("label/0", n) for n in (*range(60), *range(90, 150)))
    assert [ms for _, ms in read(made, 0)] == [*range(0, 600, 10), *range(900, 1_500, 10)]
