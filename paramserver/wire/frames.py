"""A frame: what carries keys and rows, over a data channel or as the bytes of a gRPC
message.

    magic "EVS1" | code | header bytes | body bytes | header | body

Integers are little-endian. The code is a method's number in a request and a gRPC status in an
answer. The header is a protobuf message; where the status is not OK it is the reason as text. The
body is the arrays that the header's blocks speak of, in their order, each raw little-endian and
padded to 8 bytes: so a received body is taken apart into arrays without touching an element, and
sent without being put together.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paramserver.kernel import plain

PREFIX = struct.Struct("<4sIIQ")
MAGIC = b"EVS1"
#: A header has names and numbers, no arrays.
HEADER_BYTES_MAX = 1 << 20
ALIGNMENT = 8
OK = 0
#: The first frame of a data channel: its header is the token.
HELLO = 0
METHODS = {"Pull": 1, "Stage": 2, "Push": 3}
_PAD = memoryview(bytes(ALIGNMENT))

Array = npt.NDArray[Any]
#: (bytes,): a body, as it came.
Buffer = npt.NDArray[np.uint8]


class BadFrame(ValueError):
    """Bytes that are no frame, or a frame beyond a limit. What follows on the same data channel
    cannot be read."""


class FrameTooLarge(BadFrame):
    """A frame beyond the limits: `nbytes` of header and body follow, which nobody takes."""

    def __init__(self, reason: str, nbytes: int) -> None:
        super().__init__(reason)
        self.nbytes = nbytes


def pieces(code: int, header: bytes, arrays: Sequence[Array] = ()) -> list[memoryview]:
    """A frame as pieces to be sent one after another, the arrays uncopied where they are
    contiguous."""
    body: list[memoryview] = []
    size = 0
    for array in arrays:
        if not array.nbytes:
            continue
        body.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        size += array.nbytes
        if size % ALIGNMENT:
            pad = ALIGNMENT - size % ALIGNMENT
            body.append(_PAD[:pad])
            size += pad
    return [memoryview(PREFIX.pack(MAGIC, code, len(header), size) + header), *body]


def read_prefix(prefix: bytes | memoryview, body_bytes_max: int) -> tuple[int, int, int]:
    """(code, header bytes, body bytes). BadFrame if it is no prefix, or announces more than is
    taken."""
    magic, code, header, body = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise BadFrame(f"no frame begins with {magic!r}")
    if header > HEADER_BYTES_MAX or body > body_bytes_max:
        raise FrameTooLarge(
            f"a frame of {header} + {body} bytes: a header has at most {HEADER_BYTES_MAX}, a body "
            f"{body_bytes_max} "
            "(message_bytes_max)",
            header + body,
        )
    return code, header, body


def unpack(data: bytes, body_bytes_max: int) -> tuple[int, bytes, Buffer]:
    """(code, header, body) of a frame that arrived whole. The body is a view of it, hence
    read-only."""
    if len(data) < PREFIX.size:
        raise BadFrame(f"{len(data)} bytes are no frame")
    code, header, body = read_prefix(data[: PREFIX.size], body_bytes_max)
    if len(data) != PREFIX.size + header + body:
        raise BadFrame(f"a frame of {len(data)} bytes announces {PREFIX.size + header + body}")
    at = PREFIX.size + header
    return code, data[PREFIX.size : at], np.frombuffer(data, np.uint8, body, at)


class Body:
    """Takes a received body apart. ValueError where it is shorter than the header says."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer, self._at = buffer, 0

    @property
    def nbytes(self) -> int:
        return len(self._buffer)

    def take(self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Array:
        """The next array, a view where it can be one. `name` is for the error."""
        if min(shape, default=0) < 0:
            raise ValueError(f"{name!r}: shape {shape} has a negative length")
        count = 1
        for length in shape:
            count *= length
        size = count * np.dtype(dtype).itemsize
        if self._at + size > len(self._buffer):
            left = len(self._buffer) - self._at
            raise ValueError(
                f"{name!r}: {np.dtype(dtype)} {shape} needs {size} bytes, the frame has {left} left"
            )
        array = plain(self._buffer[self._at : self._at + size]).view(dtype).reshape(shape)
        self._at += size + -size % ALIGNMENT
        return array

    def end(self) -> None:
        """ValueError if bytes are left over: header and body are of two minds."""
        if self._at < len(self._buffer):
            raise ValueError(
                f"the frame has {len(self._buffer) - self._at} bytes more than its header speaks of"
            )
