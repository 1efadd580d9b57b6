"""A whole system on a broker that enforces the least rights: every role does its work with those of
its own principal, and none is refused anything."""

import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from checkpointer.store import Catalogue, open_store
from everspun import OPERATOR, SITE, access, grants, load
from everspun.launcher import Broker, Launcher
from everspun.launcher.broker import why_not_kafka
from everspun.local_run import LocalRun
from everspun.roles import check_model
from everspun.status import scrape
from stream import Partition
from stream.log import KafkaLog, create_topics
from stream.log.security import PASSWORD
from stream.monitoring import TimeLimit
from stream.producer import EventProducer

sys.path.insert(0, str(Path(__file__).parents[1] / "stream"))
import secured_broker

pytestmark = [pytest.mark.kafka, pytest.mark.processes, pytest.mark.timeout(300)]
WAIT_S = 90.0
CONFIG = """
[run]
dir = "{dir}"
hash_secret_file = "{dir}/hash.secret"
shards = 1
learners = 1
breaker = 1
archivers = 1
[stream]
{stream}
partitions = 1
window_ms = 4_000
grace_ms = 500
release_ms = 10_000
dedup_ms = 60_000
skew_ms = 500
age_max_ms = 600_000
jump_max_ms = 60_000
heartbeat_ms = 500
signal_ms = 250
flush_ms = 500
counts_bucket_ms = 1_000
[features.rate]
kind = "counter"
of = "item"
half_life_ms = 60_000
[features.title]
kind = "text"
catalogue = "items"
[fraud]
cell_ms = 500
settle_ms = 500
window_ms = 5_000
[breaker]
slices = ["vendor"]
join_window_ms = 1_000
cell_ms = 1_000
settle_ms = 500
[model]
name = "shop"
kind = "lr"
categorical = ["item", "title"]
numeric = ["rate"]
[governor]
enabled = true
[checkpointer]
root = "{dir}/checkpoints"
interval_ms = 1_000
idle_interval_ms = 1_000
entropy_max = 0
[serving]
fallback = "popularity"
[archive]
root = "{archive}"
file_age_max_ms = 1_000
"""


def test_every_role_does_its_work_with_its_least_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if reason := why_not_kafka():
        pytest.fail(f"kafka broker: {reason}")
    monkeypatch.setenv(PASSWORD, secured_broker.PASSWORD)
    principals = tuple(access("shop"))
    secured = secured_broker.start(tmp_path / "kafka", principals, secured_broker.AUTHORIZER)
    try:
        settings = secured.settings("SCRAM-SHA-512") | {"sasl_username": "{role}"}
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
        path, dir = tmp_path / "everspun.toml", tmp_path / "run"
        path.write_text(CONFIG.format(stream=lines, dir=dir, archive=tmp_path / "archive"))
        config = load(path, (f'stream.sasl_username="{OPERATOR}"',))
        check_model(config)
        secured.grant(grants(config.stream, "shop", popularity=True))
        create_topics(config.stream)
        broker = Broker("address", str(settings["bootstrap_servers"]))
        dir.mkdir()
        (dir / "hash.secret").write_text("h" * 40)
        launcher = Launcher(path, config.run, governed=True)
        local = LocalRun(dir, path, config, broker, launcher)
        try:
            works(local, tmp_path / "archive")
        finally:
            local.stop()
    finally:
        secured.broker.stop()


def works(local: LocalRun, archive: Path) -> None:
    local.start()
    log = KafkaLog(replace(local.config.stream, sasl_username=SITE))
    site = EventProducer(log, local.config.stream, str)
    rows = log.writer()
    for item in range(20):
        rows.append(Partition("items", 0), b'{"title": "a hat"}', key=b"item-%d" % item)
    rows.flush(8_000)
    rows.close()
    numbers = itertools.count()

    def shop_until(done: Callable[[], bool], what: str) -> None:
        limit = TimeLimit(WAIT_S)
        while not done():
            local.launcher.raise_if_failed()
            assert not limit.over, f"{what}\n{words(local)}"
            show(site, numbers)
            time.sleep(0.1)

    shop_until(lambda: value(local, "replica-0", "everspun_served_version") >= 3, "no third model")
    shop_until(lambda: any(archive.rglob("*.parquet")), "nothing is archived")
    shop_until(lambda: _bands(local), "the breaker says nothing")
    site.close(8_000)
    newest = Catalogue(open_store(local.config.checkpointer.root), "shop").published()
    assert newest is not None
    assert not any(one.restarts for one in local.launcher.processes.values()), words(local)
    assert "uthoriz" not in words(local)


def _bands(local: LocalRun) -> bool:
    reader = local.log().reader()
    try:
        at = Partition(local.config.stream.tallies, 0)
        return reader.end_offsets([at])[at] > 0
    finally:
        reader.close()


def show(site: EventProducer, numbers: "itertools.count[int]") -> None:
    for number in itertools.islice(numbers, 20):
        event = {
            "id": str(number),
            "ts_ms": int(time.time() * 1_000),
            "session": f"s{number % 50}",
            "source": f"u{number % 50}",
            "vendor": f"v{number % 3}",
            "item": f"item-{number % 20}",
        }
        site.impression(event)
        if number % 5 == 0:
            site.click(event)


def value(local: LocalRun, role: str, name: str) -> float:
    found = scrape(local.dir).get(role)
    return -1.0 if found is None else found.value(name, -1.0)


def words(local: LocalRun) -> str:
    """The ends of all logs."""
    return "\n".join(
        f"--- {path.name}\n{path.read_text(errors='replace')[-1_500:]}"
        for path in sorted((local.dir / "logs").glob("*.log"))
    )
