"""A file or address of the configuration that a process cannot use is said with its key, before
the process begins."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from checkpointer import ServingConfig
from everspun.__main__ import main
from everspun.config import Config, ConfigError, RunConfig
from everspun.roles import check_role
from paramserver import ParamServerConfig

OPENSSL = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "garbage").write_bytes(b"\xff\xfe garbage")
    (tmp_path / "text").write_text("garbage")
    (tmp_path / "folder").mkdir()
    return tmp_path


WRONG = {"none": "No such file", "folder": "Is a directory", "garbage": "it is no text"}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("role", ["shard", "learner", "checkpointer", "governor", "replica"])
def test_a_token_that_cannot_be_read(role: str, name: str, place: Path):
    path = str(place / name)
    config = Config(
        paramserver=ParamServerConfig(transport="tcp", token_file=path),
        serving=ServingConfig(token_file=path),
    )
    section = "serving" if role == "replica" else "paramserver"
    with pytest.raises(ConfigError, match=rf"^{section}.token_file = '{path}': {WRONG[name]}"):
        check_role(config, role)


@pytest.mark.parametrize("role", ["shard", "replica"])
def test_certificates_that_are_none(role: str, place: Path):
    text = str(place / "text")
    config = Config(
        paramserver=ParamServerConfig(transport="tcp", cert=text, key=text),
        serving=ServingConfig(tls_cert_file=text, tls_key_file=text),
    )
    with pytest.raises(ConfigError, match=rf"cert.* = '{text}', .*key.* PEM files of a certif"):
        check_role(config, role)


def test_authorities_that_are_none(place: Path):
    config = Config(paramserver=ParamServerConfig(transport="tcp", ca=str(place / "text")))
    with pytest.raises(ConfigError, match=r"paramserver.ca = .*a PEM file of certificates"):
        check_role(config, "learner")
    check_role(config, "shard")  # which asks nobody for a certificate


def test_addresses_that_are_none():
    config = Config(serving=ServingConfig(host="a b"))
    with pytest.raises(ConfigError, match=r"serving.host = 'a b': .*0\.0\.0\.0"):
        check_role(config, "replica")
    with pytest.raises(ConfigError, match=r"serving.host = '192.0.2.1': Cannot assign .* machine"):
        check_role(Config(serving=ServingConfig(host="192.0.2.1")), "replica")
    for host in ("http://x", "a b", "192.0.2.1"):
        wrong = Config(run=RunConfig(metrics_host=host))
        with pytest.raises(ConfigError, match=rf"^run.metrics_host = '{host}': .*0\.0\.0\.0"):
            check_role(wrong, "labeler")
    for host in ("127.0.0.1", "0.0.0.0", "::1", "[::1]"):
        check_role(Config(run=RunConfig(metrics_host=host)), "labeler")
        check_role(Config(serving=ServingConfig(host=host)), "replica")


def test_files_of_sockets_in_the_run_folder_are_not_asked_for(place: Path):
    config = Config(paramserver=ParamServerConfig(token_file=str(place / "none")))
    check_role(config, "shard")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_and_its_key_are_taken(place: Path):
    cert, key = str(place / "cert.pem"), str(place / "key.pem")
    subprocess.run(
        [*OPENSSL, "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )
    tcp = ParamServerConfig(transport="tcp", cert=cert, key=key, ca=cert)
    config = Config(paramserver=tcp, serving=ServingConfig(tls_cert_file=cert, tls_key_file=key))
    for role in ("shard", "learner", "replica"):
        check_role(config, role)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_key_with_a_password_is_named_and_nobody_is_asked_for_it(place: Path):
    cert, key = str(place / "cert.pem"), str(place / "key.pem")
    command = [one for one in OPENSSL if one != "-nodes"]
    subprocess.run(
        [*command, "-passout", "pass:secret", "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )
    config = Config(
        paramserver=ParamServerConfig(transport="tcp", cert=cert, key=key),
        serving=ServingConfig(tls_cert_file=cert, tls_key_file=key),
    )
    for role, named in (("shard", "key"), ("replica", "tls_key_file")):
        with pytest.raises(ConfigError, match=rf"{named} = '{key}': .*without a password"):
            check_role(config, role)


def test_a_role_says_it_in_a_line(place: Path, capsys: pytest.CaptureFixture[str]):
    path = place / "x.toml"
    path.write_text(f'[run]\ndir = "{place}/run"\n[serving]\ntoken_file = "{place}/empty"\n')
    assert main(["role", "replica", "-c", str(path)]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"everspun: config: serving.token_file = .*: it is empty; .*\n", said)


@pytest.mark.parametrize(
    ("text", "asked", "said"),
    [
        ('[checkpointer]\nroot = "memory://x"\n', [], "checkpointer.root = 'memory://x': each"),
        (
            '[run]\narchivers = 1\n[archive]\nroot = "foo://x"\n',
            ["--roles", "archiver"],
            r"root = 'foo://x' of \[checkpointer\] or \[archive\]: Protocol not known: foo; exp",
        ),
        ('[serving]\ntoken_file = "{place}/empty"\n', [], "serving.token_file = .*: it is empty"),
        (
            '[paramserver]\ntransport = "tcp"\nca = "{place}/none"\n',
            ["--roles", "learner"],
            "paramserver.ca = .*: No such file",
        ),
        (
            '[paramserver]\ntransport = "tcp"\ncert = "{place}/text"\nkey = "{place}/text"\n',
            ["--roles", "labeler,shard:1"],
            "paramserver.cert = .*: .*PEM files of a certificate",
        ),
    ],
)
def test_a_run_says_it_before_it_starts_a_process(
    text: str, asked: list[str], said: str, place: Path, capsys: pytest.CaptureFixture[str]
):
    path = place / "x.toml"
    text = text if "[run]" in text else f"[run]\n{text}"
    path.write_text(
        text.replace("[run]", '[run]\ndir = "{place}/run"').replace("{place}", str(place))
    )
    assert main(["run", "-c", str(path), *asked]) == 2
    assert re.fullmatch(rf"everspun run: {said}.*\n", capsys.readouterr().err)
    assert not (place / "run").exists()
