"""A row is the same numbers to a model, bit for bit, whether it is learned or asked about
(docs/models.md)."""

import http.client
import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from checkpointer.serving import BadRequest, Replica, ReplicaServer, ServedModel, of_rows, rehearse
from checkpointer.serving.answer import Values
from checkpointer.serving.request import parse
from checkpointer.serving.request_decoder import RequestDecoder
from checkpointer.serving.serving import answers_of
from checkpointer.store import Evaluation, Manifest
from checkpointer.tables import ModelTables
from learners.config import ModelConfig
from learners.models import (
    Encoded,
    Encoder,
    Model,
    Scorer,
    TextEncoder,
    clip,
    feature_key,
    make_model,
    unique_keys,
)
from paramserver import SLOTS, Progress
from paramserver.parts import ServingPart
from stream import Record, StreamConfig
from stream.decoding import decode_impressions
from stream.internal_topics import decode_examples, encode_examples, example_batch

STREAM = StreamConfig(
    partitions=1, categorical_features=("user", "shop"), numeric_features=("price", "age")
)
ENCODER = Encoder(
    ModelConfig(
        categorical=("source", "vendor", "item", "user", "shop", "user*item"),
        numeric=("price", "age", "shown_at"),
        transforms={"price": "log1p"},
        missing={"price": 7.5, "age": -0.0},
        bounds={"age": [-3, 150], "shown_at": [-1, 2**31]},
    )
)
PLACES = Encoder(ModelConfig(categorical=("item", "shown_at"), numeric=("price",)))
TS_MS = 1_700_000_000_000
ABSENT = object()

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(
        [
            "",
            "\0",
            "zoé",
            "zoe\u0301",
            "\u00e9" * 512,
            "x" * 1025,
            "😀" * 256,
            "null",
            "NaN",
            "-1",
            "\u2028",
            "\ud83d",
            "a\udc00",
        ]
    ),
)
numbers = st.one_of(
    st.floats(allow_infinity=False),
    st.floats(width=32, allow_infinity=False),
    st.integers(-(2**80), 2**80),
    st.sampled_from(
        [
            math.inf,
            -math.inf,
            math.nan,
            0.0,
            -0.0,
            5e-324,
            1e-46,
            2**24 + 1,
            2**53 + 1,
            1e6,
            -1e6,
            1_000_001,
            3.4028235e38,
            3.4028236e38,
            1e39,
            1e30,
        ]
    ),
)
wrong = st.sampled_from([True, "12", [1], {}])
optional_text = st.one_of(st.just(ABSENT), st.none(), texts, st.sampled_from([1, 2.5, True]))
optional_number = st.one_of(st.just(ABSENT), st.none(), numbers, wrong)
positions = st.one_of(
    st.just(ABSENT),
    st.none(),
    st.integers(-2, 2**31),
    st.sampled_from([0, 2**31 - 1, 2**31, True, "3"]),
)


def without_absent(**values):
    return {name: value for name, value in values.items() if value is not ABSENT}


events = st.builds(
    lambda source, vendor, item, position, user, shop, price, age, bag: without_absent(
        source=source,
        vendor=vendor,
        item=item,
        position=position,
        features=without_absent(user=user, shop=shop, price=price, age=age) if bag else ABSENT,
    ),
    texts,
    texts,
    texts,
    positions,
    optional_text,
    optional_text,
    optional_number,
    optional_number,
    st.booleans(),
)


def learned(event: dict) -> pa.RecordBatch | None:
    """The row of `examples` that a labeler makes of it; None = it is quarantined."""
    body = {"id": "i", "ts_ms": TS_MS, "session": "s", **event}
    record = Record(0, TS_MS, b"s", json.dumps(body).encode())
    impressions, _ = decode_impressions([record], 0, np.array([TS_MS]), STREAM)
    if not len(impressions):
        return None
    batch = example_batch(impressions, np.zeros(1, np.int8), np.full(1, -1), np.ones(1, np.float32))
    return decode_examples(encode_examples(batch))


def asked(event: dict, encoder: Encoder) -> list[pa.Table]:
    """The columns of a request for it, as rows and as columns. Raises BadRequest."""
    bag = event.get("features") or {}
    flat = {**{name: value for name, value in event.items() if name != "features"}, **bag}
    bodies = ({"rows": [event]}, {"columns": {name: [value] for name, value in flat.items()}})
    return [parse(json.dumps(body).encode(), encoder.features, 10).columns for body in bodies]


