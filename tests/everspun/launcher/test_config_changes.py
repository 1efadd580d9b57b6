"""What of a changed configuration a run takes while it goes on."""

import ast
import dataclasses
import tomllib
from pathlib import Path

import pytest

from checkpointer import CheckpointerConfig
from everspun.config import Config, loads
from everspun.hosts import ROLES
from everspun.launcher.config_changes import Plan, changes, plan, readers, while_running
from everspun.roles import roles

BEGUN = """
[run]
learners = 2
replicas = 1
[model]
categorical = ["source", "item"]
[features.genres]
kind = "list"
"""


def planned(after: str, before: str = BEGUN) -> Plan:
    return plan(loads(before), loads(after))


@pytest.mark.parametrize(
    ("section", "key", "value", "roles"),
    [
        ("learners", "drain_ms", "7000", ("learner", "governor")),
        ("serving", "poll_ms", "250", ("replica",)),
        ("checkpointer", "keep", "9", ("checkpointer",)),
        ("governor", "share_max", "0.25", ("governor",)),
        ("limits", "model_age_max_s", "60.0", ()),
        ("learners", "slices", '["vendor"]', ("learner", "governor")),
        (
            "archive",
            "read",
            "true",
            ("archiver", "checkpointer", "labeler", "learner", "governor"),
        ),
    ],
)
def test_what_may_start_again_is_taken(section: str, key: str, value: str, roles: tuple[str, ...]):
    found = planned(f"{BEGUN}[{section}]\n{key} = {value}\n")
    assert [change.key for change in found.taken] == [f"{section}.{key}"]
    assert found.restarted == roles
    assert not found.refused
    again = loads(BEGUN, [change.override for change in found.taken])
    assert again == loads(f"{BEGUN}[{section}]\n{key} = {value}\n"), "as an override it is the same"


@pytest.mark.parametrize("text", ["𠮷田", "😀", "é", "\x7f", "a\nb", '"\\', "\u2028"])
def test_a_taken_text_is_the_one_of_the_file(text: str):
    was, now = Config(), Config(checkpointer=CheckpointerConfig(golden=text))
    (change,) = plan(was, now).taken
    assert tomllib.loads(change.override) == {"checkpointer": {"golden": text}}


def test_counts_of_processes_are_taken_and_start_nobody_again():
    found = planned(BEGUN.replace("learners = 2", "learners = 3\nlabelers = 2"))
    assert found.counts == {"learners": 3, "labelers": 2}
    assert found.restarted == ()


@pytest.mark.parametrize(
    ("after", "key", "instead"),
    [
        (BEGUN + "[stream]\nwindow_ms = 7200000\n", "stream.window_ms", "start it again"),
        (BEGUN.replace("[run]", "[run]\nshards = 3"), "run.shards", "shards scale 3"),
        (BEGUN + "[paramserver]\nstaleness = 9\n", "paramserver.staleness", "staleness 9"),
        (BEGUN.replace('"item"]', '"vendor"]'), "model.categorical", "retrain"),
        (BEGUN.replace('"list"', '"text"'), "features.genres", "start it again"),
        (BEGUN + '[checkpointer]\nroot = "elsewhere"\n', "checkpointer.root", "copy"),
        (BEGUN + '[archive]\nroot = "elsewhere"\n', "archive.root", "copy"),
        (BEGUN + "[governor]\nenabled = true\n", "governor.enabled", "start it again"),
    ],
)
def test_what_would_make_processes_disagree_is_named_with_what_to_do(
    after: str, key: str, instead: str
):
    found = planned(after)
    assert found.taken == ()
    assert [one.change.key for one in found.refused] == [key]
    assert instead in str(found.refused[0])


def test_the_safe_part_of_a_file_is_taken_beside_what_is_not():
    found = planned(BEGUN.replace("learners = 2", "learners = 3\nshards = 5"))
    assert found.counts == {"learners": 3}
    assert [one.change.key for one in found.refused] == ["run.shards"]


