"""What the chart, the Compose file, the units and the image name exists in the product: commands,
options, variables, ports and paths."""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

import everspun
from checkpointer.serving import http_api
from everspun import Config, config
from everspun.__main__ import COMMANDS
from everspun.environment import OWN, variables
from everspun.hosts import ROLES
from stream.monitoring.metrics_server import MetricsServer

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
CHART = DEPLOY / "helm" / "everspun"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
#: Variables of others that processes are given.
OTHERS = {"XDG_CACHE_HOME", "POD_INDEX"}
KUBERNETES = "1.30.0"
#: Sets of values that the chart is rendered with.
VALUES = {
    "plain": (),
    "all": (
        "autoscaling.kind=keda",
        "monitoring.serviceMonitor=true",
        "monitoring.prometheusRule=true",
        "monitoring.dashboard=true",
        "secrets.kafka=kafka",
        "secrets.kafkaCa=kafka-ca",
        "secrets.environment=store",
        "extraEnv[0].name=EVERSPUN_STREAM_SECURITY_PROTOCOL",
        "extraEnv[0].value=SASL_SSL",
        "extraEnv[1].name=EVERSPUN_STREAM_SASL_MECHANISM",
        "extraEnv[1].value=SCRAM-SHA-512",
        *(f"roles.{role}.replicas=1" for role in ("breaker", "governor", "archiver")),
    ),
    "more shards": ("shards.count=4", "shards.initial=2", "autoscaling.kind=hpa"),
}
#: Kinds of operators, whose schemas Kubernetes does not have.
OF_OPERATORS = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}

needs_helm = pytest.mark.skipif(
    shutil.which("helm") is None,
    reason="no helm on the path: go install helm.sh/helm/v3/cmd/helm@v3.17.3",
)


def parsed(words: list[str]) -> argparse.Namespace:
    """The options that a command line of ours gives. Fails for one that there is not."""
    assert words[0] in COMMANDS, words
    module = import_module(COMMANDS[words[0]][0])
    parser = argparse.ArgumentParser(exit_on_error=False)
    module.arguments(parser)
    return parser.parse_args(words[1:])


def check_variables(names: set[str]) -> None:
    known = set(variables(Config)) | set(OWN) | OTHERS
    assert names
    assert names <= known, sorted(names - known)


@pytest.fixture(scope="module")
def watched() -> Iterator[MetricsServer]:
    server = MetricsServer("127.0.0.1", 0, "shard-0")
    yield server
    server.close()


def is_answered(server: MetricsServer, path: str) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10).close()
    except urllib.error.HTTPError as error:
        return error.code != 404
    return True


