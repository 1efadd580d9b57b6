"""A broker that enforces rights lets each principal do what docs/security.md says, and nothing
beyond; what it refuses is named."""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from everspun.broker_access import TOPICS, access, grants
from everspun.launcher.broker import why_not_kafka
from stream import Partition, StreamConfig
from stream.columns import Feature
from stream.log import KafkaLog, LogError, create_topics
from stream.log.security import PASSWORD as PASSWORD_NAME

sys.path.insert(0, str(Path(__file__).parents[1] / "stream"))
import secured_broker

pytestmark = pytest.mark.kafka
PREFIX = "eu-"
POLLS = 40


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StreamConfig]:
    """What every principal is told of the broker; its name is put in by each test."""
    if reason := why_not_kafka():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"kafka broker: {reason}")
    secured = secured_broker.start(
        tmp_path_factory.mktemp("rights"), tuple(access("shop")), secured_broker.AUTHORIZER
    )
    try:
        open_one = StreamConfig(
            topic_prefix=PREFIX,
            partitions=1,
            bootstrap_servers=secured.broker.address,
            declared={"rate": Feature(kind="counter", of="item", half_life_ms=1_000)},
        )
        create_topics(open_one)
        for topic in TOPICS:
            assert refusal_to_write(KafkaLog(open_one), PREFIX + topic) == ""
        secured.grant(grants(open_one, "shop"))
        yield StreamConfig(
            topic_prefix=PREFIX,
            partitions=1,
            request_timeout_ms=8_000,
            **secured.settings("SCRAM-SHA-512"),
        )
    finally:
        secured.broker.stop()


def refusal_to_write(log: KafkaLog, topic: str) -> str:
    """ "" = it stands in the log."""
    writer = log.writer()
    try:
        writer.append(Partition(topic, 0), b"{}")
        writer.flush(8_000)
    except LogError as error:
        return str(error)
    finally:
        writer.close()
    return ""


def refusal_to_read(log: KafkaLog, topic: str) -> str:
    """ "" = the first record was read."""
    reader, at = log.reader(), Partition(topic, 0)
    try:
        reader.assign([at])
        reader.seek(at, 0)
        for _ in range(POLLS):
            if reader.poll(1, 200):
                return ""
    except LogError as error:
        return str(error)
    finally:
        reader.close()
    return f"{topic}: nothing was read, and nothing said"


def ends_of(log: KafkaLog, topics: tuple[str, ...]) -> list[int]:
    reader = log.reader()
    try:
        return list(reader.end_offsets([Partition(PREFIX + topic, 0) for topic in topics]).values())
    finally:
        reader.close()


@pytest.mark.parametrize("who", tuple(access("shop")))
def test_each_principal_does_its_own_and_nothing_else(
    asked: StreamConfig, who: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(PASSWORD_NAME, secured_broker.PASSWORD)
    may, log = access("shop")[who], KafkaLog(replace(asked, sasl_username=who))
    for topic in TOPICS:
        said = {
            "writes": refusal_to_write(log, PREFIX + topic),
            "reads": refusal_to_read(log, PREFIX + topic),
        }
        for doing, allowed in (("writes", may.writes), ("reads", may.reads)):
            assert (said[doing] == "") == (topic in allowed), f"{who} {doing} {topic}: {said}"
            assert not said[doing] or "uthoriz" in said[doing], "what is refused is named"
    told = tuple(dict.fromkeys((*may.describes, *may.reads)))
    assert all(end > 0 for end in ends_of(log, told)), f"{who} learns where {told} end"
    if hidden := sorted(set(TOPICS) - {*told, *may.writes}):
        began = time.monotonic()
        with pytest.raises(LogError, match=f"not authorized to read {PREFIX + hidden[0]}"):
            ends_of(log, (hidden[0],))
        assert time.monotonic() < began + asked.request_timeout_ms / 1_000, "and said soon"
