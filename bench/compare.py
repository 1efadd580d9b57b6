"""Two sets of runs of one bench beside each other: every figure's ratio, and how far it moves between runs."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

#: What a run was measured on is no figure.
NO_FIGURES = frozenset({"machine", "config", "seed"})

Run = dict[str, Any]


class Ratio(NamedTuple):
    """A figure's medians, new over old, and the smallest and largest ratio of any new run to any old one."""

    name: str
    old: float
    new: float
    ratio: float
    low: float
    high: float


def read_runs(path: Path) -> list[Run]:
    """Runs of a file: one JSON object, a list of them, `{"runs": [...]}`, or one object a line. ValueError names what
    else it is."""
    text = path.read_text()
    try:
        tree = json.loads(text)
    except json.JSONDecodeError:
        try:
            tree = [json.loads(line) for line in text.splitlines() if line.strip()]
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON, nor JSON lines ({error}); write one with `--save`") from None
    if isinstance(tree, dict):
        saved = tree.get("saved_runs")
        tree = saved if isinstance(saved, list) else [tree]
    if not tree or not all(isinstance(run, dict) for run in tree):
        raise ValueError(f"{path}: expected one JSON object a run, as a bench prints with --json")
    return list(tree)


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
    """The ratios of all figures that every run on both sides has; one whose old value is 0 in some run has none."""
    before, after = [dict(figures(run)) for run in old], [dict(figures(run)) for run in new]
    ratios = []
    for name in before[0]:
        if not all(name in run for run in (*before, *after)) or not all(run[name] for run in before):
            continue
        was, now = [run[name] for run in before], [run[name] for run in after]
        pairs = [b / a for a in was for b in now]
        ratios.append(Ratio(name, median(was), median(now), median(now) / median(was), min(pairs), max(pairs)))
    return ratios
