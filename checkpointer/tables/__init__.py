"""The tables of a served model in memory.

- `asked_rows`: the newest rows of catalogues for some keys alone
- `catalogue_follower`: the thread that reads catalogues to their newest rows
- `known_values`: what one row that is asked by hand is given, by whom, and how old it is
- `request_fills`: features that a request does not need to say
- `served_counts`: the counters that a request is given
- `cells`: kernels over the cells and rows of a table
- `model_tables`: all tables and dense arrays of a served model, at one cut after another
- `versioned_table`: one table of a served model, at one cut after another
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from checkpointer.tables.asked_rows import AskedRow, AskedRows
    from checkpointer.tables.catalogue_follower import CatalogueFollower
    from checkpointer.tables.cells import HEAD, Cells, Words, find, gather
    from checkpointer.tables.known_values import COUNTS, REQUEST, KnownValues, Origin
    from checkpointer.tables.model_tables import ModelTables, ModelVersion
    from checkpointer.tables.request_fills import RequestFills
    from checkpointer.tables.served_counts import CountsReader, ServedCounts, declared_by
    from checkpointer.tables.versioned_table import (
        PRIVATE,
        VERSION_MAX,
        Initial,
        PrivateMemory,
        TableMemory,
        TableVersion,
    )
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "COUNTS",
    "HEAD",
    "PRIVATE",
    "REQUEST",
    "VERSION_MAX",
    "AskedRow",
    "AskedRows",
    "CatalogueFollower",
    "Cells",
    "CountsReader",
    "Initial",
    "KnownValues",
    "ModelTables",
    "ModelVersion",
    "Origin",
    "PrivateMemory",
    "RequestFills",
    "ServedCounts",
    "TableMemory",
    "TableVersion",
    "Words",
    "declared_by",
    "find",
    "gather",
]
