"""C8: every decoder of an internal topic answers a value or raises MalformedRecord, and nothing
else."""

import contextlib
import json
import logging
import sys
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointer.gates import Evaluations
from checkpointer.store import decode as decode_announcement
from everspun.status import Quality
from labeler.breaker import decode_band, decode_tally
from labeler.counting import SIGNAL_SCHEMA, Signal, decode_signal
from labeler.io import set_asides
from labeler.labels import rejected_ids
from learners.governor.window import scored
from learners.process import as_batch
from learners.training import Published
from stream.internal_topics import malformed
from stream.internal_topics.examples import BatchHeader, decode_examples, examples_schema
from stream.internal_topics.malformed import MalformedRecord, json_object
from stream.internal_topics.passed_over import PassedOver
from stream.internal_topics.retracted import Again
from stream.internal_topics.verdicts import Verdict, Watermark, decode_verdict, encode_verdict
from stream.record import Partition, Record

VERDICT = json.loads(
    encode_verdict(Verdict("i", "r", "reject", "s", None, 1, 2, "why", {"n": 1.0}))
)
WATERMARK = json.loads(encode_verdict(Watermark("impressions/0", 5, 7)))
ANNOUNCEMENT = {
    "kind": "published",
    "model": "m",
    "number": 1,
    "name": "n",
    "url": "u",
    "manifest_sha256": "s",
}
EVALUATION = {
    "model": "m",
    "chain": "label/0",
    "start": 1,
    "end": 2,
    "rows": 3,
    "log_loss_sum": 0.5,
}
BODIES = (VERDICT, WATERMARK, ANNOUNCEMENT, EVALUATION)
HEADERS = BatchHeader("label/0", 0, 1 << 20, "s", "c", watermarks={"impressions/0": 5}).to_headers()
SIGNAL = Signal("impressions/0", 0, 1 << 20, 0, 1, 0, 0, None)

#: What a field may hold that nobody expects.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.sampled_from(
        [
            10**400,
            float("nan"),
            float("inf"),
            -1,
            2**63,
            1 << 53,
            "\ud800",
            "\0",
            "٣",
            "",
            [],
            {},
            [[]],
        ]
    ),
    st.text(max_size=5),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
JUNK = st.one_of(
    st.none(),
    st.binary(max_size=40),
    st.sampled_from([b"[]", b"5", b"null", b"[" * 10**5, b"1" * 5000]),
)


def record(value: bytes | None, headers: Any = ()) -> Record:
    return Record(0, 1_700_000_000_000, b"", value, tuple(headers))


def read_by_all(value: bytes | None, headers: Any = ()) -> None:
    """Every decoder, as its readers call it."""
    one = record(value, headers)
    readers = (
        lambda: decode_verdict(value),
        lambda: decode_announcement(value),
        lambda: decode_signal(one),
        lambda: decode_band(one),
        lambda: decode_tally(value),  # type: ignore[arg-type]
        lambda: decode_examples(value),  # type: ignore[arg-type]
        lambda: as_batch(0, one),
        lambda: rejected_ids(one),
        lambda: Published("m", True, 10).announced(json_object("checkpoints", value).body),
        lambda: scored("m", json_object("evaluations", value).body),
        lambda: Evaluations("m").add(json_object("evaluations", value).body),
        lambda: Again.decode((value or b"").decode("latin-1")),
    )
    for read in readers:
        with contextlib.suppress(MalformedRecord):
            read()
    set_asides([one])
    Quality("m").add(value or b"")
    evaluations = Evaluations("m")
    try:
        evaluations.add(json_object("evaluations", value).body)
    except MalformedRecord:
        return
    json.dumps(vars(evaluations.sums({"label/0": 10**30})))


@given(value=JUNK)
def test_bytes(value: bytes | None):
    read_by_all(value)
    read_by_all(value, HEADERS)
    read_by_all(value, (("set_aside", b"1"),))


@settings(max_examples=settings.default.max_examples * 3)
@given(body=st.sampled_from(BODIES), field=st.integers(0, 20), odd=ODD, drop=st.booleans())
def test_fields_of_another_kind(body: dict[str, Any], field: int, odd: Any, drop: bool):
    said = dict(body)
    name = sorted(said)[field % len(said)]
    if drop:
        del said[name]
    else:
        said[name] = odd
    read_by_all(json.dumps(said).encode())


@settings(max_examples=settings.default.max_examples * 3)
@given(
    at=st.integers(0, 40),
    value=st.none() | st.binary(max_size=12) | st.just(b"9" * 5000),
    twice=st.booleans(),
)
def test_headers_of_another_kind(at: int, value: bytes | None, twice: bool):
    for headers in (HEADERS, (*SIGNAL.headers, ("points", b"0=1:2:3"), ("cell", b"1"))):
        found = list(headers)
        name = found[at % len(found)][0]
        if twice:
            found.append((name, value))  # type: ignore[arg-type]
        elif value is None:
            del found[at % len(found)]
        else:
            found[at % len(found)] = (name, value)
        read_by_all(b"", found)


