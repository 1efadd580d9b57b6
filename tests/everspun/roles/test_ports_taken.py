"""A port that somebody else has, or a host that is none of this machine's, is said with its key."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpointer import ServingConfig
from checkpointer.serving import InferenceServer, Replica, bound
from everspun.commands.mistakes import is_said_in_full
from paramserver import ParamServerConfig
from paramserver.process import run
from stream import PortTaken


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        yield somebody.getsockname()[1]


def test_of_a_replica(taken: int):
    with pytest.raises(PortTaken, match=rf"127.0.0.1:{taken}: Address already.*serving.port") as it:
        bound("127.0.0.1", taken)
    assert is_said_in_full(it.value)
    with pytest.raises(PortTaken, match=r"192.0.2.1:0: Cannot assign.*serving.host"):
        bound("192.0.2.1", 0)


def test_of_a_replica_that_answers_grpc(taken: int, tmp_path: Path):
    with (
        Replica(str(tmp_path), "m") as replica,
        pytest.raises(PortTaken, match=rf"127.0.0.1:{taken}: .*serving.host, serving.grpc_port"),
    ):
        InferenceServer(replica, ServingConfig(), taken)


@pytest.mark.parametrize("key", ["port", "lane_port"])
def test_of_a_shard(key: str, taken: int, tmp_path: Path):
    config = ParamServerConfig(transport="tcp", host="127.0.0.1", **{key: taken})
    with pytest.raises(PortTaken, match=rf"127.0.0.1:{taken}[: ].*paramserver.host, {key}$"):
        run(config, 1, 0, 1, str(tmp_path), threading.Event())
