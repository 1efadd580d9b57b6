"""Which host runs which process, and where the others find it."""

import inspect
from dataclasses import replace
from pathlib import Path

import pytest

from checkpointer import ServingConfig
from everspun.commands.system.role import index_of, refuse_beyond, refuse_second
from everspun.commands.system.run import placed
from everspun.config import Config, ConfigError, load
from everspun.hosts import ROLES, Placement, metrics_port, parse_roles
from everspun.launcher import AlreadyLocked, store_order
from everspun.launcher.stored_orders import stored_orders
from everspun.roles import roles
from everspun.status import configured_places, scrape_all, unanswered
from everspun.status.discovery import places
from stream import RoleMetrics
from stream.monitoring.metrics_server import MetricsServer

TWO_HOSTS = """
[run]
dir = "{dir}"
shards = 2
learners = 2
replicas = 0
metrics_port = {port}
[hosts.addresses]
a = "127.0.0.1"
b = "127.0.0.2"
[hosts.roles]
a = ["shard:0", "labeler", "learner:0", "checkpointer"]
b = ["shard:1-2", "learner:1", "fraud"]
[paramserver]
transport = "tcp"
addresses = ["127.0.0.1:7711", "127.0.0.2:7712", "127.0.0.2:7713"]
"""


def two_hosts(tmp_path: Path, text: str = TWO_HOSTS, port: int = 40_000) -> Config:
    path = tmp_path / "everspun.toml"
    path.write_text(text.replace("{dir}", str(tmp_path / "run")).replace("{port}", str(port)))
    return load(path)


def test_roles_are_chosen_by_index():
    assert parse_roles(["shard:0", "labeler:0-1", " learner", "shard:2"], "--roles") == {
        "shard": frozenset({0, 2}),
        "labeler": frozenset({0, 1}),
        "learner": None,
    }


@pytest.mark.parametrize(
    "item", ["", "shards", "shard:", "shard:-1", "shard:x", "shard:1-0", "shard:0:1", "shard:4096"]
)
def test_what_is_no_role_is_named(item: str):
    with pytest.raises(ValueError, match=f"--roles {item.strip()!r}"):
        parse_roles([item], "--roles")


def test_a_host_runs_what_the_table_says(tmp_path: Path):
    config = two_hosts(tmp_path)
    here = placed(config, None, "b")
    counts = config.counts()
    assert {role: here.indices(role, counts[role]) for role in ROLES if counts[role]} == {
        "shard": [1, 2],  # shard 2 stands by
        "checkpointer": [],
        "fraud": [0],
        "labeler": [],
        "learner": [1],
    }


def test_learners_beyond_the_table_are_dealt_out_and_stand_at_one_host_each(tmp_path: Path):
    config = two_hosts(tmp_path)
    hosts = {host: placed(config, None, host) for host in ("a", "b")}
    for count in range(1, 7):
        held = [index for one in hosts.values() for index in one.indices("learner", count)]
        assert sorted(held) == list(range(count))
        found = configured_places(config, {"learner": count})
        for index in range(count):
            assert index in hosts[found[f"learner-{index}"].host].indices("learner", count)
        assert sum(name.startswith("learner-") for name in found) == count


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"shard:1-2"', '"shard:0-2"', "shard:0 stands at 'a' and at 'b'"),
        ('"learner:0", ', "", "no host runs learner:0"),
        ('"learner:1"', '"learner:1-2"', r"learner:2 is beyond the 2 of \[run\]"),
        ('"shard:1-2"', '"shard:1-3"', r"shard:3 has no address; .*paramserver\.addresses"),
        ('a = "127.0.0.1"', 'c = "127.0.0.1"', r"roles\.a: has no address"),
        ('"127.0.0.2"\n[', '"127.0.0.2/x"\n[', "expected a name or an address"),
        ('"fraud"', '"frauds"', "'frauds': expected ROLE"),
        ('"fraud"', '"fraud", "replica"', r"roles\.b: replica: none is configured; run\.replicas"),
        ('b = "127.0.0.2"', 'b = "b.example"', r"run\.metrics_host = '127\.0\.0\.1' is reached"),
        ("metrics_port = 40000", "", r"set run\.metrics_port"),
        (
            "metrics_port = 40000",
            "metrics_port = 64636",
            r"is 0 \(any\) to 64635",
        ),
        ('transport = "tcp"', "", r"paramserver\.transport = 'unix' is reached from one host"),
        (
            '"127.0.0.1:7711"',
            '"127.0.0.2:7711"',
            r"names '127\.0\.0\.2:7711' for shard:0, which stands at '127\.0\.0\.1'",
        ),
        (
            '"127.0.0.2:7712"',
            '"127.0.0.2:7711"',
            r"'127\.0\.0\.2:7711' for shard:1, which listens on paramserver\.port \+ 1 = 7712; "
            r"expected '127\.0\.0\.2:7712'",
        ),
        (
            '"127.0.0.2:7713"',
            '"127.0.0.2:7712"',
            r"addresses = .*: '127\.0\.0\.2:7712' stands there twice; each shard has its own",
        ),
    ],
)
def test_a_table_that_cannot_be_is_named(tmp_path: Path, old: str, new: str, told: str):
    text = TWO_HOSTS.replace("{port}", "40000")
    assert old in text
    with pytest.raises(ConfigError, match=told):
        two_hosts(tmp_path, text.replace(old, new))


