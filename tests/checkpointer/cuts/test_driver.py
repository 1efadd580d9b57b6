"""The whole life of a checkpoint over the local parameter server and a store in memory."""

import pytest
from driver_house import CHAINS, House, Killed

from checkpointer.gates.gates import Findings
from checkpointer.process.operator_actions import find, restore, restore_training, verify
from checkpointer.store.catalogue import Catalogue
from checkpointer.store.manifest import Damaged
from checkpointer.store.restore import model_state
from paramserver.ports import Refused, Unreachable


@pytest.fixture
def house():
    return House()


def test_a_new_model_begins_everywhere_and_has_manifest_zero(house):
    house.begin()
    head = house.driver.catalogue.head()
    assert (head.number, head.parent, head.vector) == (0, None, house.first)
    assert [a.kind for a in house.announced] == ["published"]
    assert house.driver.catalogue.published().name == head.name
    assert house.later().outcome == "idle"  # nothing new


def test_a_cut_holds_what_was_pushed_and_names_its_parent(house):
    house.begin()
    first = house.driver.catalogue.head()
    house.push("label/0", 100, 105, key=42, rows=5)
    step = house.later()
    assert step.outcome == "published"
    assert step.due.reason == "interval"
    head = house.driver.catalogue.head()
    assert head.parent == first.sha256
    assert head.vector == {"label/0": 105, "label/1": 100}
    assert head.chains["label/0"].row_hash == 700
    assert sum(part.rows for part in head.parts) == 1
    assert house.driver.catalogue.problems(head) == []
    assert [a.number for a in house.announced] == [0, 1]
    assert house.announced[1].vector == head.vector


def test_deltas_follow_a_base_until_the_next_and_a_restarted_shard_goes_on_from_them():
    house = House(deltas_max=2)
    house.begin()
    kinds, rows = [], []
    for number in range(1, 5):
        house.push("label/0", 99 + number, 100 + number, key=number)
        assert house.later().outcome == "published"
        head = house.driver.catalogue.head()
        kinds.append({part.kind for part in head.parts})
        rows.append(sum(part.rows for part in head.parts))
    assert kinds == [{"delta"}, {"delta"}, {"full"}, {"delta"}]
    assert rows == [1, 1, 3, 1]
    house.restart(0, incarnation=2)
    house.clock.tell(house.shards)
    house.push("label/0", 104, 105, key=9)
    assert house.later().outcome == "published"
    assert {part.kind for part in house.driver.catalogue.head().parts} == {"delta"}
    assert sum(shard.shard.rows("clicks") for shard in house.shards.values()) == 5


def test_a_base_that_is_gone_is_followed_by_a_new_one_and_its_deltas_are_no_head():
    house = House(deltas_max=5)
    house.begin()
    base = house.driver.catalogue.head()
    house.push("label/0", 100, 101, key=1)
    house.later()
    delta = house.driver.catalogue.head()
    house.files.delete(f"clicks/{base.name}/{base.parts[0].path}")
    assert not delta.is_full
    assert house.driver.catalogue.head(verify=True) is None
    house.files.delete(f"clicks/{base.name}")
    house.driver.catalogue = Catalogue(house.files, "clicks")
    house.push("label/0", 101, 102, key=2)
    house.later()
    head = house.driver.catalogue.head(verify=True)
    assert head.is_full
    assert sum(part.rows for part in head.parts) == 2


def test_a_barrier_is_cut_when_all_shards_have_it_and_is_announced(house):
    house.begin()
    house.push("label/0", 100, 100, barrier=1)
    house.push("label/1", 100, 100, barrier=1, shards=(0,))
    assert house.driver.step().outcome == "idle"
    house.push("label/1", 100, 100, barrier=1, shards=(1,))
    assert house.driver.step().due.reason == "barrier"
    assert house.announced[-1].barrier == 1
    assert house.driver.step().outcome == "idle"


def test_shards_that_stand_apart_make_no_cut_and_training_goes_on(house):
    house.begin()
    house.push("label/0", 100, 105, shards=(0,))
    step = house.later()
    assert (step.outcome, step.reason) == ("abandoned", "timeout")
    assert house.driver.catalogue.head().number == 0
    house.push("label/0", 100, 105, shards=(1,))
    assert house.later().outcome == "published"


def test_a_refused_mark_abandons_the_cut_at_once(house):
    house.begin()
    house.push("label/0", 100, 105)

    def refuse(*_):
        raise Refused("no room for a copy")

    house.shards[1].mark, mark = refuse, house.shards[1].mark
    before = house.now
    step = house.later()
    assert (step.outcome, step.reason, step.detail) == (
        "abandoned",
        "refused",
        "no room for a copy",
    )
    assert house.now - before < 2_000
    house.shards[1].mark = mark
    assert house.later().outcome == "published"


