import json
import os
import threading
from pathlib import Path
from urllib.request import urlopen

import pytest

from stream.monitoring.metrics import RoleMetrics, _write_role, start_metrics
from stream.monitoring.time_limit import TimeLimit


def test_the_role_file_says_where_the_series_are(tmp_path: Path):
    metrics = RoleMetrics()
    port = start_metrics(tmp_path, "labeler", 3, metrics, address="unix:/x")
    said = json.loads((tmp_path / "roles" / "labeler-3.json").read_text())
    assert said == {"pid": os.getpid(), "metrics_port": port, "address": "unix:/x"}
    metrics.records_in.inc(5)
    metrics.data_time_ms.set(7)
    metrics.waits_for("verdicts")
    text = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    for line in (
        "everspun_records_in_total 5.0",
        "everspun_records_out_total 0.0",
        "everspun_data_time_ms 7.0",
        'everspun_waiting{reason="verdicts"} 1.0',
        'everspun_waiting{reason="none"} 0.0',
    ):
        assert line in text.splitlines()


def test_roles_do_not_share_series():
    one, two = RoleMetrics(), RoleMetrics()
    one.records_in.inc()
    assert two.registry.get_sample_value("everspun_records_in_total") == 0


def test_an_unknown_reason_to_wait_is_refused():
    with pytest.raises(ValueError, match="lunch"):
        RoleMetrics().waits_for("lunch")


def test_a_role_file_that_cannot_be_written_keeps_no_role_from_starting(tmp_path):
    (tmp_path / "roles").write_text("no folder")
    port = start_metrics(tmp_path, "replica", 0, RoleMetrics(), http_port=1)
    assert port
    (tmp_path / "roles").unlink()
    limit, path = TimeLimit(60), tmp_path / "roles" / "replica-0.json"
    while not path.exists():
        assert not limit.over
        threading.Event().wait(0.05)
    assert json.loads(path.read_text())["metrics_port"] == port
    assert [one.name for one in path.parent.iterdir()] == ["replica-0.json"]


def test_a_role_file_that_is_half_written_is_not_left(tmp_path, monkeypatch):
    def full(path, text):
        path.write_bytes(b"{")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        _write_role(tmp_path / "roles" / "replica-0.json", "{}")
    assert not list((tmp_path / "roles").iterdir())
