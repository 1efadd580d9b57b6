"""Whose the topics are, told by the last records of partitions and by announcements (C9)."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpointer.store import Announcement
from everspun.config import Config, loads
from everspun.roles.other_system import (
    OtherSystem,
    other_inputs,
    other_labels,
    other_model,
    root_of,
)
from everspun.roles.owner_check import FIRST, refuse_other_system
from stream import HASH_KEY, Partition, Record, label_chain, position
from stream.hashing import key_id
from stream.log import MemoryLog

KEYS = st.sampled_from(["", "aaaaaaaa", "bbbbbbbb", "cccccccc"])
SECRET = "a secret of this system's own"
CONFIG = f"""
[stream]
topic_prefix = "shop-"
partitions = 2
hash_secret = "{SECRET}"
[model]
name = "shop"
[checkpointer]
root = "memory://ours"
"""


def record(key: str, at_ms: int = 0) -> Record:
    return Record(0, at_ms, None, b"", ((HASH_KEY, key.encode()),) if key else ())


def announced(name: str, root: str = "s3://theirs/shop", model: str = "shop") -> Announcement:
    url = f"{root}/{model}/{name}"
    return Announcement("published", model, 1, name, url, "5" * 64, created_ms=1_000)


@given(st.lists(KEYS), KEYS.filter(bool), KEYS)
def test_a_labeler_begins_where_every_record_is_its_own_or_says_nothing(
    keys: list[str], own: str, taken_over: str
):
    said = other_labels("examples", [record(key) for key in keys], own, taken_over)
    strangers = set(keys) - {"", own, taken_over}
    assert bool(said) == bool(strangers)
    if said:
        assert any(f"labeler.takes_over = '{key}'" in said for key in strangers)


def test_the_last_word_of_another_system_is_named():
    last = [record("bbbbbbbb", 5_000), record("cccccccc", 65_000), record("aaaaaaaa", 90_000)]
    said = other_labels("shop-examples", last, "aaaaaaaa", "")
    assert "topic shop-examples is another system's: its hash key is 'cccccccc'" in said
    assert "this one's 'aaaaaaaa'; it last wrote there at 1970-01-01T00:01:05" in said
    assert "\n" not in said


@given(st.lists(st.booleans(), max_size=8))
def test_a_model_is_this_systems_if_its_store_holds_any_announced_checkpoint(here: list[bool]):
    said = [announced(f"0000000{n}-{is_here}") for n, is_here in enumerate(here)]
    found = other_model(said, lambda one: one.name.endswith("True"), "/ours", "")
    assert bool(found) == (bool(here) and not any(here))


def test_a_store_that_is_gone_for_good_is_named_and_passed_over():
    said = other_model([announced("00000007-x")], lambda one: False, "/ours", "")
    assert "its checkpoints are in 's3://theirs/shop' (the newest, 00000007-x" in said
    assert "checkpointer.root = '/ours'" in said
    assert not other_model([announced("1-x")], lambda one: False, "/ours", "s3://theirs/shop/")
    assert other_model([announced("1-x")], lambda one: False, "/ours", "s3://theirs")


def test_the_root_is_what_stands_before_the_model():
    assert root_of(announced("1-x", "/var/a/shop")) == "/var/a/shop"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4))
def test_a_checkpoint_that_has_learned_beyond_the_log_is_another_systems(
    learned_and_ends: list[tuple[int, int]],
):
    vector = {label_chain(p): position(to) for p, (to, _) in enumerate(learned_and_ends)}
    ends = {p: end for p, (_, end) in enumerate(learned_and_ends)}
    said = other_inputs(vector, ends, "shop-impressions", "shop", "/root")
    beyond = [p for p, (to, end) in enumerate(learned_and_ends) if to > end]
    assert (f"has learned shop-impressions[{beyond[0]}]" in said) if beyond else said == ""
    assert not other_inputs({}, ends, "shop-impressions", "shop", "/root")


@dataclass
class Topics:
    """Those of a system in memory, and what is written there."""

    config: Config
    log: MemoryLog

    def write(self, topic: str, partition: int, one: Record) -> None:
        writer = self.log.writer()
        at = Partition(f"shop-{topic}", partition)
        writer.append(at, one.value, None, one.headers, one.timestamp_ms)
        writer.flush(1_000)

    def announce(self, *said: Announcement) -> None:
        for one in said:
            self.write("checkpoints", 0, Record(0, 0, None, one.encode()))

    def refuse(self, *roles: str) -> None:
        refuse_other_system(self.config, roles, self.log)


@pytest.fixture
def topics() -> Topics:
    config, log = loads(CONFIG), MemoryLog(lambda: 0)
    for topic, partitions in (("examples", 2), ("tallies", 2), ("signals", 1), ("checkpoints", 1)):
        log.create(f"shop-{topic}", partitions)
    return Topics(config, log)


ROLES = ("labeler", "fraud", "breaker", "learner", "checkpointer")


def test_topics_in_which_nothing_stands_are_anybodys(topics: Topics):
    topics.refuse(*ROLES)


@pytest.mark.parametrize(
    ("role", "topic"), [("labeler", "examples"), ("fraud", "signals"), ("breaker", "tallies")]
)
def test_the_last_record_of_what_a_role_writes_decides(topics: Topics, role: str, topic: str):
    own = key_id(SECRET)
    topics.write(topic, 0, record("bbbbbbbb", 1_000))
    with pytest.raises(OtherSystem, match=f"topic shop-{topic} is another system's"):
        topics.refuse(role)
    topics.refuse(*(other for other in ROLES if other != role))
    topics.write(topic, 0, record(own, 2_000))
    topics.refuse(role)
    topics.write(topic, 0, record("", 3_000))  # by an older version
    topics.refuse(role)


def test_one_partition_of_another_system_is_enough(topics: Topics):
    topics.write("examples", 0, record(key_id(SECRET)))
    topics.write("examples", 1, record("bbbbbbbb"))
    with pytest.raises(OtherSystem, match="its hash key is 'bbbbbbbb'"):
        topics.refuse("labeler")


@pytest.mark.parametrize("role", ["learner", "checkpointer"])
def test_a_model_that_another_store_holds_is_refused(topics: Topics, role: str):
    topics.announce(announced("00000001-x", model="another"))
    topics.refuse(role)
    topics.announce(announced("00000001-x"))
    with pytest.raises(OtherSystem, match="its checkpoints are in 's3://theirs/shop'"):
        topics.refuse(role)


def test_a_learner_asks_no_store_at_the_same_address(topics: Topics):
    topics.announce(announced("00000001-x", "memory://ours"))
    topics.refuse("learner")
    with pytest.raises(OtherSystem, match=r"none of those announced is in checkpointer\.root"):
        topics.refuse("checkpointer")


def test_an_old_backup_is_found_behind_all_that_was_announced_since(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def oldest_is_here(said: Announcement) -> bool:
        asked.append(said.name)
        return said.name == "00000000-x"

    monkeypatch.setattr("everspun.roles.owner_check._in_store", lambda config: oldest_is_here)
    topics.announce(*(announced(f"{n:08d}-x") for n in range(FIRST * 3)))
    topics.refuse("checkpointer")
    assert asked[0] == f"{FIRST * 3 - 1:08d}-x", "the newest is asked for first"


def test_what_is_no_announcement_is_passed_over(topics: Topics):
    topics.write("checkpoints", 0, Record(0, 0, None, b"{"))
    topics.refuse("checkpointer")
