"""Records of the project's own topics for the fuzzer: how one is made, and all decoders that read
such.

A record is one input: headers as `count (name_bytes name value_bytes value)*` with one byte a
length (two for values), then the value. Each decoder answers, or says in its own error what is
wrong.
"""

import json
import random
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from rows_made import counts, examples, read_row, row

from checkpointer.serving import BadRequest
from checkpointer.serving.request import parse as parse_request
from checkpointer.serving.request_decoder import RequestDecoder
from checkpointer.store import announcement, manifest
from labeler.breaker import TALLY_SCHEMA, decode_band, decode_tally
from labeler.counting import decode_signal
from labeler.io import SetAside, set_aside_headers, set_asides
from labeler.labels import LostRange, lost_headers, lost_ranges, rejected_ids
from learners import ModelConfig
from learners.models import Encoder, TextEncoder
from stream import Record
from stream.decoding.catalogues import WrongRow
from stream.internal_topics import (
    ALLOW,
    REJECT,
    WITHHOLD,
    Again,
    BatchHeader,
    ClockOverride,
    Fields,
    MalformedRecord,
    Verdict,
    Watermark,
    breaker_input,
    clock_overrides,
    decode_counts,
    decode_examples,
    decode_verdict,
    encode_verdict,
    input_name,
    json_object,
    maximum_set_back,
    override_headers,
    override_key,
    overrides_of,
    row_hash_sum,
    rows_from,
    rows_of,
    taken,
    trim,
)
from stream.log import Headers

CONFIG = ModelConfig(categorical=("source", "item"), numeric=("price", "shown_at"))
ENCODER = Encoder(CONFIG)
FEATURES = ENCODER.features
REQUESTS = RequestDecoder(TextEncoder(ENCODER))
TOLD = (MalformedRecord, manifest.Damaged, BadRequest, WrongRow)


def packed(headers: Headers, value: bytes) -> bytes:
    parts = [bytes([len(headers)])]
    for name, held in headers:
        raw = name.encode("utf-8", "surrogateescape")
        parts += [bytes([len(raw)]), raw, len(held).to_bytes(2, "big"), held]
    return b"".join([*parts, value])


def unpacked(data: bytes) -> Record:
    """Any bytes are a record."""
    at, headers = 1, []
    for _ in range(data[0] if data else 0):
        name_bytes = data[at] if at < len(data) else 0
        name = data[at + 1 : at + 1 + name_bytes].decode("utf-8", "replace")
        at += 1 + name_bytes
        size = int.from_bytes(data[at : at + 2], "big")
        headers.append((name, data[at + 2 : at + 2 + size]))
        at += 2 + size
    return Record(7, 1_700_000_000_000, b"impressions/0", data[at:], tuple(headers))


def internal_record(rng: random.Random) -> bytes:
    """One that a decoder takes, or nearly."""
    headers, value = rng.choice(_KINDS)(rng)
    kept = tuple(one for one in headers if rng.random() < 0.95)
    return packed(kept, value if rng.random() < 0.9 else value[: rng.randrange(len(value) + 1)])


def _integer(rng: random.Random) -> int:
    return rng.choice(
        (0, 1, -1, 1_700_000_000_000, 2**31, 2**63 - 1, 2**63, 10**30, rng.randrange(10**6))
    )


def _verdict(rng: random.Random) -> tuple[Headers, bytes]:
    between = sorted((_integer(rng), _integer(rng)))
    if rng.random() < 0.5:
        return (), encode_verdict(Watermark("impressions/0", _integer(rng), _integer(rng)))
    said = Verdict(
        "a",
        rng.choice(("operator", "burst", "")),
        rng.choice((REJECT, REJECT, ALLOW, WITHHOLD, "x")),
        rng.choice(("u", "u", None)),
        rng.choice((None, "v")),
        *between,
        "told",
        rng.choice(({}, {"n": 1.0}, {"n": float("inf")})),
        *rng.choice(((None, None), ("user", "ann"), ("user", None))),
    )
    text = encode_verdict(said).decode()
    if rng.random() < 0.2:
        at = rng.choice(("spared", "evidence", "id", "reason", "input", "other"))
        text = text.replace("{", f'{{"{at}":{rng.choice(_ODD_JSON)},', 1)
    return (), text.encode()


