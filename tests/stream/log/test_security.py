"""Clusters that ask who comes: TLS, SASL and client certificates, with every client; secrets
stay secret."""

import asyncio
import logging
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.net.sasl import SASL_MECHANISMS as KAFKA_MECHANISMS

from everspun.__main__ import main
from everspun.launcher.broker import why_not_kafka
from labeler.fraud.faust_app import make_app
from stream.config import StreamConfig
from stream.log.kafka import KafkaLog
from stream.log.kafka_admin import check_topics, create_topics
from stream.log.log import LogError
from stream.log.security import PASSWORD as PASSWORD_NAME
from stream.log.security import (
    TOKEN,
    USERNAME,
    CannotAuthenticate,
    Secret,
    client_security,
    login,
    read_secret,
    token_source,
)
from stream.monitoring import TimeLimit
from stream.options import SASL_MECHANISMS
from stream.producer import EventProducer
from stream.record import Partition

sys.path.insert(0, str(Path(__file__).parents[1]))
import secured_broker
from secured_broker import PASSWORD, USER, SecuredBroker

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    if reason := why_not_kafka():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"kafka broker: {reason}")
    running = secured_broker.start(tmp_path_factory.mktemp("secured"))
    yield running
    running.broker.stop()


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USERNAME, USER)
    monkeypatch.setenv(PASSWORD_NAME, PASSWORD)
    monkeypatch.setenv(TOKEN, secured_broker.token())


def config(secured: SecuredBroker, mechanism: str, prefix: str, **more: Any) -> StreamConfig:
    given = (
        {"partitions": 1, "topic_prefix": prefix, "request_timeout_ms": 8_000}
        | secured.settings(mechanism)
        | more
    )
    return StreamConfig(**given)


@pytest.mark.kafka
@pytest.mark.processes
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_every_client_is_let_in(
    secured: SecuredBroker, named: None, mechanism: str, topic_prefix: str, tmp_path: Path
):
    stream = config(secured, mechanism, topic_prefix)
    assert create_topics(stream)
    assert check_topics(stream) == []
    log, where = KafkaLog(stream), Partition(stream.impressions, 0)
    with EventProducer(log, stream, str) as site:
        site.impression(
            {
                "id": "e",
                "ts_ms": 1_800_000_000_000,
                "session": "s",
                "source": "u",
                "vendor": "v",
                "item": "i",
            }
        )
    reader = log.reader()
    reader.assign([where])
    reader.seek(where, 0)
    limit = TimeLimit(20)
    while not (records := reader.poll(10, 500).get(where, [])) and not limit.over:
        pass
    assert len(records) == 1
    reader.close()
    group, got = log.group_reader(f"{topic_prefix}g"), list[Partition]()
    group.subscribe(stream.impressions, got.extend, lambda _: None)
    limit = TimeLimit(20)
    while not got and not limit.over:
        group.poll(10, 200)
    group.close()
    assert got == [where]
    asyncio.run(faust_sends(stream, tmp_path, where))


async def faust_sends(stream: StreamConfig, dir: Path, where: Partition) -> None:
    """The fraud filter's client: its producer sends, and its consumer's admin sees the topic."""
    app = make_app(stream, dir, 0)
    await app.producer.start()
    try:
        sent = await app.producer.send_and_wait(where.topic, b"k", b"v", 0, None, None)
        assert sent.offset == 1
    finally:
        await app.producer.stop()


@pytest.mark.kafka
@pytest.mark.processes
def test_a_client_shows_the_certificate_that_is_renewed(secured: SecuredBroker, tmp_path: Path):
    mine = {f"ssl_{kind}file": str(tmp_path / f"mine.{kind}") for kind in ("cert", "key")}

    def take(name: str) -> None:
        shutil.copy(secured.dir / f"{name}.key", mine["ssl_keyfile"])
        shutil.copy(secured.dir / f"{name}.pem", mine["ssl_certfile"])

    take("stranger")
    context = client_security(config(secured, "", "x", **mine))["ssl_context"]
    address = (secured.host, secured.mutual_port)

    def lets_in() -> bool:
        with (
            socket.create_connection(address, 20) as plain,
            context.wrap_socket(plain, server_hostname=secured.host) as connection,
        ):
            connection.settimeout(1.0)
            try:
                return bool(connection.recv(1))  # it says nothing to who says nothing
            except TimeoutError:
                return True
            except OSError:
                return False

    assert not lets_in()
    take("client")
    assert lets_in()


