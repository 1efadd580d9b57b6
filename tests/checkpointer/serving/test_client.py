"""The replica as a library and over HTTP, on real checkpoints in a directory."""

import http.client
import json
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from checkpointer.config import ServingConfig
from checkpointer.process.operator_actions import (
    find,
    lift,
    list_checkpoints,
    restore,
    restore_training,
)
from checkpointer.serving.http_server import ReplicaServer, run
from checkpointer.serving.replica_client import Replica
from checkpointer.store import Catalogue, Damaged, Directory, announce, ref
from stream import Partition
from stream.log import MemoryLog

ROWS = [{"source": "u1", "item": "i1"}]
FAST = ServingConfig(poll_ms=5, retry_ms=10_000)


@pytest.fixture
def catalogue(tmp_path):
    return Catalogue(Directory(str(tmp_path)), "clicks")


@pytest.fixture
def root(tmp_path):
    return str(tmp_path)


def wait(reached):
    for _ in range(2_000):
        if reached():
            return
        threading.Event().wait(0.005)
    raise AssertionError("never")


def test_without_a_model_the_prior_answers_and_says_so(root):
    with Replica(root, "clicks", FAST, fallback=0.07) as replica:
        answer = replica.predict_rows(ROWS * 2)
        assert (answer["probabilities"], answer["fallback"]) == ([0.07, 0.07], True)
        assert replica.describe()["fallback_probability"] == 0.07
    with Replica(root, "clicks", ServingConfig(fallback_probability=0.5), fallback=0.07) as replica:
        assert replica.predict_rows(ROWS)["probabilities"] == [0.5]


def test_a_new_pointer_is_followed_and_a_damaged_checkpoint_is_not(root, catalogue, train):
    first = train(catalogue, 0, ROWS)
    with Replica(root, "clicks", FAST) as replica:
        assert replica.predict_rows(ROWS)["model_version"] == first.name
        second = train(catalogue, 1, ROWS)
        wait(lambda: replica.served.version == second.name)
        third = train(catalogue, 2, ROWS, outcome=None)
        path = f"clicks/{third.name}/part-0.safetensors"
        catalogue.files.write(path, catalogue.files.read(path)[:-1] + b"!")
        catalogue.write_published(ref(third))
        wait(lambda: third.name in replica.describe()["refused"])
        assert "part-0.safetensors" in replica.describe()["refused"][third.name]
        assert replica.predict_rows(ROWS)["model_version"] == second.name
        assert replica.metrics.refused._value.get() == 1


def test_a_replica_that_starts_beside_a_damaged_checkpoint_serves_the_one_before(
    root, catalogue, train
):
    good, bad = train(catalogue, 0, ROWS), train(catalogue, 1, ROWS)
    catalogue.files.delete(f"clicks/{bad.name}/part-1.safetensors")
    with Replica(root, "clicks", FAST) as replica:
        assert replica.served.version == good.name


def test_announcements_are_heard_before_the_next_look(root, catalogue, train):
    log = MemoryLog(lambda: 0)
    log.create("checkpoints", 1)
    train(catalogue, 0, ROWS)
    slow = ServingConfig(poll_ms=600_000)
    with Replica(root, "clicks", slow, log=log) as replica:
        second = train(catalogue, 1, ROWS)
        log.writer().append(Partition("checkpoints", 0), b"not json")
        log.writer().append(
            Partition("checkpoints", 0),
            announce("published", second, "u", 0).encode(),
            timestamp_ms=0,
        )
        wait(lambda: replica.served.version == second.name)


def test_a_topic_that_is_made_later_is_heard(root, catalogue, train):
    log = MemoryLog(lambda: 0)
    with Replica(root, "clicks", FAST, log=log) as replica:
        assert replica._reader is None
        log.create("checkpoints", 1)
        wait(lambda: replica._reader is not None)


def test_a_reader_of_the_topic_that_cannot_be_closed_is_left_behind(root, caplog):
    log = MemoryLog(lambda: 0)
    log.create("checkpoints", 1)

    class Stuck:
        def poll(self, *arguments):
            raise ValueError("a fault of the client")

        def close(self):
            raise RuntimeError("cannot be closed")

    replica = Replica(root, "clicks", FAST, log=log)
    replica._reader = stuck = Stuck()
    with replica:
        wait(lambda: replica._reader not in (None, stuck))
        assert replica.follows_within(60)
    assert "the reader of checkpoints cannot be closed" in caplog.text


