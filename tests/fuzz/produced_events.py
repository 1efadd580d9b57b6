"""Events given to the producer library: what it accepts it sends, and what it refuses it names.

An input is the seed of one event: a dictionary, or something that a site takes for one.
"""

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
from events_made import FIELDS, TS, event, odd_value

from stream import Partition, StreamConfig
from stream.decoding import decode_clicks, decode_impressions
from stream.log import MemoryLog
from stream.producer import EventProducer, ProducerConfig

CONFIG = StreamConfig(
    partitions=1,
    categorical_features=("user",),
    numeric_features=("price",),
    personal_features=("user",),
)
FLUSH_MS = 60_000


class _Named(str):
    """As a web framework hands a header over."""


_OBJECTS = (
    b"bytes",
    Decimal("1.5"),
    datetime(2023, 1, 1, tzinfo=UTC),
    np.int64(TS),
    np.float32(0.5),
    np.str_("s"),
    np.bool_(True),
    _Named("s"),
    (1, 2),
    {"a"},
    1j,
    object(),
    float,
)


def produced(rng: random.Random) -> bytes:
    return rng.randbytes(8)


def _event(rng: random.Random) -> dict[Any, Any]:
    made: dict[Any, Any] = event(rng)
    if rng.random() < 0.3:
        made[rng.choice((*FIELDS, "features", 5, None))] = rng.choice(_OBJECTS)
    if rng.random() < 0.1 and isinstance(made.get("features"), dict):
        made["features"][rng.choice(("price", "user", 5))] = rng.choice(_OBJECTS)
    return made


def _pseudonym(name: str) -> str:
    return f"p-{name[:8]}"


def read_produced(values: Sequence[bytes], turn: int) -> int:
    """Each event is refused by a ValueError that names a field, or stands in the log as a good
    one."""
    log = MemoryLog(lambda: TS)
    for topic in (CONFIG.impressions, CONFIG.clicks):
        log.create(topic, 1)
    producer = EventProducer(log, CONFIG, _pseudonym, ProducerConfig(batch_age_max_ms=0))
    accepted = {CONFIG.impressions: 0, CONFIG.clicks: 0}
    for value in values:
        rng = random.Random(value)
        give, topic = (
            (producer.impression, CONFIG.impressions)
            if rng.random() < 0.7
            else (producer.click, CONFIG.clicks)
        )
        try:
            give(_event(rng))
        except ValueError:
            continue
        accepted[topic] += 1
    if values and turn % 2:
        shared = odd_value(random.Random(values[0]))
        _page_view(producer, shared if isinstance(shared, dict) else {}, accepted)
    producer.flush(FLUSH_MS)
    producer.close(FLUSH_MS)
    assert (producer.dropped, producer.failures) == (0, 0)
    _check_sent(log, accepted)
    return len(values)


def _page_view(producer: EventProducer, shared: dict[str, Any], accepted: dict[str, int]) -> None:
    good = {"id": "i", "ts_ms": TS, "session": "s", "source": "u", "vendor": "v", "item": "x"}
    try:
        producer.page_view(shared, [good])
    except ValueError:
        return
    accepted[CONFIG.impressions] += 1


def _check_sent(log: MemoryLog, accepted: dict[str, int]) -> None:
    for topic, decode in ((CONFIG.impressions, decode_impressions), (CONFIG.clicks, decode_clicks)):
        records = log.records(Partition(topic, 0))
        rows, bad = decode(records, 0, np.full(len(records), TS), CONFIG)
        assert not bad, bad[0].reason
        assert len(rows) == accepted[topic], f"{len(rows)} of {accepted[topic]} of {topic}"
