"""`everspun forget`: what is counted, said, waited for, and taken out of the archive."""

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from checkpointer import ArchiveConfig
from checkpointer.archive import Archive
from checkpointer.archive.archive import Archiving
from checkpointer.store import open_store
from everspun.commands.data.forget import NOT_YET, forget
from everspun.config import Config
from everspun.forgetting import orders, standing, taken_back
from stream import Partition, StreamConfig, position
from stream.internal_topics import (
    FORGET,
    REJECT,
    BatchHeader,
    decode_examples,
    decode_verdict,
    encode_examples,
    examples_schema,
)
from stream.log import MemoryLog, topic_specs

STREAM = StreamConfig(partitions=1)
EXAMPLES, VERDICTS = Partition("examples", 0), Partition("verdicts", 0)
DAY_MS = 86_400_000


def rows(sources: list[str], positions: list[int]) -> pa.RecordBatch:
    n = len(sources)
    columns = {
        f.name: pa.array([""] * n, f.type) for f in examples_schema(()) if f.type == pa.string()
    }
    numbers = {
        f.name: pa.array(np.zeros(n), f.type) for f in examples_schema(()) if f.type != pa.string()
    }
    columns |= numbers | {"source": pa.array(sources), "position": pa.array(positions, pa.int64())}
    return pa.record_batch(
        [columns[f.name] for f in examples_schema(())], schema=examples_schema(())
    )


class Site:
    def __init__(self, root: Path):
        self.config = Config(stream=STREAM, archive=ArchiveConfig(root=str(root)))
        self.log = MemoryLog(lambda: 7)
        for spec in topic_specs(STREAM):
            self.log.create(spec.name, spec.partitions)
        self.append("label/0", 0, position(4), ["ann", "bob", "ann", "cid"], [0, 1, 2, 3])
        self.archive()

    def append(
        self,
        chain: str,
        start: int,
        end: int,
        sources: list[str],
        positions: list[int],
        taken: int = 0,
    ):
        header = BatchHeader(chain, start, end, "s", "c", labelled=len(sources), rejected=taken)
        value = encode_examples(rows(sources, positions)) if sources else b""
        self.log.append(EXAMPLES, value, None, header.to_headers())

    def archive(self):
        archive = Archive(open_store(self.config.archive.root))
        core = Archiving.resumed(0, archive.head(0), 1 << 30, 1, "t")
        for record in self.log.records(EXAMPLES)[core.next_offset :]:
            for file, kept in core.add(record, 0):
                archive.write(file, kept)
        if core.waiting:
            archive.write(*core.close())

    def archived(self) -> list[str]:
        archive = Archive(open_store(self.config.archive.root))
        found = [r for path in archive.paths() for r in archive.records(path) if r.value]
        return [s for r in found for s in decode_examples(r.value).column("source").to_pylist()]

    def said(self):
        return [decode_verdict(r.value) for r in self.log.records(VERDICTS)]

    def forget(self, dry_run: bool = False) -> int:
        return forget(self.config, self.log, "ann", dry_run, 0.0)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "archive")


def test_a_dry_run_counts_and_changes_nothing(site: Site, capsys: pytest.CaptureFixture[str]):
    assert site.forget(dry_run=True) == 0
    assert (
        "rows in examples: 2 of label; in the archive: 2; verdicts that name it: 0"
        in capsys.readouterr().out
    )
    assert site.said() == []
    assert site.archived() == ["ann", "bob", "ann", "cid"]


def test_it_is_said_over_the_horizon_and_into_the_future_in_pieces_that_are_not_too_long(
    site: Site,
):
    assert site.forget() == NOT_YET
    said = site.said()
    assert {(one.rule, one.decision, one.source, one.vendor) for one in said} == {
        (FORGET, REJECT, "ann", None)
    }
    assert all(before.to_ms == after.from_ms for before, after in pairwise(said))
    assert max(one.to_ms - one.from_ms for one in said) <= STREAM.verdict_max_ms
    now_ms = time.time() * 1_000
    assert said[0].from_ms < now_ms - site.config.labeler.retract_horizon_ms
    assert said[-1].to_ms > now_ms + STREAM.verdict_max_ms / 2
    assert site.archived().count("ann") == 2, (
        "the archive waits: what is to be taken back is looked for there"
    )


def test_said_once_it_is_not_said_again_and_the_archive_follows_the_retraction(site: Site):
    assert site.forget() == NOT_YET
    said = len(site.said())
    site.append("retract/0", 0, position(said), ["ann", "ann", "bob"], [0, 2, -1], taken=2)
    assert site.forget() == NOT_YET, "its rows in the retraction are still to be archived"
    assert site.archived() == ["bob", "cid"]
    site.archive()
    assert site.archived() == ["bob", "cid", "ann", "ann", "bob"]
    assert site.forget() == 0
    assert site.archived() == ["bob", "cid", "bob"]
    assert len(site.said()) == said


def test_a_damaged_archive_is_named_and_does_not_keep_it_from_being_said(
    site: Site, capsys: pytest.CaptureFixture[str]
):
    path = next(Path(site.config.archive.root).rglob("*.parquet"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert site.forget(dry_run=True) == NOT_YET
    assert site.forget() == NOT_YET
    assert site.said()
    capsys.readouterr()
    site.append("retract/0", 0, position(len(site.said())), [], [])
    assert site.forget() == NOT_YET
    said = capsys.readouterr().out
    assert path.name in said
    assert "1 of the archive's files cannot be read" in said
    path.write_bytes(whole)
    site.archive()
    assert site.forget() == 0
    assert site.archived() == ["bob", "cid"]


def test_what_was_taken_back_is_counted_without_clean_rows_and_repeats(site: Site):
    site.append("retract/0", 0, position(2), ["ann", "ann", "ann"], [0, 2, -1], taken=2)
    site.append("retract/0", 0, position(2), ["ann", "ann", "ann"], [0, 2, -1], taken=2)
    assert taken_back(site.log.reader(), STREAM, "ann") == 2
    assert standing(site.log.reader(), STREAM, "ann").ends == {0: position(2)}


def test_orders_tile_the_interval():
    made = list(orders("s", 0, int(2.5 * DAY_MS), DAY_MS))
    assert [(one.from_ms, one.to_ms) for one in made] == [
        (0, DAY_MS),
        (DAY_MS, 2 * DAY_MS),
        (2 * DAY_MS, made[-1].to_ms),
    ]
    assert len({one.id for one in made}) == 3
    for one in made:
        one.check()
