"""Certificates that have expired are said, with their key and since when."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everspun.config import Config
from everspun.status.certificates import SOON_MS, end_of_ms, expired, expiring
from paramserver import ParamServerConfig

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
    assert end_of_ms(ssl.PEM_cert_to_DER_cert(path.read_text())) == end_ms
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


def test_what_is_no_certificate_is_somebody_elses_to_say(tmp_path: Path):
    file = tmp_path / "x.pem"
    for text in ("", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        file.write_text(text)
        config = Config(paramserver=ParamServerConfig(cert=str(file), key=str(file)))
        assert expired(config, 1 << 50) == []


@given(st.binary(max_size=64))
def test_bytes_that_are_none_are_a_value_error(der: bytes):
    with pytest.raises(ValueError):
        end_of_ms(der)
