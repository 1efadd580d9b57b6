"""Attacks caught, and honest clicks lost, by the fraud filter's core on simulated traffic with
known attackers.

    python -m bench.fraud [--json] [--plot] [--seeds 100-109] [--impressions N]

The thresholds are the defaults of `FraudConfig`; they were fixed on seeds 0-9, the figures come
from seeds 100-109. The seed draws the shop (vendors, click rate, people, how they cluster) and
every attack anew: its vendor, time, length, intensity, and how much it looks elsewhere to hide.
Takes about 8 minutes and 2 GB.

Two attacks on the filter itself come beside these, each in a run of its own. `framing`: events in
honest people's names, fast, slow and in floods, and a crowd on a competitor's vendor;
`honest_banned_by_framing` counts honest sources of which an honest impression is rejected with it
and not in the same seed without it, beside the clicks that they lose. `blinding`: 400,000 junk
sources in ten bursts, with room for BLIND_PAIRS pairs only; `recall_lost_by_blinding` is what it
costs.

Recall is of fraudulent events (views and clicks on the attacked vendors) that a verdict rejects in
time. Of an attacker's views elsewhere, which hide it, no verdict speaks; `camouflage` is their
share of its events. An honest click is lost where a verdict covers its impression;
`flooded_clicks_lost`: of those that `duplicate_flood` sent again. Honest people's behaviour is
simulated, not measured: on a real site, look at your own verdicts' evidence first.
"""

import argparse
import json
import resource
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.attacks.fraud_run import Judged, judge
from bench.measuring import plotting
from everspun.replay import (
    ATTACKS,
    BLINDING,
    FRAMED,
    FRAMING,
    HOUR_MS,
    KINDS,
    History,
    Staged,
    TrafficConfig,
    simulate,
    stage,
)
from labeler import FraudConfig
from stream.kernels import F64, I64

FIXED_ON, MEASURED_ON = range(10), range(100, 110)
BUSY_EVENTS = 20  # an hour
#: Pairs that there is room for under `blinding`: some four times what honest people make up in two
#: windows, and half of what comes in one of its bursts.
BLIND_PAIRS = 20_000
BUSIEST_SHARE = 0.01
#: Edges of the curves over events an hour.
EDGES = (2, 4, 6, 8, 12, 16, 20, 30, 60, 100, 300, 1_000, 10_000)


def shop(seed: int, impressions: int) -> TrafficConfig:
    """A shop of its own for each seed; one of its days is a sale."""
    rng = np.random.default_rng([seed, 3])
    return TrafficConfig(
        impressions=impressions,
        users=int(rng.integers(8_000, 30_000)),
        items=int(rng.integers(1_000, 5_000)),
        vendors=int(rng.integers(60, 400)),
        click_rate=float(np.exp(rng.uniform(np.log(0.02), np.log(0.10)))),
        days=3.0,
        zipf=float(rng.uniform(0.6, 0.9)),
        session_views=float(rng.uniform(2.5, 5.0)),
        focus=float(rng.uniform(0.05, 0.25)),
        shared=float(rng.uniform(0.1, 0.3)),
        sale_day=int(rng.integers(3)),
        attacks=False,
        seed=seed,
    )


@dataclass(frozen=True)
class Trial:
    """One seed, judged. All arrays are of impressions, (n,)."""

    staged: Staged
    judged: Judged
    weight: I64  # events: the view and its clicks
    clicks: I64
    rate: F64  # events of the impression's source in its busiest hour
    busiest: npt.NDArray[np.bool_]  # of one of the busiest 1% of honest sources
    honest_sources: int
    honest_busy: int  # of them, above 20 events an hour in some hour

    def mine(self, kind: str) -> npt.NDArray[np.bool_]:
        """The fraudulent impressions of attacks of a kind."""
        of_kind = np.array([attack.kind == kind for attack in self.staged.attacks] + [False])
        return of_kind[self.staged.attack] & ~self.staged.hiding

    def caught(self, where: npt.NDArray[np.bool_]) -> tuple[int, int]:
        """Events there that are rejected, and all of them."""
        return int(self.weight[where & self.judged.rejected].sum()), int(self.weight[where].sum())

    def lost(self, where: npt.NDArray[np.bool_]) -> tuple[int, int]:
        """Honest clicks there that are rejected, and all of them."""
        honest = where & (self.staged.attack < 0)
        return int(self.clicks[honest & self.judged.rejected].sum()), int(self.clicks[honest].sum())


