"""Every key of every section with values that it cannot have: one line that names section, key,
value and what is allowed, whoever reads it."""

import copy
import dataclasses
import math
import re
import typing
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from everspun.__main__ import main
from everspun.config import Config, ConfigError, parse
from everspun.config_values import path_fault, short
from everspun.hosts import ROLES
from everspun.roles import check_role
from learners import LearnerConfig, ModelConfig

#: Of a type of their own, too small, too large, of no end, of another type, of another shape.
WRONG: tuple[Any, ...] = (
    "",
    "nonsense",
    "a b/c\n",
    -1,
    0,
    1 << 40,
    1 << 70,
    -0.5,
    1e308,
    math.nan,
    -math.inf,
    True,
    [],
    [1],
    [""],
    ["nonsense"],
    {},
    {"nonsense": 1},
    {"nonsense": "x"},
    date(2026, 1, 1),
)
#: Whose value is shown nowhere.
SECRET = "hash_secret"
#: Sections from which a role reads more than each key alone.
LINKED = ("features", "model", "learners", "stream", "fraud", "breaker")


def sections() -> Iterator[tuple[str, bool, type]]:
    """Its name, whether tables with names of their own stand in it, and what it is read into."""
    hints = typing.get_type_hints(Config)
    for one in dataclasses.fields(Config):
        kind = hints[one.name]
        several = typing.get_origin(kind) is dict
        yield one.name, several, typing.get_args(kind)[1] if several else kind


def trees() -> Iterator[tuple[str, str, Any, dict[str, Any]]]:
    """Section, key, value, and what a file says that has nothing else but what a breaker needs."""
    for section, several, kind in sections():
        for key in dataclasses.fields(kind):
            for value in WRONG:
                inner = {key.name: copy.deepcopy(value)}
                tree = {section: {"f": inner} if several else inner}
                tree.setdefault("stream", {}).setdefault("release_ms", 9_000_000)
                yield section, key.name, value, tree


def shown(value: Any) -> set[str]:
    """How a line may show it: itself, as it is kept, or what in it is wrong."""
    found = {short(value), repr(value), str(value)}
    if isinstance(value, bool):
        found.add(str(value).lower())
    elif isinstance(value, int):
        found.add(repr(float(value)))
    if isinstance(value, str):
        found.add(repr(value.strip()))
    if isinstance(value, dict):  # names of a user's own stand in the key
        found |= {f".{name}" for name in value} | set(map(repr, value))
    if isinstance(value, list):
        found |= set(map(repr, value))
    return found


def unclear(line: str, section: str, key: str, value: Any) -> str:
    """What is missing in it; "" = nothing."""
    if "\n" in line:
        return "one line"
    if key == SECRET:
        return "no secret" if f"= {value}" in line or repr(value) in line else ""
    wanted = {"section": {section}, "key": {key}, "value": shown(value)}
    missing = [name for name, texts in wanted.items() if not any(one in line for one in texts)]
    said = re.search(r": .{3,}|expected|allowed|must be|known|needs", line)
    return ", ".join(missing + ([] if said else ["what is allowed"]))


def test_every_key_says_what_is_wrong_with_its_value():
    unsaid = []
    for section, key, value, tree in trees():
        where = f"{section}.{key} = {short(value)}"
        try:
            read = parse(tree)
            for role in ROLES if section in LINKED else ():
                check_role(read, role)
        except ConfigError as error:
            if lacks := unclear(str(error), section, key, value):
                unsaid.append(f"{where}: lacks {lacks}: {error}")
        except Exception as error:
            unsaid.append(f"{where}: {error!r}")
    assert not unsaid, "\n".join([f"{len(unsaid)} of them:", *unsaid])


