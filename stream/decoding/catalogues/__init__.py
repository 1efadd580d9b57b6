"""Catalogues: attributes of an item (or a user) from a compacted topic, joined to impressions that
carry its id alone (A1 to A5). Shared by the labeler, replicas and `everspun events check`.

- `catalogue_columns`: the columns of a catalogue's features, by the rows that keys name
- `disk_rows`: rows of a catalogue on disk, where memory holds no more
- `held_rows`: the rows of a catalogue, by key, within a limit of memory
- `newest_rows`: the newest rows, for replicas
- `rows`: one record of a catalogue, read and checked
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from stream.decoding.catalogues.catalogue_columns import CatalogueColumns, FoundRows, found_of
    from stream.decoding.catalogues.disk_rows import DiskRows
    from stream.decoding.catalogues.held_rows import CatalogueFailed, HeldRows, MoreRows
    from stream.decoding.catalogues.newest_rows import NewestRows
    from stream.decoding.catalogues.rows import HEARTBEAT_KEY, CatalogueRow, RowReader, WrongRow
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "HEARTBEAT_KEY",
    "CatalogueColumns",
    "CatalogueFailed",
    "CatalogueRow",
    "DiskRows",
    "FoundRows",
    "HeldRows",
    "MoreRows",
    "NewestRows",
    "RowReader",
    "WrongRow",
    "found_of",
]
