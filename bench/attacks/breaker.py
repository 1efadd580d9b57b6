"""False trips of the circuit breaker on healthy traffic, and how soon and how much of an outage it
withholds.

    python -m bench.breaker [--json] [--plot] [--seeds 100-101] [--movielens FOLDER_WITH_WHEEL]
    [--days 5]

Shops of several sizes, drawn from people (`bench.attacks.breaker_shop`), with nights, a sale day,
and the three stories of `docs/breaker.md`; the breaker's own core with its defaults, cells of five
minutes. `--movielens` judges MovieLens 100k too, with every class of films as a slice, in cells of
an hour and of ten minutes: once as it is, and once as if each impression were another person's.
Thresholds were fixed on seed 0. An impression counts as withheld where the verdict stands before
its label closes (window of an hour). Takes about 5 minutes of one core and 0.5 GB.
"""

import argparse
import json
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.attacks.breaker_shop import SLICES, CellCounts, Shop, Story, history_cells
from bench.attacks.fraud import seeds_of
from bench.measuring import plotting
from everspun.replay import from_movielens, movielens
from labeler import BreakerConfig
from labeler.breaker import GROUPS, Breaker, Scope, scope_of, tally_stream
from stream import StreamConfig
from stream.hashing import hash_string
from stream.internal_topics import WITHHOLD, BatchHeader

MEASURED_ON = range(100, 102)
#: New visitors in five minutes, on average; each looks at 9 things in a cell, and a third stay for
#: the next.
SIZES = (2.0, 10.0, 50.0)
FIRST_MS = 1_700_006_400_000  # a midnight
SALE_DAY = 3
STREAM = StreamConfig(partitions=1, categorical_features=SLICES, release_ms=21_600_000)


@dataclass
class Judged:
    """What a breaker said of a run of cells."""

    cells: int = 0
    scopes: int = 0  # sum over cells of the scopes that had impressions
    trips: Counter[str] = field(default_factory=Counter)  # by rule
    said: dict[Scope, int] = field(
        default_factory=dict
    )  # scope -> the cell after which it was first withheld
    withheld: dict[Scope, set[int]] = field(
        default_factory=dict
    )  # cells whose labels had not closed by then
    impressions: dict[int, dict[Scope, int]] = field(default_factory=dict)  # cell -> scope -> count

    def share_withheld(self, scope: Scope, first: int, last: int) -> float:
        """Of the impressions of a scope in cells `[first, last)`, those that are withheld with
        it or with all."""
        out = self.withheld.get(scope, set()) | self.withheld.get(("", ""), set())
        counts = {
            n: self.impressions[n].get(scope, 0)
            for n in range(first, last)
            if n in self.impressions
        }
        return sum(count for n, count in counts.items() if n in out) / max(1, sum(counts.values()))

    @property
    def lost(self) -> float:
        """Share of all impressions that are withheld, by whatever scope takes the most of a
        cell."""
        total = taken = 0
        for n, counts in self.impressions.items():
            total += counts.get(("", ""), 0)
            taken += max(
                [counts.get(s, 0) for s, cells in self.withheld.items() if n in cells], default=0
            )
        return taken / max(1, total)


