"""A replica on S3: what idle polling costs, and an outage."""

import logging
import threading
import urllib.request
from collections import Counter

import pytest

from checkpointer.config import ServingConfig
from checkpointer.serving import Replica
from checkpointer.store.catalogue import Catalogue
from checkpointer.store.fsspec_store import open_store

pytest.importorskip("s3fs")
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
    urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT"), timeout=10
    )
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
