"""The audit finds what it is for: each check is shown right on a right log, and wrong on one
that is off."""

import json
from dataclasses import replace

import numpy as np
import pytest

from everspun.audit.findings import Audit, ProgressClaim, audit
from everspun.audit.fold import ChainAudit
from everspun.config import Config
from paramserver import ChainProgress, Progress
from stream import BARRIER, CLOCK_MS, CONTROL, HEARTBEAT, Partition, StreamConfig, position
from stream.decoding import decode_impressions
from stream.internal_topics import BatchHeader, encode_examples, example_batch, row_hash_sum
from stream.log import MemoryLog

CONFIG = Config(stream=StreamConfig(partitions=1))
T0 = 1_700_000_000_000


class Shop:
    """Three records of `impressions[0]` (two impressions, a heartbeat, one impression), one click,
    and the right `examples`: two batches."""

    def __init__(self) -> None:
        self.log = MemoryLog(lambda: T0)
        for topic in (
            CONFIG.stream.impressions,
            CONFIG.stream.clicks,
            CONFIG.stream.examples,
            CONFIG.stream.quarantine,
        ):
            self.log.create(topic, 1)
        impressions = Partition(CONFIG.stream.impressions, 0)
        beat = ((CONTROL, HEARTBEAT.encode()), (CLOCK_MS, str(T0 + 1).encode()))
        self.log.append(impressions, self._view("a", "b"), b"s", (), T0)
        self.log.append(impressions, None, None, beat, T0 + 1)
        self.log.append(impressions, self._view("c"), b"s", (), T0 + 2)
        click = {"id": "a", "ts_ms": T0 + 5, "session": "s", "source": "u"}
        self.log.append(
            Partition(CONFIG.stream.clicks, 0), json.dumps(click).encode(), b"s", (), T0 + 5
        )
        self.log.append(Partition(CONFIG.stream.clicks, 0), None, None, beat, T0 + 6)
        records = self.log.records(impressions)
        rows, bad = decode_impressions(records, 0, np.full(3, T0), CONFIG.stream)
        assert not bad
        label = np.array([1, 0, 0], dtype=np.int8)
        self.rows = example_batch(rows, label, np.array([5, -1, -1]), np.ones(3, np.float32))
        self.headers = [
            BatchHeader(
                "label/0",
                0,
                position(2),
                "s",
                "c",
                labelled=2,
                positives=1,
                clicks_read=1,
                clicks_joined=1,
            ),
            BatchHeader("label/0", position(2), position(3), "s", "c", labelled=1),
        ]
        self.batches = [self.rows.slice(0, 2), self.rows.slice(2, 1)]

    @staticmethod
    def _view(*ids: str) -> bytes:
        shown = [{"id": i, "item": "x", "vendor": "v"} for i in ids]
        return json.dumps(
            {"ts_ms": T0, "session": "s", "source": "u", "impressions": shown}
        ).encode()

    def write(self, which: int = -1) -> "Shop":
        chosen = range(2) if which < 0 else [which]
        for i in chosen:
            self.append(self.headers[i], encode_examples(self.batches[i]))
        return self

    def append(self, header: BatchHeader, value: bytes) -> None:
        self.log.append(Partition(CONFIG.stream.examples, 0), value, None, header.to_headers(), T0)

    def audit(self, at_rest: bool = True, **progress: ChainProgress) -> Audit:
        claims = [
            ProgressClaim(who.replace("_", " "), Progress({"label/0": at}, {}))
            for who, at in progress.items()
        ]
        return audit(self.log, CONFIG, claims, {"label/0": 0}, waiting_allowed=not at_rest)


def wrong(result: Audit) -> str:
    return " | ".join(f"{f.check}: {f.found}" for f in result.findings if not f.right)


def standing(shop: Shop, rows: int, end: int) -> ChainProgress:
    return ChainProgress(end, row_hash_sum(shop.rows.slice(0, rows)), 0, rows)


