"""`retract/p`: late verdicts are taken back once, whatever fails, in the same bytes whoever
writes (L3, C1, C2)."""

import json
import logging
import random
from dataclasses import replace

import pytest

from labeler.config import LabelerConfig
from labeler.labels import ClaimedEnds, Labelling
from labeler.retraction.runner import Retracting
from stream import Chain, Fold, Partition, StreamConfig, offset_of, position
from stream.internal_topics import (
    ALLOW,
    REJECT,
    Again,
    BatchHeader,
    Verdict,
    Watermark,
    decode_examples,
    encode_verdict,
    input_name,
    taken,
)
from stream.log import MemoryLog, topic_specs
from stream.log.memory import Fate

ZERO = 1_600_000_000_000
STREAM = StreamConfig(
    partitions=2,
    replayed=True,
    window_ms=1_000,
    grace_ms=100,
    dedup_ms=500,
    flush_ms=100,
    signal_ms=100,
    heartbeat_ms=100,
    jump_max_ms=100_000,
    batch_rows_max=8,
    age_max_ms=5_000,
    skew_ms=100,
)
LABELER = LabelerConfig(retry_ms=1, fold_records_max=4, retract_share_min=0.0)
VERDICTS = Partition("verdicts", 0)
INPUTS = [input_name(topic, p) for topic in ("impressions", "clicks") for p in range(2)]
SECONDS = 6


class Clock:
    now_ms = ZERO

    def __call__(self):
        self.now_ms += 5_000  # past every pause
        return self.now_ms


def verdict(id, source, decision=REJECT, first_s=0, last_s=SECONDS):
    between = ZERO + first_s * 1_000, ZERO + last_s * 1_000
    return Verdict(id, "operator", decision, source, None, *between, "told")


def say(log, *verdicts):
    for one in verdicts:
        log.append(VERDICTS, encode_verdict(one))


def judged(log, to_s):
    for name in INPUTS:
        log.append(VERDICTS, encode_verdict(Watermark(name, ZERO + int(to_s * 1_000), 0)))


class Shop:
    """Two partitions, five sources on one vendor; `u0` clicks on everything."""

    def __init__(self):
        self.clock = Clock()
        self.log = MemoryLog(self.clock)
        for spec in topic_specs(STREAM):
            self.log.create(spec.name, spec.partitions)
        rng = random.Random(1)
        self.beat(0)
        for p in range(2):
            for n in range(SECONDS * 10):
                now = ZERO + n * 100
                source = f"u{rng.randrange(5)}"
                view = {
                    "id": f"{p}/{n}",
                    "ts_ms": now,
                    "session": SESSIONS[p],
                    "source": source,
                    "vendor": "v",
                }
                self.log.append(
                    Partition("impressions", p),
                    json.dumps(view | {"item": "i"}).encode(),
                    SESSIONS[p].encode(),
                    (),
                    now,
                )
                if source == "u0":
                    click = {"id": f"{p}/{n}", "ts_ms": now + 1, "session": SESSIONS[p]}
                    self.log.append(
                        Partition("clicks", p),
                        json.dumps(click).encode(),
                        SESSIONS[p].encode(),
                        (),
                        now + 1,
                    )
        for more in (0, 2, 4):
            self.beat(SECONDS + more)

    def beat(self, second):
        stamp_ms = ZERO + second * 1_000
        headers = (("control", b"heartbeat"), ("clock_ms", str(stamp_ms).encode()))
        for topic in ("impressions", "clicks"):
            for p in range(2):
                self.log.append(Partition(topic, p), None, None, headers, stamp_ms)

    def label(self):
        labelling = Labelling(STREAM, LABELER, self.log)
        labelling.own(range(2))
        work(labelling, self.clock)
        labelling.close()
        return self

    def retract(self, partitions=(0, 1), labeler=LABELER):
        retracting = Retracting(STREAM, labeler, self.log)
        retracting.own(partitions)
        work(retracting, self.clock)
        retracting.close()
        return retracting

    def rows(self, p, kind="label"):
        """(positions, sources) of the folded rows of a chain."""
        chain, found = Chain(0 if kind == "retract" else None), []
        for record in self.log.records(Partition("examples", p)):
            header = BatchHeader.from_headers(record.headers)
            if (
                header.chain == f"{kind}/{p}"
                and chain.fold(header.start, header.end)[0] is Fold.EXTENDS
                and record.value
            ):
                rows = decode_examples(record.value)
                found += zip(
                    rows.column("position").to_pylist(),
                    rows.column("source").to_pylist(),
                    strict=True,
                )
        return found

    def records(self, p):
        made = self.log.records(Partition("examples", p))
        return [(r.value, r.headers) for r in made if r.header("chain") == f"retract/{p}".encode()]

    def back(self, p):
        return [(at, source) for at, source in self.rows(p, "retract") if at >= 0]


