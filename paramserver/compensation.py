"""How a shard may compensate stale gradients: the settings of it (`shard/delay_compensation.py`
does it)."""

from typing import NamedTuple

#: How a shard takes gradients that are stale (`paramserver.shard.delay_compensation`).
WAYS = ("none", "staleness_rate", "dc_asgd", "adaptive_revision")


class Compensation(NamedTuple):
    """Which way, lambda of `dc_asgd`, and the memory that a model's history may take on one
    shard, bytes."""

    way: str = "none"
    strength: float = 0.04
    bytes_max: int = 268_435_456


NO_COMPENSATION = Compensation()
