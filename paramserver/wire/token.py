"""The bearer token that calls to a shard must carry where its port is open to other users of the
host (shell).

A unix socket lets in who may write to it. A port of loopback lets in everybody on the host, and a
pause said by anybody is kept for good (K6): so there, too, is a token, in a file that only the
run's user reads.
"""

import os
import secrets
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from paramserver.config import ParamServerConfig

NAME = "shards.token"
#: Between two looks whether a file of tokens has changed.
LOOK_S = 1.0


class TokenFile:
    """Tokens, one a line, read anew when the file changes: a caller shows the first, a shard lets
    in whoever shows one of them. So they are renewed without a restart: the new one last, then
    first, then alone, each step everywhere before the next."""

    def __init__(self, path: str) -> None:
        """Raises OSError, and ValueError for a file without a token."""
        self._path, self._looked_s = Path(path), 0.0
        self._stamp = self._stamped()
        self._tokens = self._read()

    def tokens(self) -> tuple[str, ...]:
        """As they are in the file; one that cannot be read says what it said before."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            with suppress(OSError, ValueError):
                if (stamp := self._stamped()) != self._stamp:
                    self._tokens, self._stamp = self._read(), stamp
        return self._tokens

    def _read(self) -> tuple[str, ...]:
        tokens = tuple(self._path.read_text().split())
        if not tokens or not all(one.isprintable() for one in tokens):
            raise ValueError(f"paramserver.token_file = {str(self._path)!r}: holds no token")
        return tokens

    def _stamped(self) -> tuple[int, int, int]:
        state = self._path.stat()
        return state.st_mtime_ns, state.st_ino, state.st_size


def with_token(config: ParamServerConfig, run_dir: str) -> ParamServerConfig:
    """The config with a token: the file that it names, none for unix sockets, else
    `<run_dir>/shards.token`, which the first who asks makes. Raises OSError if it can neither be
    made nor read."""
    if config.token_file or config.transport != "tcp":
        return config
    path = Path(run_dir).absolute() / NAME
    if not path.exists():
        _make(path)
    return replace(config, token_file=str(path))


def _make(path: Path) -> None:
    """Whole or not at all, and by one of those who try at once: whoever is second takes the
    first one's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()