def sessions():
    from stream.hashing import partition_of_key

    return [
        next(s for s in map(str, range(99)) if partition_of_key(s.encode(), 2) == p)
        for p in range(2)
    ]


SESSIONS = sessions()


def work(one, clock, still_max=12):
    still = 0
    while still < still_max:
        still = 0 if one.run_once(clock(), 0) else still + 1


def late_shop():
    """All labelled, then `u0` is rejected, and more is judged."""
    shop = Shop()
    judged(shop.log, SECONDS + 4)
    shop.label()
    say(shop.log, verdict("a", "u0"))
    judged(shop.log, SECONDS + 5)
    return shop


def test_every_row_of_the_source_is_taken_back_once_in_its_own_partition():
    shop = late_shop()
    shop.retract()
    for p in range(2):
        expected = [(at, source) for at, source in shop.rows(p) if source == "u0"]
        assert expected
        assert shop.back(p) == expected
    shop.retract()
    assert [len(shop.records(p)) for p in range(2)] == [1, 1]


@pytest.mark.long
def test_looks_at_a_slow_broker_are_few_and_change_nothing():
    """While verdicts rest the loop waits, and what they took back is the same."""
    shop, slow, clock_s = late_shop(), late_shop(), [0.0]
    shop.retract()

    def look(self, reader):
        clock_s[0] += 0.1
        looked.append(clock_s[0])
        return right(self, reader)

    right, looked = ClaimedEnds.look, list[float]()
    retracting = Retracting(STREAM, LABELER, slow.log, elapsed_s=lambda: clock_s[0])
    retracting.own((0, 1))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ClaimedEnds, "look", look)
        patched.setattr(ClaimedEnds, "exceeded_by", lambda self, claims: True)
        for _ in range(200):
            retracting.run_once(slow.clock(), 0)
            assert retracting._rest.over != (clock_s[0] < looked[-1] + 0.5)
            clock_s[0] += 0.05
    retracting.close()
    assert len(looked) <= 1 + clock_s[0] / 0.6
    assert [slow.records(p) for p in range(2)] == [shop.records(p) for p in range(2)]


def test_a_record_holds_the_clean_rows_of_the_vendor_from_all_partitions():
    shop = late_shop()
    shop.retract()
    rows = decode_examples(shop.records(0)[0][0])
    clean = [source for _, source in shop.rows(0) + shop.rows(1) if source != "u0"]
    assert sorted(rows.column("source").to_pylist()[int(taken(rows).sum()) :]) == sorted(clean)
    assert Again.decode(BatchHeader.from_headers(shop.records(0)[0][1]).again).named == {
        "source": ["u0"],
        "vendor": ["v"],
        "item": ["i"],
    }
    header = BatchHeader.from_headers(shop.records(0)[0][1])
    assert (header.rejected, header.labelled) == (int(taken(rows).sum()), rows.num_rows)
    assert header.end == position(len(INPUTS) + 1), "behind the verdict"


def test_a_verdict_that_stood_before_the_labels_closed_takes_nothing_back():
    shop = Shop()
    say(shop.log, verdict("a", "u0"))
    judged(shop.log, SECONDS + 4)
    shop.label().retract()
    assert all(source != "u0" for p in range(2) for _, source in shop.rows(p))
    assert [shop.records(p) for p in range(2)] == [[], []]


def test_of_a_verdict_between_only_what_was_closed_before_it_is_taken_back():
    shop = Shop()
    judged(shop.log, 3)
    say(shop.log, verdict("a", "u0"))
    judged(shop.log, SECONDS + 4)
    shop.label().retract()
    for p in range(2):
        trained = [row for row in shop.rows(p) if row[1] == "u0"]
        assert trained
        assert shop.back(p) == trained, (
            "what was not rejected was learned, and all of that is taken back"
        )
        positions = [at for at, _ in trained]
        assert max(positions) < max(at for at, _ in shop.rows(p)), "later ones were rejected"


@pytest.mark.long
def test_a_repeat_and_a_second_verdict_on_the_same_rows_take_nothing_more():
    shop = late_shop()
    say(shop.log, verdict("a", "u0"), verdict("b", "u0", first_s=1), verdict("c", "u1"))
    judged(shop.log, SECONDS + 6)
    shop.retract()
    for p in range(2):
        expected = [source for _, source in shop.rows(p) if source in ("u0", "u1")]
        assert sorted(source for _, source in shop.back(p)) == sorted(expected)
        clean = [s for at, s in shop.rows(p, "retract") if at < 0]
        assert "u0" not in clean