def test_a_right_log_is_right():
    shop = Shop().write()
    result = shop.audit(
        shard_0=standing(shop, 3, position(3)), checkpoint_1=standing(shop, 2, position(2))
    )
    assert result.right, wrong(result)
    assert result.impressions["labelled"] == result.impressions["seen"] == 3
    assert result.clicks["joined"] == 1


def test_a_shard_may_stand_within_a_batch():
    shop = Shop().write()
    assert shop.audit(at_rest=False, shard_0=standing(shop, 1, position(0, 1))).right


def test_repeated_batches_change_nothing():
    shop = Shop().write().write(0)
    result = shop.audit()
    assert result.right, wrong(result)
    assert "1 repeated" in result.findings[0].found


def test_a_hole_is_found():
    shop = Shop().write(1)
    assert "1 dangling" in wrong(shop.audit(at_rest=False))


def test_an_impression_in_no_class_is_found():
    shop = Shop()
    shop.headers[0] = replace(shop.headers[0], labelled=1)
    assert "3 in the range, 2 in a class" in wrong(shop.write().audit())


def test_waiting_is_wrong_only_at_rest():
    shop = Shop().write(0)
    assert shop.audit(at_rest=False).right
    assert "1 waiting" in wrong(shop.audit(at_rest=True))


def test_rows_that_do_not_match_their_count_are_found():
    shop = Shop()
    shop.batches[0] = shop.rows.slice(0, 1)
    assert "2 rows, 3 labelled" in wrong(shop.write().audit())


def test_chains_of_one_partition_are_folded_each_on_its_own():
    shop = Shop().write()
    late = BatchHeader("late/0", 0, position(2), "s", "c", labelled=1, positives=1)
    back = BatchHeader("retract/0", 0, position(7), "s", "c", labelled=2, positives=2)
    shop.append(late, encode_examples(shop.rows.slice(1, 1)))
    shop.append(back, encode_examples(shop.rows.slice(0, 2)))
    shop.append(back, encode_examples(shop.rows.slice(0, 2)))
    at = {
        "label/0": standing(shop, 3, position(3)),
        "late/0": ChainProgress(position(2), row_hash_sum(shop.rows.slice(1, 1)), 0, 1),
        "retract/0": ChainProgress(position(7), row_hash_sum(shop.rows.slice(0, 2)), 0, 2),
    }
    begin = dict.fromkeys(at, 0)
    found = audit(
        shop.log, CONFIG, [ProgressClaim("shard 0", Progress(at, {}))], begin, waiting_allowed=False
    )
    assert found.right, wrong(found)
    assert found.impressions["labelled"] == 3, (
        "an impression is labelled once, however often it is corrected"
    )
    at["late/0"] = replace(at["late/0"], end=position(0, 1))
    assert "late/0" in wrong(
        audit(shop.log, CONFIG, [ProgressClaim("shard 0", Progress(at, {}))], begin, True)
    )


def test_a_retraction_of_what_a_model_never_learned_is_not_counted():
    shop = Shop().write()
    back = BatchHeader("retract/0", 0, position(7), "s", "c", labelled=3, positives=3)
    shop.append(back, encode_examples(shop.rows))
    kept = shop.rows.slice(2, 1)
    at = {
        "label/0": ChainProgress(position(3), row_hash_sum(kept), 0, 1),
        "retract/0": ChainProgress(position(7), row_hash_sum(kept), 0, 1),
    }
    begin = {"label/0": position(2), "retract/0": 0}
    found = audit(
        shop.log, CONFIG, [ProgressClaim("shard 0", Progress(at, {}))], begin, waiting_allowed=True
    )
    assert not [f for f in found.findings if "I3" in f.check and not f.right], wrong(found)


def test_a_shard_that_learned_a_row_twice_is_found():
    shop = Shop().write()
    at = standing(shop, 3, position(3))
    doubled = replace(at, row_hash=(at.row_hash + row_hash_sum(shop.rows.slice(0, 1))) % (1 << 128))
    assert "row hash" in wrong(shop.audit(shard_0=doubled))


