"""Unpacking of what producers packed: gzip, snappy, lz4, zstd, with a bound on what comes out.

What 300 KB unpack to can be 300 MB, or 300 GB. So they are unpacked piece by piece and given up
above the bound. All codecs are Arrow's: none is missing on a machine where the rest runs.
"""

import pyarrow as pa

#: Codecs by their number in a record batch's attributes (Kafka protocol guide, "Record Batch").
CODECS = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
_PIECE_BYTES = 1 << 20
#: xerial's framing of snappy, which Kafka's Java clients write: a head of 16 bytes, then blocks
#: behind their lengths.
_XERIAL, _XERIAL_HEAD_BYTES = b"\x82SNAPPY\0", 16
_VARINT_BYTES_MAX = 5  # snappy's unpacked length, 32 bits


class CannotUnpack(ValueError):
    """Says what is wrong."""


class UnpacksTooLarge(CannotUnpack):
    """It would unpack to more than the bound."""


def unpack(codec: int, data: memoryview, bytes_max: int) -> bytes:
    """`data` unpacked, at most `bytes_max` bytes. Raises CannotUnpack, UnpacksTooLarge."""
    name = CODECS.get(codec)
    if name is None:
        raise CannotUnpack(f"is packed with codec {codec}, which Kafka does not have")
    try:
        return _snappy(data, bytes_max) if name == "snappy" else _stream(name, data, bytes_max)
    except (pa.ArrowException, OSError) as error:
        raise CannotUnpack(f"cannot be unpacked by {name} ({error})") from error


def _stream(name: str, data: memoryview, bytes_max: int) -> bytes:
    """Into buffers of Arrow's: `read` forgets the bytes that it allocated where unpacking fails
    (pyarrow 26), which is a piece for each damaged batch."""
    pieces: list[pa.Buffer] = []
    taken = 0
    with pa.CompressedInputStream(pa.BufferReader(data), name) as stream:
        while len(piece := stream.read_buffer(min(_PIECE_BYTES, bytes_max - taken + 1))):
            taken += len(piece)
            if taken > bytes_max:
                raise UnpacksTooLarge(f"unpacks to more than {bytes_max} bytes")
            pieces.append(piece)
    return b"".join(pieces)


def _snappy(data: memoryview, bytes_max: int) -> bytes:
    """Snappy says at its beginning how long it will be."""
    if bytes(data[: len(_XERIAL)]) != _XERIAL:
        return _snappy_block(data, bytes_max)
    pieces, taken, at = [], 0, _XERIAL_HEAD_BYTES
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if at + 4 + size > len(data):
            raise CannotUnpack("cannot be unpacked by snappy (a block is cut off)")
        pieces.append(_snappy_block(data[at + 4 : at + 4 + size], bytes_max - taken))
        taken += len(pieces[-1])
        at += 4 + size
    return b"".join(pieces)


def _snappy_block(block: memoryview, bytes_max: int) -> bytes:
    size = shift = 0
    for byte in block[:_VARINT_BYTES_MAX]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    else:
        raise CannotUnpack("cannot be unpacked by snappy (its length is cut off)")
    if size > bytes_max:
        raise UnpacksTooLarge(f"unpacks to {size} bytes, and allowed are {bytes_max}")
    return bytes(pa.Codec("snappy").decompress(block, size, asbytes=True)) if size else b""
