"""Clocks of learners, bounded staleness (K1 to K7), and operators' settings.

- `allow`: the allow list, as the clock holder says it
- `allow_list_sender`: how the allow list gets to every shard and is confirmed (K5)
- `clocks`: stale synchronous parallel clocks (K1-K7) and the stop lease of cuts (X1), as a pure
  core
- `governor`: the governor's judgement, as a pure core
- `model_clocks`: the clocks of one model
- `operator_settings`: what an operator has ordered of a model's training
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from paramserver.clocks.allow_list_sender import AllowListSender
    from paramserver.clocks.clocks import Clocks
    from paramserver.clocks.governor import (
        SLOWEST,
        WHY,
        Decision,
        Estimate,
        Governor,
        estimate,
        pace_levels,
    )
    from paramserver.clocks.operator_settings import (
        NO_SETTINGS,
        OperatorSettings,
        decode_settings,
        encode_settings,
    )
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "NO_SETTINGS",
    "SLOWEST",
    "WHY",
    "AllowListSender",
    "Clocks",
    "Decision",
    "Estimate",
    "Governor",
    "OperatorSettings",
    "decode_settings",
    "encode_settings",
    "estimate",
    "pace_levels",
]
