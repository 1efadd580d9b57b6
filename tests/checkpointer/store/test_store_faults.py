"""The checkpointer's driver over a store that fails at any call: it says so, loses nothing, and
goes on by itself."""

import errno

import pytest
from driver_system import System
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpointer.process import StoreHealth
from checkpointer.process.operator_actions import restore
from checkpointer.store.catalogue import Catalogue
from checkpointer.store.files import MemoryFiles, StoreFault
from stream import Backoff

FAULTS = (
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EROFS, "Read-only file system"),
    OSError(errno.EIO, "Input/output error"),
    PermissionError(errno.EACCES, "Permission denied"),
    StoreFault("EndpointConnectionError"),
    TimeoutError("no answer within 10 s"),
)


class FaultyFiles(MemoryFiles):
    """`fault` is raised by the calls from the `after`-th on, until it is None. `done`: a call that
    fails was made all the same, as where only its answer is lost."""

    def __init__(self):
        super().__init__()
        self.fault, self.after, self.done, self.changes_only = None, 0, False, False

    def _call(self, call, *arguments, changes=True):
        if self.fault is not None and (changes or not self.changes_only):
            if self.after <= 0:
                if self.done:
                    call(*arguments)
                raise self.fault
            self.after -= 1
        return call(*arguments)

    def read(self, path):
        return self._call(super().read, path, changes=False)

    def names(self, path):
        return self._call(super().names, path, changes=False)

    def write(self, path, data):
        self._call(super().write, path, data)

    def delete(self, path):
        self._call(super().delete, path)


class FaultySystem(System):
    def __init__(self, **config):
        super().__init__(**config)
        files = FaultyFiles()
        files.contents = self.files.contents
        self.files = files
        self.driver = self.checkpointer()


@settings(max_examples=settings.default.max_examples * 150 // 100, deadline=None)
@given(
    fault=st.sampled_from(FAULTS),
    after=st.integers(0, 40),
    done=st.booleans(),
    changes_only=st.booleans(),
    steps=st.integers(1, 6),
)
def test_a_store_that_fails_anywhere_costs_no_checkpoint(fault, after, done, changes_only, steps):
    system = FaultySystem(keep=2, deltas_max=2)
    system.begin()
    system.push("label/0", 100, 105, key=1, rows=5)
    system.later()
    files = system.files
    files.fault, files.after, files.done, files.changes_only = fault, after, done, changes_only
    end = 105
    for _ in range(steps):
        system.push("label/0", end, end + 1, key=end)
        end += 1
        step = system.later(6_000)
        assert step.outcome in ("idle", "published", "store", "abandoned")
        if step.outcome in ("store", "abandoned"):
            assert step.detail
    files.fault = None
    for _ in range(3):
        system.later(6_000)
    fresh = Catalogue(files, "clicks")
    head = fresh.head(verify=True)
    assert head.vector["label/0"] == end
    assert fresh.published().name == head.name
    assert system.announced[-1].name == head.name
    for entry in fresh.entries():
        if entry.manifest is not None and entry.gates is not None:
            assert fresh.chain_problems(entry.manifest) == []


def test_a_read_only_store_at_the_start_is_waited_for():
    system = FaultySystem()
    system.files.fault, system.files.changes_only = FAULTS[1], True
    for _ in range(3):
        step = system.later()
        assert step.outcome == "store"
        assert "Read-only file system" in step.detail
    system.files.fault = None
    system.begin()


@pytest.mark.parametrize("said", [b"", b"{}", b"\0\0\0"])
def test_after_a_power_cut_the_checkpointer_publishes_again(said):
    """`published.json` of zero bytes ended it at each start."""
    system = FaultySystem()
    system.begin()
    system.push("label/0", 100, 105, key=1)
    system.later()
    for name in ("published.json", "begin.json"):
        system.files.contents[f"clicks/{name}"] = said
    system.driver = system.checkpointer()
    system.push("label/0", 105, 110, key=1)
    assert system.later().outcome == "published"
    assert Catalogue(system.files, "clicks").published().number == 2


def test_a_pointer_that_is_damaged_while_it_runs_is_mended():
    system = FaultySystem()
    system.begin()
    system.push("label/0", 100, 105, key=1)
    system.files.contents["clicks/published.json"] = b""
    system.files.contents["clicks/hold.json"] = b""
    assert system.later().outcome == "published"
    for _ in range(3):
        system.later()
    assert Catalogue(system.files, "clicks").published().number == 1
    restore(Catalogue(system.files, "clicks"), "0", "why", system.now)
    assert Catalogue(system.files, "clicks").hold().ref.number == 0


def test_where_the_model_began_is_found_from_shards_that_have_begun():
    system = FaultySystem()
    assert system.driver.step().outcome == "begun"
    system.files.contents["clicks/begin.json"] = b""
    system.restart(1, incarnation=2)
    system.first = dict.fromkeys(system.first, 999)
    system.driver = system.checkpointer()
    system.driver.step()
    reply = system.shards[1].progress("clicks")
    assert {at.end for at in reply.progress.chains.values()} == {100}
    assert Catalogue(system.files, "clicks").begun() == {"label/0": 100, "label/1": 100}


def test_a_cut_that_comes_to_nothing_leaves_no_parts():
    system = FaultySystem()
    system.begin()
    system.push("label/0", 100, 105, key=1)
    system.files.fault, system.files.after, system.files.changes_only = FAULTS[0], 0, True
    for _ in range(5):
        assert system.later(6_000).outcome in ("abandoned", "store")
    system.files.fault = None
    assert system.later(6_000).outcome == "published"
    parts = [path for path in system.files.contents if path.endswith(".safetensors")]
    assert len(parts) == 8, "a part and its weights, of two checkpoints of two shards"


def test_idle_hours_take_no_checkpoints_and_a_rollback_is_seen_meanwhile():
    system = FaultySystem(idle_interval_ms=0)
    system.begin()
    for at in range(100, 160):
        system.push("label/0", at, at + 1, rows=0)
        assert system.later(60_000).outcome == "idle"
    assert len(system.driver.catalogue.names()) == 1
    system.driver.catalogue.write_training_rollback(system.driver.catalogue.published())
    epoch = system.driver.resharding.slot_map.epoch
    system.later(60_000)
    assert system.driver.resharding.slot_map.epoch > epoch


def test_what_is_said_of_a_store_that_fails():
    health = StoreHealth(Backoff(100, 1_000))
    assert health.told("", 0.0) == ""
    assert "failing for 0 s" in health.told("No space", 10.0)
    assert health.told("No space", 20.0) == ""
    assert health.failing_s(20.0) == 10.0
    assert "failing for 60 s" in health.told("No space", 70.0)
    assert "going on, after 61 s" in health.told("", 71.0)
    assert health.failing_s(71.0) == 0.0


def test_a_store_that_can_be_read_and_not_written_fails_all_the_while():
    health = StoreHealth(Backoff(100, 1_000))
    health.told("Read-only file system", 10.0, unwritten=True)
    assert health.told("", 11.0) == ""  # a look, between two cuts
    health.told("no answer", 20.0)  # a read that failed ends nothing
    health.told("", 21.0)
    assert health.failing_s(50.0) == 40.0
    assert "going on, after 50 s" in health.told("", 60.0, complete=True)
    assert health.failing_s(60.0) == 0.0