@pytest.mark.parametrize("shape", ["nonsense", 5, math.nan, [], [{}], date(2026, 1, 1)])
def test_a_section_that_is_no_table_and_a_key_that_is_none(shape: Any):
    for section, several, _ in sections():
        with pytest.raises(ConfigError, match=rf"{section}.*{re.escape(short(shape))}|{section}.*"):
            parse({section: shape})
        inner = {"nonsense_key": shape}
        with pytest.raises(ConfigError, match=rf"'{section}\..*nonsense_key'; (known|did)"):
            parse({section: {"f": inner} if several else inner})


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"run": {"turn_max_s": 1e12}}, "at most 2147483"),
        ({"labeler": {"poll_ms": 1 << 40}}, "at most 2147483647"),
        ({"stream": {"fetch_bytes_max": 1 << 40}}, "up to 2147483647"),
        ({"stream": {"replication": 40_000}}, "up to 32767"),
        ({"fraud": {"flood_known_views_min": -1}}, "0 or more"),
        ({"replay": {"limit": -1}}, "0 (all) or more"),
        ({"serving": {"catalogue_bytes_max": -1}}, "1 or more"),
        ({"breaker": {"cell_ms": 70_000}}, "divisors of a day"),
        ({"breaker": {"cell_ms": 1}}, "at most 1000000 cells"),
        ({"paramserver": {"addresses": ["a"]}}, "allowed is host:port"),
        ({"paramserver": {"control_threads": 1 << 40}}, "2 to 1024"),
        ({"model": {"dim": 1 << 40}}, "1 to 65536"),
        ({"hosts": {"answering": {"shard": "a:²"}}}, "answering.shard = 'a:²': expected host:port"),
        ({"run": {"metrics_host": ""}}, "[run] metrics_host = '': name an address; '0.0.0.0' is"),
        ({"serving": {"host": ""}}, "[serving] host = '': name an address; '0.0.0.0' is every"),
        ({"paramserver": {"host": " "}}, "[paramserver] host = ' ': name an address; '0.0.0.0'"),
    ],
)
def test_what_no_process_could_serve_is_refused(tree: dict[str, dict[str, Any]], said: str):
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse(tree)


TCP = {"transport": "tcp"}


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"paramserver": TCP | {"port": 65_535}}, "paramserver.port = 65535: shard:1 would take"),
        ({"paramserver": TCP | {"port": 65_535}}, "port 65536; allowed is up to 65534"),
        ({"paramserver": TCP | {"lane_port": 65_535}}, "paramserver.lane_port = 65535: shard:1"),
        ({"paramserver": TCP | {"lane_port": 7_711}}, "lane_port = 7711: port has it"),
        (
            {"paramserver": TCP | {"lane_port": 7_712}},
            "paramserver.port = 7711: shard:1 would take port 7712, which paramserver.lane_port = "
            "7712 gives to shard:0; choose another",
        ),
        ({"run": {"replicas": 2}, "serving": {"port": 65_535}}, "serving.port = 65535: replica:1"),
        ({"serving": {"port": 8_080, "grpc_port": 8_080}}, "grpc_port = 8080: port has it"),
        (
            {"run": {"replicas": 3}, "serving": {"port": 8_080, "grpc_port": 8_081}},
            "serving.port = 8080: replica:1 would take port 8081, which serving.grpc_port = 8081",
        ),
        (
            {"run": {"metrics_port": 9_400}, "serving": {"port": 10_200}},
            "run.metrics_port = 9400: replica:0 would take port 10200, which serving.port = 10200",
        ),
        (
            {"run": {"metrics_port": 9_400}, "serving": {"port": 10_300}},
            "run.metrics_port = 9400: launcher:0 would take port 10300, which serving.port",
        ),
        (
            {"run": {"metrics_port": 7_712}, "paramserver": TCP},
            "paramserver.port = 7711: shard:1 would take port 7712, which run.metrics_port = 7712",
        ),
        ({"paramserver": TCP, "serving": {"port": 7_712}}, "serving.port = 7712: replica:0"),
        ({"run": {"metrics_port": 9_400, "shards": 101}}, "shard:100: run.metrics_port = 9400"),
    ],
)
def test_ports_beyond_the_last_or_taken_twice(tree: dict[str, dict[str, Any]], said: str):
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse(tree)


