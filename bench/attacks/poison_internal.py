"""Records that say nothing, for the topics of the project's own (C8), and claims beyond the log
(F3), for `bench.poison`.

What is well formed and false is kept out by access rights and made by nobody here: a record that
its decoder reads is broken further until it does not.
"""

import contextlib
import io
import json
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from bench.attacks.poison_inputs import BOMB_BYTES, Bad, Now
from checkpointer.gates import Evaluations
from checkpointer.store import decode as decode_announcement
from labeler.breaker import BAND_SCHEMA, TALLY_SCHEMA, decode_band, decode_tally
from labeler.counting import SESSION_SIGNAL_SCHEMA, Signal, decode_signal
from labeler.io import set_asides
from labeler.labels import lost_ranges, rejected_ids
from stream import Record, position
from stream.internal_topics import (
    BatchHeader,
    MalformedRecord,
    Verdict,
    Watermark,
    decode_examples,
    decode_verdict,
    encode_verdict,
    examples_schema,
    json_object,
)
from stream.log import Headers

TOPICS = (
    "signals",
    "verdicts",
    "examples",
    "evaluations",
    "checkpoints",
    "quarantine",
    "rejected",
    "tallies",
    "bands",
)
#: A claim lies so many records beyond its input's log.
BEYOND = 10**9
CLAIM_SHARE, BOMB_SHARE = 0.02, 0.001
ODD = (
    None,
    True,
    -1,
    0.5,
    10**400,
    2**63,
    float("nan"),
    "\ud800",
    "",
    "\0",
    [],
    {},
    [[]],
    "x" * 5_000,
    -(2**70),
)
JUNK = (
    None,
    b"",
    b"\0",
    b"null",
    b"[]",
    b"5",
    b"{",
    b"[" * 50_000,
    b'{"a":' * 20_000,
    b"9" * 5_000,
    b"\xff" * 100,
)
ODD_HEADERS = (b"", b"\xff", b"-5", b"x", b"9" * 5_000, b"1e3", b"0x1", b"\xd9\xa3")


def claim(rng: random.Random, now: Now, prefix: str) -> Bad:
    """A watermark or a signal that says more than its input's log holds, or an hour of a month
    to come."""
    input = f"{prefix}{rng.choice(('impressions', 'clicks'))}/{now.partition}"
    far, month_ms = position(BEYOND + rng.randrange(BEYOND)), 30 * 86_400_000
    if rng.random() < 0.5:
        mark = rng.choice(
            (Watermark(input, now.ts_ms, far), Watermark(input, now.ts_ms + month_ms, 0))
        )
        return Bad("verdicts", "claim", encode_verdict(mark), b"")
    signal = Signal(input, 0, far, now.ts_ms, now.ts_ms + 1, now.ts_ms, 0, None)
    return Bad("signals", "claim", signal.value, signal.key, signal.headers)


def malformed(rng: random.Random, topic: str, now: Now, prefix: str) -> Bad:
    """A record of this topic that its decoder refuses."""
    while True:
        made = _MAKERS[topic](rng, now, prefix)
        if not _says_something(made):
            return made


def _says_something(made: Bad) -> bool:
    record = Record(0, 0, made.key, made.value, made.headers)
    with contextlib.suppress(MalformedRecord):
        return _SAYS[made.topic](record)
    return False


# --- what there is to break
# -----------------------------------------------------------------------------------------


def _json_topic(topic: str, *bodies: dict[str, Any]) -> "Maker":
    def make(rng: random.Random, now: Now, prefix: str) -> Bad:
        if rng.random() < 0.3:
            return Bad(
                topic, "junk", rng.choice(JUNK) if rng.random() < 0.7 else rng.randbytes(50), b""
            )
        said = dict(rng.choice(bodies))
        for name in rng.sample(sorted(said), rng.choice((1, 1, 2))):
            if rng.random() < 0.3:
                del said[name]
            else:
                said[name] = rng.choice(ODD)
        return Bad(topic, "fields", json.dumps(said).encode(), b"")

    return make


def _arrow_topic(
    topic: str, schema: pa.Schema, headers: Callable[[Now, str], Headers], key: bytes = b""
) -> "Maker":
    def make(rng: random.Random, now: Now, prefix: str) -> Bad:
        roll, right = rng.random(), headers(now, prefix)
        if roll < BOMB_SHARE:
            return Bad(topic, "bomb", _bomb(rng, schema), key, right, codec="zstd", alone=True)
        if roll < 0.5 and right:
            return Bad(topic, "headers", b"", key, _odd_headers(rng, right))
        if roll < 0.8:
            return Bad(topic, "rows", _flipped(rng, schema), key, right)
        return Bad(topic, "junk", rng.choice([one for one in JUNK if one]), key, right)

    return make


def _odd_headers(rng: random.Random, right: Headers) -> Headers:
    found = list(right)
    at = rng.randrange(len(found))
    name, value = found[at]
    roll = rng.random()
    if roll < 0.3:
        del found[at]
    elif roll < 0.5:
        found.append((name, value))
    else:
        found[at] = (name, rng.choice(ODD_HEADERS))
    return tuple(found)


