"""The secret of a deployment, which ids, names and features are hashed with: where it is kept, and
when it is made.

EVERSPUN_HASH_SECRET, or else the file `run.hash_secret_file`, or else what the configuration says.
Every host of a deployment needs the same one. A first start makes the file; where the store holds a
checkpoint already it is no first start, and a file that is missing must be brought from where it
is.
"""

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from stream.hashing import check_secret, secret_of

if TYPE_CHECKING:
    from everspun.config import Config

VARIABLE = "EVERSPUN_HASH_SECRET"
#: Longest file that is read, bytes.
BYTES_MAX = 4_096


class NoSecret(ValueError):
    """There is none where there must be one; the message says how to bring it."""


def path_of(config: "Config") -> Path:
    """Where the secret is kept."""
    return Path(config.run.hash_secret_file or Path(config.run.dir) / "hash.secret")


def with_secret(config: "Config", environ: Mapping[str, str] = os.environ) -> "Config":
    """The configuration with the secret filled in, if there is one, and the model's own derived
    from it. Raises ValueError for one that is no secret, and for a file that cannot be read."""
    secret = (
        environ.get(VARIABLE, "").strip() or _read(path_of(config)) or config.stream.hash_secret
    )
    check_secret(VARIABLE, secret)
    if not secret:
        return config
    model = config.model
    if not model.hash_secret:
        model = replace(model, hash_secret=secret_of(secret, "model"))
    return replace(config, stream=replace(config.stream, hash_secret=secret), model=model)


def with_secret_made(config: "Config", has_begun: Callable[[], bool]) -> "Config":
    """The same, and makes the file on a first start. Raises NoSecret where the deployment
    `has_begun` elsewhere."""
    config = with_secret(config)
    if config.stream.hash_secret:
        return config
    if has_begun():
        raise NoSecret(missing(config))
    path = path_of(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:  # whole or not at all: half of one would be a secret that nobody has
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(24) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another start was sooner
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return with_secret(config)


def missing(config: "Config") -> str:
    """Why there is no secret, and what to do."""
    return (
        f"no hash secret: neither {VARIABLE} nor {path_of(config)} is there, and the deployment "
        f"has begun. Every host"
        " needs the same one: copy the file from a host that has it (mode 600), or set the variable"
    )


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(BYTES_MAX + 1)
    except FileNotFoundError:
        return ""
    except NotADirectoryError:
        file_there = next((one for one in path.parents if one.is_file()), path.parent)
        raise ValueError(
            f"{file_there} is a file; name a folder in run.dir, or another file in "
            f"run.hash_secret_file"
        ) from None
    except OSError as error:
        raise ValueError(
            f"run.hash_secret_file = {str(path)!r}: {error.strerror}{_whose(path)}; a file that "
            "this user may read is meant"
        ) from None
    if len(raw) > BYTES_MAX:
        raise ValueError(f"{path}: a secret of more than {BYTES_MAX} bytes")
    try:
        text = raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: a secret is text") from None
    if not text:
        raise ValueError(f"{path}: an empty file is no secret; bring the one of this deployment")
    check_secret(str(path), text)
    return text


def _whose(path: Path) -> str:
    """Whose a file is, and who asks for it, for a message; "" where nobody may know."""
    try:
        state = path.stat()
    except OSError:
        return f" (asked by user {os.geteuid()})"
    mode = f"{state.st_mode & 0o777:o}"
    return f" (asked by user {os.geteuid()}; it is user {state.st_uid}'s, of mode {mode})"
