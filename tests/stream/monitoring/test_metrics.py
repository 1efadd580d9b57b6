import json
import os
from pathlib import Path
from urllib.request import urlopen

import pytest

from stream.monitoring.metrics import RoleMetrics, start_metrics


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
