"""Pictures whose bytes are few and whose pixels, texts or directories are many."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stream.columns import WORK_MAX, Feature, squared
from stream.columns.picture_files import PARTS_MAX
from stream.columns.pictures import picture_work
from stream.config import StreamConfig
from stream.decoding import WrongValue, decode_impressions, given_features, impression_shape
from stream.record import Record

TS = 1_700_000_000_000
CONFIG = StreamConfig(
    partitions=1,
    declared={"photo": Feature("image"), "cover": Feature("image", unreadable="missing")},
)


@cache
def file_of(form: str, colour: int = 7, side: int = 64) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), (colour, 9, 200)).save(out, form)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def directory() -> bytes:
    """Thousands of entries that name the same bytes."""
    entries = b"".join(struct.pack(">HHII", i + 1, 1, 60_000, 8) for i in range(5_000))
    return b"MM\0*\0\0\0\x08" + struct.pack(">H", 5_000) + entries + bytes(4)


def page(name: str, files: list[bytes]) -> bytes:
    shown = [
        {"id": f"i{i}", "item": "x", "features": {name: base64.b64encode(one).decode()}}
        for i, one in enumerate(files)
    ]
    shared = {"ts_ms": TS, "session": "s", "source": "u", "vendor": "v"}
    return json.dumps({**shared, "impressions": shown}).encode()


@pytest.mark.parametrize("name", ["photo", "cover"])
@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP"])
def test_a_record_holds_so_many_pixels_and_no_more(
    name: str, form: str, monkeypatch: pytest.MonkeyPatch
):
    """Of the same picture once. What is refused is not decoded."""
    decoded: list[bytes] = []
    large = [file_of(form, 40 * colour, 2_000) for colour in range(6)]
    values = [page(name, large[:5]), page(name, [large[5]] * 30)]
    loads = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda *a, **k: decoded.append(b"") or loads(*a, **k)
    )
    records = [Record(i, TS, b"s", value) for i, value in enumerate(values)]
    rows, bad = decode_impressions(records, 0, np.full(2, TS), CONFIG)
    assert len(rows) == 30
    assert "pictures of 20" in bad[0].reason
    assert len(decoded) <= 1  # none where the process has it


def test_a_request_holds_so_many_pixels_and_no_more():
    feature = impression_shape(CONFIG.features).features
    files: list[bytes | None] = [file_of("PNG", 40 * colour, 2_000) for colour in range(5)]
    given: dict[str, list[bytes | None]] = {"f_photo": [*files[:3], None], "f_cover": files[:4]}
    assert len(given_features(feature, given, 4)["f_photo"]) == 4
    given["f_cover"] = files[1:]
    with pytest.raises(WrongValue, match=r"photo holds pictures of 20.* a request"):
        given_features(feature, given, 4)


@pytest.mark.parametrize("form", ["GIF", "PNG", "no picture"])
def test_small_pictures_count_too(form: str):
    """Each is opened and made 32 x 32: 40,000 of them took 20 s."""
    one = file_of("PNG", side=1)
    many = [one + b"%d" % i for i in range(WORK_MAX // picture_work(one) + 1)]
    if form == "GIF":
        many = [file_of("GIF", side=1) + b"%d" % i for i in range(WORK_MAX // 8_192)]
    if form == "no picture":
        many = [b"GIF89a%d" % i for i in range(WORK_MAX // 8_192 + 1)]
    values = [page("cover", many), page("cover", [])]
    records = [Record(i, TS, b"s", value) for i, value in enumerate(values)]
    _, bad = decode_impressions(records, 0, np.full(2, TS), CONFIG)
    assert ["pixels and more together" in one.reason for one in bad] == [True]


@pytest.mark.parametrize(
    ("form", "at", "part"),
    [
        ("GIF", 13, b"\x21\xfe" + b"\x01x" * 125_000 + b"\0"),
        ("GIF", 13, b"\0" * 250_000),
        ("GIF", 13, b"\x21\xf9\0" * 80_000),
        ("PNG", 33, chunk(b"AAAA", b"") * 20_000),
        ("JPEG", 2, segment(0xE0, b"") * 60_000),
        ("JPEG", 2, b"\xff" * 250_000),
    ],
)
def test_a_file_of_many_parts_is_not_given_to_a_decoder(
    form: str, at: int, part: bytes, monkeypatch: pytest.MonkeyPatch
):
    """Pillow took up to 0.3 s for 250 KB of them."""
    file = file_of(form)
    at += 3 * (2 << (file[10] & 7)) if form == "GIF" and file[10] & 0x80 else 0
    monkeypatch.setattr(Image, "open", None)
    assert f"more than {PARTS_MAX} chunks" in squared(file[:at] + part + file[at:]).wrong
    assert picture_work(file[:at] + part + file[at:]) >= PARTS_MAX * 512


def test_a_jpegs_passes_count():
    once, often = file_of("JPEG", 1, 1_024), io.BytesIO()
    Image.new("RGB", (1_024, 1_024)).save(often, "JPEG", progressive=True)
    assert 0 <= picture_work(once) - 1_024 * 1_024 // 16 < 20_000
    assert picture_work(often.getvalue()) > 5 * picture_work(once)
    assert picture_work(b"no picture") == 0


PNG_PARTS = st.sampled_from(
    [
        chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20))),
        chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(1 << 20))),
        chunk(b"tEXt", b"a\0b"),
        chunk(b"eXIf", directory()),
    ]
)
JPEG_PARTS = st.sampled_from(
    [
        segment(0xE1, b"Exif\0\0" + directory()),
        segment(0xE2, b"MPF\0" + directory()),
        segment(0xFE, b"said"),
        b"\xff",
    ]
)


GIF_PARTS = st.sampled_from(
    [
        b"\x21\xfe\x03abc\x01d\0",
        b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0",
        b"\x21\x01\x0c" + bytes(12) + b"\x02ab\0",
        b"\x77",
    ]
)
PLACED = {"PNG": (33, PNG_PARTS), "JPEG": (2, JPEG_PARTS), "GIF": (13 + 3 * 4, GIF_PARTS)}


@given(st.data(), st.sampled_from(["PNG", "JPEG", "GIF"]))
@settings(max_examples=40, deadline=None)
def test_what_no_pixel_needs_changes_nothing_and_is_not_read(data: st.DataObject, form: str):
    file = file_of(form)
    at, parts = PLACED[form]
    added = b"".join(data.draw(st.lists(parts, max_size=4)))
    read: list[str] = []

    def seen(name: str, inner: Callable[..., object]) -> Callable[..., object]:
        return lambda *a, **k: read.append(name) or inner(*a, **k)

    with pytest.MonkeyPatch.context() as patch:
        for place, name in (
            ("PIL.PngImagePlugin.PngStream", "chunk_zTXt"),
            ("PIL.TiffImagePlugin.ImageFileDirectory_v2", "load"),
        ):
            owner = pytest.importorskip(place.rpartition(".")[0])
            kind = getattr(owner, place.rpartition(".")[2])
            patch.setattr(kind, name, seen(name, getattr(kind, name)))
        assert squared(file[:at] + added + file[at:]) == squared(file)
    assert read == []


@given(st.data(), st.sampled_from(["PNG", "JPEG"]))
@settings(max_examples=150, deadline=None)
def test_bytes_that_are_changed_raise_nothing(data: st.DataObject, form: str):
    file = bytearray(file_of(form))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(4, len(file) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(file[: data.draw(st.integers(12, len(file)))])
    assert picture_work(cut) >= 0
    assert squared(cut).wrong or squared(cut).pixels
