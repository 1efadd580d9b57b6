"""The bytes in front of a value (Confluent's wire format): a byte 0, the id of its schema in four
bytes, big-endian; for Protobuf the place of the message in its file."""

import numpy as np

from stream.kernels import I64, Bools
from stream.log import RecordColumns
from stream.registry.schema import SchemaFault

#: What begins a value with a schema: this byte, then the schema's id in 4 bytes.
MAGIC = 0
HEADER_BYTES = 5
#: Messages within messages: no file nests deeper than this by hand.
INDEXES_MAX = 32


def framed(records: RecordColumns) -> Bools:
    """Which records, (n,), have a value that begins as one with a schema id does; a value that is
    too short to hold an id is among them."""
    entries = records.entries
    begins: Bools = (entries["value_bytes"] > 0) & (entries["batch_fault"] == 0)
    begins &= ~entries["heartbeat"]
    at = np.flatnonzero(begins)
    begins[at] = records.data[entries["value"][at]] == MAGIC
    return begins


def schema_ids(records: RecordColumns, rows: I64) -> I64:
    """Of these framed records, int64 (len(rows),); -1 of a value that is too short."""
    entries = records.entries[rows]
    whole = entries["value_bytes"] >= HEADER_BYTES
    ids = np.full(len(rows), -1, np.int64)
    places = entries["value"][whole].astype(np.int64)[:, None] + np.arange(1, HEADER_BYTES)
    digits = records.data[places].astype(np.int64)
    ids[whole] = digits @ np.array([1 << 24, 1 << 16, 1 << 8, 1], np.int64)
    return ids


def message_index(payload: bytes) -> tuple[tuple[int, ...], int]:
    """The place of the message in its file, an index a level, and where the message begins. Raises
    SchemaFault."""
    if payload[:1] == b"\0":
        return (0,), 1
    count, at = _zigzag(payload, 0)
    if count == 0:
        return (0,), at
    if not 0 < count <= INDEXES_MAX:
        raise SchemaFault(
            "value", f"has {count} message indexes; allowed are up to {INDEXES_MAX} (Protobuf)"
        )
    indexes = []
    for _ in range(count):
        index, at = _zigzag(payload, at)
        indexes.append(index)
    return tuple(indexes), at


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in data[at : at + 5]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
    raise SchemaFault(
        "value",
        "ends, or is no number, where the message's place in its file is meant: send the message "
        "index behind the schema id (Protobuf)",
    )