@settings(max_examples=settings.default.max_examples * 2)
@given(data=st.data())
def test_flipped_and_cut_arrow(data: st.DataObject):
    schema = data.draw(st.sampled_from([SIGNAL_SCHEMA, examples_schema(())]))
    columns = [
        pa.array(["a", "b"] if pa.types.is_string(f.type) else [1, 2]).cast(f.type) for f in schema
    ]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    value = bytearray(sink.getvalue().to_pybytes())
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(value)))
    read_by_all(bytes(value[:cut]) if data.draw(st.booleans()) else bytes(value), SIGNAL.headers)


@pytest.mark.parametrize("name", ["label/1", "word/0", "label/x", "label", "\xff"])
def test_a_chain_that_has_no_place_in_a_partition(name: str):
    headers = [(n, name.encode("latin-1") if n == "chain" else v) for n, v in HEADERS]
    with pytest.raises(MalformedRecord):
        as_batch(0, record(b"", headers))


def test_what_is_right_is_read():
    assert decode_verdict(json.dumps(VERDICT).encode()) == Verdict(
        "i", "r", "reject", "s", None, 1, 2, "why", {"n": 1.0}
    )
    assert decode_announcement(json.dumps(ANNOUNCEMENT).encode()).number == 1
    assert decode_signal(record(b"", SIGNAL.headers)) == SIGNAL
    assert as_batch(0, record(None, HEADERS)).end == 1 << 20
    assert Evaluations("m").add(EVALUATION)
    assert Partition("examples", 0).partition == 0


@pytest.mark.long
def test_rows_that_unpack_to_too_much_are_refused_before_they_are():
    one = [
        pa.array(["" if pa.types.is_string(f.type) else 0] * 1_000, f.type) for f in SIGNAL_SCHEMA
    ]
    columns = [pa.concat_arrays([column] * 2_000) for column in one]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(
        sink, SIGNAL_SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as writer:
        writer.write_batch(pa.record_batch(columns, schema=SIGNAL_SCHEMA))
    bomb = sink.getvalue().to_pybytes()
    assert len(bomb) < 1 << 20
    with pytest.raises(MalformedRecord, match="bytes unpacked, allowed are 67108864"):
        decode_signal(record(bomb, SIGNAL.headers))


def test_what_is_passed_over_is_not_held():
    """One may be of megabytes."""
    passed_over, one = PassedOver(logging.getLogger(__name__)), record(b"x" * 1_000)
    before = sys.getrefcount(one)
    passed_over.add(
        Partition("signals", 0), one, MalformedRecord("signals", "value", "no Arrow stream")
    )
    assert sys.getrefcount(one) == before
    assert len(passed_over) == 1


@pytest.mark.parametrize("body", BODIES)
def test_a_field_that_stands_there_twice_says_nothing(body: dict[str, Any]):
    """A parser takes the last of them, and who wrote it may have meant the first."""
    text = json.dumps(body)
    for name in body:
        twice = text.replace("{", f'{{"{name}": 1, ', 1)
        with pytest.raises(MalformedRecord, match=f"'{name}': the field stands there twice"):
            json_object("checkpoints", twice.encode())
    with pytest.raises(MalformedRecord, match="'a': the field stands there twice"):
        json_object("checkpoints", text.replace("{", '{"x": [{"a": 1, "a": 1}], ', 1).encode())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("watermarks", b"~a=1,2;a=3"),
        ("watermarks", b"a=1,b=2,a=3"),
        ("topic_ids", b"impressions=x,clicks=y,impressions=z"),
    ],
)
def test_what_stands_twice_within_a_header_says_nothing(name: str, value: bytes):
    headers = tuple((n, value if n == name else v) for n, v in HEADERS if n != "topic_ids")
    headers += ((name, value),) if name == "topic_ids" else ()
    with pytest.raises(MalformedRecord, match=f"header {name}.*stands there twice"):
        BatchHeader.from_headers(headers)


def test_an_offset_of_a_list_without_rows_is_not_followed():
    """Arrow passes it over where it validates, and aborts the process where it flattens."""
    offset = pa.py_buffer((240).to_bytes(4, "little"))
    schema = pa.schema([*examples_schema(()), pa.field("f_tags", pa.list_(pa.string()))])
    columns = [pa.array([], field.type) for field in schema]
    columns[-1] = pa.Array.from_buffers(schema[-1].type, 0, [None, offset], children=[columns[6]])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    read = decode_examples(sink.getvalue().to_pybytes())
    assert read.num_rows == 0
    assert read.column("f_tags").flatten().to_pylist() == []


class ComparedName(str):
    """Counts how often it is compared with another."""

    compared = 0
    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        ComparedName.compared += 1
        return str.__eq__(self, other)


def test_a_repeated_name_behind_many_is_found_in_one_pass():
    """One record of 300 kB took 13 s: each name was compared with every other."""
    count = 2_000
    names = [ComparedName(f"n{i}") for i in range(count)]
    with pytest.raises(ValueError, match="n1999"):
        malformed._object([(name, 0) for name in (*names, ComparedName("n1999"))])
    assert ComparedName.compared < 10 * count
