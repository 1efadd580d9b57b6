"""What a person is told when a command fails: one line and what to do, never a traceback for
what people can cause."""

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence

from everspun.commands.answer import CommandAnswer

#: Exit codes: a person's mistake or the surroundings; a fault of ours.
MISTAKE, FAULT = 2, 70
#: Characters of a line; of a longer one its begin and end are shown.
LINE_MAX = 1_000

#: A library that the small package does not bring -> the extra that does.
EXTRAS = {"torch": "networks", "matplotlib": "demo", "PIL": "images"}

# Classes of errors are named, not imported: what a command has not loaded has raised nothing, and
# to load all of it takes longer than most commands.
_CONFIG = (
    "everspun.config.ConfigError",
    "paramserver.config.NoAddress",
    "checkpointer.store.fsspec_store.NoStore",
)
_UNAVAILABLE = ("stream.log.log.Unavailable",)
_UNREACHABLE = ("paramserver.ports.PortUnreachable",)
_LOCKED = ("everspun.launcher.locks.AlreadyLocked",)
#: Errors of state: in use, or of another version.
_STATE = (
    "paramserver.server.state_dir.StateInUse",
    "paramserver.server.state_dir.StateUnreadable",
    "checkpointer.store.manifest.Damaged",
    "labeler.fraud.tables.OtherTables",
    "everspun.roles.other_system.OtherSystem",
)
#: Errors that say all there is to say: no traceback stands in a role's log.
_SAID_IN_FULL = (
    *_CONFIG,
    *_LOCKED,
    *_STATE,
    "stream.monitoring.metrics_server.PortTaken",
    "builtins.ModuleNotFoundError",
)
#: Errors whose text is what people are told.
_SAID_BY_ITSELF = (
    *_LOCKED,
    *_STATE,
    "stream.log.log.LogError",
    "paramserver.ports.PortRefused",
    "everspun.launcher.broker.BrokerError",
    "everspun.launcher.launcher.RunStopped",
    "everspun.local_run.NotReady",
)
#: Every class that is named here.
NAMED = frozenset((*_CONFIG, *_UNAVAILABLE, *_UNREACHABLE, *_SAID_IN_FULL, *_SAID_BY_ITSELF))


def _is_one(error: BaseException, names: Sequence[str]) -> bool:
    """Whether an error is of a class of these names, or of one below it."""
    return any(f"{one.__module__}.{one.__qualname__}" in names for one in type(error).__mro__)


def is_said_in_full(error: BaseException) -> bool:
    """Whether its line says all there is to say of it."""
    return _is_one(error, _SAID_IN_FULL)


def missing_library(name: str) -> str:
    """What is said where a library of an extra is needed and not there."""
    other = "; models of kind 'lr' and 'fm' need none" if name == "torch" else ""
    return f"{name} is not installed: pip install 'everspun[{EXTRAS[name]}]'{other}"


def told(error: BaseException) -> str | None:
    """One line for an error that people or their surroundings cause; None for a fault of ours."""
    if _is_one(error, _CONFIG):
        return f"config: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return missing_library(error.name)
    if _is_one(error, _UNAVAILABLE):
        return (
            f"{error}: is the broker of [stream] bootstrap_servers running, and is that its "
            f"address?"
        )
    if _is_one(error, _UNREACHABLE):
        return f"{error}: does `everspun run` run with this config?"
    if isinstance(error, OSError):
        return (
            f"{error.filename}: {error.strerror}"
            if error.filename and error.strerror
            else str(error)
        )
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # of pathlib
        return "nobody knows this user's home folder: set HOME, or give a path without ~"
    if isinstance(error, UnicodeError):
        return f"text that is not UTF-8: {error}"
    if _is_one(error, _SAID_BY_ITSELF):
        return str(error)
    if (
        type(error).__module__.partition(".")[0] in _OUTSIDE
    ):  # a client's own word for what the other side said
        return f"{type(error).__name__}: {error}"
    return None


#: Libraries whose errors are the other side's: brokers, stores.
_OUTSIDE = frozenset(
    {"kafka", "grpc", "botocore", "aiobotocore", "s3fs", "gcsfs", "adlfs", "aiohttp", "fsspec"}
)


def report(command: str, error: BaseException) -> int:
    """Say it on standard error; returns the exit code. A fault of ours leaves its traceback in a
    file, or in the log of a role, where an engineer looks for it; and so does any error of a role
    that does not say all there is."""
    line = told(error)
    if command == "role" and not is_said_in_full(error):
        traceback.print_exception(error)
    if line is not None:
        return say(f"everspun: {line}")
    where = "" if command == "role" else _kept_traceback(error)
    return say(
        f"everspun {command}: a fault of ours, please report it: {error!r}"[:LINE_MAX] + where,
        FAULT,
    )


def _kept_traceback(error: BaseException) -> str:
    """Where it is, as the end of a line."""
    try:
        file, path = tempfile.mkstemp(prefix="everspun-", suffix=".traceback")
        with os.fdopen(file, "w", errors="backslashreplace") as out:
            traceback.print_exception(error, file=out)
        return f"; its traceback is in {path}"
    except OSError:  # no room for it: better here than nowhere
        traceback.print_exception(error)
        return ""


def say(text: str, code: int = MISTAKE) -> int:
    """One line on standard error, and in the answer where that is JSON and it is an error; returns
    the exit code."""
    line = " ".join(text.split())
    if len(line) > LINE_MAX:
        line = f"{line[: LINE_MAX // 2]} ... {line[-LINE_MAX // 2 :]}"
    if code and isinstance(sys.stdout, CommandAnswer):
        sys.stdout.error = line
    if sys.stderr is not None:
        print(line, file=sys.stderr)
    return code


def refuse(command: str, why: object, code: int = MISTAKE) -> int:
    """Say why a command does not do what it was asked, as `say` does; returns the exit code."""
    return say(f"everspun {command}: {why}", code)


def unreadable_argument(arguments: Sequence[str]) -> str:
    """The first argument that is neither UTF-8 nor the name of a file, as a line; "" if there is
    none."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            if not os.path.exists(argument):
                return (
                    f"argument {os.fsencode(argument)!r} is not UTF-8: give it in the "
                    f"terminal's encoding, UTF-8"
                )
    return ""
