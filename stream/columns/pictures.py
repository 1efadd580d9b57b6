"""A picture as events send it, the file's bytes or their base64, to 32 x 32 pixels: squished to a
square, whatever it was, as a click model needs no more of it.

What a file would take is known before it is decoded: its bytes, its pixels as its header says them,
and the passes of a progressive one. Decoded once by content: the same picture is shown many times.
Pillow is imported where a picture is (the extra `images`).
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stream.kernels import I64

if TYPE_CHECKING:
    from PIL.Image import Image

#: Pixels of a side, and bytes of a squared picture: rows from the top, red, green, blue.
SIDE = 32
SQUARED_BYTES = SIDE * SIDE * 3
#: What names the file of a stored picture: the SHA-256 of its bytes.
DIGEST = "^[0-9a-f]{64}$"
#: Colours become whole numbers between this and its negative.
COLOUR_MAX = 255
#: The largest file, in bytes, and its base64; the most pixels of one; the most passes of a JPEG.
FILE_BYTES_MAX = 262_144
GIVEN_BYTES_MAX = (FILE_BYTES_MAX + 2) // 3 * 4
PIXELS_MAX, SCANS_MAX = 4_194_304, 64
#: The most work that the distinct pictures of one record may take (`picture_work`), and how much
#: less than a PNG's a JPEG's pixel takes in a pass.
WORK_MAX, _JPEG_SHARE = 16_777_216, 16
#: Squared pictures that a process keeps.
CACHED_MAX = 4_096

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8")
_START_OF_SCAN = b"\xff\xda"
_SEND = "send a JPEG, PNG, WebP or GIF file, in JSON as base64"


class Picture(NamedTuple):
    """What became of a file."""

    pixels: bytes = b""  # SQUARED_BYTES; none where it is wrong
    wrong: str = ""  # what is wrong with it and how to put it right


def squared(given: bytes) -> Picture:
    """Of the bytes of a file or their base64, which cannot be mistaken for each other: no base64
    that begins as a file does is that of a picture."""
    return _squared(_Content(given))


class _Content:
    """Bytes that a cache knows by their hash, and does not keep."""

    __slots__ = ("_digest", "given")

    def __init__(self, given: bytes) -> None:
        self.given = given
        self._digest = hashlib.blake2b(given, digest_size=16).digest()

    def __hash__(self) -> int:
        return hash(self._digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Content) and self._digest == other._digest


def picture_work(given: bytes) -> int:
    """What it takes to decode it, in pixels of a PNG, as its header says; 0 of what is none."""
    return _work(_Content(given))


@lru_cache(maxsize=CACHED_MAX)
def _work(content: _Content) -> int:
    from PIL import Image as images

    given, content.given = content.given, b""
    if isinstance(file := _file(given), Picture):
        return 0
    try:
        with images.open(pa.BufferReader(file), formats=_FORMATS) as image:
            work = image.size[0] * image.size[1]
            if work > PIXELS_MAX:
                return 0
    except MemoryError:
        raise
    except Exception:  # who decodes it says so
        return 0
    if file.startswith(_BEGINNINGS[0]):
        work = work * file.count(_START_OF_SCAN) // _JPEG_SHARE
    return work


@lru_cache(maxsize=CACHED_MAX)
def _squared(content: _Content) -> Picture:
    given, content.given = content.given, b""
    file = _file(given)
    return file if isinstance(file, Picture) else _decoded(file)


def _file(given: bytes) -> bytes | Picture:
    """The file, without what a decoder would read and no pixel needs; or what is wrong with it."""
    if not given.startswith(_BEGINNINGS):
        if len(given) > GIVEN_BYTES_MAX:
            return Picture(wrong=f"has {len(given)} bytes; allowed are {GIVEN_BYTES_MAX} of base64")
        try:
            given = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError) as error:
            return Picture(wrong=f"is {given[:20]!r}, no base64 of a picture ({error}); {_SEND}")
        if not given.startswith(_BEGINNINGS):
            said = f"is no picture but {len(given)} bytes that begin {given[:12]!r}"
            return Picture(wrong=f"{said}; {_SEND}")
    if len(given) > FILE_BYTES_MAX:
        return Picture(wrong=f"has {len(given)} bytes; allowed are {FILE_BYTES_MAX}: send it small")
    given = _bare_jpeg(given) if given.startswith(_BEGINNINGS[0]) else given
    given = _bare_png(given) if given.startswith(_BEGINNINGS[1]) else given
    if (size := _webp_size(given)) is not None and size[0] * size[1] > PIXELS_MAX:
        return _too_large(*size)
    if given.startswith(_BEGINNINGS[0]) and (scans := given.count(_START_OF_SCAN)) > SCANS_MAX:
        return Picture(wrong=f"is a JPEG of {scans} passes; allowed are {SCANS_MAX}: save it anew")
    return given


def _bare_png(file: bytes) -> bytes:
    """Without texts, profiles and what else is ancillary, of which a few bytes unpack to megabytes
    (PNG, "Chunk naming conventions": those begin with a small letter). Transparency stays."""
    parts, at = [file[:8]], 8
    while at + 12 <= len(file):
        end = at + 12 + int.from_bytes(file[at : at + 4])
        if not file[at + 4] & 0x20 or file[at + 4 : at + 8] == b"tRNS":
            parts.append(file[at:end])
        at = end
    return b"".join(parts) + file[at:]


def _bare_jpeg(file: bytes) -> bytes:
    """Without comments and what applications add in front of the pixels: its directories can name
    the same bytes thousands of times. Two that say how colours are meant stay (JFIF; Adobe)."""
    parts, at = [file[:2]], 2
    while at + 4 <= len(file) and file[at] == 0xFF:
        kind = file[at + 1]
        if kind == 0xFF:  # filling
            at += 1
            continue
        if kind == 0xDA or kind <= 0x01 or 0xD0 <= kind <= 0xD9:
            break
        end = at + 2 + max(2, int.from_bytes(file[at + 2 : at + 4]))
        if kind != 0xFE and not (0xE1 <= kind <= 0xEF and kind != 0xEE):
            parts.append(file[at:end])
        at = end
    return b"".join(parts) + file[at:]


def _decoded(file: bytes) -> Picture:
    from PIL import Image as images

    try:
        with images.open(pa.BufferReader(file), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > PIXELS_MAX:
                return _too_large(width, height)
            image.draft("RGB", (4 * SIDE, 4 * SIDE))  # a JPEG is decoded no larger than needed
            small = _opaque(image).resize((SIDE, SIDE), images.Resampling.BILINEAR)
            return Picture(small.tobytes())
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder makes of bytes that somebody made up
        said = " ".join(str(error).split())[:200] or type(error).__name__
        return Picture(wrong=f"is a picture that cannot be read ({said}); {_SEND}")


def _opaque(image: "Image") -> "Image":
    """In red, green and blue, over white where it is transparent."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    from PIL import Image as images

    over = image.convert("RGBA")
    white = images.new("RGBA", over.size, "white")
    return images.alpha_composite(white, over).convert("RGB")


