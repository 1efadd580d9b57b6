"""What `bench.cluster` writes for its hosts is a configuration that places every process once."""

import tomllib
from pathlib import Path

from bench.failures.cluster import CONFIG, HOSTS, ROLES, table
from everspun import loads
from everspun.hosts import ROLES as ALL_ROLES
from everspun.roles import check_model
from everspun.status import configured_places


def test_a_table_is_toml():
    assert tomllib.loads(f"x = {table(ROLES)}")["x"] == ROLES


def test_the_configuration_places_every_role(tmp_path: Path):
    addresses = {name: f"10.77.0.{n}" for n, name in enumerate(HOSTS, 1)}
    text = CONFIG.format(
        dir=tmp_path,
        own="10.77.0.254",
        metrics=22_000,
        port=21_000,
        addresses=table(addresses),
        roles=table(ROLES),
        kafka='bootstrap_servers = "10.77.0.254:9092"',
        shards='["10.77.0.1:21000", "10.77.0.2:21001"]',
    )
    config = loads(text)
    check_model(config)
    found = configured_places(config, {})
    assert {name.rpartition("-")[0] for name in found} == set(ALL_ROLES) - {"breaker"}
    assert {place.host for place in found.values()} == set(HOSTS)
