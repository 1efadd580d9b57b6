"""Pictures: squished to 32 x 32 under limits, by bytes or base64, and learned by a convolution
(docs/features.md)."""

import base64
import io
import json
import zlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from checkpointer.serving import BadRequest, explain
from checkpointer.serving.arrow_request import read_table
from checkpointer.serving.request import request_of
from checkpointer.tables import ModelTables
from everspun import loads
from learners.models import Encoder, Scorer, make_model
from learners.training import gradient
from paramserver import SlotMap
from paramserver.parts import decode_serving, serving_files
from paramserver.shard import Shard
from stream import Record
from stream.columns import SIDE, SQUARED_BYTES, pixels, squared
from stream.columns.pictures import FILE_BYTES_MAX
from stream.decoding import decode_impressions
from stream.internal_topics import decode_examples, encode_examples, example_batch

TS_MS = 1_700_000_000_000
CONFIG = loads("""
[stream]
partitions = 1
[features.photo]
kind = "image"
[features.cover]
kind = "image"
unreadable = "missing"
[model]
kind = "mlp"
dim = 4
hidden = [4]
categorical = ["item"]
images = ["photo", "cover"]
""")
FEATURES = CONFIG.stream.features


def file_of(image, form="PNG", **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def plain(colour, size=(8, 8), form="PNG", mode="RGB"):
    return file_of(Image.new(mode, size, colour), form)


RED, BLUE = plain("red"), plain("blue", (64, 16))


def seen(file):
    """(32, 32, 3) of a picture that is one."""
    found = squared(file)
    assert not found.wrong
    assert squared(base64.b64encode(file)) == found
    return np.frombuffer(found.pixels, np.uint8).reshape(SIDE, SIDE, 3)


# --- squishing


def test_a_picture_is_squished_to_a_square_whatever_it_was():
    wide = Image.new("RGB", (256, 16), "red")
    wide.paste("blue", (128, 0, 256, 16))
    found = seen(file_of(wide))
    assert (found[:, :15] == [255, 0, 0]).all()
    assert (found[:, 17:] == [0, 0, 255]).all()


@pytest.mark.parametrize(
    ("file", "colour"),
    [
        (plain("lime", form="GIF"), [0, 255, 0]),
        (plain(128, mode="L"), [128] * 3),
        (plain(0, mode="1"), [0] * 3),
        (plain((255, 0, 0, 0), mode="RGBA"), [255] * 3),
        (plain((0, 0, 0, 255), mode="RGBA"), [0] * 3),
        (file_of(Image.new("P", (4, 4), 0), transparency=0), [255] * 3),
    ],
)
def test_every_mode_becomes_three_colours_over_white(file, colour):
    assert (seen(file) == colour).all()


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_files_with_losses_are_read_too(form):
    assert np.abs(seen(plain("red", (500, 100), form)).astype(int) - [255, 0, 0]).max() < 8


# --- limits


def webp_of(width, height):
    """Only the header of one."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + sides + bytes(20)


def png_of(width, height):
    """A small file that claims to be so large."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + RED[24:29]
    return RED[:12] + header + zlib.crc32(header).to_bytes(4, "big") + RED[33:]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (png_of(9_000, 9_000), "has 9000 x 9000 pixels; allowed are 4194304"),
        (png_of(60_000, 60_000), "cannot be read"),
        (webp_of(16_384, 16_384), "has 16384 x 16384 pixels"),
        (plain(0, (2_049, 2_048), "GIF", "L"), "has 2049 x 2048 pixels"),
        (RED + bytes(FILE_BYTES_MAX), "bytes; allowed are 262144"),
        (b"A" * 400_000, "has 400000 bytes; allowed are"),
        (plain("red", form="JPEG") + b"\xff\xda" * 65, "is a JPEG of 66 passes; allowed are 64"),
        (RED[:45], "cannot be read"),
        (b"GIF89a", "cannot be read"),
        (b"RIFF", "cannot be read"),
        (b"https://shop.example/a.png", "no base64 of a picture"),
        (base64.b64encode(b"%PDF-1.4"), "begin b'%PDF-1.4'; send a JPEG, PNG, WebP or GIF"),
    ],
)  # fmt: skip
def test_what_is_no_picture_or_too_large_is_named_before_it_is_decoded(given, said):
    assert said in squared(given).wrong
    assert not squared(given).pixels


