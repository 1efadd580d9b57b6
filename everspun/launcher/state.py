"""What a launcher says of its processes to whoever looks: `<run.dir>/launcher.json`.

The file keeps its length and is written over in place, so that it can still be written when the
disk is full.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from everspun.launcher.locks import is_removed

NAME = "launcher.json"
FILE_BYTES = 65_536
_READ_TRIES = 5


class StateFile:
    """Written by the launcher alone."""

    def __init__(self, run_dir: Path) -> None:
        """Takes its room on the disk. Raises OSError."""
        self.path = run_dir / NAME
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.pwrite(self._file, b" " * FILE_BYTES, 0)

    def write(self, said: dict[str, Any]) -> None:
        """Raises OSError."""
        text = json.dumps(said).encode()
        if len(text) > FILE_BYTES:  # too many processes: those that are well say nothing
            ill = {name: one for name, one in said["processes"].items() if one["state"] != "up"}
            text = json.dumps(said | {"processes": ill}).encode()[:FILE_BYTES]
        os.pwrite(self._file, text.ljust(FILE_BYTES), 0)

    @property
    def is_removed(self) -> bool:
        """Somebody took it, or its folder, away: nobody reads it any more."""
        return is_removed(self._file, self.path)

    def close(self) -> None:
        """The launcher ends in order: nothing is said any more. What another one wrote since at
        this path stays."""
        removed = self.is_removed
        os.close(self._file)
        if not removed:
            with suppress(OSError):
                self.path.unlink()


def read_state(run_dir: Path) -> dict[str, Any]:
    """What the launcher of this folder said last; {} where there is none, or it cannot be read."""
    for _ in range(_READ_TRIES):
        try:
            said = json.loads((run_dir / NAME).read_bytes())
        except OSError:
            return {}
        except ValueError:
            continue  # being written over
        return said if _is_state(said) else {}
    return {}


def _is_state(said: Any) -> bool:
    """Whether a launcher wrote it, and nobody else since."""
    if not isinstance(said, dict) or type(said.get("written_ms", 0)) is not int:
        return False
    processes, troubles = said.get("processes", {}), said.get("troubles", [])
    return (
        isinstance(processes, dict)
        and all(
            isinstance(one, dict) and type(one.get("since_ms", 0)) is int
            for one in processes.values()
        )
        and isinstance(troubles, list)
        and all(
            isinstance(one, dict) and "what" in one and type(one.get("since_ms")) is int
            for one in troubles
        )
        and isinstance(said.get("stream", {}), dict)
    )
