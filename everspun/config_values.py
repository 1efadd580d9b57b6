"""What no key of the configuration may hold, whatever its package says of it (pure)."""

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learners import ModelConfig

#: Beyond these, sums of two are no 64-bit integer, and a duration is nobody's.
INTEGER_MAX, MS_MAX = 1 << 62, 10**14
#: The longest wait that the system calls beneath take: 24 days.
WAIT_MS_MAX, WAIT_S_MAX = (1 << 31) - 1, (1 << 31) // 1_000
#: No configuration is longer.
FILE_BYTES_MAX = 16_777_216
#: Characters of a value that a message shows.
SHOWN = 100
#: A model's folder and a topic have names that a file system and Kafka take.
NAME_BYTES_MAX = 200
#: A turn asks a broker that is away so often at most, one deadline after the other.
DEADLINES_A_TURN = 4
#: Ends of the names of keys that say how long a process waits.
_WAITS = (
    "commit_ms",
    "drain_ms",
    "lease_ms",
    "poll_ms",
    "reconnect_max_ms",
    "retry_max_ms",
    "retry_ms",
    "session_timeout_ms",
    "timeout_ms",
    "wait_ms",
)
#: Ends of the names of keys that say where a file or folder is.
_PATHS = (
    "_file",
    "cafile",
    "certfile",
    "keyfile",
    ".dir",
    ".root",
    ".golden",
    "paramserver.cert",
    "paramserver.key",
    "paramserver.ca",
)
_PREFIX = re.compile(r"[A-Za-z0-9._-]*")
_SERVER = re.compile(
    r"(?:[A-Za-z0-9_+]+://)?(?:\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\],]+)(?::(\d{1,9}))?"
)


def short(value: object) -> str:
    """`repr` of a value, cut in its middle where it is long."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    half = SHOWN // 2
    return text if len(text) <= SHOWN else f"{text[:half]}...{text[-half:]}"


def shown(where: str, value: object) -> str:
    """The value of the key `where` as a message shows it: never a secret."""
    return "..." if where.endswith("hash_secret") else short(value)


def integer_fault(name: str, value: int) -> str:
    """What is wrong with a whole number of the key `name`; "" if nothing is."""
    most = MS_MAX if name.endswith("_ms") else INTEGER_MAX
    most = WAIT_MS_MAX if name.endswith(_WAITS) else most
    return "" if -most <= value <= most else f"allowed is at most {most} (and at least {-most})"


def number_fault(name: str, value: float | int) -> str:
    """What is wrong with a number of the key `name`; "" if nothing is."""
    try:
        if not math.isfinite(value):
            return "expected a finite number"
    except OverflowError:
        return "expected a number that a float holds"
    if name.endswith("_s") and abs(value) > WAIT_S_MAX:
        return f"allowed is at most {WAIT_S_MAX}"
    return ""


def text_fault(value: str) -> str:
    """What is wrong with a text; "" if nothing is."""
    if "\0" in value:
        return "it holds a NUL character; remove it"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "it is not UTF-8; give it as UTF-8"
    return ""


def path_fault(name: str, value: str) -> str:
    """What is wrong with a text of the key `name` where that is a path; "" if nothing is. Nothing
    that a shell would fill in is taken for a folder."""
    if not name.endswith(_PATHS):
        return ""
    if value.startswith(("~", "$")):
        return f"{value[0]} is filled in by nobody here; expected the whole path"
    if value != value.strip() or len(value.splitlines()) > 1:
        return "it holds a line break, or a blank at an end; expected the path alone"
    return ""


def model_name_fault(name: str) -> str:
    """What is wrong with the name of a model, which names a folder; "" if nothing is."""
    if name.startswith(".") or set(name) & set("/\\") or not name.isprintable():
        return (
            "it names a folder, so it may not begin with '.', nor hold '/', '\\' or control "
            "characters"
        )
    if len(name.encode()) > NAME_BYTES_MAX:
        return f"it names a folder: allowed are {NAME_BYTES_MAX} bytes"
    return ""


def prefix_fault(prefix: str) -> str:
    """What is wrong with a prefix of topics; "" if nothing is."""
    if _PREFIX.fullmatch(prefix) and len(prefix) <= NAME_BYTES_MAX:
        return ""
    return f"allowed are up to {NAME_BYTES_MAX} of Kafka's letters, digits, '.', '_', '-'"


def servers_fault(servers: str) -> str:
    """What is wrong with the addresses of brokers; "" if nothing is."""
    for one in servers.split(","):
        found = _SERVER.fullmatch(one.strip())
        if found is None or not 1 <= int(found[1] or 9092) <= 65_535:
            return (
                f"{short(one.strip())} is no address; expected host:port with a port of 1 to "
                f"65535, several separated by commas"
            )
    return ""


def any_fault(name: str, value: Any) -> str:
    """What is wrong with a value of any kind, deep in tables and lists; "" if nothing is."""
    if isinstance(value, bool):
        return ""
    if isinstance(value, int):
        return integer_fault(name, value)
    if isinstance(value, float):
        return number_fault(name, value)
    if isinstance(value, str):
        return text_fault(value)
    if isinstance(value, dict):
        inner = [*value.items(), *(("", key) for key in value)]
    else:
        inner = [("", one) for one in value] if isinstance(value, list) else []
    return next((wrong for key, one in inner if (wrong := any_fault(key, one))), "")


def turn_fault(turn_max_s: float, request_timeout_ms: int) -> str:
    """What is wrong with the longest turn of a loop; "" if nothing is. A broker that is away must
    make nobody hang."""
    least_s = DEADLINES_A_TURN * request_timeout_ms / 1_000
    if turn_max_s == 0 or turn_max_s >= least_s:
        return ""
    return (
        f"allowed is 0 (never), or at least {least_s:g}: {DEADLINES_A_TURN} times "
        "stream.request_timeout_ms"
    )


def compensation_fault(way: str, model: "ModelConfig") -> str:
    """What is wrong with `paramserver.compensation` for the tables of a model; "" if nothing is."""
    if way != "adaptive_revision":
        return ""
    if model.table_optimizer != way:
        return (
            f"paramserver.compensation = {way!r} with model.table_optimizer = "
            f"{model.table_optimizer!r}: allowed is {way!r}, whose rows hold what it needs"
        )
    for group, settings in model.groups.items():
        if settings.get("optimizer", way) != way:
            return (
                f"paramserver.compensation = {way!r}: model.groups.{group}.optimizer must be "
                f"{way!r} too"
            )
    return ""
