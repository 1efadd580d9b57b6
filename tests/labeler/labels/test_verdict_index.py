"""What of `verdicts` is held, and what it decides."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from labeler.labels import VerdictPoint
from labeler.labels.verdict_index import VerdictIndex
from stream import Record
from stream.hashing import hash_strings
from stream.internal_topics import (
    ALLOW,
    REJECT,
    RELEASE,
    WITHHOLD,
    Verdict,
    Watermark,
    encode_verdict,
)

NAMES = st.none() | st.sampled_from(("a", "b", "c"))
SAID = st.one_of(
    st.builds(Watermark, st.just("x"), st.integers(0, 60), st.just(0)),
    st.builds(
        lambda decision, source, vendor, from_ms, length_ms: Verdict(
            f"{decision}/{source}/{vendor}/{from_ms}/{length_ms}",  # a repeat says the same
            "rule",
            decision,
            source,
            vendor if source or vendor else "v",
            from_ms,
            from_ms + length_ms,
            "",
        ),
        st.sampled_from((REJECT, REJECT, ALLOW, WITHHOLD, RELEASE)),
        NAMES,
        NAMES,
        st.integers(0, 60),
        st.integers(1, 9),
    ),
)


@given(st.lists(SAID | st.integers(0, 60), min_size=10, max_size=60))
def test_what_nobody_needs_changes_no_ruling(acts):
    """Of rows that may still come, wherever what is over is forgotten."""
    once, forgetful = (VerdictIndex(["x"], VerdictPoint(0, {})) for _ in range(2))
    covers_from_ms = 0
    for offset, act in enumerate(acts):
        if isinstance(act, int):
            covers_from_ms = max(covers_from_ms, act)
            forgetful.need(0, 0, covers_from_ms)
        else:
            record = Record(offset, 0, None, encode_verdict(act))
            once.read([record])
            forgetful.read([record])
    ts_ms = np.arange(max(0, covers_from_ms - 5), covers_from_ms + 20)
    table = pa.table({"source": ["a", "b", "c", "d", "a"] * 5, "vendor": list("vwvab") * 5})
    table = table.slice(0, len(ts_ms))
    source, vendor = (
        hash_strings(table.column(one).combine_chunks()) for one in table.schema.names
    )
    decides_from_ms = np.full(len(ts_ms), covers_from_ms)
    expected, found = (
        index.rule(source, vendor, ts_ms, ts_ms + 30, table, None, decides_from_ms)
        for index in (once, forgetful)
    )
    for one, other in zip(expected, found, strict=True):
        if one.dtype == np.bool_:
            assert one.tolist() == other.tolist()
    assert [once.verdict(at).id if at >= 0 else "" for at in expected.by] == [
        forgetful.verdict(at).id if at >= 0 else "" for at in found.by
    ]