def test_ports_that_nobody_takes_are_not_asked_for():
    """Of sockets, of roles that do not run, of addresses and of pods of their own."""
    everywhere = {"port": 7_711, "lane_port": 7_712}
    for tree in (
        {"paramserver": {"port": 65_535}},
        {"paramserver": everywhere},
        {"paramserver": TCP | everywhere | {"lanes": False}},
        {"run": {"replicas": 0}, "paramserver": TCP, "serving": {"port": 7_711}},
        {"paramserver": TCP, "serving": {"port": 7_712, "host": "127.0.0.2"}},
        {"paramserver": TCP | {"addresses": ["a:7711", "b:7712"]}, "serving": {"port": 7_711}},
        {
            "run": {"metrics_port": 9_400, "metrics_port_each": False, "replicas": 3},
            "paramserver": TCP,
            "serving": {"port": 7_711},
        },
    ):
        parse(tree)


@pytest.mark.parametrize("section", ["checkpointer", "archive"])
@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("s3:/bucket/shop", "a URL such as 's3://bucket/shop'"),
        ("s3:bucket", "a URL such as 's3://bucket'"),
        ("S3://bucket", "a URL such as 's3://bucket'"),
        ("file:/tmp/x", "a URL such as 'file:///tmp/x'"),
    ],
)
def test_no_root_is_taken_for_a_folder_that_is_none(section: str, root: str, said: str):
    with pytest.raises(ConfigError, match=re.escape(f"[{section}] root = {root!r}: ")) as error:
        parse({section: {"root": root}})
    assert said in str(error.value)


PATHS = [
    "run.dir",
    "run.hash_secret_file",
    "stream.ssl_cafile",
    "registry.token_file",
    "paramserver.cert",
    "paramserver.key",
    "paramserver.ca",
    "checkpointer.root",
    "checkpointer.golden",
    "archive.root",
    "serving.tls_key_file",
]


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize("path", ["~/x", "~ann/x", "$HOME/x", "/x\n", " s3://b/x", "/x\ny"])
def test_no_path_is_taken_as_it_is_typed_for_a_shell(key: str, path: str):
    section, _, name = key.partition(".")
    with pytest.raises(ConfigError, match=rf"^{key} = .*: .*; expected the .*path"):
        parse({section: {name: path}})


def test_every_key_that_names_a_file_is_a_path():
    """But those of [replay], which somebody at a desk types."""
    words = re.compile(r"(or a |PEM |JSON-lines )?(file|folder|directory) (of|with|or) ")
    keys = [
        f"{section}.{key.name}"
        for section, _, kind in sections()
        for key in dataclasses.fields(kind)
        if section != "replay" and words.match(key.metadata.get("help", ""))
    ]
    assert len(keys) > len(PATHS)
    assert all(path_fault(key, "~/x") for key in (*keys, *PATHS))


@pytest.mark.parametrize("root", ["s3://b/x", "file:///tmp/x", "/a:b", "a/b:c", "./s3:b"])
def test_other_roots_are_taken(root: str):
    assert parse({"checkpointer": {"root": root}}).checkpointer.root == root


@pytest.mark.parametrize(
    ("role", "text", "said"),
    [
        ("breaker", "", "stream.release_ms = 0: with a breaker"),
        (
            "breaker",
            '[stream]\nrelease_ms = 9000000\n[breaker]\nslices = ["x"]\n',
            "breaker.slices",
        ),
        (
            "breaker",
            "[breaker]\nmissing = {f = 2.0}\n[stream]\nrelease_ms = 9000000\n",
            "missing.f",
        ),
        ("fraud", "[run]\nfraud = 0\n[fraud]\nsettle_ms = 99999999\n", "fraud.settle_ms"),
        ("learner", '[model]\ntable_storage = "x"\n', "model.table_storage"),
        ("checkpointer", '[learners]\nslices = ["x"]\n', "learners.slices = ['x']"),
    ],
)
def test_a_role_says_it_in_a_line(
    role: str, text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "x.toml"
    path.write_text(f'{text}\n[run]\ndir = "{tmp_path}"\n' if "[run]" not in text else text)
    assert main(["role", role, "-c", str(path)]) == 2
    line = capsys.readouterr().err
    assert line.startswith("everspun: config: ")
    assert said in line
    assert line.count("\n") == 1


def test_settings_of_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = ModelConfig(kind="dcn", categorical=("item",))
    config = Config(model=model, learners=LearnerConfig(device="cuda"))
    with pytest.raises(ConfigError, match=r"\[learners\] device = 'cuda'"):
        check_role(config, "learner")
