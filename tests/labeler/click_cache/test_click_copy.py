"""The local copy of waiting clicks: whatever a labeler finds of it at a start, it writes the
same bytes (C4, I7)."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_partition import CONFIG, SEEDS, Run, logs_of
from test_strategies import CORRECT

from labeler.click_cache.cache import ClickCopy, PagesFailed
from labeler.click_cache.page import ClickPage, decode_page, encode_page
from labeler.click_cache.spilled import SpilledClicks
from labeler.join import ClickLimits, ResumePoint, label_strategies
from stream import Record
from stream.decoding import BadRecord
from stream.log.rows import MemoryStorage

POINT = ResumePoint(1 << 20, arrival_max_ms=900, clicks_offset=10, clicks_arrival_max_ms=100)


def page(first, end, before_ms, ids=None, bad=(), barriers=()):
    """A record an offset, a click a record, 10 ms apart."""
    offset = np.arange(first, end)
    arrival = before_ms + 10 * np.arange(1, end - first + 1)
    ids = np.array(offset if ids is None else ids, np.uint64)
    rows = np.ones(end - first, np.int32)
    return ClickPage(
        first,
        end,
        before_ms,
        offset,
        arrival,
        rows,
        offset << 20,
        ids,
        arrival,
        arrival,
        bad,
        barriers,
    )


def copy(pages, config="now", aside=()):
    return ClickCopy(pages, "label/clicks/0", config, aside)


def covered(pages, point=POINT, **changed):
    """The offsets that a labeler at this point takes from the copy."""
    return [
        offset for page in copy(pages, **changed).restore(point) for offset in page.offset.tolist()
    ]


def three_pages():
    pages = MemoryStorage()
    written = copy(pages)
    for first in (8, 12, 16):
        written.write(page(first, first + 4, 80 + 10 * (first - 8)))
    return pages


# --- what covers a resume point
# -------------------------------------------------------------------------------------


def test_a_page_comes_back_as_it_was():
    headers = (("producer", b"p"), ("twice", b"1"), ("twice", b"\xff"))
    bad = [
        BadRecord(Record(4, 105, b"k", b"{", headers), "value", "no JSON"),
        BadRecord(Record(5, 1, None, None), "a", "b"),
    ]
    was = page(3, 7, 90, bad=bad, barriers=[(1, 110)])
    got, config, aside = decode_page(encode_page(was, "now", [4]))
    assert (config, aside) == ("now", [4])
    for name in vars(was):
        assert (
            np.array_equal(getattr(got, name), getattr(was, name))
            if name != "bad"
            else got.bad == was.bad
        )
    assert decode_page(b"something else") is None


def test_it_is_used_from_the_resume_point_on():
    pages = three_pages()
    assert covered(pages) == list(range(10, 20))
    assert covered(pages, replace(POINT, clicks_offset=8, clicks_arrival_max_ms=80)) == list(
        range(8, 20)
    )
    assert len(pages.keys(b"")) == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"clicks_offset": 6, "clicks_arrival_max_ms": 60},  # begins behind the point
        {"clicks_offset": 20, "clicks_arrival_max_ms": 200},  # ends before it
        {"clicks_arrival_max_ms": 101},  # of another log
        {"arrival_max_ms": 0},  # nothing was labelled: the logs may be new ones
    ],
)
def test_it_is_not_used_where_it_does_not_cover_the_resume_point(changed):
    pages = three_pages()
    assert covered(pages, replace(POINT, **changed)) == []
    assert pages.keys(b"") == []


def test_it_is_used_up_to_a_hole_a_page_of_another_config_and_an_order_of_an_operator():
    pages = three_pages()
    middle = pages.keys(b"")[1]
    (kept,) = pages.get([middle])
    assert covered(three_pages(), aside=[13]) == [10, 11]
    assert covered(three_pages(), aside=[3, 30]) == list(range(10, 20))
    assert covered(three_pages(), config="another") == []
    pages.write([middle], [encode_page(page(12, 16, 120), "another", [])])
    assert covered(pages) == [10, 11]
    pages = three_pages()
    pages.write([middle], [None])
    assert covered(pages) == [10, 11]
    assert kept is not None
    assert len(pages.keys(b"")) == 1


def test_pages_below_a_resume_point_are_deleted():
    pages = MemoryStorage()
    held = copy(pages)
    for first in (8, 12, 16):
        held.write(page(first, first + 4, 80 + 10 * (first - 8)))
    held.forget(15)
    assert len(pages.rows) == 2
    with pytest.raises(PagesFailed, match="page 8 is gone"):
        held.read(8)


# --- what waits in it
# -----------------------------------------------------------------------------------------------

IDS = st.integers(1, 6).map(lambda n: (n * 0x9E3779B97F4A7C15) % 2**64)


@settings(max_examples=settings.default.max_examples // 2, deadline=None)
@given(st.lists(st.lists(IDS, min_size=1, max_size=6), min_size=1, max_size=20), st.data())
def test_spilled_clicks_match_as_those_in_memory(chunks, data):
    stored, clicks, at = {}, [], 0
    spilled = SpilledClicks(lambda first: stored[first])
    for chunk in chunks:
        one = page(at, at + len(chunk), 10 * at, chunk)
        stored[at] = one
        spilled.push(one)
        clicks.append(list(zip(chunk, one.arrival_ms.tolist(), strict=True)))
        at += len(chunk)
    for _ in range(data.draw(st.integers(0, len(chunks) - 1))):
        assert spilled.pop().id.tolist() == [id for id, _ in clicks.pop(0)]
    assert len(spilled) == sum(map(len, clicks))
    wanted = data.draw(st.lists(st.tuples(IDS, st.integers(0, 10 * at)), min_size=1, max_size=8))
    ids, shown = np.array([id for id, _ in wanted], np.uint64), np.array([ts for _, ts in wanted])
    found = spilled.match(ids, shown, shown, ClickLimits(60, 60, 20, 0))
    counted = sum(one.clicks for one in found) if found else np.zeros(len(ids), np.int64)
    for (id, ts), count in zip(wanted, counted.tolist(), strict=True):
        assert count == sum(
            id == other and 0 <= when - ts <= 60 for page in clicks for other, when in page
        )


def test_a_spilled_click_costs_few_bytes_and_a_stranger_no_look_up():
    n, stored = 4_096, {}
    spilled = SpilledClicks(lambda first: stored[first])
    rng = np.random.default_rng(1)
    for k in range(92):  # the segments so far are about full
        stored[k * n] = page(k * n, (k + 1) * n, 10 * k * n, rng.integers(1, 2**64, n, np.uint64))
        spilled.push(stored[k * n])
    assert spilled.bytes / len(spilled) <= 6
    ids = rng.integers(1, 2**64, n, np.uint64)
    spilled.match(ids, np.zeros(n, np.int64), np.zeros(n, np.int64), ClickLimits(1, 1, 1, 0))
    assert spilled.lookups <= 5
    ids[7] = stored[9 * n].id[3]
    found = spilled.match(
        ids, np.zeros(n, np.int64), np.zeros(n, np.int64), ClickLimits(1 << 40, 1 << 40, 0, 0)
    )
    assert sum(one.clicks for one in found)[7] == 1


# --- a labeler with a copy
# --------------------------------------------------------------------------------------------


class Disk:
    """What the starts of one labeler find: its copy as it was left, an old one, one with a hole,
    another's, or none."""

    def __init__(self, rng):
        self.rng, self.pages, self.before = rng, MemoryStorage(), {}

    def __call__(self):
        old, self.before = self.before, dict(self.pages.rows)
        kind = self.rng.choice(("own", "own", "old", "hole", "foreign", "none"))
        if kind == "old":
            self.pages.rows = dict(old)
        if kind == "hole" and self.pages.rows:
            del self.pages.rows[self.rng.choice(list(self.pages.rows))]
        if kind == "foreign":
            for key, value in self.pages.rows.items():
                self.pages.rows[key] = encode_page(decode_page(value)[0], "another config", [])
        if kind == "none":
            self.pages.rows.clear()
        return self.pages


