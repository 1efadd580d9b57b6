"""The judge over a Faust that misbehaves as the real one does: it hands out what it fetched before a seek, and drops
what it then takes for old."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

import labeler.app
from labeler.app import FraudMetrics, Judge
from labeler.fraud_config import FraudConfig
from labeler.fraud_tables import dict_tables
from labeler.signals import Signal
from stream.config import StreamConfig
from stream.verdicts import Verdict, Watermark

STREAM = StreamConfig(partitions=1)
TP = "signals-0"
MINUTE = 60_000


def records(count: int) -> list[Signal]:
    """Both inputs in turn, empty buckets of a minute."""
    names = ("impressions/0", "clicks/0")
    return [
        Signal(names[n % 2], n // 2, n // 2 + 1, n // 2 * MINUTE, (n // 2 + 1) * MINUTE, n // 2 * MINUTE, 0, None)
        for n in range(count)
    ]


class Faust:
    """Hands out records from `position` on, and drops those below what it last handed out (`_read_offset`)."""

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
        """One fetch of `fetch` records; whatever is sought meanwhile, all of them are handed out. The judge is one
        record behind until the fetch is done."""
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


def judged(faust: Faust, monkeypatch: pytest.MonkeyPatch, rounds: int, fetch: int) -> dict[str, int]:
    """Input -> its last watermark, after so many fetches."""
    monkeypatch.setattr(labeler.app, "SEEK_AGAIN_S", 0.0)
    sender = Sender()

    async def run() -> None:
        judge = Judge(faust, STREAM, FraudConfig(), dict_tables(), sender, FraudMetrics(), dict)  # type: ignore[arg-type]
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
    assert judged(faust, monkeypatch, rounds=120, fetch=3) == {"impressions/0": 20 * MINUTE, "clicks/0": 20 * MINUTE}