@pytest.mark.parametrize("fallback", [2.0, -1.0, float("nan"), "0.1"])
def test_a_prior_that_is_no_probability_is_refused(root, fallback):
    with pytest.raises(ValueError, match=r"fallback = .*: allowed is 0 to 1"):
        Replica(root, "clicks", fallback=fallback)


def test_a_store_may_be_given_as_a_path(tmp_path, catalogue, train):
    made = train(catalogue, 0, ROWS)
    with Replica(tmp_path, "clicks", FAST) as replica:
        assert replica.served.version == made.name


def test_an_operator_rolls_serving_back_holds_it_and_lifts_it(root, catalogue, train):
    names = [train(catalogue, n, ROWS).name for n in range(3)]
    with Replica(root, "clicks", FAST) as replica:
        said = restore(catalogue, "1", "calibration", now_ms=5)
        assert (said.kind, said.name, said.reason) == ("rolled_back", names[1], "calibration")
        wait(lambda: replica.served.version == names[1])
        names.append(train(catalogue, 3, ROWS).name)
        lines = {line.number: line for line in list_checkpoints(catalogue)}
        assert lines[1].marks == ("held", "served")
        assert lines[3].marks == ("head",)
        assert replica.describe()["held"] == {"name": names[1], "reason": "calibration"}
        said = lift(catalogue, now_ms=6)
        assert (said.kind, said.number, said.revision) == ("lifted", 3, 2)
        wait(lambda: replica.served.version == names[3])
        assert lift(catalogue, now_ms=7) is None


def test_what_is_not_whole_is_not_restored(catalogue, train):
    train(catalogue, 0, ROWS)
    bad = train(catalogue, 1, ROWS, outcome="rejected")
    with pytest.raises(ValueError, match="complete ones are 00000000-c, 00000001-c"):
        restore(catalogue, "7", "", 0)
    catalogue.files.delete(f"clicks/{bad.name}/part-1.safetensors")
    for action in (
        lambda: restore(catalogue, "1", "", 0),
        lambda: restore_training(catalogue, bad.name),
    ):
        with pytest.raises(Damaged, match=r"part-1.safetensors: missing"):
            action()
    assert restore_training(catalogue, "0").number == 0
    assert find(catalogue, "head").number == 0
    assert [line.state for line in list_checkpoints(catalogue)] == ["published", "rejected"]


# --- HTTP
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def server(root, catalogue, train):
    train(catalogue, 4, ROWS, step=0.5)
    config = ServingConfig(poll_ms=5, request_bytes_max=2_000, request_rows_max=10, requests_max=8)
    with Replica(root, "clicks", config) as replica, ReplicaServer(replica, config, 0) as server:
        yield server


def ask(server, path, body=None):
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{server.port}{path}", data, timeout=10
        ) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_predictions_over_http(server):
    status, body = ask(server, "/predict", {"rows": [*ROWS, {"item": "?"}]})
    answer = json.loads(body)
    assert status == 200
    assert answer["model_version"] == "00000004-c"
    assert answer["probabilities"][0] == pytest.approx(0.475, abs=1e-3)
    assert answer["probabilities"][1] == pytest.approx(0.25)
    _, columnar = ask(
        server, "/predict", {"columns": {"source": ["u1", None], "item": ["i1", "?"]}}
    )
    assert json.loads(columnar)["probabilities"] == answer["probabilities"]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/predict", b"{", 400, "not JSON"),
        ("/predict", {"rows": [{"item": 5}]}, 400, "row 0, item = 5"),
        ("/predict", {"rows": [{}] * 11}, 400, "at most 10"),
        ("/predict", b" " * 2_001, 413, "at most 2000"),
        ("/nowhere", {"rows": []}, 404, "/predict"),
        ("/nowhere", None, 404, "/healthz"),
    ],
)
def test_bad_requests_are_answered_with_what_is_wrong(server, path, body, status, words):
    got, answer = ask(server, path, body)
    assert got == status
    assert words in json.loads(answer)["error"]


def test_a_full_house_says_so_at_once(server):
    server.admission.waiting_max = 0
    assert ask(server, "/predict", {"rows": []})[0] == 503
    assert ask(server, "/model")[0] == 200
    server.admission.waiting_max = 8
    assert ask(server, "/predict", {"rows": []})[0] == 200
    assert server.replica.metrics.shed._value.get() == 1


