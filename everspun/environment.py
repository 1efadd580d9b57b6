"""Keys of the configuration from the environment: `EVERSPUN_SECTION_KEY`, over the file and under
`--set` (pure)."""

import dataclasses
import difflib
import tomllib
import typing
from collections.abc import Mapping
from typing import Any

PREFIX = "EVERSPUN_"
#: Read elsewhere, each with its own meaning: secrets, which no configuration holds, and what a
#: launcher, a bench or the broker's clients say to their own processes.
OWN = (
    "EVERSPUN_HASH_SECRET",
    "EVERSPUN_KAFKA",
    "EVERSPUN_SECRET",
    "EVERSPUN_LAUNCHER_PIPE",
    "EVERSPUN_KAFKA_USERNAME",
    "EVERSPUN_KAFKA_PASSWORD",
    "EVERSPUN_KAFKA_TOKEN",
    "EVERSPUN_KAFKA_KEY_PASSWORD",
    "EVERSPUN_REGISTRY_PASSWORD",
    "EVERSPUN_REGISTRY_TOKEN",
)
OWN_PREFIXES = ("EVERSPUN_BENCH_",)


def variables(kind: type) -> dict[str, tuple[str, str, Any]]:
    """Name of a variable -> (section, key, type), of every key of a configuration of this kind;
    sections of many names ([features.NAME]) are the file's alone."""
    found = {}
    for section, inner in typing.get_type_hints(kind).items():
        if not dataclasses.is_dataclass(inner):
            continue
        for key, hint in typing.get_type_hints(inner).items():
            if key in {one.name for one in dataclasses.fields(inner)}:
                found[f"{PREFIX}{section}_{key}".upper()] = (section, key, hint)
    return found


def with_environment(
    kind: type, tree: dict[str, Any], environ: Mapping[str, str]
) -> dict[str, Any]:
    """The TOML tree with what the environment says instead. Where a key is text it is taken as it
    is, or without the quotes that TOML has around it; elsewhere it is a TOML value. Raises
    ValueError for a variable of ours that is no key."""
    known = variables(kind)
    merged = {name: dict(part) if isinstance(part, dict) else part for name, part in tree.items()}
    for name in sorted(environ):
        if name.upper() != name and name.upper() in (*known, *OWN):
            raise ValueError(
                f"environment: {name} is no key of the configuration; did you mean {name.upper()}?"
            )
        if not name.startswith(PREFIX) or name in OWN or name.startswith(OWN_PREFIXES):
            continue
        if name not in known:
            raise ValueError(
                f"environment: {name} is no key of the configuration{near(name, known)}"
            )
        section, key, hint = known[name]
        part = merged.setdefault(section, {})
        if isinstance(part, dict):
            part[key] = _text(environ[name]) if hint is str else _value(name, environ[name])
    return merged


def near(name: str, known: typing.Iterable[str]) -> str:
    """`; did you mean X?`, or nothing."""
    found = difflib.get_close_matches(name, [*known, *OWN], n=1)
    return f"; did you mean {found[0]}?" if found else "; unset it"


def _text(raw: str) -> str:
    if not raw.strip().startswith(('"', "'")):
        return raw
    try:
        value = tomllib.loads(f"v = {raw.strip()}")
    except ValueError:
        return raw
    quoted = value["v"] if len(value) == 1 else raw
    return quoted if isinstance(quoted, str) else raw


def _value(name: str, raw: str) -> Any:
    if "\n" in raw.strip():
        raise ValueError(f"environment: {name}={raw[:100]!r}: expected one value, in one line")
    try:
        return tomllib.loads(f"v = {raw.strip()}")["v"]
    except (ValueError, RecursionError):  # also of thousands of digits, or of brackets
        raise ValueError(
            f'environment: {name}={raw[:100]!r} is no TOML value (true, 3, 0.5, "text", [1, 2])'
        ) from None
