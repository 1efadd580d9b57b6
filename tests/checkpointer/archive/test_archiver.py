"""The archiver over a log in memory and a directory: what it takes up, and what it waits for."""

import threading
from collections import deque

import pytest

from checkpointer.archive.archive import Archive
from checkpointer.archive.archived_log import ArchivedLog
from checkpointer.archive.archiver import Archiver
from checkpointer.config import ArchiveConfig
from checkpointer.metrics import ArchiverMetrics
from checkpointer.store import NewerFormat
from checkpointer.store.files import MemoryFiles
from learners import LearnerConfig
from learners.pacing import events
from learners.pacing import instructions as do
from learners.process import LearnerMetrics
from learners.process.examples_reader import ExamplesReader
from stream import Partition, StreamConfig
from stream.internal_topics import BatchHeader
from stream.log import MemoryLog
from stream.monitoring import TimeLimit

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


class RefusingFiles(MemoryFiles):
    """Answer 403 while they are told to."""

    refuse = False

    def _ask(self, path):
        if self.refuse:
            raise PermissionError(13, "403 Forbidden", path)

    def read(self, path):
        self._ask(path)
        return super().read(path)

    def write(self, path, data):
        self._ask(path)
        super().write(path, data)

    def below(self, path):
        self._ask(path)
        return super().below(path)


def failing_s(metrics):
    return metrics.registry.get_sample_value("everspun_archive_failing_s")


def wait(reached):
    limit = TimeLimit(60)
    while not reached():
        assert not limit.over
        threading.Event().wait(0.01)


def test_a_store_that_refuses_is_waited_for_and_no_record_is_lost(log, tmp_path):
    archiver = an_archiver(log, tmp_path)
    files = RefusingFiles()
    archiver.archive = Archive(files)
    extend(log, 5)
    files.refuse = True
    assert archiver.run_once(0) == 0
    assert failing_s(archiver.metrics) > 0
    files.refuse = False
    wait(lambda: archiver.run_once(0))
    assert failing_s(archiver.metrics) == 0
    files.refuse = True
    archiver.run_once(10**9)  # the file is due, and cannot be written
    archiver.close()
    files.refuse = False
    wait(lambda: archiver.run_once(0))
    archiver.close()
    assert offsets(archiver) == list(range(5))


def test_a_learner_waits_for_an_archive_whose_store_refuses(log, tmp_path):
    extend(log, 5)
    files = RefusingFiles()
    archiver = an_archiver(log, tmp_path)
    archiver.archive = archive = Archive(files)
    archiver.run_once(0)
    archiver.close()
    log.delete_below(AT, 5)
    given, metrics, files.refuse = deque(), LearnerMetrics(), True
    reader = ExamplesReader(
        ArchivedLog(log, archive, STREAM.examples),
        STREAM,
        LearnerConfig(),
        "group",
        "member",
        given.append,
        lambda: 0,
        metrics,
    )
    reader.start()
    wait(lambda: any(isinstance(one, events.Assigned) for one in given))
    reader.order(do.Seek(1, 0, 0))
    wait(lambda: failing_s(metrics) > 0)
    files.refuse = False
    wait(lambda: any(isinstance(one, events.Records) for one in given))
    reader.stop()
    assert not [one for one in given if isinstance(one, BaseException)]
    batches = [b for one in given if isinstance(one, events.Records) for b in one.batches]
    assert [batch.start for batch in batches] == [0, 10, 20, 30, 40]
    assert failing_s(metrics) == 0
