"""Bad events for `bench.poison`: what whoever may write to a site's topics sends, and nobody can
use.

Each kind is bad for certain: its record is to stand in quarantine with its bytes and a reason.
`fuzz` alone, made as the fuzzers of `tests/fuzz` make theirs, may be a good event too, or nobody's.
"""

import importlib
import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from stream.hashing import partition_of_key
from stream.log import Headers

FUZZ = Path(__file__).resolve().parents[2] / "tests" / "fuzz"
CODECS = (None, None, None, "gzip", "snappy", "lz4", "zstd")
#: Bytes of zeros that a small record unpacks to: above what a record may take
#: (`decoded_bytes_max`), and far above.
BOMB_BYTES = (80 << 20, 160 << 20)
LARGE_BYTES = 3 << 20
LIE: Headers = (("control", b"heartbeat"),)


class Bad(NamedTuple):
    """A record to write. `topic` is the name without a prefix. `certain`: it is to be quarantined,
    or on a topic of the project's own to say nothing. `alone`: it is a batch of its own, packed
    with `codec`."""

    topic: str
    kind: str
    value: bytes | None
    key: bytes | None = b"s"
    headers: Headers = ()
    certain: bool = True
    codec: str | None = None
    alone: bool = False


class Now(NamedTuple):
    """What a maker of events knows of the moment and the place that its record is for."""

    ts_ms: int
    partition: int
    partitions: int


def good_event(now: Now, id: str = "x") -> dict[str, Any]:
    """An event that is right in everything, for this partition."""
    return {
        "id": id,
        "ts_ms": now.ts_ms,
        "session": session_of(now),
        "source": "u",
        "vendor": "v",
        "item": "i",
    }


def session_of(now: Now) -> str:
    """A session that is placed in this partition (T5)."""
    n = 0
    while partition_of_key(f"p{n}".encode(), now.partitions) != now.partition:
        n += 1
    return f"p{n}"


def _dump(event: object) -> bytes:
    return json.dumps(event).encode("utf-8", "surrogatepass")


# --- JSON
# --------------------------------------------------------------------------------------------------


def truncated(rng: random.Random, now: Now) -> bytes:
    whole = _dump(good_event(now))
    return whole[: rng.randrange(1, len(whole) - 1)]


def missing(rng: random.Random, now: Now) -> bytes:
    event = good_event(now)
    del event[rng.choice(("id", "ts_ms"))]
    return _dump(event)


def other_type(rng: random.Random, now: Now) -> bytes:
    name = rng.choice(("id", "ts_ms", "session", "source", "vendor"))
    odd: list[Any] = [True, [], {}, [1, 2], {"a": "b"}, 0.5, -1]
    return _dump({**good_event(now), name: rng.choice(odd)})


def surrogate(rng: random.Random, now: Now) -> bytes:
    name = rng.choice(("id", "session", "source", "vendor"))
    half = rng.choice(("\\ud800", "a\\udfffb", "\\udc00\\ud800"))
    return _dump({**good_event(now), name: "HALF"}).replace(b"HALF", half.encode())


def not_utf8(rng: random.Random, now: Now) -> bytes:
    return _dump({**good_event(now), "source": "RAW"}).replace(
        b"RAW", rng.choice((b"\xff", b"\xc3", b"\xed\xa0\x80"))
    )


def huge_integer(rng: random.Random, now: Now) -> bytes:
    digits = b"9" * rng.choice((20, 400, 5_000, 50_000))
    name = rng.choice(("ts_ms", "id"))
    return _dump({**good_event(now), name: 12345678901}).replace(b"12345678901", digits)


def deep(rng: random.Random, now: Now) -> bytes:
    depth = rng.choice((100, 2_000, 50_000))
    opened, closed = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    nest = opened * depth + b"1" + (closed * depth if rng.random() < 0.5 else b"")
    return _dump({**good_event(now), "ts_ms": 12345678901}).replace(b"12345678901", nest)


def untimely(rng: random.Random, now: Now) -> bytes:
    at_ms = rng.choice((0, -1, 1, now.ts_ms + 10**9, now.ts_ms - 10**10, 2**62, now.ts_ms * 1_000))
    return _dump({**good_event(now), "ts_ms": at_ms})


def misplaced(rng: random.Random, now: Now) -> bytes:
    other = now._replace(
        partition=(now.partition + 1 + rng.randrange(now.partitions - 1)) % now.partitions
    )
    return _dump({**good_event(now), "session": session_of(other)})


