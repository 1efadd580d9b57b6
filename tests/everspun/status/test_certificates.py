"""Certificates that have expired are said, with their key and since when."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointer import ServingConfig
from everspun.config import Config
from everspun.status.certificates import SOON_MS, expired, expiring, faults, validity_ms
from paramserver import ParamServerConfig
from stream import StreamConfig
from stream.registry import RegistryConfig

OPENSSL = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost")
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes them")


@pytest.fixture(scope="module", params=[30, 40_000])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """(path, when it ends, ms): of this century, and of the next, whose years have four digits."""
    path = tmp_path_factory.mktemp("certificates") / "cert.pem"
    command = [*OPENSSL, "-keyout", str(path) + ".key", "-out", str(path)]
    subprocess.run([*command, "-days", str(request.param)], check=True, capture_output=True)
    told = subprocess.run(
        ["openssl", "x509", "-in", str(path), "-noout", "-enddate"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    end_s = ssl.cert_time_to_seconds(told.partition("=")[2].strip())
    return path, end_s * 1_000


def test_a_certificate_is_said_before_and_after_its_end(made: tuple[Path, int]):
    path, end_ms = made
    config = Config(paramserver=ParamServerConfig(cert=str(path), key=str(path) + ".key"))
    assert validity_ms(ssl.PEM_cert_to_DER_cert(path.read_text()))[1] == end_ms
    assert expired(config, end_ms - 1) == expiring(config, end_ms - SOON_MS - 1) == []
    (soon,) = expiring(config, end_ms - 1)
    assert f"paramserver.cert = '{path}' expires at 2" in soon
    (over,) = expired(config, end_ms)
    assert f"paramserver.cert = '{path}' has expired at 2" in over
    assert expiring(config, end_ms) == []


def test_of_authorities_one_that_holds_is_enough(made: tuple[Path, int], tmp_path: Path):
    path, end_ms = made
    file = tmp_path / "ca.pem"
    file.write_text(path.read_text() * 2)
    config = Config(paramserver=ParamServerConfig(ca=str(file)))
    assert expired(config, end_ms - 1) == []
    assert len(expired(config, end_ms)) == 1


def test_those_of_kafka_and_of_the_registry_are_said_too(made: tuple[Path, int]):
    path, end_ms = made
    config = Config(
        stream=StreamConfig(security_protocol="SSL", ssl_cafile=str(path)),
        registry=RegistryConfig(url="https://x", cafile=str(path)),
    )
    keys = ["stream.ssl_cafile", "registry.cafile"]
    assert [line.partition(" ")[0] for line in expired(config, end_ms)] == keys


def test_a_certificate_of_tomorrow_is_accepted_by_nobody_today(made: tuple[Path, int]):
    path, _ = made
    config = Config(serving=ServingConfig(tls_cert_file=str(path), tls_key_file=str(path) + ".key"))
    begin_ms, _ = validity_ms(ssl.PEM_cert_to_DER_cert(path.read_text()))
    assert faults(config, begin_ms) == []
    (early,) = faults(config, begin_ms - 1)
    assert f"serving.tls_cert_file = '{path}' is valid from 2" in early


def test_each_certificate_of_a_chain_must_hold(tmp_path: Path):
    texts = []
    for days in (30, 90):
        path = tmp_path / f"{days}.pem"
        command = [*OPENSSL, "-keyout", f"{path}.key", "-out", str(path), "-days", str(days)]
        subprocess.run(command, check=True, capture_output=True)
        texts.append(path.read_text())
    soon_ms, late_ms = (validity_ms(ssl.PEM_cert_to_DER_cert(text))[1] for text in texts)
    chain = tmp_path / "chain.pem"
    chain.write_text(texts[1] + texts[0])
    ours = ServingConfig(tls_cert_file=str(chain), tls_key_file=str(tmp_path / "90.pem.key"))
    config = Config(serving=ours, paramserver=ParamServerConfig(ca=str(chain)))
    (line,) = expired(config, soon_ms)
    assert line.startswith("serving.tls_cert_file = ")
    assert len(expired(config, late_ms)) == 2
    another = ServingConfig(tls_cert_file=str(chain), tls_key_file=str(tmp_path / "30.pem.key"))
    (unfit,) = faults(Config(serving=another), soon_ms - 1)
    assert unfit.startswith("serving.tls_cert_file = ")
    assert "tls_key_file = " in unfit
    assert "mismatch" in unfit.lower()


def test_a_key_whose_password_is_not_known_here_is_no_fault(tmp_path: Path):
    path = tmp_path / "x.pem"
    command = [one for one in OPENSSL if one != "-nodes"]
    command += ["-passout", "pass:secret", "-keyout", f"{path}.key", "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    stream = StreamConfig(
        security_protocol="SSL", ssl_certfile=str(path), ssl_keyfile=f"{path}.key"
    )
    begin_ms, _ = validity_ms(ssl.PEM_cert_to_DER_cert(path.read_text()))
    assert faults(Config(stream=stream), begin_ms) == []


def test_an_emptied_secret_is_said_and_a_missing_one_is_somebody_elses_to_say(tmp_path: Path):
    file = tmp_path / "token"
    config = Config(serving=ServingConfig(token_file=str(file)))
    assert faults(config, 0) == []
    file.write_text("\n")
    assert faults(config, 0) == [f"serving.token_file = '{file}' is empty: put what was in it back"]


def test_what_is_no_certificate_is_somebody_elses_to_say(tmp_path: Path):
    file = tmp_path / "x.pem"
    for text in ("", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        file.write_text(text)
        config = Config(paramserver=ParamServerConfig(cert=str(file), key=str(file)))
        assert expired(config, 1 << 50) == []


@given(st.binary(max_size=64))
def test_bytes_that_are_none_are_a_value_error(der: bytes):
    with pytest.raises(ValueError):
        validity_ms(der)
