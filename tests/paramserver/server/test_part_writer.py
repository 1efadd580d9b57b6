"""A store that takes a part and never says so holds up no later cut for good."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from paramserver.ports import PortRefused
from paramserver.server import part_writer
from paramserver.server.metrics import Metrics

DEADLINE_MS = 50


class _Copy:
    dropped = False

    def advance(self, rows: int) -> bool:
        return True

    def snapshot(self) -> None:
        return None


def test_a_part_that_hangs_is_left_to_itself_and_so_many_at_most(monkeypatch: pytest.MonkeyPatch):
    hangs, answers = set[str](), threading.Event()

    def write(snapshot: None, shard: int, url: str, bits: int) -> Any:
        if url in hangs:
            answers.wait(60)
        return SimpleNamespace(bytes=1)

    monkeypatch.setattr(part_writer, "write_part", write)
    monkeypatch.setattr(part_writer, "END_S", 0.1)
    shard: Any = SimpleNamespace(index=0, copying=lambda *_: _Copy())
    metrics = Metrics()
    writer = part_writer.PartWriter(shard, threading.Lock(), metrics, deadline_ms=DEADLINE_MS)

    def counted() -> float | None:
        return metrics.registry.get_sample_value("everspun_parts_hanging")

    hangs |= {f"c{number}" for number in range(part_writer.HANGING_MAX + 1)}
    left = []
    for cut in sorted(hangs):
        left.append(writer.begin("m", cut, cut, None))
        with pytest.raises(PortRefused, match=f"still writes cut '{cut}'"):
            writer.begin("m", "next", "next", None)  # it may only be slow
        with pytest.raises(TimeoutError):
            left[-1].result(2 * DEADLINE_MS / 1_000)
    with pytest.raises(PortRefused, match="still writes"):  # each keeps a copy of the rows
        writer.begin("m", "next", "next", None)
    assert counted() == part_writer.HANGING_MAX
    answers.set()
    assert [one.result(10).bytes for one in left] == [1] * len(left)
    assert counted() == 0
    assert writer.begin("m", "next", "next", None).result(10).bytes == 1
    writer.close()
