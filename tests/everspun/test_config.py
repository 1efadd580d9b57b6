"""The config file: every problem is told with key, value, what is allowed, and the nearest known
key."""

import dataclasses
from importlib.resources import files
from pathlib import Path

import pytest

from everspun import config
from everspun.commands import config_reference
from everspun.commands.config_reference import OPERATOR_KEYS
from everspun.config import Config, ConfigError
from everspun.roles import check_model, examples_log
from stream.columns import Feature
from stream.log import KafkaLog
from stream.log.kafka_admin import consumer_settings

ROOT = Path(__file__).resolve().parents[2]


def load(tmp_path: Path, text: str, *overrides: str) -> Config:
    path = tmp_path / "everspun.toml"
    path.write_text(text)
    return config.load(path, overrides)


def test_an_empty_file_is_all_defaults(tmp_path: Path):
    assert load(tmp_path, "") == Config()


def test_overrides_win(tmp_path: Path):
    read = load(tmp_path, "[run]\nshards = 2\n", "run.shards=3", "stream.topic_prefix=shop-")
    assert read.run.shards == 3
    assert read.stream.topic_prefix == "shop-"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[strem]\n", "unknown key 'strem'; did you mean 'stream'?"),
        ("[run]\nlerners = 2\n", "unknown key 'run.lerners'; did you mean 'learners'?"),
        ("[run]\nlearners = 0\n", "learners = 0: at least 1"),
        ("[run]\nlearners = '2'\n", "run.learners = '2': expected int, got str"),
        ("[run]\nlearners = true\n", "expected int, got bool"),
        ("run = 3\n", "[run] must be a table"),
        ("[stream]\nwindow_ms = 0\n", "window_ms = 0"),
        ("[stream]\nheartbeat_ms = 9000000\n", "heartbeat_ms = 9000000"),
        ("[replay]\nbarrier_ms = -1\n", "barrier_ms = -1"),
        ("[run\n", "everspun.toml"),
        (f"[run]\nlearners = {'9' * 5_000}\n", "everspun.toml: a number of thousands of digits"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, text: str, told: str):
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    assert told in str(error.value)


def test_an_override_of_thousands_of_digits_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"run\.learners = '9999"):
        load(tmp_path, "", f"run.learners={'9' * 5_000}")


def test_a_missing_file_says_what_to_do(tmp_path: Path):
    with pytest.raises(ConfigError, match="everspun config --example"):
        config.load(tmp_path / "none.toml")


def test_every_key_has_a_meaning():
    for section in dataclasses.fields(Config):
        kind = Feature if section.name == "features" else type(getattr(Config(), section.name))
        for item in dataclasses.fields(kind):
            assert item.metadata.get("help"), f"{section.name}.{item.name} has no help"


@pytest.mark.parametrize("name", ["example.toml", "demo.toml"])
def test_shipped_files_are_valid(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_text(files("everspun").joinpath(name).read_text())
    config.load(path)


def test_examples_are_fetched_in_larger_pieces(tmp_path: Path):
    read = load(tmp_path, "[stream]\nfetch_bytes_max = 100\nexamples_fetch_bytes_max = 300\n")
    log = examples_log(read)
    assert isinstance(log, KafkaLog)
    settings = consumer_settings(log._config)
    assert settings["max_partition_fetch_bytes"] == 300


def test_an_operators_keys_are_few_and_there():
    marked = {(key.section, key.name) for key in config_reference.all_keys() if key.is_operators}
    assert marked == {(section, name) for section, names in OPERATOR_KEYS.items() for name in names}
    assert 30 <= len(marked) <= 60 < len(config_reference.all_keys()) / 3


def test_the_list_shows_an_operators_keys_or_all():
    short, whole = (config_reference.listing(expert, 10_000) for expert in (False, True))
    assert "partitions = 4  # " in short
    assert "fold_signals_max" not in short
    assert whole.count(" = ") >= len(config_reference.all_keys())
    assert [line for line in short.splitlines() if line not in whole.splitlines()] == []
    narrow = config_reference.listing(True, 80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert whole.replace("#", "").split() == narrow.replace("#", "").split()


def test_the_reference_page_is_current():
    assert (ROOT / "docs" / "configuration.md").read_text() == config_reference.markdown() + "\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("table_policy = {ttl = 5000}", "model.table_policy: .*did you mean 'ttl_ms'"),
        ("table_storage = 'float16'", "model.table_storage: .*keeps sums of gradients"),
        ("table_options = {rate = 1}", "model.table_options with .*`model.table_options={}`"),
        (
            "groups.a = {features = ['item'], policy = {admit_count = 300}}",
            "model.groups.a.policy: .*admit_count = 300",
        ),
        (
            "groups.a = {features = ['item'], storage = 'float8'}",
            "model.groups.a.storage: .*storage = 'float8'",
        ),
        (
            "groups.a = {features = ['item'], options = {rate = 1}}",
            "model.groups.a.options with .*no option 'rate'",
        ),
    ],
)
def test_a_table_that_cannot_be_is_told_before_anything_starts(
    tmp_path: Path, text: str, told: str
):
    read = load(tmp_path, f"[model]\n{text}\n")
    with pytest.raises(ConfigError, match=told):
        check_model(read)


def test_options_of_a_module_are_read_as_they_are(tmp_path: Path):
    read = load(
        tmp_path,
        "[model]\nkind = 'gated:Gated'\nmodule_options = {width = 8, name = 'a', wide = [1, 2]}\n",
    )
    assert read.model.module_options == {"width": 8, "name": "a", "wide": [1, 2]}


def test_groups_are_read_from_a_file(tmp_path: Path):
    read = load(tmp_path, "[model.groups.goods]\nfeatures = ['item']\npolicy = {admit_count = 2}\n")
    check_model(read)
    assert read.model.groups == {"goods": {"features": ["item"], "policy": {"admit_count": 2}}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[learners]\nslices = ['colour']", r"learners.slices = \['colour'\]: .*vendor.*language"),
        ("[breaker]\nslices = ['tags']\n[run]\nbreaker = 1", r"breaker.slices = .*tags is a"),
        ("[run]\nbreaker = 1", r"stream.release_ms = 0"),
    ],
)
def test_a_slice_that_cannot_be_is_told_before_anything_starts(
    tmp_path: Path, text: str, told: str
):
    declared = "[features.language]\n[features.tags]\nkind = 'list'\n"
    with pytest.raises(ConfigError, match=told):
        check_model(load(tmp_path, declared + text + "\n"))
    check_model(load(tmp_path, declared + "[learners]\nslices = ['tags', 'language', 'vendor']\n"))


def test_a_turn_is_longer_than_a_broker_that_is_away_makes_it(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"run.turn_max_s = 59.0: .*0 \(never\), or at least 60"):
        load(tmp_path, "[run]\nturn_max_s = 59\n")
    for text in ("[run]\nturn_max_s = 0\n", "[run]\nturn_max_s = 60\n"):
        load(tmp_path, text)
    load(tmp_path, "[run]\nturn_max_s = 4\n[stream]\nrequest_timeout_ms = 1_000\n")