def _stream(batch: pa.RecordBatch, compression: str | None = None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(
        sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=compression)
    ) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def _flipped(rng: random.Random, schema: pa.Schema) -> bytes:
    """Rows of this schema, with bytes flipped, cut off, or with nulls, or as other columns."""
    columns = [
        pa.array([rng.randrange(2) for _ in range(3)], pa.int8()).cast(_plain(f.type))
        for f in schema
    ]
    batch = pa.RecordBatch.from_arrays(
        [c.cast(f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
    )
    if rng.random() < 0.2:
        return _stream(batch.select(range(1, len(schema))))
    data = bytearray(_stream(batch))
    if rng.random() < 0.4:
        return bytes(data[: rng.randrange(1, len(data) - 8)])
    for _ in range(rng.choice((8, 40))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_binary(kind) else kind


def _bomb(rng: random.Random, schema: pa.Schema) -> bytes:
    """A few KB of this schema that unpack to a hundred MB and more."""
    rows = rng.choice(BOMB_BYTES) // 4
    texts = [pa.types.is_string(f.type) or pa.types.is_binary(f.type) for f in schema]
    few = [
        pa.array(["" if text else 0] * 1_000).cast(f.type)
        for f, text in zip(schema, texts, strict=True)
    ]
    columns = [pa.concat_arrays([column] * (rows // 1_000 // len(schema))) for column in few]
    return _stream(pa.RecordBatch.from_arrays(columns, schema=schema), "zstd")


def _signal_headers(now: Now, prefix: str) -> Headers:
    return Signal(f"{prefix}impressions/{now.partition}", 0, 0, 0, 0, 0, 0, None).headers


def _batch_headers(now: Now, prefix: str) -> Headers:
    marks = {f"{prefix}impressions/{now.partition}": 5}
    return BatchHeader(
        f"label/{now.partition}", 0, 1 << 20, "s", "c", watermarks=marks
    ).to_headers()


def _band_headers(now: Now, prefix: str) -> Headers:
    return tuple(
        (name, b"0")
        for name in ("cell", "raw", "bad_clicks", "bad_impressions", "verdicts_offset", "points")
    )


def _words(rng: random.Random, now: Now, prefix: str) -> Bad:
    """Words of operators that say nothing (L7, C7)."""
    topic = f"{prefix}impressions".encode()
    of = (("topic", topic), ("partition", str(now.partition).encode()))
    aside: Headers = (("set_aside", b"1"), *of, ("position", b"0"))
    lost: Headers = (("lost", b"1"), *of, ("position", b"0"), ("from", b"0"), ("to", b"0"))
    headers = _odd_headers(rng, rng.choice((aside, lost)))
    return Bad("quarantine", "words", rng.choice(JUNK), rng.choice((b"", b"x")), headers)


Maker = Callable[[random.Random, Now, str], Bad]
_VERDICT = Verdict("i", "r", "reject", "s", None, 1, 2, "why", {"n": 1.0})
_EVALUATION = {
    "model": "coverage",
    "chain": "label/0",
    "start": 1,
    "end": 2,
    "rows": 3,
    "log_loss_sum": 0.5,
}
_ANNOUNCED = {
    "kind": "published",
    "model": "coverage",
    "number": 1,
    "name": "n",
    "url": "u",
    "manifest_sha256": "s",
}
_MAKERS: dict[str, Maker] = {
    "signals": _arrow_topic("signals", SESSION_SIGNAL_SCHEMA, _signal_headers),
    "verdicts": _json_topic(
        "verdicts",
        json.loads(encode_verdict(_VERDICT)),
        json.loads(encode_verdict(Watermark("impressions/0", 5, 7))),
    ),
    "examples": _arrow_topic("examples", examples_schema(()), _batch_headers),
    "evaluations": _json_topic("evaluations", _EVALUATION),
    "checkpoints": _json_topic("checkpoints", _ANNOUNCED),
    "quarantine": _words,
    "rejected": _json_topic("rejected", {"id": ["x"], "verdict": "v"}),
    "tallies": _arrow_topic("tallies", TALLY_SCHEMA, _batch_headers),
    "bands": _arrow_topic("bands", BAND_SCHEMA, _band_headers),
}


# --- what its decoder makes of it
# -----------------------------------------------------------------------------------


def _reads(decode: Callable[[Record], object]) -> Callable[[Record], bool]:
    def read(record: Record) -> bool:
        decode(record)
        return True

    return read


def _example(record: Record) -> bool:
    """With right headers and rows that nobody can read, it repeats the beginning of its chain,
    and adds nothing."""
    BatchHeader.from_headers(record.headers)
    decode_examples(record.value or b"")
    return True


def _tally(record: Record) -> bool:
    BatchHeader.from_headers(record.headers)
    decode_tally(record.value or b"")
    return True


_SAYS: dict[str, Callable[[Record], bool]] = {
    "signals": _reads(decode_signal),
    "verdicts": _reads(lambda record: decode_verdict(record.value)),
    "examples": _example,
    "evaluations": lambda record: Evaluations("coverage").add(
        json_object("evaluations", record.value).body
    ),
    "checkpoints": _reads(lambda record: decode_announcement(record.value)),
    "quarantine": lambda record: bool(set_asides([record]) or lost_ranges([record])),
    "rejected": _reads(rejected_ids),
    "tallies": _tally,
    "bands": _reads(decode_band),
}