def test_a_host_that_the_table_does_not_know_says_what_to_do(tmp_path: Path):
    with pytest.raises(ValueError, match=r"this host is 'c'.*a, b.*--host.*--roles"):
        placed(two_hosts(tmp_path), None, "c")


@pytest.mark.parametrize(
    ("roles", "told"),
    [
        ("shard:3", r"shard:3: paramserver\.addresses names 3 shards, so its indices are 0 to 2"),
        ("labeler:0-1", r"labeler:1: \[run\] has 1 of this role, so its indices are 0 to 0"),
        ("replica:0", r"replica:0: .*its indices are none"),
        ("shard,learner:x", "'learner:x': expected ROLE"),
        ("replica", r"replica: none is configured; run\.replicas = 1 has one run, or leave"),
        ("labeler,archiver", r"archiver: none is configured; run\.archivers = 1"),
        ("breaker", r"breaker: none is configured; run\.breaker = 1"),
        ("governor", r"governor: none is configured; governor\.enabled = true"),
    ],
)
def test_an_index_beyond_the_map_is_refused_by_name(tmp_path: Path, roles: str, told: str):
    with pytest.raises(ValueError, match=told):
        placed(two_hosts(tmp_path), roles, None)


@pytest.mark.parametrize(
    ("text", "roles", "host", "told"),
    [
        ("", None, "zzz", r"--host 'zzz': the file has no \[hosts\] roles; say .* with --roles"),
        ("", "", None, "--roles '': it says nothing; a variable that is not set"),
        ("", "shard:0", "zzz", "--host 'zzz' with --roles 'shard:0': .* give one of them"),
        (TWO_HOSTS, "shard:0", "a", "--host 'a' with --roles 'shard:0'"),
        (TWO_HOSTS, None, "", "--host '': it says nothing"),
    ],
)
def test_words_that_would_be_passed_over_are_refused(
    tmp_path: Path, text: str, roles: str | None, host: str | None, told: str
):
    with pytest.raises(ValueError, match=told):
        placed(two_hosts(tmp_path, text), roles, host)


#: What only a host of its own says of itself is left out.
FAR = """
[run]
metrics_host = "0.0.0.0"
metrics_port = 40000
[hosts.addresses]
a = "a.example"
b = "b.example"
[hosts.roles]
a = ["shard:0", "labeler", "learner"]
b = ["shard:1", "checkpointer", "fraud", "replica"]
[paramserver]
transport = "tcp"
addresses = ["a.example:7711", "b.example:7712"]
"""
FENCED = {"cert": "x", "key": "x", "token_file": "x"}


def test_a_shard_that_only_its_own_host_reaches_is_refused_there(tmp_path: Path):
    config = two_hosts(tmp_path, FAR)
    told = r"paramserver\.host = '127\.0\.0\.1': shard:1 is called at 'b\.example:7712'"
    for start in (
        lambda: placed(config, None, "b"),
        lambda: placed(config, "shard:1", None),
        lambda: refuse_beyond(config, "shard", 1),
    ):
        with pytest.raises(ValueError, match=told):
            start()
    assert placed(config, "labeler", None).chosen == {"labeler": None}
    there = replace(config, paramserver=replace(config.paramserver, host="0.0.0.0", **FENCED))
    assert placed(there, None, "b").indices("shard", 2) == [1]
    refuse_beyond(there, "shard", 1)


def test_addresses_name_every_shard_that_runs(tmp_path: Path):
    text = '[paramserver]\ntransport = "tcp"\naddresses = ["127.0.0.1:7711"]\n'
    with pytest.raises(ValueError, match=r"run\.shards = 2: paramserver\.addresses names 1; name"):
        placed(two_hosts(tmp_path, text), None, None)
    assert placed(two_hosts(tmp_path, f"{text}[run]\nshards = 1\n"), None, None) == Placement()


def test_a_role_has_its_own_port_for_each_index():
    ports = {
        metrics_port(9_000, True, role, i) for role in (*ROLES, "launcher") for i in range(100)
    }
    assert len(ports) == (len(ROLES) + 1) * 100
    assert metrics_port(9_000, True, "shard", 3) == 9_003
    assert metrics_port(9_000, False, "learner", 77) == 9_000
    assert metrics_port(0, True, "learner", 77) == 0
    with pytest.raises(ValueError, match="learner:100"):
        metrics_port(9_000, True, "learner", 100)


