"""Settings of a shard's server that cannot be are refused by name."""

import pytest

from paramserver.config import ParamServerConfig


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"staleness": -2}, "staleness = -2"),
        ({"lease_ms": 0}, "lease_ms = 0"),
        ({"transport": "udp"}, "transport = 'udp'"),
        ({"transport": "tcp", "host": "0.0.0.0"}, "not loopback"),
        ({"cert": "x"}, "cert = 'x', key = '': give both, or neither"),
        ({"message_bytes_max": 10}, "message_bytes_max = 10"),
        ({"control_threads": 1}, "control_threads = 1"),
        ({"port": 0}, "port = 0"),
    ],
)
def test_impossible_settings_are_refused_by_name(changes: dict[str, object], says: str):
    with pytest.raises(ValueError, match=says):
        ParamServerConfig(**changes)


def test_every_shard_needs_an_address():
    config = ParamServerConfig(transport="tcp", addresses=("a:1", "b:2"))
    assert config.address(1, "") == "b:2"
    with pytest.raises(ValueError, match="none for shard 2"):
        config.address(2, "")


def test_a_run_folder_too_deep_for_a_socket_is_refused():
    with pytest.raises(ValueError, match="shorter run folder"):
        ParamServerConfig().address(0, "/" + "x" * 120)
