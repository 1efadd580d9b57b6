"""What of a picture's file no pixel needs, and how many parts it has: chunks, segments and blocks.

Pillow reads each part in Python, so that a file of nothing but parts takes far longer than its
pixels do. They are walked here, as far as `PARTS_MAX`, before any decoder sees them; comments,
texts, profiles and what applications add are left out.
"""

from typing import NamedTuple

#: A file of more parts is refused.
PARTS_MAX = 4_096

JPEG, PNG, WEBP, GIF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8"
_GIF_HEADER_BYTES = 13
_EXTENSION, _IMAGE, _CONTROL = 0x21, 0x2C, 0xF9


class Bare(NamedTuple):
    """A file without what no pixel needs, and how many parts were walked; above `PARTS_MAX` the
    walk ended there, and the file is as it was."""

    file: bytes
    parts: int = 0


def bare(file: bytes) -> Bare:
    """Of any file."""
    for beginning, walk in ((JPEG, _bare_jpeg), (PNG, _bare_png), (GIF, _bare_gif)):
        if file.startswith(beginning):
            return walk(file)
    return Bare(file)


def _bare_png(file: bytes) -> Bare:
    """Without texts, profiles and what else is ancillary, of which a few bytes unpack to megabytes
    (PNG, "Chunk naming conventions": those begin with a small letter). Transparency stays."""
    kept, at, parts = [file[:8]], 8, 0
    while at + 12 <= len(file):
        parts += 1
        if parts > PARTS_MAX:
            return Bare(file, parts)
        end = at + 12 + int.from_bytes(file[at : at + 4])
        if not file[at + 4] & 0x20 or file[at + 4 : at + 8] == b"tRNS":
            kept.append(file[at:end])
        at = end
    return Bare(b"".join(kept) + file[at:], parts)


def _bare_jpeg(file: bytes) -> Bare:
    """Without comments and what applications add in front of the pixels: its directories can name
    the same bytes thousands of times. Two that say how colours are meant stay (JFIF; Adobe)."""
    kept, at, parts = [file[:2]], 2, 0
    while at + 4 <= len(file) and file[at] == 0xFF:
        parts += 1
        if parts > PARTS_MAX:
            return Bare(file, parts)
        kind = file[at + 1]
        if kind == 0xFF:  # filling
            at += 1
            continue
        if kind == 0xDA or kind <= 0x01 or 0xD0 <= kind <= 0xD9:
            break
        end = at + 2 + max(2, int.from_bytes(file[at + 2 : at + 4]))
        if kind != 0xFE and not (0xE1 <= kind <= 0xEF and kind != 0xEE):
            kept.append(file[at:end])
        at = end
    return Bare(b"".join(kept) + file[at:], parts)


def _bare_gif(file: bytes) -> Bare:
    """Without the extensions in front of the first picture but its control, which says what is
    transparent, and without bytes that are no block: a decoder looks at each of those, and joins a
    comment's blocks one to the other (GIF89a, "Grammar")."""
    if len(file) < _GIF_HEADER_BYTES:
        return Bare(file)
    at = _GIF_HEADER_BYTES + (3 * (2 << (file[10] & 7)) if file[10] & 0x80 else 0)
    kept, parts = [file[:at]], 0
    while at < len(file) and file[at] != _IMAGE:
        parts += 1
        begin, is_extension = at, file[at] == _EXTENSION
        at += 2 if is_extension else 1
        while is_extension and at < len(file) and file[at] and parts <= PARTS_MAX:
            at += 1 + file[at]
            parts += 1
        if parts > PARTS_MAX:
            return Bare(file, parts)
        if is_extension:
            at += 1
            if file[begin + 1 : begin + 2] == bytes([_CONTROL]):
                kept.append(file[begin:at])
    return Bare(b"".join(kept) + file[at:], parts)


def webp_size(file: bytes) -> tuple[int, int] | None:
    """What the header of a WebP says, whose decoder takes memory for all of it when it is opened
    (RFC 9649); None for another file."""
    if not file.startswith(WEBP) or len(file) < 30:
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
