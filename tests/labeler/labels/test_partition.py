"""The labeler of one partition against an obvious oracle, polled and restarted in every way
(I7)."""

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labeler_oracle import expected

from labeler.config import LabelerConfig
from labeler.join import ExamplesFold, ResumePoint, label_strategies
from labeler.labels.emitter import ExamplesEmitter, Reading
from labeler.labels.partition import PartitionLabeler
from labeler.labels.verdict_index import VerdictIndex
from stream import Record, StreamConfig
from stream.internal_topics import BatchHeader, Verdict, Watermark, decode_examples, encode_verdict

ZERO = 1_600_000_000_000
INPUTS = ("impressions/0", "clicks/0")
CONFIG = StreamConfig(
    partitions=1,
    window_ms=20,
    grace_ms=5,
    early_click_ms=2,
    dedup_ms=12,
    skew_ms=6,
    age_max_ms=60,
    jump_max_ms=30,
    jump_confirm_ms=5,
    heartbeat_ms=10,
    signal_ms=5,
    flush_ms=10,
    batch_rows_max=3,
    categorical_features=("place",),
    numeric_features=("price",),
)
NO_FRAUD, FRAUD = LabelerConfig(await_verdicts=False), LabelerConfig()
KEY = b"s"


def heartbeat(offset, stamp, clock, barrier=0):
    headers = [("control", b"heartbeat"), ("clock_ms", str(clock).encode())]
    if barrier:
        headers.append(("barrier", str(barrier).encode()))
    return Record(offset, stamp, None, None, tuple(headers))


def impression(id, ts, source="a", vendor="v", **more):
    return {
        "id": id,
        "ts_ms": ts,
        "session": "s",
        "source": source,
        "vendor": vendor,
        "item": "i" + id,
        **more,
    }


def click(id, ts):
    return {"id": id, "ts_ms": ts, "session": "s"}


def events(offset, stamp, bodies):
    return Record(offset, stamp, KEY, json.dumps(bodies).encode())


# --- random logs
# ------------------------------------------------------------------------------------------------


def random_log(rng, is_click, end_ms, first_offset):
    """Records with rising, now and then stepping back or jumping stamps; every bucket has its
    heartbeat at last."""
    records, now, barrier, due = [], ZERO + rng.randrange(3), 0, 40
    body = click if is_click else impression
    while now < ZERO + end_ms:
        offset = first_offset + len(records)
        if now - ZERO >= due:  # a barrier stands at a multiple of flush_ms, in both logs (E3)
            barrier, due, now = barrier + 1, due + 40, ZERO + due
            records.append(heartbeat(offset, now, now, barrier))
            continue
        kind = rng.random()
        stamp = now - rng.choice((0, 0, 0, 2))
        if kind < 0.25:
            ahead = 500 if rng.random() < 0.05 else 0  # a stamp that its own clock does not confirm
            records.append(heartbeat(offset, stamp + ahead, stamp))
        elif kind < 0.30:
            records.append(Record(offset, stamp, KEY, rng.choice((b"{", b"[]", b"\xff"))))
        elif kind < 0.33:
            records.append(
                events(offset, now + 500, [body("1", now)])
            )  # a jump that nobody confirms
        else:
            rows = [
                body(str(rng.randrange(12)), now - rng.choice((0, 0, 1, 3, 8, 15, 22, 70)))
                for _ in range(rng.choice((1, 1, 1, 2, 5)))
            ]
            if not is_click:
                for row in rows:
                    row.update(source=rng.choice("abc"), vendor=rng.choice("vw"), prediction=0.25)
                    row["features"] = {"place": rng.choice("xy"), "price": rng.random()}
            records.append(events(offset, stamp, rows if len(rows) > 1 else rows[0]))
        now += rng.choice((0, 0, 1, 1, 2, 5, 9, 33 if rng.random() < 0.1 else 1))
    for more in (1, 11, 12, 25, 60):
        records.append(heartbeat(first_offset + len(records), now + more, now + more))
    return records


