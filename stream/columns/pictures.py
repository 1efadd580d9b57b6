"""A picture as events send it, the file's bytes or their base64, to 32 x 32 pixels: squished to a
square, whatever it was, as a click model needs no more of it.

What a file would take is known before it is decoded: its bytes, its pixels as its header says them,
and the passes of a progressive one. Decoded once by content: the same picture is shown many times.
Pillow is imported where a picture is (the extra `images`).
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stream.columns.picture_files import GIF, JPEG, PARTS_MAX, PNG, WEBP, Bare, bare, webp_size
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
#: The most work that the distinct pictures of one record or request may take (`picture_work`), and
#: how much less than a PNG's a JPEG's pixel takes in a pass.
WORK_MAX, _JPEG_SHARE = 16_777_216, 16
#: What a picture takes beside its pixels, and each part of its file (`picture_files`).
_PICTURE_WORK, _PART_WORK = 8_192, 512
#: Squared pictures that a process keeps.
CACHED_MAX = 4_096

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_BEGINNINGS = (JPEG, PNG, WEBP, GIF)
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
    """What it takes to decode it, in pixels of a PNG, as its header says; 0 of what does not begin
    as a picture."""
    return _work(_Content(given))


def too_much_work(pictures: Iterable[bytes]) -> int:
    """The work of the distinct ones of these, as far as it was added up, if it is more than one
    record or request may take; else 0. Nothing is decoded for it."""
    total = 0
    for one in dict.fromkeys(pictures):
        total += picture_work(one)
        if total > WORK_MAX:
            return total
    return 0


@lru_cache(maxsize=CACHED_MAX)
def _work(content: _Content) -> int:
    from PIL import Image as images

    given, content.given = content.given, b""
    if isinstance(file := _file_of(given), Picture):
        return 0
    found = bare(file)
    work = _PICTURE_WORK + _PART_WORK * found.parts
    if _refusal(found) is not None:
        return work
    try:
        with images.open(pa.BufferReader(found.file), formats=_FORMATS) as image:
            pixels = image.size[0] * image.size[1]
    except MemoryError:
        raise
    except Exception:  # who decodes it says so
        return work
    if pixels > PIXELS_MAX:
        return work
    if found.file.startswith(JPEG):
        pixels = pixels * found.file.count(_START_OF_SCAN) // _JPEG_SHARE
    return work + pixels


@lru_cache(maxsize=CACHED_MAX)
def _squared(content: _Content) -> Picture:
    given, content.given = content.given, b""
    if isinstance(file := _file_of(given), Picture):
        return file
    found = bare(file)
    return _refusal(found) or _decoded(found.file)


def _file_of(given: bytes) -> bytes | Picture:
    """The file as it was given, or what is wrong with what does not begin as one."""
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
    return given


def _refusal(found: Bare) -> Picture | None:
    """What is wrong with a file before a decoder sees it."""
    if found.parts > PARTS_MAX:
        parts = "chunks, segments or blocks"
        return Picture(wrong=f"has more than {PARTS_MAX} {parts}: save it anew")
    if (size := webp_size(found.file)) is not None and size[0] * size[1] > PIXELS_MAX:
        return _too_large(*size)
    if found.file.startswith(JPEG):
        scans = found.file.count(_START_OF_SCAN)
        if scans > SCANS_MAX:
            said = f"is a JPEG of {scans} passes; allowed are {SCANS_MAX}: save it anew"
            return Picture(wrong=said)
    return None


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

    def squares(self, digests: Sequence[str], waits: bool) -> list[bytes]:
        """Of each SQUARED_BYTES; none of a file that is not there, is no picture, or takes more
        work than one record may, and of an empty digest. `waits`: for a store that is away, as long
        as it takes; else what is not there soon is as good as not there."""
