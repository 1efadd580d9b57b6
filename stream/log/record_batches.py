"""Kafka's record batches (format v2), read into columns: one pass of a kernel over the bytes of a
fetch.

Layout: Kafka protocol guide, "Record Batch". A batch has a fixed header of 61 bytes; its records,
possibly compressed as a whole, follow each other: length, attributes, timestamp delta, offset
delta, key, value, headers.
"""

import struct
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from crc32c import crc32c
from kafka.errors import CorruptRecordError

from stream.kernels import I64, Bytes, kernel
from stream.log.broken_batches import (
    CHECKSUM,
    CODEC_BITS,
    FORMAT,
    HEADER,
    LARGE,
    PACKED,
    RECORDS,
)
from stream.log.record_columns import ENTRY, Entries, RecordColumns, read_headers, varint
from stream.log.unpacking import CannotUnpack, UnpacksTooLarge, unpack
from stream.record import ROW_BITS

_PLACE = struct.Struct(">qi")  # base offset and length, as any format begins
_LENGTH_END = 12  # bytes before what `length` counts
_CHECKED_FROM = 21  # the checksum covers everything from the attributes on
_FORMAT = 2
_APPEND_TIME, _TRANSACTIONAL, _CONTROL_BATCH = 0x08, 0x10, 0x20
_MARKER = struct.Struct(">hh")  # the key of a control record: version, type
_ABORT = 0

#: So much is unpacked, and the batch that goes beyond it, before the records of a fetch are given
#: on.
_PIECE_BYTES = 1 << 24
_DAMAGED_MAX = 64  # batches of a partition that are remembered as damaged


class AbortedTransaction(NamedTuple):
    """From a fetch response's index: a producer's transaction that was aborted, and its first
    offset."""

    producer_id: int
    first_offset: int


class _Aborted:
    """Which batches of a fetch belong to aborted transactions (Kafka's transactional messaging,
    KIP-98; the algorithm is that of its own consumers): a producer's batches from the first offset
    of one on, up to its abort marker."""

    def __init__(self, index: Iterable[AbortedTransaction]):
        self._to_come = deque(sorted(index, key=lambda one: one.first_offset))
        self._producers: set[int] = set()

    def holds(self, producer_id: int, attributes: int, last_offset: int) -> bool:
        """Whether the next batch is of one. To be asked of every batch, in order, before
        `on_marker`."""
        while self._to_come and self._to_come[0].first_offset <= last_offset:
            self._producers.add(self._to_come.popleft().producer_id)
        return bool(attributes & _TRANSACTIONAL) and producer_id in self._producers

    def on_marker(self, producer_id: int, is_abort: bool) -> None:
        """A control batch: with an abort, this producer's transaction is over."""
        if is_abort:
            self._producers.discard(producer_id)


class _BatchHeader(NamedTuple):
    """Where a batch's records lie in a buffer, and what its header says. The kernel reads it as
    a row of int64."""

    first: int
    end: int
    base_offset: int
    stamp_ms: int  # of the batch, or what its records' stamps are counted from
    append_time: int  # 1: its stamp is that of each record
    records: int
    max_ms: int
    last_delta: int
    start: int  # of the header

    @classmethod
    def of(cls, header: tuple[Any, ...], start: int, end: int, last_offset: int) -> "_BatchHeader":
        append_time = 1 if header[5] & _APPEND_TIME else 0
        stamp_ms = header[8] if append_time else header[7]
        base, records = header[0], header[12]
        return cls(
            start + HEADER.size,
            end,
            base,
            stamp_ms,
            append_time,
            records,
            header[8],
            last_offset - base,
            start,
        )

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_delta


_COUNT = 5  # its place in a `_Batch`
#: A position holds an offset and a row in 63 bits; a batch's last offset is up to 2^31 behind its
#: first.
_BASE_OFFSETS_END = (1 << 63 - ROW_BITS) - (1 << 31)


