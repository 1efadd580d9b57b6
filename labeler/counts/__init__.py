"""Counters and sequences: added up from `examples`, published in `counts`, and joined to
impressions as of their arrival (J1 to J4, J6).

- `adder`: from the records of `examples` to totals and sequences by bucket of arrival
- `closing`: what a closed bucket makes of the state of one thing that is kept
- `examples_count`: what one record of `examples` counts, and which clicks it says
- `feed`: where the partitions of a labeler read `counts`
- `fitting`: how much of its sequences a range may take along
- `joined`: what an impression is given of `counts`
- `of_partition`: what one partition needs of the totals, and when
- `runner`: the adder's reader and writer
- `stored_counts`: where totals and sequences lie, and what a record of `counts` makes of them
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from labeler.counts.adder import Adder
    from labeler.counts.feed import CountsFeed
    from labeler.counts.joined import JoinedCounts
    from labeler.counts.of_partition import PartitionCounts
    from labeler.counts.runner import Adding
    from labeler.counts.stored_counts import kept_state
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "Adder",
    "Adding",
    "CountsFeed",
    "JoinedCounts",
    "PartitionCounts",
    "kept_state",
]
