"""The server's own promises: limits, deadlines, tokens, what it does not understand, and what is
kept on disk."""

import errno
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from served_shard import ME, SPEC, W, a_push, served

from paramserver.config import ParamServerConfig
from paramserver.encoding import Encoding
from paramserver.messages import (
    Outcome,
    PullRequest,
)
from paramserver.parts import decode_part, encode_part
from paramserver.ports import AllowRequest, Malformed, NotAuthorized, PortUnreachable
from paramserver.server.state_dir import read_part, write_part
from paramserver.shard import Shard
from paramserver.slots import SlotMap
from paramserver.wire import (
    KeyLists,
    Payload,
    ShardClient,
    connect,
    data_channel,
    frames,
    payload,
    with_token,
)
from paramserver.wire import wire_pb2 as wire
from paramserver.wire.data_channel import STATUSES, ChannelClosed, DataChannel
from paramserver.wire.key_cache import LIST_BYTES, digest_of


def test_control_calls_are_answered_while_data_waits(tmp_path: Path):
    """With every data thread taken, a further pull is turned away at once, and takes no thread
    from control calls."""
    config = ParamServerConfig(
        lanes=False, data_threads=1, control_threads=2, retry_ms=1, retry_max_ms=1
    )
    with served(tmp_path, config) as (service, client):
        arrived = threading.Event()
        apply = service.shard.push
        service.shard.push = lambda request, refusal: (
            arrived.set(),
            hold.wait(10),
            apply(request, refusal),
        )[-1]  # type: ignore[method-assign]
        hold = threading.Event()
        first = threading.Thread(target=lambda: client.push(a_push(3)))
        first.start()
        assert arrived.wait(10)
        with pytest.raises(PortUnreachable, match="all data threads are taken"):
            client.pull(PullRequest("m", ME, 1, {}))
        hold.set()
        first.join()
        assert client.progress("m").progress.version == 1


def test_a_call_that_nobody_answers_is_unreachable_in_time(tmp_path: Path):
    config = ParamServerConfig(control_timeout_ms=100)
    client = ShardClient(config.address(0, str(tmp_path)), config)
    with pytest.raises(PortUnreachable, match=r"shard-0\.sock"):
        client.progress("m")
    with (
        served(tmp_path, config) as (service, live),
        service.lock,
        pytest.raises(PortUnreachable, match="deadline"),
    ):
        live.progress("m")
    client.close()


