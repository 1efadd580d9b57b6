"""The fraud filter's core: counted once, judged together, sent in order, whatever is repeated or
cut short."""

import contextlib
from typing import Any

import numpy as np
import pytest
from fraud_site import (
    CELL,
    CLICKS,
    MINUTE,
    T0,
    VIEWS,
    Crash,
    Fuse,
    FusedLog,
    FusedTable,
    Log,
    Site,
    covered,
    run_over_crashes,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler.fraud.activity_pages import counts_in
from labeler.fraud.filter import FilterStep, FraudFilter, run_step
from labeler.fraud.sent_watermarks import sent_watermarks
from labeler.fraud.tables import TABLES, Tables, dict_tables, pair_key
from labeler.fraud.vendor_history import VendorHistory
from labeler.fraud_config import FraudConfig
from stream import Partition, StreamConfig
from stream.internal_topics import Verdict, Watermark, encode_verdict
from stream.log import MemoryLog

CONFIG = FraudConfig(rate_prior_views=20, rate_prior=0.5, flood_known_views_min=20)


def make(tables: Tables | None = None, config: FraudConfig = CONFIG) -> FraudFilter:
    return FraudFilter(config, [VIEWS], [CLICKS], tables if tables is not None else dict_tables())


def run(site: Site, size: int = 3) -> Log:
    log, one = Log(), make()
    for at in range(0, len(site.log), size):
        run_step(one, site.log[at : at + size], log)
    log.check()
    return log


def honest_hour(site: Site, start_ms: int, sources: int = 12) -> None:
    """People who look at three vendors and click on about half."""
    for minute in range(0, 60, 5):
        at = start_ms + minute * MINUTE
        views = [(f"u{n}", f"v{n % 3}", 2) for n in range(sources)]
        site.bucket(VIEWS, at, views)
        site.bucket(CLICKS, at, [(source, vendor, 1) for source, vendor, _ in views])


def clicker(site: Site, start_ms: int, clicks: int = 200) -> None:
    for minute in range(60):
        at = start_ms + minute * MINUTE
        count = clicks * (minute + 1) // 60 - clicks * minute // 60
        site.bucket(VIEWS, at, [("bad", "v1", count)] if count else [])
        site.bucket(CLICKS, at, [("bad", "v1", count)] if count else [])


def flooder(site: Site, start_ms: int, views: int = 400) -> None:
    for minute in range(60):
        at = start_ms + minute * MINUTE
        count = views * (minute + 1) // 60 - views * minute // 60
        site.bucket(VIEWS, at, [("rival", "v2", count)])
        site.bucket(CLICKS, at, [])


def attacked(offset_ms: int = 0) -> Site:
    site = Site()
    honest_hour(site, T0)
    clicker(site, T0 + 60 * MINUTE + offset_ms)
    flooder(site, T0 + 180 * MINUTE + offset_ms)
    site.quiet(T0 + 300 * MINUTE)
    return site


@pytest.mark.parametrize("offset_ms", [0, MINUTE, CELL // 2, CELL - 1])
def test_every_event_of_an_attack_is_covered_wherever_it_begins(offset_ms: int):
    verdicts = run(attacked(offset_ms)).verdicts
    for minute in range(60):
        assert covered(verdicts, "bad", "v1", T0 + (60 + minute) * MINUTE + offset_ms), minute
        assert covered(verdicts, "rival", "v2", T0 + (180 + minute) * MINUTE + offset_ms), minute
    assert {(v.rule, v.source) for v in verdicts} == {
        ("repeated_clicks", "bad"),
        ("view_flood", "rival"),
    }
    assert all(v.reason and v.evidence for v in verdicts)


def test_an_event_is_judged_before_its_label_may_be_closed():
    """A verdict that covers an event stands before all watermarks have passed it by cell + settle,
    once the attack is large enough; by a whole window at the latest (L3)."""
    site, log, one = attacked(), Log(), make()
    for record in site.log:
        run_step(one, [record], log)
    low = {VIEWS: 0, CLICKS: 0}
    judged: list[Verdict] = []
    for record in log.sent:
        if isinstance(record, Verdict):
            judged.append(record)
            continue
        low[record.input] = record.watermark_ms
        done = min(low.values()) - 65 * MINUTE
        for minute in range(60):
            if T0 + (60 + minute) * MINUTE < done:
                assert covered(judged, "bad", "v1", T0 + (60 + minute) * MINUTE)


def test_nobody_is_judged_on_views_whose_clicks_are_still_to_come():
    site = Site()
    honest_hour(site, T0)
    for minute in range(60):
        site.bucket(VIEWS, T0 + (60 + minute) * MINUTE, [("fan", "v1", 5), ("fan", "v2", 5)])
    one, log = make(), Log()
    run_step(one, site.log, log)
    for minute in range(60):
        site.bucket(CLICKS, T0 + (60 + minute) * MINUTE, [("fan", "v1", 2), ("fan", "v2", 2)])
    site.quiet(T0 + 200 * MINUTE)
    run_step(one, site.log[-62:], log)
    assert log.verdicts == []


def test_a_fan_of_one_vendor_who_clicks_like_others_is_left_alone():
    site = Site()
    honest_hour(site, T0)
    for minute in range(60):
        at = T0 + (60 + minute) * MINUTE
        site.bucket(VIEWS, at, [("fan", "v1", 6)])
        site.bucket(CLICKS, at, [("fan", "v1", 3)])
    site.quiet(T0 + 200 * MINUTE)
    assert run(site).verdicts == []


def test_what_is_sent_again_convicts_nobody():
    site = Site()
    honest_hour(site, T0)
    site.ids = 1 << 40 | 1 << 3 | 1 << 17  # three impressions and their clicks, many times
    clicker(site, T0 + 60 * MINUTE)
    flooder(site, T0 + 180 * MINUTE)
    site.quiet(T0 + 300 * MINUTE)
    assert run(site).verdicts == []


def test_many_sources_devoted_to_one_vendor_are_named_each_and_honest_visitors_are_not():
    site = Site()
    for minute in range(60):
        site.bucket(VIEWS, T0 + minute * MINUTE, [(f"u{minute % 12}", f"v{minute % 3}", 20)])
        site.bucket(CLICKS, T0 + minute * MINUTE, [(f"u{minute % 12}", f"v{minute % 3}", 2)])
    for minute in range(60):
        at = T0 + (60 + minute) * MINUTE
        bots = [(f"bot{minute}", "v1", 3)]
        people = [(f"u{minute % 12}", "v1", 20), (f"u{minute % 12}", "v2", 20)]
        site.bucket(VIEWS, at, [*bots, *people])
        site.bucket(CLICKS, at, [*bots, *((source, vendor, 1) for source, vendor, _ in people)])
    site.quiet(T0 + 200 * MINUTE)
    config = FraudConfig(rate_prior_views=20, rate_prior=0.1, devoted_prior=0.05, rules=("botnet",))
    one, log = make(config=config), Log()
    for record in site.log:
        run_step(one, [record], log)
    for minute in range(60):
        assert covered(log.verdicts, f"bot{minute}", "v1", T0 + (60 + minute) * MINUTE)
    assert all(
        verdict.source is not None and verdict.source.startswith("bot") for verdict in log.verdicts
    )
    assert {verdict.rule for verdict in log.verdicts} == {"botnet"}


def test_clicks_without_a_vendor_speak_for_their_source():
    site = Site()
    honest_hour(site, T0)
    for minute in range(60):
        at = T0 + (60 + minute) * MINUTE
        site.bucket(VIEWS, at, [("fan", "v1", 6)])
        site.bucket(CLICKS, at, [("fan", "", 3)])
    site.quiet(T0 + 200 * MINUTE)
    assert run(site).verdicts == []


def test_a_repeat_changes_no_count_and_its_verdicts_are_sent_again():
    site = attacked()
    tables, log = dict_tables(), Log()
    one = make(tables)
    run_step(one, site.log, log)
    counts, history = counts_in(tables.activity), dict(tables.history)
    again = one.on_signals(site.log[-140:])
    assert {v.id for v in again.verdicts} <= {v.id for v in log.verdicts}
    assert again.verdicts
    one.commit(again)
    assert counts_in(tables.activity) == counts
    assert tables.history == history
    assert one.counts.repeats == 140


def test_a_verdict_covers_the_window_that_was_judged():
    """F3a: whole cells, as many as a window has, and the last of them is the one judged."""
    log = run(attacked())
    assert log.verdicts
    for verdict in log.verdicts:
        assert verdict.to_ms - verdict.from_ms == CONFIG.span * CONFIG.cell_ms
        assert verdict.from_ms % CONFIG.cell_ms == 0
        assert f"/{verdict.from_ms}/{verdict.to_ms}/" in verdict.id


@pytest.mark.parametrize("restarts", [False, True])
def test_two_single_clicks_in_a_row_are_fast_over_a_restart_too(restarts: bool):
    """Each is alone in its signal; the gap is between the two."""
    site, tables = Site(), dict_tables()
    site.bucket(CLICKS, T0, [("u", "v", 1)])  # its last click is 5 s later
    site.bucket(CLICKS, T0 + 5_000 + CONFIG.gap_fast_ms // 2, [("u", "v", 1)])
    one = make(tables)
    run_step(one, site.log[:1], Log())
    if restarts:
        one = make(tables)
    run_step(one, site.log[1:], Log())
    clicks, fast = (sum(row[at] for row in counts_in(tables.activity).values()) for at in (1, 2))
    assert (clicks, fast) == (2, 1)


def test_a_dangling_signal_is_ignored_and_counted():
    site, one = attacked(), make()
    one.on_signals(site.log[:4])
    watermarks = one.watermarks
    one.on_signals((4 + n, signal) for n, (_, signal) in enumerate(site.log[6:]))
    assert one.counts.dangling == len(site.log) - 6
    assert one.counts.gaps == 0
    assert one.watermarks == watermarks


@settings(max_examples=settings.default.max_examples // 10)
@given(first=st.integers(2, 40), gone=st.integers(1, 30), crash=st.integers(0, 20))
def test_behind_signals_that_are_gone_the_filter_goes_on(first: int, gone: int, crash: int):
    """What is gone is unknown; and wherever the filter is made anew, it knows that something is
    missing."""
    site, tables = attacked(), dict_tables()
    site.quiet(T0 + 500 * MINUTE)
    one, log, gaps = make(tables), Log(), 0
    left = [
        record
        for record in site.log
        if not first <= record[0] < min(first + gone, len(site.log) - 4)
    ]
    for n, record in enumerate(left):
        run_step(one, [record], log)
        if n == first + crash:
            gaps = one.counts.gaps
            one = make(tables)
    log.check()
    assert 1 <= gaps + one.counts.gaps <= 2
    ends = {signal.input: signal.end for _, signal in site.log}
    assert {name: tables.progress[name][0] for name in ends} == ends
    assert one.watermarks == dict.fromkeys(ends, T0 + 501 * MINUTE)
    assert one.counts.dangling == 0


@pytest.mark.long
def test_cells_and_rows_are_forgotten():
    site, tables = Site(), dict_tables()
    one, log = make(tables), Log()
    for hour in range(30):
        honest_hour(site, T0 + hour * 60 * MINUTE)
    for record in site.log:
        run_step(one, [record], log)
    cells = {cell for _, _, cell in counts_in(tables.activity)}
    assert len(cells) <= 3 * CONFIG.span
    site.quiet(T0 + 100 * 60 * MINUTE)
    site.quiet(T0 + 101 * 60 * MINUTE)
    for record in site.log[-4:]:
        run_step(one, [record], log)
    assert len(tables.activity) == 0
    assert one.rows["vendors"] == 3


@pytest.mark.long
def test_what_there_is_no_room_for_is_counted_by_vendor_alone_and_convicts_nobody():
    site, tables, most = attacked(), dict_tables(), 8 + 3  # and one a vendor
    config = FraudConfig(rate_prior_views=20, rate_prior=0.5, pairs_max=8)
    one, log = make(tables, config), Log()
    for record in site.log[: len(site.log) // 2]:
        run_step(one, [record], log)
    again = make(tables, config)  # the same rows, read back
    assert again.rows["pairs"] <= most
    for record in site.log[len(site.log) // 2 :]:
        run_step(again, [record], log)
    assert one.counts.vendor_only > 0
    assert max(one.rows["pairs"], again.rows["pairs"]) <= most
    assert log.verdicts
    assert {verdict.source for verdict in log.verdicts} <= {"bad", "rival"}


@settings(max_examples=settings.default.max_examples // 10)
@given(
    crashes=st.lists(st.integers(1, 400), max_size=6),
    size=st.integers(1, 40),
    commit_every=st.integers(1, 9),
)
def test_crashes_anywhere_lose_nothing(crashes: list[int], size: int, commit_every: int):
    site = attacked()
    plain = run(site, size)
    log = run_over_crashes(make, site, crashes, size, commit_every)
    assert {v.id for v in log.verdicts} == {v.id for v in plain.verdicts}
    assert final(log) == final(plain)
    assert before_watermarks(log, plain)


def final(log: Log) -> dict[str, int]:
    return {r.input: r.watermark_ms for r in log.sent if isinstance(r, Watermark)}


def before_watermarks(log: Log, plain: Log) -> bool:
    """Each verdict stands before the first watermarks that stand behind it in a run without
    crashes."""

    def low_at(sent: list[Verdict | Watermark]) -> dict[str, int]:
        low, seen = {VIEWS: 0, CLICKS: 0}, {}
        for record in sent:
            if isinstance(record, Watermark):
                low[record.input] = max(low[record.input], record.watermark_ms)
            else:
                seen.setdefault(record.id, min(low.values()))
        return seen

    crashed, smooth = low_at(log.sent), low_at(plain.sent)
    return all(crashed[id] <= smooth[id] for id in smooth)


@pytest.mark.parametrize(("size", "left"), [(7, 71), (7, 73), (3, 71), (5, 72)])
def test_a_verdict_is_not_found_again_with_what_is_usual_since(size: int, left: int):
    """History is written before the fold position: a crash between them judges cells again whose
    verdicts stand in the log, and beside a history that has gone on."""
    plain = {verdict.id: verdict.evidence for verdict in run(attacked()).verdicts}
    site, log, stores = attacked(), FusedLog(), [FusedTable() for _ in TABLES]
    for fuse in (Fuse(left), Fuse(10**9)):
        log.fuse = fuse
        for store in stores:
            store.fuse = fuse
        with contextlib.suppress(Crash):
            one = make(Tables(*stores))
            for at in range(one.next_offset, len(site.log), size):
                step = one.on_signals(site.log[at : at + size])
                log(step.verdicts)
                log(step.watermarks)
                if at // size % 3 == 0:
                    one.commit(step)
    log.check()
    assert [verdict for verdict in log.verdicts if verdict.evidence != plain[verdict.id]] == []
    assert {verdict.id for verdict in log.verdicts} == plain.keys()


def test_tables_that_have_lost_their_last_rows_send_no_lower_watermark():
    """As of a new disk whose changelogs were read short of their ends: the log says what was
    sent."""
    site, log, stores = attacked(), Log(), [{} for _ in TABLES]
    one = make(Tables(*stores))
    before: list[dict[str, object]] = []
    for at in range(0, len(site.log), 9):
        run_step(one, site.log[at : at + 9], log)
        if at == 90:
            before = [dict(store) for store in stores]
    memory = MemoryLog(lambda: 0)
    for topic in ("verdicts", "impressions", "clicks"):
        memory.create(topic, 1)
        memory.append(Partition(topic, 0), b"")
    for said in log.sent:
        memory.append(Partition("verdicts", 0), encode_verdict(said))
    memory.append(Partition("verdicts", 0), b"nonsense")
    for lie in (Watermark(VIEWS, 10**14, 2 << 20), Watermark("clicks/7", 10**14, 0)):
        memory.append(Partition("verdicts", 0), encode_verdict(lie))
    sent = sent_watermarks(memory, StreamConfig(partitions=1))
    assert sent == one.watermarks
    late = FraudFilter(CONFIG, [VIEWS], [CLICKS], Tables(*before), sent)
    assert late.next_offset < len(site.log) - 9, "it begins far behind"
    for at in range(late.next_offset, len(site.log), 4):
        run_step(late, site.log[at : at + 4], log)
    log.check()


def test_a_lost_commit_counts_nothing_twice():
    site, tables, log = attacked(), dict_tables(), Log()
    smooth = dict_tables()
    run_step(make(smooth), site.log, Log())
    for _ in range(3):
        one = make(tables)
        assert one.next_offset == 0
        one.on_signals(site.log[:70])
        one.save()  # counted and written, and then the process dies
    step: FilterStep = run_step(make(tables), site.log, log)
    assert step.next_offset == len(site.log)
    assert counts_in(tables.activity) == counts_in(smooth.activity)


@given(st.text(max_size=3), st.text(max_size=3), st.text(max_size=3), st.text(max_size=3))
def test_pair_keys_are_unambiguous(source: str, vendor: str, other: str, third: str):
    assert (pair_key(source, vendor) == pair_key(other, third)) == (
        (source, vendor) == (other, third)
    )


def test_config_names_what_is_wrong():
    with pytest.raises(ValueError, match="rules = \\['speed'\\]"):
        FraudConfig(rules=("speed",))
    with pytest.raises(ValueError, match="clicks_surprise = 2"):
        FraudConfig(clicks_surprise=2)
    with pytest.raises(ValueError, match="window_ms = 1"):
        FraudConfig(window_ms=1)


@pytest.mark.parametrize("junk", [(30, "views"), (60, "views"), (40, "clicks")])
def test_a_flood_of_junk_sources_and_vendors_blinds_nobody(junk: tuple[int, str]):
    """Each junk source is seen once; room is for a fraction of them."""
    count, kind = junk
    site, number = Site(), 0
    honest_hour(site, T0)
    for minute in range(60):
        at = T0 + (60 + minute) * MINUTE
        rows = [
            (f"junk-{number + k}", f"junk-vendor-{(number + k) % 7_000}", 1) for k in range(count)
        ]
        number += count
        site.bucket(VIEWS, at, [*rows, ("bad", "v1", 1)])
        site.bucket(CLICKS, at, [*(rows if kind == "clicks" else []), ("bad", "v1", 1)])
    site.quiet(T0 + 240 * MINUTE)
    one, log = make(config=FraudConfig(rate_prior_views=20, rate_prior=0.5, pairs_max=400)), Log()
    for record in site.log:
        run_step(one, [record], log)
        assert one.rows["pairs"] <= 401
        assert one.rows["sources"] <= 402
    assert one.counts.vendor_only > 0
    assert {v.source for v in log.verdicts} == {"bad"}
    for minute in range(60):
        assert covered(log.verdicts, "bad", "v1", T0 + (60 + minute) * MINUTE), minute


def test_history_forgets_the_smallest_vendors_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("labeler.fraud.vendor_history.VENDORS_MAX", 600)
    table: dict[str, Any] = {}
    history = VendorHistory(FraudConfig(), table)
    for cell in range(1, 30):
        junk = [f"junk-{cell}-{k}" for k in range(100)]
        history.add(
            cell, ["large", *junk], np.array([500.0, *[1.0] * 100]), np.array([50.0, *[0.0] * 100])
        )
        history.write()
        assert len(history) <= 600
    assert history.click_rate("large") == pytest.approx(0.1, abs=0.01)
    again = VendorHistory(FraudConfig(), table)
    assert len(again) == len(history)
    assert again.newest == history.newest == 29
    assert again.click_rate("large") == history.click_rate("large")
    assert again.share("large") == history.share("large")
    assert len(table) <= 600 // 256 + 2
