"""Which table of items a config asks a fallback to be answered by, and the prior without one."""

from numbers import Real

from checkpointer.config import POPULARITY, PREVIOUS, ServingConfig
from checkpointer.fallback.item_answers import ItemAnswers
from checkpointer.fallback.item_rates import ItemRates


def fallback_by_item(config: ServingConfig, prior: float) -> ItemRates | ItemAnswers | None:
    """An empty one; `prior` is answered for items that it does not know. None = for all."""
    if config.fallback == POPULARITY:
        return ItemRates(prior, config.fallback_items_max, config.popularity_half_life_ms)
    if config.fallback == PREVIOUS:
        return ItemAnswers(prior, config.fallback_items_max)
    return None


def prior_probability(config: ServingConfig, prior: float) -> float:
    """What a config says, else `prior`. Raises ValueError where that is no probability."""
    if not (isinstance(prior, Real) and 0 <= prior <= 1):
        raise ValueError(f"fallback = {prior!r}: allowed is 0 to 1")
    return config.fallback_probability if config.fallback_probability >= 0 else prior
