"""What one bad record costs its decoders, for `bench.poison`: CPU of the thread, beside a good
record of its size."""

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from bench.attacks.poison_inputs import (
    Now,
    arrow_bomb,
    arrow_bytes,
    arrow_rows,
    good_columns,
    good_event,
    session_of,
)
from stream import Record, StreamConfig
from stream.decoding import decode_activity, decode_clicks, decode_impressions
from stream.log import Headers, RecordColumns

#: Bytes; what is made of them is a little less, or a record of 4 MiB were above `record_bytes_max`.
SIZES = (1 << 16, 1 << 18, 1 << 20, 4 << 20)
MARGIN_BYTES = 200
#: What other threads and processes do on this core is no cost of a record: the least of so many
#: tries is one.
TRIES = 2
#: Costs below it are a call's, not a record's: ratios are to at least so much.
FLOOR_MS = 5.0
Maker = Callable[[random.Random, Now, int], bytes]


@dataclass(frozen=True)
class Cost:
    """`ratio`: to a good record of its size and form, of at least FLOOR_MS: an array of events, a
    page view, an Arrow stream."""

    kind: str
    size: int
    cpu_ms: float
    ratio: float


def costs(stream: StreamConfig, rng: random.Random, now: Now) -> Iterator[Cost]:
    """Of every kind and size, one at a time."""
    for right in GOOD:
        _least_ms(right(rng, now, SIZES[0]), stream, now)  # compiles
    for size in SIZES:
        good = {right: _least_ms(right(rng, now, size), stream, now) for right in GOOD}
        for maker in JSON + PAGES + ARROW:
            value = maker(rng, now, size - MARGIN_BYTES)[:size]
            than = good[_good_of(maker)]
            cpu_ms = _least_ms(value, stream, now)
            yield Cost(maker.__name__, len(value), cpu_ms, cpu_ms / max(than, FLOOR_MS))
        cpu_ms = _least_ms(b"{}", stream, now, tuple(("x", b"") for _ in range(size // 4)))
        yield Cost("headers", size, cpu_ms, cpu_ms / max(good[good_json], FLOOR_MS))
    for bomb in (arrow_bomb, arrow_rows):
        value = bomb(rng, now)
        cpu_ms = _least_ms(value, stream, now)
        yield Cost(bomb.__name__, len(value), cpu_ms, cpu_ms / FLOOR_MS)


def _least_ms(value: bytes, stream: StreamConfig, now: Now, headers: Headers = ()) -> float:
    """The dearest of the three decoders that read a record of an input."""
    records = RecordColumns.of([Record(0, now.ts_ms, session_of(now).encode(), value, headers)])
    arrival_ms = np.array([now.ts_ms])
    readers: tuple[Callable[[], object], ...] = (
        lambda: decode_impressions(records, now.partition, arrival_ms, stream),
        lambda: decode_clicks(records, now.partition, arrival_ms, stream),
        lambda: decode_activity(records, now.partition, arrival_ms, False, stream),
    )
    return max(min(_ms(read) for _ in range(TRIES)) for read in readers)


def _ms(read: Callable[[], object]) -> float:
    began = time.thread_time()
    read()
    return (time.thread_time() - began) * 1_000


def _good_of(maker: Maker) -> Maker:
    return good_arrow if maker in ARROW else good_page if maker in PAGES else good_json


# --- good ones
# --------------------------------------------------------------------------------------------------


def good_json(rng: random.Random, now: Now, size: int) -> bytes:
    """An array of events."""
    events = [json.dumps(good_event(now, f"x{i:06}")).encode() for i in range(max(1, size // 140))]
    return b"[" + b",".join(events) + b"]"


def good_page(rng: random.Random, now: Now, size: int) -> bytes:
    """A page view."""
    return json.dumps({**_shared(now), "impressions": _shown(size)}).encode()


def _shared(now: Now) -> dict[str, object]:
    return {"ts_ms": now.ts_ms, "session": session_of(now), "source": "u"}


def _shown(size: int) -> list[dict[str, str]]:
    return [{"id": f"x{i}", "item": "i", "vendor": "v"} for i in range(max(1, size // 50))]


def good_arrow(rng: random.Random, now: Now, size: int) -> bytes:
    return arrow_bytes(good_columns(now, max(1, size // 60)))


# --- bad ones
# --------------------------------------------------------------------------------------------------


def cut_off(rng: random.Random, now: Now, size: int) -> bytes:
    return good_json(rng, now, size)[:-5]


def last_wrong(rng: random.Random, now: Now, size: int) -> bytes:
    return good_json(rng, now, size)[:-1] + b',{"id":5}]'


def last_early(rng: random.Random, now: Now, size: int) -> bytes:
    return (
        good_json(rng, now, size)[:-1]
        + b","
        + json.dumps({**good_event(now), "ts_ms": 0}).encode()
        + b"]"
    )


def all_wrong(rng: random.Random, now: Now, size: int) -> bytes:
    return good_json(rng, now, size).replace(b'"ts_ms": ', b'"ts_ms":-')


def deep_arrays(rng: random.Random, now: Now, size: int) -> bytes:
    return b"[" * size


def deep_objects(rng: random.Random, now: Now, size: int) -> bytes:
    return b'{"a":' * (size // 5)


def digits(rng: random.Random, now: Now, size: int) -> bytes:
    return b'{"id":"i","ts_ms":' + b"9" * size + b"}"


def integers(rng: random.Random, now: Now, size: int) -> bytes:
    return b'{"id":"i","ts_ms":[' + b"9," * (size // 2) + b"9]}"


def fields(rng: random.Random, now: Now, size: int) -> bytes:
    """One object of as many fields as fit."""
    names = b",".join(b'"j%d":1' % i for i in range(size // 12))
    return b"{" + names + b',"id":"i","ts_ms":"soon"}'


def fields_twice(rng: random.Random, now: Now, size: int) -> bytes:
    return b"{" + b'"id":"i",' * (size // 9) + b'"ts_ms":1}'


def long_text(rng: random.Random, now: Now, size: int) -> bytes:
    return json.dumps({**good_event(now), "source": "x" * size}).encode()


def halves(rng: random.Random, now: Now, size: int) -> bytes:
    return b'{"id":"' + b"\\ud800" * (size // 6) + b'"}'


def empty_objects(rng: random.Random, now: Now, size: int) -> bytes:
    return b"[" + b"{}," * (size // 3) + b"{}]"


def empty_impressions(rng: random.Random, now: Now, size: int) -> bytes:
    return b'{"ts_ms":1,"impressions":[' + b"{}," * (size // 3 - 10) + b"{}]}"


def quotes(rng: random.Random, now: Now, size: int) -> bytes:
    return b'"' * size


def backslashes(rng: random.Random, now: Now, size: int) -> bytes:
    return b'{"id":"' + b"\\" * size


def noise(rng: random.Random, now: Now, size: int) -> bytes:
    return b"{" + rng.randbytes(size)


def page(rng: random.Random, now: Now, size: int) -> bytes:
    """A page view of which the last impression has no id."""
    shown = [*_shown(size), {"item": "i"}]
    return json.dumps({**_shared(now), "impressions": shown}).encode()


def arrow_null(rng: random.Random, now: Now, size: int) -> bytes:
    columns = good_columns(now, max(2, size // 60))
    return arrow_bytes(
        {**columns, "id": pa.concat_arrays([columns["id"][:-1], pa.nulls(1, pa.string())])}
    )


def arrow_cut(rng: random.Random, now: Now, size: int) -> bytes:
    return good_arrow(rng, now, size)[: size * 2 // 3]


def arrow_fields(rng: random.Random, now: Now, size: int) -> bytes:
    """Of as many columns as fit, one of which is of another type."""
    junk = {f"j{i}": pa.array([1], pa.int8()) for i in range(max(1, size // 300))}
    return arrow_bytes({**good_columns(now, 1), **junk, "ts_ms": pa.array([0.5])})


def arrow_batches_full(rng: random.Random, now: Now, size: int) -> bytes:
    """As many batches as fit."""
    return arrow_bytes(good_columns(now, 1), batches=max(1, size // 600))


def arrow_dictionary(rng: random.Random, now: Now, size: int) -> bytes:
    """A long string that stands in every row by its number."""
    rows, text = size // 24, "x" * (size // 3)
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))
    numbers = {"ts_ms": pa.array(np.zeros(rows, np.int64))}
    return arrow_bytes({"id": column, **numbers})


JSON: tuple[Maker, ...] = (
    cut_off,
    last_wrong,
    last_early,
    all_wrong,
    deep_arrays,
    deep_objects,
    digits,
    integers,
    fields,
    fields_twice,
    long_text,
    halves,
    empty_objects,
    quotes,
    backslashes,
    noise,
)
PAGES: tuple[Maker, ...] = (empty_impressions, page)
ARROW: tuple[Maker, ...] = (
    arrow_null,
    arrow_cut,
    arrow_fields,
    arrow_batches_full,
    arrow_dictionary,
)
GOOD: tuple[Maker, ...] = (good_json, good_page, good_arrow)
