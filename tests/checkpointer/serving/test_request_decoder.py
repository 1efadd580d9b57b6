"""The one pass over a request finds what a parser of any JSON finds, or leaves it to that."""

import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from checkpointer.json_rows.tokens import (
    FAILED,
    number,
    passed,
    place,
    string_stop,
    unescaped,
)
from checkpointer.serving.request import BadRequest
from checkpointer.serving.request import given as read_any
from checkpointer.serving.request_decoder import RequestDecoder
from learners import ModelConfig
from learners.models import Encoder, TextEncoder

ROWS_MAX = 6
CONFIG = ModelConfig(
    categorical=("source", "item", "user", "eight_ch", "a_long_name_of_a_feature", "user*item"),
    numeric=("price", "shown_at"),
    serving={"eight_ch": 5},
)
ENCODER = TextEncoder(Encoder(CONFIG))
DECODER = RequestDecoder(ENCODER)


def at_once(body: bytes):
    """What the one pass makes of a body; None = nothing."""
    return DECODER._read(DECODER._names, body, ROWS_MAX)


def as_any(body: bytes):
    return DECODER.of_given(read_any(body, ENCODER.features, ROWS_MAX)).values


def assert_same(body: bytes, is_read: bool | None = None) -> None:
    """Equal bits by both ways, where the one pass reads it."""
    found = at_once(body)
    if is_read is not None:
        assert (found is not None) == is_read, body
    if found is None:
        return
    expected = as_any(body)
    assert found.rows == expected.rows
    assert found.numbers.astype("f4").tobytes() == expected.numbers.astype("f4").tobytes()
    assert found.parts[1:].tobytes() == expected.parts[1:].tobytes()
    own = ~found.own & ~expected.own
    assert found.parts[0, own].tobytes() == expected.parts[0, own].tobytes()


def data(text: str | bytes):
    return np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8)


texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "i1", "0123456", "01234567", "012345678", "\0", '"\\/', "ж", "\U0001f600"]
    ),
)
numbers = st.one_of(
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from([0, -0.0, 1e22, 1e-22, 9.5, 1e38, 3.5e38, 10**30, 2**53, 2**53 + 1]),
)
names = {"user": texts, "eight_ch": texts, "a_long_name_of_a_feature": texts, "price": numbers}
odd = st.sampled_from([None, True, 5, 1.5, "x", [], {}, [1], {"user": "u"}])
bags = st.fixed_dictionaries({}, optional={n: st.one_of(st.none(), v) for n, v in names.items()})
rows = st.fixed_dictionaries(
    {},
    optional={
        "source": st.one_of(st.none(), texts),
        "vendor": texts,
        "item": texts,
        "position": st.one_of(st.none(), st.integers(0, 2**31 - 1)),
        "id": st.one_of(texts, numbers, st.booleans(), st.none()),
        "ts_ms": numbers,
        "features": st.one_of(st.none(), bags),
    },
)
#: Rows of the same fields in the same order, which are read by the first one.
alike = st.lists(
    st.builds(
        lambda source, item, user, price, last: {
            "source": source,
            "features": {"user": user, "price": price},
            "item": item,
            **last,
        },
        st.one_of(st.none(), texts),
        texts,
        texts,
        st.one_of(st.none(), numbers),
        st.sampled_from([{}, {}, {}, {"vendor": "v"}, {"features": {}}, {"position": 3}]),
    ),
    max_size=ROWS_MAX,
)
bodies = st.builds(
    lambda rows, context, first, ascii, indent: json.dumps(
        {"context": context, "rows": rows} if first else {"rows": rows, "context": context},
        ensure_ascii=ascii,
        indent=indent,
    ).encode("utf-8", "surrogatepass"),
    st.one_of(st.lists(rows, max_size=ROWS_MAX + 1), alike),
    st.one_of(st.none(), rows),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 0, 1, "\t"]),
)


@settings(max_examples=settings.default.max_examples * 3, deadline=None)
@given(bodies)
def test_both_ways_find_the_same(body):
    assert_same(body)


