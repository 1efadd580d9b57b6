"""How many records may be decoded at once: what a record unpacks to is bounded, and a poll holds
two thousand."""

import numpy as np

from stream.columns import STRING_BYTES_MAX, measure
from stream.config import StreamConfig
from stream.kernels import I64, Bytes, kernel
from stream.log import Entries, RecordColumns

#: Columns of a row beside features, and memory of a row without its strings, bytes; more than any
#: shape has.
_STRINGS, _ROW_BYTES = 7, 128
_ARROW_MARK, _OPEN = 255, ord("{")
_ARROW = -1
#: Avro and Protobuf begin with a zero byte. An impression of a page view takes about so many bytes
#: at least.
_REGISTERED_MARK, _PART_BYTES = 0, 16


def fitting(records: RecordColumns, config: StreamConfig) -> int:
    """How many of the first records take at most `decoded_bytes_max` together, by what they claim;
    at least one.

    A function of the records, and nothing that is decoded depends on it (I7).
    """
    if len(records) <= 1:
        return len(records)
    sizes = np.empty(len(records), np.int64)
    longest = (
        config.record_bytes_max if f.bytes_max is None else f.bytes_max for f in config.features
    )
    strings_bytes = _STRINGS * STRING_BYTES_MAX + sum(longest)
    row_bytes = _ROW_BYTES + 8 * len(config.features)
    _sizes(records.data, records.entries, row_bytes, strings_bytes, sizes)
    for i in np.flatnonzero(sizes == _ARROW).tolist():
        sizes[i] = min(
            _arrow_bytes(records.value(i).tobytes(), row_bytes), config.decoded_bytes_max
        )
    np.minimum(
        sizes, config.decoded_bytes_max, out=sizes
    )  # a record above it is bad, and its rows are never made
    fits = int(np.searchsorted(np.cumsum(sizes), config.decoded_bytes_max, "right"))
    return max(1, fits)


def _arrow_bytes(value: bytes, row_bytes: int) -> int:
    """Each row may hold every string of the dictionaries. What claims more than 64 bits hold is
    no number here yet."""
    try:
        claimed = measure(value)
    except MemoryError:
        raise
    except Exception:  # whatever it is, its decoder says so, and makes no rows of it
        return len(value)
    return claimed.unpacked_bytes + claimed.rows * (row_bytes + claimed.dictionary_bytes)


@kernel
def _sizes(data: Bytes, entries: Entries, row_bytes: int, strings_bytes: int, sizes: I64) -> None:
    """Of JSON: each object may be a row, with all that its page view says once; of Avro and
    Protobuf as many as it may hold. _ARROW for what is neither."""
    for i in range(len(sizes)):
        start, size = np.int64(entries[i].value), max(np.int64(entries[i].value_bytes), np.int64(0))
        if size >= 4 and data[start] == _ARROW_MARK:
            sizes[i] = _ARROW
            continue
        if size > 0 and data[start] == _REGISTERED_MARK:
            sizes[i] = size + size // _PART_BYTES * (row_bytes + min(size, np.int64(strings_bytes)))
            continue
        objects = np.int64(0)
        for at in range(start, start + size):
            objects += data[at] == _OPEN
        sizes[i] = size + objects * (row_bytes + min(size, np.int64(strings_bytes)))
