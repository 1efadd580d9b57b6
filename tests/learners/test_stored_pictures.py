"""Pictures by the hash of their content, in a store (docs/features.md)."""

import hashlib
import io
import json
import os
import threading
import time
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from checkpointer.serving import BadRequest
from checkpointer.serving.request import parse
from everspun import loads
from everspun.config import ConfigError
from learners.models import Encoder, make_model
from stream import Record
from stream.columns import PictureStore, picture_store, squared
from stream.columns import pictures as pictures_of_files
from stream.decoding import decode_impressions
from stream.internal_topics import decode_examples, encode_examples, example_batch
from stream.monitoring import TimeLimit

TS_MS = 1_700_000_000_000


def file_of(colour):
    out = io.BytesIO()
    Image.new("RGB", (9, 5), colour).save(out, "PNG")
    return out.getvalue()


RED = file_of("red")


def digest_of(file):
    return hashlib.sha256(file).hexdigest()


def config_of(store):
    return loads(f"""
[stream]
partitions = 1
[features.photo]
kind = "image"
store = "{store}"
[model]
kind = "mlp"
dim = 2
categorical = ["item"]
images = ["photo"]
""")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(Encoder, "open_store", PictureStore)
    (tmp_path / digest_of(RED)).write_bytes(RED)
    return tmp_path


def rows_of(config, *photos):
    event = {"ts_ms": TS_MS, "session": "s", "source": "u", "vendor": "v", "item": "x"}
    records = [
        Record(i, TS_MS, b"s",
               json.dumps(event | {"id": f"i{i}", "features": {"photo": photo}}).encode())
        for i, photo in enumerate(photos)
    ]  # fmt: skip
    rows, bad = decode_impressions(records, 0, np.full(len(records), TS_MS), config.stream)
    n = len(rows)
    batch = example_batch(rows, np.zeros(n, np.int8), np.full(n, -1), np.ones(n, np.float32))
    return decode_examples(encode_examples(batch)) if n else None, bad


def seen(encoded):
    (one,) = encoded.images
    return one.pixels[one.places]


def test_an_event_names_a_file_and_training_and_serving_see_it(store):
    config = config_of(store)
    other, absent = digest_of(b"other"), digest_of(b"absent")
    (store / other).write_bytes(b"not what its name says")
    rows, bad = rows_of(config, digest_of(RED), None, absent, other, digest_of(RED))
    assert not bad
    assert rows["f_photo"].to_pylist()[:2] == [digest_of(RED), ""]
    found = seen(Encoder(config.model).encode(rows))
    assert (found[0] == found[4]).all()
    assert found[0, 0].min() == 255
    assert not found[1:4].any()
    body = json.dumps({"rows": [{"features": {"photo": digest_of(RED)}}, {}]}).encode()
    encoder = Encoder(config.model)
    asked = parse(body, encoder.features, 10).columns
    assert seen(encoder.encode(asked, serving=True)).tobytes() == found[:2].tobytes()


@pytest.mark.parametrize(
    "photo",
    [
        "https://shop.example/a.png",
        digest_of(RED) + "\n",
        "../../etc/passwd",
        digest_of(RED).upper(),
        5,
        "é",
    ],
)
def test_an_address_is_refused_and_nothing_is_fetched(store, photo):
    config = config_of(store)
    rows, (bad,) = rows_of(config, photo)
    assert (rows, bad.field) == (None, "features.photo")
    assert "SHA-256" in bad.reason or "string" in bad.reason
    body = json.dumps({"rows": [{"features": {"photo": photo}}]}).encode()
    with pytest.raises(BadRequest):
        parse(body, Encoder(config.model).features, 10)


def test_who_learns_waits_for_a_store_that_is_away(store, monkeypatch):
    pictures = PictureStore(str(store))
    read, failures = pictures._files.cat_file, [OSError("away"), TimeoutError("slow")]

    def cat_file(path, **limits):
        if failures:
            raise failures.pop()
        return read(path, **limits)

    monkeypatch.setattr(picture_store, "PAUSE_MS", 1)
    monkeypatch.setattr(pictures._files, "cat_file", cat_file)
    assert pictures.squares([digest_of(RED)], waits=True) == [squared(RED).pixels]
    assert not failures


