"""Records as columns: where each stands, when it came, and where its parts lie in one buffer.

A fetch of small records is thousands of Python objects if every record is one. Here it is a buffer
and a structured array; a `Record` is made only of the few that somebody asks for by index (a bad
one, a heartbeat).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from stream.kernels import Bytes, kernel
from stream.record import CONTROL, HEARTBEAT, Record

#: One record, 48 bytes. `key`, `value` and `headers` are where the parts begin in the buffer,
#: lengths of -1 stand for "none"; `headers` is a Kafka v2 list (count, then per header name and
#: value with their lengths, zigzag varints).
ENTRY = np.dtype(
    [
        ("offset", np.int64),
        ("timestamp_ms", np.int64),
        ("key", np.int32),
        ("key_bytes", np.int32),
        ("value", np.int32),
        ("value_bytes", np.int32),
        ("headers", np.int32),
        ("end", np.int32),
        ("heartbeat", np.bool_),
        ("batch_fault", np.int8),
    ],
    align=True,
)
#: (records,) of ENTRY.
Entries = npt.NDArray[np.void]

_NOTHING = np.zeros(0, np.uint8)
_NO_SCHEMAS: Mapping[int, Any] = MappingProxyType({})
_CONTROL = np.frombuffer(CONTROL.encode(), np.uint8)
_HEARTBEAT = np.frombuffer(HEARTBEAT.encode(), np.uint8)
#: Of a record's headers so many are made objects of; one record can hold millions.
HEADERS_MAX = 64
NO_VARINT = np.int64(-(2**62))  # what `varint` answers where the buffer ends


class RecordColumns(Sequence[Record]):
    """Records of one partition, in log order. `entries` (n,) has dtype ENTRY; `data` holds the
    bytes they point to; `schemas`, by id, are those that values name, where they came with them
    (`stream.registry.schema`)."""

    __slots__ = ("data", "entries", "schemas")

    def __init__(self, data: Bytes, entries: Entries, schemas: Mapping[int, Any] = _NO_SCHEMAS):
        data = data.view()
        data.flags.writeable = False  # one type for all kernels, wherever the bytes came from
        self.data, self.entries, self.schemas = data, entries, schemas

    @classmethod
    def of(cls, records: Iterable[Record]) -> "RecordColumns":
        """The same records, each laid out; itself if they are columns already."""
        if isinstance(records, RecordColumns):
            return records
        parts: list[bytes] = []
        rows, at = [], 0
        for record in records:
            key, value = record.key, record.value
            laid_out = (key or b"", value or b"", _headers(record))
            value_at = at + len(laid_out[0])
            headers_at = value_at + len(laid_out[1])
            end = headers_at + len(laid_out[2])
            rows.append(
                (
                    record.offset,
                    record.timestamp_ms,
                    at,
                    -1 if key is None else len(key),
                    value_at,
                    -1 if value is None else len(value),
                    headers_at,
                    end,
                    record.is_heartbeat,
                    record.batch_fault,
                )
            )
            parts += laid_out
            at = end
        return cls(np.frombuffer(b"".join(parts), np.uint8), np.array(rows, ENTRY))

    @classmethod
    def concat(cls, parts: Sequence["RecordColumns"]) -> "RecordColumns":
        """All records of all parts; of their buffers only what the records use is copied."""
        parts = [part for part in parts if len(part)]
        if len(parts) <= 1:
            return parts[0] if parts else NO_RECORDS
        data, entries, at = [], [], 0
        schemas: dict[int, Any] = {}
        for part in parts:
            schemas |= part.schemas
            first, end = int(part.entries["key"].min()), int(part.entries["end"].max())
            moved = part.entries.copy()
            for name in ("key", "value", "headers", "end"):
                moved[name] += at - first
            data.append(part.data[first:end])
            entries.append(moved)
            at += end - first
        return cls(np.concatenate(data), np.concatenate(entries), schemas or _NO_SCHEMAS)

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> "RecordColumns": ...
    def __getitem__(self, index: int | slice) -> "Record | RecordColumns":
        if isinstance(index, slice):
            return RecordColumns(self.data, self.entries[index], self.schemas)
        entry = self.entries[index]
        key, value = (self._part(entry, name) for name in ("key", "value"))
        fault = int(entry["batch_fault"])
        headers = () if fault else _read_headers(self.data, int(entry["headers"]))
        return Record(
            int(entry["offset"]), int(entry["timestamp_ms"]), key or None, value, headers, fault
        )

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> "RecordColumns":
        """The records of these indices, or where this is true."""
        return RecordColumns(self.data, self.entries[rows], self.schemas)

    def with_schemas(self, schemas: Mapping[int, Any]) -> "RecordColumns":
        """The same records with these schemas beside those that they have."""
        return RecordColumns(self.data, self.entries, {**self.schemas, **schemas})

    def with_values(self, rows: Sequence[int], values: Sequence[bytes]) -> "RecordColumns":
        """The same records, those of these indices with other values, behind all others in the
        buffer."""
        entries, at = self.entries.copy(), np.array(rows, np.int64)
        sizes = np.array([len(value) for value in values], np.int64)
        ends = len(self.data) + np.cumsum(sizes)
        entries["value"][at], entries["value_bytes"][at] = ends - sizes, sizes
        entries["end"][at] = ends
        data = np.concatenate([self.data, np.frombuffer(b"".join(values), np.uint8)])
        return RecordColumns(data, entries, self.schemas)

    @property
    def offset(self) -> npt.NDArray[np.int64]:
        return self.entries["offset"]

    @property
    def timestamp_ms(self) -> npt.NDArray[np.int64]:
        return self.entries["timestamp_ms"]

    def stamped(self, timestamp_ms: npt.NDArray[np.int64]) -> "RecordColumns":
        """The same records with other timestamps (n,)."""
        entries = self.entries.copy()
        entries["timestamp_ms"] = timestamp_ms
        return RecordColumns(self.data, entries, self.schemas)

    @property
    def heartbeat(self) -> npt.NDArray[np.bool_]:
        """Which of them are heartbeats (T2)."""
        return self.entries["heartbeat"]

    @property
    def value_bytes(self) -> int:
        """Of all values together."""
        sizes = self.entries["value_bytes"]
        return int(np.maximum(sizes, 0).sum(dtype=np.int64))

    def values(self, rows: npt.NDArray[np.int64]) -> Iterator[bytes]:
        """The bytes of the values of these records, copied one at a time; empty where there is
        none."""
        starts = self.entries["value"][rows].astype(np.int64)
        ends = starts + np.maximum(self.entries["value_bytes"][rows], 0)
        data = self.data.data
        return (
            data[start:end].tobytes()
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        )

    def value(self, index: int) -> memoryview:
        """The bytes of a record's value, not copied; empty where there is none."""
        entry = self.entries[index]
        start = int(entry["value"])
        return self.data.data[start : start + max(0, int(entry["value_bytes"]))]

    def _part(self, entry: np.void, name: str) -> bytes | None:
        start, size = int(entry[name]), int(entry[f"{name}_bytes"])
        return None if size < 0 else self.data[start : start + size].tobytes()


