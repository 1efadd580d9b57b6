"""Two sets of runs of one bench beside each other: every figure's ratio, and how far it moves
between runs."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

#: What a run was measured on is no figure.
NO_FIGURES = frozenset({"machine", "config", "seed"})

Run = dict[str, Any]


class Ratio(NamedTuple):
    """A figure's medians, new over old, and the smallest and largest ratio of any new run to any
    old one."""

    name: str
    old: float
    new: float
    ratio: float  # of medians; nan where an old run has 0, and inf where all have
    low: float
    high: float
    apart: bool  # every new run lies on the same side of every old one


def read_runs(path: Path) -> list[Run]:
    """Runs of a file: one JSON object, a list of them, `{"runs": [...]}`, or one object a line.
    ValueError names what else it is."""
    text = path.read_text()
    try:
        tree = json.loads(text)
    except json.JSONDecodeError:
        try:
            tree = [json.loads(line) for line in text.splitlines() if line.strip()]
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}: not JSON, nor JSON lines ({error}); write one with `--save`"
            ) from None
    if isinstance(tree, dict):
        saved = tree.get("saved_runs")
        named = {"bench": tree["bench"]} if isinstance(tree.get("bench"), str) else {}
        tree = (
            [named | run if isinstance(run, dict) else run for run in saved]
            if isinstance(saved, list)
            else [tree]
        )
    if not isinstance(tree, list) or not tree or not all(isinstance(run, dict) for run in tree):
        raise ValueError(f"{path}: expected one JSON object a run, as a bench prints with --json")
    return list(tree)


def check_comparable(old: Sequence[Run], new: Sequence[Run]) -> list[str]:
    """Raises ValueError where the two sides are of different benches, or share no figure. Returns
    what else differs between them and is no figure: settings, and figures that one side lacks."""
    was, now = ({str(run["bench"]) for run in runs if "bench" in run} for runs in (old, new))
    if was and now and was != now:
        raise ValueError(
            f"{', '.join(sorted(was))} on one side and {', '.join(sorted(now))} on the other: not "
            f"one bench"
        )
    before, after = ({name for run in runs for name, _ in figures(run)} for runs in (old, new))
    if not before & after:
        raise ValueError(
            f"no figure is on both sides: {sorted(before)[:5]} and {sorted(after)[:5]}"
        )
    said = [
        f"{name}: {a!r} on the old side, {b!r} on the new"
        for name, a, b in _settings(old[0], new[0])
    ]
    said += [f"{name}: only on the old side" for name in sorted(before - after)]
    return said + [f"{name}: only on the new side" for name in sorted(after - before)]


def _settings(old: Run, new: Run) -> Iterator[tuple[str, object, object]]:
    for name in sorted((set(old) | set(new)) - NO_FIGURES - {"bench"}):
        a, b = old.get(name), new.get(name)
        if any(isinstance(one, str | bool) for one in (a, b)) and a != b:
            yield name, a, b


def figures(run: Run, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a run by its path, such as `cpu_s_per_million_examples.fraud`."""
    for name, value in run.items():
        if name in NO_FIGURES:
            continue
        if isinstance(value, dict):
            yield from figures(value, f"{prefix}{name}.")
        elif isinstance(value, list) and all(isinstance(one, dict) for one in value):
            for i, one in enumerate(value):
                yield from figures(one, f"{prefix}{name}[{i}].")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + name, float(value)


def compare(old: Sequence[Run], new: Sequence[Run]) -> list[Ratio]:
    """The ratios of all figures that every run on both sides has, but those that are 0 in all of
    them."""
    before, after = [dict(figures(run)) for run in old], [dict(figures(run)) for run in new]
    ratios = []
    for name in before[0]:
        if not all(name in run for run in (*before, *after)):
            continue
        was, now = [run[name] for run in before], [run[name] for run in after]
        if not any(was) and not any(now):
            continue
        apart = min(now) > max(was) or max(now) < min(was)
        if all(was):
            pairs = [b / a for a in was for b in now]
            ratio, low, high = median(now) / median(was), min(pairs), max(pairs)
        else:
            ratio = low = high = math.nan if any(was) else math.inf
        ratios.append(Ratio(name, median(was), median(now), ratio, low, high, apart))
    return ratios
