"""A small real log with click times (EB-NeRD's test data), replayed through the real labeler, in
one process."""

import threading
from pathlib import Path

import numpy as np

from everspun.config import Config, ReplayConfig, RunConfig
from everspun.replay import history
from everspun.replay.replay import Replayer
from labeler import LabelerConfig
from labeler.labels import Labelling
from stream import Partition, StreamConfig
from stream.internal_topics import BatchHeader, decode_examples
from stream.log import MemoryLog, topic_specs

FOLDER = Path(__file__).parents[3] / "examples" / "ebnerd"
DAY_MS = 86_400_000


def stream_config(window_ms: int) -> StreamConfig:
    return StreamConfig(
        replayed=True,
        partitions=2,
        categorical_features=("device_type", "is_subscriber", "front_page"),
        window_ms=window_ms,
        age_max_ms=2 * DAY_MS,
        heartbeat_ms=6 * 3_600_000,
        jump_max_ms=DAY_MS,
        signal_ms=300_000,
        flush_ms=3_600_000,
    )


def labelled(tmp_path: Path, window_ms: int) -> list[tuple[BatchHeader, bytes]]:
    """The records of `examples` after the whole log was replayed and labelled."""
    stream = stream_config(window_ms)
    log = MemoryLog(now=lambda: 0)
    for spec in topic_specs(stream):
        log.create(spec.name, spec.partitions)
    config = Config(
        run=RunConfig(fraud=0),
        stream=stream,
        replay=ReplayConfig(barrier_ms=0, predict=False, attacks=False),
    )
    Replayer(config, history.load(str(FOLDER), tmp_path), log, tmp_path, b"0" * 32).run(
        threading.Event()
    )
    labelling = Labelling(stream, LabelerConfig(await_verdicts=False), log)
    labelling.own(range(stream.partitions))
    while labelling.run_once(0, 0):
        pass
    labelling.close()
    records = [
        r for p in range(stream.partitions) for r in log.records(Partition(stream.examples, p))
    ]
    return [(BatchHeader.from_headers(r.headers), r.value or b"") for r in records]


def total(batches: list[tuple[BatchHeader, bytes]], name: str) -> int:
    return sum(int(getattr(header, name)) for header, _ in batches)


def test_with_an_unlimited_window_every_click_finds_its_impression(tmp_path: Path):
    batches = labelled(tmp_path, window_ms=90 * DAY_MS)
    assert total(batches, "labelled") == 10_848
    assert total(batches, "positives") == 1_047
    assert total(batches, "clicks_joined") == 1_047  # all that were sent, so none is an orphan
    assert total(batches, "clicks_duplicate") == total(batches, "clicks_quarantined") == 0
    rows = [decode_examples(value) for _, value in batches if value]
    assert sum(int(np.sum(r.column("label").to_numpy())) for r in rows) == 1_047


def test_a_short_window_leaves_late_clicks_unmatched(tmp_path: Path):
    """That the count above can be another one: half of the clicks come later than 30 s."""
    batches = labelled(tmp_path, window_ms=30_000)
    assert 100 < total(batches, "positives") == total(batches, "clicks_joined") < 900
