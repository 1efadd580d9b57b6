"""The whole life of a checkpoint over the local parameter server and a store in memory."""

import pytest
from driver_system import CHAINS, Killed, System

from checkpointer.gates import Findings
from checkpointer.process.operator_actions import find, restore, restore_training, verify
from checkpointer.store import Catalogue, Damaged, Evaluation, model_state
from paramserver import PortRefused, PortUnreachable


@pytest.fixture
def system():
    return System()


def test_a_new_model_begins_everywhere_and_has_manifest_zero(system):
    system.begin()
    head = system.driver.catalogue.head()
    assert (head.number, head.parent, head.vector) == (0, None, system.first)
    assert [a.kind for a in system.announced] == ["published"]
    assert system.driver.catalogue.published().name == head.name
    assert system.later().outcome == "idle"  # nothing new


def test_a_cut_holds_what_was_pushed_and_names_its_parent(system):
    system.begin()
    first = system.driver.catalogue.head()
    system.push("label/0", 100, 105, key=42, rows=5)
    step = system.later()
    assert step.outcome == "published"
    assert step.due.reason == "interval"
    head = system.driver.catalogue.head()
    assert head.parent == first.sha256
    assert head.vector == {"label/0": 105, "label/1": 100}
    assert head.chains["label/0"].row_hash == 700
    assert sum(part.rows for part in head.parts) == 1
    assert system.driver.catalogue.problems(head) == []
    assert [a.number for a in system.announced] == [0, 1]
    assert system.announced[1].vector == head.vector


def test_a_checkpoint_is_as_old_as_its_cut_however_long_it_takes_to_write(system):
    """So the next cut is due an interval after it, and not after its files."""
    system.begin()
    system.push("label/0", 100, 105, key=42, rows=5)
    real, began = system.shards[0].write_part, []

    def slow(*arguments):
        began.append(system.now)
        system.now += 700
        return real(*arguments)

    system.shards[0].write_part = slow
    assert system.later().outcome == "published"
    assert system.driver.catalogue.head().created_ms <= began[0]
    system.push("label/0", 105, 106, key=43)
    system.now = began[0] + 1_000
    assert system.driver.step().outcome == "published"


def test_deltas_follow_a_base_until_the_next_and_a_restarted_shard_goes_on_from_them():
    system = System(deltas_max=2)
    system.begin()
    kinds, rows, deltas = [], [], []
    for number in range(1, 5):
        system.push("label/0", 99 + number, 100 + number, key=number)
        step = system.later()
        assert step.outcome == "published"
        deltas.append(step.deltas)
        head = system.driver.catalogue.head()
        kinds.append({part.kind for part in head.parts})
        rows.append(sum(part.rows for part in head.parts))
    assert kinds == [{"delta"}, {"delta"}, {"full"}, {"delta"}]
    assert rows == [1, 1, 3, 1]
    assert deltas == [1, 2, 0, 1]
    system.restart(0, incarnation=2)
    system.clock.tell(system.shards)
    system.push("label/0", 104, 105, key=9)
    assert system.later().outcome == "published"
    assert {part.kind for part in system.driver.catalogue.head().parts} == {"delta"}
    assert sum(shard.shard.rows("clicks") for shard in system.shards.values()) == 5


def test_a_base_that_is_gone_is_followed_by_a_new_one_and_its_deltas_are_no_head():
    system = System(deltas_max=5)
    system.begin()
    base = system.driver.catalogue.head()
    system.push("label/0", 100, 101, key=1)
    system.later()
    delta = system.driver.catalogue.head()
    system.files.delete(f"clicks/{base.name}/{base.parts[0].path}")
    assert not delta.is_full
    assert system.driver.catalogue.head(verify=True) is None
    system.files.delete(f"clicks/{base.name}")
    system.driver.catalogue = Catalogue(system.files, "clicks")
    system.push("label/0", 101, 102, key=2)
    system.later()
    head = system.driver.catalogue.head(verify=True)
    assert head.is_full
    assert sum(part.rows for part in head.parts) == 2


def test_a_barrier_is_cut_when_all_shards_have_it_and_is_announced(system):
    system.begin()
    system.push("label/0", 100, 100, barrier=1)
    system.push("label/1", 100, 100, barrier=1, shards=(0,))
    assert system.driver.step().outcome == "idle"
    system.push("label/1", 100, 100, barrier=1, shards=(1,))
    assert system.driver.step().due.reason == "barrier"
    assert system.announced[-1].barrier == 1
    assert system.driver.step().outcome == "idle"


def test_shards_that_stand_apart_make_no_cut_and_training_goes_on(system):
    system.begin()
    system.push("label/0", 100, 105, shards=(0,))
    step = system.later()
    assert (step.outcome, step.reason) == ("abandoned", "timeout")
    assert system.driver.catalogue.head().number == 0
    system.push("label/0", 100, 105, shards=(1,))
    assert system.later().outcome == "published"