def test_what_no_waiting_makes_readable_counts_as_missing(store):
    """Read again for ever, they stopped training."""
    folder, circle, absent = (digest_of(name) for name in (b"folder", b"circle", b"absent"))
    (store / folder).mkdir()
    (store / circle).symlink_to(circle)
    pictures = PictureStore(str(store))
    assert pictures.squares([folder, circle, absent], waits=True) == [b"", b"", b""]
    assert pictures.absent == 3


@pytest.mark.parametrize("error", [PermissionError(13, "403"), OSError(5, "bad sector")])
def test_one_file_that_stays_unreadable_counts_as_missing(store, monkeypatch, error):
    """Also where a store says that of files that are not there, as S3 does to who may not list."""
    pictures, asked = PictureStore(str(store)), []
    read = pictures._files.cat_file

    def cat_file(path, **limits):
        asked.append(path)
        if not path.endswith(digest_of(RED)):
            raise error
        return read(path, **limits)

    monkeypatch.setattr(picture_store, "PAUSE_MS", 1)
    monkeypatch.setattr(picture_store, "ALONE_S", 0.01)
    monkeypatch.setattr(pictures._files, "cat_file", cat_file)
    one = digest_of(b"one")
    assert pictures.squares([one, digest_of(RED)], waits=True) == [b"", squared(RED).pixels]
    assert asked.count(asked[0]) > 2


def test_a_store_that_gives_nothing_is_waited_for(store, monkeypatch):
    """Whatever it says: credentials have run out, its folder is a link to itself."""
    pictures = PictureStore(str(store))
    read = pictures._files.cat_file
    failures = [PermissionError(13, "403"), OSError(40, "a link to itself")] * 20

    def cat_file(path, **limits):
        if failures:
            raise failures.pop()
        return read(path, **limits)

    monkeypatch.setattr(picture_store, "PAUSE_MS", 1)
    monkeypatch.setattr(picture_store, "PAUSE_MAX_MS", 1)
    monkeypatch.setattr(picture_store, "ALONE_S", 0.0)
    monkeypatch.setattr(pictures._files, "cat_file", cat_file)
    assert pictures.squares([digest_of(RED)], waits=True) == [squared(RED).pixels]
    assert not failures


def test_an_answer_waits_for_no_store_and_the_next_one_has_the_picture(store, monkeypatch):
    pictures, goes_on = PictureStore(str(store)), threading.Event()
    read = pictures._files.cat_file

    def cat_file(path, **limits):
        goes_on.wait(60)
        return read(path, **limits)

    monkeypatch.setattr(pictures._files, "cat_file", cat_file)
    assert pictures.squares([digest_of(RED)], waits=False) == [b""]
    under_way = pictures._reads[digest_of(RED)]
    assert pictures.squares([digest_of(RED)], waits=False) == [b""]  # no second read
    assert pictures._reads == {digest_of(RED): under_way}
    goes_on.set()
    assert under_way.result(60) == squared(RED).pixels
    assert pictures.squares([digest_of(RED)], waits=False) == [squared(RED).pixels]


def test_an_answer_waits_once_for_all_its_pictures(store, monkeypatch):
    pictures, goes_on, began = PictureStore(str(store)), threading.Event(), []

    def cat_file(path, **limits):
        began.append(path)
        goes_on.wait(60)
        raise FileNotFoundError

    monkeypatch.setattr(picture_store, "ANSWER_S", 0.02)
    monkeypatch.setattr(pictures._files, "cat_file", cat_file)
    waited, result = [], Future.result
    monkeypatch.setattr(
        Future, "result", lambda self, timeout: waited.append(timeout) or result(self, timeout)
    )
    names = [digest_of(b"%d" % i) for i in range(100)]
    assert pictures.squares([*names, "", names[0]], waits=False) == [b""] * 102
    assert len(pictures._reads) == picture_store.READS_MAX
    assert sorted(waited, reverse=True)[1] == 0, "one wait was as long as it may be"
    goes_on.set()


def come(pictures, digest):
    """The picture, of the first answer that has it."""
    limit = TimeLimit(60)
    while not limit.over:
        (found,) = pictures.squares([digest], waits=False)
        if found:
            return found
    raise AssertionError("it did not come")


