"""A registry as others run it: over TLS, behind what leads elsewhere, slow, and closing connections
that rest."""

import base64
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from registered_events import IMPRESSION
from small_registry import SmallRegistry

from stream.registry.client import RegistryAway, RegistryConnection
from stream.registry.config import RegistryConfig
from stream.registry.http_client import PASSWORD, REDIRECTS_MAX, USERNAME, HttpClient
from stream.registry.schema import RegisteredSchema

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
LOGIN = "Basic " + base64.b64encode(b"ann:s3cret").decode()


def connection(registry: SmallRegistry, **changed: Any) -> RegistryConnection:
    said = {"url": registry.url, "timeout_ms": 2_000} | changed
    return RegistryConnection(RegistryConfig(**said))


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USERNAME, "ann")
    monkeypatch.setenv(PASSWORD, "s3cret")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a server at 127.0.0.1, and of a client: for both it vouches itself."""
    file = tmp_path_factory.mktemp("tls") / "own.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(file) + ".key"]
    command = ["openssl", *words.split(), *more, "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True)
    return file


@pytest.fixture
def secured(certificate: Path) -> Iterator[SmallRegistry]:
    """A registry over TLS that asks clients for a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, f"{certificate}.key")
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with SmallRegistry(context) as running:
        yield running


@needs_openssl
def test_over_tls_each_side_says_who_it_is(secured: SmallRegistry, certificate: Path, login: None):
    id, secured.login = secured.register("a", IMPRESSION), LOGIN
    own = {"certfile": str(certificate), "keyfile": f"{certificate}.key"}
    asked = connection(secured, cafile=str(certificate), **own)
    for _ in range(3):
        assert isinstance(asked.schema(id), RegisteredSchema)
    with pytest.raises(RegistryAway, match=r"certificate verify failed.*set registry\.cafile"):
        connection(secured, **own).schema(id)
    with pytest.raises(RegistryAway, match="does not answer"):
        connection(secured, cafile=str(certificate)).schema(id)
    with pytest.raises(RegistryAway, match=r"registry\.cafile = '/nowhere'"):
        connection(secured, cafile="/nowhere", **own).schema(id)


def test_tls_where_there_is_none_is_named(registry: SmallRegistry):
    def refuse(server: socket.socket) -> None:
        client, _ = server.accept()
        with client:
            client.recv(65_536)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        plain = threading.Thread(target=refuse, args=(server,))
        plain.start()
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(RegistryAway, match="is it http://"):
            connection(registry, url=url).schema(1)
        plain.join()


def test_a_connection_that_was_closed_while_it_rested_is_no_outage(registry: SmallRegistry):
    id, registry.fault = registry.register("a", IMPRESSION), "rests"
    asked = connection(registry)
    for _ in range(4):
        assert isinstance(asked.schema(id), RegisteredSchema)
        time.sleep(0.01)
    assert len(registry.asked) == 4


def test_an_answer_without_end_costs_its_deadline(registry: SmallRegistry):
    registry.fault = "drip"
    began_s = time.monotonic()
    with pytest.raises(RegistryAway, match="no whole answer within 200 ms"):
        connection(registry, timeout_ms=200).schema(1)
    assert time.monotonic() - began_s < 20
    registry.fault = ""


@pytest.mark.parametrize("head", ["", "Connection: close\r\n"])
def test_a_name_that_resolves_slowly_leaves_an_answer_no_more_time(
    head: str, monkeypatch: pytest.MonkeyPatch
):
    """Nor does an answer behind which the connection is closed."""

    def drip(server: socket.socket) -> None:
        client, _ = server.accept()
        with client, suppress(OSError):
            client.recv(65_536)
            client.sendall(f"HTTP/1.1 200 OK\r\n{head}Content-Length: 300\r\n\r\n".encode())
            for _ in range(300):
                client.sendall(b"x")
                sent.append(1)
                time.sleep(0.05)

    find, sent = socket.getaddrinfo, []

    def find_slowly(*named: Any, **more: Any) -> Any:
        time.sleep(0 if head else 0.4)
        return find(*named, **more)

    monkeypatch.setattr(socket, "getaddrinfo", find_slowly)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(TimeoutError, match="no whole answer within 200 ms"):
            HttpClient(RegistryConfig(url=url, timeout_ms=200)).get(url, "/schemas/ids/1")
    assert len(sent) < 250, "it was read to its end"


def test_redirects_are_followed_and_a_login_goes_to_nobody_else(
    registry: SmallRegistry, login: None
):
    id, registry.login = registry.register("a", IMPRESSION), LOGIN
    path = f"/schemas/ids/{id}"
    registry.leads["/old" + path] = path
    asked = connection(registry, url=registry.url + "/old")
    assert isinstance(asked.schema(id), RegisteredSchema)
    assert registry.logins == [LOGIN, LOGIN]
    with SmallRegistry() as other:
        other.register("a", IMPRESSION)
        registry.leads["/old" + path] = other.url + path
        assert isinstance(asked.schema(id), RegisteredSchema)
        assert other.logins == [""]


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("/old/schemas/ids/1", f"leads on more than {REDIRECTS_MAX} times"),
        ("file:///etc/passwd", "no address of a registry"),
        ("http://ann:x@127.0.0.1:1/", "no address of a registry"),
    ],
)
def test_what_leads_nowhere_is_a_registry_that_is_away(registry: SmallRegistry, to: str, says: str):
    registry.leads["/old/schemas/ids/1"] = to
    with pytest.raises(RegistryAway, match=says):
        connection(registry, url=registry.url + "/old").schema(1)


@needs_openssl
def test_nobody_is_led_from_tls_to_plain_text(secured: SmallRegistry, certificate: Path):
    secured.leads["/schemas/ids/1"] = "http://127.0.0.1:1/schemas/ids/1"
    own = {"certfile": str(certificate), "keyfile": f"{certificate}.key"}
    with pytest.raises(RegistryAway, match="from https to 'http://127"):
        connection(secured, cafile=str(certificate), **own).schema(1)