def test_a_shard_ahead_of_the_log_is_found():
    shop = Shop().write(0)
    assert "ahead" in wrong(shop.audit(at_rest=False, shard_0=standing(shop, 3, position(3))))


def test_a_shard_behind_is_wrong_only_at_rest():
    shop = Shop().write()
    assert shop.audit(at_rest=False, shard_0=standing(shop, 2, position(2))).right
    assert "behind" in wrong(shop.audit(shard_0=standing(shop, 2, position(2))))


def test_clicks_joined_that_nobody_sent_are_found():
    shop = Shop()
    shop.headers[0] = replace(shop.headers[0], clicks_read=3, clicks_joined=3)
    assert "clicks add up" in wrong(shop.write().audit())


def test_a_click_joined_before_the_line_has_passed_it_is_no_fault_of_a_running_system():
    shop = Shop()
    shop.headers[0] = replace(shop.headers[0], clicks_read=0)
    running = shop.write(0).audit(at_rest=False, shard_0=standing(shop, 2, position(2)))
    assert running.right
    assert running.clicks == {
        "seen": 1,
        "joined": 1,
        "duplicate": 0,
        "quarantined": 0,
        "unmatched": 0,
        "not read yet": 0,
    }
    assert shop.write(1).audit().clicks == running.clicks, (
        "nothing came behind the last impression, so it stays so"
    )


def test_a_click_joined_and_not_counted_as_read_where_the_line_has_passed_it_is_found():
    shop = Shop()
    shop.headers[0] = replace(shop.headers[0], clicks_read=0)
    shop.headers[1] = replace(shop.headers[1], clicks_offset=1)
    assert "clicks add up" in wrong(shop.write().audit())


def test_an_altered_label_is_found():
    shop = Shop()
    at = standing(shop, 3, position(3))
    altered = shop.rows.set_column(3, shop.rows.schema.field(3), np.array([0, 0, 0], dtype=np.int8))
    shop.batches = [altered.slice(0, 2), altered.slice(2, 1)]
    assert "row hash" in wrong(shop.write().audit(shard_0=at))


def test_a_barrier_is_folded_without_rows():
    chain = ChainAudit.begin_at("label/0", 0, {0})
    shop = Shop()
    shop.append(BatchHeader("label/0", 0, 0, "s", "c", barrier=1), b"")
    (record,) = shop.log.records(Partition(CONFIG.stream.examples, 0))
    assert dict(record.headers)[BARRIER] == b"1"
    chain.add(record)
    assert (chain.end, chain.fold.barrier, chain.repeats, chain.hash_at) == (0, 1, 0, {0: 0})


def test_a_record_of_the_future_counts_once():
    """T3: one event time ahead of its arrival sends the whole page view to quarantine, counted
    as one."""
    shop = Shop()
    late = {"ts_ms": T0 + 10**9, "session": "s", "source": "u"}
    shown = [{"id": i, "item": "x", "vendor": "v"} for i in ("d", "e")]
    impressions = Partition(CONFIG.stream.impressions, 0)
    shop.log.append(
        impressions, json.dumps({**late, "impressions": shown}).encode(), b"s", (), T0 + 3
    )
    shop.write().append(
        BatchHeader("label/0", position(3), position(4), "s", "c", quarantined=1), b""
    )
    result = shop.audit()
    assert result.right, wrong(result)
    assert result.impressions["quarantined"] == 1


@pytest.mark.parametrize("begin", [0, position(2)])
def test_what_lies_before_the_beginning_is_not_counted(begin: int):
    shop = Shop().write()
    result = audit(shop.log, CONFIG, [], {"label/0": begin}, waiting_allowed=False)
    assert result.impressions["seen"] == (3 if begin == 0 else 1), wrong(result)