def test_bytes_that_somebody_damaged_end_in_a_word_and_not_in_an_error():
    rng = np.random.default_rng(3)
    noise = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
    for form in ("PNG", "JPEG", "WEBP", "GIF"):
        file = file_of(noise, form)
        for _ in range(60):
            broken = bytearray(file)
            for at in rng.integers(4, len(file), 3):
                broken[at] = rng.integers(0, 256)
            found = squared(bytes(broken))
            assert bool(found.wrong) != (len(found.pixels) == SQUARED_BYTES)


# --- from events to tensors


def text_of(file):
    return base64.b64encode(file).decode()


def decoded(value):
    """(rows of `examples`, what was bad) of one record."""
    record = Record(0, TS_MS, b"s", value)
    rows, bad = decode_impressions([record], 0, np.array([TS_MS]), CONFIG.stream)
    n = len(rows)
    batch = example_batch(
        rows, (np.arange(n) % 2).astype(np.int8), np.full(n, -1), np.ones(n, np.float32)
    )
    return decode_examples(encode_examples(batch)) if n else None, bad


def event(i, **features):
    known = {"id": f"i{i}", "ts_ms": TS_MS, "session": "s", "source": "u", "vendor": "v"}
    return known | {"item": f"x{i}", "features": features}


def of_json(*bags):
    return decoded(json.dumps([event(i, **bag) for i, bag in enumerate(bags)]).encode())


def arrow_of(columns):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, columns.schema) as writer:
        writer.write_table(columns)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    "photos",
    [
        pa.array([RED, BLUE, None], pa.binary()),
        pa.array([RED, BLUE, b""], pa.large_binary()),
        pa.array([RED, BLUE, None], pa.binary()).dictionary_encode(),
        pa.array([RED, BLUE, None], pa.binary_view()),
        pa.array([text_of(RED), text_of(BLUE), ""]),
    ],
)
def test_binary_in_arrow_and_base64_in_json_are_the_same_bits(photos):
    expected, bad = of_json({"photo": text_of(RED)}, {"photo": text_of(BLUE)}, {})
    assert not bad
    rows = {name: [event(i)[name] for i in range(3)] for name in event(0) if name != "features"}
    found, bad = decoded(arrow_of(pa.table(rows | {"f_photo": photos})))
    assert not bad
    assert encode_examples(found) == encode_examples(expected)
    assert [len(one) for one in found["f_photo"].to_pylist()] == [SQUARED_BYTES, SQUARED_BYTES, 0]
    if not pa.types.is_dictionary(photos.type) and photos.type in (pa.binary(), pa.string()):
        asked = read_table(arrow_of(pa.table({"photo": photos})), FEATURES, 10, 10**7)
        columns = request_of(asked, FEATURES).columns
        assert columns["f_photo"].to_pylist() == found["f_photo"].to_pylist()


def test_a_page_view_says_its_picture_once():
    page = event(0, photo=text_of(RED)) | {"impressions": [{"id": "a"}, {"id": "b"}]}
    page = {name: value for name, value in page.items() if name != "id"}
    for one in page["impressions"]:
        one["item"] = "x"
    rows, bad = decoded(json.dumps(page).encode())
    assert not bad
    assert rows["f_photo"].to_pylist() == [squared(RED).pixels] * 2


def test_what_is_no_picture_is_quarantined_or_missing_as_declared():
    rows, (bad,) = of_json({"photo": text_of(b"%PDF-1.4")})
    assert (rows, bad.field) == (None, "features.photo")
    assert "begin b'%PDF-1.4'" in bad.reason
    rows, bad = of_json({"cover": text_of(b"%PDF-1.4")})
    assert not bad
    assert rows["f_cover"].to_pylist() == [b""]
    with pytest.raises(BadRequest, match=r"column photo: a string above"):
        read_table(arrow_of(pa.table({"photo": ["A" * 400_000]})), FEATURES, 10, 10**7)


def test_a_missing_picture_is_none_of_the_colours():
    found, places = pixels(pa.array([squared(RED).pixels, b"", squared(RED).pixels, b"x"]))
    assert places.tolist() == [0, 1, 0, 2]
    assert sorted(np.unique(found[0]).tolist()) == [-255, 255]
    assert not found[1:].any()


# --- models


BAGS = (
    {"photo": text_of(RED), "cover": text_of(BLUE)},
    {"photo": text_of(RED)},
    {"cover": text_of(plain("green"))},
    {},
)


