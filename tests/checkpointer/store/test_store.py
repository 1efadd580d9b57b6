"""One contract for all stores, and: kill the writer at any step, and a reader sees the old state
or the new one."""

import errno
import os
import threading

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpointer.retention import Keep
from checkpointer.store.announcement import Ref
from checkpointer.store.catalogue import Catalogue
from checkpointer.store.files import MemoryFiles, StoreFault
from checkpointer.store.fsspec_store import Directory, NoStore, ObjectStore, open_store
from checkpointer.store.timed_store import CALLS_MAX, StoreTimeouts, TimedFiles


class Killed(BaseException):
    """kill -9: nothing of the writer runs after it."""


@pytest.fixture(params=["memory", "directory", "url"])
def files(request, tmp_path):
    if request.param == "memory":
        return MemoryFiles()
    if request.param == "directory":
        return open_store(str(tmp_path / "deep" / "root"))
    return open_store(f"memory://{tmp_path.name}/root")


def test_the_contract_of_a_store(files):
    assert files.names("") == []
    with pytest.raises(FileNotFoundError):
        files.read("m/a/x")
    files.write("m/a/x", b"1")
    files.write("m/a/x", b"22")
    files.write("m/b", b"")
    assert files.read("m/a/x") == b"22"
    assert files.read("m/b") == b""
    assert files.names("m") == ["a", "b"]
    assert sorted(files.below("")) == sorted(files.below("m")) == ["m/a/x", "m/b"]
    assert files.below("m/a") == ["m/a/x"]
    assert files.below("n") == []
    assert files.url("m/b").endswith("m/b")
    files.delete("m/nothing")
    files.delete("m/a")
    assert files.names("m") == ["b"]
    files.delete("m/b")
    assert files.names("m") == []


def test_a_root_is_a_directory_or_a_known_url(tmp_path):
    assert isinstance(open_store(f"file://{tmp_path}").inner, Directory)
    assert isinstance(open_store("memory://x").inner, ObjectStore)
    with pytest.raises(NoStore, match=r"root = 'nonsense://x' of .*: Protocol not known: nonsense"):
        open_store("nonsense://x")


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        ("s3", r"pip install 'everspun\[s3\]'"),
        ("gs", "pip install gcsfs"),
        ("sftp", "Install paramiko; expected a directory, or a URL"),
    ],
)
def test_a_driver_that_is_not_there_is_named(monkeypatch, scheme, said):
    def without(*_, **__):
        raise ImportError("Install paramiko")

    monkeypatch.setattr(fsspec.core, "url_to_fs", without)
    with pytest.raises(NoStore, match=rf"root = '{scheme}://bucket/x' .*{said}"):
        open_store(f"{scheme}://bucket/x")


CALLS = ("open", "write", "fsync", "close", "rename", "mkdir", "unlink", "rmdir")


def kill_at(monkeypatch, step, torn):
    """The `step`-th file system call, counted from now, writes at most `torn` bytes and kills
    the writer."""
    left = [step]

    def armed(name, real):
        def call(*args, **kwargs):
            if left[0] <= 0:
                raise Killed
            left[0] -= 1
            if left[0] == 0:
                if name == "write":
                    real(args[0], bytes(args[1])[:torn])
                raise Killed
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, armed(name, getattr(os, name)))


@settings(
    max_examples=settings.default.max_examples * 60 // 100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    step=st.integers(1, 12),
    torn=st.integers(0, 40),
    old=st.binary(max_size=40),
    new=st.binary(max_size=40),
)
def test_a_killed_write_leaves_the_old_file_or_the_new(tmp_path_factory, step, torn, old, new):
    files = Directory(str(tmp_path_factory.mktemp("store")))
    files.write("m/x", old)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, step, torn)
        try:
            files.write("m/x", new)
            written = True
        except Killed:
            written = False
    assert files.read("m/x") in ((new,) if written else (old, new))
    assert files.names("m") == ["x"]


@settings(
    max_examples=settings.default.max_examples * 80 // 100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(step=st.integers(1, 90), torn=st.integers(0, 500))
def test_a_killed_checkpointer_leaves_whole_checkpoints(tmp_path_factory, write, step, torn):
    """Write, publish and sweep checkpoints; die somewhere; a newcomer finds each one whole, or
    not at all."""
    root = str(tmp_path_factory.mktemp("store"))
    catalogue = Catalogue(Directory(root), "clicks")
    refs: list[Ref] = [write(catalogue, 0)]
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, step, torn)
        try:
            for number in (1, 2):
                refs.append(write(catalogue, number, parent=refs[-1].manifest_sha256))
            catalogue.sweep(Keep(1, 0))
        except Killed:
            pass
    fresh = Catalogue(Directory(root), "clicks")
    for entry in fresh.entries():
        assert not entry.problem
        if entry.manifest is not None:
            assert fresh.problems(entry.manifest) == []
    head = fresh.head()
    assert head is not None
    assert head.number >= len(refs) - 1
    published = fresh.published()
    assert published is not None
    assert published in fresh.published_refs()
    assert head.number - published.number in (0, 1)
    # and the next checkpointer goes on from there
    ref = write(fresh, fresh.next_number(), parent=head.sha256, cut="d")
    assert fresh.head().sha256 == ref.manifest_sha256
    assert fresh.published() == ref