def run(seed: int, impressions: int, config: FraudConfig) -> Trial:
    staged = stage(simulate(shop(seed, impressions)).history, seed)
    judged = judge(staged.history, config)
    clicks = np.bincount(staged.history.click_impression, minlength=len(staged.history))
    source, most = busiest_hours(staged.history)
    honest = staged.attack < 0
    totals = np.bincount(source[honest], weights=1 + clicks[honest], minlength=len(most))
    sources = np.unique(source[honest])
    busiest = np.zeros(len(most), np.bool_)
    busiest[
        sources[np.argsort(-totals[sources])[: max(1, round(BUSIEST_SHARE * len(sources)))]]
    ] = True
    flood = np.array([attack.kind == "duplicate_flood" for attack in staged.attacks] + [False])[
        staged.attack
    ]
    busy = np.setdiff1d(sources, source[flood])  # what is sent in its name makes nobody busy
    return Trial(
        staged,
        judged,
        1 + clicks,
        clicks,
        most[source].astype(np.float64),
        busiest[source],
        len(sources),
        int((most[busy] > BUSY_EVENTS).sum()),
    )


@dataclass(frozen=True)
class Hostile:
    """One seed under the attacks on the filter, against the same seed without them."""

    banned: list[str]  # honest sources that framing has rejected
    honest_lost: int  # clicks of honest people that framing costs them
    framing: tuple[int, int]  # made-up events rejected, and all
    caught: dict[str, tuple[int, int]]  # kind -> events rejected and all, framed
    blinded: dict[str, tuple[int, int]]  # the same, blinded


def run_hostile(seed: int, impressions: int, config: FraudConfig, plain: Trial) -> Hostile:
    history = simulate(shop(seed, impressions)).history
    framed = _judged(history, seed, FRAMING, config)
    blinded = _judged(history, seed, BLINDING, replace(config, pairs_max=BLIND_PAIRS))
    fraud = [kind for kind in KINDS if kind != "duplicate_flood"]
    before, after = _hurt(plain), _hurt(framed)
    everyone = np.ones(len(framed.clicks), np.bool_)
    return Hostile(
        sorted(after - before),
        framed.lost(everyone)[0] - plain.lost(np.ones(len(plain.clicks), np.bool_))[0],
        framed.caught(framed.mine(FRAMING)),
        {kind: framed.caught(framed.mine(kind)) for kind in fraud},
        {kind: blinded.caught(blinded.mine(kind)) for kind in fraud},
    )


def _judged(history: History, seed: int, kind: str, config: FraudConfig) -> Trial:
    staged = stage(history, seed, ATTACKS | {kind: 1})
    clicks = np.bincount(staged.history.click_impression, minlength=len(staged.history))
    nothing = np.zeros(len(clicks))
    return Trial(
        staged, judge(staged.history, config), 1 + clicks, clicks, nothing, nothing > 0, 0, 0
    )


def _hurt(trial: Trial) -> set[str]:
    """Honest sources of which something honest is rejected."""
    found = np.flatnonzero((trial.staged.attack < 0) & trial.judged.rejected)
    return {trial.staged.history.sources[i] for i in found.tolist()}


def hostile_figures(trials: Sequence[Trial], hostile: Sequence[Hostile]) -> dict[str, Any]:
    fraud = [kind for kind in KINDS if kind != "duplicate_flood"]
    plain = {kind: share(t.caught(t.mine(kind)) for t in trials) or 0.0 for kind in fraud}

    def lost(what: str) -> dict[str, float]:
        now = {kind: share(getattr(h, what)[kind] for h in hostile) or 0.0 for kind in fraud}
        return {kind: round(plain[kind] - now[kind], 5) for kind in fraud}

    return {
        "honest_banned_by_framing": sum(len(h.banned) for h in hostile),
        "honest_clicks_lost_by_framing": sum(h.honest_lost for h in hostile),
        "framed_sources": FRAMED * len(hostile),
        "framing_rejected": share(h.framing for h in hostile),
        "recall_lost_by_framing": lost("caught"),
        "recall_lost_by_blinding": lost("blinded"),
    }