def in_context(event: dict) -> dict:
    """A request for it whose source, user and price all rows share."""
    bag = event.get("features") or {}
    shared = {name: bag[name] for name in ("user", "price") if name in bag}
    own = {name: value for name, value in bag.items() if name not in shared}
    context = {name: event[name] for name in ("source", "position") if name in event}
    rest = {n: v for n, v in event.items() if n not in (*context, "features")}
    return {"context": {**context, "features": shared}, "rows": [{**rest, "features": own}] * 2}


def typed(event: dict, encoder: Encoder) -> list[Encoded]:
    """What the answering path makes of requests for it, in every form, each of equal rows. Raises
    BadRequest."""
    bag = event.get("features") or {}
    flat = {**{name: value for name, value in event.items() if name != "features"}, **bag}
    columns = {name: [value] * 2 for name, value in flat.items()}
    unknown = {**event, "features": {**bag, "size": 1}}
    texts = TextEncoder(encoder)
    decoder = RequestDecoder(texts)
    bodies = [{"rows": [event, event]}, {"columns": columns}, in_context(event)]
    bodies.append({"rows": [unknown] * 2})
    decoded = [decoder.decode(json.dumps(body).encode(), 10) for body in bodies]
    assert "size" in decoded[-1].ignored
    return [encoded(texts, one.values) for one in decoded]


def encoded(texts: TextEncoder, values: Values) -> Encoded:
    """By the kernel of `checkpointer.serving.answer`, without its tables."""
    parts, given = texts.parts, values.parts[1:]
    assert (given[:, ~values.own] == values.parts[0, ~values.own]).all()
    features = list(zip(parts.first, parts.second, parts.seeds, strict=True))
    keys = [[feature_key(row, *feature) for feature in features] for row in given]
    return Encoded(np.array(keys, np.uint64), texts.numbers(values.numbers))


@pytest.mark.long
@settings(max_examples=settings.default.max_examples * 15, deadline=None)
@given(events)
@example({"source": "", "vendor": "", "item": "i"})
@example({"source": "\ud83d", "vendor": "v", "item": "i"})
@example({"source": "u", "vendor": "v", "item": "i", "features": {"user": "\ud83d"}})
@example({"source": "u", "vendor": "v", "item": "i", "features": {"price": math.inf}})
@example({"source": "u", "vendor": "v", "item": "i", "features": {"price": math.nan}})
@example(
    {
        "source": "a",
        "vendor": "v",
        "item": "i",
        "position": None,
        "features": {"price": None, "age": 1e30},
    }
)
def test_a_row_is_the_same_bits_in_training_and_in_serving(event):
    row = learned(event)
    if row is None:
        with pytest.raises(BadRequest):
            asked(event, ENCODER)
        return
    for encoder in (ENCODER, PLACES):
        for columns in asked(event, encoder):
            mine, theirs = encoder.encode(row), encoder.encode(columns, serving=True)
            assert mine.keys.tobytes() == theirs.keys.tobytes()
            assert mine.numbers.tobytes() == theirs.numbers.tobytes()
            assert mine.clipped == theirs.clipped


KINDS = ("lr", "fm")
SERVED = ModelConfig(
    name="m",
    kind="lr",
    categorical=("source", "vendor", "item", "user", "shop", "user*item"),
    numeric=("price", "age", "shown_at"),
    transforms={"price": "log1p"},
    missing={"price": 7.5, "age": -0.0},
    bounds={"age": [-3, 150], "shown_at": [-1, 2**31]},
)


