"""A local copy of waiting clicks, so that a start does not read a whole window again (C4).

- `cache`: the local copy of one partition's waiting clicks
- `page`: A page of clicks
- `rocks`: A labeler's local copy on disk
- `spilled`: clicks that lie in pages of the copy and not in memory, and which of them an impression
  may have (L5)
- `storage`: where a labeler's local copy lies (C4)
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from labeler.click_cache.cache import ClickCopy
    from labeler.click_cache.page import ClickPage
    from labeler.click_cache.rocks import RocksPages
    from labeler.click_cache.spilled import SpilledClicks
    from labeler.click_cache.storage import Pages, PagesFailed
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "ClickCopy",
    "ClickPage",
    "Pages",
    "PagesFailed",
    "RocksPages",
    "SpilledClicks",
]
