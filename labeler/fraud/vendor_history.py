"""What honest sources do to each vendor: the base that a rule compares a source with.

A cell enters it a window after it was judged, without the pairs that a verdict covers there, so an
attack cannot teach the filter that its own behaviour is usual while it is being judged.
"""

import numpy as np

from labeler.fraud.tables import StateTable
from labeler.fraud_config import FraudConfig
from stream.kernels import F64, I64

#: Key of the sum over all vendors; a vendor's key is its name behind a letter.
ALL = "*"
#: Keys of what else is usual on the site: of clicks, those that follow another one fast; of sources
#: that click on a vendor, those devoted to it. In the columns of views and clicks.
GAPS, DEVOTED = "*gaps", "*devoted"
_SITE = [ALL, GAPS, DEVOTED]
#: Vendors of one entry of the table.
PAGE_VENDORS = 256
#: Vendors remembered, about 200 bytes each.
VENDORS_MAX = 100_000


class VendorHistory:
    """Views and clicks by vendor and of all vendors. Each remembers the last cell added: those at
    or below it are not added again. Changes stay here until `write` (F2: written at the commit)."""

    def __init__(self, config: FraudConfig, table: StateTable) -> None:
        self._config = config
        self._table = table
        self._places: dict[
            str, int
        ] = {}  # key -> place in the columns; pages are stretches of them
        self._cell: I64 = np.zeros(0, np.int64)
        self._views: F64 = np.zeros(0)
        self._clicks: F64 = np.zeros(0)
        self._changed: set[int] = set()  # pages
        for _, (keys, *columns) in sorted(table.items(), key=lambda entry: int(entry[0])):
            at = self._places_of(keys)
            self._cell[at], self._views[at], self._clicks[at] = columns
        self._places_of(_SITE)
        self._left: set[int] = set()  # pages that are no more

    def __len__(self) -> int:
        """Vendors."""
        return len(self._places) - len(_SITE)

    @property
    def newest(self) -> int:
        """The last cell added; -1 = none."""
        return int(self._cell[self._places[ALL]])

    def add(self, cell: int, vendors: list[str], views: F64, clicks: F64) -> None:
        """Add what was done in a cell to each of some vendors (n,). A vendor that already has this
        cell, or a later one, is left alone."""
        if not vendors:
            return
        if len(self) + len(vendors) > VENDORS_MAX:
            self._make_room(len(vendors))
        keys = [*("v" + vendor for vendor in vendors), ALL]
        self._add(cell, keys, np.append(views, views.sum()), np.append(clicks, clicks.sum()))

    def pass_over(self, cell: int) -> None:
        """Nothing is learned of a cell."""
        self._add(cell, [ALL], np.zeros(1), np.zeros(1))

    def add_gaps(self, cell: int, clicks: int, fast: int) -> None:
        """Of the clicks of a cell, so many follow another one fast."""
        self._add(cell, [GAPS], np.array([float(clicks)]), np.array([float(fast)]))

    def add_devoted(self, cell: int, sources: int, devoted: int) -> None:
        """Of the sources that clicked on a vendor in the window that ends with a cell, so many
        are devoted to it."""
        self._add(cell, [DEVOTED], np.array([float(sources)]), np.array([float(devoted)]))

    def _add(self, cell: int, keys: list[str], more_views: F64, more_clicks: F64) -> None:
        at = self._places_of(keys)
        new = self._cell[at] < cell
        at = at[new]
        self._cell[at] = cell
        self._views[at] += more_views[new]
        self._clicks[at] += more_clicks[new]
        full = at[self._views[at] > self._config.history_views_max]
        self._views[full] /= 2
        self._clicks[full] /= 2
        self._changed.update(np.unique(at // PAGE_VENDORS).tolist())

    def _make_room(self, vendors: int) -> None:
        """Forget the vendors with the fewest views, for which the common rate then stands: whoever
        sends events may name any number of them."""
        site = {self._places[key] for key in _SITE}
        names, pages = list(self._places), range(len(self._places) // PAGE_VENDORS + 1)
        heaviest = np.argsort(-self._views, kind="stable")
        room = max(0, min(VENDORS_MAX - vendors, VENDORS_MAX * 3 // 4))
        kept = np.sort([*site, *[at for at in heaviest.tolist() if at not in site][:room]])
        self._cell, self._views, self._clicks = (
            self._cell[kept],
            self._views[kept],
            self._clicks[kept],
        )
        self._places = {names[at]: place for place, at in enumerate(kept.tolist())}
        self._changed = set(range((len(self._places) - 1) // PAGE_VENDORS + 1))
        self._left |= set(pages) - self._changed

    def click_rate(self, vendor: str) -> float:
        """The share of the vendor's views that are clicked: its own, drawn to that of all
        vendors, drawn to a prior."""
        weight, (views, clicks), (all_views, all_clicks) = (
            self._config.rate_prior_views,
            self._of(vendor),
            self._all,
        )
        common = (all_clicks + weight * self._config.rate_prior) / (all_views + weight)
        return min(1.0, (clicks + weight * common) / (views + weight))

    @property
    def views(self) -> float:
        """Of all vendors."""
        return self._all[0]

    def share(self, vendor: str) -> float:
        """The vendor's share of all views."""
        return self._of(vendor)[0] / max(1.0, self._all[0])

    @property
    def gap_rate(self) -> float:
        """The share of clicks that follow another one fast."""
        return self._rate(GAPS, self._config.gap_prior)

    @property
    def devoted_rate(self) -> float:
        """The share of a vendor's clicking sources that are devoted to it."""
        return self._rate(DEVOTED, self._config.devoted_prior)

    def write(self) -> None:
        keys = list(self._places) if self._changed else []
        for page in sorted(self._changed):
            at = slice(page * PAGE_VENDORS, (page + 1) * PAGE_VENDORS)
            self._table[str(page)] = [
                keys[at],
                self._cell[at].tolist(),
                self._views[at].tolist(),
                self._clicks[at].tolist(),
            ]
        for page in self._left - self._changed:
            self._table.pop(str(page), None)
        self._changed.clear()
        self._left.clear()

    @property
    def _all(self) -> tuple[float, float]:
        at = self._places[ALL]
        return float(self._views[at]), float(self._clicks[at])

    def _rate(self, key: str, prior: float) -> float:
        at, weight = self._places[key], self._config.rate_prior_views
        return float((self._clicks[at] + weight * prior) / (self._views[at] + weight))

    def _of(self, vendor: str) -> tuple[float, float]:
        at = self._places.get("v" + vendor)
        return (0.0, 0.0) if at is None else (float(self._views[at]), float(self._clicks[at]))

    def _places_of(self, keys: list[str]) -> I64:
        """The place of each key; new ones are given at the end."""
        at = np.array([self._places.setdefault(key, len(self._places)) for key in keys], np.int64)
        new = len(self._places) - len(self._cell)
        if new:
            self._cell = np.append(self._cell, np.full(new, -1, np.int64))
            self._views = np.append(self._views, np.zeros(new))
            self._clicks = np.append(self._clicks, np.zeros(new))
        return at