def served_of(model: Model, rows: list[pa.RecordBatch]) -> ServedModel:
    """A checkpoint that knows every value of these rows, each with a weight of its own."""
    rng = np.random.default_rng(5)
    found = [model.kind.keys(model.encoder.encode(row)) for row in rows]
    tables = {}
    for table in model.spec.tables:
        keys = np.unique(
            np.concatenate([np.zeros(0, np.uint64), *(k[table.name] for k in found)], axis=None)
        )
        tables[table.name] = (keys, rng.normal(size=(len(keys), table.dim)).astype(np.float32))
    shapes = model.spec.dense.shapes.items()
    dense = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes}
    slots = np.arange(SLOTS, dtype=np.int32)
    held = ModelTables(model.spec, {})
    held.apply([ServingPart("m", model.spec.digest, 0, slots, Progress({}, {}), tables, dense)])
    weights = held.publish()
    manifest = Manifest(
        model="m", number=1, cut="c", spec=model.spec, model_config=model.config.to_dict(),
        chains={}, next_record={}, event_time_max_ms=1, created_ms=1, evaluation=Evaluation(),
        parent=None, code_version="0", parts=(),
    )  # fmt: skip
    scorer = Scorer(model, weights.tables, weights.dense)
    return ServedModel(manifest, weights, scorer, held, "", answers_of(scorer, None))


def trained(served: ServedModel, row: pa.RecordBatch) -> np.ndarray:
    """What the learner says of a row of `examples` with these weights, (1,)."""
    model, scorer = served.scorer.model, served.scorer
    encoded, places, rows = model.encoder.encode(row), {}, {}
    for name, keys in model.kind.keys(encoded).items():
        distinct, places[name] = unique_keys(keys)
        rows[name] = scorer.tables[name].lookup(distinct)
    return clip(model.kind.predict(places, rows, scorer.dense, encoded))


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory):
    """A replica and its HTTP server; tests say what it serves. What they need is compiled before
    a request waits for it."""
    for kind in KINDS:
        model = make_model(replace(SERVED, kind=kind))
        rehearse(model.spec, model.config.to_dict())
    made = Replica(str(tmp_path_factory.mktemp("store")), "m")
    with ReplicaServer(made, made.config, 0) as server:
        yield made, server


