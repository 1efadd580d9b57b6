"""One contract for all stores, and: kill the writer at any step, and a reader sees the old state or the new one."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpointer.announcement import Ref
from checkpointer.catalogue import Catalogue
from checkpointer.files import MemoryFiles
from checkpointer.store import Directory, ObjectStore, open_store


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
    assert files.url("m/b").endswith("m/b")
    files.delete("m/nothing")
    files.delete("m/a")
    assert files.names("m") == ["b"]
    files.delete("m/b")
    assert files.names("m") == []


def test_a_root_is_a_directory_or_a_known_url(tmp_path):
    assert isinstance(open_store(f"file://{tmp_path}"), Directory)
    assert isinstance(open_store("memory://x"), ObjectStore)
    with pytest.raises(ValueError, match="nonsense://x"):
        open_store("nonsense://x")


CALLS = ("open", "write", "fsync", "close", "rename", "mkdir", "unlink", "rmdir")


def kill_at(monkeypatch, step, torn):
    """The `step`-th file system call, counted from now, writes at most `torn` bytes and kills the writer."""
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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step=st.integers(1, 12), torn=st.integers(0, 40), old=st.binary(max_size=40), new=st.binary(max_size=40))
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


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step=st.integers(1, 90), torn=st.integers(0, 500))
def test_a_killed_checkpointer_leaves_whole_checkpoints(tmp_path_factory, write, step, torn):
    """Write, publish and sweep checkpoints; die somewhere; a newcomer finds each one whole, or not at all."""
    root = str(tmp_path_factory.mktemp("store"))
    catalogue = Catalogue(Directory(root), "clicks")
    refs: list[Ref] = [write(catalogue, 0)]
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, step, torn)
        try:
            for number in (1, 2):
                refs.append(write(catalogue, number, parent=refs[-1].manifest_sha256))
            catalogue.sweep(keep=1, keep_rejected=0)
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
