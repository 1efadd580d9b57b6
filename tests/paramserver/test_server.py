"""The server's own promises: large pushes, limits, deadlines, a process that is killed, and what is kept on disk."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from prometheus_client import generate_latest

from paramserver import frames, payload
from paramserver import wire_pb2 as wire
from paramserver.client import ShardClient, connect
from paramserver.config import ParamServerConfig
from paramserver.encoding import Encoding
from paramserver.keylists import KeyLists, digest_of
from paramserver.lane import STATUSES, Lane, LaneClosed
from paramserver.messages import (
    DenseSpec,
    Epoch,
    ModelSpec,
    Outcome,
    PullRequest,
    PushRequest,
    StartOutcome,
    StartRequest,
    TableSpec,
)
from paramserver.metrics import Metrics
from paramserver.partfile import decode_part, encode_part
from paramserver.payload import Payload
from paramserver.ports import Malformed, NotAuthorized, Unreachable
from paramserver.server import Server, ShardService
from paramserver.service import run
from paramserver.shard import Shard
from paramserver.slots import SlotMap
from paramserver.staging import StageFull, StageIncomplete, Staging, slices, split
from paramserver.store import StateDir, StateInUse, read_part, write_part

SPEC = ModelSpec("m", "d", (TableSpec("t", 8, "sgd", {"rate": 1.0}),), DenseSpec({"w": (4,)}, "sgd", {"rate": 1.0}))
W = {"w": np.zeros(4, np.float32)}
ME = Epoch(1, 1)


def a_push(count: int, **changes: object) -> PushRequest:
    keys = np.arange(1, count + 1, dtype=np.uint64)
    gradients = np.arange(count * 8, dtype=np.float32).reshape(count, 8)
    push = PushRequest(
        "m", ME, 1, 1, "c", 0, 1, 0, 1, 0, 0, 1, 0, 0, {"t": keys}, {"t": gradients}, {"w": np.ones(4, np.float32)}
    )
    return replace(push, **changes)


@contextmanager
def served(tmp_path: Path, config: ParamServerConfig) -> Iterator[tuple[ShardService, ShardClient]]:
    """One shard that allows ME, and a client of it."""
    service = ShardService(Shard(0, 1, SlotMap.even(1)), config, Metrics())
    service.shard.begin(SPEC, {"c": 0}, W)
    service.shard.allow(1, 1, [ME])
    server = Server(service, None, config.listen(0, str(tmp_path)))
    server.start()
    client = ShardClient(config.address(0, str(tmp_path)), config)
    try:
        yield service, client
    finally:
        client.close()
        server.stop(1)
        service.close()


SMALL = ParamServerConfig(message_bytes_max=65_536, staged_bytes_max=1_000_000)


def test_a_push_and_a_pull_beyond_a_message_go_in_several(tmp_path: Path):
    push = a_push(10_000)
    with served(tmp_path, SMALL) as (service, client):
        assert client.push(push).outcome is Outcome.APPLIED
        assert service.staging.nbytes == 0
        pulled = client.pull(PullRequest("m", ME, 1, {"t": push.keys["t"]}))
        np.testing.assert_array_equal(pulled.rows["t"], -push.gradients["t"])
        np.testing.assert_array_equal(pulled.dense["w"], -np.ones(4))
        assert service.shard.progress("m").progress.version == 1
        text = generate_latest(service.metrics.registry).decode()
    assert 'everspun_pushes_total{outcome="applied"} 1.0' in text
    assert "everspun_staleness_updates_count 1.0" in text
    assert 'everspun_rows_total{method="push"} 10000.0' in text


def test_staged_parts_go_with_the_fence(tmp_path: Path):
    parts, last = split(a_push(10_000), SMALL.message_bytes_max)
    with served(tmp_path, SMALL) as (service, client):
        for number, tables in enumerate(parts):
            staged = payload.encode_stage("m", ME, 1, number, tables, Encoding.FLOAT32)
            client._exchange("Stage", staged)
        assert service.staging.nbytes > 0
        client.allow(1, 2, [Epoch(1, 2)], 1)
        assert service.staging.nbytes == 0
        assert client.push(replace(last, epoch=ME)).outcome is Outcome.FENCED


def test_staging_puts_a_push_together_once_and_keeps_the_newest():
    push = a_push(1_000)
    parts, last = split(push, 10_000)
    assert len(parts) > 1
    staging = Staging(1_000_000)
    for number, tables in enumerate(parts):
        staging.add("m", ME, 7, number, tables)
        staging.add("m", ME, 7, number, tables)
    staging.add("m", ME, 6, 0, parts[0])  # late, from an attempt that was given up
    with pytest.raises(StageIncomplete):
        staging.complete(last, 6, len(parts))
    whole, refusal = staging.complete(last, 7, len(parts))
    assert not refusal
    np.testing.assert_array_equal(whole.keys["t"], push.keys["t"])
    np.testing.assert_array_equal(whole.gradients["t"], push.gradients["t"])
    assert staging.nbytes == 0
    with pytest.raises(StageIncomplete):
        staging.complete(last, 7, len(parts))


def test_staging_has_a_limit():
    parts, _ = split(a_push(1_000), 10_000)
    staging = Staging(15_000)
    staging.add("m", ME, 1, 0, parts[0])
    with pytest.raises(StageFull):
        staging.add("m", Epoch(1, 2), 1, 0, parts[0])
    with pytest.raises(ValueError, match="a row of 40 bytes"):
        split(a_push(1_000), 32)


def test_a_push_that_no_room_is_large_enough_for_ends_as_an_empty_one(tmp_path: Path):
    """S4: a chain never stops at a batch."""
    with served(tmp_path, replace(SMALL, staged_bytes_max=70_000)) as (service, client):
        reply = client.push(a_push(10_000))
        assert (reply.outcome, reply.end) == (Outcome.PARTLY_APPLIED, 1)
        assert "staged_bytes_max = 70000" in reply.detail
        assert (service.staging.nbytes, service.shard.rows("m")) == (0, 0)
        assert client.push(a_push(5, start=1, end=2)).outcome is Outcome.APPLIED


def test_slices_cover_all_keys_in_order():
    keys = {"a": np.arange(10, dtype=np.uint64), "b": np.empty(0, np.uint64), "c": np.arange(5, dtype=np.uint64)}
    pieces = slices(keys, 4)
    assert all(sum(len(k) for k in piece.values()) <= 4 for piece in pieces)
    for name, array in keys.items():
        found = [piece[name] for piece in pieces if name in piece]
        np.testing.assert_array_equal(np.concatenate(found), array)


def test_control_calls_are_answered_while_data_waits(tmp_path: Path):
    """With every data thread taken, a further pull is turned away at once, and takes no thread from control calls."""
    config = ParamServerConfig(lanes=False, data_threads=1, control_threads=2, retry_ms=1, retry_max_ms=1)
    with served(tmp_path, config) as (service, client):
        arrived = threading.Event()
        apply = service.shard.push
        service.shard.push = lambda request, refusal: (arrived.set(), hold.wait(10), apply(request, refusal))[-1]  # type: ignore[method-assign]
        hold = threading.Event()
        first = threading.Thread(target=lambda: client.push(a_push(3)))
        first.start()
        assert arrived.wait(10)
        with pytest.raises(Unreachable, match="all data threads are taken"):
            client.pull(PullRequest("m", ME, 1, {}))
        hold.set()
        first.join()
        assert client.progress("m").progress.version == 1


def test_a_call_that_nobody_answers_is_unreachable_in_time(tmp_path: Path):
    config = ParamServerConfig(control_timeout_ms=100)
    client = ShardClient(config.address(0, str(tmp_path)), config)
    with pytest.raises(Unreachable, match=r"shard-0\.sock"):
        client.progress("m")
    with served(tmp_path, config) as (service, live), service.lock, pytest.raises(Unreachable, match="deadline"):
        live.progress("m")
    client.close()


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
        refused("more than its header", good._replace(arrays=[*good.arrays, np.ones(9, np.float32)]))
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
            refused("message_bytes_max", good._replace(arrays=[*good.arrays, np.ones(1 << 20, np.float32)]))
        assert client.push(a_push(20)).version == 1
        assert service.metrics.faults._value.get() == 0


def test_what_a_lane_does_not_understand(tmp_path: Path):
    with served(tmp_path, ParamServerConfig()) as (_, client):
        address, token = client._ask_lane()
        with pytest.raises(LaneClosed):
            Lane.open(address, b"guessed", 1_000)
        lane = Lane.open(address, token, 1_000)
        lane.send(frames.pieces(9, b""))
        status, reason, _ = lane.receive(0)
        assert STATUSES[status] is grpc.StatusCode.INVALID_ARGUMENT
        assert b"method 9" in reason
        lane.send(frames.pieces(frames.METHODS["Push"], b"\xff\xff"))
        assert b"header of Push" in lane.receive(0)[1]
        lane.send([memoryview(b"GET / HTTP/1.1\r\n\r\n" * 2)])
        with pytest.raises(OSError):
            lane.receive(0)
        lane.close()


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
    lists = KeyLists(240)
    keys = [np.arange(n, n + 10, dtype=np.uint64) for n in range(4)]
    digests = [digest_of(k) for k in keys]
    assert len({*digests, digest_of(keys[0][::-1]), digest_of(keys[0][:9]), digest_of(keys[0][:0])}) == 7
    for digest, array in zip(digests, keys, strict=True):
        lists.keep(digest, array)
    assert lists.nbytes == 240
    assert lists.get(digests[0]) is None
    assert lists.get(digests[3]) is keys[3]
    lists.keep(b"large", np.arange(100, dtype=np.uint64))
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
        with service.lock, pytest.raises(Unreachable, match="no answer within the deadline"):
            client.push(a_push(20))
        assert client.push(a_push(20)).outcome is Outcome.DUPLICATE


def test_over_tcp_on_loopback(tmp_path: Path):
    config = ParamServerConfig(transport="tcp", port=free_port())
    with served(tmp_path, config) as (_, client):
        assert client.push(a_push(3)).outcome is Outcome.APPLIED


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_over_tls(tmp_path: Path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*command.split(), "-out", cert, "-keyout", key], check=True, capture_output=True)
    port = free_port()
    config = ParamServerConfig(
        transport="tcp", host="localhost", port=port, cert=str(cert), key=str(key), ca=str(cert), control_timeout_ms=500
    )
    with served(tmp_path, config) as (_, client):
        assert client.push(a_push(3)).outcome is Outcome.APPLIED
        plain = ShardClient(f"localhost:{port}", replace(config, cert="", key="", ca=""))
        with pytest.raises(Unreachable):
            plain.progress("m")
        plain.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


PROCESS = """
    import signal, sys, threading
    from paramserver.config import ParamServerConfig
    from paramserver.service import run
    from paramserver.store import StateDir
    index, run_dir = int(sys.argv[1]), sys.argv[2]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    state = StateDir(run_dir, index)
    config = ParamServerConfig(staleness=0, allow_ms=20, lease_ms=60_000)
    run(config, 2, index, state.next_incarnation(), run_dir, stop)
