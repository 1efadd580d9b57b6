"""Training and serving make the same bits of one event: features of every kind, declared with
options drawn at random, in random events of which many are odd.

    python tests/learners/skew.py --events 100000 [--seed 1]

A round draws a declaration of each kind and ROUND_EVENTS events. Training's path: the events as
JSON through the decoder, the labeler's columns, a record of `examples` and back, encoded. Serving's
path: the same values as requests, as rows, as columns or with a context, of 1 to 40 rows each.
Counters and sequences, which no event sends, are joined and given from one made-up state, and so
are, in every other round, some features of the other kinds from two catalogues.
Keys, numbers, bags with their weights, pictures, and what was clipped are compared byte by byte,
and so are the probabilities that a factorization machine with random weights gives; every other
round is a network's, for pictures and attention. An event that the decoder
quarantines must be refused by the replica, too. Prints JSON; exit code 1 on a difference.
"""

import argparse
import base64
import io
import json
import random
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from catalogue_rows import CatalogueState
from kept_state import KeptState
from PIL import Image

from checkpointer.serving import BadRequest
from checkpointer.serving.request import parse
from everspun import Config, loads
from learners.models import Encoded, Model, Scorer, make_model, unique_keys
from stream import Record
from stream.columns.declaration import KINDS, LOOKED_UP
from stream.decoding import decode_impressions
from stream.internal_topics import decode_examples, encode_examples, example_batch

TS_MS = 1_700_000_000_000
ROUND_EVENTS, REQUEST_ROWS_MAX = 500, 40
DIM = 4
BUILT_IN = ("source", "vendor", "item")
BAGS = ("list", "text", "sequence")
COUNTED = (*BUILT_IN, "plain", "categorical0", "categorical1")
CATALOGUES = (
    {"catalogue": "items"},
    {"catalogue": "items", "key": "vendor"},
    {"catalogue": "people", "key": "source"},
    {"catalogue": "people", "key": "plain"},
)
STEPS = ([], ["nfc"], ["nfkc", "lower"], ["lower"])
ZONES = ("UTC", "Asia/Kathmandu", "America/St_Johns", "Europe/Copenhagen")
TEXTS = (
    "",
    "Toy Story (1995)",
    "ZOE\u0301 ﬁne—日本語, 2nd",
    "a\0b",
    "x" * 1024,
    "Å",
    " , ",
    "ſ",
    "İstanbul",
    "١٢",
    "x1",
    "Straße 12, straße",
    "\U0001f600",
)
ODD_TEXTS = ("\ud83d", "x" * 1025, "y" * 16_385)
ALPHABET = "ab C1_ é—ß日İ\u0301ﬁ"
FEW_NUMBERS = (0, -0.0, 0.1, 1, 1e-45, 3.4028235e38, -7.5, 2**24 + 1, 1e6, 1_000_001)
ODD_NUMBERS = (float("nan"), float("inf"), 1e39, "1", True, 2**70)
FEW_INTEGERS = (0, -1, 7, 2**53 + 1, 2**63 - 1, -(2**63))
ODD_INTEGERS = (2**63, 1.5, "7", True)


class Difference(AssertionError):
    """Training and serving do not agree; the message has the declaration and the event."""


# --- declarations


