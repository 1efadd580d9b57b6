"""Where shards are: IPv6 addresses, and folders whose names hold a percent sign."""

import socket
from pathlib import Path

import pytest
from served_shard import W, a_push, served

from paramserver.config import ParamServerConfig
from paramserver.messages import Outcome


def push_and_ask(tmp_path: Path, config: ParamServerConfig) -> None:
    with served(tmp_path, config) as (service, client):
        assert client.push(a_push(5)).outcome == Outcome.APPLIED
        assert client.progress("m").progress is not None
        assert service.channels is None or len(service.channels) > 0, "frames went over a lane"
    assert W["w"].sum() == 0


@pytest.mark.processes
@pytest.mark.parametrize("name", ["plain", "100%", "a%41b", "50%25", "%2f", "a b", "ü"])
def test_a_run_folder_may_have_any_name(tmp_path: Path, name: str):
    folder = tmp_path / name
    folder.mkdir()
    push_and_ask(folder, ParamServerConfig())
    assert not list(folder.glob("*.lane")), "removed by the name that it was made with"


@pytest.mark.processes
@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
def test_a_shard_listens_on_either_family(tmp_path: Path, host: str):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port = int(probe.getsockname()[1])
    push_and_ask(tmp_path, ParamServerConfig(transport="tcp", host=host, port=port))
