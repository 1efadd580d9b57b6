"""Planted bugs about times that an operator sets back (T3d, T3e)."""

from typing import Any

import numpy as np
from sim_bug import Patch, bug, replaced
from sim_scenario import CLOCKS_AHEAD

import stream.decoding.arrival as arrival_clock
from labeler.labels import OverrideSearch

WHERE = {"first": CLOCKS_AHEAD, "step": 64}


@bug(
    "clock word not looked for",
    "a labeler that runs does not look for an operator's word (T3e)",
    **WHERE,
)
def not_looked_for() -> list[Patch]:
    def bad(self: Any, reader: Any, partitions: Any, stopped: Any) -> None:
        return None

    return [replaced(OverrideSearch.more, bad)]


@bug(
    "clock word without an end",
    "times of records behind the end that a clock word names are set back too (T3d)",
    **WHERE,
)
def word_without_an_end() -> list[Patch]:
    def bad(words: Any, offset: Any, time_ms: Any) -> Any:
        for word in words:
            back = np.minimum(time_ms - word.by_ms, word.above_ms)
            time_ms = np.where(time_ms > word.above_ms, back, time_ms)
        return time_ms

    return [replaced(arrival_clock.set_back, bad, of=arrival_clock)]
