"""What one row that is asked by hand is given beside what it says: by whom, and how old it is (J5,
J6, A5)."""

from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa

from checkpointer.tables.asked_rows import AskedRows
from checkpointer.tables.served_counts import ServedCounts
from stream.columns import FEATURE_PREFIX, KEYS, SEQUENCE, Feature, is_missing

REQUEST, COUNTS = "request", "counts"


class Origin(NamedTuple):
    """Where the value of a feature comes from."""

    said_by: str  # 'request', 'counts', 'catalogue NAME', or "" where nobody says it
    ages_s: tuple[float, ...] = ()  # seconds; of a sequence of each click, newest first


class KnownValues:
    """Of one row."""

    def __init__(
        self,
        declared: Mapping[str, Feature],
        counts: ServedCounts | None = None,
        rows: AskedRows | None = None,
    ) -> None:
        """`declared`: by the model. `rows`: read to the end; None = it reads no catalogue."""
        self._declared, self._counts, self._rows = declared, counts, rows

    def filled(self, table: pa.Table) -> pa.Table:
        """The row with what it does not say itself, as a replica gives it."""
        for one in (self._counts, self._rows):
            table = table if one is None else one.filled(table)
        return table

    def origins(self, asked: pa.Table, now_ms: int) -> dict[str, Origin]:
        """By feature that the row could say, in the columns of a request."""
        found = {}
        for name, one in self._declared.items():
            column = FEATURE_PREFIX + name
            if column not in asked.schema.names:
                continue
            if not is_missing(asked.column(column).combine_chunks())[0]:
                found[name] = Origin(REQUEST)
            elif one.kept_by:
                found[name] = self._kept(name, one, asked, now_ms)
            elif one.catalogue:
                found[name] = self._looked_up(one, asked, now_ms)
            else:
                found[name] = Origin("")
        return found

    def _kept(self, name: str, one: Feature, asked: pa.Table, now_ms: int) -> Origin:
        age_s = None if self._counts is None else self._counts.age_s(now_ms)
        if self._counts is None or age_s is None:
            return Origin("")
        ages_s: tuple[float, ...] = ()
        if one.kind == SEQUENCE:
            times = self._counts.clicks(asked)[name].times
            ages_s = tuple(float(now_ms - time) / 1_000 for time in times)
        return Origin(COUNTS, ages_s or (age_s,))

    def _looked_up(self, one: Feature, asked: pa.Table, now_ms: int) -> Origin:
        key = asked.column(one.key if one.key in KEYS else FEATURE_PREFIX + one.key)[0].as_py()
        if self._rows is None or not key:
            return Origin("")
        row = self._rows.row(one.catalogue, key.encode())
        if not row.there:
            return Origin("")
        return Origin(f"catalogue {one.catalogue}", ((now_ms - row.written_ms) / 1_000,))