def test_a_port_of_loopback_asks_for_the_token_of_the_run_folder(tmp_path: Path):
    """A pause said by anybody on the host was kept for good."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        plain = ParamServerConfig(transport="tcp", port=probe.getsockname()[1])
    config = with_token(plain, str(tmp_path))
    assert with_token(plain, str(tmp_path)) == config
    assert with_token(config, "elsewhere") == config
    assert with_token(ParamServerConfig(), str(tmp_path)) == ParamServerConfig(), (
        "a socket's folder says who may call"
    )
    path = Path(config.token_file)
    assert (path.parent, path.stat().st_mode & 0o777) == (tmp_path, 0o600)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with served(tmp_path, config) as (_, client):
        assert client.progress("m").progress is not None
        for stranger_config in (plain, with_token(plain, str(tmp_path / "another"))):
            stranger = ShardClient(plain.address(0, ""), stranger_config)
            with pytest.raises(NotAuthorized, match="bearer token missing or wrong") as refused:
                stranger.progress("m")
            assert "\n" not in str(refused.value)
            stranger.close()
    shards, clock = connect(plain, str(tmp_path), 1)
    shown = (("authorization", f"Bearer {path.read_text().strip()}"),)
    assert clock._connection._metadata() == shards[0]._connection._metadata() == shown
    clock.close()
    shards.close()


def test_a_wrong_token_is_refused_and_the_right_one_is_not(tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    config = ParamServerConfig(token_file=str(token))
    with served(tmp_path, config) as (_, client):
        assert client.progress("m").incarnation == 1
        stranger = ShardClient(config.address(0, str(tmp_path)), ParamServerConfig())
        with pytest.raises(NotAuthorized, match="bearer token"):
            stranger.progress("m")
        stranger.close()


@pytest.mark.parametrize("lanes", [True, False])
def test_a_message_that_cannot_be_is_refused(tmp_path: Path, lanes: bool):
    """Whatever is wrong with a frame is named, and the shard is as before."""

    def refused(what: str, sent: Payload) -> None:
        with pytest.raises(Malformed, match=what):
            client._connection.persist("Push", lambda _: client._exchange("Push", sent), 1_000)

    config = ParamServerConfig(message_bytes_max=65_536, lanes=lanes)
    with served(tmp_path, config) as (service, client):
        good = payload.encode_push(a_push(20), Encoding.FLOAT32)
        refused("left", good._replace(arrays=good.arrays[:-1]))
        refused(
            "more than its header", good._replace(arrays=[*good.arrays, np.ones(9, np.float32)])
        )
        for change, what in (
            ({"encoding": 7}, "encoding 7"),
            ({"shape": [-1, 8]}, "negative"),
            ({"shape": [20, 1 << 60]}, "left"),
            ({"digest": b"x" * 16}, "keys have the digest"),
        ):
            header = wire.PushRequest.FromString(good.header.SerializeToString())
            for name, value in change.items():
                if name == "shape":
                    del header.tables[0].shape[:]
                    header.tables[0].shape.extend(value)
                else:
                    setattr(header.tables[0], name, value)
            refused(what, good._replace(header=header))
        if lanes:
            refused(
                "message_bytes_max",
                good._replace(arrays=[*good.arrays, np.ones(1 << 20, np.float32)]),
            )
        assert client.push(a_push(20)).version == 1
        assert service.metrics.faults._value.get() == 0


def test_what_a_lane_does_not_understand(tmp_path: Path):
    with served(tmp_path, ParamServerConfig()) as (_, client):
        address, token = client._ask_channel()
        with pytest.raises(ChannelClosed):
            DataChannel.open(address, b"guessed", 1_000)
        channel = DataChannel.open(address, token, 1_000)
        channel.send(frames.pieces(9, b""))
        status, reason, _ = channel.receive(0)
        assert STATUSES[status] is grpc.StatusCode.INVALID_ARGUMENT
        assert b"method 9" in reason
        channel.send(frames.pieces(frames.METHODS["Push"], b"\xff\xff"))
        assert b"header of Push" in channel.receive(0)[1]
        channel.send([memoryview(b"GET / HTTP/1.1\r\n\r\n" * 2)])
        with pytest.raises(OSError):
            channel.receive(0)
        channel.close()


def test_a_caller_that_stops_within_a_frame_is_not_waited_for(tmp_path: Path):
    with served(tmp_path, ParamServerConfig(data_timeout_ms=100)) as (service, client):
        address, token = client._ask_channel()
        idle, stops = (DataChannel.open(address, token, 2_000) for _ in range(2))
        time.sleep(0.3)  # between frames there is no limit
        idle.send(frames.pieces(9, b""))
        assert b"method 9" in idle.receive(0)[1]
        stops._socket.send(bytes(frames.pieces(9, b"")[0])[:5])
        with pytest.raises(ChannelClosed):
            stops.receive(0)
        assert len(service.channels) == 1
        for channel in (idle, stops):
            channel.close()


def test_a_connection_that_fails_as_it_is_taken_ends_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with served(tmp_path, ParamServerConfig()) as (_, client):
        address, token = client._ask_channel()
        fails = [True]

        class Fails(DataChannel):
            def __init__(self, *given: Any) -> None:
                if threading.current_thread().name == "data-channels" and fails:
                    fails.clear()
                    raise OSError(errno.ENOBUFS, "No buffer space available")
                super().__init__(*given)

        monkeypatch.setattr(data_channel, "DataChannel", Fails)
        with pytest.raises(OSError):
            DataChannel.open(address, token, 1_000)
        DataChannel.open(address, token, 1_000).close()


@pytest.mark.parametrize("lanes", [True, False])
def test_a_list_of_keys_is_sent_once(tmp_path: Path, lanes: bool):
    """A push names the list of its pull; a shard that does not have it says so, and gets it."""
    push = a_push(1_000)
    with served(tmp_path, ParamServerConfig(lanes=lanes)) as (service, client):

        def count(how: str) -> float:
            return service.metrics.key_lists.labels(how)._value.get()

        client.pull(PullRequest("m", ME, 1, push.keys))
        assert client.push(push).outcome is Outcome.APPLIED
        assert (count("sent"), count("known"), count("unknown")) == (1, 1, 0)
        service._key_lists = KeyLists(1 << 20)  # as after a restart
        assert client.push(replace(push, start=1, end=2)).outcome is Outcome.APPLIED
        assert (count("sent"), count("known"), count("unknown")) == (2, 1, 1)
        pulled = client.pull(PullRequest("m", ME, 1, push.keys))
        assert count("known") == 2
        np.testing.assert_array_equal(pulled.rows["t"], -2 * push.gradients["t"])


def test_lists_of_keys_have_a_limit_and_digests_tell_them_apart():
    lists = KeyLists(3 * (80 + LIST_BYTES))
    frame = np.arange(10_000, dtype=np.uint64)
    keys = [frame[n : n + 10] for n in range(4)]
    digests = [digest_of(k) for k in keys]
    assert (
        len({*digests, digest_of(keys[0][::-1]), digest_of(keys[0][:9]), digest_of(keys[0][:0])})
        == 7
    )
    for digest, array in zip(digests, keys, strict=True):
        lists.keep(digest, array)
    assert lists.nbytes == lists.bytes_max
    assert lists.get(digests[0]) is None
    kept = lists.get(digests[3])
    assert kept is not None
    np.testing.assert_array_equal(kept, keys[3])
    assert kept.base is None, "what it came in may go"
    lists.keep(b"large", frame)
    assert lists.get(b"large") is None


@pytest.mark.parametrize("wire_name", ["bfloat16", "float16"])
def test_rows_in_16_bits_are_the_nearest(tmp_path: Path, wire_name: str):
    rng = np.random.default_rng(1)
    push = a_push(500, gradients={"t": rng.normal(0, 1, (500, 8)).astype(np.float32)})
    precision = {"bfloat16": 2.0**-8, "float16": 2.0**-11}[wire_name]
    with served(tmp_path, ParamServerConfig(wire=wire_name)) as (service, client):
        assert client.push(push).outcome is Outcome.APPLIED
        kept = -service.shard.snapshot("m").tables["t"].rows
        assert np.abs(kept / push.gradients["t"] - 1).max() <= precision
        pulled = client.pull(PullRequest("m", ME, 1, push.keys)).rows["t"]
        np.testing.assert_array_equal(pulled, -kept)  # a number of 16 bits is sent as it is
        bad = replace(push, start=1, end=2, gradients={"t": push.gradients["t"].copy()})
        bad.gradients["t"][3, 3] = np.nan
        assert client.push(bad).outcome is Outcome.PARTLY_APPLIED


def test_a_shard_that_restarts_is_reached_again(tmp_path: Path):
    config = ParamServerConfig()
    with served(tmp_path, config) as (_, client):
        assert client.push(a_push(20)).outcome is Outcome.APPLIED
        lost = ShardClient(config.address(0, str(tmp_path)), config)
        assert lost.pull(PullRequest("m", ME, 1, {})).version == 1
    with served(tmp_path, config):
        assert lost.push(a_push(20)).outcome is Outcome.APPLIED
        lost.close()


def test_a_shard_that_is_silent_is_unreachable_in_time(tmp_path: Path):
    config = ParamServerConfig(data_timeout_ms=200)
    with served(tmp_path, config) as (service, client):
        client.push(a_push(20))
        with service.lock, pytest.raises(PortUnreachable, match="no answer within the deadline"):
            client.push(a_push(20))
        assert client.push(a_push(20)).outcome is Outcome.DUPLICATE


def test_over_tcp_on_loopback(tmp_path: Path):
    config = ParamServerConfig(transport="tcp", port=free_port())
    with served(tmp_path, config) as (_, client):
        assert client.push(a_push(3)).outcome is Outcome.APPLIED


@pytest.mark.long
@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_over_tls(tmp_path: Path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext "
        "subjectAltName=DNS:localhost"
    )
    subprocess.run(
        [*command.split(), "-out", cert, "-keyout", key], check=True, capture_output=True
    )
    port = free_port()
    config = ParamServerConfig(
        transport="tcp",
        host="localhost",
        port=port,
        cert=str(cert),
        key=str(key),
        ca=str(cert),
        control_timeout_ms=500,
    )
    with served(tmp_path, config) as (_, client):
        assert client.push(a_push(3)).outcome is Outcome.APPLIED
        plain = ShardClient(f"localhost:{port}", replace(config, cert="", key="", ca=""))
        with pytest.raises(PortUnreachable):
            plain.progress("m")
        plain.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_parts_are_written_and_read_and_repeat_byte_for_byte(tmp_path: Path):
    shard = Shard(0, 1, SlotMap.even(1))
    shard.begin(SPEC, {"c": 0}, W)
    shard.allow(AllowRequest(1, 1, (ME,)))
    shard.push(a_push(100))
    snapshot = shard.snapshot("m")
    for url in (str(tmp_path / "a" / "b"), f"file://{tmp_path}/c", "memory://cuts/one"):
        part = write_part(snapshot, 0, url)
        assert part.url == f"{url}/part-0.safetensors"
        read = read_part(part.url)
        np.testing.assert_array_equal(
            read.tables["t"].rows, decode_part(encode_part(snapshot)).tables["t"].rows
        )
        assert part.rows == 100
    assert encode_part(snapshot) == encode_part(snapshot)
    (tmp_path / "c" / "part-0.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ValueError, match=r"c/part-0\.safetensors"):
        read_part(f"file://{tmp_path}/c/part-0.safetensors")


def test_a_store_that_takes_no_part_is_said_in_a_line_and_is_no_fault_of_a_handler(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "store").write_text("a file where the folder was")
    with served(tmp_path, ParamServerConfig()) as (service, client):
        assert client.mark("m", "cut", {"c": 0}).marked
        with pytest.raises(PortUnreachable, match="File exists"):
            client.write_part("m", "cut", f"file://{tmp_path}/store/part", None)
        assert service.metrics.faults._value.get() == 0
    assert "File exists" in caplog.text
    assert "Traceback" not in caplog.text
