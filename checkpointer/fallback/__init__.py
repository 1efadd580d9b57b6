"""What a replica answers where its model cannot, or cannot in time.

A model's answer takes what it takes, and an older version's takes as long. What can be had within
any deadline is a number that stands ready for an item: how often it was clicked lately, as the
stream says, or what the model has answered for it before. An item without one gets the prior.

- `by_item`: which of them a config asks for, and the prior
- `item_answers`: what the model has answered for items before
- `item_rates`: how often items were clicked, from the stream
- `popularity_reader`: the thread that keeps these up with the stream
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from checkpointer.fallback.by_item import fallback_by_item, prior_probability
    from checkpointer.fallback.item_answers import ItemAnswers
    from checkpointer.fallback.item_rates import ItemRates
    from checkpointer.fallback.popularity_reader import PopularityReader
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "ItemAnswers",
    "ItemRates",
    "PopularityReader",
    "fallback_by_item",
    "prior_probability",
]