def _too_large(width: int, height: int) -> Picture:
    return Picture(wrong=f"has {width} x {height} pixels; allowed are {PIXELS_MAX}: send it small")


def _webp_size(file: bytes) -> tuple[int, int] | None:
    """What the header of a WebP says, whose decoder takes memory for all of it when it is opened
    (RFC 9649); None for another file."""
    if not file.startswith(b"RIFF") or len(file) < 30:
        return None
    kind = file[12:16]
    if kind == b"VP8X":
        low, high = (int.from_bytes(file[at : at + 3], "little") for at in (24, 27))
        return 1 + low, 1 + high
    if kind == b"VP8L":
        bits = int.from_bytes(file[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    low, high = (int.from_bytes(file[at : at + 2], "little") for at in (26, 28))
    return low & 0x3FFF, high & 0x3FFF


def pixels(column: pa.Array) -> tuple[npt.NDArray[np.int16], I64]:
    """The distinct pictures of a column of squared ones, as `tensors` has them, and which of them
    each row has, (n,)."""
    of_rows = column.dictionary_encode()
    places: I64 = of_rows.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return tensors(of_rows.dictionary.to_pylist()), places


def tensors(squares: Sequence[bytes]) -> npt.NDArray[np.int16]:
    """(m, 3, SIDE, SIDE): each colour twice its value less 255, a missing picture 0 throughout,
    which no colour is. What is not of SQUARED_BYTES, which only a foreign record holds, is
    missing."""
    out = np.zeros((len(squares), 3, SIDE, SIDE), np.int16)
    for i, raw in enumerate(squares):
        if len(raw) == SQUARED_BYTES:
            colours = np.frombuffer(raw, np.uint8).reshape(SIDE, SIDE, 3).transpose(2, 0, 1)
            out[i] = 2 * colours.astype(np.int16) - COLOUR_MAX
    return out


class PictureFiles(Protocol):
    """Files of pictures by the SHA-256 of their bytes."""

    def squared(self, digest: str, waits: bool) -> bytes:
        """SQUARED_BYTES; none of a file that is not there, or is no picture. `waits`: for a store
        that is away; else it is as good as not there."""
