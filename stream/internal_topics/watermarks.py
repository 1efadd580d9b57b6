"""Watermarks of all inputs as one short text, for the header of a batch (C4).

Inputs of one topic stand together, in order of their partitions, each as its difference to the one
before: `~clicks=1700000000000,0,500,-500;impressions=...`. So the header grows by a few bytes a
partition. Names of another form stand each for itself, as older records have it: `a=5,b=7`.
"""

import re
from collections.abc import Mapping
from itertools import pairwise

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}=[0-9]{1,18}(,-?[0-9]{1,18})*")
_ONE = re.compile(r"([^,;=]{1,300})=([0-9]{1,18})")
_PACKED = "~"


def pack_watermarks(watermarks: Mapping[str, int]) -> str:
    """Input -> ms."""
    topics: dict[str, dict[int, int]] = {}
    if not watermarks:
        return ""
    for name, ms in watermarks.items():
        topic, _, number = name.rpartition("/")
        if not topic or not number.isdecimal() or "/" in topic or str(int(number)) != number:
            return _each(watermarks)
        topics.setdefault(topic, {})[int(number)] = ms
    if any(sorted(marks) != list(range(len(marks))) for marks in topics.values()):
        return _each(watermarks)
    return _PACKED + ";".join(
        f"{topic}={_differences(marks)}" for topic, marks in sorted(topics.items())
    )


def _each(watermarks: Mapping[str, int]) -> str:
    return ",".join(f"{name}={ms}" for name, ms in sorted(watermarks.items()))


def _differences(marks: Mapping[int, int]) -> str:
    values = [marks[p] for p in range(len(marks))]
    return ",".join(map(str, [values[0], *(b - a for a, b in pairwise(values))]))


def unpack_watermarks(raw: str) -> dict[str, int]:
    """The same. Raises ValueError naming the part that is none."""
    found: dict[str, int] = {}
    if not raw:
        return found
    if raw.startswith(_PACKED):
        for part in raw.removeprefix(_PACKED).split(";"):
            if not _TOPIC.fullmatch(part):
                raise ValueError(f"{part!r:.80}, expected '<topic>=<ms>,<difference>,...'")
            topic, _, numbers = part.partition("=")
            ms = 0
            if f"{topic}/0" in found:
                raise ValueError(f"{topic!r:.80} stands there twice")
            for p, number in enumerate(numbers.split(",")):
                ms += int(number)
                if not 0 <= ms < 1 << 63:
                    raise ValueError(f"{topic!r:.80}: {ms} is no time in ms")
                found[f"{topic}/{p}"] = ms
        return found
    for part in raw.split(","):
        one = _ONE.fullmatch(part)
        if one is None:
            raise ValueError(f"{part!r:.80}, expected '<input>=<ms>'")
        if one[1] in found:
            raise ValueError(f"{one[1]!r:.80} stands there twice")
        found[one[1]] = int(one[2])
    return found
