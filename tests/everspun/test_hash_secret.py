"""The deployment's secret: made once, the same on every host, shown nowhere."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from everspun import config as config_file
from everspun.config import Config, ConfigError, RunConfig
from everspun.hash_secret import NoSecret, path_of, with_secret, with_secret_made
from labeler import LabelerConfig
from labeler.config import label_config_hash
from learners import ModelConfig
from learners.models import make_model
from stream import StreamConfig
from stream.hashing import secret_of

SECRET = "a secret of this deployment"


def of(tmp_path: Path, **run: str) -> Config:
    return Config(run=RunConfig(dir=str(tmp_path / "run"), **run))


def test_a_first_start_makes_it_for_its_owner_alone(tmp_path: Path):
    made = with_secret_made(of(tmp_path), lambda: False)
    path = tmp_path / "run" / "hash.secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(made.stream.hash_secret) == 48
    assert (
        made.model.hash_secret
        == secret_of(made.stream.hash_secret, "model")
        != made.stream.hash_secret
    )
    assert with_secret_made(of(tmp_path), lambda: True) == with_secret(of(tmp_path)) == made


FULL_DISK = """
import resource, signal, sys
from everspun.config import loads
from everspun.hash_secret import with_secret_made
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
config = loads(f'[run]\\ndir = "{sys.argv[1]}"\\n')
for limit in (0, resource.RLIM_INFINITY):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        print(len(with_secret_made(config, lambda: False).stream.hash_secret))
    except OSError as error:
        print(error.strerror)
"""


def test_a_full_disk_leaves_no_half_of_one(tmp_path: Path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split("\n")[:2] == ["File too large", "48"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["hash.secret"]


def test_no_second_start_makes_another(tmp_path: Path):
    with pytest.raises(
        NoSecret, match=r"hash\.secret is there.* copy the file from a host that has it"
    ):
        with_secret_made(of(tmp_path), lambda: True)
    assert not path_of(of(tmp_path)).exists()
    assert with_secret(of(tmp_path)).stream.hash_secret == ""


def test_the_variable_goes_before_the_file_and_both_before_the_configuration(tmp_path: Path):
    path = tmp_path / "of.ours"
    config = of(tmp_path, hash_secret_file=str(path))
    config = Config(run=config.run, stream=StreamConfig(hash_secret="a secret in the config"))
    assert with_secret(config, {}).stream.hash_secret == "a secret in the config"
    for text in (f"{SECRET}\n", f"\ufeff{SECRET}\r\n"):
        path.write_text(text)
        assert with_secret(config, {}).stream.hash_secret == SECRET
    assert (
        with_secret(config, {"EVERSPUN_HASH_SECRET": SECRET * 2}).stream.hash_secret == SECRET * 2
    )


def test_a_model_may_keep_its_own_over_a_change(tmp_path: Path):
    config = Config(
        run=of(tmp_path).run, model=ModelConfig(hash_secret="the one that it began with")
    )
    assert (
        with_secret(config, {"EVERSPUN_HASH_SECRET": SECRET}).model.hash_secret
        == "the one that it began with"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"short", "allowed are 16"), (b"\xff" * 40, "text"), (b"x" * 5_000, "4096")],
)
def test_what_is_no_secret_is_refused_by_name(tmp_path: Path, content: bytes, said: str):
    config, path = of(tmp_path), tmp_path / "run" / "hash.secret"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"hash\.secret.*{said}"):
        with_secret(config, {})
    file = tmp_path / "everspun.toml"
    file.write_text(f"[run]\ndir = {json.dumps(config.run.dir)}\n")
    with pytest.raises(ConfigError, match=said):
        config_file.load(file)


def test_a_run_folder_that_is_a_file_is_named(tmp_path: Path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match=r"run is a file; name a folder in run\.dir, or another"):
        with_secret(of(tmp_path))


def test_a_file_that_cannot_be_read_is_named_with_its_key_and_owner(tmp_path: Path):
    folder = tmp_path / "secret"
    folder.mkdir(mode=0o750)
    said = (
        rf"run.hash_secret_file = '{folder}': Is a directory .asked by user {os.geteuid()}; it is "
        rf"user {os.geteuid()}'s, of mode 750.; a file"
    )
    with pytest.raises(ValueError, match=said):
        with_secret(of(tmp_path, hash_secret_file=str(folder)), {})


def test_it_stands_in_no_text_of_a_configuration(tmp_path: Path):
    config = with_secret(of(tmp_path), {"EVERSPUN_HASH_SECRET": SECRET})
    assert SECRET not in repr(config)
    assert config.model.hash_secret not in repr(config)


def test_another_secret_is_another_model_and_another_label_config(tmp_path: Path):
    one, other = (
        with_secret(of(tmp_path), {"EVERSPUN_HASH_SECRET": SECRET + more}) for more in ("", "!")
    )
    assert make_model(one.model).spec.digest != make_model(other.model).spec.digest
    assert label_config_hash(one.stream, LabelerConfig()) != label_config_hash(
        other.stream, LabelerConfig()
    )


def test_a_role_that_hashes_does_not_start_without_it(tmp_path: Path):
    file = tmp_path / "everspun.toml"
    file.write_text(f"[run]\ndir = {json.dumps(str(tmp_path / 'run'))}\n")
    environ = {name: value for name, value in os.environ.items() if name != "EVERSPUN_HASH_SECRET"}
    command = [sys.executable, "-m", "everspun", "role", "labeler", "--config", str(file)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "no hash secret" in done.stderr
    assert "Traceback" not in done.stderr
