"""Which ranges of a chain have been counted, in bounded memory (pure)."""

from bisect import bisect_right

#: Ranges of one chain that do not touch, and chains; beyond them the oldest count as seen.
RANGES_MAX = 256
CHAINS_MAX = 4_096


class SeenRanges:
    """Ranges [start, end) by chain. Those that follow each other are one, so a stream without
    gaps takes one entry."""

    def __init__(self) -> None:
        self._starts: dict[str, list[int]] = {}
        self._ends: dict[str, list[int]] = {}

    def add(self, chain: str, start: int, end: int) -> bool:
        """Count a range; False if its start was counted before. Where a chain has more gaps than
        are kept, the lowest of them is taken for seen."""
        if chain not in self._starts:
            if len(self._starts) >= CHAINS_MAX:
                oldest = next(iter(self._starts))
                del self._starts[oldest], self._ends[oldest]
            self._starts[chain], self._ends[chain] = [], []
        starts, ends = self._starts[chain], self._ends[chain]
        at = bisect_right(starts, start)
        if at and start < ends[at - 1]:
            return False
        end = max(end, start + 1)
        if at < len(starts):
            end = min(end, starts[at])
        joins_left, joins_right = (
            bool(at) and ends[at - 1] == start,
            at < len(starts) and starts[at] == end,
        )
        if joins_left and joins_right:
            ends[at - 1] = ends[at]
            del starts[at], ends[at]
        elif joins_left:
            ends[at - 1] = end
        elif joins_right:
            starts[at] = start
        else:
            starts.insert(at, start)
            ends.insert(at, end)
        if len(starts) > RANGES_MAX:
            ends[0] = ends[1]
            del starts[1], ends[1]
        return True