@settings(max_examples=settings.default.max_examples // 8)
@given(
    SEEDS,
    st.booleans(),
    st.sampled_from((0.1, 0.4, 1.0)),
    st.sampled_from((1, 6, 100)),
    st.integers(0, 2),
)
def test_whatever_the_copy_holds_no_byte_changes(seed, fraud, crash, poll_max, which):
    config = CONFIG if which == 2 else CORRECT
    logs, strategy = logs_of(seed, fraud), label_strategies(config)[which % 2]
    straight = Run(*logs, random.Random(1), config=config, strategy=strategy).finish()
    rng = random.Random(seed)
    out = Run(*logs, rng, crash, poll_max, config, strategy, pages=Disk(rng)).finish()
    assert [(e.header, e.value, e.before) for e in out] == [
        (e.header, e.value, e.before) for e in straight
    ]


@pytest.mark.long
def test_a_restart_takes_clicks_from_the_copy_and_spills_what_is_too_much():
    restored = spilled = 0
    for seed in range(20):
        pages = MemoryStorage()
        run = Run(
            *logs_of(seed, False), random.Random(seed), crash=0.3, pages=lambda pages=pages: pages
        )
        while run.run_once():
            restored += run.labeler.clicks.restored
            spilled += run.labeler.clicks.spilled
    assert restored > 100
    assert spilled > 100