"""


def spawn(index: int, run_dir: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(PROCESS), str(index), str(run_dir)])


def eventually(ask, seconds: float = 30.0):
    """The first answer that is not None; Unreachable counts as none."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            answer = ask()
        except Unreachable:
            answer = None
        if answer is not None:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"nothing within {seconds} s")


@pytest.mark.processes
def test_killed_processes_come_back_as_new_incarnations(tmp_path: Path):
    """kill -9 of the other shard, then of the clock holder: what a learner must see, it sees."""
    processes = [spawn(n, tmp_path) for n in range(2)]
    config = ParamServerConfig(staleness=0, allow_ms=20)
    shards, clock = connect(config, str(tmp_path), 2)
    try:
        for shard in shards.values():
            eventually(lambda shard=shard: shard.begin(SPEC, {"c": 0}, W))
        epoch = clock.join("m", "a").epoch

        def started(at: int, epoch: Epoch):
            reply = clock.start(StartRequest("m", epoch, "c", at, at + 1))
            return None if reply.outcome is StartOutcome.WAIT_STALENESS else reply

        assert eventually(lambda: started(0, epoch)).outcome is StartOutcome.ADMITTED
        push = a_push(0, epoch=epoch, keys={}, gradients={}, dense={})
        assert shards[1].push(push).outcome is Outcome.APPLIED

        processes[1].send_signal(signal.SIGKILL)
        processes[1].wait()
        with pytest.raises(Unreachable):
            shards[1].push(push)
        processes[1] = spawn(1, tmp_path)
        assert eventually(lambda: shards[1].progress("m")).incarnation == 2
        assert shards[1].progress("m").progress is None
        eventually(lambda: (clock.renew("m", epoch, "computing") or {}).get(1) == 2 or None)
        shards[1].begin(SPEC, {"c": 0}, W)
        assert shards[1].push(push).outcome is Outcome.WRONG_INCARNATION
        eventually(lambda: shards[1].push(replace(push, incarnation=2)).outcome is Outcome.APPLIED or None)

        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        processes[0] = spawn(0, tmp_path)
        eventually(lambda: clock.renew("m", epoch, "computing") is None or None)
        later = clock.join("m", "a").epoch
        assert later == Epoch(2, 1)
        assert eventually(lambda: started(1, later)).outcome is StartOutcome.ADMITTED
        stale = replace(push, incarnation=2, start=1, end=2)
        assert shards[1].push(stale).outcome is Outcome.FENCED
        assert shards[1].push(replace(stale, epoch=later)).outcome is Outcome.APPLIED
    finally:
        for process in processes:
            process.terminate()
        for client in (*shards.values(), clock):
            client.close()
        assert [process.wait(timeout=20) for process in processes] == [0, 0]