NO_RECORDS = RecordColumns(_NOTHING, np.empty(0, ENTRY))


# --- headers
# --------------------------------------------------------------------------------------------------


def _headers(record: Record) -> bytes:
    out = _varint_bytes(len(record.headers))
    for name, value in record.headers:
        raw = name.encode()
        out += _varint_bytes(len(raw)) + raw
        out += _varint_bytes(-1) if value is None else _varint_bytes(len(value)) + value
    return bytes(out)


def _varint_bytes(value: int) -> bytearray:
    rest, out = (value << 1) ^ (value >> 63), bytearray()
    while rest > 0x7F:
        out.append(0x80 | (rest & 0x7F))
        rest >>= 7
    out.append(rest)
    return out


def _read_headers(data: Bytes, at: int) -> tuple[tuple[str, bytes], ...]:
    count, at = _varint(data, at)
    headers = []
    for _ in range(min(count, HEADERS_MAX)):
        size, at = _varint(data, at)
        name = data[at : at + size].tobytes().decode(errors="replace")
        at += size
        size, at = _varint(data, at)
        headers.append((name, data[at : at + size].tobytes() if size >= 0 else b""))
        at += max(size, 0)
    return tuple(headers)


def _varint(data: Bytes, at: int) -> tuple[int, int]:
    """`varint`; nearly all are one byte, for which a call of a kernel is dear."""
    byte = data.item(at) if at < len(data) else 0x80
    return ((byte >> 1) ^ -(byte & 1), at + 1) if byte < 0x80 else varint(data, at, len(data))


@kernel
def varint(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """A zigzag varint at `at`, and where it ends; NO_VARINT if it does not end before `end`."""
    value, shift = np.uint64(0), np.uint64(0)
    while at < end and shift < np.uint64(64):
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            number: int = np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1))  # type: ignore[assignment]
            return number, at
        shift += np.uint64(7)
    return int(NO_VARINT), end


@kernel
def read_headers(data: Bytes, at: int, end: int) -> tuple[int, bool]:
    """Where the headers that begin at `at` end (-1: not before `end`), and whether they say that
    this is a heartbeat (T2): the first one named `control` does."""
    count, at = varint(data, at, end)
    if count < 0:
        return -1, False
    heartbeat, decided = False, False
    for i in range(count):
        size, at = varint(data, at, end)
        if size < 0 or size > end - at:
            return -1, False
        is_control = not decided and i < HEADERS_MAX and _same(data, at, size, _CONTROL)
        at += size
        size, at = varint(data, at, end)
        if size < -1 or size > end - at:
            return -1, False
        if is_control:
            decided = True
            heartbeat = _same(data, at, size, _HEARTBEAT)
        at += max(size, 0)
    return at, heartbeat


@kernel
def _same(data: Bytes, at: int, size: int, wanted: Bytes) -> bool:
    if size != len(wanted):
        return False
    same = True
    for i in range(size):
        same &= data[at + i] == wanted[i]
    return same