@pytest.mark.parametrize("kind", ["mlp", "dlrm", "dcn"])
def test_a_convolution_learns_by_the_gradient_of_the_loss(kind):
    model = make_model(replace(CONFIG.model, kind=kind))
    prepared = gradient.prepare(model, of_json(*BAGS)[0])
    rng, dense = np.random.default_rng(1), model.initial_dense()
    pulled = {
        table: rng.normal(0, 0.3, (len(keys), 4)).astype(np.float32)
        for table, keys in prepared.keys.items()
    }
    computed = gradient.compute(model, prepared, pulled, dense)
    assert not computed.reason
    label = prepared.rows.column("label").to_numpy()

    def loss(name, at, by):
        changed = dense | {name: dense[name].copy()}
        changed[name].reshape(-1)[at] += by
        p = model.kind.predict(prepared.places, pulled, changed, prepared.encoded).astype(float)
        return -np.log(np.where(label > 0, p, 1 - p)).sum()

    for name in ("pictures.0.linear.weight", "pictures.1.linear.weight", "pictures.0.conv0.weight"):
        at = int(np.abs(computed.dense[name]).argmax())
        slope = (loss(name, at, 5e-4) - loss(name, at, -5e-4)) / 1e-3
        assert computed.dense[name].reshape(-1)[at] == pytest.approx(slope, rel=0.05, abs=1e-3)
        assert slope != 0.0


def scorer_of(model, rows):
    prepared = gradient.prepare(model, rows)
    (spec,) = model.spec.tables
    keys = prepared.keys[spec.name]
    weights = np.random.default_rng(2).normal(0, 0.3, (len(keys), spec.dim)).astype(np.float32)
    dense = model.initial_dense()
    computed = gradient.compute(model, prepared, {spec.name: weights}, dense)
    carried = json.loads(json.dumps(model.config.to_dict()))
    return Scorer.from_weights(carried, {spec.name: (keys, weights)}, dense), computed


def test_a_checkpoint_answers_what_was_learned_and_a_picture_changes_it():
    rows, _ = of_json(*BAGS)
    scorer, computed = scorer_of(make_model(CONFIG.model), rows)
    assert scorer.predict(rows).tobytes() == computed.prediction.tobytes()
    other, _ = of_json(*[bag | {"photo": text_of(BLUE)} for bag in BAGS])
    assert (scorer.predict(other) != computed.prediction).all()


BRIGHTNESS = """
import torch
class Brightness(torch.nn.Module):
    def __init__(self, features, dim, numbers, images):
        super().__init__()
        assert (features, dim, numbers, images) == (1, 4, 0, 2)
        self.scale = torch.nn.Parameter(torch.ones(1))
    def forward(self, embeddings, numbers, images):
        return self.scale * images[:, 0].mean(dim=(1, 2, 3))
"""


def test_a_module_of_ones_own_gets_a_tensor(tmp_path, monkeypatch):
    (tmp_path / "seen_by_brightness.py").write_text(BRIGHTNESS)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = make_model(replace(CONFIG.model, kind="seen_by_brightness:Brightness"))
    rows, _ = of_json({"photo": text_of(plain("white"))}, {"photo": text_of(plain("black"))}, {})
    scorer, _ = scorer_of(model, rows)
    answers = scorer.predict(rows)
    assert answers == pytest.approx(1 / (1 + np.exp([-1.0, 1.0, 0.0])))


def test_the_model_says_what_a_picture_added():
    model = make_model(CONFIG.model)
    shard = Shard(0, 1, SlotMap.even(1))
    shard.begin(model.spec, {}, model.initial_dense())
    _, pieces = serving_files(shard.snapshot(model.name))[0]
    tables = ModelTables(model.spec, {})
    tables.apply([decode_serving(b"".join(pieces), model.spec)])
    weights = tables.publish()
    row = {"item": "x", "features": {"photo": text_of(RED)}}
    said = {s.feature: s for s in explain(model, weights.tables, weights.dense, row).shares}
    assert said["photo"].value == "a picture"
    assert said["photo"].log_odds != 0.0
    assert (said["cover"].value, said["cover"].log_odds) == ("none", 0.0)


def test_a_model_without_pictures_is_the_definition_that_it_was():
    config = replace(CONFIG.model, kind="lr", images=())
    assert make_model(config).spec.digest != make_model(CONFIG.model).spec.digest
    assert Encoder(config).encode(of_json({})[0]).images == ()
