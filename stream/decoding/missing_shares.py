"""How much of the last minutes' impressions lacks a component: what another team's service predicts
may be away for hours, and somebody must be told (docs/features.md).

Shares halve with arrival time, so a service that is back is seen to be back.
"""

from collections.abc import Mapping

from stream.columns import FEATURE_PREFIX, Feature, Impressions, is_missing

#: Impressions that arrived so much earlier count half, ms.
HALF_LIFE_MS = 300_000


class MissingShares:
    """Of the components of one partition."""

    def __init__(self, components: Mapping[str, Feature]):
        self.components = components
        self._missing = dict.fromkeys(components, 0.0)
        self._rows, self._at_ms = 0.0, 0

    def add(self, events: Impressions) -> None:
        """The next impressions."""
        if not self.components or not len(events):
            return
        now_ms = int(events.arrival_ms[-1])
        keeps = 0.5 ** (max(0, now_ms - self._at_ms) / HALF_LIFE_MS)
        self._at_ms = max(self._at_ms, now_ms)
        self._rows = self._rows * keeps + len(events)
        for name in self.components:
            column = events.table.column(FEATURE_PREFIX + name).combine_chunks()
            self._missing[name] = self._missing[name] * keeps + float(is_missing(column).sum())

    @property
    def rows(self) -> float:
        """Impressions of the last minutes."""
        return self._rows

    @property
    def counts(self) -> dict[str, float]:
        """Of those, how many lack each component."""
        return dict(self._missing)
