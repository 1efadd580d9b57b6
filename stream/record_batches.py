"""Kafka's record batches (format v2), read into columns: one pass of a kernel over the bytes of a fetch.

Layout: Kafka protocol guide, "Record Batch". A batch has a fixed header of 61 bytes; its records, possibly compressed
as a whole, follow each other: length, attributes, timestamp delta, offset delta, key, value, headers.
"""

import struct
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from crc32c import crc32c
from kafka import codec
from kafka.errors import CorruptRecordError, KafkaError

from stream.kernel import kernel
from stream.record_columns import ENTRY, NO_RECORDS, Bytes, Entries, RecordColumns, read_headers, varint

#: base offset, length, leader epoch, magic, crc, attributes, last offset delta, first and max timestamp, producer's
#: id, epoch and sequence, count.
_HEADER = struct.Struct(">qiibIhiqqqhii")
_LENGTH_END = 12  # bytes before what `length` counts
_CHECKED_FROM = 21  # the checksum covers everything from the attributes on
_FORMAT = 2
_CODEC, _APPEND_TIME, _TRANSACTIONAL, _CONTROL_BATCH = 0x07, 0x08, 0x10, 0x20
_MARKER = struct.Struct(">hh")  # the key of a control record: version, type
_ABORT = 0
_DECOMPRESS = {1: "gzip_decode", 2: "snappy_decode", 3: "lz4_decode", 4: "zstd_decode"}

I64 = npt.NDArray[np.int64]


class Parsed(NamedTuple):
    """The records of a fetch, the offset behind its last batch, and that batch's leader epoch."""

    records: RecordColumns
    next_offset: int
    leader_epoch: int


class AbortedTransaction(NamedTuple):
    """From a fetch response's index: a producer's transaction that was aborted, and its first offset."""

    producer_id: int
    first_offset: int


class _Aborted:
    """Which batches of a fetch belong to aborted transactions (Kafka's transactional messaging, KIP-98; the algorithm
    is that of its own consumers): a producer's batches from the first offset of one on, up to its abort marker."""

    def __init__(self, index: Iterable[AbortedTransaction]):
        self._to_come = deque(sorted(index, key=lambda one: one.first_offset))
        self._producers: set[int] = set()

    def holds(self, producer_id: int, attributes: int, last_offset: int) -> bool:
        """Whether the next batch is of one. To be asked of every batch, in order, before `on_marker`."""
        while self._to_come and self._to_come[0].first_offset <= last_offset:
            self._producers.add(self._to_come.popleft().producer_id)
        return bool(attributes & _TRANSACTIONAL) and producer_id in self._producers

    def on_marker(self, producer_id: int, is_abort: bool) -> None:
        """A control batch: with an abort, this producer's transaction is over."""
        if is_abort:
            self._producers.discard(producer_id)


def parse_batches(
    data: bytes | bytearray | memoryview,
    from_offset: int,
    check: bool,
    aborted: Iterable[AbortedTransaction] = (),
) -> Parsed:
    """The records at or above `from_offset` in the whole batches of `data`; a cut-off batch at its end is left out, as
    are control batches and those of `aborted` transactions, unpacked or not. With `check` checksums are compared.
    Raises CorruptRecordError, KafkaError."""
    view = memoryview(data)
    undone = _Aborted(aborted)
    parts: list[RecordColumns] = []
    plain: list[tuple[int, ...]] = []  # of uncompressed batches, which share one buffer
    at, next_offset, epoch = 0, from_offset, -1
    while at + _HEADER.size <= len(view):
        base, length, epoch, magic, crc, attributes, last_delta, *times, producer_id, _, _, count = _HEADER.unpack_from(
            view, at
        )
        first_ms, max_ms = times
        end = at + _LENGTH_END + length
        if end > len(view):
            break
        if magic != _FORMAT:
            raise KafkaError(f"record batch at offset {base} has format {magic}, expected {_FORMAT} (Kafka 0.11 on)")
        if check and crc32c(view[at + _CHECKED_FROM : end]) != crc:
            raise CorruptRecordError(f"record batch at offset {base}: its checksum is wrong")
        next_offset = base + last_delta + 1
        dropped = undone.holds(producer_id, attributes, next_offset - 1)
        if attributes & _CONTROL_BATCH:
            undone.on_marker(producer_id, _is_abort(view[at + _HEADER.size : end]))
        elif not dropped and next_offset > from_offset:
            stamp_ms = max_ms if attributes & _APPEND_TIME else first_ms
            batch = (at + _HEADER.size, end, base, stamp_ms, 1 if attributes & _APPEND_TIME else 0, count)
            if attributes & _CODEC:
                parts += _read(view, plain, from_offset)
                raw = _decompress(attributes & _CODEC, view[at + _HEADER.size : end])
                parts += _read(memoryview(raw), [(0, len(raw), *batch[2:])], from_offset)
                plain = []
            else:
                plain.append(batch)
        at = end
    parts += _read(view, plain, from_offset)
    return Parsed(RecordColumns.concat(parts) if parts else NO_RECORDS, next_offset, epoch)


