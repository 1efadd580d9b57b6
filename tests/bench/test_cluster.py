"""What `bench.cluster` writes for its hosts is a configuration that places every process once."""

import dataclasses
import tomllib
from pathlib import Path

from bench.hosts.cluster import HOSTS, LOOPBACK, ROLES, STANDING_MS, cluster_text, table
from everspun import loads
from everspun.hosts import ROLES as ALL_ROLES
from everspun.roles import check_model
from everspun.status import configured_places


def test_a_table_is_toml():
    assert tomllib.loads(f"x = {table(ROLES)}")["x"] == ROLES


def test_the_configuration_places_every_role(tmp_path: Path):
    addresses = {name: f"10.77.0.{n}" for n, name in enumerate(HOSTS, 1)}
    kafka = {"bootstrap_servers": "10.77.0.1:9092", "replication": 3}
    text = cluster_text(tmp_path, addresses, "10.77.0.254", 22_000, 6_000, kafka)
    config = loads(text)
    check_model(config)
    found = configured_places(config, {})
    assert {name.rpartition("-")[0] for name in found} == set(ALL_ROLES) - {"breaker"}
    assert {place.host for place in found.values()} == set(HOSTS)


def test_loopback_is_the_same_pipeline(tmp_path: Path):
    addresses = dict.fromkeys(HOSTS, "10.77.0.1")
    kafka = {"replication": 3}
    far = loads(cluster_text(tmp_path, addresses, "10.77.0.254", 22_000, STANDING_MS, kafka))
    near = loads(LOOPBACK)
    for section in ("fraud", "model", "governor", "labeler", "learners", "serving"):
        assert getattr(near, section) == getattr(far, section)
    assert dataclasses.replace(near.stream, replication=3) == far.stream
