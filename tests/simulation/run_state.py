"""What a long run of seeds has come to, kept in a file so that it goes on where it was ended.

One JSON object. Parts add up: a seed is counted once, under the commit that ran it first, however
often the run was ended and by however many commits it was done. What failed is run again, and fails
no more once it is put right.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Of the table of faults, in which a key is a pair.
SEPARATOR = " | "
#: Failures whose text is kept; of the others the seeds are.
TEXTS_MAX = 50


@dataclass
class RunState:
    """Seeds that were run, and what they came to. `table`: how often each fault met each role."""

    path: Path
    commits: dict[str, list[list[int]]] = field(default_factory=dict)  # -> [first, last], rising
    failed: dict[int, str] = field(default_factory=dict)  # seed -> what was seen
    cpu_s: float = 0.0
    table: Counter[tuple[str, str]] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def load(cls, path: Path) -> "RunState":
        """What stands in the file; a run that has not begun where there is none. Raises ValueError
        where something else stands there."""
        if not path.exists():
            return cls(path)
        try:
            kept: dict[str, Any] = json.loads(path.read_text())
            return cls(
                path,
                {str(commit): [list(one) for one in done] for commit, done in kept["done"].items()},
                {int(seed): str(text) for seed, text in kept["failed"].items()},
                float(kept["cpu_s"]),
                Counter({_pair(key): int(n) for key, n in kept["table"].items()}),
                Counter({str(key): int(n) for key, n in kept["counts"].items()}),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} holds no state of a run of seeds: {error!r}") from error

    def remaining(self, seeds: range) -> Iterator[int]:
        """Those of them that failed, and those that no part has run yet."""
        yield from sorted(seed for seed in self.failed if seed in seeds)
        done = sorted(one for ranges in self.commits.values() for one in ranges)
        at = seeds.start
        for first, last in done:
            yield from range(at, min(first, seeds.stop))
            at = max(at, last + 1)
        yield from range(at, seeds.stop)

    def add(
        self,
        commit: str,
        seed: int,
        failure: str,
        cpu_s: float,
        table: Counter[tuple[str, str]],
        counts: Counter[str],
    ) -> None:
        """One seed more, run by this commit; one that had failed counts no second time."""
        known = seed in self.failed
        self.failed.pop(seed, None)
        if failure:
            self.failed[seed] = failure if len(self.failed) < TEXTS_MAX else failure[:200]
        if known:
            return
        self.commits[commit] = _with(self.commits.get(commit, []), seed)
        self.cpu_s += cpu_s
        self.table.update(table)
        self.counts.update(counts)

    @property
    def seeds(self) -> int:
        return sum(last - first + 1 for done in self.commits.values() for first, last in done)

    def save(self) -> None:
        """Replace the file: whoever ends this process at any moment finds the one or the other."""
        kept = {
            "seeds": self.seeds,
            "cpu_s": round(self.cpu_s, 3),
            "done": self.commits,
            "failed": {str(seed): text for seed, text in sorted(self.failed.items())},
            "table": {SEPARATOR.join(key): n for key, n in sorted(self.table.items())},
            "counts": dict(sorted(self.counts.items())),
        }
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.write_text(json.dumps(kept, indent=1) + "\n")
        fresh.replace(self.path)

    def summary(self) -> str:
        each = self.cpu_s / max(1, self.seeds)
        failed = f", {', '.join(map(str, sorted(self.failed)))}" if self.failed else ""
        return (
            f"{self.seeds} seeds in all parts, {len(self.failed)} failed{failed}; "
            f"{self.cpu_s:.0f} CPU s, {each:.3f} a seed; commits {', '.join(sorted(self.commits))}"
        )


def _pair(key: str) -> tuple[str, str]:
    kind, role = key.split(SEPARATOR)
    return kind, role


def _with(done: list[list[int]], seed: int) -> list[list[int]]:
    """These ranges and one seed more, joined where they touch."""
    joined: list[list[int]] = []
    for first, last in _rising([*done, [seed, seed]]):
        if joined and first <= joined[-1][1] + 1:
            joined[-1][1] = max(joined[-1][1], last)
        else:
            joined.append([first, last])
    return joined


def _rising(done: Iterable[list[int]]) -> list[list[int]]:
    return sorted(list(one) for one in done)
