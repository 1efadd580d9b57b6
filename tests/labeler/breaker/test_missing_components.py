"""What another team's service predicts is missing for hours: it is measured, and the rows without
it are withheld until it is back (docs/features.md, docs/breaker.md)."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from everspun.commands.data.breaker import parse_scope
from everspun.status import missing_faults
from labeler.breaker.band_record import decode_band
from labeler.breaker.breaker import Breaker
from labeler.breaker.early_join import TALLY_SCHEMA, tally, tally_stream
from labeler.breaker_config import BreakerConfig, check_breaker
from labeler.labels.verdict_index import _in_slice
from labeler.retraction.rows import covered
from stream import Record, StreamConfig
from stream.columns import Feature, Impressions, impression_schema, is_missing, slice_values
from stream.columns.values import GIVEN
from stream.decoding import MissingShares
from stream.decoding.missing_shares import HALF_LIFE_MS
from stream.internal_topics import RELEASE, WITHHOLD, BatchHeader, Verdict

QUALITY = Feature("component", source="ranking service", owner="team 7", missing_max=0.2)
STREAM = StreamConfig(partitions=1, declared={"quality": QUALITY}, release_ms=21_600_000)
CONFIG = BreakerConfig(
    slices=("quality",), missing={"quality": 0.3}, cell_ms=900_000, cells_max=4, people_min=5.0
)
CELL = CONFIG.cell_ms
FIRST = 1_700_006_400_000 // CELL


def impressions(quality, ts_ms=FIRST * CELL, arrival_ms=0):
    n = len(quality)
    table = impression_schema(STREAM.features).empty_table()
    columns = [
        pa.array(np.array(quality, np.float32)) if f.name == "f_quality"
        else pa.array([""] * n) if pa.types.is_string(f.type)
        else pa.array(np.zeros(n)).cast(f.type)
        for f in table.schema
    ]  # fmt: skip
    signed, unsigned = np.arange(n), np.arange(n, dtype=np.uint64)
    return Impressions(
        signed, np.full(n, arrival_ms), np.full(n, ts_ms), unsigned, unsigned, unsigned,
        pa.table(columns, schema=table.schema),
    )  # fmt: skip


NAN = float("nan")


def test_a_column_has_slices_whatever_it_holds():
    for column, missing in (
        (pa.array([1.0, NAN, 0.0], pa.float32()), [False, True, False]),
        (pa.array([0, 5]), [True, False]),
        (pa.array([[1.0], []], pa.list_(pa.float32())), [False, True]),
        (pa.array([b"", b"x"]), [True, False]),
        (pa.array(["", "x"]), [True, False]),
    ):
        assert is_missing(column).tolist() == missing
        expected = ["" if one else GIVEN for one in missing]
        if pa.types.is_string(column.type):
            expected = column.to_pylist()
        assert slice_values(column).to_pylist() == expected


def test_rows_without_a_component_are_tallied_and_lie_in_a_verdicts_slice():
    rows = impressions([1.0, NAN, NAN])
    counts = tally(rows, np.array([1, 0, 1], np.int8), ("quality",), CELL).to_pydict()
    of = {
        value: counts["impressions"][i]
        for i, (name, value) in enumerate(zip(counts["feature"], counts["value"], strict=True))
        if name == "quality" and counts["group"][i] == 1
    }
    assert of == {"": 1}
    assert _in_slice(rows.table, "quality", "").tolist() == [False, True, True]
    assert _in_slice(rows.table, "quality", GIVEN).tolist() == [True, False, False]
    said = Verdict(
        id="v", rule="r", decision=WITHHOLD, source=None, from_ms=0, to_ms=2 * FIRST * CELL,
        reason="", evidence={}, vendor=None, feature="quality", value="",
    )  # fmt: skip
    batch = rows.table.append_column("ts_ms", pa.array(rows.ts_ms)).to_batches()[0]
    assert covered(batch, said).tolist() == [False, True, True]


class Log:
    """A breaker that is fed cell by cell, and all that it sent."""

    def __init__(self):
        self.breaker = Breaker(tally_stream(STREAM, CONFIG), CONFIG)
        self.verdicts, self.bands, self.offset = [], [], 0

    def cell(self, number, missing, impressions=48_000, groups=16):
        lacking = round(impressions * missing)
        rows = []
        for scope, count in ((("", ""), impressions), (("quality", ""), lacking),
                             (("quality", GIVEN), impressions - lacking)):  # fmt: skip
            for group in range(groups if count else 0):
                seen = count // groups
                rows.append((*scope, number * CELL, group, seen, seen // 30))
        rows.sort()
        columns = [
            pa.array(column, field.type)
            for column, field in zip(zip(*rows, strict=True), TALLY_SCHEMA, strict=True)
        ]
        header = BatchHeader(
            "label/0", self.offset << 20, self.offset + 1 << 20, "s", "c",
            arrival_max_ms=(number + 1) * CELL - 1, clicks_read=impressions // 30,
        )  # fmt: skip
        batch = pa.RecordBatch.from_arrays(columns, schema=TALLY_SCHEMA)
        self.breaker.on_tally(0, self.offset, header, batch)
        self.offset += 1
        step = self.breaker.step()
        self.verdicts += step.verdicts
        self.bands += [Record(0, 0, None, b.value, b.headers) for b in step.bands]

    def withheld(self):
        """Cells in which the rows without the component are."""
        cells = set()
        for said in self.verdicts:
            assert (said.feature, said.value) == ("quality", "")
            change = cells.update if said.decision == WITHHOLD else cells.difference_update
            change(range(said.from_ms // CELL, said.to_ms // CELL))
        return cells


def test_an_outage_of_a_component_withholds_the_rows_without_it_until_it_is_back():
    log = Log()
    for n in range(FIRST, FIRST + 110):
        log.cell(n, 0.9 if FIRST + 60 <= n < FIRST + 70 else 0.02)
    assert {v.rule for v in log.verdicts} == {"breaker/component_missing"}
    assert log.withheld() >= set(range(FIRST + 60, FIRST + 70))
    assert log.withheld() <= set(range(FIRST + 57, FIRST + 73))
    assert {v.decision for v in log.verdicts} == {WITHHOLD, RELEASE}
    said = next(v for v in log.verdicts if v.decision == WITHHOLD)
    assert "have no quality" in said.reason
    assert said.evidence["missing"] > 0.3 * said.evidence["impressions"]
    again = Breaker(tally_stream(STREAM, CONFIG), CONFIG, map(decode_band, log.bands))
    assert again.trips == log.breaker.trips == {}


def test_a_component_that_is_there_as_usual_withholds_nothing():
    log = Log()
    for n in range(FIRST, FIRST + 60):
        log.cell(n, 0.25)
    assert log.verdicts == []


@pytest.mark.parametrize("missing", [{"price": 0.3}, {"quality": 0.0}, {"quality": 1.0}])
def test_a_limit_that_cannot_be_is_named_with_its_fix(missing):
    stream = replace(STREAM, window_ms=7_200_000)
    check_breaker(stream, CONFIG)
    with pytest.raises(ValueError, match="allowed are components that slices name"):
        check_breaker(stream, replace(CONFIG, missing=missing))
    assert parse_scope("quality=", stream) == ("quality", "")


# --- how much is missing


def test_the_share_missing_is_that_of_the_last_minutes():
    shares = MissingShares({"quality": QUALITY})
    shares.add(impressions([1.0] * 1_000, arrival_ms=10**12))
    assert shares.counts == {"quality": 0.0}
    shares.add(impressions([NAN] * 1_000, arrival_ms=10**12 + HALF_LIFE_MS))
    assert shares.counts["quality"] / shares.rows == pytest.approx(2 / 3)
    shares.add(impressions([1.0] * 1_000, arrival_ms=10**12 + 12 * HALF_LIFE_MS))
    assert shares.counts["quality"] / shares.rows < 0.001


class Said:
    """A labeler's report."""

    def __init__(self, share):
        self.share = share

    def by_label(self, name, label):
        return {"quality": self.share} if name == "everspun_labeler_missing_share" else {}


def test_status_names_who_answers_for_what_is_missing():
    components = {"quality": QUALITY}
    assert missing_faults(components, {"labeler-0": Said(0.19)}) == []
    (line,) = missing_faults(components, {"labeler-0": Said(0.5)})
    assert line == (
        "labeler-0: 50% of the impressions read lately have no quality: ask ranking service "
        "team 7 (missing_max 20%)"
    )
