"""What an Arrow IPC stream is going to take, read off its messages before anything is unpacked.

A compressed buffer begins with its unpacked length, and a reader takes that much memory; a record
of 300 bytes can name 300 GB. The lengths stand in the messages' metadata, a flatbuffer (Arrow
format, Message.fbs): pyarrow checks that it is well-formed, and does not show it.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

#: A stream's batches and dictionaries. Each costs a reader the same, however little it holds.
MESSAGES_MAX = 256
_DICTIONARY, _BATCH = 2, 3  # MessageHeader
_FORMAT_5 = 4  # MetadataVersion
_PREFIX = struct.Struct("<q")
#: How a writer ends a stream that it closes; one may also end with its bytes (Arrow columnar
#: format, "IPC Streaming").
_END = b"\xff\xff\xff\xff\0\0\0\0"


class StreamSize(NamedTuple):
    """What a stream claims: rows of all its batches, bytes of its buffers when unpacked, bytes
    behind its end, and how many of the unpacked bytes are of dictionaries, which a row refers to.
    """

    rows: int
    unpacked_bytes: int
    bytes_behind: int
    dictionary_bytes: int = 0


class MalformedStream(ValueError):
    """Says what is wrong."""


def measure(value: bytes) -> StreamSize:
    """Raises MalformedStream, pa.ArrowException, OSError."""
    source = pa.BufferReader(value)
    rows = unpacked = dictionaries = messages = batches = 0
    try:
        for message in pa.ipc.MessageReader.open_stream(source):
            messages += 1
            if messages > MESSAGES_MAX:
                raise MalformedStream(
                    f"has more than {MESSAGES_MAX} batches and dictionaries; write larger ones"
                )
            count, size = _claims(memoryview(message.metadata), message.body)
            rows, unpacked = rows + count, unpacked + size
            dictionaries += size if message.type == "dictionary" else 0
            batches += message.type == "record batch"
    except (struct.error, IndexError) as error:
        raise MalformedStream(f"has a message that cannot be read ({error})") from error
    if batches == 0 and value[source.tell() - len(_END) : source.tell()] != _END:
        raise MalformedStream(
            "ends behind its schema, without a batch and without an end; send it whole"
        )
    return StreamSize(rows, unpacked, len(value) - source.tell(), dictionaries)


def _claims(metadata: memoryview, body: pa.Buffer | None) -> tuple[int, int]:
    """Rows and unpacked bytes of one message."""
    message = _Table(metadata, _u32(metadata, 0))
    kind = message.number(1, "<B", 0)
    if kind not in (_DICTIONARY, _BATCH):
        return 0, 0
    if message.number(0, "<h", 0) < _FORMAT_5 and message.place(4):
        raise MalformedStream("is written in an old format; write it with Arrow 1.0 or newer")
    batch = message.table(2)
    if batch is not None and kind == _DICTIONARY:
        batch = batch.table(1)
    if batch is None or body is None:
        return 0, 0
    rows = batch.number(0, "<q", 0) if kind == _BATCH else 0
    if rows < 0:
        raise MalformedStream(f"has a batch of {rows} rows")
    size = int(body.size)
    if batch.table(3) is None:
        return rows, size
    data = memoryview(body)
    for start, length in batch.pairs(2):
        if length >= _PREFIX.size:
            claimed = _PREFIX.unpack_from(data, start)[0]  # -1: as it is
            size += max(0, claimed)
    return rows, size


class _Table:
    """A flatbuffer's table at a place of its bytes (flatbuffers, "Internals": a table points to
    its vtable)."""

    def __init__(self, data: memoryview, at: int):
        self._data, self._at = data, at
        vtable = at - struct.unpack_from("<i", data, at)[0]
        if vtable < 0:
            raise IndexError("vtable")
        self._vtable, self._slots = vtable, (struct.unpack_from("<H", data, vtable)[0] - 4) // 2

    def place(self, slot: int) -> int:
        """Where a field stands; 0 if it is not there."""
        if slot >= self._slots:
            return 0
        offset = struct.unpack_from("<H", self._data, self._vtable + 4 + 2 * slot)[0]
        return self._at + offset if offset else 0

    def number(self, slot: int, form: str, default: int) -> int:
        at = self.place(slot)
        return int(struct.unpack_from(form, self._data, at)[0]) if at else default

    def table(self, slot: int) -> "_Table | None":
        at = self.place(slot)
        return _Table(self._data, at + _u32(self._data, at)) if at else None

    def pairs(self, slot: int) -> Iterator[tuple[int, int]]:
        """A vector of pairs of int64."""
        at = self.place(slot)
        if at:
            at += _u32(self._data, at)
            for i in range(min(_u32(self._data, at), (len(self._data) - at) // 16 + 1)):
                yield struct.unpack_from("<qq", self._data, at + 4 + 16 * i)


def _u32(data: memoryview, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])
