"""What the pipeline itself keeps: counters, which are shows and clicks of a feature's values so
far, faded by a half-life (J1 to J5), and sequences, which are the newest clicks of somebody (J6).
Shared by who adds them up, who joins them to impressions, and who serves them.

- `counted`: what is counted, and by whose declarations
- `counted_rows`: which key a row counts for
- `declared_counters`: the counters and sequences that a configuration declares
- `fading`: how much a count weighs after so many buckets
- `kept_clicks`: what is kept of clicks, and by whose declarations
- `kept_state`: all counters and sequences of one reader or writer of `counts`, on disk
- `key_rows`: the newest rows of one thing that is kept, by key, in rooms
- `key_sequences`: the newest clicks of some keys, and what clicks more and less make of them
- `key_table`: rows of a few numbers by key, in a room
- `sequence_columns`: what a model reads of the clicks that are kept
- `sequence_words`: sequences as rows of words
- `sequences`: the clicks of one thing that is kept, by key
- `stored_keys`: what one thing that is kept has of each key, on disk
- `totals`: the totals of one thing that is counted, by key
- `values`: the numbers that a model reads of a counter
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from stream.columns.counters.counted import CountedValues, counter_keys, counters
    from stream.columns.counters.declared_counters import DeclaredCounters
    from stream.columns.counters.fading import Fading
    from stream.columns.counters.kept_clicks import KeptClicks, declared_sequences
    from stream.columns.counters.kept_state import KeptState
    from stream.columns.counters.key_sequences import (
        KeyClicks,
        KeySequences,
        no_sequences,
        together,
        updated,
    )
    from stream.columns.counters.sequence_columns import SequenceColumns
    from stream.columns.counters.sequences import Sequences
    from stream.columns.counters.stored_keys import StoredKeys
    from stream.columns.counters.totals import (
        CounterTotals,
        KeyTotals,
        faded,
        no_totals,
        slice_of,
        totals_together,
    )
    from stream.columns.counters.values import CounterColumns
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "CountedValues",
    "CounterColumns",
    "CounterTotals",
    "DeclaredCounters",
    "Fading",
    "KeptClicks",
    "KeptState",
    "KeyClicks",
    "KeySequences",
    "KeyTotals",
    "SequenceColumns",
    "Sequences",
    "StoredKeys",
    "counter_keys",
    "counters",
    "declared_sequences",
    "faded",
    "no_sequences",
    "no_totals",
    "slice_of",
    "together",
    "totals_together",
    "updated",
]