def over_http(port: int, body: dict) -> tuple[int, list[float]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", "/predict", json.dumps(body).encode())
        reply = connection.getresponse()
        said = json.loads(reply.read())
        return reply.status, said.get("probabilities", [])
    finally:
        connection.close()


@settings(max_examples=max(5, settings.default.max_examples // 5), deadline=None)
@given(st.lists(events, min_size=4, max_size=12), st.sampled_from(KINDS))
def test_a_replica_and_the_gates_answer_with_the_bits_of_training(replica, drawn, kind):
    """What the learner makes of a row of `examples`, what the gates make of a golden row, and what
    a replica answers over HTTP, to rows and to columns."""
    serving, server = replica
    model = make_model(replace(SERVED, kind=kind))
    rows = [learned(event) for event in drawn]
    served = serving.served = served_of(model, [row for row in rows if row is not None])
    for event, row in zip(drawn, rows, strict=True):
        bag = event.get("features") or {}
        flat = {**{name: value for name, value in event.items() if name != "features"}, **bag}
        bodies = [{"rows": [event]}, {"columns": {name: [value] for name, value in flat.items()}}]
        if row is None:
            with pytest.raises(BadRequest):
                of_rows([event], served.features)
            assert [over_http(server.port, body)[0] for body in bodies] == [400, 400]
            continue
        said = trained(served, row)
        golden = served.predict(of_rows([event], served.features).columns)
        assert golden.tobytes() == said.tobytes()
        for body in bodies:
            status, answered = over_http(server.port, body)
            assert status == 200
            assert np.array(answered, np.float32).tobytes() == said.tobytes()


@settings(max_examples=settings.default.max_examples // 2, deadline=None)
@given(st.lists(st.floats(width=32, allow_infinity=False), min_size=1, max_size=40), st.data())
def test_a_row_is_the_same_bits_whatever_stands_beside_it(values, data):
    """A vector unit must not make of a row in a long column what it does not make of it alone."""
    at = data.draw(st.integers(0, len(values) - 1))

    def encoded(prices):
        count = len(prices)
        rows = pa.record_batch(
            {
                "item": ["i"] * count,
                "f_price": pa.array(prices, pa.float32()),
                "shown_at": pa.array([0] * count, pa.int32()),
            }
        )
        return PLACES.encode(rows)

    assert encoded(values).numbers[at].tobytes() == encoded([values[at]]).numbers[0].tobytes()


def test_a_missing_position_is_no_position():
    row, (asked_for, _) = (
        learned({"source": "u", "vendor": "v", "item": "i"}),
        asked({"item": "i"}, ENCODER),
    )
    assert row.column("shown_at").to_pylist() == asked_for.column("shown_at").to_pylist() == [-1]


def test_a_missing_position_takes_its_stated_value():
    place = {"item": ["a", "b"], "shown_at": pa.array([-1, 4], pa.int32())}
    assert Encoder(ModelConfig(categorical=("item",), numeric=("shown_at",))).encode(
        pa.record_batch(place)
    ).numbers[:, 0].tolist() == [-1.0, 4.0]
    stated = Encoder(
        ModelConfig(categorical=("item",), numeric=("shown_at",), missing={"shown_at": 9.0})
    )
    assert stated.encode(pa.record_batch(place)).numbers[:, 0].tolist() == [9.0, 4.0]


def test_a_stated_serving_position_is_hashed_as_the_log_hashes_it():
    """Seven digits and more are not written 1e+06."""
    encoder = Encoder(
        ModelConfig(categorical=("item", "shown_at"), serving={"shown_at": 1_000_000.0})
    )
    columns = {"item": ["i"], "shown_at": pa.array([1_000_000], pa.int32())}
    logged, served = (
        encoder.encode(pa.record_batch(columns)),
        encoder.encode(pa.record_batch(columns), True),
    )
    assert logged.keys.tobytes() == served.keys.tobytes()


def test_values_beyond_their_bounds_are_clipped_and_counted():
    encoder = Encoder(
        ModelConfig(categorical=(), numeric=("price", "age"), bounds={"age": [0, 120]})
    )
    rows = pa.record_batch(
        {
            "f_price": pa.array([1e30, -1e30, 5.0, float("inf"), float("nan")], pa.float32()),
            "f_age": pa.array([130.0, -1.0, 30.0, 0.0, 120.0], pa.float32()),
        }
    )
    encoded = encoder.encode(rows)
    assert encoded.numbers[:, 0].tolist() == [1e6, -1e6, 5.0, 1e6, 0.0]
    assert encoded.numbers[:, 1].tolist() == [120.0, 0.0, 30.0, 0.0, 120.0]
    assert encoded.clipped == {"price": 3, "age": 2}


@pytest.mark.parametrize("bounds", [[1], [2, 1], [0, float("inf")], [float("nan"), 1]])
def test_bounds_that_cannot_be_are_refused(bounds):
    with pytest.raises(ValueError, match=r"bounds\.price"):
        ModelConfig(numeric=("price",), bounds={"price": bounds})


def test_a_stated_value_beyond_the_bounds_is_refused():
    with pytest.raises(ValueError, match=r"missing\.price = 2000000"):
        ModelConfig(numeric=("price",), missing={"price": 2e6})
    with pytest.raises(ValueError, match="number_max"):
        ModelConfig(numeric=("price",), number_max=0)


@pytest.mark.parametrize(
    "name", ["position", "source", "item", "ts_ms", "model_version", "shown_at"]
)
def test_a_feature_named_as_a_field_of_every_event_is_refused(name):
    for kind in ("categorical_features", "numeric_features"):
        with pytest.raises(ValueError, match=name):
            StreamConfig(**{kind: (name,)})


@settings(max_examples=settings.default.max_examples * 4, deadline=None)
@given(events)
@example({"source": "a\0b", "vendor": "v", "item": "\0"})
@example({"source": "\ud83d", "vendor": "v", "item": "i"})
@example({"source": "u", "vendor": "v", "item": "x" * 1025})
@example({"source": "u", "vendor": "v", "item": "i", "features": {"user": None, "price": 2**70}})
@example({"source": "a", "vendor": "v", "item": "i", "position": 3, "features": {"age": 1e30}})
def test_the_typed_path_says_what_columns_say(event):
    for encoder in (ENCODER, PLACES):
        try:
            columns = asked(event, encoder)[0]
        except BadRequest:
            with pytest.raises(BadRequest):
                typed(event, encoder)
            continue
        theirs = encoder.encode(columns, serving=True)
        for mine in typed(event, encoder):
            for row in (0, 1):
                assert mine.keys[row].tobytes() == theirs.keys[0].tobytes()
                assert mine.numbers[row].tobytes() == theirs.numbers[0].tobytes()
