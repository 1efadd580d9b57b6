"""Compile the labeler's kernels into their cache, so that the first event of a run does not wait
for a compiler."""

import json

from labeler.config import LabelerConfig
from labeler.join import ResumePoint
from labeler.labels import PartitionLabeler
from stream import CLOCK_MS, CONTROL, HEARTBEAT, Record, StreamConfig

_START_MS = 1_600_000_000_000


def warm_up() -> int:
    """Label one clicked impression and its repeat, far enough apart that both leave the tables.
    Returns the batches."""
    stream = StreamConfig(
        partitions=1, replayed=True, categorical_features=("place",), numeric_features=("price",)
    )
    labeler = PartitionLabeler(stream, LabelerConfig(), 0, ResumePoint.fresh(0, 0, 0), None)
    shared = {"session": "s", "ts_ms": _START_MS}
    view = {
        **shared,
        "id": "1",
        "source": "u",
        "vendor": "v",
        "item": "i",
        "features": {"place": "x", "price": 1.0},
    }
    later_ms = _START_MS + stream.wait_ms + stream.jump_max_ms + stream.dedup_ms
    times = (_START_MS, later_ms, later_ms + 2 * stream.wait_ms)
    for events, take in (
        (view, labeler.on_impressions),
        ({**shared, "id": "1"}, labeler.on_clicks),
    ):
        records = [_heartbeat(0, times[0]), Record(1, times[0], b"s", json.dumps(events).encode())]
        records += [_heartbeat(2, times[1]), Record(3, times[1], b"s", json.dumps(events).encode())]
        take([*records, _heartbeat(4, times[2])])
    return len(labeler.step())


def _heartbeat(offset: int, at_ms: int) -> Record:
    headers = ((CONTROL, HEARTBEAT.encode()), (CLOCK_MS, str(at_ms).encode()))
    return Record(offset, at_ms, None, None, headers)