def busiest_hours(history: History) -> tuple[I64, I64]:
    """The source of each impression (n,), and of each source the events of its busiest hour (any 60
    minutes that begin at a quarter)."""
    names, source = np.unique(np.array(history.sources), return_inverse=True)
    who = np.concatenate([source, source[history.click_impression]])
    ts_ms = np.concatenate([history.ts_ms, history.click_ts_ms])
    most = np.zeros(len(names), np.int64)
    for quarter in range(4):
        hour = (ts_ms + quarter * HOUR_MS // 4) // HOUR_MS
        key, events = np.unique(who * 10_000_000 + hour, return_counts=True)
        np.maximum.at(most, key // 10_000_000, events)
    return source, most


def share(parts: Iterable[tuple[int, int]]) -> float | None:
    some, all_ = (sum(column) for column in zip(*parts, strict=True))
    return round(some / all_, 5) if all_ else None


def curve(trials: Sequence[Trial], kind: str) -> list[dict[str, Any]]:
    """Recall by events an hour of the attacker's busiest hour."""
    points = []
    for low, high in pairwise(EDGES):
        parts = [
            trial.caught(trial.mine(kind) & (trial.rate >= low) & (trial.rate < high))
            for trial in trials
        ]
        if sum(all_ for _, all_ in parts):
            points.append(
                {
                    "from": low,
                    "below": high,
                    "events": sum(n for _, n in parts),
                    "recall": share(parts),
                }
            )
    return points


def figures(trials: Sequence[Trial]) -> dict[str, Any]:
    fraud = [kind for kind in KINDS if kind != "duplicate_flood"]
    busy = {
        kind: share(t.caught(t.mine(kind) & (t.rate > BUSY_EVENTS)) for t in trials)
        for kind in fraud
    }
    return {
        "recall": {kind: share(t.caught(t.mine(kind)) for t in trials) for kind in fraud},
        "recall_above_20_an_hour": busy,
        "curve": {kind: curve(trials, kind) for kind in fraud},
        "honest_clicks_lost": share(t.lost(np.ones(len(t.clicks), np.bool_)) for t in trials),
        "honest_clicks_lost_busiest_1_percent": share(t.lost(t.busiest) for t in trials),
        "honest_clicks_lost_worst_seed": max(
            share([t.lost(np.ones(len(t.clicks), np.bool_))]) or 0.0 for t in trials
        ),
        "flooded_clicks_lost": share(t.lost(_flooded(t)) for t in trials),
        "honest_sources_above_20_an_hour": share((t.honest_busy, t.honest_sources) for t in trials),
        "camouflage": share(
            (int(t.weight[t.staged.hiding].sum()), int(t.weight[t.staged.history.planted].sum()))
            for t in trials
        ),
        "honest_clicks": sum(t.lost(np.ones(len(t.clicks), np.bool_))[1] for t in trials),
        "events": sum(t.judged.events for t in trials),
        "verdicts": _sum_by_rule(trials),
        "filter_cpu_s_per_million_events": round(
            1e6 * sum(t.judged.cpu_s for t in trials) / sum(t.judged.events for t in trials), 2
        ),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _flooded(trial: Trial) -> npt.NDArray[np.bool_]:
    """Honest impressions that were sent again."""
    kinds = np.array(
        [attack.kind == "duplicate_flood" for attack in trial.staged.attacks] + [False]
    )
    ids = np.array(trial.staged.history.ids)
    return np.isin(ids, np.unique(ids[kinds[trial.staged.attack]])) & (trial.staged.attack < 0)


def _sum_by_rule(trials: Sequence[Trial]) -> dict[str, int]:
    total: dict[str, int] = {}
    for trial in trials:
        for rule, count in trial.judged.by_rule.items():
            total[rule] = total.get(rule, 0) + count
    return total


def seeds_of(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=seeds_of, default=MEASURED_ON, help="FIRST-LAST (100-109)")
    parser.add_argument(
        "--impressions", type=int, default=200_000, help="honest impressions of a seed (200,000)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plot", action="store_true", help="draw docs/fraud.png")
    chosen = parser.parse_args(arguments)
    trials, hostile = [], []
    for seed in chosen.seeds:
        trials.append(run(seed, chosen.impressions, FraudConfig()))
        hostile.append(run_hostile(seed, chosen.impressions, FraudConfig(), trials[-1]))
        print(f"banned by framing: {hostile[-1].banned}", file=sys.stderr, flush=True)
        print(f"seed {seed} of {chosen.seeds[0]}-{chosen.seeds[-1]}", file=sys.stderr, flush=True)
    found = {
        "bench": "fraud",
        "seeds": [chosen.seeds[0], chosen.seeds[-1]],
        "impressions": chosen.impressions,
    }
    found |= figures(trials) | hostile_figures(trials, hostile)
    if chosen.plot:
        plotting.fraud(found, Path("docs/fraud.png"))
    if chosen.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
