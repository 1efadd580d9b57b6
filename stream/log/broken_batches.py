"""Record batches of Kafka that cannot be read: what is said of one.

Such a batch costs itself and nothing behind it. It stands among the records as one record at its
last offset, whose value is the batch as it came, and which is bad by that alone (L6: it counts as
one).
"""

import struct

from stream.log.unpacking import CODECS
from stream.record import Record

#: base offset, length, leader epoch, magic, crc, attributes, last offset delta, first and max
#: timestamp, producer's id, epoch and sequence, count.
HEADER = struct.Struct(">qiibIhiqqqhii")
CODEC_BITS = 0x07

#: Why: what stands in the column `batch_fault` of records.
CHECKSUM, FORMAT, PACKED, LARGE, RECORDS = 1, 2, 3, 4, 5
_WHY = {
    CHECKSUM: "its checksum is wrong, twice alike: it was damaged where it is kept; look at that "
    "broker's disk",
    FORMAT: "it is in an old format; send with a client for Kafka 0.11 or newer",
    PACKED: "it cannot be unpacked; see what its producer packs with",
    LARGE: "it unpacks to more than decoded_bytes_max; send smaller batches",
    RECORDS: "its records do not fill it; see what its producer is",
}


def batch_fault(record: Record) -> tuple[str, str]:
    """What is wrong with the batch that this record stands for, as (field, reason)."""
    value = record.value or b""
    why = _WHY.get(record.batch_fault, "it cannot be read")
    if len(value) < HEADER.size:
        return "batch", f"is a record batch of {len(value)} bytes: {why}"
    base, _, _, _, _, attributes, last_delta, _, _, _, _, _, count = HEADER.unpack_from(value)
    packed = CODECS.get(attributes & CODEC_BITS)
    how = f", packed with {packed}" if packed else ""
    return (
        "batch",
        f"of offsets {base} to {base + last_delta} ({count} records, {len(value)} bytes{how}): "
        f"{why}",
    )
