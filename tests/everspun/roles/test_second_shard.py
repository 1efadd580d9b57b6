"""A shard that runs already is told from whatever else takes connections at its address."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from everspun.commands.system.role import refuse_second
from everspun.config import Config, RunConfig
from everspun.launcher import AlreadyLocked
from paramserver import ParamServerConfig, SlotMap
from paramserver.server import Metrics, Server, ShardService
from paramserver.shard import Shard
from paramserver.wire import with_token


def of(tmp_path: Path, port: int) -> Config:
    tcp = ParamServerConfig(transport="tcp", port=port, addresses=(f"127.0.0.1:{port}",))
    return Config(run=RunConfig(dir=str(tmp_path), shards=1), paramserver=tcp)


@pytest.fixture
def proxied() -> Iterator[int]:
    """The port of a proxy with nobody behind it: it takes each connection, and ends it."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def take() -> None:
            while True:
                try:
                    proxy.accept()[0].close()
                except OSError:
                    return

        taking = threading.Thread(target=take)
        taking.start()
        yield int(proxy.getsockname()[1])
        proxy.shutdown(socket.SHUT_RDWR)
        taking.join()


def test_a_proxy_is_no_second_shard(proxied: int, tmp_path: Path):
    refuse_second(of(tmp_path, proxied), "shard", 0, "this start")


@pytest.mark.parametrize("token", ["its own", "another"])
def test_a_shard_that_answers_is(token: str, tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = of(tmp_path, port)
    theirs = tmp_path if token == "its own" else tmp_path / "theirs"
    tcp = replace(with_token(config.paramserver, str(theirs)), lane_port=0)
    service = ShardService(Shard(0, 1, SlotMap.even(1)), tcp, Metrics())
    server = Server(service, None, f"127.0.0.1:{port}")
    server.start()
    try:
        with pytest.raises(AlreadyLocked, match=rf"shard-0 runs already at 127.0.0.1:{port} "):
            refuse_second(config, "shard", 0, "this start")
    finally:
        server.stop(1)
        service.close()