_ODD_JSON = (
    "[1,2]", "[70000]", "5", "null", '"\\ud800"', '{"\\ud800":1}', '{"n":"x"}', "1e999", "9" * 25,
    "[" * 5_000, '"text"', "true", "-1",
)  # fmt: skip
#: What stands in headers of lists.
_LISTS = (
    b"~clicks=1,2;clicks=3", b"a=1,a=2", b"~a=x", b"~a=1,-5", b"a", b"x=1,y=2", b"label/0",
    b'{"named":{"source":"u"},"batch_rows":[1]}', b'{"named":{},"batch_rows":[0]}', b"\xff",
)  # fmt: skip


def _again(rng: random.Random) -> tuple[Headers, bytes]:
    """The header `again` by itself."""
    said = {"named": {"source": ["u", "w"], "other": ["x"]}, "batch_rows": [3]}
    for name in ("named", "batch_rows"):
        if rng.random() < 0.3:
            said[name] = rng.choice(([0], {"source": "u"}, {"source": [5]}, "x", 5))
    return (), json.dumps(said).encode()


def _header(rng: random.Random) -> tuple[Headers, bytes]:
    start = rng.randrange(10**6)
    header = BatchHeader(
        "label/0", start, start + rng.randrange(9), "s", "c", labelled=rng.randrange(9)
    )
    headers = list(header.to_headers())
    for _ in range(rng.randrange(3)):  # what no writer makes
        at = rng.randrange(len(headers))
        headers[at] = (
            headers[at][0],
            rng.choice((str(_integer(rng)).encode(), b"label/x", b"", *_LISTS)),
        )
    return tuple(headers), _rows(rng)


def _rows(rng: random.Random) -> bytes:
    schema = rng.choice((TALLY_SCHEMA, pa.schema([pa.field("position", pa.int64())])))
    columns = [
        pa.array(["a"] * 3 if pa.types.is_string(field.type) else np.arange(3), field.type)
        for field in schema
    ]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return sink.getvalue().to_pybytes()


def _override(rng: random.Random) -> tuple[Headers, bytes]:
    first, end = _integer(rng), _integer(rng)
    which = rng.randrange(3)
    if which == 0:
        return lost_headers(LostRange("clicks", 0, first & 0xFFFF, end & 0xFFFF), "why"), b""
    if which == 1:
        return set_aside_headers(SetAside("clicks", 0, first & 0xFFFF), "why"), b""
    return override_headers(
        ClockOverride(end & 0xFFFF, "clicks", 0, first, _integer(rng)), "why"
    ), b""


def _json(rng: random.Random) -> tuple[Headers, bytes]:
    said = {
        "kind": rng.choice(("published", "rejected", "rolled_back", "x")),
        "model": "m",
        "number": _integer(rng),
        "name": rng.choice(("00000001-c", "../x", "")),
        "url": "u",
        "manifest_sha256": "0" * 64,
        "vector": {"label/0": 1},
        "event_time_max_ms": _integer(rng),
        "created_ms": _integer(rng),
        "revision": _integer(rng),
        "reason": "",
        "rows": [{"source": "u", "item": "i", "price": 1.5, "position": 3}],
        "format": 1,
        "body": {},
        "body_sha256": "",
    }
    for name in rng.sample(sorted(said), 3):
        said[name] = rng.choice((None, [], {}, -1, "x", True, 1e308, said[name]))
    return (), json.dumps(said).encode()


