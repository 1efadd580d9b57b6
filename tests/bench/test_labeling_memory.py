"""The memory side of bench.labeling: its log ends with labels still open; its figures are ratios
of what was read."""

import argparse
import os
from typing import Any

import pytest

from bench.labels import labeling_memory
from bench.labels.labeling_log import Shop, draw, write
from stream import Partition, StreamConfig
from stream.log import MemoryLog

STREAM = StreamConfig(partitions=2, replayed=True)


@pytest.mark.parametrize("close", [True, False])
def test_only_a_closed_log_makes_every_label_due(close: bool) -> None:
    log = MemoryLog(lambda: 0)
    log.create(STREAM.impressions, 2)
    log.create(STREAM.clicks, 2)
    views = draw(Shop(2_000, 100.0, 0.1))
    write(log, STREAM, views, "arrow", close)
    for p in range(2):
        last = log.records(Partition(STREAM.clicks, p))[-1]
        assert (last.timestamp_ms > views.ts_ms[-1] + STREAM.wait_ms) == close


def test_the_ratio_is_of_the_day_to_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(_: str, hours: int, overrides: tuple[str, ...]) -> dict[str, Any]:
        return {
            "rss_mib": 200.0 + hours,
            "pending_clicks": 1_000,
            "pending_clicks_bytes": 50_000 + hours * 100,
        }

    monkeypatch.setattr(labeling_memory, "measure", measured)
    found = labeling_memory.compare(argparse.Namespace(broker="auto", set=[]))
    assert found["rss_ratio_24h_1h"] == round(224 / 201, 3)
    assert found["bytes_per_pending_click"] == 52.4


def test_sizes_of_a_process_are_bytes() -> None:
    sizes = labeling_memory._status(os.getpid())
    assert (
        10 * labeling_memory.MIB
        < sizes["VmRSS"]
        <= sizes["VmHWM"]
        < 64 * 1024 * labeling_memory.MIB
    )
