"""The archiver over a log in memory and a directory: what it takes up, and what it waits for."""

import pytest

from checkpointer.archive.archiver import Archiver
from checkpointer.config import ArchiveConfig
from checkpointer.metrics import ArchiverMetrics
from checkpointer.store import NewerFormat
from stream import Partition, StreamConfig
from stream.internal_topics import BatchHeader
from stream.log import MemoryLog

STREAM = StreamConfig(partitions=1)
AT = Partition(STREAM.examples, 0)


@pytest.fixture
def log():
    made = MemoryLog(lambda: 0)
    made.create(STREAM.examples, 1)
    return made


def extend(log, count):
    for start in range(log.end(AT), log.end(AT) + count):
        header = BatchHeader("label/0", start * 10, start * 10 + 10, "s", "c")
        log.append(AT, b"", headers=header.to_headers())


def an_archiver(log, root):
    return Archiver(STREAM, ArchiveConfig(root=str(root)), log, ArchiverMetrics())


def archive_all(log, root):
    archiver = an_archiver(log, root)
    archiver.run_once(0)
    archiver.close()
    return archiver


def offsets(archiver):
    archive = archiver.archive
    return [r.offset for path in archive.paths(0) for r in archive.records(path)]


@pytest.mark.parametrize("content", [b"", b"[", b"[" * 50_000, b'{"next_offset":1e999}'])
def test_a_damaged_head_is_made_anew_from_the_newest_file_that_can_be_read(log, tmp_path, content):
    for _ in range(2):
        extend(log, 5)
        archiver = archive_all(log, tmp_path)
    head = archiver.archive.head(0)
    (tmp_path / "p0.json").write_bytes(content)
    extend(log, 5)
    newest = tmp_path / archiver.archive.paths(0)[-1]
    archiver = archive_all(log, tmp_path)
    assert archiver.archive.head(0).next_offset == 15
    assert archiver.archive.head(0).ends == {"label/0": (150, head.ends["label/0"][1])}
    assert offsets(archiver) == list(range(15))
    (tmp_path / "p0.json").write_bytes(content)
    newest.write_bytes(b"")
    for later in sorted(newest.parent.glob("p0-*"))[2:]:
        later.unlink()
    assert offsets(archive_all(log, tmp_path)) == list(range(15))


def test_a_head_of_a_later_version_is_left_as_it_is(log, tmp_path):
    extend(log, 5)
    archive_all(log, tmp_path)
    newer = (tmp_path / "p0.json").read_text().replace('"format": 1', '"format": 2')
    (tmp_path / "p0.json").write_text(newer)
    with pytest.raises(NewerFormat):
        archive_all(log, tmp_path)
    assert (tmp_path / "p0.json").read_text() == newer
