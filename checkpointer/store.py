"""Stores of checkpoints: a directory, or any fsspec URL (shell of `files`)."""

import os
import secrets
import shutil
from pathlib import Path, PurePosixPath

import fsspec

from checkpointer.files import Files


def open_store(root: str) -> Files:
    """The store at a path (`/var/lib/shop`, `file:///var/lib/shop`) or URL (`s3://bucket/shop`, `memory://shop`).

    Raises ValueError, naming the root, for a scheme that fsspec does not know or has no driver for.
    """
    if root.startswith("file://"):
        return Directory(root[len("file://") :])
    if "://" not in root:
        return Directory(root)
    try:
        return ObjectStore(root)
    except (ValueError, ImportError) as error:
        raise ValueError(f"checkpoint root {root!r}: {error}; expected a directory or an fsspec URL") from error


class Directory:
    """A directory on a local or mounted POSIX file system.

    A write goes to a hidden file beside its target, is synced, renamed over it, and the folder is synced: a crash at
    any point leaves the old file or the new one. What it leaves of hidden files is invisible here, and goes with the
    folder.
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
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.rename(draft, target)
        _sync_folder(target.parent)

    def names(self, path: str) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.root / path) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

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
    """Any fsspec file system on which one put is atomic: object stores are; what the driver says counts."""

    def __init__(self, url: str) -> None:
        self.scheme = url.split("://")[0]
        self.fs, root = fsspec.core.url_to_fs(url)
        self.root = root.rstrip("/")

    def read(self, path: str) -> bytes:
        data: bytes = self.fs.cat_file(f"{self.root}/{path}")
        return data

    def write(self, path: str, data: bytes) -> None:
        target = f"{self.root}/{path}"
        # Object stores have no folders, and make none; the others need them.
        self.fs.makedirs(str(PurePosixPath(target).parent), exist_ok=True)
        self.fs.pipe_file(target, data)

    def names(self, path: str) -> list[str]:
        self.fs.invalidate_cache()
        try:
            listed: list[str] = self.fs.ls(f"{self.root}/{path}".rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        names = {name.rstrip("/").rsplit("/", 1)[-1] for name in listed}
        return sorted(name for name in names if name and not name.startswith("."))

    def delete(self, path: str) -> None:
        target = f"{self.root}/{path}"
        if self.fs.exists(target):
            self.fs.rm(target, recursive=True)

    def url(self, path: str) -> str:
        return f"{self.scheme}://{self.root.lstrip('/')}/{path}"


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
