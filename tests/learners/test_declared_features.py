"""Every kind of feature is the same bits in training and in serving, and what its rule says
(docs/features.md)."""

import base64
import io
import json
import random
import unicodedata
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from every_kind import CONFIG, DECLARED, TS_MS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kept_state import KeptState
from PIL import Image

from checkpointer.serving import BadRequest
from checkpointer.serving.request import parse
from everspun import loads
from learners.config import NETWORK_KINDS, ModelConfig
from learners.models import Encoder, Scorer, make_model
from learners.training import gradient
from stream import Record
from stream.columns import Feature, pieces
from stream.decoding import decode_impressions
from stream.hashing import NO_KEY, hash_columns, token_hashes
from stream.hashing.text import SEPARATORS
from stream.internal_topics import decode_examples, encode_examples, example_batch

ENCODER = Encoder(CONFIG.model)
ABSENT = object()
#: What a model reads of the two where neither says anything.
COMPONENTS = [float(np.float32(np.log1p(0.5))), 1.0, 0.0, 0.0, 1.0]

_texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        ["", "Toy Story (1995)", "ZOE\u0301 ﬁne—日本語, 2nd", "a\0b", "x" * 1025, "\ud83d", "Å",
         " , ", "ſ", "İstanbul", "١٢", "x1"]
    ),
)  # fmt: skip
_numbers = st.one_of(
    st.floats(-1e3, 1e3),
    st.integers(-5, 200),
    st.sampled_from([float("nan"), float("inf"), 1e39, 3.4028235e38, "1", True, 2**70]),
)
_integers = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**63, 1.5, "7", True, 0]))
_times = st.one_of(
    st.integers(1_500_000_000_000, 1_800_000_000_000), st.sampled_from([0, 1_700_000_000, 1.5, "t"])
)


def base64_of(size, form="PNG", colour="red", mode="RGB"):
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, form)
    return base64.b64encode(out.getvalue()).decode()


_pictures = st.sampled_from(
    ["", base64_of((5, 3)), base64_of((300, 200), "JPEG"), base64_of((64, 64), "WEBP", "blue"),
     base64_of((9, 9), "GIF"), base64_of((40, 2), "PNG", 7, "L"), base64_of((2100, 2000), "PNG", 1),
     base64_of((50, 50), "JPEG")[:400], "aGVsbG8=", "no base64", "é", "\ud83d", 1, ["a"], True]
)  # fmt: skip


def _maybe(values):
    return st.one_of(st.just(ABSENT), st.none(), values)


def _lists(values):
    some = st.lists(st.one_of(values, values, st.none()), max_size=5)
    return _maybe(st.one_of(some, st.lists(values, max_size=5), st.sampled_from(["a", 1, {}])))


features = st.fixed_dictionaries(
    {
        "user": _maybe(_texts),
        "genres": _lists(_texts),
        "genres_weights": _maybe(st.lists(_numbers, max_size=5)),
        "seen": _lists(_integers),
        "title": _maybe(_texts),
        "note": _maybe(_texts),
        "made": _maybe(_times),
        "shelf": _maybe(_integers),
        "brand": _maybe(_texts),
        "price": _maybe(_numbers),
        "stars": _maybe(_numbers),
        "picture": _maybe(st.lists(_numbers, min_size=2, max_size=3)),
        "weight": _maybe(_numbers),
        "year": _maybe(_numbers),
        "quality": _maybe(_numbers),
        "taste": _maybe(st.lists(_numbers, min_size=1, max_size=3)),
        "photo": _maybe(_pictures),
        "cover": _maybe(_pictures),
    }
).map(lambda bag: {name: value for name, value in bag.items() if value is not ABSENT})


def learned(bags, config=CONFIG, ts_ms=TS_MS):
    """The rows of `examples` that a labeler makes of these features; None = one is quarantined."""
    records = [
        Record(i, ts_ms, b"s", json.dumps(_event(i, bag, ts_ms)).encode())
        for i, bag in enumerate(bags)
    ]
    arrived = np.full(len(records), ts_ms)
    impressions, bad = decode_impressions(records, 0, arrived, config.stream)
    if bad:
        return None
    impressions = KEPT.joined(impressions)
    n = len(impressions)
    label = (np.arange(n) % 2).astype(np.int8)
    batch = example_batch(impressions, label, np.full(n, -1), np.ones(n, np.float32))
    return decode_examples(encode_examples(batch))


def _event(i, bag, ts_ms):
    known = {"id": f"i{i}", "ts_ms": ts_ms, "session": "s", "source": "u", "vendor": "v"}
    return known | {"item": f"x{i % 3}", "features": bag}