def judge(cells: Iterable[CellCounts], config: BreakerConfig) -> Judged:
    """Feed cells to the core one after the other."""
    early, out = tally_stream(STREAM, config), Judged()
    breaker, behind_ms = Breaker(early, config), early.wait_ms + config.settle_ms
    for offset, (one, clicks) in enumerate(_with_clicks(cells, early.wait_ms, config.cell_ms)):
        arrival_ms = (one.number + 1) * config.cell_ms - 1
        header = BatchHeader(
            "label/0", offset << 20, offset + 1 << 20, "s", "c", arrival_max_ms=arrival_ms,
            clicks_read=clicks.raw + clicks.unreadable, clicks_quarantined=clicks.unreadable,
        )  # fmt: skip
        out.cells += 1
        out.scopes += sum(count > 0 for count in one.impressions.values())
        out.impressions[one.number] = one.impressions
        before = dict(breaker.trips)
        breaker.on_tally(0, offset, header, one.rows)
        for verdict in breaker.step().verdicts:
            scope, cells_ = (
                scope_of(verdict),
                range(verdict.from_ms // config.cell_ms, verdict.to_ms // config.cell_ms),
            )
            if verdict.decision == WITHHOLD:
                in_time = [
                    n
                    for n in cells_
                    if (one.number + 1 - n) * config.cell_ms + behind_ms <= STREAM.wait_ms
                ]
                out.withheld.setdefault(scope, set()).update(in_time)
                out.said.setdefault(scope, cells_[-1])
            else:
                out.withheld.setdefault(scope, set()).difference_update(cells_)
        out.trips.update(trip.rule for scope, trip in breaker.trips.items() if scope not in before)
    return out


def _with_clicks(
    cells: Iterable[CellCounts], wait_ms: int, cell_ms: int
) -> Iterator[tuple[CellCounts, CellCounts]]:
    """Each cell with the one whose clicks have arrived when its impressions are tallied,
    `wait_ms` later."""
    ahead = (cell_ms - 1 + wait_ms) // cell_ms
    waiting: deque[CellCounts] = deque()
    for one in cells:
        waiting.append(one)
        if len(waiting) > ahead:
            yield waiting.popleft(), one
    while waiting:
        one = waiting.popleft()
        yield one, CellCounts(one.number + ahead, None, 0)


def healthy(size: float, seed: int, days: int, config: BreakerConfig) -> dict[str, Any]:
    """A shop in which nothing breaks: all that is withheld is a mistake."""
    shop = Shop(size, seed, config, sale_day=SALE_DAY)
    return _false(judge(shop.cells(FIRST_MS // config.cell_ms, days), config))


def _false(judged: Judged) -> dict[str, Any]:
    trips = sum(judged.trips.values())
    return {
        "cells": judged.cells,
        "cell_scopes": judged.scopes,
        "false_trips": trips,
        "false_trips_per_1000_cell_scopes": round(1000 * trips / max(1, judged.scopes), 4),
        "impressions_lost": round(judged.lost, 5),
        "rules": dict(judged.trips),
    }


def stories(config: BreakerConfig, days: int) -> list[Story]:
    """The book's, in the last days: an evening of a language, a partner's key for as long as the
    run goes on, discounted purchases that silently stop and ones that cannot be read; and all
    clicks for an hour."""
    day, hour = config.day_cells, config.day_cells // 24
    evening = (days - 1) * day + 16 * hour
    return [
        Story("payments_of_a_language", ("language", "de"), evening, evening + 3 * hour),
        Story("payments_of_a_small_language", ("language", "fi"), evening, evening + 3 * hour),
        Story("partner_key_changed", ("partner", "acme"), (days - 2) * day + 10 * hour, days * day),
        Story("discounted_stop", ("discounted", "yes"), evening, evening + 3 * hour),
        Story(
            "discounted_unreadable",
            ("", ""),
            evening,
            evening + 3 * hour,
            1.0,
            True,
            ("discounted", "yes"),
        ),
        Story("all_clicks_stop", ("", ""), evening, evening + hour),
    ]


def outage(
    size: float, seed: int, days: int, story: Story, config: BreakerConfig
) -> dict[str, Any]:
    """One story in one shop."""
    first = FIRST_MS // config.cell_ms
    judged = judge(Shop(size, seed, config, stories=(story,)).cells(first, days), config)
    begin, end = first + story.first, first + story.last
    said = judged.said.get(story.scope)
    others = set(judged.withheld) - {story.scope, ("", "")}
    return {
        "found": said is not None and said >= begin,
        "delay_cells": None if said is None or said < begin else said - begin + 1,
        "withheld": round(judged.share_withheld(story.scope, begin, end), 4),
        "other_scopes": len(others),
    }


def movielens_figures(folder: Path) -> dict[str, Any]:
    history = from_movielens(movielens.load(movielens.fetch(folder)))
    by_person = {s: hash_string(s) % GROUPS for s in set(history.sources)}
    groups = {
        "people": lambda h: np.array([by_person[s] for s in h.sources], np.int64),
        "each_impression_a_person": lambda h: np.random.default_rng(1).integers(0, GROUPS, len(h)),
    }
    out: dict[str, Any] = {}
    for cell_ms in (3_600_000, 600_000):
        config = BreakerConfig(slices=("vendor",), cell_ms=cell_ms)
        for name, group_of in groups.items():
            out[f"{name}_{cell_ms // 60_000}_min"] = _false(
                judge(history_cells(history, config, group_of), config)
            )
    return out


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    known = [row[name] for row in rows if row[name] is not None]
    return round(float(np.mean(known)), 4) if known else None


def figures(
    seeds: Sequence[int], sizes: Sequence[float], days: int, config: BreakerConfig
) -> dict[str, Any]:
    found: dict[str, Any] = {"healthy": [], "stories": []}
    for size in sizes:
        rows = [healthy(size, seed, days, config) for seed in seeds]
        trips, scopes = (
            sum(row["false_trips"] for row in rows),
            sum(row["cell_scopes"] for row in rows),
        )
        found["healthy"].append(
            {
                "visitors_a_cell": size,
                "cell_scopes": scopes,
                "false_trips": trips,
                "false_trips_per_1000_cell_scopes": round(1000 * trips / max(1, scopes), 5),
                "impressions_lost": max(row["impressions_lost"] for row in rows),
                "rules": dict(sum((Counter(row["rules"]) for row in rows), Counter())),
            }
        )
        print(
            f"healthy, {size:g} visitors a cell: {found['healthy'][-1]}",
            file=sys.stderr,
            flush=True,
        )
        for story in stories(config, days):
            tried = [outage(size, seed, days, story, config) for seed in seeds]
            row: dict[str, Any] = {"story": story.name, "visitors_a_cell": size}
            row |= {
                name: _mean(tried, name)
                for name in ("found", "delay_cells", "withheld", "other_scopes")
            }
            found["stories"].append(row)
            print(row, file=sys.stderr, flush=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=seeds_of, default=MEASURED_ON, help="FIRST-LAST (100-101)")
    parser.add_argument("--days", type=int, default=5, help="days of a shop (5)")
    parser.add_argument(
        "--sizes", default=",".join(f"{s:g}" for s in SIZES), help="new visitors in five minutes"
    )
    parser.add_argument(
        "--movielens", type=Path, help="judge MovieLens 100k too; the wheel's folder"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plot", action="store_true", help="draw docs/breaker.png")
    chosen = parser.parse_args(arguments)
    sizes = [float(size) for size in chosen.sizes.split(",")]
    found: dict[str, Any] = {
        "bench": "breaker",
        "seeds": [chosen.seeds[0], chosen.seeds[-1]],
        "days": chosen.days,
    }
    found |= figures(chosen.seeds, sizes, chosen.days, BreakerConfig(slices=SLICES))
    if chosen.movielens is not None:
        found["movielens"] = movielens_figures(chosen.movielens)
    if chosen.plot:
        plotting.breaker(found["stories"], Path("docs/breaker.png"))
    print(json.dumps(found) if chosen.json else json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