def hung(pictures, monkeypatch, count):
    """The store gives no answer for the next `count` files, until what is returned is set."""
    read, goes_on, hanging = pictures._files.cat_file, threading.Event(), list(range(count))

    def cat_file(path, **limits):
        if hanging:
            hanging.pop()
            goes_on.wait()
            raise TimeoutError
        return read(path, **limits)

    monkeypatch.setattr(pictures._files, "cat_file", cat_file)
    for i in range(count):
        assert pictures.squares([digest_of(b"%d" % i)], waits=False) == [b""]
    limit = TimeLimit(60)
    while hanging and not limit.over:
        time.sleep(0.01)
    assert not hanging
    return goes_on


def test_answers_that_are_lost_hold_up_no_other_picture(store, monkeypatch):
    pictures = PictureStore(str(store))
    goes_on = hung(pictures, monkeypatch, 5)
    assert come(pictures, digest_of(RED)) == squared(RED).pixels
    goes_on.set()


def test_a_picture_whose_answer_is_lost_is_read_again_on_a_bounded_number_of_threads(
    store, monkeypatch
):
    monkeypatch.setattr(picture_store, "READ_S", 0.0)
    monkeypatch.setattr(picture_store, "THREADS_MAX", 3)
    pictures = PictureStore(str(store))
    goes_on = hung(pictures, monkeypatch, 3)
    left = list(pictures._threads)
    assert len(left) == 3
    assert pictures.squares([digest_of(RED)], waits=False) == [b""]
    assert pictures._threads == set(left)
    goes_on.set()
    monkeypatch.setattr(picture_store, "READ_S", 60.0)
    assert come(pictures, digest_of(RED)) == squared(RED).pixels


def test_a_forked_process_reads_pictures(store, monkeypatch):
    pictures = PictureStore(str(store))
    goes_on = hung(pictures, monkeypatch, 4)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if come(pictures, digest_of(RED)) == squared(RED).pixels else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    goes_on.set()


def test_whatever_a_driver_raises_is_a_store_that_is_away(store, monkeypatch):
    pictures = PictureStore(str(store))
    read, failures = pictures._files.cat_file, [RuntimeError("403"), KeyError("status")]

    def cat_file(path, **limits):
        if failures:
            raise failures.pop()
        return read(path, **limits)

    monkeypatch.setattr(picture_store, "PAUSE_MS", 1)
    monkeypatch.setattr(pictures._files, "cat_file", cat_file)
    assert pictures.squares([digest_of(RED)], waits=False) == [b""]
    assert pictures.squares([digest_of(RED)], waits=True) == [squared(RED).pixels]
    assert not failures


def test_a_stored_file_has_the_limit_of_one_that_is_sent(store, monkeypatch):
    monkeypatch.setattr(pictures_of_files, "WORK_MAX", 1_000)
    pictures = PictureStore(str(store))
    assert pictures.squares([digest_of(RED)], waits=True) == [b""]
    assert pictures.absent == 1


def test_what_is_held_is_bounded(store, monkeypatch):
    monkeypatch.setattr(picture_store, "CACHED_MAX", 3)
    pictures = PictureStore(str(store))
    for level in range(5):
        file = file_of((level, 0, 0))
        (store / digest_of(file)).write_bytes(file)
        assert pictures.squares([digest_of(file)], waits=True) != [b""]
    assert len(pictures._held) == 3
    large = RED + bytes(1 << 20)
    (store / digest_of(large)).write_bytes(large)
    assert pictures.squares([digest_of(large)], waits=True) == [b""]
    assert pictures.absent == 1


def test_where_a_store_is_changes_no_model_and_whether_there_is_one_does(store):
    def digest(text):
        config = config_of(text)
        if not text:
            declared = {"photo": {"kind": "image"}}
            return make_model(replace(config.model, declared=declared)).spec.digest
        return make_model(config.model).spec.digest

    assert digest("/a") == digest("memory://b") != digest("")


def test_a_declaration_that_cannot_be_is_named(monkeypatch):
    with pytest.raises(ConfigError, match="a picture of a store is missing where it is none"):
        loads('[features.a]\nkind = "image"\nstore = "/a"\nunreadable = "missing"')
    monkeypatch.setattr(Encoder, "open_store", None)
    config = config_of("/a")
    with pytest.raises(ValueError, match=r"features.photo.store: nothing here opens '/a'"):
        Encoder(config.model).encode(rows_of(config, digest_of(RED))[0])