def test_a_refused_mark_abandons_the_cut_at_once(system):
    system.begin()
    system.push("label/0", 100, 105)

    def refuse(*_):
        raise PortRefused("no room for a copy")

    system.shards[1].mark, mark = refuse, system.shards[1].mark
    before = system.now
    step = system.later()
    assert (step.outcome, step.reason, step.detail) == (
        "abandoned",
        "refused",
        "no room for a copy",
    )
    assert system.now - before < 2_000
    system.shards[1].mark = mark
    assert system.later().outcome == "published"


def test_a_rejected_checkpoint_is_kept_not_served_and_still_the_head(system):
    system.begin()
    system.push("label/0", 100, 105)
    system.findings = Findings(answers=(0.5,), not_finite=("w",))
    step = system.later()
    assert step.outcome == "rejected"
    assert system.announced[-1].kind == "rejected"
    assert "finite: w" in system.announced[-1].reason
    catalogue = system.driver.catalogue
    assert (catalogue.head().number, catalogue.published().number) == (1, 0)
    assert system.later().outcome == "idle"


def test_a_checkpointer_that_died_before_the_gates_is_taken_up(system):
    system.begin()
    system.push("label/0", 100, 105)
    system.later()
    name = system.driver.catalogue.head().name
    del system.files.contents[f"clicks/{name}/gates.json"]
    del system.files.contents["clicks/published.json"]
    system.announced.clear()
    system.driver = system.checkpointer()
    assert [(a.kind, a.name) for a in system.announced] == [("published", name)]
    assert system.driver.catalogue.published().name == name


def test_a_shard_that_lost_its_beginning_begins_where_the_others_did(system):
    assert system.driver.step().outcome == "begun"
    system.push("label/0", 100, 105, shards=(0,))
    system.restart(1, incarnation=2)
    system.first = dict.fromkeys(CHAINS, 999)  # retention has moved on meanwhile
    system.driver = system.checkpointer()
    system.driver.step()
    reply = system.shards[1].progress("clicks")
    assert {c: at.end for c, at in reply.progress.chains.items()} == dict.fromkeys(CHAINS, 100)


def test_a_shard_that_has_not_restored_is_told_and_waited_for(system, monkeypatch):
    system.begin()
    system.restart(1, incarnation=2, restore=False)
    told = []
    monkeypatch.setattr(system.shards[1], "remap", lambda epoch: told.append(epoch) or epoch)
    assert system.later().outcome == "not_restored"
    assert told == [1]
    system.restart(1, incarnation=3)
    system.clock.tell(system.shards)
    system.push("label/0", 100, 105)
    assert system.later().outcome == "published"


def test_a_restored_shard_goes_on_from_the_head(system):
    system.begin()
    system.push("label/0", 100, 105, key=42)
    system.later()
    system.push("label/0", 105, 110, key=42)
    system.restart(0, incarnation=2)
    system.restart(1, incarnation=2)
    system.clock.tell(system.shards)
    for shard in system.shards.values():
        assert shard.progress("clicks").progress.chains["label/0"].end == 105
    system.push("label/0", 105, 110, key=42)
    assert system.later().outcome == "published"


def test_an_unreachable_shard_is_said_and_a_failed_part_abandons_the_cut(system):
    system.begin()
    system.push("label/0", 100, 105)

    def gone(*_):
        raise PortUnreachable("shard 1")

    real = system.shards[1].write_part
    system.shards[1].write_part = gone
    step = system.later()
    assert (step.outcome, step.reason) == ("abandoned", "parts")
    system.shards[1].write_part = real
    system.shards[1].progress, progress = gone, system.shards[1].progress
    assert system.later().outcome == "unreachable"
    system.shards[1].progress = progress
    assert system.later().outcome == "published"
    assert system.driver.catalogue.names() == [
        a.name for a in system.announced
    ]  # the unfinished one was swept


def test_a_part_damaged_on_its_way_never_becomes_a_checkpoint(system):
    system.begin()
    system.push("label/0", 100, 105)
    real = system.shards[0].write_part

    def torn(model, cut, url, parent):
        info = real(model, cut, url, parent)
        system.files.contents[info.url] = system.files.contents[info.url][:-1]
        return info

    system.shards[0].write_part = torn
    step = system.later()
    assert (step.outcome, step.reason) == ("abandoned", "parts")
    assert "part-0.safetensors" in step.detail
    assert system.driver.catalogue.head().number == 0


def test_evaluations_up_to_the_cut_are_in_its_manifest_once(system):
    system.begin()
    system.push("label/0", 100, 105, rows=5)
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
    system.evaluations = [batch, batch, {**batch, "start": 105, "end": 110}]
    before = system.now
    assert system.later(1000).outcome == "published"
    assert system.now - before < 1050  # all expected rows were there: nothing to wait for
    evaluation = system.driver.catalogue.head().evaluation
    assert (evaluation.rows, evaluation.batches, evaluation.log_loss_sum) == (5, 1, 2.0)
    system.push("label/0", 105, 110, rows=5)
    system.later()
    assert system.driver.catalogue.head().evaluation.rows == 5