def random_verdicts(rng, end_ms):
    said, marks = [], dict.fromkeys(INPUTS, ZERO)
    while min(marks.values()) < ZERO + end_ms:
        if rng.random() < 0.25:
            start = (ZERO + rng.randrange(-10, end_ms)) // 20 * 20
            end = start + rng.choice((5, 20, 60))
            decision = rng.choice(("reject", "reject", "withhold", "withhold", "allow", "release"))
            rule = rng.choice(("operator", "a rule"))
            scopes = (
                ("a", None),
                ("b", "v"),
                (None, "w"),
                ("a", None, "x"),
                (None, None, "y"),
                (None, None),
            )
            scope = rng.choice(scopes)
            if scope == (None, None) and decision in ("reject", "allow"):
                continue  # everything can only be withheld
            slice_ = {"feature": "place", "value": scope[2]} if scope[2:] else {}
            # F3: a function of rule, entity and interval
            id = f"{rule}/{decision}/{scope}/{start}/{end}"
            said.append(
                Verdict(id, rule, decision, *scope[:2], start, end, "why", {"n": 1.0}, **slice_)
            )
        else:
            name = rng.choice(INPUTS)
            marks[name] += rng.choice((0, 3, 5, 10))
            said.append(Watermark(name, marks[name] - rng.choice((0, 0, 0, 7)), 0))
    return [Record(n, 0, None, encode_verdict(one)) for n, one in enumerate(said)]


# --- driving
# --------------------------------------------------------------------------------------------------


class Run:
    """Feeds the logs in pieces of random size, in random order, and restarts when told, from the
    output alone."""

    def __init__(
        self,
        impressions,
        clicks,
        verdicts,
        rng,
        crash=0.0,
        poll_max=8,
        config=CONFIG,
        strategy=None,
        pages=None,
    ):
        self.pages = pages or (lambda: None)  # the local copy that the next start finds
        self.strategy = strategy or label_strategies(config)[0]
        self.logs = {"impressions": impressions, "clicks": clicks, "verdicts": verdicts or []}
        self.fraud, self.rng, self.crash, self.poll_max, self.config = (
            verdicts is not None,
            rng,
            crash,
            poll_max,
            config,
        )
        self.out, self.restarts = [], 0
        self.start()

    def start(self):
        fold = ExamplesFold(f"{self.strategy.kind}/0", from_first=True)
        fold.add(self.records())
        assert fold.dangling == fold.repeats == 0
        logs = self.logs
        fresh = ResumePoint.fresh if self.strategy.kind == "label" else ResumePoint.fresh_late
        point = fold.point or fresh(
            logs["impressions"][0].offset if logs["impressions"] else 0,
            logs["clicks"][0].offset if logs["clicks"] else 0,
            0,
        )
        self.verdict_index = VerdictIndex.at(INPUTS, [point]) if self.fraud else None
        settings = replace(
            FRAUD if self.fraud else NO_FRAUD, pending_clicks_bytes_max=150, click_page_rows=2
        )
        reading = Reading(self.strategy, ExamplesEmitter(self.config), self.pages())
        self.labeler = PartitionLabeler(
            self.config, settings, 0, point, self.verdict_index, reading
        )
        self.at = {
            "impressions": point.impressions_offset, "clicks": self.labeler.clicks.offset,
            "verdicts": point.verdicts_offset,
        }  # fmt: skip

    def records(self):
        return [Record(n, 0, None, e.value, e.header.to_headers()) for n, e in enumerate(self.out)]

    def poll(self, topic):
        count = self.rng.randint(1, self.poll_max)
        log = self.logs[topic]
        at = self.at[topic] - log[0].offset if log else 0
        found = log[at : at + count]
        if found:
            self.at[topic] = found[-1].offset + 1
        return found

    def run_once(self):
        """One random order of the readers. True if anything was read or written."""
        moved = False
        for topic in self.rng.sample(("impressions", "clicks", "verdicts"), 3):
            if (
                topic == "impressions"
                and self.labeler.wants_impressions()
                and (found := self.poll(topic))
            ):
                self.labeler.on_impressions(found)
            elif topic == "clicks" and self.labeler.wants_clicks() and (found := self.poll(topic)):
                self.labeler.on_clicks(found)
            elif (
                topic == "verdicts"
                and self.verdict_index is not None
                and (found := self.poll(topic))
            ):
                self.verdict_index.read(found)
            else:
                continue
            moved = True
        written = self.labeler.step(self.rng.randint(1, 4))
        for emission in written:
            self.out.append(emission)
            if self.rng.random() < self.crash:
                self.restarts += 1
                self.start()
                return True
            self.labeler.on_acknowledged(emission.header)
        return moved or bool(written)

    def finish(self):
        while self.run_once():
            assert self.labeler.stopped is None
        return self.out


