"""What a shard keeps on disk: its incarnation and its lock, and the parts of cuts at any fsspec URL."""

import fcntl
import mmap
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

import fsspec

from paramserver.messages import Keys
from paramserver.orders import Orders, decode_orders, encode_orders
from paramserver.partfile import decode_part, part_name, part_pieces, pieces_info
from paramserver.ports import PartInfo
from paramserver.state import Snapshot
from paramserver.touched import touched_part


class StateInUse(RuntimeError):
    """Another process runs as this shard."""


class StateDir:
    """The folder of one shard on its host. Held by one process at a time, whatever becomes of that process."""

    def __init__(self, run_dir: str, shard: int) -> None:
        self.path = Path(run_dir).absolute() / "state" / f"shard-{shard}"
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock: IO[bytes] = (self.path / "lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise StateInUse(f"{self.path}: another process runs as shard {shard}; stop that one first") from None

    def next_incarnation(self) -> int:
        """A number larger than any before, durable before it is returned (S2).

        Raises ValueError for a file that holds no number: a shard must not guess what it has been.
        """
        path = self.path / "incarnation"
        try:
            text = path.read_text()
        except FileNotFoundError:
            text = "0"
        if not text.strip().isdigit():
            raise ValueError(f"{path}: {text!r} is no number; write one that is above every incarnation seen so far")
        incarnation = int(text) + 1
        write_durably(path, [str(incarnation).encode()])
        return incarnation

    def orders(self) -> dict[str, Orders]:
        """What operators have ordered of the clock holder in this folder. Raises ValueError, naming the file."""
        path = self.path / "orders.json"
        try:
            return decode_orders(path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ValueError(f"{path}: {error}; remove it to train as configured") from error

    def keep_orders(self, orders: Mapping[str, Orders]) -> None:
        """Durable once it returns."""
        write_durably(self.path / "orders.json", [encode_orders(orders)])

    def close(self) -> None:
        self._lock.close()


def write_durably(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write beside, sync, rename over, sync the folder: after a crash there is the old file or the new one. After an
    error there is nothing else."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except Exception:  # a full disk is not to stay full of what could not be written
        draft.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_part(snapshot: Snapshot, shard: int, url: str) -> PartInfo:
    """Write a shard's marked state into the folder `url`, durably, and say what stands there."""
    pieces = part_pieces(snapshot)
    target = f"{url.rstrip('/')}/{part_name(shard)}"
    local = local_path(target)
    if local is not None:
        _make_folder(local.parent)
        write_durably(local, pieces)
    else:
        files, path = fsspec.core.url_to_fs(target)
        files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        with files.open(path, "wb") as file:  # object stores make a file appear whole when it is closed
            file.writelines(pieces)
    return pieces_info(snapshot, target, pieces)


def read_part(url: str) -> Snapshot:
    """The snapshot of a part. Raises ValueError, naming the file, if it is none."""
    local = local_path(url)
    data = local.read_bytes() if local is not None else fsspec.open(url, "rb").open().read()
    try:
        return decode_part(data)
    except ValueError as error:
        raise ValueError(f"{url}: {error}") from error


def read_touched(url: str, keys: Mapping[str, Keys]) -> Snapshot:
    """Of a part, the rows of these keys alone (table -> keys, rising); a file on this host is not read whole. Raises
    FileNotFoundError, and ValueError, naming the file, if it is none."""
    local = local_path(url)
    try:
        if local is None:
            return touched_part(fsspec.open(url, "rb").open().read(), keys)
        with local.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return touched_part(data, keys)
    except ValueError as error:
        raise ValueError(f"{url}: {error}") from error


def local_path(url: str) -> Path | None:
    """The path of a URL on this host's file system, or None."""
    if url.startswith("file://"):
        return Path(url[len("file://") :])
    return None if "://" in url else Path(url)


def _make_folder(folder: Path) -> None:
    """The folder and its parents, each entered durably in its own parent."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
