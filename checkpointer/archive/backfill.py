"""Older examples get a feature that was declared later: by a function of their rows, or from a
file by the values of a column.

The archive stays as it is: a copy with the feature's columns is made beside it, file by file, so
that what models learned from the one can still be held against it, and a new model trains on the
other. A file that is there is complete, so a copy that was cut short goes on where it ended.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from checkpointer.archive.archive import Archive
from checkpointer.archive.archive_file import describe, rewritten
from stream.columns import FeatureColumn, Features

#: What is given of rows: by the name of a column of `Feature.columns`, (n,) each; a name that is
#: not there is missing in all.
Given = Mapping[str, pa.Array]


class BackfillError(ValueError):
    """What a function or a file gave that cannot be a feature; names file, feature and value."""


class Filled(NamedTuple):
    """What became of a file."""

    path: str
    rows: int
    outcome: str  # "filled", "had it", or "was there"


class Backfill:
    """Of one feature."""

    def __init__(
        self, source: Archive, target: Archive, features: Features, give: Callable[..., Given]
    ) -> None:
        """`features`: the columns of the feature; `give`: of the rows of a record, as in
        `examples`."""
        self._source, self._target, self._features, self._give = source, target, features, give

    def run(self, partitions: range) -> Iterator[Filled]:
        """All files of all partitions, oldest first. Raises BackfillError, Damaged, and what the
        function raises."""
        for partition in partitions:
            there = set(self._target.paths(partition))
            for path in self._source.paths(partition):
                data = self._source.files.read(path)
                if path in there and self._is_copy(path, data):
                    yield Filled(path, describe(data, path).rows, "was there")
                    continue
                copy, rows, outcome = self._copy(path, data)
                self._target.files.write(path, copy)
                yield Filled(path, rows, outcome)
            head = self._source.head(partition)
            if head is not None:
                self._target.write_head(partition, head)

    def _is_copy(self, path: str, data: bytes) -> bool:
        """Whether the target's file is whole, and of the same records."""
        there, here = self._target.describe(path), describe(data, path)
        if there != here:
            raise BackfillError(
                f"{path}: the copy holds other records (to offset {there.next_offset}, not "
                f"{here.next_offset}); take an empty folder"
            )
        self._target.records(path)  # every row against its digest
        return True

    def _copy(self, path: str, data: bytes) -> tuple[bytes, int, str]:
        outcome = "had it"

        def change(rows: pa.RecordBatch) -> pa.RecordBatch:
            nonlocal outcome
            names = [f.column for f in self._features if f.column in rows.schema.names]
            if len(names) == len(self._features):
                return rows
            if names:
                raise BackfillError(f"{path}: has the column {names[0]}, and not all of them")
            outcome = "filled"
            return self._with(rows, path)

        copy, rows = rewritten(data, path, change)
        return copy, rows, outcome

    def _with(self, rows: pa.RecordBatch, path: str) -> pa.RecordBatch:
        given = self._give(rows)
        if not isinstance(given, Mapping):
            raise BackfillError(f"{path}: got a {type(given).__name__}, expected a dict of arrays")
        if unknown := sorted(set(given) - {f.name for f in self._features}):
            raise BackfillError(
                f"{path}: got {unknown[0]!r}; allowed are "
                f"{', '.join(f.name for f in self._features)}"
            )
        for feature in self._features:
            column = _column(feature, given.get(feature.name), rows.num_rows, path)
            field = pa.field(feature.column, feature.type, nullable=False)
            rows = rows.append_column(field, column)
        return rows


def _column(feature: FeatureColumn, given: Any, count: int, path: str) -> pa.Array:
    """As the labeler makes it of what events send. Raises BackfillError."""
    if given is None:
        return pa.array([feature.missing] * count, feature.type)
    where = f"{path}: feature {feature.name}"
    try:
        values = pa.array(given) if not isinstance(given, pa.Array | pa.ChunkedArray) else given
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        values = values.cast(feature.wire_type)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise BackfillError(f"{where}: expected {feature.wire_type}: {error}") from error
    if len(values) != count:
        raise BackfillError(f"{where}: got {len(values)} values for {count} rows")
    wrong = np.flatnonzero(feature.wrong(values))
    if len(wrong):
        row = int(wrong[0])
        raise BackfillError(
            f"{where}: row {row} of a record is {values[row].as_py()!r:.80}, which is no "
            f"{feature.kind} (docs/features.md)"
        )
    return feature.column_of(values)


def joined_with(table: pa.Table, features: Features, on: str) -> Callable[[pa.RecordBatch], Given]:
    """By the value of the column `on` of examples, the first row of a table with it; a row of
    examples whose value the table lacks has the missing value. Raises BackfillError."""
    names = [f.name for f in features if f.name in table.column_names]
    if on not in table.column_names or not names:
        raise BackfillError(
            f"the file has the columns {', '.join(table.column_names)}; expected {on!r} and "
            f"{' or '.join(repr(f.name) for f in features)}"
        )
    keys = table.column(on).combine_chunks().cast(pa.string())
    columns = {name: table.column(name).combine_chunks() for name in names}

    def give(rows: pa.RecordBatch) -> Given:
        at = on if on in rows.schema.names else f"f_{on}"
        if at not in rows.schema.names:
            raise BackfillError(f"examples have no column {on!r}")
        places = pc.index_in(rows.column(at).cast(pa.string()), value_set=keys)
        return {name: column.take(places) for name, column in columns.items()}

    return give