@settings(max_examples=settings.default.max_examples * 2, deadline=None)
@given(bodies, st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=2)), max_size=3))
def test_a_changed_body_is_read_as_any_json_says_or_not_at_all(body, changes):
    for at, new in changes:
        at %= len(body) + 1
        body = body[:at] + new + body[at + 1 :]
    try:
        as_any(body)
    except BadRequest:
        assert at_once(body) is None
        return
    assert_same(body)


@pytest.mark.parametrize(
    "body",
    [
        '{"rows":[]}',
        ' {\t"rows" :\n[ {\r} , {"features" : { } } ] } ',
        '{"rows":[{"item":"i"}],"context":null}',
        '{"context":{"source":"s","features":{"price":2}},"rows":[{"source":null},{"source":""}]}',
        '{"rows":[{"item":"\\u00e9\\ud83d\\ude00\\"\\\\\\/\\b\\f\\n\\r\\t"}]}',
        '{"rows":[{"item":"ж"},{"features":null},{"position":7,"id":"x","ts_ms":1,"session":true}]}',
        '{"rows":[{"features":{"price":-12.5e-3}},{"features":{"price":1E2}}]}',
        '{"rows":[{"id":false,"session":null,"ts_ms":-1.5}]}',
        '{"rows":[{"item":"i","features":{"user":"a"}},{"item":"j","features":{"user":null}},'
        '{"item":"\\n","features":{"user":"b","price":2}},{"item":"k","features":{}},{}]}',
        '{"rows":[{"features":null,"item":"i"},{"features":null,"item":"j"},{"features":{}}]}',
    ],
)
def test_what_is_usual_is_read_at_once(body):
    assert_same(body.encode(), is_read=True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b'{"rows":[]',
        b'{"rows":[]}x',
        b'{"rows":[],}',
        b'{"rows":[{}]]}',
        b'{"rows":[{},]}',
        b'{"rows":[{"item":"i",}]}',
        b'{"rows":[{"item":"i" "source":"s"}]}',
        b'{"rows":[{,}]}',
        b'{"rows":[{"item"}]}',
        b'{"rows":[{"item":}]}',
        b'{"rows":[{"item":"i}]}',
        b'{"rows":[{"item":"\x01"}]}',
        b'{"rows":[{"item":"\xff"}]}',
        b'{"rows":[{"item":"\\ud83d"}]}',
        b'{"rows":[{"item":"\\ude00"}]}',
        b'{"rows":[{"item":"\\ud83d\\u0041"}]}',
        b'{"rows":[{"item":"\\u00g0"}]}',
        b'{"rows":[{"item":"\\x"}]}',
        b'{"rows":[{"item":5}]}',
        b'{"rows":[{"item":nul}]}',
        b'{"rows":[{"it\\u0065m":"i"}]}',
        b'{"rows":[{"size":"i"}]}',
        b'{"rows":[{"user":"u"}]}',
        b'{"rows":[{"features":{"item":"u"}}]}',
        b'{"rows":[{"features":{"size":"xl"}}]}',
        b'{"rows":[{"features":[]}]}',
        b'{"rows":[{"features":{"price":"1"}}]}',
        b'{"rows":[{"features":{"price":01}}]}',
        b'{"rows":[{"features":{"price":1.}}]}',
        b'{"rows":[{"features":{"price":.5}}]}',
        b'{"rows":[{"features":{"price":-}}]}',
        b'{"rows":[{"features":{"price":1e}}]}',
        b'{"rows":[{"features":{"price":NaN}}]}',
        b'{"rows":[{"features":{"price":1e39}}]}',
        b'{"rows":[{"position":-1}]}',
        b'{"rows":[{"position":1.0}]}',
        b'{"rows":[{"position":2147483648}]}',
        b'{"rows":[{"id":[]}]}',
        b'{"rows":[{"id":{}}]}',
        b'{"rows":[],"rows":[]}',
        b'{"rows":[{"item":"i","item":"j"}]}',
        b'{"rows":[{"features":{"user":"a","user":"b"}}]}',
        b'{"rows":[{"features":{},"features":{}}]}',
        b'{"rows":[{"item":"i","item":null}]}',
        b'{"rows":[{"item":"i"},{"item":"i","item":"j"}]}',
        b'{"rows":[{"features":{"user":"a"}},{"features":{"user":"b"},"features":{}}]}',
        b'{"rows":[{"features":{},"item":"i"},{"features":{},"item":"i","features":{}}]}',
        b'{"rows":[{"features":null,"item":"i"},{"features":null,"item":"i","features":{}}]}',
        b'{"rows":[{"item":"i"},{"item":"i"',
        b'{"rows":[{"item":"i"},{"item":5}]}',
        b'{"rows":null}',
        b'{"context":{}}',
        b'{"columns":{"item":["i"]}}',
        b'{"rows":[' + b"{}," * ROWS_MAX + b"{}]}",
    ],
)
def test_what_is_unusual_is_left_to_a_parser_of_any_json(body):
    assert at_once(body) is None


