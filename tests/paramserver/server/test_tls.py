"""Shards over TLS: data channels too, certificates of callers, and what is renewed without a
restart."""

import shutil
import socket
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from served_shard import ME, a_push, served

from paramserver.config import ParamServerConfig
from paramserver.messages import Outcome, PullRequest
from paramserver.ports import NotAuthorized, PortUnreachable, ProgressRequest
from paramserver.wire import ServerTls, ShardClient
from paramserver.wire import client as client_file
from stream.credentials import token_file

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")


def openssl(dir: Path, words: str) -> None:
    subprocess.run(["openssl", *words.split()], cwd=dir, check=True, capture_output=True)


def authority(dir: Path, name: str) -> None:
    openssl(
        dir,
        f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout {name}.key "
        f"-out {name}.pem",
    )


def certificate(dir: Path, name: str, by: str = "ca", days: int = 2) -> None:
    """`<name>.pem` and `<name>.key`, for localhost."""
    openssl(dir, f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.new -out {name}.csr")
    (dir / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl(
        dir,
        f"x509 -req -in {name}.csr -CA {by}.pem -CAkey {by}.key -CAcreateserial -days {days} "
        f"-extfile names -out {name}.made",
    )
    (dir / f"{name}.new").rename(dir / f"{name}.key")
    (dir / f"{name}.made").rename(dir / f"{name}.pem")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority with two certificates, and another authority."""
    dir = tmp_path_factory.mktemp("certificates")
    for name in ("ca", "other"):
        authority(dir, name)
    for name in ("first", "second"):
        certificate(dir, name)
    return dir


@pytest.fixture
def secured(tmp_path: Path, made: Path) -> ParamServerConfig:
    """With files of its own."""
    for kind in ("pem", "key"):
        shutil.copy(made / f"first.{kind}", tmp_path / f"cert.{kind}")
    shutil.copy(made / "ca.pem", tmp_path / "ca.pem")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    return ParamServerConfig(
        transport="tcp",
        host="localhost",
        port=port,
        cert=str(tmp_path / "cert.pem"),
        key=str(tmp_path / "cert.key"),
        ca=str(tmp_path / "ca.pem"),
        control_timeout_ms=1_500,
        data_timeout_ms=60_000,  # kernels compile on first use
    )


def shown_at(port: int) -> bytes:
    """The certificate that a server shows to who trusts anybody."""
    context = ssl._create_unverified_context()
    with (
        socket.create_connection(("localhost", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        return connection.getpeercert(binary_form=True) or b""


def of_file(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def renew(config: ParamServerConfig, made: Path, name: str, *kinds: str) -> None:
    """As tools do: written beside, then moved."""
    for kind, target in (("key", config.key), ("pem", config.cert)):
        if kind in kinds:
            draft = Path(f"{target}.new")
            shutil.copy(made / f"{name}.{kind}", draft)
            draft.rename(target)


@pytest.mark.long
def test_pulls_and_pushes_take_a_data_channel_of_tls(tmp_path: Path, secured: ParamServerConfig):
    with served(tmp_path, secured) as (service, client):
        assert client.push(a_push(20_000)).outcome is Outcome.APPLIED
        keys = {"t": np.arange(1, 20_001, dtype=np.uint64)}
        pulled = client.pull(PullRequest("m", ME, 1, keys, dense=False))
        assert service.channels is not None
        assert len(service.channels) == 1
        port = int(service.channels.address.rpartition(":")[2])
        assert shown_at(port) == of_file(Path(secured.cert))
    plain = replace(secured, transport="tcp", cert="", key="", ca="", port=secured.port)
    with served(tmp_path, plain) as (_, client):
        client.push(a_push(20_000))
        again = client.pull(PullRequest("m", ME, 1, keys, dense=False))
    assert pulled.outcome is again.outcome is Outcome.APPLIED
    np.testing.assert_array_equal(pulled.rows["t"], again.rows["t"])


def test_a_shard_of_another_authority_is_not_believed(
    tmp_path: Path, made: Path, secured: ParamServerConfig
):
    with served(tmp_path, secured):
        stranger = ShardClient(
            f"localhost:{secured.port}", replace(secured, ca=str(made / "other.pem"))
        )
        with pytest.raises(PortUnreachable, match=r"of no authority in paramserver\.ca"):
            stranger.call(ProgressRequest("m"))
        stranger.close()


def test_an_expired_certificate_is_said_in_words(
    tmp_path: Path, made: Path, secured: ParamServerConfig
):
    certificate(made, "old", days=-1)
    renew(secured, made, "old", "key", "pem")
    with served(tmp_path, secured):
        caller = ShardClient(f"localhost:{secured.port}", secured)
        with pytest.raises(PortUnreachable) as refused:
            caller.call(ProgressRequest("m"))
        caller.close()
    told = "its certificate has expired: renew paramserver.cert there"
    assert str(refused.value) == f"Progress at localhost:{secured.port}: {told}"


def test_a_shard_without_tls_is_said_in_words(tmp_path: Path, secured: ParamServerConfig):
    with served(tmp_path, replace(secured, cert="", key="", ca="")):
        caller = ShardClient(f"localhost:{secured.port}", secured)
        with pytest.raises(PortUnreachable, match="it speaks no TLS"):
            caller.call(ProgressRequest("m"))
        caller.close()


def test_a_certificate_is_renewed_while_the_shard_serves(
    tmp_path: Path, made: Path, secured: ParamServerConfig
):
    with served(tmp_path, secured) as (service, client):
        client.push(a_push(3))
        assert service.channels is not None
        channel = int(service.channels.address.rpartition(":")[2])
        first, second = of_file(made / "first.pem"), of_file(made / "second.pem")
        renew(secured, made, "second", "key")  # half of it
        assert (shown_at(secured.port), shown_at(channel)) == (first, first)
        renew(secured, made, "second", "pem")
        assert (shown_at(channel), shown_at(secured.port)) == (second, second)
        fresh = ShardClient(f"localhost:{secured.port}", secured)
        for one in (client, fresh):
            one.call(ProgressRequest("m"))
        fresh.close()


def test_callers_show_a_certificate_where_shards_ask_for_one(
    tmp_path: Path, made: Path, secured: ParamServerConfig
):
    both = replace(secured, client_certificates=True)
    with served(tmp_path, both) as (service, client):
        assert client.push(a_push(3)).outcome is Outcome.APPLIED
        assert service.channels is not None
        assert len(service.channels) == 1
        without = ShardClient(f"localhost:{secured.port}", secured)
        with pytest.raises(PortUnreachable, match="client_certificates"):
            without.call(ProgressRequest("m"))
        without.close()


def test_callers_take_renewed_files_without_a_restart(
    tmp_path: Path, made: Path, secured: ParamServerConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client_file, "LOOK_S", 0.0)
    both = replace(secured, client_certificates=True)
    mine = {kind: str(tmp_path / f"mine.{kind}") for kind in ("cert", "key", "ca")}
    caller = replace(both, **mine)
    certificate(made, "stranger", by="other")
    shutil.copy(made / "ca.pem", caller.ca)
    renew(caller, made, "stranger", "key", "pem")
    with served(tmp_path, both):
        port = ShardClient(f"localhost:{secured.port}", caller)
        with pytest.raises(PortUnreachable):
            port.call(ProgressRequest("m"))
        renew(caller, made, "second", "key")  # half of it
        with pytest.raises(PortUnreachable):
            port.call(ProgressRequest("m"))
        renew(caller, made, "second", "pem")
        port.call(ProgressRequest("m"))
        shutil.copy(made / "other.pem", caller.ca)
        with pytest.raises(PortUnreachable, match=r"of no authority in paramserver\.ca"):
            port.call(ProgressRequest("m"))
        port.close()


def test_a_certificate_that_is_none_is_named(tmp_path: Path, secured: ParamServerConfig):
    Path(secured.cert).write_text("nothing")
    with pytest.raises(ValueError, match=r"paramserver\.cert = .*PEM files"):
        ServerTls(secured.cert, secured.key)


def test_a_token_is_renewed_while_the_shard_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(token_file, "LOOK_S", 0.0)
    theirs, mine = tmp_path / "shards.token", tmp_path / "mine.token"
    theirs.write_text("old\n")
    mine.write_text("new\n")
    config = ParamServerConfig(token_file=str(theirs))
    with served(tmp_path, config) as (_, client):
        with_new = ShardClient(
            config.address(0, str(tmp_path)), replace(config, token_file=str(mine))
        )
        with pytest.raises(NotAuthorized):
            with_new.call(ProgressRequest("m"))
        theirs.write_text("old\nnew\n")
        for one in (client, with_new):
            one.call(ProgressRequest("m"))
        theirs.write_text("new\n")
        client.call(ProgressRequest("m"))  # reads the file anew, too
        mine.write_text("old\n")
        with pytest.raises(NotAuthorized):
            with_new.call(ProgressRequest("m"))
        with_new.close()


def test_a_file_without_a_token_lets_nobody_in(tmp_path: Path):
    empty = tmp_path / "shards.token"
    empty.write_text("\n")
    with pytest.raises(ValueError, match=r"serving\.token_file = .* holds no token"):
        token_file.TokenFile(str(empty), "serving.token_file")
