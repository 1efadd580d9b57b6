"""How large rows are when they are written out: a function of the rows alone, so that what is split
by it is split alike by everybody (C3, I7)."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stream.kernels import I64


def string_lengths(column: pa.Array | pa.ChunkedArray) -> I64:
    """Bytes of each string of a column without nulls, (n,)."""
    lengths = pc.binary_length(column)
    if isinstance(lengths, pa.ChunkedArray):
        lengths = lengths.combine_chunks()
    found: I64 = np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)
    return found


def row_bytes(columns: Sequence[pa.Array | pa.ChunkedArray], rows: int) -> I64:
    """What each row of these columns takes in an Arrow batch, (n,): strings with their offset,
    numbers as they are."""
    total = np.zeros(rows, np.int64)
    for column in columns:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
            total += string_lengths(column) + 4
        elif pa.types.is_list(column.type):
            total += _list_bytes(column)
        else:
            total += (column.type.bit_width + 7) // 8
    return total


def _list_bytes(column: pa.Array | pa.ChunkedArray) -> I64:
    """Of each row's list with its offset, (n,)."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    through = np.append(0, np.cumsum(lengths))
    values = column.flatten()
    of_values = np.append(0, np.cumsum(row_bytes([values], len(values))))
    found: I64 = of_values[through[1:]] - of_values[through[:-1]] + 4
    return found


def cuts(sizes: I64, rows_max: int, bytes_max: int) -> list[int]:
    """0, ..., n: where to cut rows of these sizes so that no piece has more than `rows_max` rows,
    or `bytes_max` bytes unless it is one row. Each piece is as long as it may be."""
    through = np.cumsum(sizes)
    out, at, before = [0], 0, 0
    while at < len(sizes):
        fits = int(np.searchsorted(through, before + bytes_max, side="right"))
        at = min(max(at + 1, fits), at + rows_max, len(sizes))
        before = int(through[at - 1])
        out.append(at)
    return out
