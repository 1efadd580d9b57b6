"""Claims beyond a log wait a second each, and hold up what stands behind them for no longer
(F3)."""

from collections.abc import Iterable

from labeler.labels.verdict_queue import DOUBT_MS, VerdictQueue
from stream import Partition, Record, StreamConfig, position
from stream.internal_topics import Verdict, Watermark, encode_verdict

STREAM = StreamConfig(partitions=1)
NOW = 1_700_000_000_000


class Log:
    """Whose inputs all end at one offset."""

    def __init__(self, end: int):
        self.end, self.looks = end, 0

    def end_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        self.looks += 1
        return dict.fromkeys(partitions, self.end)


def mark(offset: int, end: int) -> Record:
    return Record(offset, NOW, None, encode_verdict(Watermark("impressions/0", NOW, position(end))))


def verdict(offset: int) -> Record:
    return Record(
        offset, NOW, None, encode_verdict(Verdict("i", "r", "reject", "s", None, 1, 2, "why"))
    )


def offsets(taken: list[object]) -> list[int]:
    return [one.record.offset for one in taken]  # type: ignore[attr-defined]


def test_honest_ones_wait_for_nothing():
    verdict_queue, log = VerdictQueue(STREAM), Log(5)
    verdict_queue.put([mark(0, 5), verdict(1)], NOW)
    assert offsets(verdict_queue.take(log, NOW)) == [0, 1]
    log.end = 9
    verdict_queue.put([mark(2, 9)], NOW)
    taken = verdict_queue.take(log, NOW)
    assert (offsets(taken), taken[0].error) == ([2], None)


def test_a_false_claim_is_looked_at_twice_and_set_aside():
    verdict_queue, log = VerdictQueue(STREAM), Log(5)
    verdict_queue.put([verdict(0), mark(1, 6), verdict(2)], NOW)
    assert offsets(verdict_queue.take(log, NOW)) == [0]
    for passed in range(0, DOUBT_MS, 100):
        assert verdict_queue.take(log, NOW + passed) == []
    assert log.looks == 1
    taken = verdict_queue.take(log, NOW + DOUBT_MS)
    assert offsets(taken) == [1, 2]
    assert taken[0].error is not None
    assert log.looks == 2
    assert len(verdict_queue) == 0


def test_what_the_log_turns_out_to_hold_counts():
    verdict_queue, log = VerdictQueue(STREAM), Log(5)
    verdict_queue.put([mark(0, 6)], NOW)
    assert verdict_queue.take(log, NOW) == []
    log.end = 6
    (taken,) = verdict_queue.take(log, NOW + DOUBT_MS)
    assert taken.error is None


def test_however_many_false_ones_come_nothing_waits_longer_than_for_one():
    verdict_queue, log, waited = VerdictQueue(STREAM), Log(5), []
    for run_once in range(400):
        now_ms = NOW + 50 * run_once
        verdict_queue.put([mark(2 * run_once, 10**6), verdict(2 * run_once + 1)], now_ms)
        waited += [
            now_ms - (NOW + 50 * (offset // 2))
            for offset in offsets(verdict_queue.take(log, now_ms))
        ]
    assert len(waited) == 2 * (400 - DOUBT_MS // 50)
    assert max(waited) == DOUBT_MS


def test_so_much_may_wait():
    verdict_queue, log = VerdictQueue(STREAM), Log(5)
    verdict_queue.put(
        [mark(0, 6), *(Record(i, NOW, None, b"x" * (1 << 20)) for i in range(1, 9))], NOW
    )
    assert verdict_queue.take(log, NOW) == []
    assert verdict_queue.full
    verdict_queue.take(log, NOW + DOUBT_MS)
    assert not verdict_queue.full


def test_a_clock_set_back_prolongs_no_doubt():
    verdict_queue, log = VerdictQueue(STREAM), Log(5)
    verdict_queue.put([mark(0, 6)], NOW)
    assert verdict_queue.take(log, NOW) == []
    assert len(verdict_queue.take(log, NOW - 3_600_000)) == 1


def test_looks_at_a_slow_broker_leave_time_for_labels():
    """And nothing is judged by a look of before it was read."""
    clock_s, log = [0.0], Log(0)
    verdict_queue = VerdictQueue(STREAM, lambda: clock_s[0])

    class Slow:
        def end_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
            clock_s[0] += 0.1
            return log.end_offsets(partitions)

    waited: list[int] = []
    read_ms: dict[int, int] = {}
    for n in range(400):  # each claims what has just come
        log.end = n
        now_ms = NOW + int(1_000 * clock_s[0])
        verdict_queue.put([mark(n, n)], now_ms)
        read_ms[n] = now_ms
        for one in verdict_queue.take(Slow(), now_ms):
            assert one.error is None
            waited.append(now_ms - read_ms[one.record.offset])
        clock_s[0] += 0.05
    assert len(waited) > 390
    assert log.looks * 0.1 < clock_s[0] / 3
    assert max(waited) <= 500