def long_name(rng: random.Random, now: Now) -> bytes:
    return _dump(
        {
            **good_event(now),
            rng.choice(("id", "source", "vendor")): "x" * rng.choice((1_025, 20_000)),
        }
    )


def no_json(rng: random.Random, now: Now) -> bytes:
    return rng.choice(
        (
            b"null",
            b"5",
            b'"x"',
            b"[1]",
            b"hello",
            b"\0",
            b"{}{}",
            b"[[[]]]",
            rng.randbytes(40) + b"!",
        )
    )


def many_fields(rng: random.Random, now: Now) -> bytes:
    fields = {f"junk{i}": i for i in range(rng.choice((100, 3_000)))}
    return _dump({**good_event(now), **fields, "ts_ms": "soon"})


def bad_page(rng: random.Random, now: Now) -> bytes:
    """A page view of which one impression is wrong: the record is, whole. As clicks, the record
    lacks an id."""
    shared = {"ts_ms": now.ts_ms, "session": session_of(now), "source": "u"}
    shown = [{"id": f"x{i}", "item": "i", "vendor": "v"} for i in range(rng.choice((3, 200)))]
    shown[rng.randrange(len(shown))]["id"] = ""
    return _dump({**shared, "impressions": shown})


def large_fields(rng: random.Random, now: Now) -> bytes:
    """Megabytes, of which the last value is wrong."""
    width = rng.choice((8, 1_000))
    fields = {f"j{i}": "x" * width for i in range(LARGE_BYTES // (width + 16))}
    return _dump({**good_event(now), **fields, "ts_ms": "soon"})


def large_array(rng: random.Random, now: Now) -> bytes:
    event = _dump(good_event(now))
    events = [event] * (LARGE_BYTES // len(event))
    return b"[" + b",".join([*events, rng.choice((b"1", b"{}", event[:-9]))]) + b"]"


# --- Arrow
# --------------------------------------------------------------------------------------------------


def arrow_bytes(
    columns: dict[str, pa.Array], compression: str | None = None, batches: int = 1
) -> bytes:
    batch = pa.record_batch(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(
        sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=compression)
    ) as writer:
        for _ in range(batches):
            writer.write_batch(batch)
    return sink.getvalue()


def good_columns(now: Now, rows: int) -> dict[str, pa.Array]:
    columns = {name: pa.array([value] * rows) for name, value in good_event(now).items()}
    return {**columns, "id": pa.array([f"x{i}" for i in range(rows)])}


def arrow_truncated(rng: random.Random, now: Now) -> bytes:
    whole = arrow_bytes(good_columns(now, rng.choice((1, 50))))
    return whole[: rng.randrange(8, len(whole) - 200)]


def arrow_behind(rng: random.Random, now: Now) -> bytes:
    return arrow_bytes(good_columns(now, 2)) + rng.randbytes(rng.choice((1, 100)))


def arrow_missing(rng: random.Random, now: Now) -> bytes:
    columns = good_columns(now, 3)
    del columns[rng.choice(("id", "ts_ms"))]
    return arrow_bytes(columns)


def arrow_types(rng: random.Random, now: Now) -> bytes:
    name = rng.choice(("id", "ts_ms", "source", "vendor", "session"))
    odd = [
        pa.array([b"x"] * 3, pa.binary()),
        pa.array([[1]] * 3),
        pa.array([{"a": 1}] * 3),
        pa.array([0.5] * 3, pa.float64()),
        pa.array([True] * 3),
    ]
    return arrow_bytes({**good_columns(now, 3), name: rng.choice(odd)})


def arrow_twice(rng: random.Random, now: Now) -> bytes:
    columns = good_columns(now, 2)
    batch = pa.RecordBatch.from_arrays([*columns.values(), columns["id"]], names=[*columns, "id"])
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def arrow_nulls(rng: random.Random, now: Now) -> bytes:
    columns = good_columns(now, 3)
    name = rng.choice(("id", "ts_ms"))
    columns[name] = pa.array([None, *columns[name].to_pylist()[1:]], columns[name].type)
    return arrow_bytes(columns)


def arrow_flipped(rng: random.Random, now: Now) -> bytes:
    """Its first message cannot be read."""
    data = bytearray(arrow_bytes(good_columns(now, 5)))
    for at in range(8, 40):
        data[at] = rng.randrange(256)
    data[4:8] = (rng.choice((2**31 - 1, -5))).to_bytes(4, "little", signed=True)
    return bytes(data)


def arrow_bomb(rng: random.Random, now: Now) -> bytes:
    """A few KB that unpack to more than a record may take."""
    zeros = pa.array([b"\0" * (rng.choice(BOMB_BYTES) // 8)] * 8, pa.binary())
    columns = {
        name: pa.concat_arrays([column] * 8) for name, column in good_columns(now, 1).items()
    }
    return arrow_bytes({**columns, "junk": zeros}, "zstd")


def arrow_rows(rng: random.Random, now: Now) -> bytes:
    """More rows than a record has positions (T4)."""
    rows = (1 << 20) + 1
    columns = {
        name: pa.array([value]).take(pa.array([0] * rows))
        for name, value in good_event(now).items()
    }
    return arrow_bytes({name: columns[name] for name in ("id", "ts_ms")}, "zstd")


def arrow_batches(rng: random.Random, now: Now) -> bytes:
    return arrow_bytes(good_columns(now, 1), batches=300)


# --- the table
# --------------------------------------------------------------------------------------------------

Maker = Callable[[random.Random, Now], bytes]
SMALL: tuple[Maker, ...] = (
    truncated,
    missing,
    other_type,
    surrogate,
    not_utf8,
    huge_integer,
    deep,
    untimely,
    misplaced,
    long_name,
    no_json,
    many_fields,
    bad_page,
    arrow_truncated,
    arrow_behind,
    arrow_missing,
    arrow_types,
    arrow_twice,
    arrow_nulls,
    arrow_flipped,
    arrow_batches,
)
LARGE: tuple[Maker, ...] = (large_fields, large_array, arrow_bomb, arrow_rows)
#: Of the bad events so many are large, and so many are made as the fuzzers make theirs.
LARGE_SHARE, FUZZ_SHARE, EMPTY_SHARE, LIE_SHARE = 0.002, 0.15, 0.02, 0.1


class Inputs:
    """Makes bad events. Records of megabytes are made once a kind and sent again."""

    def __init__(self, rng: random.Random):
        self._rng = rng
        self._kept: dict[tuple[str, int], list[bytes]] = {}
        self._events_made, self._mutations = _fuzzers()
        self._seeds = [self._events_made.json_value(rng) for _ in range(64)]
        self._seeds += [self._events_made.arrow_value(rng) for _ in range(64)]

    def make(self, topic: str, now: Now) -> Bad:
        rng, roll = self._rng, self._rng.random()
        codec = rng.choice(CODECS)
        headers = LIE if rng.random() < LIE_SHARE else ()
        if roll < EMPTY_SHARE:
            return Bad(
                topic,
                "empty",
                b"",
                b"s",
                rng.choice(((), (("control", b"x"),), (("a", b"\xff" * 500),))),
            )
        if roll < EMPTY_SHARE + FUZZ_SHARE:
            return Bad(
                topic,
                "fuzz",
                self._fuzz(now),
                b"s",
                tuple(self._events_made.headers(rng)),
                False,
                codec,
            )
        if roll < EMPTY_SHARE + FUZZ_SHARE + LARGE_SHARE:
            maker = rng.choice(LARGE)
            return Bad(
                topic,
                maker.__name__,
                self._large(maker, now),
                b"s",
                headers,
                True,
                "zstd",
                alone=True,
            )
        maker = rng.choice(SMALL)
        return Bad(
            topic, maker.__name__, maker(rng, now), session_of(now).encode(), headers, True, codec
        )

    def _large(self, maker: Maker, now: Now) -> bytes:
        kept = self._kept.setdefault((maker.__name__, now.partition), [])
        if len(kept) < 2:
            kept.append(maker(self._rng, now))
        return self._rng.choice(kept)

    def _fuzz(self, now: Now) -> bytes:
        rng = self._rng
        if rng.random() < 0.3:
            make = rng.choice((self._events_made.json_value, self._events_made.arrow_value))
            value: bytes = make(rng)
        else:
            value = self._mutations.mutated(rng.choice(self._seeds), self._seeds, rng)
        return value.replace(str(self._events_made.TS).encode(), str(now.ts_ms).encode())


def _fuzzers() -> tuple[Any, Any]:
    """The modules of `tests/fuzz` that make inputs, which is a folder of scripts."""
    if str(FUZZ) not in sys.path:
        sys.path.append(str(FUZZ))
    return importlib.import_module("events_made"), importlib.import_module("mutations")
