"""What a shard keeps on disk: its incarnation and its lock, and the parts of cuts at any fsspec
URL."""

import fcntl
import json
import logging
import mmap
import os
import random
import re
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

import fsspec

from paramserver.clocks import NO_SETTINGS, OperatorSettings, decode_settings, encode_settings
from paramserver.messages import Keys
from paramserver.parts import (
    Snapshot,
    decode_part,
    part_name,
    part_pieces,
    pieces_info,
    serving_files,
    touched_part,
)
from paramserver.ports import PartInfo, StateStore
from paramserver.shard import next_incarnation
from stream import Backoff

log = logging.getLogger(__name__)

#: What a folder and the store call the system whose they are.
SYSTEM = re.compile("[0-9a-f]{16}")
#: Schemes of stores without folders: asked for one they make a bucket, if its name is free.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
#: `sync` looks whether it is to stop this often.
SYNC_LOOK_S = 0.5


class StateInUse(RuntimeError):
    """Another process runs as this shard."""


class StateUnreadable(ValueError):
    """A file of the state says nothing that this version reads; the message names it and what to
    do."""


class StateDir:
    """What one shard keeps: in a folder on its host, held by one process at a time whatever becomes
    of that process, and in the store of checkpoints, where it is found again if the folder is lost.

    What is written is durable in the folder when the call returns; `sync`, on a thread of its own,
    brings it to the store as well. A folder that cannot be written (its disk is full) is passed
    over where the store takes it.
    """

    def __init__(self, run_dir: str, shard: int, stored: StateStore | None = None) -> None:
        self.path = Path(run_dir).absolute() / "state" / f"shard-{shard}"
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock: IO[bytes] = (self.path / "lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise StateInUse(
                f"{self.path}: another process runs as shard {shard}; stop that one first"
            ) from None
        self._shard, self._stored = shard, stored
        self._wanted: dict[str, bytes] = {}  # name in the store -> what it is to say
        self._changed = threading.Condition()
        self._revision = 0
        self._system = ""  # whose folder and store are; "" = nobody has said so yet
        self.fault = ""  # why the store was not brought up to date, "" if it is, or will be at once
        for name in os.listdir(self.path):
            draft = self.path / name
            if name.startswith(".") and not draft.is_dir():  # of a write that was killed
                draft.unlink(missing_ok=True)

    # --- incarnations
    # -------------------------------------------------------------------------------------------

    def next_incarnation(self, begun: bool = False) -> int:
        """A number larger than any before, durable before it is returned (S2). `begun`: whether the
        model has a checkpoint.

        Raises StateUnreadable for a file that holds no number: a shard must not guess what it has
        been.
        Raises OSError if neither folder nor store can be written; and where the folder says
        nothing, unless the store can be read and takes the new one: or a folder that is lost again
        would begin as the same.
        """
        kept = self._kept_incarnation()
        stored, system = self._stored_copy()
        self._system = self._own_system(system)
        incarnation = next_incarnation(kept, stored, begun)
        self._keep(incarnation, alone=kept is not None)
        return incarnation

    def behind(self, incarnation: int) -> None:
        """The clock holder has seen this incarnation of the shard: the next one is to be above
        it."""
        self._keep(incarnation)

    def _kept_incarnation(self) -> int | None:
        path = self.path / "incarnation"
        try:
            text = path.read_bytes().decode("ascii", "backslashreplace")
        except FileNotFoundError:
            return None
        if not text.strip().isdigit():
            if self._stored is not None and not text.strip("\0 \n"):
                log.warning(
                    "%s is empty, as after a power cut: the store says what this shard has been",
                    path,
                )
                return None
            raise StateUnreadable(
                f"{path}: {text[:100]!r} is no number; write one that is above every incarnation "
                f"seen so far"
            )
        return int(text)

    def _stored_copy(self) -> tuple[int | None, str | None]:
        """The last incarnation that the store knows of, None = of none; and the system that it
        names, "" = none, None = it cannot be read now."""
        if self._stored is None:
            return None, None
        try:
            data = self._stored.read(self._incarnation_name)
        except OSError:
            if self._kept_incarnation() is None:
                raise
            return None, None  # the folder knows
        try:
            said = {} if data is None else json.loads(data)
            return None if data is None else int(said["incarnation"]), str(said.get("system", ""))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
            log.warning("%s in the store cannot be read: %.200r", self._incarnation_name, data)
            return None, ""

    def _own_system(self, stored: str | None) -> str:
        """Whose folder and store are from now on (S2g): whom the store names, else whom the folder
        does, else a new one. Of another system's folder the orders are put aside, before it is
        called this one's."""
        path, orders = self.path / "system", self.path / "orders.json"
        here = path.read_bytes().decode("ascii", "replace").strip() if path.exists() else ""
        if not SYSTEM.fullmatch(here):  # as a power cut may leave it
            here = ""
        if stored is None or (here and here == stored):
            return here
        own = stored or here or secrets.token_hex(8)
        if here not in ("", own):
            log.warning(
                "%s was another system's (%s, this one's %s): its incarnation counts, its orders "
                "do not, and are in orders-%s.json; if a volume was mounted at a wrong place, stop",
                *(self.path, here, own, here),
            )
            with suppress(FileNotFoundError):
                orders.rename(self.path / f"orders-{here}.json")
        try:
            if here != own:
                write_durably(path, [own.encode()])
        except OSError as error:  # a full disk: the next start may do
            log.warning("%s: whose it is cannot be kept: %s", path, error)
        return own

    @property
    def _incarnation_name(self) -> str:
        return f"shard-{self._shard}.json"

    def _keep(self, incarnation: int, alone: bool = True) -> None:
        """In the store at once if it takes it, since nobody may have time to come later; else by
        `sync`, where the folder may be `alone` with it for a while."""
        kept, fault = False, OSError(f"{self.path}: the incarnation cannot be kept")
        try:
            write_durably(self.path / "incarnation", [str(incarnation).encode()])
            kept = True
        except OSError as error:
            fault = error
        if self._stored is not None:
            named = {"system": self._system} if self._system else {}
            data = json.dumps({"incarnation": incarnation, **named}).encode()
            try:
                self._stored.write(self._incarnation_name, data)
                kept = True
            except OSError as error:
                if not alone:
                    (self.path / "incarnation").unlink(missing_ok=True)
                    raise
                log.warning(
                    "incarnation %d of shard %d is not in the store yet: %s",
                    incarnation,
                    self._shard,
                    error,
                )
                self._want(self._incarnation_name, data)
        if not kept:
            raise fault

    # --- orders
    # ----------------------------------------------------------------------------------------------

    def settings(self) -> dict[str, OperatorSettings]:
        """What operators have ordered of the clock holder: the newer of what folder and store say.
        Raises OSError if the store cannot be read and the folder says nothing; StateUnreadable,
        naming the file, if nothing can be read."""
        path = self.path / "orders.json"
        faults: list[str] = []
        found = []
        try:
            with suppress(FileNotFoundError):  # no order was ever given, or the folder is new
                found.append(decode_settings(path.read_bytes()))
        except ValueError as error:
            faults.append(f"{path}: {error}; remove it to train as configured")
        if self._stored is not None:
            try:
                data = self._stored.read("orders.json")
                found += [] if data is None else [decode_settings(data)]
            except ValueError as error:
                faults.append(f"orders.json in the store: {error}")
            except OSError:
                if not found:
                    raise
        for fault in faults if found else ():
            log.warning("%s", fault)
        if faults and not found:
            raise StateUnreadable("; ".join(faults))
        newest = max(found, key=lambda kept: kept.revision, default=NO_SETTINGS)
        self._revision = newest.revision
        if newest.revision:
            self._want("orders.json", encode_settings(newest.models, newest.revision))
        return newest.models

    def keep_settings(self, settings: Mapping[str, OperatorSettings]) -> None:
        """Durable in the folder once it returns; `wait_stored` for the store."""
        self._revision += 1
        data = encode_settings(settings, self._revision)
        write_durably(self.path / "orders.json", [data])
        self._want("orders.json", data)

    # --- the store
    # ----------------------------------------------------------------------------------------------

    def _want(self, name: str, data: bytes) -> None:
        if self._stored is not None:
            with self._changed:
                self._wanted[name] = data
                self._changed.notify_all()

    def wait_stored(self, timeout_s: float) -> bool:
        """Whether the store has taken everything, within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._wanted, timeout_s)

    def sync(self, stop: threading.Event) -> None:
        """Bring to the store what is to be there, as it comes, until `stop` is set."""
        backoff = Backoff(200, 5_000)
        while not stop.is_set():
            with self._changed:
                self._changed.wait_for(lambda: bool(self._wanted) or stop.is_set(), SYNC_LOOK_S)
                wanted = dict(self._wanted)
            if stop.is_set() or self._stored is None or not wanted:
                continue
            try:
                for name, data in wanted.items():
                    self._stored.write(name, data)
                    self._is_stored(name, data)
                self.fault = ""
                backoff.worked()
            except (
                Exception
            ) as error:  # the store's driver has errors of its own kind; it is tried again
                if not self.fault:
                    log.warning(
                        "shard %d: its state is not in the store yet: %s", self._shard, error
                    )
                self.fault = str(error)
                stop.wait(backoff.failed(random.random()) / 1_000)

    def _is_stored(self, name: str, data: bytes) -> None:
        with self._changed:
            if self._wanted.get(name) == data:
                del self._wanted[name]
                self._changed.notify_all()

    def close(self) -> None:
        self._lock.close()


def write_durably(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write beside, sync, rename over, sync the folder: after a crash there is the old file or the
    new one. After an error there is nothing else."""
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