@pytest.mark.kafka
@pytest.mark.processes
@pytest.mark.parametrize(
    ("mechanism", "more", "wrong", "said"),
    [
        ("PLAIN", {}, {PASSWORD_NAME: "guess"}, "does it know this user, and take PLAIN?"),
        (
            "SCRAM-SHA-512",
            {},
            {USERNAME: "nobody"},
            "does it know this user, and take SCRAM-SHA-512?",
        ),
        ("OAUTHBEARER", {}, {TOKEN: "no.token"}, "does it know this user, and take OAUTHBEARER?"),
        ("PLAIN", {"ssl_cafile": "other.pem"}, {}, "CERTIFICATE_VERIFY_FAILED"),
        ("", {"ssl_certfile": "stranger.pem", "ssl_keyfile": "stranger.key"}, {}, "UNKNOWN"),
        ("", {"ssl_certfile": "", "ssl_keyfile": ""}, {}, "CERTIFICATE"),
    ],
)
def test_who_is_not_known_is_told_so_and_no_secret_is_shown(
    secured: SecuredBroker,
    named: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mechanism: str,
    more: dict[str, str],
    wrong: dict[str, str],
    said: str,
    topic_prefix: str,
):
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    files = {key: str(secured.dir / value) if value else "" for key, value in more.items()}
    stream = config(secured, mechanism, topic_prefix, **files | {"request_timeout_ms": 3_000})
    with caplog.at_level(logging.DEBUG), pytest.raises(LogError) as error:
        create_topics(stream)
    assert stream.bootstrap_servers in str(error.value)
    assert said in str(error.value)
    assert PASSWORD not in caplog.text + str(error.value)
    assert "guess" not in caplog.text + str(error.value)


# --- without a broker
# ---------------------------------------------------------------------------------------------


def test_a_secret_hides_wherever_it_is_shown_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv(USERNAME, USER)
    (tmp_path / "password").write_text(PASSWORD + "\n")
    stream = StreamConfig(
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_password_file=str(tmp_path / "password"),
    )
    settings = client_security(stream)
    assert settings["sasl_plain_password"] == PASSWORD
    assert PASSWORD not in repr(settings) + f"{settings}" + repr(Secret("x" + PASSWORD)) + repr(
        stream
    )


@pytest.mark.parametrize("file", [PASSWORD, f"{PASSWORD}\r\n", f"\ufeff{PASSWORD}\n"])
def test_a_file_of_a_secret_is_its_line(file: str, tmp_path: Path):
    (tmp_path / "password").write_text(file)
    assert read_secret(PASSWORD_NAME, str(tmp_path / "password"), "key") == PASSWORD


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_line_break_that_a_variable_ends_in_is_no_part_of_it(
    monkeypatch: pytest.MonkeyPatch, end: str
):
    """As of a secret of Kubernetes that was made of a file."""
    for name in (USERNAME, PASSWORD_NAME, TOKEN):
        monkeypatch.setenv(name, f"of {name}{end}")
    stream = StreamConfig(security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN")
    assert login(stream) == (f"of {USERNAME}", f"of {PASSWORD_NAME}")
    oauth = replace(stream, sasl_mechanism="OAUTHBEARER")
    assert token_source(oauth)() == f"of {TOKEN}"
    monkeypatch.setenv(TOKEN, end)
    with pytest.raises(CannotAuthenticate, match="set EVERSPUN_KAFKA_TOKEN, or"):
        token_source(oauth)


OAUTH = {"sasl_mechanism": "OAUTHBEARER", "sasl_username": ""}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "set EVERSPUN_KAFKA_PASSWORD, or stream.sasl_password_file"),
        (
            {"sasl_password_file": "/none/there"},
            "stream.sasl_password_file = '/none/there': No such file",
        ),
        ({"sasl_username": ""}, "set stream.sasl_username or EVERSPUN_KAFKA_USERNAME"),
        (
            {"ssl_cafile": "/none.pem", "security_protocol": "SASL_SSL"},
            "stream.ssl_cafile = '/none.pem'",
        ),
        (
            OAUTH | {"sasl_token_provider": "no_such:token"},
            "No module named 'no_such'; expected MODULE:FUNCTION",
        ),
        (OAUTH | {"sasl_token_provider": "json:none"}, "'json:none': AttributeError: "),
        (OAUTH | {"sasl_token_provider": "json:__name__"}, "__name__ is no function but str"),
        (OAUTH | {"sasl_token_provider": "half_a_module:f"}, "'half_a_module:f': SyntaxError: "),
        (OAUTH | {"sasl_token_provider": "a_module_that_raises:f"}, "KeyError: 'nobody'; exp"),
        (OAUTH, "set EVERSPUN_KAFKA_TOKEN, or stream.sasl_token_file"),
        (OAUTH | {"sasl_token_file": "/none/there"}, "stream.sasl_token_file = '/none/there': No"),
        (OAUTH | {"sasl_token_file": "/dev/null"}, "sasl_token_file = '/dev/null': it is empty"),
        ({"sasl_password_file": "/dev/null"}, "sasl_password_file = '/dev/null': it is empty"),
    ],
)
def test_what_is_missing_is_named_with_its_setting(
    monkeypatch: pytest.MonkeyPatch,
    more: dict[str, Any],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    for name in (USERNAME, PASSWORD_NAME, TOKEN):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "half_a_module.py").write_text("def f(:\n")
    (tmp_path / "a_module_that_raises.py").write_text("{}['nobody']\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_username": "u",
    } | more
    with pytest.raises(CannotAuthenticate) as error:
        client_security(StreamConfig(**settings))
    assert said in str(error.value)
    lines = "".join(f"{key} = {value!r}\n" for key, value in settings.items())
    (tmp_path / "x.toml").write_text(f"[stream]\n{lines}")
    assert main(["topics", "check", "-c", str(tmp_path / "x.toml")]) == 2
    said_there = capsys.readouterr()
    assert said in said_there.out + said_there.err