def kept():
    """Of the source, and of some users."""
    users = ["", "Toy Story (1995)", "Å", "a\0b", "x1"]
    records = [
        Record(i, TS_MS, b"s", json.dumps(_event(i, {"user": user}, TS_MS)).encode())
        for i, user in enumerate(users)
    ]
    rows, _ = decode_impressions(records, 0, np.full(len(records), TS_MS), CONFIG.stream)
    return KeptState(CONFIG, rows, random.Random(4), ("x0", "x1", "x2", "Å"))


def asked(bag):
    """The columns of a request for the same, as rows, as columns, and as a context."""
    row = {"source": "u", "vendor": "v", "item": "x0", "ts_ms": TS_MS}
    columns = {name: [value] for name, value in (row | bag).items()}
    bodies = ({"rows": [row | {"features": bag}]}, {"columns": columns},
              {"context": row | {"features": bag}, "rows": [{}]})  # fmt: skip
    encoder = ENCODER
    return [
        KEPT.filled(parse(json.dumps(body).encode(), encoder.features, 10, True).columns)
        for body in bodies
    ]


KEPT = kept()


def bits(encoded):
    bags = [(b.ends.tobytes(), b.keys.tobytes(), b.weights.tobytes()) for b in encoded.bags]
    pictures = [one.pixels[one.places].tobytes() for one in encoded.images]
    return encoded.keys.tobytes(), encoded.numbers.tobytes(), bags, pictures, dict(encoded.clipped)


@pytest.mark.long
@settings(max_examples=settings.default.max_examples * 6, deadline=None)
@given(features)
@example({})
@example({"genres": ["a", "b"], "genres_weights": [1, 2]})
@example({"genres": ["a", "b"], "genres_weights": [1]})
@example({"genres": ["a"], "genres_weights": [float("nan")]})
@example({"genres": ["a"] * 1_025})
@example({"seen": [1, 2, 2]})
@example({"title": "a " * 1_000_000})
@example({"picture": [1, 2, 3, 4]})
@example({"picture": []})
def test_a_row_is_the_same_bits_in_training_and_in_serving(bag):
    row = learned([bag])
    if row is None:
        with pytest.raises(BadRequest):
            asked(bag)
        return
    mine = bits(ENCODER.encode(row))
    for columns in asked(bag):
        assert bits(ENCODER.encode(columns, serving=True)) == mine


