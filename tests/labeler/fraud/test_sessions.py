"""Made-up events in an honest person's name have their sessions rejected, and not the person
(F3)."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from fraud_site import MINUTE, T0, Site
from hypothesis import given
from hypothesis import strategies as st

from labeler.counting import SESSION_SIGNAL_SCHEMA, decode_signal
from labeler.fraud.filter import FraudFilter, run_step
from labeler.fraud.sessions import (
    ATTACK_CLICKS,
    SPARED_BELOW_ELSE,
    SPARED_MAX,
    Visits,
    _ratio,
    spared,
)
from labeler.fraud.tables import dict_tables
from labeler.fraud_config import FraudConfig
from labeler.labels import VerdictIndex, VerdictPoint
from stream import Record
from stream.hashing import hash_pair, hash_strings, session_of
from stream.internal_topics import Verdict, Watermark, decode_verdict, encode_verdict

CONFIG = FraudConfig(rate_prior_views=20, rate_prior=0.1)
MINE, MADE_UP = 11, 4_711


def visits(*rows):
    """(session, views, clicks, elsewhere), clicks far apart."""
    return Visits(
        *(np.array(column, np.int64) for column in zip(*((*row, 0) for row in rows), strict=True))
    )


def test_a_visit_as_people_make_them_is_spared_beside_one_that_only_clicks_there():
    seen = visits((MINE, 2, 1, 9), (MADE_UP, 40, 39, 0))
    assert spared(CONFIG, "repeated_clicks", seen, 0.05, 0.02) == (MINE,)
    assert spared(CONFIG, "slow_clicks", seen, 0.05, 0.02) == (MINE,)


def test_a_visit_of_a_lover_of_the_vendor_is_spared_beside_many_made_up_events():
    assert spared(
        CONFIG, "repeated_clicks", visits((MINE, 5, 3, 0), (MADE_UP, 63, 60, 0)), 0.05, 0.02
    ) == (MINE,)
    assert spared(
        CONFIG, "view_flood", visits((MINE, 7, 1, 0), (MADE_UP, 600, 0, 0)), 0.05, 0.02
    ) == (MINE,)


def test_a_short_visit_is_spared_where_a_score_outlives_made_up_events():
    """As bench.fraud's framing brings them: nothing else is left of the attack in the window, or
    next to nothing."""
    assert spared(CONFIG, "slow_clicks", visits((MINE, 1, 1, 3)), 0.05, 0.02) == (MINE,)
    assert spared(CONFIG, "slow_clicks", visits((MINE, 1, 1, 3)), 0.0976, 0.01) == (MINE,)
    assert spared(
        CONFIG, "slow_clicks", visits((MINE, 7, 2, 0), (MADE_UP, 2, 2, 0)), 0.034, 0.02
    ) == (MINE,)


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1])
def test_the_visits_of_a_slow_attack_are_meant_one_by_one(rate):
    for views, clicks, away in [
        (1, 1, 0),
        (1, 1, 1),
        (1, 0, 0),
        (2, 2, 2),
        (2, 1, 1),
        (4, 3, 1),
        (5, 4, 2),
    ]:
        assert (
            spared(CONFIG, "slow_clicks", visits((MADE_UP, views, clicks, away)), rate, 0.02) == ()
        )


SLOW_FROM, SLOW_TO, VISIT = 5, 900, 1_000


def slowly_framed(minute):
    """Somebody clicks slowly in the victim's name, for most of a day; an hour and more later the
    victim comes by."""
    if minute == VISIT:
        return [("victim", f"v{k}", 1, int(k == 1), MINE) for k in range(4)]
    return (
        [("victim", "v1", 1, 1, MADE_UP)]
        if SLOW_FROM <= minute < SLOW_TO and minute % 13 == 0
        else []
    )


@pytest.mark.long
def test_who_is_framed_slowly_keeps_a_visit_after_it():
    verdicts = [v for v in said_of(site_with(slowly_framed, minutes=1_010)) if v.source == "victim"]
    assert {v.rule for v in verdicts} >= {"slow_clicks"}
    assert all(MINE in v.spared for v in verdicts if v.from_ms <= T0 + VISIT * MINUTE < v.to_ms)
    late = [v for v in verdicts if v.from_ms <= T0 + (SLOW_TO - 60) * MINUTE < v.to_ms]
    assert late
    assert all(MADE_UP not in v.spared for v in late)


def test_an_attack_that_is_spread_over_sessions_is_meant_in_all_of_them():
    seen = visits(*((n, 1, 1, 0) for n in range(40)))
    assert len(spared(CONFIG, "repeated_clicks", seen, 0.05, 0.02)) < CONFIG.clicks_min
    assert spared(CONFIG, "botnet", seen, 0.05, 0.02) == ()


@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 3)),
        min_size=1,
        max_size=200,
    )
)
def test_what_is_spared_only_as_a_small_part_would_convict_nobody_by_itself(rows):
    seen = visits(
        *((n, max(views, clicks), clicks, away) for n, (views, clicks, away) in enumerate(rows))
    )
    left_out = np.isin(seen.session, spared(CONFIG, "repeated_clicks", seen, 0.05, 0.02))
    like_people = _ratio(seen, ATTACK_CLICKS, 0.05, CONFIG.share_floor) < SPARED_BELOW_ELSE
    assert left_out.sum() <= SPARED_MAX
    assert (
        seen.clicks[left_out & ~like_people].sum() < CONFIG.clicks_min
        or like_people.sum() >= SPARED_MAX
    )


def site_with(events, minutes=70):
    """Signals of an hour, or of more: `events` gives (source, vendor, views, clicks, session) of
    each minute."""
    site = Site()
    for minute in range(minutes):
        at = T0 + minute * MINUTE
        honest = [
            (f"h{minute % 30}-{k}", f"v{k}", 3, int(k == minute % 5), 100 + minute)
            for k in range(5)
        ]
        for place, name in ((2, "impressions/0"), (3, "clicks/0")):
            site.bucket(name, at, [])
            offset, empty = site.log[-1]
            did = [
                (one[0], one[1], one[place], one[4])
                for one in [*honest, *events(minute)]
                if one[place]
            ]
            site.log[-1] = (offset, replace(empty, rows=rows_of(did, at)))
    site.quiet(T0 + (minutes + 130) * MINUTE)
    return site


def rows_of(did, at):
    cell_ms = at // CONFIG.cell_ms * CONFIG.cell_ms
    rows = [
        (source, vendor, cell_ms, n, at, at + 50_000, 9_000, 0, -1, session)
        for source, vendor, n, session in did
    ]
    columns = zip(zip(*rows, strict=True), SESSION_SIGNAL_SCHEMA, strict=True)
    arrays = [pa.array(column, field.type) for column, field in columns]
    return pa.RecordBatch.from_arrays(arrays, schema=SESSION_SIGNAL_SCHEMA)


def said_of(site, crash_at=None):
    said, tables = [], dict_tables()
    one = FraudFilter(CONFIG, ["impressions/0"], ["clicks/0"], tables)
    for n, (offset, signal) in enumerate(site.log):
        again = decode_signal(Record(offset, 0, signal.key, signal.value, signal.headers))
        run_step(one, [(offset, again)], said.extend)
        if n == crash_at:
            one = FraudFilter(CONFIG, ["impressions/0"], ["clicks/0"], tables)
    return [v for v in said if isinstance(v, Verdict)]


def victim(minute):
    if minute in (20, 21):  # looks around, and likes one thing
        return [("victim", f"v{k}", 2, int(k == 1 and minute == 21), MINE) for k in range(5)]
    return [("victim", "v1", 2, 2, MADE_UP)] if 5 <= minute < 60 else []


@pytest.mark.parametrize("crash_at", [None, 30, 60, 90])
def test_who_is_framed_keeps_what_is_theirs(crash_at):
    verdicts = [v for v in said_of(site_with(victim), crash_at) if v.source == "victim"]
    assert verdicts
    meant = [v for v in verdicts if v.from_ms <= T0 + 21 * MINUTE < v.to_ms]
    assert all(MINE in v.spared and MADE_UP not in v.spared for v in meant)


def test_a_verdict_that_spares_sessions_is_obeyed_so():
    ids = hash_pair(pa.array(["mine", "made up", "mine"]), pa.array(["a", "b", "c"]))
    mine = int(session_of(ids)[0])
    verdict = Verdict("x/1", "x", "reject", "u", "v", 0, 10**13, "why", spared=(mine,))
    assert decode_verdict(encode_verdict(verdict)) == verdict
    verdict_index = VerdictIndex(["impressions/0"], VerdictPoint(0, {}))
    verdict_index.read(
        Record(n, 1, b"k", encode_verdict(said), ())
        for n, said in enumerate([verdict, Watermark("impressions/0", 10**13, 5)])
    )
    names = hash_strings(pa.array(["u"] * 3)), hash_strings(pa.array(["v"] * 3))
    ruling = verdict_index.rule(
        *names, np.full(3, 1_000), np.full(3, 2_000), pa.table({"x": [1, 2, 3]}), ids
    )
    assert ruling.rejected.tolist() == [False, True, False]