def rendered(values: tuple[str, ...]) -> list[dict[str, Any]]:
    command = ["helm", "template", "shop", str(CHART), "--kube-version", KUBERNETES]
    for value in values:
        command += ["--set", value]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, pod spec) of all that runs."""
    for one in objects:
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


# --- without helm
# --------------------------------------------------------------------------------------------------


def test_every_variable_that_is_named_is_a_key():
    names = set()
    for path in DEPLOY.rglob("*"):
        if (
            path.is_file()
            and path.suffix in (".yaml", ".tpl", ".service", "")
            and "broker" not in str(path)
        ):
            names |= set(re.findall(r"EVERSPUN_[A-Z0-9_]+", path.read_text()))
    check_variables(names - {"EVERSPUN_"})


def test_the_chart_has_every_role_and_its_values_keep_their_schema():
    jsonschema = pytest.importorskip("jsonschema")
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.validate(values, schema)
    assert {"shard", *values["roles"]} == set(ROLES)
    for key, wrong in (("shards", {"count": 0}), ("roles", {"learner": {"replicas": "two"}})):
        broken = values | {key: values[key] | wrong}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


def test_the_charts_alerts_and_dashboard_are_those_of_the_folder_monitoring():
    for name in ("alerts.yml", "grafana.json"):
        assert (CHART / "files" / name).resolve() == DEPLOY / "monitoring" / name


def test_compose_starts_commands_that_there_are(monkeypatch: pytest.MonkeyPatch):
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    ours = {name: one for name, one in services.items() if one["image"].startswith("everspun:")}
    assert set(ours) == {"topics", "everspun"}
    for one in ours.values():
        options = parsed(one["command"])
        assert one["read_only"]
        assert one["user"] == "10001:10001"
        for name, value in one["environment"].items():
            monkeypatch.setenv(name, value)
        mounts = [mount.split(":") for mount in one["volumes"]]
        source = next(m[0] for m in mounts if m[1] == str(options.config))
        read = config.load(COMPOSE.parent / source)
    port = read.run.port_of("launcher", 0)
    assert f"127.0.0.1:{port}/live" in str(ours["everspun"]["healthcheck"])
    assert ours["everspun"]["ports"] == [f"127.0.0.1:{read.serving.port}:{read.serving.port}"]


def test_the_broker_of_compose_writes_to_its_volume():
    kafka = yaml.safe_load(COMPOSE.read_text())["services"]["kafka"]
    (mount,) = kafka["volumes"]
    assert kafka["environment"]["KAFKA_LOG_DIRS"] == mount.partition(":")[2]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_a_command_that_there_is_and_is_well_formed(unit: Path, tmp_path: Path):
    text = unit.read_text().replace("%i", "shard:0")
    words = shlex.split(re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)[0])
    assert words[0] == "/opt/everspun/bin/everspun"
    assert parsed(words[1:]).config == Path("/etc/everspun/everspun.toml")
    check_variables(set(re.findall(r"^Environment=(\w+)=", text, re.MULTILINE)))
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    here = tmp_path / unit.name
    here.write_text(unit.read_text().replace(words[0], sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(here)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_image_has_what_it_copies_and_starts_what_there_is():
    root = DEPLOY.parent
    lines = (DEPLOY / "image" / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [
        source
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    assert copied
    assert [source for source in copied if not (root / source).exists()] == []
    allowed = (DEPLOY / "image" / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{source}" for source in copied} <= set(allowed)
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["10001:10001"]
    parsed(json.loads(next(line for line in lines if line.startswith("CMD "))[4:]))


# --- with helm
# --------------------------------------------------------------------------------------------------


@needs_helm
def test_helm_finds_nothing_wrong():
    done = subprocess.run(
        ["helm", "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_helm
@pytest.mark.parametrize("values", VALUES)
def test_what_the_chart_renders_keeps_the_schemas_of_kubernetes(values: str):
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    objects = rendered(VALUES[values])
    for one in objects:
        if one["kind"] not in OF_OPERATORS:
            validate.validate(one, KUBERNETES.rpartition(".")[0], strict=True)


@needs_helm
@pytest.mark.parametrize("values", VALUES)
def test_every_container_runs_a_command_with_a_configuration_that_is_one(
    values: str, tmp_path: Path
):
    objects = rendered(VALUES[values])
    text = next(
        one["data"]["everspun.toml"] for one in objects if "everspun.toml" in one.get("data", {})
    )
    path = tmp_path / "everspun.toml"
    path.write_text(text)
    started = set()
    for name, spec in pods(objects):
        (container,) = spec["containers"]
        words = [word.replace("$(POD_INDEX)", "0") for word in container["args"]]
        options = parsed(words)
        assert any(mount["mountPath"] == str(options.config) for mount in container["volumeMounts"])
        given = {one["name"]: one.get("value", "x" * 32) for one in container["env"]}
        check_variables(set(given))
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in given.items():
                patch.setenv(variable, value)
            read = config.load(path)
        assert read.run.port_of("learner", 77) == 9_400
        if words[0] == "role":
            started.add(options.role)
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert ports["metrics"] == read.run.metrics_port, name
            if options.role == "replica":
                assert ports["http"] == read.serving.port + options.index
    assert {"shard", "checkpointer", "labeler", "learner", "replica", "fraud"} <= started


@needs_helm
def test_every_probe_asks_a_path_that_is_answered(watched: MetricsServer):
    probes = 0
    replica_paths = set(re.findall(r'"(/\w+)": self\._', Path(http_api.__file__).read_text()))
    assert "/readyz" in replica_paths
    for name, spec in pods(rendered(VALUES["all"])):
        for container in spec["containers"]:
            named = {port["name"] for port in container.get("ports", ())}
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                if kind not in container:
                    assert name.endswith("-scale")
                    continue
                asked = container[kind]["httpGet"]
                assert asked["port"] in named
                if asked["port"] == "http":
                    assert asked["path"] in replica_paths
                else:
                    assert is_answered(watched, asked["path"])
                probes += 1
    assert probes == 3 * len(ROLES)
    assert not is_answered(watched, "/nowhere")


@needs_helm
def test_nothing_runs_as_root_writes_its_image_or_may_grow_without_bound():
    for _, spec in pods(rendered(VALUES["all"])):
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


@needs_helm
def test_shards_stand_by_for_a_larger_count_and_a_job_gives_the_word():
    objects = rendered(VALUES["more shards"])
    shards = next(one for one in objects if one["kind"] == "StatefulSet")
    job = next(one for one in objects if one["kind"] == "Job")
    assert shards["spec"]["replicas"] == 4
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"][:3] == ["shards", "scale", "4"]
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert env["EVERSPUN_RUN_SHARDS"] == "2"
    assert json.loads(env["EVERSPUN_PARAMSERVER_ADDRESSES"])[3] == "shop-shard-3.shop-shard:7714"
    policy = next(
        one
        for one in objects
        if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "shop-shard"
    )
    assert policy["spec"]["ingress"][0]["ports"] == [
        {"port": 7711, "endPort": 7714},
        {"port": 8811, "endPort": 8814},
    ]


def refusal(values: str, release: str = "shop") -> str:
    """What helm says of values that it refuses."""
    done = subprocess.run(
        ["helm", "template", release, str(CHART), "--kube-version", KUBERNETES, "--set", values],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    return done.stderr


@needs_helm
@pytest.mark.parametrize(
    "wrong",
    [
        "shards.count=0",
        "roles.checkpointer.replicas=2",
        "autoscaling.kind=x",
        "shardz.count=1",
        "extraEnv[0].name=EVERSPUN_X",
        "extraEnv[0].name=EVERSPUN_X,extraEnv[0].value=1",
        "extraEnv[0].name=a b,extraEnv[0].value=x",
        "extraEnv[0].name=a,extraEnv[0].valu=x",
        "imagePullSecrets[0]=x",
        "nodeSelector.gpu=true",
        "tolerations[0].operator=x",
        "networkPolicy.httpFrom[0]=x",
        "networkPolicy.metricsFrom[0].podselector.a=b",
        "monitoring.labels.a=1",
        "roles.labeler.resources.limits.memory=4 Gi",
        "shards.resources.requests.cpu=many",
        "secrets.kafka=Kafka_1",
        "image.tag=a b",
        "image.repository=a b",
        "autoscaling.prometheus=prometheus:9090",
    ],
)
def test_a_value_that_cannot_be_is_refused(wrong: str):
    assert "schema" in refusal(wrong)


@needs_helm
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("shards.pods=2,shards.count=4", "shards.pods = 2: fewer than the 4"),
        ("shards.pods=1,shards.initial=3", "shards.pods = 1: fewer than the 3"),
        ("autoscaling.kind=hpa,autoscaling.min=5", "autoscaling.min = 5: more than"),
        ("autoscaling.kind=keda,autoscaling.prometheus=", "autoscaling.prometheus is empty"),
        ("config= ", "config is empty"),
        ('config=[serving]\ntls_cert_file = "/x"', "config: serving.tls_cert_file: probes and"),
        ("config=serving = {grpc_port = 9000}", "config: serving.grpc_port: probes and services"),
        (
            "extraEnv[0].name=EVERSPUN_SERVING_GRPC_PORT,extraEnv[0].value=x",
            "extraEnv: EVERSPUN_SERVING_GRPC_PORT: probes and services",
        ),
        ("roles.labeler.resources.requests.memory=5Gi", "requests.memory = 5Gi: more than its"),
        ("shards.resources.limits.cpu=900m", "shards.resources.requests.cpu = 1: more than its"),
        ("ports.shard=65535", "ports.shard = 65535: with 2 pods it ends beyond 65535"),
        ("ports.lane=7712", "ports.lane and ports.shard: both take 7712"),
        ("ports.http=9400", "ports.http and ports.metrics: both take 9400"),
        ("extraEnv[0].name=EVERSPUN_RUN_DIR,extraEnv[0].value=/x", "EVERSPUN_RUN_DIR is the chart"),
        ("extraEnv[0].name=EVERSPUN_HASH_SECRET,extraEnv[0].value=x", "HASH_SECRET is the chart"),
    ],
)
def test_values_that_do_not_go_together_are_refused(wrong: str, said: str):
    assert said in refusal(wrong)


@needs_helm
@pytest.mark.parametrize("release", ["2shop", "my.shop"])
def test_a_release_that_names_no_service_is_refused(release: str):
    assert f"release name {release}: it names services" in refusal("shards.count=2", release)


def test_one_version_is_named_everywhere():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    images = {one["image"] for one in compose["services"].values() if "everspun:" in one["image"]}
    assert images == {f"everspun:{everspun.__version__}"}
    assert chart["appVersion"] == everspun.__version__
    named = re.findall(r"-t everspun:([\d.]+)", (DEPLOY / "image" / "Dockerfile").read_text())
    assert set(named) == {everspun.__version__}