def write_part(snapshot: Snapshot, shard: int, url: str, serving_bits: int = 32) -> PartInfo:
    """Write a shard's marked state into the folder `url`, durably, and say what stands there.
    `serving_bits`: of a weight in the files that replicas read."""
    pieces = part_pieces(snapshot)
    folder = url.rstrip("/")
    target = f"{folder}/{part_name(shard)}"
    _write_file(target, pieces)
    serving = serving_files(snapshot, serving_bits)
    for told, encoded in serving:
        _write_file(f"{folder}/{told.path}", encoded)
    info = pieces_info(snapshot, target, pieces)
    return replace(info, serving=tuple(told for told, _ in serving))


def _write_file(target: str, pieces: Sequence[memoryview]) -> None:
    local = local_path(target)
    if local is not None:
        _make_folder(local.parent)
        write_durably(local, pieces)
    else:
        files, path = fsspec.core.url_to_fs(target)
        if target.partition("://")[0] not in OBJECT_STORES:
            files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        with files.open(
            path, "wb"
        ) as file:  # object stores make a file appear whole when it is closed
            file.writelines(pieces)


def read_part(url: str) -> Snapshot:
    """The snapshot of a part. Raises ValueError, naming the file, if it is none."""
    local = local_path(url)
    data = local.read_bytes() if local is not None else fsspec.open(url, "rb").open().read()
    try:
        return decode_part(data)
    except ValueError as error:
        raise ValueError(f"{url}: {error}") from error


def read_touched(url: str, keys: Mapping[str, Keys]) -> Snapshot:
    """Of a part, the rows of these keys alone (table -> keys, rising); a file on this host is not
    read whole. Raises FileNotFoundError, and ValueError, naming the file, if it is none."""
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
