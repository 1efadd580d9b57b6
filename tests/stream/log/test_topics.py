from dataclasses import replace

import pytest

from stream.config import StreamConfig
from stream.log.topics import ExistingTopic, TopicSpec, check_topic, topic_specs

SERVERS = "localhost:9092"


def existing(spec: TopicSpec, **settings: str) -> ExistingTopic:
    return ExistingTopic(
        spec.name, spec.partitions, spec.replication, {**spec.all_settings, **settings}
    )


def spec(name: str, **changed: object) -> TopicSpec:
    return next(s for s in topic_specs(StreamConfig(**changed)) if s.name == name)


def test_there_are_eleven_topics_with_their_prefix():
    names = [s.name for s in topic_specs(StreamConfig(topic_prefix="a."))]
    assert len(set(names)) == 11
    assert all(name.startswith("a.") for name in names)


@pytest.mark.parametrize("config", [StreamConfig(), StreamConfig(replayed=True, replication=3)])
def test_what_is_created_passes_the_check(config: StreamConfig):
    for one in topic_specs(config):
        assert check_topic(one, existing(one), SERVERS) == []


def test_inputs_outlive_the_wait_and_an_outage():
    config = StreamConfig()
    for name in ("impressions", "clicks", "signals"):
        assert spec(name).retention_ms >= config.window_ms + config.grace_ms + config.outage_max_ms


def test_replayed_events_are_not_deleted_by_their_old_stamps():
    assert spec("impressions", replayed=True).retention_ms == -1
    assert spec("impressions", replayed=True).settings["message.timestamp.type"] == "CreateTime"
    assert spec("impressions").settings["message.timestamp.type"] == "LogAppendTime"


@pytest.mark.parametrize(
    ("setting", "value", "word"),
    [
        ("cleanup.policy", "compact", "delete"),
        ("unclean.leader.election.enable", "true", "false"),
        ("min.insync.replicas", "1", "2 or more"),
        ("message.timestamp.type", "CreateTime", "LogAppendTime"),
        ("retention.ms", "1000", "or more"),
        ("max.message.bytes", "1000", "or more"),
    ],
)
def test_a_wrong_setting_is_named_with_its_command(setting: str, value: str, word: str):
    one = spec("impressions", replication=3)
    (problem,) = check_topic(one, existing(one, **{setting: value}), SERVERS)
    for part in (setting, value, word, f"--entity-name impressions --add-config {setting}="):
        assert part in str(problem)


def test_more_than_needed_is_fine():
    one = spec("impressions", replication=3)
    more = {"retention.ms": "-1", "min.insync.replicas": "3", "max.message.bytes": "99999999"}
    assert check_topic(one, existing(one, **more), SERVERS) == []


def test_a_missing_topic_and_another_partition_count_are_refused():
    one = spec("clicks")
    assert "everspun topics create" in str(check_topic(one, None, SERVERS)[0])
    (problem,) = check_topic(one, replace(existing(one), partitions=7), SERVERS)
    assert "has 7 partitions, expected 4" in str(problem)
    assert not problem.stops, "they cannot be taken away again"
    (problem,) = check_topic(one, replace(existing(one), partitions=2), SERVERS)
    assert problem.stops


def test_a_setting_that_the_broker_does_not_have_is_no_problem():
    one = spec("clicks")
    assert check_topic(one, ExistingTopic(one.name, one.partitions, 1, {}), SERVERS) == []
