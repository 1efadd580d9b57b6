"""The header of watermarks: short, and what was put in (C4)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.config import PARTITIONS_MAX, StreamConfig
from stream.internal_topics.examples import BatchHeader
from stream.internal_topics.watermarks import pack_watermarks, unpack_watermarks

MS = st.integers(0, 10**14)


@given(
    st.lists(MS, max_size=6),
    st.lists(MS, max_size=6),
    st.dictionaries(st.sampled_from(["a", "b", "x/7"]), MS),
)
def test_what_is_packed_is_unpacked(views: list[int], clicks: list[int], others: dict[str, int]):
    marks = {f"t.impressions/{p}": ms for p, ms in enumerate(views)} | {
        f"clicks/{p}": ms for p, ms in enumerate(clicks)
    }
    for watermarks in (marks, others, marks | others):
        assert unpack_watermarks(pack_watermarks(watermarks)) == watermarks


def test_older_records_are_read():
    assert unpack_watermarks("clicks/0=5,impressions/0=7") == {"clicks/0": 5, "impressions/0": 7}


@pytest.mark.parametrize(
    "raw", ["clicks", "clicks=", "=5", "a/0=x", "~clicks=5,-6", "a=٣", ";", "~a=5;;b=6", "~a=1e3"]
)
def test_what_is_none_is_refused(raw: str):
    with pytest.raises(ValueError, match=r"expected|no time"):
        unpack_watermarks(raw)


def test_headers_grow_by_a_few_bytes_a_partition():
    at = 1_700_000_000_000
    marks = {
        f"{topic}/{p}": at + 500 * (p % 3)
        for topic in ("impressions", "clicks", "breaker")
        for p in range(64)
    }
    header = BatchHeader("label/0", 0, 1 << 20, "s", "c", watermarks=marks)
    assert sum(len(name) + len(value) for name, value in header.to_headers()) < 1_800
    assert BatchHeader.from_headers(header.to_headers()) == header


def test_more_partitions_than_a_header_holds_are_refused():
    with pytest.raises(ValueError, match=f"up to {PARTITIONS_MAX}"):
        StreamConfig(partitions=PARTITIONS_MAX + 1)
