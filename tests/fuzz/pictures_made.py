"""Pictures' files for the fuzzer: of each form, with the parts that no pixel needs, and with ones
that no decoder is to see."""

import base64
import io
import random
import zlib
from functools import cache

from PIL import Image


def file_of(form: str, mode: str = "RGB", **options: object) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (9, 5)).save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """Of a PNG."""
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)


def segment(marker: int, body: bytes) -> bytes:
    """Of a JPEG."""
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2) + body


def extension(label: int, *blocks: bytes) -> bytes:
    """Of a GIF."""
    return bytes([0x21, label]) + b"".join(bytes([len(b)]) + b for b in blocks) + b"\0"


def _sized(png: bytes, width: int, height: int) -> bytes:
    """A PNG whose header says another size."""
    head = width.to_bytes(4) + height.to_bytes(4) + png[24:29]
    return png[:8] + chunk(b"IHDR", head) + png[33:]


@cache
def files() -> tuple[bytes, ...]:
    png, jpeg, gif = (file_of(form) for form in ("PNG", "JPEG", "GIF"))
    table = 13 + 3 * (2 << (gif[10] & 7))
    webp = file_of("WEBP", lossless=True)
    large = b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6
    return (
        png,
        jpeg,
        gif,
        webp,
        file_of("WEBP"),
        file_of("PNG", "RGBA"),
        file_of("PNG", "P", transparency=0),
        file_of("JPEG", progressive=True),
        file_of("WEBP", "RGBA", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"),
        png[:33]
        + chunk(b"tEXt", b"a\0b")
        + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"b"))
        + png[33:],
        jpeg[:2] + segment(0xE1, b"Exif\0\0") + b"\xff" + segment(0xFE, b"said") + jpeg[2:],
        gif[:table]
        + extension(0xFE, b"said", b"so")
        + b"\0"
        + extension(0xF9, b"\1\0\0\0")
        + gif[table:],
        gif[:10] + b"\0" + gif[11:13] + gif[table:],
        gif[:8],
        png[:33] + chunk(b"AAAA", b"") * 4_100 + png[33:],
        jpeg[:2] + segment(0xE0, b"") * 4_100 + jpeg[2:],
        gif[:table] + extension(0xFE, *[b"x"] * 4_100) + gif[table:],
        _sized(png, 5_000, 5_000),
        _sized(png, 2_000, 2_000),
        _sized(png, 2_001, 2_000),
        _sized(png, 2_002, 2_000),
        _sized(png, 2_003, 2_000),
        _sized(png, 2_004, 2_000),
        large,
        jpeg[:-2] + segment(0xDA, b"\x01\x01\0\0\x3f\0") * 70,
        b"GIF89a" + bytes(20),
        b"%PDF",
        png[:30],
        b"\x89PNG\r\n\x1a\n" + bytes(262_145),
        b"A" * 349_600,
    )


def given(rng: random.Random) -> bytes:
    """A file or its base64."""
    file = rng.choice(files()[:-2])
    return base64.b64encode(file) if rng.random() < 0.7 else file