def described(emission):
    """An emission in the oracle's words, read back through the headers and the bytes."""
    header = BatchHeader.from_headers(emission.header.to_headers())
    rows = []
    if emission.value:
        batch = decode_examples(emission.value)
        rows = list(
            zip(
                *(batch.column(n).to_pylist() for n in ("position", "label", "click_delay_ms")),
                strict=True,
            )
        )
    return header, rows


def check(out, want):
    assert [(e.header.start, e.header.end, e.header.barrier) for e in out] == [
        (w["start"], w["end"], w["barrier"]) for w in want
    ]
    for emission, w in zip(out, want, strict=True):
        header, rows = described(emission)
        assert rows == w["rows"]
        got = {name: getattr(header, name) for name in w if name != "rows"}
        assert got == {name: value for name, value in w.items() if name != "rows"}


SEEDS = st.integers(0, 2**32 - 1)


def logs_of(seed, fraud):
    rng = random.Random(seed)
    end_ms = rng.choice((30, 80, 150))
    impressions = random_log(rng, False, end_ms, rng.choice((0, 7)))
    clicks = random_log(rng, True, end_ms + 60, rng.choice((0, 3)))
    return impressions, clicks, random_verdicts(rng, end_ms + 100) if fraud else None


@settings(max_examples=settings.default.max_examples // 4)
@given(SEEDS, st.booleans())
def test_batches_are_what_the_rules_say(seed, fraud):
    logs = logs_of(seed, fraud)
    out = Run(*logs, random.Random(seed)).finish()
    check(out, expected(*logs, CONFIG, INPUTS))


@settings(max_examples=settings.default.max_examples // 10)
@given(SEEDS, st.booleans(), st.sampled_from((0.1, 1.0)), st.sampled_from((1, 6, 100)))
def test_polls_and_restarts_change_no_byte(seed, fraud, crash, poll_max):
    logs = logs_of(seed, fraud)
    straight = Run(*logs, random.Random(1), poll_max=1000).finish()
    broken = Run(*logs, random.Random(seed), crash, poll_max).finish()
    assert broken == straight


@pytest.mark.long
def test_random_logs_hold_what_they_are_to_test():
    """Without this the two tests above could pass on empty logs."""
    total = dict.fromkeys(
        (
            "labelled",
            "rejected",
            "duplicate",
            "withheld",
            "quarantined",
            "positives",
            "clicks_duplicate",
            "barrier",
            "clicks_too_early",
        ),
        0,
    )
    for seed in range(20):
        for emission in Run(*logs_of(seed, True), random.Random(seed)).finish():
            for name in total:
                total[name] += getattr(emission.header, name)
    assert min(total.values()) > 5, total


def _having_read(count, **limits):
    """A labeler that has read a heartbeat, so many impressions behind it, a range each, and no
    clicks."""
    log = [heartbeat(0, ZERO, ZERO)]
    for n in range(1, count + 1):
        log.append(events(n, ZERO + 10 * n, [impression(str(n), ZERO + 10 * n)]))
    settings = replace(NO_FRAUD, **limits)
    reading = Reading(label_strategies(CONFIG)[0], ExamplesEmitter(CONFIG), None)
    labeler = PartitionLabeler(CONFIG, settings, 0, ResumePoint.fresh(0, 0, 0), None, reading)
    labeler.on_impressions(log)
    return labeler


@pytest.mark.parametrize("limit", ["read_ahead_rows_max", "read_ahead_bytes_max"])
def test_reading_ahead_ends_at_either_limit(limit):
    assert _having_read(3).wants_impressions()
    assert not _having_read(3, **{limit: 1}).wants_impressions()


@pytest.mark.parametrize("count", [0, 3])  # the first range is open, or closed
def test_clicks_are_wanted_until_one_arrives_behind_the_deadline(count):
    """One that arrives at the deadline itself still counts (L1), and another may come."""
    labeler, wanted = _having_read(count), []
    for offset in range(CONFIG.window_ms + CONFIG.grace_ms + 5):
        labeler.on_clicks([heartbeat(offset, ZERO + offset, ZERO + offset)])
        wanted.append(labeler.wants_clicks())
    assert wanted.index(False) == CONFIG.window_ms + CONFIG.grace_ms + 1