def declaration(rng: random.Random, catalogues: bool | None = None) -> str:
    """A configuration with two features of each kind, and a model that reads them all; without
    pictures and attention a factorization machine. `catalogues`: whether some of them stand there;
    None = in half of all configurations."""
    network = rng.random() < 0.5
    catalogues = rng.random() < 0.5 if catalogues is None else catalogues
    lines = ["[stream]", "partitions = 1", 'categorical_features = ["plain"]', ""]
    keyed, numbers = [*BUILT_IN, "plain"], ["shown_at"]
    bags: list[str] = []
    images: list[str] = []
    for name, said in _declared(rng, network, catalogues).items():
        kind = said["kind"]
        lines += [f"[features.{name}]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in said.items()]
        is_number = kind in ("vector", "component") or (
            kind in ("numeric", "counter") and "buckets" not in said
        )
        if kind == "image":
            images.append(name)
        elif kind in BAGS:
            bags.append(name)
        else:
            (numbers if is_number else keyed).append(name)
    crosses = {"*".join(rng.sample(keyed, 2)) for _ in range(3)}
    crosses |= {f"{bags[2 * (i % 2)]}*{rng.choice(keyed)}" for i in range(3)}
    lines += ["[model]", f'kind = "{"mlp" if network else "fm"}"', f"images = {json.dumps(images)}"]
    lines += [f"dim = {DIM}", f"seed = {rng.randrange(1 << 32)}"]
    lines += [f"categorical = {json.dumps([*keyed, *bags, *sorted(crosses)])}"]
    lines += [f"numeric = {json.dumps(numbers)}"]
    return "\n".join(lines) + "\n"


def _declared(rng: random.Random, network: bool, catalogues: bool) -> dict[str, dict[str, Any]]:
    """By name, two of each kind."""
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS if network else (k for k in KINDS if k != "image"):
        for number in range(2):
            said = found[f"{kind}{number}"] = {"kind": kind, **_OPTIONS[kind](rng, number)}
            if network and kind in BAGS and number:
                said |= {"pool": "attention", "against": "item"}
    counted = {said.get(name) for said in found.values() for name in ("of", "by")}
    for name, said in found.items():
        looked_up = said["kind"] in LOOKED_UP and said["kind"] != "image" and "of" not in said
        if catalogues and looked_up and name not in counted and rng.random() < 0.5:
            said |= rng.choice(CATALOGUES)
    return found


def _some(rng: random.Random, **options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if rng.random() < 0.5}


def _categorical(rng: random.Random, number: int) -> dict[str, Any]:
    said = _some(rng, default="none", normalise=rng.choice(STEPS), shares="item")
    return said | ({"type": "integer"} if number else {})


def _list(rng: random.Random, number: int) -> dict[str, Any]:
    pool, most = rng.choice(("sum", "mean", "sqrt")), rng.choice((1, 3, 64))
    said = _some(rng, default="none", max_values=most, pool=pool, normalise=rng.choice(STEPS))
    said |= _some(rng, shares="item", weighted=True)
    return said | ({"type": "integer"} if number else {})


def _text(rng: random.Random, number: int) -> dict[str, Any]:
    steps = rng.choice((*STEPS, ["nfkc", "lower", "digits"], ["digits"]))
    tokens = rng.choice(("words", "pairs", "characters"))
    said = _some(rng, default="No Title", normalise=steps, max_tokens=rng.choice((1, 5, 64)))
    said |= _some(rng, pool=rng.choice(("sum", "mean", "sqrt")))
    if tokens == "characters":
        said["characters"] = rng.randint(1, 5)
    return said | {"tokens": tokens}


def _numeric(rng: random.Random, number: int) -> dict[str, Any]:
    said = _some(rng, default=2.5, bounds=[-10, 1000.5])
    if number == 0:
        return said | {"buckets": [0, 0.1, 1, 10, 100]}
    how = rng.randrange(4)
    if how == 0:
        return said | {"piecewise": [-1, 0, 0.3, 3, 5]}
    if how == 1:
        return said | {"quantiles": rng.randint(1, 8), "bounds": [-10, 1000.5]}
    return said | _some(rng, transform="log1p") | ({"standardise": True} if how == 2 else {})


def _time(rng: random.Random, number: int) -> dict[str, Any]:
    zone, parts = rng.choice(ZONES), ["hour", "weekday", "hour_of_week"]
    if number == 0:
        return {"of": "ts_ms", "part": rng.choice(parts), "zone": zone}
    return {"part": rng.choice([*parts, "age", "age"]), "zone": zone, **_some(rng, default="none")}


def _vector(rng: random.Random, number: int) -> dict[str, Any]:
    width = rng.choice((1, 3))
    return {"width": width, **_some(rng, default=0.5, bounds=[-10, 10])}


def _component(rng: random.Random, number: int) -> dict[str, Any]:
    said = _some(rng, default=0.5, bounds=[-10, 10])
    return said | ({"width": 3} if number else _some(rng, transform="log1p"))


def _image(rng: random.Random, number: int) -> dict[str, Any]:
    return {"unreadable": "missing"} if number else {}


def _counter(rng: random.Random, number: int) -> dict[str, Any]:
    said = {"of": rng.choice(COUNTED), "gives": rng.choice(("rate", "shows", "clicks"))}
    said |= _some(rng, half_life_ms=3_600_000, prior_shows=3.5, prior_clicks=0.5)
    if number:
        return said | {"buckets": [0, 0.1, 1, 10, 100]}
    return said | _some(rng, transform="log1p", bounds=[0.1, 50])


def _sequence(rng: random.Random, number: int) -> dict[str, Any]:
    said = {"by": rng.choice(COUNTED), "of": rng.choice(COUNTED)}
    said |= _some(rng, max_values=rng.choice((1, 3, 64)), idle_ms=rng.choice((1, 10**9)))
    said |= _some(rng, default="none", pool=rng.choice(("sum", "mean", "sqrt")))
    if rng.random() < 0.5:
        return said | {"ages": True}
    return said | _some(rng, shares="item", normalise=rng.choice(STEPS))


_OPTIONS = {
    "categorical": _categorical,
    "list": _list,
    "text": _text,
    "numeric": _numeric,
    "time": _time,
    "vector": _vector,
    "component": _component,
    "image": _image,
    "counter": _counter,
    "sequence": _sequence,
}


# --- events


def _picture(form: str, width: int, height: int, mode: str = "RGB") -> str:
    file = io.BytesIO()
    Image.linear_gradient("L").convert(mode).resize((width, height)).save(file, form)
    return base64.b64encode(file.getvalue()).decode()


PICTURES = (
    "",
    _picture("PNG", 5, 3),
    _picture("PNG", 40, 2, "RGBA"),
    _picture("JPEG", 60, 90),
    _picture("GIF", 9, 9, "P"),
    _picture("WEBP", 64, 64),
)
ODD_PICTURES = ("aGVsbG8=", "no base64", "é", PICTURES[3][:400], _picture("PNG", 2_100, 2_000, "L"))


def features_of(config: Config, rng: random.Random) -> dict[str, Any]:
    """What an event carries: most of it well-formed, some missing, some odd."""
    odd = rng.random() < 0.2
    bag: dict[str, Any] = {}
    for column in config.stream.features:
        chance = rng.random()
        if chance < 0.15:
            continue
        bag[column.name] = None if chance < 0.2 else _value(column, bag, rng, odd)
    return bag


def _value(column: Any, bag: dict[str, Any], rng: random.Random, odd: bool) -> Any:
    odd = odd and rng.random() < 0.1
    if odd and rng.random() < 0.3:
        return rng.choice(("text", 5, [1], ["a", None], {}, [[]], True))
    if column.kind == "weights":
        values = bag.get(column.weighted_name)
        count = len(values) if isinstance(values, list) and not odd else rng.randrange(4)
        return [_number(rng, odd) for _ in range(count)] if rng.random() < 0.8 else []
    if column.kind == "list":
        one = _integer if column.integers else _string
        return [one(rng, odd) for _ in range(rng.choice((0, 1, 3, 5)))]
    if column.kind == "vector":
        return [_number(rng, odd) for _ in range(rng.choice((0, column.width + odd)))]
    if column.kind == "numeric":
        return _number(rng, odd)
    if column.kind == "image":
        return rng.choice(ODD_PICTURES if odd else PICTURES)
    if column.kind == "time":
        return rng.choice((0, "t", 1.5)) if odd else TS_MS + rng.randint(-(10**11), 10**10)
    return (_integer if column.integers else _string)(rng, odd)


def _string(rng: random.Random, odd: bool) -> str:
    if odd:
        return rng.choice(ODD_TEXTS)
    if rng.random() < 0.3:
        return rng.choice(TEXTS)
    return "".join(rng.choices(ALPHABET, k=rng.randrange(12)))


def _number(rng: random.Random, odd: bool) -> Any:
    if odd:
        return rng.choice(ODD_NUMBERS)
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(FEW_NUMBERS)
    return rng.randint(-5, 200) if kind < 0.6 else rng.uniform(-1e3, 1e3)


def _integer(rng: random.Random, odd: bool) -> Any:
    if odd:
        return rng.choice(ODD_INTEGERS)
    return rng.choice(FEW_INTEGERS) if rng.random() < 0.3 else rng.randint(-5, 20)


def event(config: Config, rng: random.Random, number: int) -> dict[str, Any]:
    """As it stands in the log, one JSON object."""
    made = {"id": f"i{number}", "ts_ms": TS_MS + rng.randrange(10**9), "session": "s"}
    made |= {name: _string(rng, False) or "x" for name in BUILT_IN}
    if rng.random() < 0.5:
        made["position"] = rng.randrange(30)
    return made | {"features": features_of(config, rng)}


# --- both paths


def learned(
    config: Config, events: list[dict[str, Any]], rng: random.Random
) -> tuple[pa.RecordBatch, list[int], tuple[KeptState, CatalogueState]]:
    """The rows of `examples`, which events they are of, and what was joined to them."""
    records = [Record(i, TS_MS, b"s", json.dumps(one).encode()) for i, one in enumerate(events)]
    found, bad = decode_impressions(records, 0, np.full(len(records), TS_MS), config.stream)
    wrong = {one.record.offset for one in bad}
    kept, n = KeptState(config, found, rng, TEXTS), len(found)
    rows_of = CatalogueState(config, found, rng, _value)
    found = rows_of.joined(kept.joined(found))
    label = (np.arange(n) % 2).astype(np.int8)
    rows = example_batch(found, label, np.full(n, -1), np.ones(n, np.float32))
    good = [i for i in range(len(events)) if i not in wrong]
    return decode_examples(encode_examples(rows)), good, (kept, rows_of)


def asked(model: Model, events: list[dict[str, Any]], rng: random.Random) -> pa.Table:
    """The columns of one request for these events, written in one of its forms."""
    encoder = model.encoder
    rows = [{k: v for k, v in one.items() if k not in ("id", "session")} for one in events]
    form = rng.randrange(3)
    if form == 0:
        body: dict[str, Any] = {"rows": rows}
    elif form == 1:
        flat = [{**{k: v for k, v in r.items() if k != "features"}, **r["features"]} for r in rows]
        names = {name for one in flat for name in one}
        body = {"columns": {name: [one.get(name) for one in flat] for name in sorted(names)}}
    else:
        shared = {k: v for k, v in rows[0].items() if all(r.get(k) == v for r in rows)}
        body = {"context": shared, "rows": [{k: r[k] for k in r if k not in shared} for r in rows]}
    said = json.dumps(body).encode()
    return parse(said, encoder.features, len(events), encoder.reads_time).columns


def bits(encoded: Encoded) -> tuple[Any, ...]:
    """Of keys, numbers, bags and pictures."""
    bags = [(b.ends.tobytes(), b.keys.tobytes(), b.weights.tobytes()) for b in encoded.bags]
    pictures = [one.pixels[one.places].tobytes() for one in encoded.images]
    return encoded.keys.tobytes(), encoded.numbers.tobytes(), bags, pictures


def scorer_of(model: Model, encoded: Encoded, seed: int) -> Scorer:
    """With random weights for two thirds of the keys, so that some rows are unknown."""
    tables, rng = {}, np.random.default_rng(seed)
    for spec in model.spec.tables:
        keys, _ = unique_keys(model.kind.keys(encoded)[spec.name])
        keys = keys[rng.random(len(keys)) < 0.67]
        tables[spec.name] = keys, rng.normal(0, 0.3, (len(keys), spec.dim)).astype(np.float32)
    return Scorer(model, tables, model.initial_dense())


def compare(config: Config, events: list[dict[str, Any]], rng: random.Random) -> Counter[str]:
    """Raises Difference. Counts events by what became of them."""
    model = make_model(config.model)
    rows, good, (kept, looked_up) = learned(config, events, rng)
    encoded = model.encoder.encode(rows)
    seed = rng.randrange(1 << 32)
    # Networks compute by torch, whose last bits depend on how many rows it is given.
    scorer = scorer_of(model, encoded, seed) if config.model.kind == "fm" else None
    trained = scorer.predict(rows, serving=False) if scorer else None
    at = 0
    while at < len(good):
        count = min(rng.randint(1, REQUEST_ROWS_MAX), len(good) - at)
        some = [events[i] for i in good[at : at + count]]
        columns = looked_up.filled(kept.filled(_asked(config, model, some, rng)))
        served, mine = model.encoder.encode(columns, serving=True), np.arange(at, at + count)
        if bits(served) != bits(encoded.take(mine)):
            raise Difference(
                f"keys, numbers, bags or pictures differ: {config.model.declared}, {some}"
            )
        if served.clipped != model.encoder.encode(rows.slice(at, count)).clipped:
            raise Difference(f"clipped values differ: {config.model.declared}, {some}")
        if scorer and scorer.predict(columns).tobytes() != trained[mine].tobytes():
            raise Difference(f"probabilities differ: {config.model.declared}, {some}")
        at += count
    for i in sorted(set(range(len(events))) - set(good)):
        try:
            asked(model, [events[i]], rng)
        except BadRequest:
            continue
        raise Difference(f"quarantined, and answered: {config.model.declared}, {events[i]}")
    return Counter(equal=len(good), refused=len(events) - len(good))


def _asked(
    config: Config, model: Model, events: list[dict[str, Any]], rng: random.Random
) -> pa.Table:
    try:
        return asked(model, events, rng)
    except BadRequest as error:
        raise Difference(f"learned, and refused: {error}: {config.model.declared}") from error


def run(events: int, seed: int) -> Counter[str]:
    """So many random events, in rounds. Raises Difference."""
    total: Counter[str] = Counter()
    for number in range(-(-events // ROUND_EVENTS)):
        rng = random.Random(f"skew {seed} {number}")
        config = loads(declaration(rng))
        count = min(ROUND_EVENTS, events - number * ROUND_EVENTS)
        total += compare(config, [event(config, rng, i) for i in range(count)], rng)
        total["rounds"] += 1
    return total


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.process_time()
    try:
        found = run(options.events, options.seed)
    except Difference as error:
        print(f"DIFFERENT: {str(error)[:4_000]}", file=sys.stderr)
        return 1
    said = {"events": options.events, "seed": options.seed, **found, "different": 0}
    print(json.dumps(said | {"cpu_s": round(time.process_time() - began)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
