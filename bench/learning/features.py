"""What it takes to make a model's keys and numbers of each kind of feature, and to train on a list.

    python -m bench.features [--json] [--rows 1000000] [--kinds list,text]

Columns as they stand in `examples` are encoded as a learner encodes them, in batches of 4,096 rows,
on one thread, CPU time; twice, of which the second counts. Beside texts and categories stands
scikit-learn's `FeatureHasher` (its default MurmurHash3; `pip install 'everspun[bench]'`, else its
ratios are null) on the same values: for texts it gets what its users give it, the tokens made by
`str.lower` and a regular expression, whose time counts, as ours does; `ratio_tokenised` leaves that
out. `list_us` is a list of 20 in training, all in: encoding, distinct keys, pooling, gradient and
optimizer of a logistic regression with that one feature. `state_us` is what the labeler takes to
keep two counters and a sequence of 20 with its ages and to join them to an impression, with a fifth
of the rows as impressions (`python -m bench.kept` has its parts). `picture_us` is what decodes a
picture that was not seen before: a JPEG of 300 x 300 in base64; `image` in `encode_us` are pixels
to tensors, of 1,000 pictures in 100,000 rows at most. Takes 2 to 4 CPU minutes and 2 GB.
"""

import argparse
import base64
import importlib
import io
import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from bench.labels import kept
from bench.measuring.machine import machine
from everspun import loads
from learners import ModelConfig
from learners.models import Encoder, make_model
from learners.training import gradient
from paramserver.tables import Table
from stream.columns import SQUARED_BYTES, TS_MS, squared
from stream.internal_topics import examples_schema

ROWS, BATCH_ROWS, SEED = 1_000_000, 4_096, 1
VALUES, LIST, WIDTH, PICTURES = 100_000, 20, 16, 1_000
START_MS = 1_700_000_000_000
#: Rows with pictures: Arrow holds 2 GiB of bytes in one column.
SHOWN_MAX = 100_000
#: kind -> (its declaration, where it stands in the model)
KINDS = {
    "categorical": ("", "categorical"),
    "normalised": ('kind = "categorical"\nnormalise = ["nfc", "lower"]', "categorical"),
    "list": ('kind = "list"', "categorical"),
    "text": ('kind = "text"', "categorical"),
    "pairs": ('kind = "text"\ntokens = "pairs"', "categorical"),
    "characters": ('kind = "text"\ntokens = "characters"', "categorical"),
    "numeric": ('kind = "numeric"\ntransform = "log1p"', "numeric"),
    "buckets": ('kind = "numeric"\nbuckets = [1, 3, 10, 30, 100, 300]', "categorical"),
    "piecewise": ('kind = "numeric"\npiecewise = [0, 1, 3, 10, 30]', "numeric"),
    "hour": ('kind = "time"\nof = "ts_ms"\nzone = "Europe/Berlin"', "categorical"),
    "age": ('kind = "time"\npart = "age"', "categorical"),
    "vector": (f'kind = "vector"\nwidth = {WIDTH}', "numeric"),
    "standardised": ('kind = "numeric"\nstandardise = true', "numeric"),
    "component": ('kind = "component"', "numeric"),
    "counter": ('kind = "counter"\nof = "item"', "numeric"),
    "sequence": ('kind = "sequence"\nby = "source"\nof = "item"\nmax_values = 20', "categorical"),
    "image": ('kind = "image"', "images"),
    "cross": ("", "categorical"),
    "list_cross": ('kind = "list"', "categorical"),
}
LISTS = ("list", "list_cross", "sequence")
#: Of `state_us`: impressions, and users, in parts of `--rows`.
STATE_ROWS, STATE_USERS = 5, 20
_WORD = re.compile(r"(?u)\w+")


def model_of(kind: str) -> ModelConfig:
    """A logistic regression on this one feature."""
    said, where = KINDS[kind]
    declared = f"[features.x]\n{said}\n" if said else '[stream]\ncategorical_features = ["x"]\n'
    used = "x*item" if kind.endswith("cross") else "x"
    lists = f'{where} = ["{used}"]' + ("" if where == "categorical" else "\ncategorical = []")
    lists += '\nkind = "mlp"' if where == "images" else ""
    return loads(f"{declared}[model]\n{lists}\n").model


def column_of(kind: str, rows: int, rng: np.random.Generator) -> pa.Array:
    """(rows,) as in `examples`: values of a long tail, titles of 8 words on average."""
    if kind in ("numeric", "buckets", "piecewise", "standardised", "component", "counter"):
        return pa.array(rng.lognormal(2, 2, rows).astype(np.float32))
    if kind in ("hour", "age"):
        return pa.array(START_MS - rng.integers(0, 10**9, rows))
    if kind == "vector":
        flat = pa.array(rng.normal(0, 1, rows * WIDTH).astype(np.float32))
        return pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * WIDTH, flat)
    if kind == "image":
        shown = [rng.bytes(SQUARED_BYTES) for _ in range(PICTURES)]
        return pa.array(shown).take(pa.array(rng.integers(0, PICTURES, rows)))
    names, is_list = pa.array([f"value-{i}" for i in range(VALUES)]), kind in LISTS
    ranks = (VALUES ** rng.random(rows * (LIST if is_list else 1))).astype(np.int64)
    if is_list:
        offsets = np.arange(rows + 1, dtype=np.int32) * LIST
        return pa.ListArray.from_arrays(offsets, names.take(pa.array(ranks - 1)))
    if kind in ("text", "pairs", "characters"):
        words = [f"W{'aeiou'[i % 5]}{i:x}" for i in range(20_000)]
        titles = [
            " ".join(words[w] for w in (20_000 ** rng.random(n)).astype(int) - 1)
            for n in rng.integers(3, 14, 50_000)
        ]
        return pa.array(titles).take(pa.array(rng.integers(0, len(titles), rows)))
    return names.take(pa.array(ranks - 1))