def test_another_definition_under_the_name_is_refused(system):
    system.begin()
    with pytest.raises(ValueError, match="give the changed model a new name"):
        system.checkpointer(digest="d2")


def test_retention_keeps_what_deltas_build_on():
    system = System(keep=1, deltas_max=3)
    system.begin()
    kept = []
    for i in range(9):
        system.push("label/0", 100 + i, 101 + i, key=i + 1)
        assert system.later().outcome == "published"
        kept.append([e.number for e in system.driver.catalogue.entries()])
        assert [one.problems for one in verify(system.driver.catalogue)] == [()] * len(kept[-1])
        assert (
            len(
                model_state(system.driver.catalogue, system.driver.catalogue.head())
                .tables["w"]
                .keys
            )
            == i + 1
        )
    assert kept[2:6] == [[0, 1, 2, 3], [4], [4, 5], [4, 5, 6]], (
        "a base goes with the last delta upon it"
    )


def test_training_goes_on_by_deltas_from_where_it_was_rolled_back_to():
    """X4: the target is a delta itself; the next one builds on it, and those cut after it are
    nobody's parents."""
    system = System(deltas_max=9)
    system.begin()
    for i in range(4):
        system.push("label/0", 100 + i, 101 + i, key=i + 1)
        assert system.later().outcome == "published"
    catalogue = system.driver.catalogue
    restore_training(catalogue, "2")
    for index in (0, 1):
        system.restart(index, incarnation=2)
    system.clock.tell(system.shards)
    system.push("label/0", 102, 103, key=77)
    assert system.later().outcome == "moving", "the map that is brought back has a newer epoch (S6)"
    assert system.later().outcome == "published"
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
    system = System(keep=2, deltas_max=0)
    system.begin()
    for i in range(5):
        system.push("label/0", 100 + i, 101 + i)
        assert system.later().outcome == "published"
    assert [e.number for e in system.driver.catalogue.entries()] == [3, 4, 5]


@pytest.mark.parametrize("steps", range(13))
def test_a_checkpointer_killed_at_any_step_leaves_what_its_successor_needs(steps):
    """From the first begin to the sweep of a second checkpoint: every checkpoint that is found is
    whole, and after the successor's next cut the newest is the head, published, announced, and its
    parent is the one before."""
    system = System(keep=1)
    system.files.steps = steps
    try:
        system.begin()
        system.push("label/0", 100, 105)
        system.later()
        system.push("label/0", 105, 106)
        system.later()
        assert steps > 9, "it should have died"
    except Killed:
        pass
    system.files.steps = -1
    fresh = Catalogue(system.files, "clicks")
    heads = [entry.manifest for entry in fresh.entries() if entry.manifest is not None]
    assert all(not fresh.problems(manifest) for manifest in heads)
    system.announced.clear()
    system.driver = system.checkpointer()
    if heads:
        assert system.announced[-1].name == heads[-1].name
    system.later()
    system.later()
    at = system.shards[0].progress("clicks").progress.chains["label/0"].end
    system.push("label/0", at, at + 10)
    assert system.later().outcome == "published"
    head = system.driver.catalogue.head()
    assert head.vector["label/0"] == at + 10
    assert system.driver.catalogue.published().name == head.name == system.announced[-1].name
    assert (
        system.driver.catalogue.manifest(system.driver.catalogue.names()[-2]).sha256 == head.parent
    )
    assert not [entry for entry in system.driver.catalogue.entries() if entry.manifest is None]


def test_a_step_says_how_long_its_cut_took():
    """From the first question to all marked, whenever the checkpointer began."""
    system = System()
    system.begin()
    system.push("label/0", 100, 101, key=1)
    before = system.now
    step = system.later()
    assert step.outcome == "published"
    assert 0 <= step.hold_ms <= step.cut_ms <= system.now - before


def test_a_manifest_that_says_what_is_no_number_is_no_fault_of_the_store(system):
    system.begin()
    system.push("label/0", 100, 105)
    system.driver.evaluations.sums = lambda vector: Evaluation(1, 5, float("inf"))
    step = system.later()
    assert (step.outcome, step.reason) == ("abandoned", "manifest")
    del system.driver.evaluations.sums
    assert system.later(60_000).outcome == "published"


def test_a_checkpoint_that_could_not_be_judged_is_judged_later(system):
    system.begin()
    system.push("label/0", 100, 105)

    def check(ref):
        raise OSError("not judged yet")

    system.check, judged = check, system.check
    assert [system.later().outcome for _ in range(3)] == ["store"] * 3
    head = system.driver.catalogue.head()
    assert (head.number, system.driver.catalogue.gates(head.name)) == (1, None)
    system.check = judged
    system.later()
    assert system.driver.catalogue.gates(head.name).passed
    assert system.driver.catalogue.published().number == 1
