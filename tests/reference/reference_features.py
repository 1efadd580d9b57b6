"""What a model reads of rows of `examples`, written again from docs/features.md: plain Python, no
code shared with the system.

`read(rows, declared, names)` gives each row's list of (key, x): `key` is any hashable thing that
names a weight, x what multiplies it. Pooled values have their share, crosses a key of both sides,
numbers the key of their feature.
"""

import bisect
import datetime
import itertools
import math
import re
import unicodedata
import zoneinfo
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Reading = list[tuple[Any, float]]
_WORD = re.compile(r"[^\W_]+")
_BUILT_IN = ("source", "vendor", "item", "shown_at", "ts_ms")


def read(
    rows: Iterable[Mapping[str, Any]],
    declared: Mapping[str, Mapping[str, Any]],
    categorical: Sequence[str],
    numeric: Sequence[str] = (),
) -> list[Reading]:
    """`rows`: as `examples` has them; `declared`: options of `[features.NAME]` by name."""
    return [_reading(row, declared, categorical, numeric) for row in rows]


def columns(declared: Mapping[str, Mapping[str, Any]], used: Iterable[str]) -> list[str]:
    """Which columns of `examples` the features stand in, `ts_ms` among them."""
    parts = {part for name in used for part in name.split("*")}
    plain = [p for p in parts if not declared.get(p, {}).get("of")]
    return sorted({"ts_ms", *(p if p in _BUILT_IN else f"f_{p}" for p in plain)})


def _reading(
    row: Mapping[str, Any],
    declared: Mapping[str, Mapping[str, Any]],
    categorical: Sequence[str],
    numeric: Sequence[str],
) -> Reading:
    parts = {part for name in categorical for part in name.split("*")}
    values = {part: _values(row, part, declared.get(part, {})) for part in parts}
    out: Reading = []
    for name in categorical:
        sides = [values[part] for part in name.split("*")]
        if len(sides) == 1:
            keyed_as = declared.get(name, {}).get("shares") or name
            out += [((keyed_as, value), x) for value, x in sides[0]]
        else:
            pairs = [((name, a, b), x * y) for a, x in sides[0] for b, y in sides[1]]
            out += pairs
    for name in numeric:
        out += _numbers(name, row["shown_at" if name == "shown_at" else f"f_{name}"], declared)
    return out


def _values(row: Mapping[str, Any], name: str, said: Mapping[str, Any]) -> Reading:
    """(value, share) of a feature that is hashed."""
    kind = said.get("kind", "categorical")
    if kind == "time":
        return [(_time(row, name, said), 1.0)]
    value = row[name if name in _BUILT_IN else f"f_{name}"]
    if kind == "list":
        return _pooled(value[: said.get("max_values", 64)] or [said.get("default", "")], said)
    if kind == "text":
        return _pooled(_tokens(value, said)[: said.get("max_tokens", 64)] or [""], said)
    if kind == "numeric":
        if math.isnan(value):
            value = said.get("default", math.nan)
        if math.isnan(value):
            return [("", 1.0)]
        return [(str(bisect.bisect_right(list(said["buckets"]), value)), 1.0)]
    return [(value or said.get("default", ""), 1.0)]


def _pooled(values: Sequence[str], said: Mapping[str, Any]) -> Reading:
    count = len(values)
    share = {"sum": 1.0, "mean": 1.0 / count, "sqrt": count**-0.5}[said.get("pool", "mean")]
    return [(value, share) for value in values]


def _tokens(text: str, said: Mapping[str, Any]) -> list[str]:
    words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    if said.get("tokens", "words") == "words":
        return words
    pairs = [f"{a} {b}" for a, b in itertools.pairwise(words)]
    both = words[:1]
    for word, pair in zip(words[1:], pairs, strict=True):
        both += [word, pair]
    return both


def _time(row: Mapping[str, Any], name: str, said: Mapping[str, Any]) -> str:
    own = said.get("of") == "ts_ms"
    at = row["ts_ms"] if own else row[f"f_{name}"]
    if at < 0:
        return ""
    if said.get("part", "hour") == "age":
        seconds = (row["ts_ms"] - at) // 1000
        return "-1" if seconds < 0 else str(seconds.bit_length())
    zone = zoneinfo.ZoneInfo(said.get("zone", "UTC"))
    local = datetime.datetime.fromtimestamp(at / 1000, zone)
    of = {
        "hour": local.hour,
        "weekday": local.weekday(),
        "hour_of_week": local.weekday() * 24 + local.hour,
    }
    return str(of[said.get("part", "hour")])


def _numbers(name: str, value: Any, declared: Mapping[str, Mapping[str, Any]]) -> Reading:
    said = declared.get(name, {})
    if said.get("kind") == "vector":
        return [((name, i), float(x)) for i, x in enumerate(value)]
    if math.isnan(value):
        value = said.get("default", 0.0)
    if said.get("transform") == "log1p":
        value = math.copysign(math.log1p(abs(value)), value)
    return [((name,), float(value))]