def examples_of(column: pa.Array, rng: np.random.Generator) -> pa.RecordBatch:
    """Rows of `examples` with this feature."""
    n = len(column)
    label = (rng.random(n) < 0.1).astype(np.int8)
    values: dict[str, pa.Array] = {"label": pa.array(label), TS_MS: pa.array(np.full(n, START_MS))}
    items = pa.array([f"i{i}" for i in range(1_000)])
    values["item"] = items.take(pa.array(rng.integers(0, 1_000, n)))
    arrays = []
    for field in examples_schema(()):
        if field.name in values:
            arrays.append(values[field.name])
        elif field.type == pa.string():
            arrays.append(pa.array([""] * n))
        else:
            arrays.append(pa.array(np.ones(n)).cast(field.type))
    names = examples_schema(()).names
    return pa.RecordBatch.from_arrays([*arrays, column], names=[*names, "f_x"])


def batches_of(rows: pa.RecordBatch) -> list[pa.RecordBatch]:
    return [rows.slice(at, BATCH_ROWS) for at in range(0, rows.num_rows, BATCH_ROWS)]


def second_s(work: Callable[[], Any]) -> float:
    """CPU seconds of the second time."""
    work()
    began = time.process_time()
    work()
    return time.process_time() - began


def encode_s(config: ModelConfig, rows: pa.RecordBatch) -> float:
    encoder, batches = Encoder(config), batches_of(rows)
    return second_s(lambda: [encoder.encode(batch) for batch in batches])


def train_s(config: ModelConfig, rows: pa.RecordBatch) -> float:
    """All that a learner and a shard compute of a batch."""
    model = make_model(config)
    (spec,) = model.spec.tables
    table, batches = Table(spec), batches_of(rows)

    def train() -> None:
        for step, batch in enumerate(batches, 1):
            prepared = gradient.prepare(model, batch)
            keys = prepared.keys[spec.name]
            computed = gradient.compute(model, prepared, {spec.name: table.pull(keys)}, {})
            table.reserve(keys)
            table.apply(keys, computed.gradients[spec.name], step, START_MS)

    return second_s(train)


def hasher_s(values: list[Any], is_text: bool) -> tuple[float, float] | None:
    """(CPU seconds of tokens and hashes, of hashes alone) of `FeatureHasher`; None where
    scikit-learn is not installed."""
    try:
        extraction = importlib.import_module("sklearn.feature_extraction")
    except ImportError as error:
        print(f"FeatureHasher is left out: {error}", file=sys.stderr)
        return None
    hasher = extraction.FeatureHasher(n_features=2**30, input_type="string", alternate_sign=False)
    began = time.process_time()
    tokens = [_WORD.findall(v.lower()) for v in values] if is_text else [[v] for v in values]
    tokenised = time.process_time()
    hasher.transform(tokens)
    ended = time.process_time()
    return ended - began, ended - tokenised


def picture_s(rng: np.random.Generator) -> float:
    """CPU seconds of one JPEG of 300 x 300 in base64 that nobody has seen, to its pixels."""
    images = importlib.import_module("PIL.Image")
    files = []
    for _ in range(PICTURES // 4):
        out = io.BytesIO()
        coarse = images.fromarray(rng.integers(0, 256, (30, 30, 3), np.uint8))
        coarse.resize((300, 300)).save(out, "JPEG")
        files.append(base64.b64encode(out.getvalue()))
    squared(files[0])
    began = time.process_time()
    for file in files[1:]:
        squared(file)
    return (time.process_time() - began) / (len(files) - 1)


def measure(kinds: list[str], rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    found: dict[str, Any] = {"rows": rows, "encode_us": {}, "feature_hasher_us": {}}
    for kind in kinds:
        many = min(rows, SHOWN_MAX) if kind == "image" else rows
        config, column = model_of(kind), column_of(kind, many, rng)
        table = examples_of(column, rng)
        took = encode_s(config, table)
        found["encode_us"][kind] = round(1e6 * took / many, 3)
        if kind == "list":
            found["list_us"] = round(1e6 * train_s(config, table) / rows, 2)
        if kind == "image":
            found["picture_us"] = round(1e6 * picture_s(rng), 1)
        if kind in ("categorical", "text"):
            beside = hasher_s(column.to_pylist(), kind == "text")
            with_tokens, hashes = beside or (None, None)
            found["feature_hasher_us"][kind] = with_tokens and round(1e6 * with_tokens / rows, 3)
            found[f"{kind}_ratio_feature_hasher"] = with_tokens and round(with_tokens / took, 1)
            found[f"{kind}_ratio_tokenised"] = hashes and round(hashes / took, 1)
    if {"counter", "sequence"} & set(kinds):
        impressions, users = max(rows // STATE_ROWS, kept.ROWS), max(rows // STATE_USERS, 1)
        found["state_us"] = kept.measured(impressions, users, kept.HELD)["state_us"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of " + ", ".join(KINDS))
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    arguments = parser.parse_args()
    kinds = arguments.kinds.split(",")
    if unknown := sorted(set(kinds) - set(KINDS)):
        parser.error(f"--kinds {unknown}: allowed are {', '.join(KINDS)}")
    found = {"bench": "features", **measure(kinds, arguments.rows), "machine": machine()}
    print(json.dumps(found, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
