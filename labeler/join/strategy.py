"""When impressions are read to be labelled, and what a reading says: the strategies of
docs/labels.md.

strategy         `label/p` reads at                  `late/p` reads again at
window           arrival + window + grace            - (release_ms: + release + grace)
eager            arrival: everything is negative     arrival + window + grace: the clicks
window+correct   arrival + window + grace            arrival + late window + grace: later clicks
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stream import LABEL, LATE, StreamConfig
from stream.kernels import GOLDEN, U64, Bools

#: A window in which no click counts.
NO_WINDOW_MS = -1


@dataclass(frozen=True)
class LabelStrategy:
    """One reading of `impressions[p]`: the chain that it writes, and which clicks count in it
    (L1)."""

    kind: str  # LABEL or LATE
    window_ms: int
    wait_ms: int  # deadline - arrival
    click_wait_ms: int  # a click that arrives longer than this after its impression does not count


def label_strategies(stream: StreamConfig) -> tuple[LabelStrategy, ...]:
    """The first reading, and the later one where the strategy has one."""
    if stream.label_strategy == "eager":
        return LabelStrategy(LABEL, NO_WINDOW_MS, 0, 0), LabelStrategy(
            LATE, stream.window_ms, stream.wait_ms, stream.wait_ms
        )
    first = LabelStrategy(LABEL, stream.window_ms, stream.wait_ms, stream.wait_ms)
    if not stream.reads_again:
        return (first,)
    if stream.label_strategy == "window":  # what is released has the label it would have had
        return first, LabelStrategy(LATE, stream.window_ms, stream.wait_last_ms, stream.wait_ms)
    return first, LabelStrategy(
        LATE, stream.late_window_ms, stream.wait_last_ms, stream.wait_last_ms
    )


class Share(NamedTuple):
    """Clicks in time and late ones, in millionths, each counted less the longer ago it was: the
    late share is `late / (late + on_time)`. Whole numbers, so that it is the same wherever it is
    folded (C4)."""

    late_micro: int = 0
    on_time_micro: int = 0

    def add(self, late: int, on_time: int, passed_ms: int, half_life_ms: int) -> "Share":
        """After `passed_ms` of arrival time, with these clicks more."""
        kept = 0.5 ** (max(0, passed_ms) / half_life_ms)
        return Share(
            round(self.late_micro * kept) + 1_000_000 * late,
            round(self.on_time_micro * kept) + 1_000_000 * on_time,
        )


NOTHING = Share()


def kept_negatives(ids: U64, rate: float) -> Bools:
    """Which negatives are examples: a function of the impression's id, the same in every reading
    and replay."""
    if rate >= 1.0:
        return np.ones(len(ids), np.bool_)
    mixed = (ids ^ (ids >> np.uint64(31))) * GOLDEN
    kept: Bools = (mixed >> np.uint64(11)) < np.uint64(int(rate * (1 << 53)))
    return kept
