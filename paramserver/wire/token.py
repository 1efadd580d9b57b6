"""The bearer token that calls to a shard must carry where its port is open to other users of the
host (shell).

A unix socket lets in who may write to it. A port of loopback lets in everybody on the host, and a
pause said by anybody is kept for good (K6): so there, too, is a token, in a file that only the
run's user reads.
"""

import os
import secrets
from dataclasses import replace
from pathlib import Path

from paramserver.config import ParamServerConfig

NAME = "shards.token"


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
