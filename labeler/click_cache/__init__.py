"""A local copy of waiting clicks, so that a start does not read a whole window again (C4).

- `cache`: the local copy of one partition's waiting clicks
- `page`: A page of clicks
- `spilled`: clicks that lie in pages of the copy and not in memory, and which of them an impression
  may have (L5)
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from labeler.click_cache.cache import ClickCopy, PagesFailed
    from labeler.click_cache.page import ClickPage
    from labeler.click_cache.spilled import SpilledClicks
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "ClickCopy",
    "ClickPage",
    "PagesFailed",
    "SpilledClicks",
]
