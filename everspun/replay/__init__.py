"""Histories, and how they are replayed into the topics.

- `attackers`: attackers of eight kinds, drawn into a history with the truth kept apart from what
  the pipeline sees
- `attacks`: attacks planted into a history
- `history`: A recorded history of a shop
- `movielens`: MovieLens 100k as a shop's log
- `outcome`: what became of the attacks that a replay planted
- `own_log`: A log of a user's own, as docs/events.md has it
- `own_replay`: the replay of a log of a user's own
- `plan`: what a replay writes, in order
- `replay`: the replayer
- `traffic`: simulated traffic of a shop with a known truth
- `visits`: what a site knows of a person when it shows something
- `writer`: what every replay does to the topics
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from everspun.replay import attacks, history, movielens
    from everspun.replay.attackers import ATTACKS, BLINDING, FRAMED, FRAMING, KINDS, Staged, stage
    from everspun.replay.attacks import (
        FLOOD_SOURCES,
        FLOOD_VIEWS,
        HOUR_MS,
        SELF_CLICKS,
        Planted,
        merge,
        plant,
    )
    from everspun.replay.history import History, from_movielens
    from everspun.replay.movielens import DELAY_NOTE
    from everspun.replay.outcome import attack_outcome
    from everspun.replay.own_log import CLICKS, IMPRESSIONS, OwnFile, OwnLogError
    from everspun.replay.own_replay import OwnProgress, OwnReplay
    from everspun.replay.plan import Period, ReplayPlan
    from everspun.replay.replay import Replayer, ReplayProgress
    from everspun.replay.traffic import TrafficConfig, simulate
    from everspun.replay.writer import Stuck
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "ATTACKS",
    "BLINDING",
    "CLICKS",
    "DELAY_NOTE",
    "FLOOD_SOURCES",
    "FLOOD_VIEWS",
    "FRAMED",
    "FRAMING",
    "HOUR_MS",
    "IMPRESSIONS",
    "KINDS",
    "SELF_CLICKS",
    "History",
    "OwnFile",
    "OwnLogError",
    "OwnProgress",
    "OwnReplay",
    "Period",
    "Planted",
    "ReplayPlan",
    "ReplayProgress",
    "Replayer",
    "Staged",
    "Stuck",
    "TrafficConfig",
    "attack_outcome",
    "attacks",
    "from_movielens",
    "history",
    "merge",
    "movielens",
    "plant",
    "simulate",
    "stage",
]