def test_a_rejected_checkpoint_is_kept_not_served_and_still_the_head(house):
    house.begin()
    house.push("label/0", 100, 105)
    house.findings = Findings(answers=(0.5,), not_finite=("w",))
    step = house.later()
    assert step.outcome == "rejected"
    assert house.announced[-1].kind == "rejected"
    assert "finite: w" in house.announced[-1].reason
    catalogue = house.driver.catalogue
    assert (catalogue.head().number, catalogue.published().number) == (1, 0)
    assert house.later().outcome == "idle"


def test_a_checkpointer_that_died_before_the_gates_is_taken_up(house):
    house.begin()
    house.push("label/0", 100, 105)
    house.later()
    name = house.driver.catalogue.head().name
    del house.files.contents[f"clicks/{name}/gates.json"]
    del house.files.contents["clicks/published.json"]
    house.announced.clear()
    house.driver = house.checkpointer()
    assert [(a.kind, a.name) for a in house.announced] == [("published", name)]
    assert house.driver.catalogue.published().name == name


def test_a_shard_that_lost_its_beginning_begins_where_the_others_did(house):
    assert house.driver.step().outcome == "begun"
    house.push("label/0", 100, 105, shards=(0,))
    house.restart(1, incarnation=2)
    house.first = dict.fromkeys(CHAINS, 999)  # retention has moved on meanwhile
    house.driver = house.checkpointer()
    house.driver.step()
    reply = house.shards[1].progress("clicks")
    assert {c: at.end for c, at in reply.progress.chains.items()} == dict.fromkeys(CHAINS, 100)


def test_a_shard_that_has_not_restored_is_waited_for(house):
    house.begin()
    house.restart(1, incarnation=2, restore=False)
    assert house.later().outcome == "not_restored"
    house.restart(1, incarnation=3)
    house.clock.tell(house.shards)
    house.push("label/0", 100, 105)
    assert house.later().outcome == "published"


def test_a_restored_shard_goes_on_from_the_head(house):
    house.begin()
    house.push("label/0", 100, 105, key=42)
    house.later()
    house.push("label/0", 105, 110, key=42)
    house.restart(0, incarnation=2)
    house.restart(1, incarnation=2)
    house.clock.tell(house.shards)
    for shard in house.shards.values():
        assert shard.progress("clicks").progress.chains["label/0"].end == 105
    house.push("label/0", 105, 110, key=42)
    assert house.later().outcome == "published"


def test_an_unreachable_shard_is_said_and_a_failed_part_abandons_the_cut(house):
    house.begin()
    house.push("label/0", 100, 105)

    def gone(*_):
        raise Unreachable("shard 1")

    real = house.shards[1].write_part
    house.shards[1].write_part = gone
    step = house.later()
    assert (step.outcome, step.reason) == ("abandoned", "parts")
    house.shards[1].write_part = real
    house.shards[1].progress, progress = gone, house.shards[1].progress
    assert house.later().outcome == "unreachable"
    house.shards[1].progress = progress
    assert house.later().outcome == "published"
    assert house.driver.catalogue.names() == [
        a.name for a in house.announced
    ]  # the unfinished one was swept


def test_a_part_damaged_on_its_way_never_becomes_a_checkpoint(house):
    house.begin()
    house.push("label/0", 100, 105)
    real = house.shards[0].write_part

    def torn(model, cut, url, parent):
        info = real(model, cut, url, parent)
        house.files.contents[info.url] = house.files.contents[info.url][:-1]
        return info

    house.shards[0].write_part = torn
    step = house.later()
    assert (step.outcome, step.reason) == ("abandoned", "parts")
    assert "part-0.safetensors" in step.detail
    assert house.driver.catalogue.head().number == 0


def test_evaluations_up_to_the_cut_are_in_its_manifest_once(house):
    house.begin()
    house.push("label/0", 100, 105, rows=5)
    batch = {
        "model": "clicks",
        "chain": "label/0",
        "start": 100,
        "end": 105,
        "rows": 5,
        "log_loss_sum": 2.0,
        "prediction_sum": 1.0,
        "base_log_loss_sum": 2.5,
    }
    house.evaluations = [batch, batch, {**batch, "start": 105, "end": 110}]
    before = house.now
    assert house.later(1000).outcome == "published"
    assert house.now - before < 1050  # all expected rows were there: nothing to wait for
    evaluation = house.driver.catalogue.head().evaluation
    assert (evaluation.rows, evaluation.batches, evaluation.log_loss_sum) == (5, 1, 2.0)
    house.push("label/0", 105, 110, rows=5)
    house.later()
    assert house.driver.catalogue.head().evaluation.rows == 5