def test_where_hosts_share_the_roles_counts_wait_for_a_start():
    hosts = BEGUN.replace("[run]", '[run]\nmetrics_port = 9000\nmetrics_host = "0.0.0.0"') + (
        '[hosts]\naddresses = {a = "127.0.0.1"}\n'
        'roles = {a = ["shard", "checkpointer", "fraud", "labeler", "learner", "replica"]}\n'
    )
    found = planned(hosts.replace("replicas = 1", "replicas = 2"), hosts)
    assert [one.change.key for one in found.refused] == ["run.replicas"]


def test_every_key_of_the_file_is_either_taken_or_named():
    """Of every section, whatever is added to it: a change is never passed over."""
    was = Config()
    for section in dataclasses.fields(Config):
        part = getattr(was, section.name)
        if not dataclasses.is_dataclass(part):
            continue
        for field in dataclasses.fields(part):
            now = dataclasses.replace(was)
            other = object.__new__(type(part))
            for one in dataclasses.fields(part):
                value = getattr(part, one.name)
                object.__setattr__(other, one.name, "other" if one is field else value)
            object.__setattr__(now, section.name, other)
            key = f"{section.name}.{field.name}"
            made = key in {"stream.declared", "stream.hash_secret", "model.declared"}
            assert [c.key for c in changes(was, now)] == ([] if made else [key])
            found = plan(was, now)
            assert len(found.taken) + len(found.refused) == (0 if made else 1)


def _read_by_roles() -> dict[str, set[str]]:
    """Section, or section.key where no more is read -> the roles whose wiring reads it."""
    tree = ast.parse(Path(str(roles.__file__)).read_text())
    functions = {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef)}

    def keys(name: str, seen: frozenset[str] = frozenset()) -> set[str]:
        found: set[str] = set()
        inner: set[int] = set()
        for node in ast.walk(functions[name]):
            if isinstance(node, ast.Name) and node.id in functions and node.id not in seen:
                found |= keys(node.id, seen | {name})
            if not isinstance(node, ast.Attribute):
                continue
            words, at = [node.attr], node.value
            while isinstance(at, ast.Attribute):
                words, at = [at.attr, *words], at.value
            if isinstance(at, ast.Name) and at.id == "config" and id(node) not in inner:
                found.add(".".join(words[:2]))
                inner |= {id(one) for one in ast.walk(node)}
        return found

    read: dict[str, set[str]] = {}
    for role in ROLES:
        for key in keys(role):
            read.setdefault(key, set()).add(role)
    return read


def test_all_that_read_a_key_start_again_where_it_is_taken():
    """As the wiring of the roles has it: nobody goes on with what is no longer in force."""
    read = _read_by_roles()
    assert read["archive.read"] >= {"learner", "labeler"}
    assert read["learners"] == {"learner", "governor"}
    was = Config()
    for key, by in read.items():
        section, _, name = key.partition(".")
        part = getattr(was, section)
        names = [name] if name else [one.name for one in dataclasses.fields(part)]
        for one in names:
            changed = dataclasses.replace(was)
            other = object.__new__(type(part))
            for field in dataclasses.fields(part):
                value = "other" if field.name == one else getattr(part, field.name)
                object.__setattr__(other, field.name, value)
            object.__setattr__(changed, section, other)
            if plan(was, changed).taken and not plan(was, changed).counts:
                assert set(readers(f"{section}.{one}")) >= by, f"{section}.{one}"


def test_the_page_says_of_each_section_what_becomes_of_its_keys():
    for section in dataclasses.fields(Config):
        said = while_running(section.name)
        assert said.startswith("While running: "), section.name
    assert "shards scale N" in while_running("run")
    assert "`run.learners`, `run.replicas`" in while_running("run")
    assert "taken; learner and governor start again" in while_running("learners")
