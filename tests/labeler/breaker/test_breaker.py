"""The breaker on the stories it is for, and on a healthy shop's nights and sale days, cell by
cell (L8)."""

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pytest

from labeler.breaker.band_record import BandRecord, decode_band
from labeler.breaker.bands import lower_tail, upper_tail
from labeler.breaker.breaker import Breaker, open_scopes
from labeler.breaker.early_join import TALLY_SCHEMA, tally_stream
from labeler.breaker_config import BreakerConfig, check_breaker
from stream import Record, StreamConfig
from stream.columns import Feature
from stream.internal_topics import (
    OPERATOR,
    RELEASE,
    WITHHOLD,
    BatchHeader,
    Verdict,
    decode_verdict,
    encode_verdict,
)

STREAM = StreamConfig(
    partitions=2, categorical_features=("language", "partner", "discounted"), release_ms=21_600_000
)
CONFIG = BreakerConfig(slices=("language", "partner", "discounted"), cell_ms=900_000, cells_max=4)
CELL, DAY = CONFIG.cell_ms, 96
FIRST = 1_700_006_400_000 // CELL  # a midnight
LANGUAGES = {"en": 0.6, "de": 0.3, "fi": 0.1}


@dataclass
class Shop:
    """Traffic of a shop by cell: twenty times as much in the evening as in the night, and click
    shares that differ from hour to hour by a tenth and between day and night by a third."""

    seed: int = 1
    per_cell: float = 6_000.0  # impressions, on average
    rate: float = 0.03
    stories: list = field(
        default_factory=list
    )  # (first cell, cell after the last, what(counts) changes them)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.hour = 1.0

    def cell(self, n):
        """{"impressions": {(lang, partner, discounted): count}, "clicks": same, "raw", "bad"}"""
        phase = np.cos(2 * np.pi * (n % DAY) / DAY)
        if n % 4 == 0:
            self.hour = float(np.exp(self.rng.normal(0, 0.1)))
        counts = {
            "load": 1.0 - 0.9 * phase,
            "share": self.hour * (1.0 - 0.15 * phase),
            "lost": {},
            "raw": 1.0,
        }
        counts |= {"bad": 0.001, "gone": {}, "fewer": 1.0}
        for first, last, change in self.stories:
            if first <= n < last:
                change(counts, (n - first) / (last - first))
        impressions, clicks, raw, bad = {}, {}, 0, 0
        for language, part in LANGUAGES.items():
            for partner, share in (("own", 0.8), ("acme", 0.2)):
                for discounted, third in (("no", 0.7), ("yes", 0.3)):
                    key = (language, partner, discounted)
                    mean = self.per_cell * counts["load"] * part * share * third * counts["fewer"]
                    mean *= np.prod([1 - counts["gone"].get(k, 0) for k in key])
                    impressions[key] = int(self.rng.poisson(mean))
                    rate = min(0.9, self.rate * counts["share"])
                    came = int(self.rng.binomial(impressions[key], rate))
                    kept = float(np.prod([1 - counts["lost"].get(k, 0) for k in (*key, "all")]))
                    clicks[key] = int(self.rng.binomial(came, kept))
                    raw += (
                        came
                        if counts["raw"] == 1.0
                        else int(clicks[key] + (came - clicks[key]) * counts["raw"])
                    )
                    bad += int(self.rng.binomial(came, counts["bad"]))
        return impressions, clicks, int(raw / counts["fewer"]), bad


