"""What a site gives that cannot be meant is refused where it is given."""

from typing import Any

import pytest

from stream.config import StreamConfig
from stream.log import MemoryLog
from stream.producer.config import ProducerConfig
from stream.producer.producer import EventProducer

STREAM = StreamConfig(partitions=1)

WRONG_CONFIGS: list[dict[str, Any]] = [
    {"name": 5},
    {"name": "\udc00"},
    {"batch_rows_max": "5"},
    {"batch_age_max_ms": -1},
    {"buffer_bytes_max": 0},
    {"block_ms_max": 0.5},
]


@pytest.mark.parametrize("wrong", WRONG_CONFIGS)
def test_settings_that_cannot_be_meant_are_refused_by_name(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match=rf"^{next(iter(wrong))} = .*: a"):
        ProducerConfig(**wrong)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("stream", {"partitions": 1}),
        ("pseudonymise", None),
        ("config", {"batch_rows_max": 5}),
        ("on_delivery", 5),
    ],
)
def test_what_is_of_another_type_is_named(name: str, given: Any):
    rest: dict[str, Any] = {"stream": STREAM, "pseudonymise": str} | {name: given}
    with pytest.raises(TypeError, match=rf"^{name} = .*: a .* is meant"):
        EventProducer(MemoryLog(lambda: 0), **rest)


def test_what_is_no_log_and_what_is_no_event_are_named():
    for wrong in ("localhost:9092", None):
        with pytest.raises(
            TypeError, match=r"^log = .*: a log, such as KafkaLog\(stream\) is meant"
        ):
            EventProducer(wrong, STREAM, str)  # type: ignore[arg-type]
    with EventProducer(MemoryLog(lambda: 0), STREAM, str) as producer:
        for call in (producer.impression, producer.click):
            for event in (None, '{"id": 1}'):
                with pytest.raises(TypeError, match=r"^event = .*: a mapping of fields"):
                    call(event)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^impressions = None: a mapping"):
            producer.page_view({}, [None])  # type: ignore[list-item]
        assert producer.buffered_rows == 0
