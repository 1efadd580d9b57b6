"""Who may call a replica, and over what; both are renewed while it serves."""

import json
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from checkpointer.config import ServingConfig
from checkpointer.serving.grpc_service import InferenceServer
from checkpointer.serving.http_server import ReplicaServer, url_of
from checkpointer.serving.replica_client import Replica
from stream.credentials import token_file

LIVE = "/v2/health/live"


@contextmanager
def served(dir: Path, config: ServingConfig) -> Iterator[tuple[Replica, ReplicaServer]]:
    with Replica(str(dir), "clicks", config) as replica, ReplicaServer(replica, config, 0) as made:
        yield replica, made


def asked(port: int, path: str, token: str = "", body: bytes | None = None) -> int:
    """The status."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def lives_by_grpc(port: int, token: str) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        answer = call.future(b"", timeout=20, metadata=(("authorization", f"Bearer {token}"),))
        return bool(answer.code() is grpc.StatusCode.OK)


def test_a_token_is_asked_for(tmp_path: Path):
    (tmp_path / "token").write_text("s3cret\n")
    with served(tmp_path, ServingConfig(token_file=str(tmp_path / "token"))) as (_, server):
        assert [asked(server.port, "/model", token) for token in ("", "s3cre", "s3cret")] == [
            401,
            401,
            200,
        ]
        assert asked(server.port, "/livez") == 200


def test_a_token_is_renewed_while_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(token_file, "LOOK_S", 0.0)
    file = tmp_path / "token"
    file.write_text("old\n")
    config = ServingConfig(token_file=str(file))
    with (
        served(tmp_path, config) as (replica, server),
        closing(InferenceServer(replica, config, 0)) as rpc,
    ):
        for said, let_in in (
            ("old\n", ["old"]),
            ("old\nnew\n", ["old", "new"]),
            ("new\n", ["new"]),
            ("\n", ["new"]),  # says nothing: whom it let in before, it lets in
        ):
            file.write_text(said)
            both = ("old", "new")
            assert [one for one in both if asked(server.port, "/model", one) == 200] == let_in
            assert [one for one in both if lives_by_grpc(rpc.port, one)] == let_in


def certificate_of(dir: Path) -> ServingConfig:
    """For localhost, made anew where there is one."""
    cert, key = str(dir / "cert.pem"), str(dir / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return ServingConfig(tls_cert_file=cert, tls_key_file=key)


def test_over_tls_the_same_is_answered_and_plain_text_is_not(tmp_path: Path):
    config = certificate_of(tmp_path)
    trusting = ssl.create_default_context(cafile=config.tls_cert_file)
    with served(tmp_path, config) as (_, server):
        body = b'{"rows": [{}, {}]}'
        request = urllib.request.Request(f"https://localhost:{server.port}/predict", body)
        with urllib.request.urlopen(request, timeout=20, context=trusting) as answer:
            assert json.loads(answer.read())["probabilities"] == [0.5, 0.5]
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
            plain.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            assert not plain.recv(4).startswith(b"HTTP")
    assert url_of(config, 443) == "https://127.0.0.1:443"
    assert url_of(ServingConfig(host="[::1]"), 80) == "http://[::1]:80"
    with pytest.raises(ValueError, match="give both"):
        ServingConfig(tls_cert_file=config.tls_cert_file)


def test_a_certificate_is_renewed_while_it_serves(tmp_path: Path):
    config = certificate_of(tmp_path)
    with (
        served(tmp_path, config) as (replica, server),
        closing(InferenceServer(replica, config, 0)) as rpc,
    ):
        for _ in range(2):
            trusting = ssl.create_default_context(cafile=config.tls_cert_file)
            at = f"https://localhost:{server.port}{LIVE}"
            with urllib.request.urlopen(at, timeout=20, context=trusting) as answer:
                assert answer.status == 200
            trusted = grpc.ssl_channel_credentials(Path(config.tls_cert_file).read_bytes())
            with grpc.secure_channel(f"localhost:{rpc.port}", trusted) as channel:
                grpc.channel_ready_future(channel).result(timeout=20)
            certificate_of(tmp_path)
