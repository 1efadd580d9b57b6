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
from everspun.launcher.role_log import REASON_CHARACTERS_MAX

NAME = "launcher.json"
FILE_BYTES = 65_536
_READ_TRIES = 5
#: Of a reason, where there are too many: fewer would say nothing.
_CHARACTERS_MIN = 40


class StateFile:
    """Written by the launcher alone."""

    def __init__(self, run_dir: Path) -> None:
        """Takes its room on the disk. Raises OSError."""
        self.path = run_dir / NAME
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.pwrite(self._file, b" " * FILE_BYTES, 0)

    def write(self, said: dict[str, Any]) -> None:
        """Raises OSError."""
        os.pwrite(self._file, _fitting(said).ljust(FILE_BYTES), 0)

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


def _fitting(said: dict[str, Any]) -> bytes:
    """As text that fits the file. Where there are too many processes, those that are well say
    nothing; then all that are ill, and the troubles, say less, and at last fewer of them."""
    text, characters = _text(said), REASON_CHARACTERS_MAX
    ill = [(name, one) for name, one in said["processes"].items() if one["state"] != "up"]
    troubles = said.get("troubles", [])
    while len(text) > FILE_BYTES:
        processes = {
            name: one | {"reason": str(one.get("reason", ""))[:characters]} for name, one in ill
        }
        told = [one | {"what": one["what"][:characters]} for one in troubles]
        text = _text(said | {"processes": processes, "troubles": told})
        if characters > _CHARACTERS_MIN:
            characters //= 2
        elif ill or troubles:
            ill, troubles = ill[: len(ill) // 2], troubles[: len(troubles) // 2]
        else:
            said = said | {"stream": {}}
    return text


def _text(said: dict[str, Any]) -> bytes:
    return json.dumps(said, ensure_ascii=False).encode(errors="replace")


def read_state(run_dir: Path) -> dict[str, Any]:
    """What the launcher of this folder said last; {} where there is none, or it cannot be read."""
    for _ in range(_READ_TRIES):
        try:
            said = json.loads((run_dir / NAME).read_bytes())
        except OSError:
            return {}
        except (ValueError, RecursionError):
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