SASL = {"security_protocol": "SASL_PLAINTEXT"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"security_protocol": "TLS"}, "security_protocol = 'TLS': allowed is 'PLAINTEXT'"),
        ({"security_protocol": "SASL_SSL"}, "need one, such as 'SCRAM-SHA-512'"),
        ({"sasl_mechanism": "PLAIN"}, "the others have none"),
        ({"ssl_cafile": "x"}, "ssl_cafile = 'x' with security_protocol"),
        ({"security_protocol": "SSL", "ssl_keyfile": "x"}, "ssl_keyfile = 'x': allowed with"),
        ({"sasl_token_provider": "mine"}, "expected MODULE:FUNCTION"),
        ({"sasl_options": {"sasl_plain_password": "x"}}, "no password"),
        ({"sasl_options": {"acks": 0}}, "sasl_options.acks"),
        ({"sasl_token_provider": ":f"}, "sasl_token_provider = ':f': expected MODULE:FUNCTION"),
        ({"sasl_token_provider": ".x:f"}, "sasl_token_provider = '.x:f': expected MODULE"),
        ({"sasl_token_provider": "a:b:c"}, "sasl_token_provider = 'a:b:c': expected MODULE"),
        ({"sasl_username": "u"}, "sasl_username = 'u' with security_protocol = 'PLAINTEXT'"),
        ({"sasl_password_file": "x"}, "sasl_password_file = 'x' with security_protocol"),
        ({"sasl_token_file": "x"}, "sasl_token_file = 'x' with security_protocol"),
        ({"sasl_token_provider": "a:b"}, "sasl_token_provider = 'a:b' with security_protocol"),
        (
            {"sasl_options": {"sasl_kerberos_service_name": "x"}, "security_protocol": "SSL"},
            "sasl_options = {'sasl_kerberos_service_name': 'x'} with security_protocol = 'SSL'",
        ),
        ({"ssl_key_password_file": "x"}, "ssl_key_password_file = 'x' with security_protocol"),
        ({"ssl_check_hostname": False}, "ssl_check_hostname = false with security_protocol"),
        (SASL | {"sasl_mechanism": "plain"}, "sasl_mechanism = 'plain': allowed are 'PLAIN', "),
        (SASL | {"sasl_mechanism": "SCRAM-SHA512"}, "sasl_mechanism = 'SCRAM-SHA512': allowed"),
        (
            SASL | {"sasl_mechanism": "OAUTHBEARER", "sasl_username": "u"},
            "sasl_username = 'u' with sasl_mechanism = 'OAUTHBEARER': allowed with 'PLAIN'",
        ),
        (
            SASL | {"sasl_mechanism": "GSSAPI", "sasl_password_file": "x"},
            "sasl_password_file = 'x' with sasl_mechanism = 'GSSAPI'",
        ),
        (
            SASL | {"sasl_mechanism": "PLAIN", "sasl_token_file": "x"},
            "sasl_token_file = 'x' with sasl_mechanism = 'PLAIN': allowed with 'OAUTHBEARER'",
        ),
        (
            SASL
            | {"sasl_mechanism": "OAUTHBEARER", "sasl_token_file": "x"}
            | {"sasl_token_provider": "a:b"},
            "sasl_token_provider = 'a:b' with sasl_token_file = 'x': expected one of them",
        ),
        (
            SASL | {"sasl_mechanism": "PLAIN", "sasl_options": {"sasl_mechanism": "GSSAPI"}},
            "sasl_options.sasl_mechanism: expected as stream.sasl_mechanism",
        ),
    ],
)
def test_settings_that_say_nothing_together_are_refused(settings: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        StreamConfig(**settings)


def test_other_mechanisms_are_passed_through():
    options = {"sasl_kerberos_service_name": "broker"}
    stream = StreamConfig(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="GSSAPI", sasl_options=options
    )
    settings = client_security(stream)
    assert settings == {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "GSSAPI"} | options
    assert set(settings) <= set(KafkaAdminClient.DEFAULT_CONFIG)
    assert set(SASL_MECHANISMS) == set(KAFKA_MECHANISMS)
