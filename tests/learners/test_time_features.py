"""Parts of a time, in the zone that is declared (docs/features.md)."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from everspun import loads
from learners.models import Encoder
from stream.hashing import hash_columns


@pytest.mark.parametrize("ts_ms", [1_711_846_799_000, 1_711_846_800_000, 1_700_000_000_000])
@pytest.mark.parametrize("zone", ["Europe/Copenhagen", "America/St_Johns", "UTC"])
def test_hours_are_those_of_the_declared_zone(ts_ms, zone):
    """Around a change of the clocks, too."""
    config = loads(f"""
[features.hour]
kind = "time"
of = "ts_ms"
part = "hour_of_week"
zone = "{zone}"
[model]
categorical = ["item", "hour"]
""")
    local = datetime.fromtimestamp(ts_ms / 1000, ZoneInfo(zone))
    encoder = Encoder(config.model)
    row = pa.table({"item": ["i"], "ts_ms": pa.array([ts_ms])})
    expected = pa.array([str(local.weekday() * 24 + local.hour)])
    key = hash_columns([expected], [encoder.key_of("hour")])[0, 0]
    assert encoder.encode(row).keys[0, 1] == key
