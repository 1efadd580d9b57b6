"""The file that a role's process writes its log to: bounded, and read back for what it said
last."""

import os
from pathlib import Path
from typing import IO

from everspun.launcher.locks import is_removed

TAIL_LINES = 15
_TAIL_BYTES = 8_192
REASON_CHARACTERS_MAX = 300


def log_tail(path: Path, begin: int = 0) -> str:
    """The last lines of a log from byte `begin` on; "" where there is nothing or it cannot be
    read."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            if end < begin:  # it was cut since
                begin = 0
            file.seek(max(begin, end - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-TAIL_LINES:])


def last_words(path: Path, begin: int) -> str:
    """One line that says best why a process ended: the last that is neither empty nor a place in
    a traceback."""
    lines = [line.rstrip() for line in log_tail(path, begin).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith((" ", "Traceback"))]
    return (said or lines or [""])[-1].strip()[:REASON_CHARACTERS_MAX]


def room_line(folder: Path) -> str:
    """Says that a disk is full, or ""."""
    try:
        room = os.statvfs(folder)
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if room.f_bavail * room.f_frsize < 65_536:
        return f"the disk of {folder} is full"
    if room.f_files and not room.f_favail:
        return f"the disk of {folder} has no room for another file"
    if room.f_flag & os.ST_RDONLY:
        return f"the disk of {folder} is read-only"
    return ""


def bound_log(log: IO[bytes], bytes_max: int, kept_max: int) -> bool:
    """The same as `cut_log`, of an open one. Where somebody took it away, its process writes to it
    until it ends: it is emptied."""
    path = Path(log.name)
    if not is_removed(log.fileno(), path):
        return cut_log(path, bytes_max, kept_max)
    outgrown = os.fstat(log.fileno()).st_size > bytes_max
    if outgrown:
        os.truncate(log.fileno(), 0)
    return outgrown


def cut_log(path: Path, bytes_max: int, kept_max: int = 1) -> bool:
    """Where a log has outgrown `bytes_max`, keep it as `<name>.1`, older ones as `.2` and so on up
    to `kept_max`, and begin it anew: the process goes on appending to it. True if it was cut.
    Raises OSError; a log twice as long is cut in any case."""
    size = path.stat().st_size
    if size <= bytes_max:
        return False
    draft = path.with_name(path.name + ".draft")
    try:  # the older ones stay where they are until there is a whole copy
        with path.open("rb") as source, draft.open("wb") as target:
            source.seek(max(0, size - bytes_max))
            while piece := source.read(1 << 20):
                target.write(piece)
        for number in range(kept_max - 1, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{number + 1}"))
        draft.replace(path.with_name(path.name + ".1"))
    except OSError:
        draft.unlink(missing_ok=True)
        if size < 2 * bytes_max:
            raise
    os.truncate(path, 0)
    return True