class BatchReader:
    """Reads one partition's part of a fetch piece by piece: of what is packed, not much more than a
    piece is unpacked at a time. A batch that cannot be read stands among the records as one that
    says so (`broken_batches`)."""

    def __init__(
        self,
        data: bytes | bytearray | memoryview,
        from_offset: int,
        aborted: Iterable[AbortedTransaction] = (),
        unpacked_bytes_max: int = 1 << 26,
        damaged: "DamagedOffsets | None" = None,
    ):
        """`damaged` compares checksums; None leaves that out."""
        self._view = memoryview(data)
        self._from_offset, self._unpacked_bytes_max = from_offset, unpacked_bytes_max
        self._damaged = damaged
        self._undone = _Aborted(aborted)
        self._at = 0
        self.next_offset, self.leader_epoch = from_offset, -1

    @property
    def is_done(self) -> bool:
        """Whether no whole batch is left."""
        return self._end() is None

    def _end(self) -> int | None:
        """Where the next batch ends; None if it is not there as a whole. Raises
        CorruptRecordError."""
        if self._at + HEADER.size > len(self._view):
            return None
        base, length = _PLACE.unpack_from(self._view, self._at)
        if not 0 <= base < _BASE_OFFSETS_END:
            raise CorruptRecordError(f"record batch at offset {base}: no broker counts so far")
        if length < HEADER.size - _LENGTH_END:
            raise CorruptRecordError(f"record batch at offset {base}: its length is {length}")
        end: int = self._at + _LENGTH_END + length
        return end if end <= len(self._view) else None

    def read(self) -> RecordColumns:
        """The records at or above the offset in the next batches; control batches and those of
        aborted transactions are left out, unpacked or not. Empty if all are. Raises
        CorruptRecordError, DamagedBatch."""
        parts: list[RecordColumns] = []
        plain: list[_BatchHeader] = []  # uncompressed ones, which share one buffer
        unpacked = 0
        while unpacked < _PIECE_BYTES and (end := self._end()) is not None:
            header = HEADER.unpack_from(self._view, self._at)
            base, attributes, last_delta, producer_id = header[0], header[5], header[6], header[9]
            try:
                fault = self._fault(header, end)
            except DamagedBatch:
                assert self._damaged is not None
                if not parts and not plain:
                    raise
                self._damaged.forget(base)  # first what stands before it
                break
            start, self._at = self._at, end
            self.leader_epoch = header[2]
            last_offset = base + (0 if fault == FORMAT else max(0, last_delta))
            self.next_offset = last_offset + 1
            dropped = not fault and self._undone.holds(producer_id, attributes, last_offset)
            if not fault and attributes & _CONTROL_BATCH:
                self._undone.on_marker(
                    producer_id, _is_abort(self._view[start + HEADER.size : end])
                )
                continue
            if dropped or last_offset < self._from_offset:
                continue
            batch = _BatchHeader.of(header, start, end, last_offset)
            if fault or attributes & CODEC_BITS:
                parts += _read(self._view, plain, self._from_offset)
                plain = []
                found = (
                    [_broken(self._view, batch, fault)]
                    if fault
                    else self._unpacked(batch, attributes)
                )
                unpacked += sum(part.data.size for part in found if not fault)
                parts += found
            else:
                plain.append(batch)
        parts += _read(self._view, plain, self._from_offset)
        return RecordColumns.concat(parts)

    def _fault(self, header: tuple[Any, ...], end: int) -> int:
        """0, or why the next batch cannot be read. Raises DamagedBatch."""
        if header[3] != _FORMAT:
            return FORMAT
        if self._damaged is None:
            return 0
        found = crc32c(self._view[self._at + _CHECKED_FROM : end])
        return CHECKSUM if found != header[4] and self._damaged.is_to_stay(header[0], found) else 0

    def _unpacked(self, batch: _BatchHeader, attributes: int) -> list[RecordColumns]:
        packed = self._view[batch.start + HEADER.size : batch.end]
        try:
            raw = memoryview(unpack(attributes & CODEC_BITS, packed, self._unpacked_bytes_max))
        except CannotUnpack as error:
            return [
                _broken(self._view, batch, LARGE if isinstance(error, UnpacksTooLarge) else PACKED)
            ]
        found = _read_all(raw, [batch._replace(first=0, end=len(raw))], self._from_offset)
        return [_broken(self._view, batch, RECORDS)] if found is None else found


class DamagedBatch(CorruptRecordError):  # type: ignore[misc]
    """A batch with a wrong checksum came for the first time: it is asked for again."""

    retriable = True


