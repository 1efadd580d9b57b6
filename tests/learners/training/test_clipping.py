import numpy as np
import pyarrow as pa
import pytest

from learners.config import ModelConfig
from learners.models import Encoded, make_model, wrong_column
from learners.pacing import Batch
from learners.training import gradient
from learners.training.clipping import row_scales
from paramserver.tables import Table
from stream.columns import CATEGORICAL, NUMERIC, FeatureColumn
from stream.internal_topics import encode_examples, examples_schema

COUNTRY, PRICE = FeatureColumn("country", CATEGORICAL), FeatureColumn("price", NUMERIC)


def encoded(numbers: np.ndarray) -> Encoded:
    """Rows without keys."""
    return Encoded(np.empty((len(numbers), 0), np.uint64), numbers)


def examples(rng, n, features, start=0, **given):
    columns = {
        "position": np.arange(start, start + n),
        "ts_ms": np.full(n, 1_000),
        "arrival_ms": np.full(n, 1_000),
        "label": (rng.random(n) < 0.3).astype(np.int8),
        "click_delay_ms": np.full(n, -1),
        "weight": np.ones(n, np.float32),
        "source": [f"u{x}" for x in rng.integers(0, 9, n)],
        "vendor": ["v"] * n,
        "item": [f"i{x}" for x in rng.integers(0, 9, n)],
        "shown_at": np.zeros(n, np.int32),
        "prediction": np.zeros(n, np.float32),
        "model_version": [""] * n,
        "f_country": ["nl"] * n,
        "f_price": rng.lognormal(1, 1, n).astype(np.float32),
    } | given
    schema = examples_schema(features)
    return pa.record_batch([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def as_batch(rows):
    n = rows.num_rows
    return Batch(0, "label/0", 0, n, 0, 1, n, 0, 1_000, encode_examples(rows), record_end=n)


# --- one row ---


@pytest.mark.parametrize("kind", ["lr", "fm", "mlp"])
def test_a_row_moves_no_parameter_further_than_the_limit(kind):
    config = ModelConfig(
        kind=kind, categorical=("item",), numeric=("a", "b"), dim=4, row_gradient_max=50.0
    )
    model = make_model(config)
    numbers = np.array([[1e6, 1.0], [1e6, 1e6], [3.0, 4.0], [-1e6, 0.0]], np.float32)
    scales, clipped = row_scales(config, encoded(numbers))
    assert clipped == 3
    assert scales[2] == 1.0
    if kind == "mlp":
        return  # its deeper layers multiply by what they have learned, too
    for row in range(4):
        keys = {"weights": np.arange(1, 4, dtype=np.uint64)}
        pulled = {"weights": np.full((3, model.spec.tables[0].dim), 0.5, np.float32)}
        places = {"weights": np.array([[0, 1, 2]])}
        label, weight = np.ones(1, np.float32), scales[row : row + 1]
        _, gradients, _ = model.kind.differentiate(
            places, pulled, {}, encoded(numbers[row : row + 1]), label, weight
        )
        assert np.abs(gradients["weights"]).max() <= 50.0 * 1.01, keys


@pytest.mark.parametrize("pairs", ["lr", "fm"])
def test_the_scale_of_a_row_does_not_depend_on_the_others(pairs):
    rng = np.random.default_rng(0)
    config = ModelConfig(kind=pairs, numeric=tuple("abcdefghi"))
    numbers = (rng.normal(0, 1, (257, 9)) * 10.0 ** rng.integers(-3, 6, (257, 1))).astype(
        np.float32
    )
    together = row_scales(config, encoded(numbers))[0]
    alone = np.concatenate(
        [row_scales(config, encoded(numbers[i : i + 1]))[0] for i in range(len(numbers))]
    )
    assert together.tobytes() == alone.tobytes()
    assert 0 < (together < 1).sum() < len(together)


@pytest.mark.parametrize("kind", ["lr", "fm"])
def test_one_price_in_the_wrong_unit_does_not_spoil_its_weight(kind):
    """The weights a few batches after it are those of a stream without it, nearly."""
    config = ModelConfig(kind=kind, categorical=("item",), numeric=("price",), dim=4)
    model = make_model(config)

    def learned(poison):
        rng, table = np.random.default_rng(1), Table(model.spec.tables[0])
        for step in range(1, 41):
            rows = examples(rng, 1_000, (PRICE,))
            if poison and step == 20:
                prices = rows.column("f_price").to_numpy().copy()
                prices[17] = 1e30
                rows = rows.set_column(
                    rows.schema.get_field_index("f_price"), "f_price", pa.array(prices)
                )
            prepared = gradient.prepare(model, rows)
            keys = prepared.keys["weights"]
            computed = gradient.compute(model, prepared, {"weights": table.pull(keys)}, {})
            assert not computed.reason
            table.reserve(keys)
            table.advance(step, step * 1_000, len(keys), 0, step)
            table.apply(keys, computed.gradients["weights"], step, step * 1_000)
        p = model.kind.predict(prepared.places, {"weights": table.pull(keys)}, {}, prepared.encoded)
        return p

    assert np.abs(learned(True) - learned(False)).mean() < 0.02


# --- columns ---


def test_older_records_are_learned_with_the_missing_value_of_a_new_feature():
    rng = np.random.default_rng(0)
    old = examples(rng, 100, (COUNTRY,))
    model = make_model(
        ModelConfig(
            categorical=("source", "country", "os"), numeric=("price",), missing={"price": 4.0}
        )
    )
    prepared = gradient.read(model, as_batch(old))
    assert not prepared.reason
    assert prepared.rows.num_rows == 100
    assert prepared.encoded.filled == {"os": 100, "price": 100}
    assert (prepared.encoded.numbers == 4.0).all()
    said = old.append_column("f_os", pa.array([""] * 100)).append_column(
        "f_price", pa.array([float("nan")] * 100, pa.float32())
    )
    assert prepared.encoded.keys.tobytes() == model.encoder.encode(said).keys.tobytes()
    assert prepared.rows.schema == old.schema, (
        "its row hash is that of the record as it stands in the log"
    )


@pytest.mark.parametrize(
    ("name", "column", "found"),
    [
        (
            "f_price",
            pa.array(["9"] * 50),
            "feature price is string in this record, and declared numeric now",
        ),
        ("f_price", pa.array([1 << 60] * 50, pa.int64()), "feature price is int64 in this record"),
        (
            "f_country",
            pa.array([1.0] * 50, pa.float32()),
            "feature country is float in this record, and declared cat",
        ),
        (
            "label",
            pa.array([1] * 50, pa.int64()),
            "cannot be read: examples record: label: the column is DataType(int64)",
        ),
    ],
)
def test_a_record_whose_column_has_another_type_is_set_aside(name, column, found):
    rows = examples(np.random.default_rng(0), 50, (COUNTRY, PRICE))
    at = rows.schema.get_field_index(name)
    rows = rows.set_column(at, pa.field(name, column.type, nullable=False), column)
    model = make_model(ModelConfig(categorical=("source", "country"), numeric=("price",)))
    prepared = gradient.read(model, as_batch(rows))
    assert found in prepared.reason
    assert (prepared.cause == gradient.COLUMNS) == name.startswith("f_")
    computed = gradient.compute(model, prepared, {}, {})
    assert (computed.reason, computed.cause) == (prepared.reason, prepared.cause)


def test_a_record_without_a_column_of_every_impression_is_set_aside():
    schema = examples_schema((COUNTRY,))
    assert wrong_column(schema, (COUNTRY, PRICE)) == ""
    assert wrong_column(schema.remove(0), ()) == "column position is missing"
