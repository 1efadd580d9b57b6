"""Stores of checkpoints: a directory, or any fsspec URL (shell of `files`)."""

import contextlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from checkpointer.store.files import Files, StoreFault
from checkpointer.store.timed_store import LIMITS, StoreTimeouts, TimedFiles, Told

#: In a run's folder: the stores and models that have begun (`used_store`).
BEGUN = "begun.json"
#: What has to be installed for a scheme.
DRIVERS = {
    **dict.fromkeys(("s3", "s3a"), "'everspun[s3]'"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az"), "adlfs"),
}
_log = logging.getLogger(__name__)


class NoStore(ValueError):
    """There is no way to the store of a configuration; the text says what to change."""


def open_store(root: str, limits: StoreTimeouts = LIMITS, told: Told | None = None) -> TimedFiles:
    """The store at a path (`/var/lib/shop`, `file:///var/lib/shop`) or URL (`s3://bucket/shop`,
    `memory://shop`), every call with a deadline; `told` hears of each.

    Raises NoStore, naming the root, for a scheme that fsspec does not know or has no driver for.
    """
    return TimedFiles(_raw_store(root), limits, told)


def _raw_store(root: str) -> Files:
    if root.startswith("file://"):
        return Directory(root[len("file://") :])
    if "://" not in root:
        return Directory(root)
    try:
        return ObjectStore(root)
    except (ValueError, TypeError, ImportError) as error:
        scheme = root.partition("://")[0]
        if isinstance(error, ImportError) and scheme in DRIVERS:
            why = f"its driver is not installed: pip install {DRIVERS[scheme]}"
        else:
            why = f"{error}; expected a directory, or a URL such as s3://, gs:// or abfs://"
        raise NoStore(f"root = {root!r} of [checkpointer] or [archive]: {why}") from error


class Directory:
    """A directory on a local or mounted POSIX file system.

    A write goes to a hidden file beside its target, is synced, renamed over it, and the folder is
    synced: a crash at any point leaves the old file or the new one. A write that fails leaves no
    hidden file, so that a full disk does not stay full of them; one that is killed leaves it for
    `sweep_drafts`.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root).absolute()

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        target = self.root / path
        _make_folder(target.parent)
        draft = target.parent / f".{target.name}.{secrets.token_hex(4)}"
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(handle, rest) :]
                os.fsync(handle)
            finally:
                os.close(handle)
            os.rename(draft, target)
        except Exception:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
        _sync_folder(target.parent)

    def sweep_drafts(self, path: str, age_ms: int) -> int:
        before_s, swept = time.time() - age_ms / 1_000, 0
        for folder, _, names in os.walk(self.root / path):
            for name in names:
                draft = os.path.join(folder, name)
                with contextlib.suppress(
                    OSError
                ):  # gone meanwhile, or not ours to delete: nobody reads it anyway
                    if name.startswith(".") and os.stat(draft).st_mtime < before_s:
                        os.unlink(draft)
                        swept += 1
        return swept

    def names(self, path: str) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.root / path) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def below(self, path: str) -> list[str]:
        return [
            os.path.relpath(os.path.join(folder, name), self.root)
            for folder, _, names in os.walk(self.root / path, onerror=_unless_absent)
            for name in names
            if not name.startswith(".")
        ]

    def delete(self, path: str) -> None:
        target = self.root / path
        try:
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink()
        except FileNotFoundError:
            return
        _sync_folder(target.parent)

    def url(self, path: str) -> str:
        return str(self.root / path)


class ObjectStore:
    """Any fsspec file system on which one put is atomic: object stores are; what the driver says
    counts."""

    def __init__(self, url: str) -> None:
        self._url, self.scheme = url, url.split("://")[0]
        self.connect()

    def connect(self) -> None:
        # Without its cache of listings: what another process wrote is to be seen, and nothing is
        # kept that grows.
        self._fs, root = fsspec.core.url_to_fs(self._url, use_listings_cache=False)
        self._pid = os.getpid()
        self.root = root.rstrip("/")
        # s3fs asks for the size of what it may read in several pieces, and lists where there is
        # nothing to be sized: two requests for a small file, and a dear one for each pointer file
        # that is not there.
        self._at_once = {"max_concurrency": 1} if hasattr(self._fs, "max_concurrency") else {}

    @property
    def fs(self) -> Any:
        """Of this process: a driver's connections and threads are not those of a fork."""
        if self._pid != os.getpid():
            self.connect()
        return self._fs

    def read(self, path: str) -> bytes:
        how = self._at_once if path.endswith(".json") else {}
        with self._bucket_there():
            data: bytes = self.fs.cat_file(f"{self.root}/{path}", **how)
        return data

    def write(self, path: str, data: bytes) -> None:
        target = f"{self.root}/{path}"
        # Object stores have no folders: asked for one they make a bucket, if its name is free.
        if self.scheme not in DRIVERS:
            self.fs.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
        with self._bucket_there():
            self.fs.pipe_file(target, data)

    def names(self, path: str) -> list[str]:
        self.fs.invalidate_cache()
        try:
            with self._bucket_there():
                listed: list[str] = self.fs.ls(f"{self.root}/{path}".rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        names = {name.rstrip("/").rsplit("/", 1)[-1] for name in listed}
        return sorted(name for name in names if name and not name.startswith("."))

    def below(self, path: str) -> list[str]:
        self.fs.invalidate_cache()
        with self._bucket_there():
            found: list[str] = self.fs.find(f"{self.root}/{path}".rstrip("/"))
        paths = (name.lstrip("/").removeprefix(f"{self.root.lstrip('/')}/") for name in found)
        return [name for name in paths if not name.rpartition("/")[2].startswith(".")]

    def delete(self, path: str) -> None:
        target = f"{self.root}/{path}"
        if self.fs.exists(target):
            self.fs.rm(target, recursive=True)

    @contextlib.contextmanager
    def _bucket_there(self) -> Iterator[None]:
        """A bucket that is gone, or was never made, is a fault of the store: a file that is not
        there says that nobody wrote one."""
        try:
            yield
        except FileNotFoundError as error:
            response = getattr(error.__cause__, "response", None) or {}
            if response.get("Error", {}).get("Code") != "NoSuchBucket":
                raise
            raise StoreFault(f"{self.url('')}: there is no such bucket") from error

    def sweep_drafts(self, path: str, age_ms: int) -> int:
        return 0

    def url(self, path: str) -> str:
        return f"{self.scheme}://{self.root.lstrip('/')}/{path}"


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _make_folder(folder: Path) -> None:
    """The folder and its parents, each entered durably in its own parent."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class RememberedStore:
    """A `UsedStore`: a file in the run's folder. Bounded: an entry for each root and model that
    this run was configured with."""

    def __init__(self, run_dir: str, root: str, model: str) -> None:
        self._path, self._key = Path(run_dir) / "state" / BEGUN, f"{root} {model}"
        self._remembered = False

    @property
    def forget_it(self) -> str:
        return f"rm {self._path}"

    def was_begun(self) -> bool:
        return self._remembered or self._key in self._begun()

    def remember(self) -> None:
        """Once. A folder that cannot be written keeps nobody from training: it is tried again at
        the next look."""
        if self._remembered:
            return
        begun = self._begun()
        try:
            if self._key not in begun:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                draft = self._path.with_suffix(".draft")
                draft.write_text(json.dumps(sorted({*begun, self._key})))
                draft.replace(self._path)
        except OSError as error:
            _log.warning(
                "%s: that %s has begun is not remembered yet: %s", self._path, self._key, error
            )
            return
        self._remembered = True

    def _begun(self) -> set[str]:
        """What cannot be read says nothing: the store then decides, as it would without."""
        try:
            said = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return set()
        return {str(one) for one in said} if isinstance(said, list) else set()