class Log:
    """Everything that a breaker sent, and a breaker that may be restored from it at any time."""

    def __init__(self, config=CONFIG, groups=16):
        """`groups`: into how many the sources of any cell fall: as many people at most."""
        self.config, self.groups = config, groups
        self.stream = tally_stream(STREAM, config)
        self.bands, self.verdicts, self.watermarks, self.tallies = [], [], [], {0: [], 1: []}
        self.breaker = Breaker(self.stream, config)
        self.rng = np.random.default_rng(0)
        self.drawn = deque()  # cells of the shop from the next one on

    def feed(self, shop, first, last):
        ahead = (
            CELL - 1 + self.stream.wait_ms
        ) // CELL  # a range counts the clicks up to its impressions' deadline
        for n in range(first, last):
            while len(self.drawn) <= ahead:
                self.drawn.append(shop.cell(n + len(self.drawn)))
            impressions, clicks, *_ = self.drawn.popleft()
            *_, raw, bad = self.drawn[ahead - 1]
            for p in (0, 1):
                half = {
                    k: (
                        v // 2 if p else v - v // 2,
                        clicks[k] // 2 if p else clicks[k] - clicks[k] // 2,
                    )
                    for k, v in impressions.items()
                }
                self.tally(p, n, half, raw // 2, bad // 2)
            self.step()
        return self

    def tally(self, p, n, counts, raw, bad):
        rows = {("", ""): [0, 0]}
        for key, (seen, clicked) in counts.items():
            for scope in (("", ""), *zip(("language", "partner", "discounted"), key, strict=True)):
                total = rows.setdefault(scope, [0, 0])
                total[0] += seen
                total[1] += clicked
        table = []
        for (f, v), total in sorted(rows.items()):
            if total[0]:  # many people, a few impressions each
                seen = self.rng.multinomial(total[0], [1 / self.groups] * self.groups)
                clicked = self.rng.multivariate_hypergeometric(seen, total[1])
                table += [[f, v, n * CELL, g, seen[g], clicked[g]] for g in np.flatnonzero(seen)]
        batch = None
        if table:
            columns = [
                pa.array(c, t.type)
                for c, t in zip(zip(*table, strict=True), TALLY_SCHEMA, strict=True)
            ]
            batch = pa.RecordBatch.from_arrays(columns, schema=TALLY_SCHEMA)
        offset = len(self.tallies[p])
        header = BatchHeader(
            f"label/{p}",
            offset << 20,
            offset + 1 << 20,
            "s",
            "c",
            arrival_max_ms=(n + 1) * CELL - 1,
            clicks_read=raw + bad,
            clicks_quarantined=bad,
        )
        self.tallies[p].append((header, batch))
        self.breaker.on_tally(p, offset, header, batch)

    def step(self):
        step = self.breaker.step()
        for verdict in step.verdicts:
            assert decode_verdict(encode_verdict(verdict)) == verdict
            self.verdicts.append(verdict)
        self.bands += [
            Record(len(self.bands), 0, None, band.value, band.headers) for band in step.bands
        ]
        self.watermarks += step.watermarks

    def restore(self):
        self.breaker = Breaker(self.stream, self.config, (decode_band(band) for band in self.bands))
        for p, records in self.tallies.items():
            for offset in range(self.breaker.cells.next_offset(p), len(records)):
                self.breaker.on_tally(p, offset, *records[offset])
        self.step()

    def withheld(self, scope=None):
        """Cells withheld of a scope and not released, as a labeler would read the log."""
        cells = set()
        for said in self.verdicts:
            key = ("vendor", said.vendor) if said.vendor else (said.feature or "", said.value or "")
            if scope is None or key == scope:
                change = cells.update if said.decision == WITHHOLD else cells.difference_update
                change(range(said.from_ms // CELL, said.to_ms // CELL))
        return cells

    @property
    def scopes(self):
        return {(v.feature or "", v.value or "") for v in self.verdicts}

    @property
    def rules(self):
        return {v.rule for v in self.verdicts}


def lose(what, share=1.0, **more):
    def change(counts, progress):
        counts["lost"][what] = share
        counts.update(more)

    return change


def run(stories, days, seed=1, per_cell=6_000.0, config=CONFIG):
    shop = Shop(
        seed,
        per_cell=per_cell,
        stories=[(FIRST + a, FIRST + b, change) for a, b, change in stories],
    )
    return Log(config).feed(shop, FIRST, FIRST + int(days * DAY))


def cells(first, last):
    return set(range(FIRST + first, FIRST + last))


# --- healthy
# --------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("per_cell", [50.0, 900.0, 20_000.0])
def test_nights_and_days_trip_nothing(per_cell):
    assert run([], 4, per_cell=per_cell).verdicts == []


@pytest.mark.long
def test_a_sale_day_with_five_times_the_traffic_trips_nothing_nor_does_the_day_after():
    def sale(counts, progress):
        counts["load"] *= 5
        counts["share"] *= 0.65  # many come to look

    log = run([(3 * DAY, 4 * DAY, sale)], 5.5)
    assert log.verdicts == []


# --- the stories
# -------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_payments_outage_of_one_language_withholds_that_language_and_no_other():
    outage = (2 * DAY + 66, 2 * DAY + 76)
    log = run([(*outage, lose("fi"))], 3)
    assert log.scopes == {("language", "fi")}
    assert log.rules == {"breaker/click_share"}
    assert log.withheld() >= cells(*outage)
    assert log.withheld() <= cells(outage[0] - 5, outage[1] + 3)
    reason = log.verdicts[0].reason
    assert "find no clicks" in reason
    assert "band" in reason
    assert log.verdicts[0].evidence["clicks"] == 0
    assert log.verdicts[0].evidence["band_low"] > 0.01


@pytest.mark.soak  # two weeks of cells
def test_a_partner_key_changed_two_weeks_ago_is_still_withheld_and_recovers_when_it_is_mended():
    changed, mended = 2 * DAY + 40, 16 * DAY + 40
    log = run([(changed, mended, lose("acme", raw=1.0))], 17, per_cell=1_200.0)
    assert log.scopes == {("partner", "acme")}
    assert log.withheld() >= cells(changed, mended)
    assert log.withheld() <= cells(changed - 5, mended + 12)


@pytest.mark.soak  # two weeks of cells
def test_a_key_that_changes_bit_by_bit_over_two_weeks_is_found_before_all_is_lost():
    def rollout(counts, progress):
        counts["lost"]["acme"] = progress

    log = run([(2 * DAY, 16 * DAY, rollout)], 16)
    assert log.scopes == {("partner", "acme")}
    assert min(log.withheld()) < FIRST + 14 * DAY


@pytest.mark.long
def test_discounted_purchases_that_cannot_be_read_after_a_format_change_withhold_everything():
    """A quarter of the clicks are unreadable: which ones is not known before somebody reads
    them."""
    change = (2 * DAY + 50, 2 * DAY + 60)
    log = run([(*change, lose("yes", raw=0.0, bad=0.25))], 3)
    assert ("", "") in log.scopes
    assert "breaker/unreadable_clicks" in log.rules
    assert log.withheld(("", "")) >= cells(*change)
    assert log.withheld(("", "")) <= cells(change[0] - 5, change[1] + 5)


@pytest.mark.long
def test_discounted_purchases_that_silently_stop_withhold_the_discounted():
    change = (2 * DAY + 50, 2 * DAY + 60)
    log = run([(*change, lose("yes", raw=0.0))], 3)
    assert log.scopes == {("discounted", "yes")}
    assert log.withheld() >= cells(*change)


@pytest.mark.long
@pytest.mark.parametrize(
    ("raw", "rule"), [(0.0, "breaker/click_outage"), (1.0, "breaker/join_finds_nothing")]
)
def test_an_outage_of_clicks_and_a_changed_id_format_are_told_apart(raw, rule):
    outage = (DAY + 34, DAY + 40)
    log = run([(*outage, lose("all", raw=raw))], 2)
    assert log.scopes == {("", "")}
    assert log.rules == {rule}
    assert cells(*outage) <= log.withheld() <= cells(outage[0] - 2, outage[1] + 3)


@pytest.mark.long
def test_an_outage_of_impressions_shows_by_clicks_without_impressions():
    def lost(counts, progress):
        counts["fewer"] = 0.1

    outage = (2 * DAY + 66, 2 * DAY + 72)
    log = run([(*outage, lost)], 3)
    assert log.scopes == {("", "")}
    assert log.rules <= {"breaker/clicks_without_impressions", "breaker/impression_outage"}
    assert cells(outage[0], outage[1]) <= log.withheld()


@pytest.mark.long
def test_a_country_that_vanishes_is_withheld():
    def gone(counts, progress):
        counts["gone"]["de"] = 0.99

    log = run([(3 * DAY + 50, 3 * DAY + 66, gone)], 4)
    assert log.scopes == {("language", "de")}
    assert log.rules == {"breaker/slice_vanished"}
    assert cells(3 * DAY + 50, 3 * DAY + 66) <= log.withheld() <= cells(3 * DAY + 49, 3 * DAY + 69)


@pytest.mark.long
def test_a_few_people_who_like_nothing_are_no_outage():
    """The same impressions without a click, of three people: nothing is known of all the others."""
    shop = Shop(1, stories=[(FIRST + DAY + 34, FIRST + DAY + 40, lose("all"))])
    assert Log(groups=3).feed(shop, FIRST, FIRST + int(1.6 * DAY)).verdicts == []


@pytest.mark.long
def test_a_small_slice_needs_longer_to_be_sure_and_is_found():
    log = run([(2 * DAY + 50, 2 * DAY + 66, lose("fi"))], 3, per_cell=1_500.0)
    assert log.scopes == {("language", "fi")}
    assert cells(2 * DAY + 50, 2 * DAY + 66) <= log.withheld()


# --- time
# --------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_what_is_withheld_is_said_before_any_label_of_it_waits_no_longer():
    """L3: the verdict stands before the watermarks that pass the deadline of the first bad cell."""
    log = Log()
    check_breaker(STREAM, CONFIG)
    shop = Shop(1, stories=[(FIRST + 2 * DAY + 40, FIRST + 3 * DAY, lose("all"))])
    for n in range(FIRST, FIRST + 2 * DAY + 60):
        log.feed(shop, n, n + 1)
        if log.verdicts:
            break
    deadline_ms = (FIRST + 2 * DAY + 40) * CELL + STREAM.wait_ms
    assert min(log.breaker.watermarks.values()) < deadline_ms
    assert n - FIRST - 2 * DAY - 40 <= 1


@pytest.mark.long
@pytest.mark.parametrize("every", [3, 40])
def test_a_restored_breaker_says_the_same(every):
    stories = [(DAY + 34, DAY + 42, lose("fi")), (DAY + 60, DAY + 64, lose("all", raw=0.0))]
    whole = run(stories, 1.8)
    log, shop = Log(), Shop(1, stories=[(FIRST + a, FIRST + b, change) for a, b, change in stories])
    first = FIRST + DAY + 30
    log.feed(shop, FIRST, first)
    for n in range(first, FIRST + int(1.8 * DAY), every):
        log.feed(shop, n, min(n + every, FIRST + int(1.8 * DAY)))
        log.restore()
    assert [v.id for v in log.verdicts] == [v.id for v in whole.verdicts]
    assert [band.value for band in log.bands] == [band.value for band in whole.bands]


@pytest.mark.long
def test_verdicts_that_were_sent_and_not_remembered_are_sent_again_the_same():
    log = run([(DAY + 34, DAY + 60, lose("all", raw=0.0))], 1.5)
    before = [v.id for v in log.verdicts]
    assert before
    log.bands = log.bands[:-3]
    log.verdicts.clear()
    log.restore()
    assert log.verdicts
    assert {v.id for v in log.verdicts} <= set(before)


# --- operators
# --------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_an_operators_release_ends_it_and_the_new_level_becomes_the_band():
    shop = Shop(1, stories=[(FIRST + DAY + 34, FIRST + 9 * DAY, lose("acme", 0.8))])
    log = Log().feed(shop, FIRST, FIRST + DAY + 44)
    assert ("partner", "acme") in log.breaker.trips
    now = log.breaker.settled_ms
    assert set(open_scopes(log.verdicts, now - 1)) == {("partner", "acme")}
    release = Verdict(
        "x",
        OPERATOR,
        RELEASE,
        None,
        None,
        now - 30 * CELL,
        now + CELL,
        "a new price list",
        feature="partner",
        value="acme",
    )
    log.breaker.on_operator(5, release)
    said = len(log.verdicts)
    log.feed(shop, FIRST + DAY + 44, FIRST + 4 * DAY)
    assert len(log.verdicts) == said
    assert not log.breaker.trips
    log.restore()
    assert not log.breaker.trips
    assert log.breaker.verdicts_offset == 6


# --- parts
# --------------------------------------------------------------------------------------------------


def test_tails_are_those_of_a_negative_binomial():
    rng = np.random.default_rng(5)
    mean, spread = 40.0, 0.3
    drawn = rng.poisson(mean * rng.gamma(1 / spread**2, spread**2, 200_000))
    for count in (10, 20, 30):
        assert lower_tail(count, mean, spread) == pytest.approx((drawn <= count).mean(), rel=0.1)
    for count in (60, 80):
        assert upper_tail(count, mean, spread) == pytest.approx((drawn >= count).mean(), rel=0.1)
    assert lower_tail(50, mean, spread) == 1.0
    assert 0 < lower_tail(0, 1e4, 0.1) < 1e-100


def test_a_band_record_reads_as_it_was_written():
    record = run([], 0.1).bands[-1]
    assert isinstance(decode_band(record), BandRecord)
    assert decode_band(record).points[1][0] > 0
    with pytest.raises(ValueError, match="header cell"):
        decode_band(Record(3, 0, None, record.value, ()))


def test_a_band_record_of_more_repeats_than_clicks_reads_as_it_was_written():
    said = BandRecord(cell=7, raw=-1, bad_clicks=0, bad_impressions=0, verdicts_offset=3)
    assert decode_band(Record(3, 0, None, said.value, said.headers)) == said


def test_a_config_without_room_before_the_label_is_refused():
    with pytest.raises(ValueError, match="join_window_ms"):
        check_breaker(StreamConfig(window_ms=600_000, release_ms=1_200_000), BreakerConfig())
    with pytest.raises(ValueError, match="slices"):
        check_breaker(STREAM, BreakerConfig(slices=("country",)))
    attributes = {
        "brand": Feature(catalogue="items"),
        "tags": Feature(kind="list", catalogue="items"),
        "rate": Feature(kind="counter", of="item"),
    }
    stream = replace(STREAM, declared=attributes)
    check_breaker(stream, BreakerConfig(slices=("brand",)))
    said = "allowed are .*brand.*vendor; tags is a list, rate is a counter, and a slice is a categ"
    with pytest.raises(ValueError, match=said):
        check_breaker(stream, BreakerConfig(slices=("brand", "tags", "rate")))
    with pytest.raises(ValueError, match="release_ms"):
        check_breaker(StreamConfig(), BreakerConfig())
    for wrong in ({"release_ms": 3_000_000}, {"release_ms": 9_000_000, "label_strategy": "eager"}):
        with pytest.raises(ValueError, match="release_ms"):
            StreamConfig(**wrong)