def test_an_allowance_before_the_verdict_beats_it():
    shop = Shop()
    judged(shop.log, SECONDS + 4)
    shop.label()
    say(shop.log, verdict("x", "u0", ALLOW), verdict("a", "u0"))
    judged(shop.log, SECONDS + 5)
    shop.retract()
    assert [shop.back(p) for p in range(2)] == [[], []]


def test_nothing_is_decided_before_the_labels_have_come_so_far():
    shop = Shop()
    judged(shop.log, SECONDS + 4)
    say(shop.log, verdict("a", "u0"))
    judged(shop.log, SECONDS + 5)
    shop.retract()
    assert [shop.records(p) for p in range(2)] == [[], []]
    shop.label().retract()
    assert all(shop.back(p) for p in range(2))


@pytest.mark.long
def test_a_large_retraction_comes_in_numbered_parts_and_goes_on_in_the_middle():
    small = replace(LABELER, retract_rows_max=3)
    shop = late_shop()
    shop.retract(labeler=small)
    parts = [BatchHeader.from_headers(headers) for _, headers in shop.records(0)]
    assert len(parts) > 2
    assert all(offset_of(part.end) == offset_of(parts[0].end) for part in parts[:-1])
    whole = late_shop()
    whole.retract()
    assert shop.back(0) == whole.back(0)
    again = late_shop()
    count = iter(range(99))
    again.log.on_append = lambda at: Fate.LOST if next(count) == 2 else Fate.ACKNOWLEDGED
    again.retract(labeler=small)
    again.log.on_append = None
    again.retract(labeler=small)
    assert again.records(0) == shop.records(0)


@pytest.mark.long
@pytest.mark.parametrize("fate", [Fate.LOST, Fate.UNACKNOWLEDGED])
def test_after_a_failed_send_the_log_is_folded_and_every_row_is_taken_back_once(fate):
    shop = late_shop()
    fates = iter([fate, Fate.ACKNOWLEDGED, fate])
    shop.log.on_append = lambda at: next(fates, Fate.ACKNOWLEDGED)
    retracting = shop.retract()
    assert retracting.refolds
    other = late_shop()
    other.retract()
    assert [shop.back(p) for p in range(2)] == [other.back(p) for p in range(2)]


def test_a_labeler_thought_dead_writes_the_same_bytes_which_count_once():
    shop = late_shop()
    shop.retract(partitions=(0,))
    slow = Retracting(STREAM, LABELER, shop.log)
    slow.own([0, 1])
    slow._start()
    shop.log.append(Partition("examples", 0), *shop.records(0)[0][:1], None, shop.records(0)[0][1])
    work(slow, shop.clock)
    assert shop.records(0)[0] == shop.records(0)[1]
    assert shop.back(0) == [row for row in shop.rows(0) if row[1] == "u0"]


@pytest.mark.long
def test_verdicts_that_retention_took_are_passed_over(caplog):
    caplog.set_level(
        logging.ERROR, "labeler.retraction.runner"
    )  # the simulator, in the same process, hears nothing of labelers
    shop = late_shop()
    assert shop.retract().gone_verdicts == 0
    assert "are gone" not in caplog.text
    say(shop.log, verdict("b", "u1"))
    judged(shop.log, SECONDS + 6)
    shop.log.delete_below(VERDICTS, len(INPUTS) + 2)
    again = shop.retract()
    assert "are gone" in caplog.text
    assert again.waiting == 0
    assert again.gone_verdicts > 0
    for p in range(2):
        assert {source for _, source in shop.back(p)} >= {"u0"}


@pytest.mark.long
def test_a_lost_tail_of_verdicts_is_said_and_what_comes_behind_is_taken_back():
    shop = late_shop()
    assert shop.retract().gone_verdicts == 0
    before = [shop.records(p) for p in range(2)]
    ends = max(
        offset_of(BatchHeader.from_headers(headers).end) for found in before for _, headers in found
    )
    del shop.log.records(VERDICTS)[ends - 1 :]
    again = shop.retract()
    assert again.gone_verdicts > 0
    assert [shop.records(p) for p in range(2)] == before, "what was decided stays"
    while shop.log.end(VERDICTS) <= ends:
        judged(shop.log, SECONDS + 4)
    say(shop.log, verdict("b", "u1"))
    judged(shop.log, SECONDS + 5)
    shop.retract()
    for p in range(2):
        assert {source for _, source in shop.back(p)} == {"u0", "u1"}


def test_without_anybody_to_wait_for_no_verdict_is_late():
    shop = late_shop()
    shop.retract(labeler=replace(LABELER, await_verdicts=False))
    shop.retract(labeler=replace(LABELER, retract=False))
    assert [shop.records(p) for p in range(2)] == [[], []]
