"""One process a purpose: a file that is locked for as long as its process lives, and says who
that is."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class AlreadyLocked(Exception):
    """Another process does this already; the message says which."""


def lock_file(path: Path, what: str) -> int:
    """Lock a file for the rest of this process. Returns its descriptor, which is to stay open; 0
    where the disk takes no file or knows no locks: then nobody is kept out. Raises Taken, naming
    the process that holds it.

    A lock ends with its process, however that ends; it is a process's, so the same one may take it
    again.
    """
    try:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        return 0
    try:
        fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        owner = os.read(held, 64).decode(errors="replace").split()
        os.close(held)
        named = f"process {owner[0]}" if owner else "another process"
        host = f" on {owner[1]}" if len(owner) > 1 and owner[1] != os.uname().nodename else ""
        raise AlreadyLocked(f"{what} is in use by {named}{host}") from None
    except OSError:  # a file system without locks
        return held
    with suppress(OSError):  # a full disk: the lock holds, and has no name on it
        os.truncate(held, 0)
        os.pwrite(held, f"{os.getpid()} {os.uname().nodename}\n".encode(), 0)
    return held


def is_removed(held: int, path: Path) -> bool:
    """Whether an open file is no longer at its path: it, or a folder above it, was removed, moved,
    or made anew. Of 0, which is no file, False."""
    try:
        return bool(held) and not os.path.samestat(os.fstat(held), os.stat(path))
    except FileNotFoundError:
        return True
    except OSError:  # nobody can say
        return False


def unlock(held: int) -> None:
    """Let go of what `lock_file` gave; 0 = nothing was held."""
    if held:
        os.close(held)
