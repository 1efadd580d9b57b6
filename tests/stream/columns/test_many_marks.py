"""Combining marks of a text that is normalised: all that anybody writes, no more than so many in a
row."""

import time
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.columns.derived import MARKS_MAX, normalised

#: Of different combining classes, so that they are put in order; one decomposes to two.
MARKS = "\u0301\u0316\u0334\u05b0\u0344\u3099"


def kept(text: str) -> str:
    """The rule of docs/features.md, a character at a time."""
    made, row = [], 0
    for character in text:
        row = row + 1 if unicodedata.combining(character) else 0
        if row <= MARKS_MAX:
            made.append(character)
    return "".join(made)


@given(
    st.lists(
        st.tuples(st.sampled_from("aÅ가ﬁ "), st.integers(0, 70), st.sampled_from(MARKS)), max_size=4
    ),
    st.sampled_from(("nfc", "nfkc")),
)
def test_of_marks_in_a_row_the_first_are_kept(parts, form):
    text = "".join(base + (mark + "\u0323") * (n // 2) + mark * (n % 2) for base, n, mark in parts)
    values = pa.array([text, "beside", ""])
    expected = unicodedata.normalize(form.upper(), kept(text))
    assert normalised(values, (form,)).to_pylist() == [expected, "beside", ""]


@pytest.mark.parametrize("form", ["nfc", "nfkc"])
def test_many_marks_cost_no_more_than_their_bytes(form):
    """16 KB took 31 ms, and each twice of it four times."""
    cpu_s = []
    for count in (1, 20_000, 200_000):  # the first makes the table of marks
        values = pa.array(["a" + "\u0301\u0316" * count])
        began = time.thread_time()
        normalised(values, (form,))
        cpu_s.append(time.thread_time() - began)
    assert cpu_s[2] < 1.0
    assert cpu_s[2] < 30 * max(cpu_s[1], 0.005)