def test_a_role_started_alone_refuses_an_index_without_a_place(tmp_path: Path):
    config = two_hosts(tmp_path)
    refuse_beyond(config, "shard", 2)
    with pytest.raises(ConfigError, match="names 3 shards, 0 to 2"):
        refuse_beyond(config, "shard", 3)
    with pytest.raises(ConfigError, match="--index -1: allowed is 0 to"):
        refuse_beyond(config, "labeler", -1)
    served = Config(serving=ServingConfig(port=65_534))
    refuse_beyond(served, "replica", 1)
    for index in (2, 1 << 30):
        with pytest.raises(ConfigError, match=rf"--index {index}: serving\.port = 65534"):
            refuse_beyond(served, "replica", index)


def test_a_process_of_an_orchestrator_has_an_index_of_its_own(tmp_path: Path):
    config = two_hosts(tmp_path)
    indices = [index_of("auto", f"everspun-learner-6d4f{i}-x") for i in range(500)]
    assert len(set(indices)) == len(indices)
    assert indices[7] == index_of("auto", "everspun-learner-6d4f7-x")
    assert index_of("3") == 3
    refuse_beyond(config, "learner", indices[0])
    with pytest.raises(ConfigError, match="--index auto: a shard's index"):
        refuse_beyond(config, "shard", indices[0])


@pytest.fixture
def elsewhere(tmp_path: Path):
    """A system on two hosts of which learner-1 answers at b. (config, its server)."""
    probe = MetricsServer("127.0.0.2", 0, "probe")
    probe.close()
    for port in range(20_000, 60_000, 1_500):
        config = two_hosts(tmp_path, port=port)
        try:
            server = MetricsServer("127.0.0.2", config.run.port_of("learner", 1), "learner-1")
        except OSError:
            continue
        yield config, server
        server.close()
        return


def test_the_same_role_elsewhere_is_refused_and_its_own_place_is_not(elsewhere):
    config, server = elsewhere
    with pytest.raises(
        AlreadyLocked, match=r"learner-1 runs already at 127\.0\.0\.2:\d+ \(host b\)"
    ):
        refuse_second(config, "learner", 1, "another start")
    refuse_second(config, "learner", 1, server.instance)
    refuse_second(config, "learner", 0, "another start")


def test_processes_of_other_hosts_are_found_and_missed_by_name(elsewhere):
    config, server = elsewhere
    metrics = RoleMetrics()
    metrics.records_in.inc(5)
    server.attach(metrics.registry, str)
    reports = scrape_all(config)
    assert reports["learner-1"].value("everspun_records_in_total") == 5
    missing = unanswered(config, reports)
    assert [line.split()[0] for line in missing] == sorted(
        set(configured_places(config)) - {"learner-1"}
    )
    assert all("everspun run --host" in line for line in missing)
    assert places(config)["learner-1"].host == "b"


def test_a_name_of_several_addresses_gives_each_process_its_own_name(tmp_path: Path):
    server = MetricsServer("127.0.0.1", 0, "learner-31")
    try:
        text = (
            f'[run]\ndir = "{tmp_path}"\n[hosts.answering]\nlearner = "localhost:{server.port}"\n'
        )
        config = two_hosts(tmp_path, text)
        server.attach(RoleMetrics().registry, str)
        assert set(scrape_all(config)) == {"learner-31"}
    finally:
        server.close()


class Files(dict[str, bytes]):
    def read(self, name: str) -> bytes | None:
        return self.get(name)

    def write(self, name: str, data: bytes) -> None:
        self[name] = data


def test_an_order_is_void_once_another_number_is_configured():
    store = Files()
    assert stored_orders(store, {"learner": 2}) == {}
    store_order(store, "learner", 5, configured=2)
    assert stored_orders(store, {"learner": 2}) == {"learner": 5}
    assert stored_orders(store, {"learner": 3}) == {}
    store_order(store, "learner", 1_025, configured=2)
    assert stored_orders(store, {"learner": 2}) == {}


@pytest.mark.parametrize("said", [b"", b"[]", b"{", b'{"learner": 3}', b'{"shard": {"count": 3}}'])
def test_an_order_that_says_nothing_is_none(said: bytes):
    assert stored_orders(Files({"scale.json": said}), {"learner": 2, "shard": 2}) == {}


def test_all_on_one_host_is_as_ever():
    assert Placement().indices("learner", 3) == [0, 1, 2]


def test_every_role_has_a_function_that_does_its_work():
    for role in ROLES:
        assert list(inspect.signature(getattr(roles, role)).parameters) == [
            "config",
            "index",
            "stop",
        ]
