"""How many honest people the fraud filter rejects, and how many planted events it misses, on
MovieLens 100k.

    python -m bench.fraud_movielens FOLDER_WITH_WHEEL [--sweep | --extremes] [--json]

Plants the replay's two attacks, runs the filter's core over the whole history, and counts what its
verdicts cover. `--sweep` plants one attack of each direction on every vendor of 100 events or more,
at several times. Takes about 20 s and 0.4 GB.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from bench.attacks import fraud_run
from everspun.replay import (
    FLOOD_SOURCES,
    FLOOD_VIEWS,
    HOUR_MS,
    SELF_CLICKS,
    History,
    Planted,
    from_movielens,
    merge,
    movielens,
    plant,
)
from labeler import FraudConfig
from labeler.fraud.rules import PAIR_RULES, Evidence, Rule, RuleFinding

VENDOR_EVENTS_MIN = 100
EXTREME_MIN = 30
ALMOST_ONE = 0.999_999


@dataclass(frozen=True)
class Outcome:
    """Shares of impressions that verdicts cover, and what it took."""

    honest: int
    honest_rejected: int
    planted: int
    planted_rejected: int
    verdicts: dict[str, int]
    seconds: float
    filter_cpu_s_per_million_events: float

    @property
    def honest_share(self) -> float:
        return self.honest_rejected / max(1, self.honest)

    @property
    def recall(self) -> float:
        return self.planted_rejected / max(1, self.planted)


def judge(history: History, config: FraudConfig) -> Outcome:
    """Run the core over the history and count the impressions that its verdicts cover."""
    began = time.perf_counter()
    judged = fraud_run.judge(history, config)
    return Outcome(
        honest=int((~history.planted).sum()),
        honest_rejected=int((judged.rejected & ~history.planted).sum()),
        planted=int(history.planted.sum()),
        planted_rejected=int((judged.rejected & history.planted).sum()),
        verdicts=judged.by_rule,
        seconds=time.perf_counter() - began,
        filter_cpu_s_per_million_events=1e6 * judged.cpu_s / judged.events,
    )


def extremes(history: History, config: FraudConfig) -> dict[str, dict[str, float]]:
    """By rule, the smallest chance of any honest and any planted source, over windows of
    EXTREME_MIN events or more."""
    loose = replace(
        config, clicks_min=EXTREME_MIN, views_min=EXTREME_MIN, burst_clicks_min=EXTREME_MIN
    )
    everything = replace(
        loose, clicks_surprise=ALMOST_ONE, views_surprise=ALMOST_ONE, burst_surprise=ALMOST_ONE
    )
    bad = {
        source
        for source, planted in zip(history.sources, history.planted.tolist(), strict=True)
        if planted
    }
    least: dict[str, dict[str, float]] = {
        name: {"honest": 1.0, "planted": 1.0} for name in PAIR_RULES
    }

    def spied(name: str, rule: Rule) -> Rule:
        def judge_and_note(_: FraudConfig, seen: Evidence) -> RuleFinding | None:
            if found := rule(everything, seen):
                side = "planted" if seen.source in bad else "honest"
                chance = prod(
                    value for key, value in found.evidence.items() if key.startswith("chance_")
                )
                least[name][side] = min(least[name][side], chance)
            return rule(config, seen)

        return judge_and_note

    plain = dict(PAIR_RULES)
    PAIR_RULES.update({name: spied(name, rule) for name, rule in plain.items()})
    try:
        judge(history, loose)
    finally:
        PAIR_RULES.update(plain)
    return least


def attack(history: History, vendor: str, start_ms: int, seed: int) -> History:
    """One attack of each direction on `vendor`, beginning at `start_ms` and two hours later."""
    rng = np.random.default_rng(seed)
    items = sorted({i for i, v in zip(history.items, history.vendors, strict=True) if v == vendor})
    planted: list[Planted] = []
    for n, at in enumerate(np.sort(rng.integers(0, HOUR_MS - 10_000, SELF_CLICKS)) + start_ms):
        planted.append(
            (int(at), f"a-{n}", "s-0", "clicker", vendor, items[n % len(items)], int(at) + 3_000)
        )
    for n, at in enumerate(np.sort(rng.integers(0, HOUR_MS, FLOOD_VIEWS)) + start_ms + 2 * HOUR_MS):
        who = 1 + n % FLOOD_SOURCES
        planted.append(
            (int(at), f"b-{n}", f"s-{who}", f"viewer-{who}", vendor, items[n % len(items)], -1)
        )
    return merge(history, planted)


def sweep(history: History, config: FraudConfig) -> list[tuple[str, float, Outcome]]:
    """(vendor, place in the history, outcome) for attacks on every vendor, at 1%, 30% and 80% of
    the events."""
    names, counts = np.unique(np.array(history.vendors), return_counts=True)
    outcomes = []
    for vendor in names[counts >= VENDOR_EVENTS_MIN].tolist():
        for place in (0.01, 0.3, 0.8):
            start = int(history.ts_ms[int(place * len(history))])
            outcomes.append((vendor, place, judge(attack(history, vendor, start, 1), config)))
    return outcomes


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "folder", type=Path, help="folder with the recbole wheel, downloaded there if it is not"
    )
    parser.add_argument(
        "--sweep", action="store_true", help="attacks on every vendor at several times"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--extremes", action="store_true", help="how far apart honest people and attackers are"
    )
    chosen = parser.parse_args(arguments)
    folder = chosen.folder if chosen.folder.is_dir() else chosen.folder.parent
    history, config = from_movielens(movielens.load(movielens.fetch(folder))), FraudConfig()
    if chosen.extremes:
        for vendor in sorted(set(history.vendors)):
            if history.vendors.count(vendor) >= VENDOR_EVENTS_MIN:
                print(
                    vendor,
                    extremes(attack(history, vendor, int(history.ts_ms[30_000]), 1), config),
                    flush=True,
                )
        return 0
    rows = [("as the replay plants", -1.0, judge(plant(history, 7), config))]
    if chosen.sweep:
        rows += sweep(history, config)
    if chosen.json:
        print(
            json.dumps(
                [
                    {
                        "vendor": v,
                        "place": p,
                        "honest_rejected": o.honest_share,
                        "recall": o.recall,
                        "seconds": o.seconds,
                        "filter_cpu_s_per_million_events": o.filter_cpu_s_per_million_events,
                    }
                    for v, p, o in rows
                ]
            )
        )
        return 0
    print(
        f"{'attack on':24}{'place':>7}{'honest rejected':>18}{'recall':>9}{'seconds':>9}  verdicts"
    )
    for vendor, place, one in rows:
        shown = "" if place < 0 else f"{place:.0%}"
        print(
            f"{vendor:24}{shown:>7}{one.honest_share:>18.4%}{one.recall:>9.2%}{one.seconds:>9.1f} "
            f" {one.verdicts}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