def test_a_failure_inside_is_said_and_the_next_request_is_answered(server, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("checkpointer.serving.serving.ServedModel.answer", lambda *_: 1 / 0)
        status, body = ask(server, "/predict", {"rows": ROWS})
    assert (status, "log" in json.loads(body)["error"]) == (500, True)
    assert ask(server, "/predict", {"rows": ROWS})[0] == 200


def test_a_connection_serves_many_requests_and_a_bad_one_leaves_nothing_behind(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for path, status in (
        ("/predict", 200),
        ("/predict", 200),
        ("/nowhere", 404),
        ("/predict", 200),
    ):
        connection.request("POST", path, json.dumps({"rows": ROWS}))
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


def test_what_is_served_is_told(server):
    model = json.loads(ask(server, "/model")[1])
    assert (model["model_version"], model["number"], model["vector"]) == (
        "00000004-c",
        4,
        {"label/0": 5},
    )
    told = {
        "status": "ok",
        "fallback": False,
        "model_version": "00000004-c",
        "fault": "",
        "failing_s": 0.0,
    }
    assert json.loads(ask(server, "/healthz")[1]) == told
    assert ask(server, "/readyz")[0] == 200
    ask(server, "/predict", {"rows": ROWS})
    text = ask(server, "/metrics")[1].decode()
    assert "everspun_served_version 4.0" in text
    assert 'everspun_replica_requests_total{path="/predict",status="200"} 1.0' in text
    assert "everspun_served_model_age_s" in text


def test_the_process_says_where_it_is_serves_and_drains(root, catalogue, train):
    train(catalogue, 4, ROWS)
    stop, role = threading.Event(), Path(root) / "run" / "roles" / "replica-1.json"
    process = threading.Thread(
        target=run,
        args=(Replica(root, "clicks", FAST), FAST, stop),
        kwargs={"run_dir": f"{root}/run", "index": 1},
    )
    process.start()
    wait(role.exists)
    ports = json.loads(role.read_text())
    for port in (ports["http_port"], ports["metrics_port"]):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert b"everspun_served_version 4.0" in answer.read()
    stop.set()
    process.join(timeout=30)
    assert not process.is_alive()


@pytest.mark.long
def test_a_request_holds_one_model_for_its_whole_life(server, catalogue, train):
    """Requests while checkpoints are swapped: every answer equals that of the version it names
    (I6)."""
    prior = 0.25 / 0.75
    wrong, seen, stop = [], set(), threading.Event()

    def requests():
        while not stop.is_set():
            body = json.loads(ask(server, "/predict", {"rows": ROWS * 3})[1])
            number = int(body["model_version"].split("-")[0])
            seen.add(number)
            odds = prior * 2.718281828459045 ** (2 * 0.5 if number == 4 else 2 * number / 10)
            if any(abs(p - odds / (1 + odds)) > 1e-5 for p in body["probabilities"]):
                wrong.append(body)

    threads = [threading.Thread(target=requests) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(5, 12):
        train(catalogue, number, ROWS, step=number / 10)
        wait(lambda number=number: server.replica.served.manifest.number == number)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(seen) > 2


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"root": None}, TypeError, "root = None: a folder or a URL is meant"),
        ({"root": ""}, ValueError, "root = '': a folder is meant"),
        ({"root": "~/ck"}, ValueError, "root = '~/ck': a folder is meant"),
        ({"config": {}}, TypeError, "config = {}: a ServingConfig is meant"),
        ({"log": "host:9092"}, TypeError, "log = 'host:9092': a log is meant"),
    ],
)
def test_what_a_replica_cannot_be_made_of_is_named(root, given, error, said):
    with pytest.raises(error, match=re.escape(said)):
        Replica(**({"root": root, "model": "clicks"} | given))


def test_a_replica_follows_by_one_thread_and_not_again_once_it_is_closed(root):
    replica = Replica(root, "clicks")
    with replica.start(), replica:
        names = [one.name for one in threading.enumerate()]
        assert names.count("replica of clicks") == 1
    with pytest.raises(RuntimeError, match="the replica is closed"):
        replica.start()


def test_what_follows_catalogues_begins_anew_in_a_fork(root, monkeypatch):
    replica, begun = Replica(root, "clicks"), []
    monkeypatch.setattr(replica.fills, "start", lambda: begun.append(1))
    with replica:
        replica._thread = threading.Thread()  # as it is in a child: not alive
        replica.predict_rows([{}])
        assert begun == [1, 1]
        replica._thread = threading.Thread()
        replica.start()
        assert begun == [1, 1, 1]
        assert replica.follows_within(60)