@settings(max_examples=settings.default.max_examples * 60 // 100, deadline=None)
@given(st.lists(features, min_size=2, max_size=12))
def test_a_row_is_the_same_bits_whatever_stands_beside_it(bags):
    good = [bag for bag in bags if learned([bag]) is not None]
    if not good:
        return
    together = ENCODER.encode(learned(good))
    for i in range(len(good)):
        alone = ENCODER.encode(learned(good).slice(i, 1))
        assert bits(together.take(np.array([i])))[:4] == bits(alone)[:4]


# --- what the rules say


#: The one character of Unicode whose full lower case is longer than its simple one.
SIMPLE = {"\u0130": "i"}


def words_of(text):
    """docs/features.md, letter by letter."""
    text = unicodedata.normalize("NFKC", text)
    out, word = [], ""
    for one in "".join(SIMPLE.get(c, c.lower()) for c in text) + " ":
        code = ord(one)
        is_part = one.isalnum() if code < 128 else not any(a <= code <= b for a, b in SEPARATORS)
        if is_part:
            word += one
        elif word:
            out.append(word)
            word = ""
    return out


def tokens_of(text, feature):
    words = words_of(text)
    if "digits" in feature.steps:
        words = ["".join("0" if c in "0123456789" else c for c in word) for word in words]
    if feature.tokens == "characters":
        line = " " + " ".join(words) + " "
        n = feature.characters
        found = [line[i : i + n] for i in range(max(1, len(line) - n + 1))] if words else []
    elif feature.tokens == "pairs":
        found = words[:1]
        for a, b in pairwise(words):
            found += [b, f"{a} {b}"]
    else:
        found = words
    return found[: feature.max_tokens] or [""]


TEXTS = ["", "...", "The Usual Suspects (1995)", "œuvre d’Été 日本 2,5 €"]
#: Assigned characters: of others libraries' tables say what they like (Arrow lowers U+058B).
any_text = st.text(
    st.characters(exclude_categories=["Cs", "Cn"], max_codepoint=0x2FFF), max_size=30
)


@pytest.mark.parametrize(
    "feature",
    [
        Feature("text"),
        Feature("text", tokens="pairs", max_tokens=4),
        Feature("text", tokens="characters", characters=4, normalise=("nfkc", "lower", "digits")),
    ],
)
@settings(max_examples=settings.default.max_examples * 2, deadline=None)
@given(texts=st.lists(st.one_of(any_text, st.sampled_from(TEXTS)), min_size=1))
def test_tokens_are_what_the_documented_rule_gives(feature, texts):
    keys, ends = token_hashes(pa.array(texts), feature, NO_KEY)
    for i, text in enumerate(texts):
        expected = tokens_of(text, feature)
        hashed = hash_columns([pa.array(expected)], [NO_KEY])[:, 0]
        assert keys[ends[i] : ends[i + 1]].tolist() == hashed.tolist(), expected


def encoded(bag):
    return ENCODER.encode(learned([bag]))


def key_of(name, value):
    return int(hash_columns([pa.array([value])], [ENCODER.key_of(name)])[0, 0])


def test_values_become_what_they_are_declared_to():
    found = encoded(
        {"genres": ["X1", "b", "c", "beyond"], "genres_weights": [3, 4, 0, 9], "shelf": 7,
         "price": 10, "stars": 2, "picture": [1, 50, -3], "made": TS_MS - 5_000, "brand": "ＡＢ"}
    )  # fmt: skip
    names = CONFIG.model.categorical
    genres = found.bags[0]
    assert genres.keys.tolist() == [key_of("item", v) for v in ("x1", "b", "c")]
    assert genres.weights.tolist() == pytest.approx([0.6, 0.8, 0.0])
    for name, value in (("shelf", "7"), ("price", "3"), ("made", "3"), ("brand", "ab")):
        assert found.keys[0, names.index(name)] == key_of(name, value)
    assert found.numbers[0, :12].tolist() == [1.0, 0.5, 0.0, 1.0, 10.0, -3.0, *COMPONENTS, -1.0]
    assert found.clipped == {"picture": 1}


def test_missing_values_are_what_they_are_declared_to_be():
    found = encoded({})
    names = CONFIG.model.categorical
    assert found.keys[0, names.index("shelf")] == key_of("shelf", "none")
    assert found.keys[0, names.index("price")] == key_of("price", "")
    assert [bag.keys.tolist() for bag in found.bags[:2]] == [
        [key_of("item", "")],
        [key_of("seen", "")],
    ]
    bags = zip(CONFIG.model.bags, found.bags, strict=True)
    kept = {"clicked", "lately"}  # by the pipeline, as the last number: nothing sends them
    sent = [bag for f, bag in bags if not kept & set(names[f].split("*"))]
    assert [bag.weights.tolist() for bag in sent] == [[1.0]] * len(sent)
    assert found.numbers[0, :12].tolist() == [1.0, 0.75, 0.0, 0.0, 0.0, 0.0, *COMPONENTS, -1.0]
    assert np.isnan(found.numbers[0, 12:-1]).all()  # until it is known what was shown


def test_a_component_says_whether_it_says_anything():
    found = encoded({"quality": 0.0, "taste": [0.25, 7]})
    assert found.numbers[0, 6:11].tolist() == [0.0, 0.0, 0.25, 1.0, 0.0]
    assert CONFIG.model.number_names[6:11] == (
        "quality", "quality missing", "taste[0]", "taste[1]", "taste missing",
    )  # fmt: skip
    assert encoded({}).numbers[0, 6:11].tolist() == COMPONENTS


def test_pieces_go_from_0_to_1_each_in_its_own_range():
    found = pieces(np.array([-1, 0, 2, 5, 9], np.float32), (0, 1, 3, 5))
    expected = [[0, 0, 0], [0, 0, 0], [1, 0.5, 0], [1, 1, 1], [1, 1, 1]]
    assert found.tolist() == expected


def test_a_record_from_before_a_feature_has_its_missing_value():
    row = learned([{"genres": ["a"], "title": "t"}])
    gone = ["genres", "genres_weights", "title", "picture", "made", "photo"]
    before = row.drop_columns([f"f_{name}" for name in gone])
    found = ENCODER.encode(before)
    assert bits(found)[:4] == bits(encoded({}))[:4]
    assert set(found.filled) == set(gone)


# --- models


BAGS = [
    {"genres": ["a", "b", "b"], "genres_weights": [1, 2.5, -1], "title": "Toy Story 2", "seen": [1],
     "picture": [0.1, 0.2, 0.3], "stars": 1.5, "shelf": 3, "price": 5,
     "photo": base64_of((5, 3)), "cover": base64_of((9, 9), "GIF", "blue")},
    {"user": "x1"},
    {"genres": ["x0", "x1"], "title": "story", "note": "abc", "brand": "B"},
    {"genres": ["x2"], "title": "a toy", "seen": [1, 2, 3], "picture": [-0.5, 0, 1]},
]  # fmt: skip


def of_kind(kind, **more):
    if kind in NETWORK_KINDS:
        return replace(CONFIG.model, kind=kind, hidden=(4,), **more)
    plain = CONFIG.model.declared | {"seen": {"kind": "list", "type": "integer", "pool": "sum"}}
    plain["clicked"] = {"kind": "sequence", "by": "source", "of": "item", "shares": "item"}
    return replace(CONFIG.model, kind=kind, images=(), declared=plain, **more)


@pytest.mark.parametrize("groups", [{}, {"films": {"features": ["genres", "item", "clicked"]}}])
@pytest.mark.parametrize("kind", ["lr", "fm", "mlp", "dlrm", "dcn"])
def test_the_gradient_of_every_kind_is_that_of_its_loss(kind, groups):
    rows = learned(BAGS)
    model = make_model(of_kind(kind, groups=groups))
    prepared = gradient.prepare(model, rows)
    rng, dense = np.random.default_rng(1), model.initial_dense()
    pulled = {
        t.name: rng.normal(0, 0.2, (len(prepared.keys[t.name]), t.dim)).astype(np.float32)
        for t in model.spec.tables
    }
    computed = gradient.compute(model, prepared, pulled, dense)
    assert not computed.reason
    label = rows.column("label").to_numpy()

    def loss(table, row, column, by):
        changed = {name: array.copy() for name, array in pulled.items()}
        changed[table][row, column] += by
        p = model.kind.predict(prepared.places, changed, dense, prepared.encoded).astype(float)
        return -np.log(np.where(label > 0, p, 1 - p)).sum()

    for table, found in computed.gradients.items():
        for row in range(len(found)):
            slope = (loss(table, row, 0, 2e-3) - loss(table, row, 0, -2e-3)) / 4e-3
            assert found[row, 0] == pytest.approx(slope, abs=4e-3)


@pytest.mark.parametrize("kind", ["lr", "fm", "dlrm"])
def test_a_checkpoint_is_read_by_the_declarations_that_it_carries(kind):
    model = make_model(of_kind(kind))
    rows = learned(BAGS)
    prepared = gradient.prepare(model, rows)
    (table,) = model.spec.tables
    weights = np.random.default_rng(2).normal(0, 0.3, (len(prepared.keys[table.name]), table.dim))
    pulled = {table.name: weights.astype(np.float32)}
    dense = model.initial_dense()
    computed = gradient.compute(model, prepared, pulled, dense)
    carried = json.loads(json.dumps(model.config.to_dict()))
    tables = {table.name: (prepared.keys[table.name], pulled[table.name])}
    scorer = Scorer.from_weights(carried, tables, dense)
    assert scorer.model.spec.digest == model.spec.digest
    assert scorer.predict(rows).tobytes() == computed.prediction.tobytes()


def test_whose_a_feature_is_changes_no_model_and_what_it_is_does():
    def digest(text):
        return make_model(loads(DECLARED.replace(*text)).model).spec.digest

    same = digest(("[features.seen]", '[features.seen]\nowner = "films"\ndoc = "What was seen"'))
    assert same == make_model(CONFIG.model).spec.digest
    assert digest(('pool = "sqrt"', 'pool = "sum"')) != same


def test_a_bad_value_is_quarantined_with_field_value_and_fix():
    for bag, field, said in (
        ({"genres": "a"}, "features.genres", "send a list of strings"),
        ({"title": ["a"]}, "features.title", "send one string, or declare it a list"),
        ({"picture": [1, 2]}, "features.picture", "has 2 numbers; it is declared of width 3"),
        ({"genres": ["a"], "genres_weights": [1, 2]}, "features.genres_weights", "one for each"),
        ({"shelf": "7"}, "features.shelf", "without quotes"),
        ({"title": "a " * 500_000}, "features.title", "allowed are 16384"),
        ({"genres": [None]}, "features.genres[0]", "is null"),
        ({"photo": "aGVsbG8="}, "features.photo", "b'hello'; send a JPEG"),
        ({"photo": "http://a"}, "features.photo", "is b'http://a', no base64 of a picture"),
        ({"photo": base64_of((2100, 2000))}, "features.photo", "has 2100 x 2000 pixels; allowed"),
    ):
        record = Record(0, TS_MS, b"s", json.dumps(_event(0, bag, TS_MS)).encode())
        rows, (bad,) = decode_impressions([record], 0, np.array([TS_MS]), CONFIG.stream)
        assert (len(rows), bad.field) == (0, field)
        assert said in bad.reason


def test_a_short_form_alone_is_what_it_was():
    plain = ModelConfig(categorical=("source", "item"))
    assert Encoder(plain).is_plain
    assert not ENCODER.is_plain
