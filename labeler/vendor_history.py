"""What honest sources do to each vendor: the base that a rule compares a source with.

A cell enters a window after it was judged, without the pairs that a verdict covers there, so an attack cannot teach
the filter that its own behaviour is usual while it is being judged.
"""

from labeler.fraud_config import FraudConfig
from labeler.fraud_tables import Table, VendorRow

#: Key of the sum over all vendors; a vendor's key is its name behind a letter.
ALL = "*"


class VendorHistory:
    """Views and clicks by vendor and of all vendors. Changes stay here until `write` (F2: written at the commit)."""

    def __init__(self, config: FraudConfig, table: Table) -> None:
        self._config = config
        self._table = table
        self._rows: dict[str, VendorRow] = {}
        self._changed: set[str] = set()

    def __len__(self) -> int:
        """Vendors read or changed since the start."""
        return len(self._rows)

    def add(self, cell: int, by_vendor: dict[str, list[int]]) -> None:
        """Add the [views, clicks] of a cell. A vendor that already has this cell, or a later one, is left alone."""
        for vendor in sorted(by_vendor):
            self._add("v" + vendor, cell, by_vendor[vendor])
        if by_vendor:
            self._add(ALL, cell, [sum(counts) for counts in zip(*by_vendor.values(), strict=True)])

    def click_rate(self, vendor: str) -> float:
        """The share of the vendor's views that are clicked: its own, drawn to that of all vendors, drawn to a prior."""
        weight, own, everyone = self._config.rate_prior_views, self._row("v" + vendor), self._row(ALL)
        common = (everyone.clicks + weight * self._config.rate_prior) / (everyone.views + weight)
        return min(1.0, (own.clicks + weight * common) / (own.views + weight))

    def share(self, vendor: str) -> float:
        """The vendor's share of all views."""
        return self._row("v" + vendor).views / max(1.0, self._row(ALL).views)

    def write(self) -> None:
        for key in self._changed:
            self._table[key] = self._rows[key].value()
        self._changed.clear()

    def _add(self, key: str, cell: int, counts: list[int]) -> None:
        row = self._row(key)
        if cell <= row.cell:
            return
        row.cell, row.views, row.clicks = cell, row.views + counts[0], row.clicks + counts[1]
        if row.views > self._config.history_views_max:
            row.views, row.clicks = row.views / 2, row.clicks / 2
        self._changed.add(key)

    def _row(self, key: str) -> VendorRow:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = VendorRow.of(self._table.get(key))
        return row