def test_a_silent_learner_is_fenced_on_every_shard(tmp_path: Path):
    config = ParamServerConfig(lease_ms=300, stated_max_ms=300, allow_ms=20)
    stop = threading.Event()
    threads = [threading.Thread(target=run, args=(config, 2, n, 1, str(tmp_path), stop)) for n in range(2)]
    for thread in threads:
        thread.start()
    shards, clock = connect(config, str(tmp_path), 2)
    try:
        for shard in shards.values():
            eventually(lambda shard=shard: shard.begin(SPEC, {"c": 0}, W))
        epoch = eventually(lambda: clock.join("m", "a")).epoch
        push = a_push(0, epoch=epoch, keys={}, gradients={}, dense={})

        def fenced_everywhere() -> bool | None:
            return all(shard.push(push).outcome is Outcome.FENCED for shard in shards.values()) or None

        started = StartRequest("m", epoch, "c", 0, 1)
        eventually(lambda: clock.start(started).outcome is StartOutcome.ADMITTED or None)
        assert shards[1].push(push).outcome is Outcome.APPLIED
        eventually(fenced_everywhere)
        assert clock.renew("m", epoch, "computing") is None
        assert not clock.ended("m", epoch, 0)
    finally:
        stop.set()
        for client in (*shards.values(), clock):
            client.close()
        for thread in threads:
            thread.join(timeout=10)