def _is_abort(records: memoryview) -> bool:
    """Whether the control record at the beginning of a control batch's records is an abort marker."""
    data = np.frombuffer(records, np.uint8)
    _, at = varint(data, 0, len(data))
    for _ in range(2):  # behind the attributes: deltas of time and offset
        _, at = varint(data, at + (_ == 0), len(data))
    key_bytes, at = varint(data, at, len(data))
    if key_bytes < _MARKER.size or at + _MARKER.size > len(data):
        return False
    return bool(_MARKER.unpack_from(records, at)[1] == _ABORT)


def _read(view: memoryview, batches: list[tuple[int, ...]], from_offset: int) -> list[RecordColumns]:
    """The records of these batches of one buffer."""
    if not batches:
        return []
    table = np.array(batches, np.int64)
    data = np.frombuffer(view, np.uint8)
    # A record is 7 bytes or longer: a count that a broken batch claims is believed no further than that.
    room = int(np.minimum(table[:, 5], table[:, 1] - table[:, 0]).sum())
    entries = np.empty(max(0, room), ENTRY)
    found = _read_records(data, table, from_offset, entries)
    if found < 0:
        raise CorruptRecordError(f"record batch at offset {batches[-found - 1][2]}: its records do not fill it")
    return [RecordColumns(data, entries[:found])] if found else []


def _decompress(kind: int, data: memoryview) -> bytes:
    name = _DECOMPRESS.get(kind)
    if name is None or not getattr(codec, f"has_{name.removesuffix('_decode')}")():
        raise KafkaError(f"record batch compressed with codec {kind} ({name}): its library is not installed")
    return bytes(getattr(codec, name)(data.tobytes()))


@kernel
def _read_records(data: Bytes, batches: I64, from_offset: int, entries: Entries) -> int:
    """How many entries were filled; -1 - b if batch b is broken."""
    n = 0
    for b in range(len(batches)):
        at, end = batches[b, 0], batches[b, 1]
        base, stamp_ms, append_time = batches[b, 2], batches[b, 3], batches[b, 4]
        for _ in range(batches[b, 5]):
            length, at = varint(data, at, end)
            if length < 0 or length > end - at or n >= len(entries):
                return -1 - b
            stop = at + length
            ms_delta, at = varint(data, at + 1, stop)  # behind the attributes, of which there are none
            offset_delta, at = varint(data, at, stop)
            key_bytes, key = varint(data, at, stop)
            if key_bytes < -1 or key_bytes > stop - key:
                return -1 - b
            value_bytes, value = varint(data, key + max(key_bytes, 0), stop)
            if value_bytes < -1 or value_bytes > stop - value:
                return -1 - b
            headers = value + max(value_bytes, 0)
            behind, heartbeat = read_headers(data, headers, stop)
            if behind != stop:
                return -1 - b
            at = stop
            if base + offset_delta < from_offset:
                continue
            entry = entries[n]
            entry.offset = base + offset_delta
            entry.timestamp_ms = stamp_ms if append_time else stamp_ms + ms_delta
            entry.key, entry.key_bytes = key, key_bytes
            entry.value, entry.value_bytes = value, value_bytes
            entry.headers, entry.end, entry.heartbeat = headers, stop, heartbeat and value_bytes <= 0
            n += 1
        if at != end:
            return -1 - b
    return n