def odd_records() -> list[bytes]:
    """Of each kind right ones, and those with one header or field that is not."""
    rng = random.Random(7)
    found: list[tuple[Headers, bytes]] = [((), b""), ((), b"["), ((), b"5"), ((), b"[" * 5_000)]
    numbers = [b"0", b"-1", b"2", b"9" * 18, b"9" * 25, b"x"]
    found += [((), b'{"x":' + b"[" * 1_000 + b"]" * 1_000 + b',"x":1}'), ((), b'"' + b"x" * 11_000)]
    found += [((("control", b"heartbeat"),) * 2, b'{"year":1,"year":2}')] * 2
    for make in (examples, *[counts] * 12, _clock):
        headers, value = make(rng)
        for at, (name, _) in enumerate(headers):
            for odd in (*_LISTS, *numbers):
                changed = (*headers[:at], (name, odd), *headers[at + 1 :])
                found.append((changed, value))
            found.append(((*headers, headers[at]), value))
    for make in (*_KINDS, _clock):
        found += [make(rng) for _ in range(100)]
    for kind in (_VERDICT, _WATERMARK):
        for name in kind:
            text = json.dumps({**kind, name: "@"})
            found += [((), text.replace('"@"', odd).encode()) for odd in _ODD_JSON]
            found += [((), json.dumps({**kind, name: odd}).encode()) for odd in _ODD_VALUES]
    return [packed(headers, value) for headers, value in found]


_VERDICT = json.loads(encode_verdict(Verdict("a", "burst", REJECT, "u", "v", 1, 2, "told")))
_VERDICT |= {"feature": "user", "value": "ann", "spared": [1], "evidence": {"n": 1.0}}
_WATERMARK = json.loads(encode_verdict(Watermark(input_name("impressions", 0), 5, 7)))
_ODD_VALUES: tuple[object, ...] = (
    None, 5, -1, "", "\ud800", "x", [], [70_000], {}, {"\ud800": 1}, {"n": "x"}, 1e308, True,
    10**19,
)  # fmt: skip


def _clock(rng: random.Random) -> tuple[Headers, bytes]:
    """A clock override that says something."""
    return override_headers(ClockOverride(9, breaker_input(0), 0, 1_000, 500), "why"), b""


_KINDS: list[Callable[[random.Random], tuple[Headers, bytes]]] = [
    _verdict,
    _header,
    _override,
    _json,
    _again,
    examples,
    counts,
    row,
]


def _read_examples(record: Record) -> None:
    """What is decoded is cut, hashed, and written as it stood."""
    batch = decode_examples(record.value or b"")
    rows_of(batch, "label/0", 2 << 20, 1 << 20, 2 << 20)
    rows_of(batch, "retract/0", 2 << 20, 1 << 20, 2 << 20)
    rows_from(trim(batch, 1), 1)
    assert len(taken(batch)) == batch.num_rows
    row_hash_sum(batch)


_READ: list[Callable[[Record], object]] = [
    lambda record: decode_verdict(record.value),
    decode_signal,
    lambda record: BatchHeader.from_headers(record.headers).impressions,
    _read_examples,
    decode_counts,
    read_row,
    lambda record: decode_tally(record.value or b""),
    decode_band,
    lambda record: announcement.decode(record.value),
    lambda record: manifest.decode(record.value or b""),
    lambda record: parse_request(record.value or b"", FEATURES, 100),
    lambda record: REQUESTS.decode(record.value or b"", 100),
    rejected_ids,
    lambda record: Again.decode((record.value or b"").decode("utf-8", "replace")).without(["u"]),
    lambda record: Fields.of("evaluations", json_object("evaluations", record.value)).integer(
        "start", low=0
    ),
]


def _told(read: Callable[[Record], object], record: Record) -> str:
    """What a decoder says is wrong with a record; "" if it takes it."""
    try:
        read(record)
    except TOLD as error:
        return str(error)
    return ""


def read_internal(values: Sequence[bytes], turn: int) -> int:
    """Every decoder reads every record. What it says is short and UTF-8."""
    said: list[str] = []

    def malformed(record: Record, error: MalformedRecord) -> None:
        said.append(str(error))

    overrides = (set_asides, lost_ranges, clock_overrides)
    records = [unpacked(value) for value in values]
    for record in records:
        said += [_told(read, record) for read in _READ]
    for read_words in overrides:
        read_words(records, malformed if turn % 2 else None)
    for word in clock_overrides(records):
        assert override_key(word)
        of_it = overrides_of([word], word.topic, word.partition)
        assert maximum_set_back(of_it, word.end, word.above_ms + 1) <= word.above_ms
    assert all(len(one.encode()) < 4_096 for one in said)
    return len(values) * (len(_READ) + len(overrides))