def test_another_definition_under_the_name_is_refused(house):
    house.begin()
    with pytest.raises(ValueError, match="give the changed model a new name"):
        house.checkpointer(digest="d2")


def test_retention_keeps_what_deltas_build_on():
    house = House(keep=1, deltas_max=3)
    house.begin()
    kept = []
    for i in range(9):
        house.push("label/0", 100 + i, 101 + i, key=i + 1)
        assert house.later().outcome == "published"
        kept.append([e.number for e in house.driver.catalogue.entries()])
        assert [one.problems for one in verify(house.driver.catalogue)] == [()] * len(kept[-1])
        assert (
            len(model_state(house.driver.catalogue, house.driver.catalogue.head()).tables["w"].keys)
            == i + 1
        )
    assert kept[2:6] == [[0, 1, 2, 3], [4], [4, 5], [4, 5, 6]], (
        "a base goes with the last delta upon it"
    )


def test_training_goes_on_by_deltas_from_where_it_was_rolled_back_to():
    """X4: the target is a delta itself; the next one builds on it, and those cut after it are
    nobody's parents."""
    house = House(deltas_max=9)
    house.begin()
    for i in range(4):
        house.push("label/0", 100 + i, 101 + i, key=i + 1)
        assert house.later().outcome == "published"
    catalogue = house.driver.catalogue
    restore_training(catalogue, "2")
    for index in (0, 1):
        house.restart(index, incarnation=2)
    house.clock.tell(house.shards)
    house.push("label/0", 102, 103, key=77)
    assert house.later().outcome == "moving", "the map that is brought back has a newer epoch (S6)"
    assert house.later().outcome == "published"
    head = catalogue.head()
    assert (head.number, head.parent) == (5, find(catalogue, "2").sha256)
    assert {part.kind for part in head.parts} == {"delta"}
    assert model_state(catalogue, head).tables["w"].keys.tolist() == [1, 2, 77]
    assert [len(one.chain) for one in verify(catalogue)] == [1, 2, 3, 4, 5, 4]
    catalogue.files.delete(f"clicks/{find(catalogue, '1').name}/part-0.safetensors")
    catalogue.files.delete(f"clicks/{find(catalogue, '1').name}/part-1.safetensors")
    with pytest.raises(Damaged, match=r"part-0\.safetensors: missing"):
        restore_training(catalogue, "2")
    with pytest.raises(Damaged, match=r"part-0\.safetensors: missing"):
        restore(catalogue, "2", "too new", 1)


def test_retention_runs_after_each_cut():
    house = House(keep=2, deltas_max=0)
    house.begin()
    for i in range(5):
        house.push("label/0", 100 + i, 101 + i)
        assert house.later().outcome == "published"
    assert [e.number for e in house.driver.catalogue.entries()] == [3, 4, 5]


@pytest.mark.parametrize("steps", range(13))
def test_a_checkpointer_killed_at_any_step_leaves_what_its_successor_needs(steps):
    """From the first begin to the sweep of a second checkpoint: every checkpoint that is found is
    whole, and after the successor's next cut the newest is the head, published, announced, and its
    parent is the one before."""
    house = House(keep=1)
    house.files.steps = steps
    try:
        house.begin()
        house.push("label/0", 100, 105)
        house.later()
        house.push("label/0", 105, 106)
        house.later()
        assert steps > 9, "it should have died"
    except Killed:
        pass
    house.files.steps = -1
    fresh = Catalogue(house.files, "clicks")
    heads = [entry.manifest for entry in fresh.entries() if entry.manifest is not None]
    assert all(not fresh.problems(manifest) for manifest in heads)
    house.announced.clear()
    house.driver = house.checkpointer()
    if heads:
        assert house.announced[-1].name == heads[-1].name
    house.later()
    house.later()
    at = house.shards[0].progress("clicks").progress.chains["label/0"].end
    house.push("label/0", at, at + 10)
    assert house.later().outcome == "published"
    head = house.driver.catalogue.head()
    assert head.vector["label/0"] == at + 10
    assert house.driver.catalogue.published().name == head.name == house.announced[-1].name
    assert house.driver.catalogue.manifest(house.driver.catalogue.names()[-2]).sha256 == head.parent
    assert not [entry for entry in house.driver.catalogue.entries() if entry.manifest is None]
