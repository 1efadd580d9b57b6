"""Where compiled kernels are kept, and when they are compiled again.

Numba compiles a kernel again when the kernel's own file changed. But it compiles into it what the
kernel calls and every constant it reads, so an edit of another file went unseen: a mutated function
passed its tests, a pulled fix was not in force. Here a kernel is stale as soon as any file changed
that its own file imports, directly or not.
"""

import fcntl
import glob
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache

from stream.monitoring import TimeLimit

logger = logging.getLogger(__name__)

#: So long a process waits for another one that compiles what it wants; then it compiles as well.
LOCK_S = 60.0
_LOCK_LOOK_S = 0.05
ROOT = Path(__file__).resolve().parents[2]
_IMPORT = re.compile(
    r"^[ \t]*(?:from\s+([\w.]+)\s+import\s+(\(?[\w, ]*)|import\s+([\w.]+))", re.MULTILINE
)


@cache
def imports_of(source: Path) -> frozenset[Path]:
    """The files below ROOT that a file names in its import statements; a package counts as its
    `__init__`."""
    found: set[Path] = set()
    for module, names, plain in _IMPORT.findall(source.read_text(encoding="utf-8")):
        dotted = module or plain
        if _is_ours(dotted.partition(".")[0]):
            found.update(_files_of(dotted))
            for name in re.findall(r"\w+", names):
                found.update(_files_of(f"{dotted}.{name}"))
    return frozenset(found)


@cache
def _is_ours(top: str) -> bool:
    """Whether a module of this name could stand below ROOT: most imports are of libraries, and each
    start of a process asks about some thousands of names."""
    path = os.path.join(ROOT, top)
    return os.path.isdir(path) or os.path.isfile(f"{path}.py")


@cache
def _files_of(dotted: str) -> tuple[Path, ...]:
    base = os.path.join(ROOT, *dotted.split("."))
    files = (f"{base}.py", os.path.join(base, "__init__.py"))
    return tuple(Path(file) for file in files if os.path.isfile(file))


@cache
def _file_digest(source: Path) -> bytes:
    return (
        os.path.relpath(source, ROOT).encode()
        + b"\0"
        + hashlib.sha256(source.read_bytes()).digest()
    )


@cache
def source_stamp(source: Path) -> str:
    """A digest of a file and of all files of ours that it imports, directly or through others."""
    reached, open_files = {source}, [source]
    while open_files:
        for file in imports_of(open_files.pop()) - reached:
            reached.add(file)
            open_files.append(file)
    digest = hashlib.sha256()
    for file in sorted(reached):
        digest.update(_file_digest(file))
    return digest.hexdigest()


@cache
def cache_folder(source_folder: Path) -> Path | None:
    """The first folder that may be written: NUMBA_CACHE_DIR's, beside the sources, the user's
    cache, a temporary one.

    None where there is none: kernels are then compiled by every process. A folder below the
    system's temporary one is taken only if it is ours alone, since what stands in it is loaded as
    code.
    """
    name = f"{source_folder.name}-{hashlib.sha256(str(source_folder).encode()).hexdigest()[:12]}"
    folders = [source_folder / "__pycache__"]
    if config.CACHE_DIR:
        folders = [Path(config.CACHE_DIR) / name]
    user_cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(user_cache):
        folders.append(Path(user_cache) / "everspun" / name)
    private = Path(tempfile.gettempdir()) / f"everspun-{os.getuid()}"
    folders.append(private / name)
    return next((folder for folder in folders if _usable(folder, private)), None)


def _usable(folder: Path, private: Path) -> bool:
    try:
        if private in folder.parents:
            private.mkdir(mode=0o700, exist_ok=True)
            state = private.lstat()
            if state.st_uid != os.getuid() or state.st_mode & 0o077 or private.is_symlink():
                return False
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


class _Locator:
    """Numba's question where and under which stamp a function is kept, answered by the two
    functions above."""

    def __init__(self, function: Callable[..., object], source: str) -> None:
        self._source = Path(source)
        self._line = function.__code__.co_firstlineno
        self._folder = cache_folder(self._source.parent)

    def ensure_cache_path(self) -> None:
        Path(self.get_cache_path()).mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return source_stamp(self._source)

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, function: Callable[..., object], source: str) -> "_Locator | None":
        locator = cls(function, source)
        return None if locator._folder is None else locator


class _Files(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes: ClassVar[list[type]] = [_Locator]


class _CompileLock:
    """Held by the process that compiles a kernel, from the look that did not find it until it is
    stored. Without it, processes that begin together compile the same kernels each for itself; and
    two that store code for different arguments at once give both one file (Numba's index is read,
    changed and written). It ends with its process, and a fork does not take it along."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: int | None = None

    @property
    def is_held(self) -> bool:
        return self._file is not None

    def take(self) -> None:
        """Returns when it is held, and without it after LOCK_S or where files take no locks."""
        if self.is_held:  # compiled for other arguments before these, in vain
            return
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        limit = TimeLimit(LOCK_S)
        while not limit.over:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # another process has it
                time.sleep(_LOCK_LOOK_S)
            except OSError:
                break
            else:
                self._file = file
                return
        os.close(file)

    def release(self) -> None:
        """Closing its file ends a lock."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


class _KernelCache(FunctionCache):  # type: ignore[misc]
    """Numba reads an index whole before it looks whether the index is stale, and an index names the
    classes of arguments: one of before a class was renamed could not be read, and the kernel not be
    called. So the stamp stands with the version, which is read first."""

    _impl_class = _Files

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__(function)
        index = self._cache_file
        index._version = f"{index._version} {index._source_stamp}"
        self._lock = _CompileLock(f"{index._index_path}.lock")

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was compiled for these arguments, or None: then this process is to compile it, and
        others wait for it."""
        found = self._loaded(sig, target_context)
        if found is None:
            self._lock.take()
            found = self._loaded(sig, target_context)
            if found is not None:
                self._lock.release()
        return found

    def _loaded(self, sig: Any, target_context: Any) -> Any:
        """None also for files that cannot be read, as after a power cut: who may compile throws
        them away."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:
            if self._lock.is_held:
                self._throw_away()
            _warn_once("cannot be read, and are compiled again", self._cache_path, error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Where nothing can be stored, as on a full disk, the call that compiled it answers all the
        same."""
        try:
            super().save_overload(sig, data)
        except Exception as error:
            self._throw_away()  # an index may name a file that another version wrote
            _warn_once("cannot be stored, and each process compiles them", self._cache_path, error)
        finally:
            self._lock.release()

    def _throw_away(self) -> None:
        index = Path(self._cache_file._index_path)
        with suppress(OSError):
            for file in (index, *index.parent.glob(f"{glob.escape(index.stem)}.*.nbc")):
                file.unlink(missing_ok=True)


_warned: set[str] = set()


def _warn_once(what: str, folder: str, error: Exception) -> None:
    """A process has some hundred kernels, and most often one reason."""
    if what not in _warned:
        _warned.add(what)
        logger.warning("compiled kernels in %s %s: %r", folder, what, error)


def keep_compiled(dispatcher: Any, function: Callable[..., object]) -> None:
    """Let a Numba dispatcher load what was compiled before, and store what it compiles, if there
    is a place for it."""
    if cache_folder(Path(function.__code__.co_filename).parent) is not None:
        dispatcher._cache = _KernelCache(function)
