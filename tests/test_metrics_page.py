"""docs/metrics.md names every series that the roles export, with its type, labels and unit, and
no other."""

import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from checkpointer.metrics import ArchiverMetrics, CheckpointerMetrics, ReplicaMetrics
from everspun.launcher import LauncherMetrics
from labeler.breaker.metrics import BreakerMetrics
from labeler.fraud.metrics import FraudMetrics
from labeler.process.metrics import LabelerMetrics
from learners.governor import GovernorMetrics
from learners.process import LearnerMetrics
from paramserver.server import Metrics as ShardMetrics
from stream import RoleMetrics


class Launched(LauncherMetrics):
    """The page's test makes each without arguments."""

    def __init__(self) -> None:
        super().__init__(lambda: {"processes": {}, "troubles": [], "stream": {}})


PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
ALERTS = PAGE.parents[1] / "deploy" / "monitoring" / "alerts.yml"
ROLES = {
    "Every role": RoleMetrics,
    "Launcher": Launched,
    "Replica": ReplicaMetrics,
    "Labeler": LabelerMetrics,
    "Fraud filter": FraudMetrics,
    "Breaker": BreakerMetrics,
    "Learner": LearnerMetrics,
    "Governor": GovernorMetrics,
    "Shard": ShardMetrics,
    "Checkpointer": CheckpointerMetrics,
    "Archiver": ArchiverMetrics,
}
#: The unit of a series is its name's ending.
UNITS = {
    "_ms": "ms",
    "_s": "s",
    "_seconds": "s",
    "_bytes": "bytes",
    "_share": "share",
    "_rows": "rows",
}


def exported(registry: CollectorRegistry) -> set[tuple[str, str, str]]:
    """(name, type, labels) of every series, as `/metrics` shows them."""
    found = set()
    for collector in registry._collector_to_names:
        (family,) = collector.collect()
        name = family.name + ("_total" if family.type == "counter" else "")
        found.add((name, family.type, ", ".join(collector._labelnames)))
    return found


def page() -> dict[str, list[tuple[str, str, str, str]]]:
    """Section -> (name, type, labels, unit) of each row of its table."""
    sections: dict[str, list[tuple[str, str, str, str]]] = {}
    rows: list[tuple[str, str, str, str]] = []
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            rows = sections.setdefault(line[3:].split(" (")[0], [])
        elif line.startswith("| `"):
            cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
            rows.append((cells[0], cells[1], cells[2], cells[3]))
    return sections


@pytest.mark.parametrize("section", ROLES)
def test_the_page_lists_what_the_role_exports(section: str):
    common = exported(RoleMetrics().registry)
    expected = exported(ROLES[section]().registry)
    assert common <= expected
    listed = [row[:3] for row in page()[section]]
    assert len(listed) == len(set(listed))
    assert set(listed) == (expected if section == "Every role" else expected - common)


def test_the_page_says_the_unit():
    for rows in page().values():
        for name, _, _, unit in rows:
            base = re.sub("_total$", "", name)
            ending = next((u for e, u in UNITS.items() if base.endswith(e)), None)
            assert unit, name
            assert ending is None or unit == ending, name


def test_served_model_age_stands_first():
    text = PAGE.read_text()
    assert re.findall("`(everspun_[a-z_]+)`", text)[0] == "everspun_served_model_age_s"


@pytest.mark.parametrize("name", ["alerts.yml", "grafana.json"])
def test_dashboard_and_alerts_name_series_that_exist(name: str):
    text = (PAGE.parents[1] / "deploy" / "monitoring" / name).read_text()
    used = set(re.findall(r"everspun_[a-z_]+", text))
    known = {series for rows in page().values() for series, *_ in rows}
    histograms = {
        f"{series}_bucket"
        for rows in page().values()
        for series, kind, *_ in rows
        if kind == "histogram"
    }
    assert used
    assert used <= known | histograms, f"not exported: {sorted(used - known - histograms)}"


def test_an_alert_has_a_name_of_its_own():
    named = Counter(re.findall(r"- alert: (\w+)", ALERTS.read_text()))
    assert named
    assert max(named.values()) == 1, named.most_common(3)