class DamagedOffsets:
    """Batches of one partition whose checksum was wrong. Once may be the way they came; twice
    alike is the disk."""

    def __init__(self) -> None:
        self._found: dict[int, int] = {}

    def forget(self, base_offset: int) -> None:
        self._found.pop(base_offset, None)

    def is_to_stay(self, base_offset: int, checksum: int) -> bool:
        """Whether this batch came like this before. Raises DamagedBatch if it did not."""
        if self._found.get(base_offset) == checksum:
            return True
        if len(self._found) >= _DAMAGED_MAX:
            self._found.clear()
        self._found[base_offset] = checksum
        raise DamagedBatch(
            f"record batch at offset {base_offset}: its checksum is wrong; it is fetched again"
        )


def _is_abort(records: memoryview) -> bool:
    """Whether the control record at the beginning of a control batch's records is an abort
    marker."""
    data = np.frombuffer(records, np.uint8)
    _, at = varint(data, 0, len(data))
    for _ in range(2):  # behind the attributes: deltas of time and offset
        _, at = varint(data, at + (_ == 0), len(data))
    key_bytes, at = varint(data, at, len(data))
    if key_bytes < _MARKER.size or at + _MARKER.size > len(data):
        return False
    return bool(_MARKER.unpack_from(records, at)[1] == _ABORT)


def _broken(view: memoryview, batch: _BatchHeader, fault: int) -> RecordColumns:
    """A batch that cannot be read, as a record whose value it is."""
    entry = np.zeros(1, ENTRY)
    entry["offset"], entry["timestamp_ms"] = batch.last_offset, batch.max_ms
    entry["key"] = entry["value"] = batch.start
    entry["key_bytes"], entry["value_bytes"] = -1, batch.end - batch.start
    entry["headers"] = entry["end"] = batch.end
    entry["batch_fault"] = fault
    return RecordColumns(np.frombuffer(view, np.uint8), entry)


def _read(view: memoryview, batches: list[_BatchHeader], from_offset: int) -> list[RecordColumns]:
    """The records of these batches of one buffer; where one is broken, each is read by itself."""
    found = _read_all(view, batches, from_offset)
    if found is not None:
        return found
    if len(batches) == 1:
        return [_broken(view, batches[0], RECORDS)]
    return [part for batch in batches for part in _read(view, [batch], from_offset)]


def _read_all(
    view: memoryview, batches: list[_BatchHeader], from_offset: int
) -> list[RecordColumns] | None:
    """None if one of them is broken."""
    if not batches:
        return []
    table = np.array(batches, np.int64)
    data = np.frombuffer(view, np.uint8)
    # A record is 7 bytes or longer: a count that a broken batch claims is believed no further than
    # that.
    room = int(np.minimum(table[:, _COUNT], table[:, 1] - table[:, 0]).sum())
    entries = np.zeros(max(0, room), ENTRY)
    found = _read_records(data, table, from_offset, entries)
    if found < 0:
        return None
    return [RecordColumns(data, entries[:found])] if found else []


@kernel
def _read_records(data: Bytes, batches: I64, from_offset: int, entries: Entries) -> int:
    """How many entries were filled; -1 - b if batch b is broken."""
    n = 0
    for b in range(len(batches)):
        at, end = batches[b, 0], batches[b, 1]
        base, stamp_ms, append_time = batches[b, 2], batches[b, 3], batches[b, 4]
        last_delta, before = batches[b, 7], -1
        for _ in range(batches[b, 5]):
            length, at = varint(data, at, end)
            if length < 0 or length > end - at or n >= len(entries):
                return -1 - b
            stop = at + length
            ms_delta, at = varint(
                data, at + 1, stop
            )  # behind the attributes, of which there are none
            offset_delta, at = varint(data, at, stop)
            if offset_delta <= before or offset_delta > last_delta:
                return -1 - b
            before = offset_delta
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
            entry["offset"] = base + offset_delta
            entry["timestamp_ms"] = stamp_ms if append_time else stamp_ms + ms_delta
            entry["key"], entry["key_bytes"] = key, key_bytes
            entry["value"], entry["value_bytes"] = value, value_bytes
            entry["headers"], entry["end"] = headers, stop
            entry["heartbeat"] = heartbeat and value_bytes <= 0
            n += 1
        if at != end:
            return -1 - b
    return n