def test_a_service_writes_its_role_and_stops(tmp_path: Path):
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(ParamServerConfig(), 1, 0, 4, str(tmp_path), stop))
    thread.start()
    role = tmp_path / "roles" / "shard-0.json"
    eventually(lambda: role.exists() or None)
    assert f'"pid": {os.getpid()}' in role.read_text()
    stop.set()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_incarnations_only_grow_and_one_process_holds_them(tmp_path: Path):
    state = StateDir(str(tmp_path), 0)
    assert [state.next_incarnation() for _ in range(3)] == [1, 2, 3]
    with pytest.raises(StateInUse, match="shard 0"):
        StateDir(str(tmp_path), 0)
    StateDir(str(tmp_path), 1).close()
    state.close()
    again = StateDir(str(tmp_path), 0)
    assert again.next_incarnation() == 4
    (again.path / "incarnation").write_text("")
    with pytest.raises(ValueError, match="no number"):
        again.next_incarnation()
    again.close()


def test_parts_are_written_and_read_and_repeat_byte_for_byte(tmp_path: Path):
    shard = Shard(0, 1, SlotMap.even(1))
    shard.begin(SPEC, {"c": 0}, W)
    shard.allow(1, 1, [ME])
    shard.push(a_push(100))
    snapshot = shard.snapshot("m")
    for url in (str(tmp_path / "a" / "b"), f"file://{tmp_path}/c", "memory://cuts/one"):
        part = write_part(snapshot, 0, url)
        assert part.url == f"{url}/part-0.safetensors"
        read = read_part(part.url)
        np.testing.assert_array_equal(read.tables["t"].rows, decode_part(encode_part(snapshot)).tables["t"].rows)
        assert part.rows == 100
    assert encode_part(snapshot) == encode_part(snapshot)
    (tmp_path / "c" / "part-0.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ValueError, match=r"c/part-0\.safetensors"):
        read_part(f"file://{tmp_path}/c/part-0.safetensors")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"staleness": -2}, "staleness = -2"),
        ({"lease_ms": 0}, "lease_ms = 0"),
        ({"transport": "udp"}, "transport = 'udp'"),
        ({"transport": "tcp", "host": "0.0.0.0"}, "not loopback"),
        ({"cert": "x"}, "cert and key"),
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
