"""Counters: shows and clicks of a feature's values so far, faded by a half-life (J1 to J4). Shared
by who adds them up, who joins them to impressions, and who serves them.

- `counted`: what is counted, by whose declarations, and which key a row counts for
- `declared_counters`: the counters that a configuration declares
- `fading`: how much a count weighs after so many buckets
- `totals`: the totals of one thing that is counted, by key
- `values`: the numbers that a model reads of a counter
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from stream.columns.counters.counted import CountedValues, counter_keys, counters
    from stream.columns.counters.declared_counters import DeclaredCounters
    from stream.columns.counters.totals import CounterTotals, KeyTotals, faded, slice_of
    from stream.columns.counters.values import CounterColumns
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "CountedValues",
    "CounterColumns",
    "CounterTotals",
    "DeclaredCounters",
    "KeyTotals",
    "counter_keys",
    "counters",
    "faded",
    "slice_of",
]
