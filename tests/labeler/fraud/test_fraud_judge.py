"""The judge over a Faust that misbehaves as the real one does: it hands out what it fetched before
a seek, and drops what it then takes for old."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import labeler.fraud.app
from labeler.counting import Signal
from labeler.fraud.app import IDLE_S, FraudMetrics, Judge, LogView
from labeler.fraud.tables import dict_tables
from labeler.fraud_config import FraudConfig
from labeler.io import RefetchTimer, StepSize
from labeler.labels import ClaimedEnds
from stream import Partition, StreamConfig
from stream.internal_topics import Verdict, Watermark
from stream.log import Unavailable

STREAM = StreamConfig(partitions=1)
TP = "signals-0"
MINUTE = 60_000


def records(count: int) -> list[Signal]:
    """Both inputs in turn, empty buckets of a minute."""
    names = ("impressions/0", "clicks/0")
    return [
        Signal(
            names[n % 2],
            n // 2,
            n // 2 + 1,
            n // 2 * MINUTE,
            (n // 2 + 1) * MINUTE,
            n // 2 * MINUTE,
            0,
            None,
        )
        for n in range(count)
    ]


class Faust:
    """Hands out records from `position` on, and drops those below what it last handed out
    (`_read_offset`)."""

    def __init__(self, log: list[Signal], position: int):
        self.log, self.position, self.handed_out = log, position, -1
        self.first = 0
        self.conf, self.consumer, self.producer = SimpleNamespace(id="app"), self, self

    def topic_partitions(self, name: str) -> int:
        return 1

    async def flush(self) -> None: ...

    async def earliest_offsets(self, partition: str) -> dict[str, int]:
        return {partition: self.first}

    async def seek(self, partition: str, offset: int) -> None:
        self.position = self.handed_out = offset

    async def run(self, judge: Judge, fetch: int) -> None:
        """One fetch of `fetch` records; whatever is sought meanwhile, all of them are handed out.
        The judge is one record behind until the fetch is done."""
        fetched = range(self.position, min(self.position + fetch, len(self.log)))
        self.position = max(self.position, fetched.stop)
        queue: list[int] = []
        for offset in fetched:
            if offset >= self.handed_out:
                queue.append(offset)
                if len(queue) > 1:
                    await self.take(judge, queue.pop(0))
                self.handed_out = offset
        for offset in queue:
            await self.take(judge, offset)

    async def take(self, judge: Judge, offset: int) -> None:
        one = self.log[offset]
        message = SimpleNamespace(
            offset=offset, tp=TP, timestamp=0.0, key=one.key, value=one.value, headers=one.headers
        )
        await judge.on_event(SimpleNamespace(message=message), more=False)


class Sender:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def send(self, said: list[Verdict | Watermark]) -> None:
        self.sent += said


def judged(
    faust: Faust, monkeypatch: pytest.MonkeyPatch, rounds: int, fetch: int
) -> dict[str, int]:
    """Input -> its last watermark, after so many fetches."""
    monkeypatch.setattr(labeler.fraud.app, "SEEK_AGAIN_S", 0.0)
    sender = Sender()

    async def run() -> None:
        judge = Judge(
            faust, STREAM, FraudConfig(), dict_tables(), sender, FraudMetrics(), LogView(dict)
        )  # type: ignore[arg-type]
        for _ in range(rounds):
            await faust.run(judge, fetch)

    asyncio.run(run())
    return {one.input: one.watermark_ms for one in sender.sent}


@pytest.mark.parametrize("fetch", [1, 3, 40])
def test_records_that_came_too_early_are_sought_until_the_missing_ones_come(
    monkeypatch: pytest.MonkeyPatch, fetch: int
):
    faust = Faust(records(40), position=25)
    assert judged(faust, monkeypatch, rounds=120, fetch=fetch) == {
        "impressions/0": 20 * MINUTE,
        "clicks/0": 20 * MINUTE,
    }


def test_what_is_truly_gone_is_passed_over(monkeypatch: pytest.MonkeyPatch):
    faust = Faust(records(40), position=25)
    faust.first = 6
    assert judged(faust, monkeypatch, rounds=120, fetch=3) == {
        "impressions/0": 20 * MINUTE,
        "clicks/0": 20 * MINUTE,
    }


class SlowFaust(Faust):
    """On a machine so busy that a fetch takes `fetch_s`, and handing over and judging a record
    `hand_s`. A seek throws away the fetch under way and what was fetched."""

    def __init__(self, log: list[Signal], position: int, fetch_s: float, hand_s: float):
        super().__init__(log, position)
        self.now_s, self.fetch_s, self.hand_s = 1_000.0, fetch_s, hand_s
        self.seeks, self.sought = 0, False

    async def seek(self, partition: str, offset: int) -> None:
        await super().seek(partition, offset)
        self.seeks, self.sought = self.seeks + 1, True

    async def position_of(self, partition: Any) -> int:
        return max(self.position, self.handed_out + 1)

    def assignment(self) -> set[Any]:
        return {labeler.fraud.app.TP("signals", 0)}

    async def go(self, judge: Judge, until_s: float, fetch: int) -> None:
        while self.now_s < until_s and self.position < len(self.log):
            first, ready_s, self.sought = self.position, self.now_s + self.fetch_s, False
            while self.now_s < ready_s and not self.sought:
                self.now_s += 0.1
                await judge.look_behind()
            if self.sought:
                continue
            self.position = min(first + fetch, len(self.log))
            for offset in range(first, self.position):
                self.now_s += self.hand_s
                await self.take(judge, offset)
                await judge.look_behind()
                if self.sought:
                    break


@pytest.mark.parametrize(("fetch_s", "hand_s"), [(0.1, 0.01), (5.0, 0.5), (20.0, 4.0), (50.0, 8.0)])
def test_on_a_slow_machine_the_fetch_under_way_is_waited_for(fetch_s: float, hand_s: float):
    log = records(40)
    faust = SlowFaust(log, 25, fetch_s, hand_s)
    consumer = SimpleNamespace(
        assignment=faust.assignment,
        position=faust.position_of,
        seek=faust.seek,
        topic_partitions=lambda name: 1,
        earliest_offsets=faust.earliest_offsets,
    )
    faust.consumer = consumer  # type: ignore[assignment]
    sender = Sender()

    async def run() -> None:
        judge = Judge(
            faust,
            STREAM,
            FraudConfig(),
            dict_tables(),
            sender,
            FraudMetrics(),
            LogView(dict),
            lambda: faust.now_s,  # type: ignore[arg-type]
        )
        await faust.go(judge, 1_000.0 + 60 * (fetch_s + 40 * hand_s), 10)

    asyncio.run(run())
    assert {one.input: one.watermark_ms for one in sender.sent} == {
        "impressions/0": 20 * MINUTE,
        "clicks/0": 20 * MINUTE,
    }
    assert faust.seeks <= 10


def test_a_step_is_cut_to_what_the_machine_can_do_in_a_turn():
    size = StepSize(512, 1.0)
    for _ in range(20):
        size.took(size.size, size.size * 0.05)
    assert 5 <= size.size <= 20
    for _ in range(20):
        size.took(size.size, size.size * 0.0001)
    assert size.size == 512
    size.took(1, 100.0)
    assert size.size == 1


def test_an_outage_of_the_broker_does_not_make_the_filter_slow_to_miss_what_is_missing():
    faust, now_s = Faust(records(1), position=0), [1_000.0]
    answers: list[Exception | None] = [Unavailable("no broker"), Unavailable("no broker"), None]

    def look(claimed: ClaimedEnds) -> None:
        now_s[0] += 20.0
        if (answer := answers.pop(0)) is not None:
            raise answer

    async def run() -> Judge:
        judge = Judge(
            faust,
            replace(STREAM, reconnect_max_ms=1),
            FraudConfig(),
            dict_tables(),
            Sender(),
            FraudMetrics(),
            LogView(dict, look),
            lambda: now_s[0],
        )  # type: ignore[arg-type]
        judge._idle.ask(now_s[0])  # as while the broker was away
        await faust.take(judge, 0)
        return judge

    judge = asyncio.run(run())
    assert not answers
    assert not judge._idle.is_due(now_s[0] + IDLE_S - 0.1)
    assert judge._idle.is_due(now_s[0] + IDLE_S)


def test_a_question_is_repeated_less_and_less_often_until_an_answer_comes():
    backoff, asked, now = RefetchTimer(1.0, 60.0), [], 0.0
    while now < 1_000:
        if backoff.is_due(now):
            backoff.ask(now)
            asked.append(now)
        now += 0.5
    assert asked[:5] == [0.0, 1.0, 3.0, 7.0, 15.0]
    assert 10 < len(asked) < 25
    backoff.ask(now)
    backoff.come(now + 8.0)  # an answer takes so long here
    assert not backoff.is_due(now + 8.0 + 11.9)
    assert backoff.is_due(now + 8.0 + 12.0)
    for _ in range(200):
        backoff.come(now + 8.0)  # and here it no longer does
    assert not backoff.is_due(now + 8.9)
    assert backoff.is_due(now + 9.0)


def test_however_many_signals_claim_too_much_ends_are_looked_up_once_a_batch():
    """F3: each of them would hold up the filter for a question to the broker."""
    log = [replace(one, end=10**15) if i % 2 else one for i, one in enumerate(records(40))]
    faust, sender, looks = Faust(log, position=0), Sender(), [0]

    def look(claimed: ClaimedEnds) -> None:
        looks[0] += 1
        claimed.ends = dict.fromkeys(claimed.ends, 10**12)

    async def run() -> Judge:
        judge = Judge(
            faust, STREAM, FraudConfig(), dict_tables(), sender, FraudMetrics(), LogView(dict, look)
        )  # type: ignore[arg-type]
        for offset, one in enumerate(log):
            message = SimpleNamespace(
                offset=offset,
                tp=TP,
                timestamp=0.0,
                key=one.key,
                value=one.value,
                headers=one.headers,
            )
            await judge.on_event(SimpleNamespace(message=message), more=offset + 1 < len(log))
        return judge

    judge = asyncio.run(run())
    assert looks[0] == 1
    assert judge.passed_over.by_partition == {Partition("signals", 0): 20}
    assert sender.sent
