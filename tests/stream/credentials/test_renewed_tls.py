"""Contexts whose files are renewed: the next handshake sees it, half a pair is passed over."""

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from stream.credentials import RenewedTls

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")


def pair(dir: Path, name: str) -> None:
    """`<name>.pem` and `<name>.key`, signed by itself, for localhost."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(dir / f"{name}.key"), "-out", str(dir / f"{name}.pem")],
        check=True, capture_output=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dir = tmp_path_factory.mktemp("pairs")
    for name in ("first", "second"):
        pair(dir, name)
    return dir


def server_context(dir: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(dir / "cert.pem", dir / "cert.key")
    return context


@pytest.fixture
def renewed(tmp_path: Path, made: Path) -> Iterator[RenewedTls]:
    for kind in ("pem", "key"):
        shutil.copy(made / f"first.{kind}", tmp_path / f"cert.{kind}")
    files = [str(tmp_path / f"cert.{kind}") for kind in ("pem", "key")]
    return RenewedTls(partial(server_context, tmp_path), ["", *files])


def believes(server: ssl.SSLContext, trusted: Path) -> bool:
    """Whether who trusts this certificate alone believes the server, by a handshake in memory."""
    client = ssl.create_default_context(cafile=str(trusted))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    try:
        for end in ends * 3:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    except ssl.SSLCertVerificationError:
        return False
    return ends[0].getpeercert() is not None


def test_the_next_handshake_shows_what_is_renewed(tmp_path: Path, made: Path, renewed: RenewedTls):
    first, second = made / "first.pem", made / "second.pem"
    stamp = renewed.stamp
    assert (believes(renewed, first), believes(renewed, second)) == (True, False)
    assert renewed.stamp == stamp
    shutil.copy(made / "second.key", tmp_path / "cert.key")  # half of it
    assert (believes(renewed, first), believes(renewed, second)) == (True, False)
    shutil.copy(second, tmp_path / "cert.pem")
    assert (believes(renewed, first), believes(renewed, second)) == (False, True)
    assert renewed.stamp != stamp


def test_files_that_go_away_count_on(tmp_path: Path, made: Path, renewed: RenewedTls):
    (tmp_path / "cert.key").unlink()
    assert believes(renewed, made / "first.pem")


def test_files_that_are_none_are_refused_at_first(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        RenewedTls(partial(server_context, tmp_path), [str(tmp_path / "cert.pem")])
