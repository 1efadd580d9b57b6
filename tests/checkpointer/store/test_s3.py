"""A replica on S3: what idle polling costs, and an outage."""

import logging
import os
import threading
import urllib.request
from collections import Counter
from functools import partial

import pytest

from checkpointer.config import ServingConfig
from checkpointer.serving import Replica
from checkpointer.store.catalogue import Catalogue
from checkpointer.store.files import StoreFault
from checkpointer.store.fsspec_store import open_store
from checkpointer.store.timed_store import StoreTimeouts
from paramserver.server.state_dir import _write_file

s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

ROWS = [{"source": "u1", "item": "i1"}]
ROOT = "s3://bucket/shop"


class Requests(logging.Handler):
    """Counts what the server logs, by method and whether it lists."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def emit(self, record):
        line = record.getMessage()
        for method in ("GET", "HEAD", "PUT"):
            if f"{method} /" in line:
                self.counts["LIST" if "list-type" in line else method] += 1


@pytest.fixture
def server(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    started = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    started.start()
    _, port = started.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    s3fs.S3FileSystem.clear_instance_cache()  # of another server
    for path, method in (("moto-api/reset", "POST"), ("bucket", "PUT")):
        url = f"http://127.0.0.1:{port}/{path}"
        urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10)
    yield started, port
    started.stop()


def wait(reached):
    for _ in range(12_000):
        if reached():
            return
        threading.Event().wait(0.005)
    raise AssertionError("never")


@pytest.mark.processes
def test_on_s3_idle_looks_list_nothing_and_an_outage_is_followed_by_following(server, train):
    started, port = server
    catalogue = Catalogue(open_store(ROOT), "clicks")
    train(catalogue, 0, ROWS)
    log, requests = logging.getLogger("werkzeug"), Requests()
    log.addHandler(requests)
    log.setLevel(logging.INFO)
    config = ServingConfig(poll_ms=20, store_timeout_ms=1_000)
    with Replica(ROOT, "clicks", config) as replica:
        assert replica.served.version == "00000000-c"
        wait(lambda: requests.counts["GET"])
        requests.counts.clear()
        wait(lambda: requests.counts["GET"] > 20)
        assert requests.counts["LIST"] == requests.counts["HEAD"] == 0
        log.removeHandler(requests)
        started.stop()
        wait(lambda: replica.following.fault)
        assert replica.predict_rows(ROWS)["model_version"] == "00000000-c"
        again = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=port)
        again.start()
        second = train(catalogue, 1, ROWS)
        wait(lambda: replica.served.version == second.name)
        wait(lambda: not replica.following.fault)
        again.stop()


def buckets(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return answer.read().decode().count("<Bucket>")


@pytest.mark.processes
def test_a_bucket_that_is_not_there_is_a_fault_of_the_store_and_is_not_made(server):
    _, port = server
    assert buckets(port) == 1
    for root in ("s3://buckett/shop", "s3://buckett"):
        store = open_store(root, StoreTimeouts(120_000))
        catalogue = Catalogue(store, "clicks")
        for ask in (catalogue.names, catalogue.published, catalogue.head, partial(store.below, "")):
            with pytest.raises(StoreFault, match=r"s3://buckett.*: there is no such bucket"):
                ask()
        with pytest.raises(StoreFault, match="there is no such bucket"):
            store.write("clicks/begin.json", b"{}")
        with pytest.raises(StoreFault, match="there is no such bucket"):
            store.read("clicks/00000000-a/part-0.safetensors")
    with pytest.raises(OSError, match="bucket does not exist"):
        _write_file("s3://buckett/shop/clicks/part-0.safetensors", [memoryview(b"abc")])
    assert buckets(port) == 1
    store = open_store(ROOT, StoreTimeouts(120_000))
    assert Catalogue(store, "clicks").published() is None
    store.write("clicks/begin.json", b"{}")
    assert store.names("clicks") == store.below("clicks")[0].split("/")[1:] == ["begin.json"]
    _write_file(f"{ROOT}/clicks/part-0.safetensors", [memoryview(b"abc")])
    assert store.read("clicks/part-0.safetensors") == b"abc"


def test_the_child_of_a_fork_has_connections_of_its_own(server):
    store = open_store(ROOT)
    store.write("a.json", b"1")
    child = os.fork()
    if not child:
        os._exit(int(store.read("a.json") != b"1"))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert store.read("a.json") == b"1"
