"""What a shard finds again when its folder, or the store's copy, is lost or behind (S2, K5, K6)."""

import json
import shutil
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paramserver.clocks import OperatorSettings
from paramserver.config import ParamServerConfig
from paramserver.ports import AllowRequest
from paramserver.process import run
from paramserver.process.process import StateLost
from paramserver.server.state_dir import StateDir, StateUnreadable
from paramserver.shard import next_incarnation
from paramserver.shard.incarnations import LOST_STEP, UNKNOWN_BASE
from paramserver.wire import ShardClient


class Stored:
    """A store of states in memory, which fails while told to."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.writes = self.reads = None  # what is raised, or None

    def read(self, name):
        if self.reads is not None:
            raise self.reads
        return self.files.get(name)

    def write(self, name, data):
        if self.writes is not None:
            raise self.writes
        self.files[name] = data


DOWN = OSError("the store is down")


def eventually(ask):
    for _ in range(6_000):
        if ask():
            return
        threading.Event().wait(0.005)
    raise AssertionError("never")


def opened(tmp_path, stored):
    return StateDir(str(tmp_path), 0, stored)


@given(
    st.lists(
        st.sampled_from(["start", "folder lost", "store down", "store up", "store copy lost"]),
        max_size=60,
    ),
)
def test_an_incarnation_is_above_every_one_before(events):
    """Unless folder and copy are lost at once. The store is never behind by more than LOST_STEP
    starts."""
    folder = store = None
    newest, down = 0, False
    for event in events:
        match event:
            case "folder lost" if store is not None:
                folder = None
            case "store copy lost" if folder is not None and not down:
                store = None
            case "store down":
                down = True
            case "store up":
                down = False
            case "start" if not (
                down and folder is None
            ):  # it waits until the store takes the new one
                incarnation = next_incarnation(folder, store, begun=newest > 0)
                assert incarnation > newest
                newest = folder = incarnation
                if not down:
                    store = incarnation


def test_of_a_model_that_began_before_stores_were_told_it_is_above_too():
    assert next_incarnation(None, None, begun=False) == 1
    assert next_incarnation(None, None, begun=True) == UNKNOWN_BASE
    assert next_incarnation(None, 7, begun=True) == 7 + LOST_STEP


def test_a_folder_that_is_lost_is_made_up_for_by_the_store(tmp_path):
    stored = Stored()
    state = opened(tmp_path, stored)
    assert [state.next_incarnation() for _ in range(3)] == [1, 2, 3]
    state.close()
    shutil.rmtree(state.path)
    again = opened(tmp_path, stored)
    assert again.next_incarnation(begun=True) == 3 + LOST_STEP
    (again.path / "incarnation").write_bytes(b"\0" * 4)  # as a power cut leaves it
    assert again.next_incarnation(begun=True) == 3 + 2 * LOST_STEP
    again.close()


@pytest.mark.long
def test_a_store_that_fails_delays_nothing_where_the_folder_knows(tmp_path):
    stored = Stored()
    stored.reads = stored.writes = DOWN
    state = opened(tmp_path, stored)
    with pytest.raises(OSError, match="is down"):
        state.next_incarnation()  # nobody knows what it has been
    stored.reads = None
    for _ in range(2):
        with pytest.raises(OSError, match="is down"):
            state.next_incarnation()  # and nobody would know what it was
    stored.writes = None
    assert state.next_incarnation() == 1
    stored.reads = stored.writes = DOWN
    assert state.next_incarnation() == 2
    stop = threading.Event()
    thread = threading.Thread(target=state.sync, args=(stop,))
    thread.start()
    eventually(lambda: state.fault or None)
    stored.writes = None
    assert state.wait_stored(30)
    assert json.loads(stored.files["shard-0.json"])["incarnation"] == 2
    eventually(lambda: not state.fault or None)
    stop.set()
    thread.join()
    state.close()


def test_a_full_disk_stops_no_start_where_the_store_takes_it(tmp_path, monkeypatch):
    stored = Stored()
    state = opened(tmp_path, stored)

    def full(path, pieces):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("paramserver.server.state_dir.write_durably", full)
    assert state.next_incarnation() == 1
    stored.writes = DOWN
    with pytest.raises(OSError, match="is down"):
        state.next_incarnation()
    state.close()


@pytest.mark.long
def test_what_operators_ordered_is_found_in_the_store(tmp_path):
    stored, said = Stored(), {"m": OperatorSettings(paused=True, concurrency=3)}
    state = opened(tmp_path, stored)
    assert state.settings() == {}
    state.keep_settings({})
    state.keep_settings(said)
    stop = threading.Event()
    thread = threading.Thread(target=state.sync, args=(stop,))
    thread.start()
    assert state.wait_stored(30)
    stop.set()
    thread.join()
    state.close()
    shutil.rmtree(state.path)
    again = opened(tmp_path, stored)
    assert again.settings() == said
    again.keep_settings({})  # this is newer than what the store has
    assert again.settings() == {}
    (again.path / "orders.json").write_text("{")
    assert again.settings() == said
    again.close()


@pytest.mark.processes
def test_a_shard_that_began_too_low_ends_and_begins_above(tmp_path: Path):
    """The clock holder names the newest incarnation that it has seen."""
    state, config, failure = StateDir(str(tmp_path), 0), ParamServerConfig(), []

    def serve():
        try:
            run(
                config,
                2,
                1,
                state.next_incarnation(),
                str(tmp_path),
                threading.Event(),
                state=state,
            )
        except StateLost as error:
            failure.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    client = ShardClient(config.address(1, str(tmp_path)), config)
    eventually(lambda: (tmp_path / "roles" / "shard-1.json").exists() or None)
    assert client.allow(AllowRequest(9, 1, (), incarnation=41)).incarnation == 1
    thread.join(timeout=30)
    client.close()
    assert not thread.is_alive()
    assert "has seen 41" in str(failure[0])
    assert state.next_incarnation() == 42
    state.close()


def order(state, stored, level):
    state.keep_settings({"m": OperatorSettings(staleness=level)})
    for name, data in list(state._wanted.items()):  # as `sync` does
        stored.write(name, data)


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(0, 2), st.none() | st.integers(0, 9)), max_size=12
    )
)
def test_wherever_a_volume_is_mounted_a_shard_obeys_its_own_orders_alone(starts):
    """Two systems, and three volumes that either may find at its place (S2g)."""
    systems, said, newest = [Stored(), Stored()], [None, None], [0, 0]
    whose = {}  # volume -> the system that had it last
    with tempfile.TemporaryDirectory() as root:
        for system, volume, level in starts:
            stored = systems[system]
            if volume in whose and not stored.files:
                continue  # a system that knows nothing takes a volume for its own
            whose[volume] = system
            state = StateDir(f"{root}/{volume}", 0, stored)
            incarnation = state.next_incarnation()
            assert incarnation > newest[system]
            newest[system] = incarnation
            found = state.settings().get("m")
            assert (None if found is None else found.staleness) == said[system]
            if level is not None:
                order(state, stored, level)
                said[system] = level
            state.close()


def test_orders_of_another_system_are_put_aside_and_named(tmp_path, caplog):
    ours, theirs = Stored(), Stored()
    state = StateDir(str(tmp_path / "ours"), 0, ours)
    state.next_incarnation()
    order(state, ours, 1)
    state.close()
    other = StateDir(str(tmp_path / "theirs"), 0, theirs)
    other.next_incarnation()
    for level in (5, 6, 7):
        order(other, theirs, level)
    other.close()

    state = StateDir(str(tmp_path / "theirs"), 0, ours)  # mounted at a wrong place
    state.next_incarnation()
    assert "was another system's" in caplog.text
    assert state.settings()["m"].staleness == 1
    assert len(list(state.path.glob("orders-*.json"))) == 1, "nothing of theirs is lost"
    state.close()


def test_a_folder_and_a_store_of_an_older_version_are_taken_as_they_are(tmp_path):
    stored = Stored()
    state = opened(tmp_path, stored)
    state.next_incarnation()
    order(state, stored, 3)
    stored.files["shard-0.json"] = b'{"incarnation": 1}'  # an older version ran in between
    (state.path / "system").write_bytes(b"\0" * 16)
    state.close()
    again = opened(tmp_path, stored)
    assert again.next_incarnation() == 2
    assert again.settings()["m"].staleness == 3
    assert json.loads(stored.files["shard-0.json"])["system"] == (again.path / "system").read_text()
    again.close()


@pytest.mark.parametrize("content", [b"\xff\xfe\0\0", "²".encode(), "٣".encode(), b"-1", b"x"])
def test_what_is_no_number_is_named_whatever_its_bytes_are(tmp_path, content):
    state = StateDir(str(tmp_path), 0)
    (state.path / "incarnation").write_bytes(content)
    with pytest.raises(StateUnreadable, match="is no number"):
        state.next_incarnation()
    state.close()


def test_a_hidden_folder_such_as_a_snapshot_is_left_as_it_is(tmp_path):
    state = StateDir(str(tmp_path), 0)
    first = state.next_incarnation()
    state.close()
    (state.path / ".snapshot").mkdir()
    (state.path / ".draft").write_bytes(b"")
    again = StateDir(str(tmp_path), 0)
    assert again.next_incarnation() > first
    assert (again.path / ".snapshot").is_dir()
    assert not (again.path / ".draft").exists()
    again.close()
