"""Hashes and numbers of rows where they stand in JSON text, without an object a row or an array a
column.

- `rows`: the one pass over rows and what they share, which are told apart by names
- `tokens`: strings, numbers and blanks of JSON text
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from checkpointer.json_rows.rows import (
        BAG,
        FEATURES,
        NUMBER,
        PASSED,
        PLACE,
        ROW,
        STRING,
        FieldName,
        FieldNames,
        names_of,
        read_request,
    )
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "BAG",
    "FEATURES",
    "NUMBER",
    "PASSED",
    "PLACE",
    "ROW",
    "STRING",
    "FieldName",
    "FieldNames",
    "names_of",
    "read_request",
]