def test_a_long_string_is_left():
    for begins in ("", "\\n", "ж"):
        bytes_ = len(json.loads(f'"{begins}"').encode())
        for size, is_read in ((1_024 - bytes_, True), (1_025 - bytes_, False)):
            text = begins + "x" * size
            assert_same(f'{{"rows":[{{"item":"{text}"}}]}}'.encode(), is_read)


@settings(max_examples=settings.default.max_examples * 3, deadline=None)
@given(st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers()), st.booleans())
@example(0.1, False)
@example(123456789012345678, False)
@example(-5e-324, True)
def test_numbers_are_those_of_python(value, small):
    text = f"{value:.6e}" if small else repr(value)
    end, found = number(data(text + ","), np.uint64(0))
    if end != FAILED:
        assert end == len(text)
        assert (found, math.copysign(1, found)) == (float(text), math.copysign(1, float(text)))
    elif abs(value) < 1e6 and "e" not in text and len(text) < 16:
        assert float(text) == 0


@settings(deadline=None)
@given(texts, st.booleans())
def test_strings_are_those_of_python(text, ascii):
    written = json.dumps(text, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    out = np.empty(200, np.uint8)
    end, size = unescaped(data(written), np.uint64(1), out)
    assert end == len(written) - 1
    assert out[:size].tobytes() == text.encode("utf-8", "surrogatepass")
    if b"\\" not in written:
        assert string_stop(data(written), np.uint64(1)) == end


@pytest.mark.parametrize("ends", range(1, 20))
def test_the_end_of_a_string_is_found_wherever_it_stands(ends):
    for byte in (b'"', b"\\"):
        for behind in (b"", b'"x' * 10):
            text = b"\x7f\xc3\xa9~ !#[]"[:ends].ljust(ends, b"a") + byte + behind
            assert string_stop(data(text), np.uint64(0)) == ends
    assert string_stop(data(b"a" * ends), np.uint64(0)) == FAILED
    assert string_stop(data(b"a" * ends + b"\x1f" + b'"' * 9), np.uint64(0)) == FAILED


def test_places_are_whole_numbers_from_0():
    out = np.empty(9, np.uint8)
    for text, expected in (("0", 0), ("12,", 12), (str(2**31 - 1), 2**31 - 1)):
        assert place(data(text), np.uint64(0))[1] == expected
    for text in ("", "x", "-1", "1.5", "1e2", "00", str(2**31), "9" * 11):
        assert place(data(text), np.uint64(0))[0] == FAILED
    for text, end in (("true", 4), ("false", 5), ("null", 4), ("-1.5", 4), ('"a"', 3)):
        assert passed(data(text), np.uint64(0), out) == end
    for text in ("tru", "nul", "False", "{", "[", '"', '"a', "-"):
        assert passed(data(text), np.uint64(0), out) == FAILED