# --- what fails
# --------------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    files = Directory(str(tmp_path))
    files.write("m/x", b"old")
    write = os.write

    def full(handle, data):
        write(handle, bytes(data)[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        files.write("m/x", b"new and longer")
    with pytest.raises(OSError, match="No space left"):
        files.write("m/y", b"new")
    monkeypatch.undo()
    assert os.listdir(tmp_path / "m") == ["x"]
    assert files.read("m/x") == b"old"


def test_what_a_killed_writer_left_is_swept_once_it_is_old(tmp_path):
    files = open_store(str(tmp_path))
    files.write("m/a/x", b"1")
    for name in (".part-0.safetensors.123", "a/.x.abcd"):
        (tmp_path / "m" / name).write_bytes(b"half")
    assert files.sweep_drafts("m", 60_000) == 0
    assert files.sweep_drafts("m", -1_000) == 2
    assert files.read("m/a/x") == b"1"
    assert files.sweep_drafts("nowhere", 0) == 0


class Faulty(MemoryFiles):
    """Fails as told: one exception a call, None = it works."""

    def __init__(self, *faults):
        super().__init__()
        self.faults = list(faults)
        self.calls = 0

    def read(self, path):
        self.calls += 1
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        return super().read(path)


def test_a_call_that_fails_is_tried_again_and_told():
    told = []
    inner = Faulty(OSError("reset"), RuntimeError("503"))
    inner.write("x.json", b"1")
    files = TimedFiles(inner, told=lambda call, outcome, seconds: told.append((call, outcome)))
    assert files.read("x.json") == b"1"
    inner.faults, inner.calls = [RuntimeError("503")] * 9, 0
    with pytest.raises(StoreFault, match="RuntimeError: 503"):
        files.read("x.json")
    assert inner.calls == 3
    inner.faults, inner.calls = [OSError(errno.EROFS, "Read-only file system")] * 9, 0
    with pytest.raises(OSError, match="Read-only"):
        files.read("x.json")
    assert inner.calls == 1, "what lasts is not tried again at once"
    inner.faults = []
    with pytest.raises(FileNotFoundError):
        files.read("y.json")
    assert told == [("read", "ok"), ("read", "failed"), ("read", "failed"), ("read", "absent")]


@pytest.mark.long
def test_calls_that_hang_are_given_up_and_bounded():
    class Hanging(MemoryFiles):
        answers = threading.Event()

        def names(self, path):
            self.answers.wait(60)
            return []

    inner = Hanging()
    files = TimedFiles(inner, StoreTimeouts(timeout_ms=20))
    for _ in range(CALLS_MAX):
        with pytest.raises(TimeoutError, match=r"no answer within 0.02 s"):
            files.names("m")
    with pytest.raises(StoreFault, match="hang already"):
        files.names("m")
    inner.answers.set()
    for _ in range(1_000):
        if files._room._value == CALLS_MAX:
            break
        threading.Event().wait(0.005)
    assert files.names("m") == []


def test_a_deadline_is_that_of_the_call_whatever_a_model_is_called():
    files = TimedFiles(MemoryFiles(), StoreTimeouts(1, 60))

    def timeout_ms(what, path):
        return files._timeout_ms(what, path)

    small = [("names", "ctr.v2"), ("delete", "ctr.v2"), ("sweep", "ctr.v2"), ("names", "m/1-a")]
    small += [("read", "ctr.v2/hold.json"), ("read", "m/hold.json.copy"), ("write", "m/b.json")]
    assert {timeout_ms(*call) for call in small} == {1}
    large = [("read", "m/1-a/part-0.safetensors"), ("write", "d/p0-1.parquet"), ("below", "")]
    assert {timeout_ms(*call) for call in large} == {60}


def test_calls_that_hang_at_a_fork_are_none_of_the_childs():
    class Hanging(MemoryFiles):
        answers = threading.Event()

        def names(self, path):
            self.answers.wait(60)
            return []

    inner = Hanging()
    inner.write("x.json", b"1")
    files = TimedFiles(inner, StoreTimeouts(timeout_ms=20))
    for _ in range(CALLS_MAX):
        with pytest.raises(TimeoutError):
            files.names("m")
    files.limits = StoreTimeouts()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = int(files.read("x.json") != b"1")
        finally:
            os._exit(status)
    inner.answers.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
