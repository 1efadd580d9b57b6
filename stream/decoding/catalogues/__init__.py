"""Catalogues: attributes of an item (or a user) from a compacted topic, joined to impressions that
carry its id alone (A1 to A5). Shared by the labeler, replicas and `everspun events check`.

- `catalogue_columns`: the columns of a catalogue's features, by the rows that keys name
- `newest_rows`: the newest rows, for replicas
- `rows`: one record of a catalogue, read and checked
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from stream.decoding.catalogues.catalogue_columns import CatalogueColumns, FoundRows, found_of
    from stream.decoding.catalogues.newest_rows import NewestRows
    from stream.decoding.catalogues.rows import HEARTBEAT_KEY, CatalogueRow, RowReader, WrongRow
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "HEARTBEAT_KEY",
    "CatalogueColumns",
    "CatalogueRow",
    "FoundRows",
    "NewestRows",
    "RowReader",
    "WrongRow",
    "found_of",
]
