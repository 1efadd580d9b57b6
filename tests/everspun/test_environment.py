"""Keys from the environment, over the file and under --set."""

from pathlib import Path

import pytest

from everspun.config import Config, ConfigError, load
from everspun.environment import OWN, variables


def read(tmp_path: Path, text: str, *overrides: str) -> Config:
    path = tmp_path / "everspun.toml"
    path.write_text(text)
    return load(path, overrides)


def test_the_environment_goes_over_the_file_and_under_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EVERSPUN_RUN_LEARNERS", "7")
    monkeypatch.setenv("EVERSPUN_RUN_LABELERS", "8")
    monkeypatch.setenv("EVERSPUN_STREAM_TOPIC_PREFIX", "123-")
    monkeypatch.setenv("EVERSPUN_GOVERNOR_ENABLED", "true")
    monkeypatch.setenv("EVERSPUN_PARAMSERVER_ADDRESSES", '["a:1", "b:1"]')
    config = read(tmp_path, "[run]\nlearners = 1\nlabelers = 1\n", "run.labelers=9")
    assert (config.run.learners, config.run.labelers) == (7, 9)
    assert config.stream.topic_prefix == "123-"
    assert config.governor.enabled
    assert config.paramserver.addresses == ("a:1", "b:1")


@pytest.mark.parametrize(
    ("value", "root"),
    [
        ("var/x", "var/x"),
        ('"var/x"', "var/x"),
        ("'var/x'", "var/x"),
        (' "var/x"\n', "var/x"),
        ('"a" b', '"a" b'),
        ("'s", "'s"),
        ('"a"\nb = "c"', '"a"\nb = "c"'),
    ],
)
def test_text_is_taken_with_or_without_the_quotes_of_toml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, root: str
):
    monkeypatch.setenv("EVERSPUN_CHECKPOINTER_TAKES_OVER", value)
    assert read(tmp_path, "").checkpointer.takes_over == root


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (
            "EVERSPUN_RUN_LERNERS",
            "2",
            "environment: EVERSPUN_RUN_LERNERS is no key of the configuration; did you mean "
            "EVERSPUN_RUN_LEARNERS?",
        ),
        (
            "everspun_run_learners",
            "2",
            "environment: everspun_run_learners is no key of the configuration; did you mean "
            "EVERSPUN_RUN_LEARNERS?",
        ),
        ("Everspun_Kafka_Password", "x", "did you mean EVERSPUN_KAFKA_PASSWORD?"),
        ("EVERSPUN_KAFKA_PASWORD", "x", "did you mean EVERSPUN_KAFKA_PASSWORD?"),
        ("EVERSPUN_QQQQQQQQ", "x", "EVERSPUN_QQQQQQQQ is no key of the configuration; unset it"),
        ("EVERSPUN_RUN_LEARNERS", "two", "EVERSPUN_RUN_LEARNERS='two' is no TOML value"),
        ("EVERSPUN_RUN_LEARNERS", "0", "learners = 0: at least 1"),
        ("EVERSPUN_RUN_LEARNERS", "9" * 5_000, "EVERSPUN_RUN_LEARNERS='99999"),
        ("EVERSPUN_PARAMSERVER_ADDRESSES", "[" * 5_000, "EVERSPUN_PARAMSERVER_ADDRESSES='[[["),
        (
            "EVERSPUN_RUN_LEARNERS",
            "2\n[stream]\npartitions = 9",
            "LEARNERS='2\\n[stream]\\npartitions = 9': expected one value, in one line",
        ),
        ("EVERSPUN_RUN_LEARNERS", "'2'", "run.learners = '2': expected int, got str"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as error:
        read(tmp_path, "")
    assert told in str(error.value)


def test_a_secret_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVERSPUN_KAFKA_PASSWORT", "hunter2hunter2")
    with pytest.raises(ConfigError) as error:
        read(tmp_path, "")
    assert "hunter2" not in str(error.value)


def test_the_registry_is_a_section_and_its_secrets_are_no_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EVERSPUN_REGISTRY_URL", "http://registry:8081")
    monkeypatch.setenv("EVERSPUN_REGISTRY_USERNAME", "ann")
    monkeypatch.setenv("EVERSPUN_REGISTRY_PASSWORD", "hunter2hunter2")
    monkeypatch.setenv("EVERSPUN_REGISTRY_TOKEN", "hunter2hunter2")
    config = read(tmp_path, "")
    assert config.registry.urls == ("http://registry:8081",)
    assert config.registry.username == "ann"
    assert "hunter2" not in repr(config)


def test_no_two_keys_share_a_variable_and_none_is_a_secret():
    known = variables(Config)
    assert len(known) > 150
    assert len({(section, key) for section, key, _ in known.values()}) == len(known)
    assert not set(known) & set(OWN)
    assert known["EVERSPUN_RUN_DIR"][:2] == ("run", "dir")
