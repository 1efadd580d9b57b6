"""Tables of rows in memory: an index, row stores, copies that writes do not disturb.

- `admission`: which new keys get a row
- `ages`: how many rows were last touched when, in steps of a few seconds of event time
- `arena`: A 2-D array that grows without copying
- `cow_copy`: A copy of a table's rows as they stand now, made while pushes go on (X1
- `dense`: the dense parameters of a model that live on one shard
- `float16`: numbers in 16 bits, and how they are rounded to
- `hash_index`: key -> row number
- `initializer`: the value of a row that nobody has pushed to
- `policy`: which keys get a row, and how long they keep it
- `row_header`: how a row lies in memory
- `row_layout`: how weights and optimizer state of a row are kept behind its head, by
  `TableSpec.storage`
- `row_store`: records under 64-bit keys
- `table`: one embedding table of one shard
- `tombstones`: which keys a table has evicted since a version, so that a delta can say so (X3)
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from paramserver.tables.admission import LINE, Sightings, joined, slots_of_lines
    from paramserver.tables.cow_copy import Copy
    from paramserver.tables.dense import Dense, shape_of
    from paramserver.tables.hash_index import DISTANCE_MAX
    from paramserver.tables.initializer import fill_unknown, initial_value
    from paramserver.tables.policy import make_policy
    from paramserver.tables.row_header import Int, Words, rebase
    from paramserver.tables.row_layout import STORAGES, make_layout
    from paramserver.tables.row_store import ROWS_MIN, RowStore
    from paramserver.tables.table import Table, TableRows
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "DISTANCE_MAX",
    "LINE",
    "ROWS_MIN",
    "STORAGES",
    "Copy",
    "Dense",
    "Int",
    "RowStore",
    "Sightings",
    "Table",
    "TableRows",
    "Words",
    "fill_unknown",
    "initial_value",
    "joined",
    "make_layout",
    "make_policy",
    "rebase",
    "shape_of",
    "slots_of_lines",
]