def test_an_alert_shows_labels_that_its_expression_leaves():
    """A label that no series has, or that an aggregation took away, says nothing in a message."""
    of_series = {
        name: set(filter(None, labels.split(", ")))
        for rows in page().values()
        for name, _, labels, _ in rows
    }
    for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]:
        query = rule["expr"]
        series = set(re.findall("everspun_[a-z_]+", query))
        known = {"process", "role", "job", "instance"}.union(*(of_series[name] for name in series))
        grouped = {
            label.strip()
            for by in re.findall(r"(?:by|on) \(([^)]*)\)", query)
            for label in by.split(",")
        }
        assert grouped | set(re.findall(r"[{,](\w+)[=!]", query)) <= known, rule["alert"]
        shown = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        aggregate = re.match(r"(abs\()?(sum|max|min|avg)\b", query.strip()) is not None
        assert shown <= (grouped if aggregate else known), rule["alert"]
        assert aggregate or not re.search(r"\bor (?!on\(\))", query), rule["alert"]


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool (Debian: package prometheus)"
)
def test_prometheus_accepts_the_alert_rules():
    done = subprocess.run(
        ["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_series_of_the_launcher_keep_the_name_of_the_process_that_they_are_about():
    """Else Prometheus gives them the name of the process that exports them."""
    assert "process" in {
        label for _, _, labels, _ in page()["Launcher"] for label in labels.split(", ")
    }
    assert "honor_labels: true" in ALERTS.with_name("prometheus.yml").read_text()


#: What Prometheus sees (values every 5 s) -> the alerts that fire a minute later, with the process
#: they are about.
SEEN: dict[str, tuple[dict[str, str], set[str]]] = {
    "all is well": ({"up": "1+0x12", "time": "1+5000x12", "down": "0+0x12"}, set()),
    "labels of one labeler stand": (
        {"up": "1+0x12", "time": "1+0x12", "down": "0+0x12"},
        {"LabelsStand"},
    ),
    "a role file says nothing": ({"time": "1+5000x12", "down": "0+0x12"}, {"ProcessUnseen"}),
    "a process does not answer": ({"up": "0+0x12", "down": "0+0x12"}, {"RoleGone"}),
    "a process is down": ({"up": "1+0x12", "time": "1+5000x12", "down": "1+0x12"}, {"ProcessDown"}),
}
SERIES = {
    "up": 'up{job="everspun", process="labeler-0", role="labeler"}',
    "time": 'everspun_data_time_ms{process="labeler-0", role="labeler"}',
    "down": 'everspun_launcher_processes_down{process="labeler-0", role="launcher"}',
}


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool (Debian: package prometheus)"
)
@pytest.mark.parametrize("what", SEEN)
def test_what_is_wrong_with_a_process_wakes_somebody_within_a_minute(what: str, tmp_path: Path):
    seen, alerts = SEEN[what]
    series = [{"series": SERIES[name], "values": values} for name, values in seen.items()]
    series.append(
        {
            "series": 'everspun_labeler_partitions{process="labeler-0", role="labeler"}',
            "values": "2+0x12",
        }
    )
    fire = [
        {"labels": f'{{alertname="{name}", process="labeler-0"}}', "value": 1}
        for name in sorted(alerts)
    ]
    asked = {
        "expr": 'count by (alertname, process) (ALERTS{alertstate="firing"})',
        "eval_time": "1m",
    }
    tests = [
        {
            "interval": "5s",
            "input_series": series,
            "promql_expr_test": [asked | {"exp_samples": fire}],
        }
    ]
    (tmp_path / "test.json").write_text(  # JSON is YAML
        json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "5s", "tests": tests})
    )
    command = ["promtool", "test", "rules", str(tmp_path / "test.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_groups_and_names_by_labels_that_exist():
    """A label that no series has, or that an aggregation took away, makes a panel that is empty
    or says nothing."""
    of_series = {
        name: set(filter(None, labels.split(", ")))
        for rows in page().values()
        for name, _, labels, _ in rows
    }
    dashboard = json.loads((PAGE.parents[1] / "deploy" / "monitoring" / "grafana.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for target in targets:
        query = target["expr"]
        series = {re.sub("_bucket$", "", name) for name in re.findall("everspun_[a-z_]+", query)}
        known = {"process", "role"}.union(
            *(of_series[name] for name in series)
        )  # these two: everspun/launcher/targets.py
        grouped = {
            label.strip() for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(",")
        } - {"le"}
        chosen = set(re.findall(r"[{,](\w+)[=!]", query))
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        is_aggregate = re.match(r"(sum|max|min|avg|histogram_quantile)\b", query) is not None
        assert grouped | chosen <= known, query
        assert shown <= (grouped if is_aggregate else known), target
