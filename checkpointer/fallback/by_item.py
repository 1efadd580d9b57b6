"""Which table of items a config asks a fallback to be answered by."""

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
