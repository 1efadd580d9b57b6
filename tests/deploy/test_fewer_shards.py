"""The chart ends no pod of a shard before its slots have moved, as the cluster says which there
are."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import yaml

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "everspun"
NAMESPACED = {"name": "statefulsets", "namespaced": True, "kind": "StatefulSet", "verbs": ["get"]}
APPS = {"groupVersion": "apps/v1", "version": "v1"}
ANSWERS: dict[str, Any] = {
    "/version": {"major": "1", "minor": "30", "gitVersion": "v1.30.0"},
    "/api": {"kind": "APIVersions", "versions": []},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": "apps", "versions": [APPS], "preferredVersion": APPS}],
    },
    "/apis/apps/v1": {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": "apps/v1",
        "resources": [NAMESPACED],
    },
    "/apis/apps/v1/namespaces/default/statefulsets/shop-shard": {
        "kind": "StatefulSet",
        "apiVersion": "apps/v1",
        "metadata": {"name": "shop-shard", "annotations": {"everspun/shards-count": "4"}},
        "spec": {"replicas": 4},
    },
}
Upgrade = Callable[[str], subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(
    which("helm") is None,
    reason="no helm on the path: go install helm.sh/helm/v3/cmd/helm@v3.17.3",
)


class Cluster(BaseHTTPRequestHandler):
    """Says what helm asks of a cluster in which four shards run."""

    def do_GET(self) -> None:
        said = ANSWERS.get(self.path.partition("?")[0])
        body = json.dumps(said or {"kind": "Status", "status": "Failure", "code": 404}).encode()
        self.send_response(404 if said is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def upgrade(tmp_path: Path) -> Iterator[Upgrade]:
    """Renders the chart with values, as for that cluster."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Cluster)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()

    def render(values: str) -> subprocess.CompletedProcess[str]:
        command = ["helm", "template", "shop", str(CHART), "--dry-run=server", "--set", values]
        command += ["--kube-version", "1.30.0", "--kube-apiserver"]
        command += [f"http://127.0.0.1:{server.server_port}"]
        environment = {"HOME": str(tmp_path), "PATH": str(Path(which("helm") or "").parent)}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=120
        )

    yield render
    server.shutdown()
    server.server_close()
    serving.join()


def replicas(done: subprocess.CompletedProcess[str]) -> int:
    assert done.returncode == 0, done.stderr
    found = [one for one in yaml.safe_load_all(done.stdout) if one]
    (shards,) = (one for one in found if one["kind"] == "StatefulSet")
    assert shards["metadata"]["annotations"]["everspun/shards-count"] == "2"
    return int(shards["spec"]["replicas"])


def test_with_a_lower_count_the_pods_that_there_are_stay(upgrade: Upgrade):
    assert replicas(upgrade("shards.count=2")) == 4
    assert replicas(upgrade("shards.count=2,shards.pods=5")) == 5


def test_pods_go_no_sooner_than_the_upgrade_after(upgrade: Upgrade, monkeypatch):
    refused = upgrade("shards.count=2,shards.pods=3")
    assert refused.returncode != 0
    assert "shards.pods = 3: the release before has shards.count = 4; lower" in refused.stderr
    place = "/apis/apps/v1/namespaces/default/statefulsets/shop-shard"
    lowered = {"name": "shop-shard", "annotations": {"everspun/shards-count": "2"}}
    monkeypatch.setitem(ANSWERS, place, ANSWERS[place] | {"metadata": lowered})
    assert replicas(upgrade("shards.count=2,shards.pods=2")) == 2
