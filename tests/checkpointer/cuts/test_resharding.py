"""Another number of shards over the local parameter server: the driver may die at any write, and
there is the old map or the new one, with every row once (S6)."""

import numpy as np
import pytest

from checkpointer.config import CheckpointerConfig
from checkpointer.cuts.driver import Driver
from checkpointer.gates import Findings
from checkpointer.store import Catalogue, Definition
from checkpointer.store.files import MemoryFiles
from paramserver import (
    DenseSpec,
    ModelSpec,
    Outcome,
    PortUnreachable,
    PullRequest,
    PushRequest,
    SlotMap,
    StartOutcome,
    StartRequest,
    TableSpec,
)
from paramserver.clocks import Clocks
from paramserver.parts import decode_part, whole
from paramserver.server import LocalClock, LocalShard
from paramserver.shard import Shard

SPEC = ModelSpec(
    "clicks",
    "d1",
    (TableSpec("w", 1, "sgd", {"rate": 1.0}),),
    DenseSpec({"bias": (1,)}, "sgd", {"rate": 1.0}),
)
CHAIN = "label/0"


class Killed(BaseException):
    """kill -9 of the checkpointer."""


class CrashingFiles(MemoryFiles):
    """Files whose user dies at the `steps`-th write from now, which is then not made."""

    steps = -1

    def write(self, path, data):
        if self.steps == 0:
            raise Killed
        self.steps -= 1
        super().write(path, data)


class Ports(dict):
    """Ports of shards; `down` do not answer."""

    down = frozenset()

    def __getitem__(self, index):
        if index in self.down or index not in self:
            raise PortUnreachable(f"shard {index}")
        return super().__getitem__(index)


class System:
    """Four local shard processes, of which the map says which count; every push has one row, of
    its own key."""

    def __init__(self, shards=2, deltas_max=10):
        self.now, self.deltas_max = 1_000_000, deltas_max
        self.files = CrashingFiles()
        self.clocks = Clocks(1, shards, 0)
        self.clock = LocalClock(self.clocks, lambda: self.now)
        self.ports, self.configured = Ports(), SlotMap.even(shards)
        self.incarnations = dict.fromkeys(range(4), 0)
        for index in range(4):
            self.start(index)
        self.end = 0
        self.begin_driver()
        assert self.driver.step().outcome == "begun"
        self.tell()
        assert self.driver.step().outcome == "published"
        self.epoch = self.clock.join("clicks", "learner-0").epoch
        self.tell()

    def begin_driver(self):
        config = CheckpointerConfig(
            interval_ms=1000,
            evaluation_wait_ms=50,
            cut_timeout_ms=2_000,
            deltas_max=self.deltas_max,
        )
        definition = Definition(SPEC, {"kind": "lr"}, {"bias": np.array([0.25], np.float32)})
        catalogue = Catalogue(self.files, "clicks")
        self.driver = Driver(
            config,
            definition,
            self.ports,
            self.clock,
            catalogue,
            self,
            self,
            "0.1.0",
            slot_map=self.configured,
        )
        self.driver.recover()

    def head(self):
        catalogue = Catalogue(self.files, "clicks")
        head = catalogue.head()
        return head, (catalogue.slot_map(head) if head else None) or self.configured

    def incarnate(self, index):
        self.incarnations[index] += 1
        head, slot_map = self.head()
        shard = Shard(index, self.incarnations[index], slot_map)
        if head is not None and not shard.stands_by:
            cuts = []
            for one in Catalogue(self.files, "clicks").chain(head):
                parts = [self.files.read(f"clicks/{one.name}/{part.path}") for part in one.parts]
                cuts.append((one.sha256, [decode_part(part) for part in parts]))
            shard.restore([whole(cuts)], head.sha256)
        return shard

    def start(self, index):
        """The process starts, or starts again."""
        self.ports[index] = LocalShard(self.incarnate(index), self.files.contents, self.take_map)

    def take_map(self, old):
        shard = self.incarnate(old.index)
        if shard.index == 0:
            self.clocks.remap(shard.slot_map.epoch, shard.slot_map.shards)
        return shard

    @property
    def members(self):
        return [self.ports[i].shard for i in range(self.clocks.shards)]

    def tell(self):
        self.clock.tell({shard.index: self.ports[shard.index] for shard in self.members})

    def start_batch(self):
        request = StartRequest("clicks", self.epoch, CHAIN, self.end, self.end + 1)
        return self.clock.start(request)

    def learn(self, batches=1):
        """Batches as a learner sends them: started, pushed to every shard, ended."""
        for _ in range(batches):
            started = self.start_batch()
            assert started.outcome is StartOutcome.ADMITTED
            for shard in self.members:
                assert self.push(shard).outcome is Outcome.APPLIED
            self.end += 1
            self.clock.ended("clicks", self.epoch, started.clock)

    def catch_up(self):
        """What a rewound learner does: every shard gets what it lacks."""
        for shard in self.members:
            at = shard.progress("clicks").progress
            for n in range(self.end if at is None else at.chains[CHAIN].end, self.end):
                assert self.push(shard, n).outcome is Outcome.APPLIED

    def push(self, shard, n=None, **more):
        n = self.end if n is None else n
        mine = len(shard.slot_map.split(key(n))[shard.index]) if not shard.stands_by else 0
        request = PushRequest(
            "clicks", self.epoch, shard.slot_map.epoch, shard.incarnation, CHAIN, n, n + 1, 0, n,
            0, row_hash=7, rows=1, event_time_max_ms=n,
            keys={"w": key(n)} if mine else {},
            gradients={"w": np.array([[-1.0]], np.float32)} if mine else {},
        )  # fmt: skip
        return shard.push(request if not more else PushRequest(**{**request.__dict__, **more}))

    def scale(self, shards):
        """Order, and step until it is done. Returns the step of the move."""
        self.clock.set_shards("clicks", shards)
        for _ in range(10):
            self.now += 1000
            step = self.driver.step()
            self.tell()
            if step.shards:
                return step
        raise AssertionError(f"no move to {shards} shards: {step}")

    def check(self, shards):
        """So many shards, at one map and one end, with every row once, where its slot is."""
        for shard in self.members:
            shard.validate()
        assert {shard.slot_map for shard in self.members} == {self.members[0].slot_map}
        assert len(self.members) == self.members[0].slot_map.shards == shards
        rows = [len(s.snapshot("clicks").tables["w"].keys) for s in self.members]
        assert sum(rows) == self.end
        for shard in self.members:
            at = shard.progress("clicks").progress.chains[CHAIN]
            assert (at.end, at.rows, at.row_hash) == (self.end, self.end, 7 * self.end)
            assert (shard.snapshot("clicks").tables["w"].rows == 1.0).all()
        return rows

    # Time and Outside
    def now_ms(self):
        return self.now

    steady_ms = now_ms

    def sleep_ms(self, ms):
        self.now += ms
        self.tell()

    def announce(self, announcement):
        pass

    def check_ref(self, ref):
        return Findings(answers=(0.5,))

    def read_evaluations(self):
        return ()

    def first_vector(self):
        return {CHAIN: 0}

    def each(self, call, items):
        return [call(item) for item in items]


System.check, System.check_all = (
    System.check_ref,
    System.check,
)  # `check` is the driver's question about a checkpoint


def key(n):
    return np.array([n * 0x9E3779B97F4A7C15 % (1 << 64)], np.uint64)


def test_slots_move_and_every_row_with_them():
    system = System()
    system.learn(40)
    for shards in (3, 1, 4, 2):
        step = system.scale(shards)
        assert step.outcome == "published"
        rows = system.check_all(shards)
        assert all(rows)
        system.learn(40)
        system.check_all(shards)
    head = system.driver.catalogue.head()
    assert (head.map_epoch, system.driver.catalogue.slot_map(head).shards) == (5, 2)
    assert system.push(system.ports[3].shard, map_epoch=4).outcome is Outcome.WRONG_MAP, (
        "who stands by is told no era"
    )
    assert [shard.stands_by for shard in (system.ports[2].shard, system.ports[3].shard)] == [
        True,
        True,
    ]


def test_the_checkpoint_of_a_move_holds_only_what_changed_since_the_one_before():
    system = System()
    system.learn(40)
    assert min(system.scale(3).pause) >= 0
    head = system.driver.catalogue.head()
    assert {part.kind for part in head.parts} == {"delta"}
    assert sum(part.rows for part in head.parts) == 0
    assert [part.shard for part in head.parts] == [0, 1]  # those that were


def test_nothing_moves_until_every_shard_of_the_new_map_answers():
    system = System()
    system.learn(5)
    system.ports.down = frozenset({2})
    system.clock.set_shards("clicks", 3)
    for _ in range(5):
        system.now += 1000
        assert (
            system.driver.step().outcome == "idle" or system.driver.catalogue.head().map_epoch == 1
        )
        system.learn()
    system.check_all(2)
    system.ports.down = frozenset()
    system.scale(3)
    system.check_all(3)


def test_nothing_moves_until_every_shard_of_the_new_map_holds_the_last_cut():
    """Starts stand for what is changed then, not for all there is; what is taken for it
    meanwhile is judged late."""
    system = System()
    system.learn(5)
    asked = []
    system.ports[2].prepare = lambda slot_map, manifest: (
        asked.append((slot_map, manifest)) or "it reads"
    )
    system.clock.set_shards("clicks", 3)
    outcomes = []
    system.now += 300
    for _ in range(4):
        system.now += 100
        outcomes.append(system.driver.step().outcome)
        system.learn()
    assert outcomes == ["published", "preparing", "preparing", "preparing"]
    assert system.driver.resharding.waits == "shard 2: it reads"
    head = system.driver.catalogue.head()
    assert set(asked) == {(SlotMap.even(2).resized(3), head.sha256)}
    system.ports[2].prepare = lambda slot_map, manifest: ""
    assert [system.driver.step().outcome for _ in range(2)] == ["prepared", "published"]
    system.tell()
    system.check_all(3)
    head, parent = (
        system.driver.catalogue.head(),
        system.driver.catalogue.chain(system.driver.catalogue.head())[-2],
    )
    assert (head.map_epoch, sum(part.rows for part in head.parts)) == (2, 0)
    assert (parent.map_epoch, sum(part.rows for part in parent.parts)) == (1, 4)
    assert system.driver.catalogue.gates(parent.name) is None, "the move's own is judged"


def test_a_round_before_a_move_may_be_a_base_and_the_move_is_none():
    """Starts stand for what is written then, however many deltas stand in a row."""
    system = System(deltas_max=1)
    system.learn(5)
    system.now += 1000
    system.driver.step()
    system.tell()
    system.learn()
    catalogue = system.driver.catalogue
    full = {head.name: head.is_full for head in catalogue.chain(catalogue.head())}
    assert list(full.values()) == [True, False], "as many deltas as may be"
    system.scale(3)
    full = {head.name: head.is_full for head in catalogue.chain(catalogue.head())}
    assert list(full.values()) == [True, False, False], "round, round and move"


@pytest.mark.parametrize("late", [False, True])
def test_a_cut_for_a_move_that_does_not_come_is_judged(late):
    system = System()
    system.learn(5)
    system.clock.set_shards("clicks", 3)
    system.now += 300
    assert system.driver.step().outcome == "published"
    system.now += 400
    system.learn()
    assert system.driver.step().outcome == "prepared"
    name = system.driver.catalogue.head().name
    assert system.driver.catalogue.gates(name) is None
    system.ports[2].prepare = lambda slot_map, manifest: "it reads"
    if late:
        assert system.driver.step().outcome == "preparing"
        system.now += 6_000
    else:
        system.clock.set_shards("clicks", 2)
    assert system.driver.step().outcome == "published"
    assert system.driver.catalogue.published().name == name
    assert system.driver.step().outcome == ("preparing" if late else "idle")


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    "writes", range(7)
)  # manifest, gates, published; manifest; and those of the move
def test_a_checkpointer_killed_at_any_write_leaves_the_old_map_or_the_new_one(shards, writes):
    system = System()
    system.learn(20)
    system.clock.set_shards("clicks", shards)
    system.files.steps = writes
    killed = False
    for _ in range(5):
        system.now += 1000
        try:
            system.driver.step()
        except Killed:
            killed = True
            break
    assert killed
    system.files.steps = -1
    head, slot_map = system.head()
    system.now += 100_000  # its hold has run out
    for index in range(4):  # whoever starts now finds a map that is whole
        if index % 2:
            system.start(index)
    system.begin_driver()
    for _ in range(6):
        system.now += 1000
        system.driver.step()
        system.epoch = system.clock.join("clicks", "learner-0").epoch
        system.tell()
        system.tell()
        system.catch_up()
    assert system.head()[1].shards == shards
    system.check_all(shards)
    assert head.map_epoch == slot_map.epoch <= 2
    system.learn(20)
    system.check_all(shards)


def test_a_shard_that_restarts_into_a_newer_map_makes_the_others_follow_before_any_start():
    system = System()
    system.learn(20)
    system.clock.set_shards("clicks", 3)
    system.driver.resharding.bring = lambda shards: []  # it dies right behind the manifest
    for _ in range(4):
        system.now += 1000
        system.driver.step()
    assert [shard.slot_map.epoch for shard in system.members] == [1, 1]
    system.start(1)
    assert system.push(system.members[1]).outcome is Outcome.NO_ERA
    system.tell()
    assert system.push(system.members[1]).outcome is Outcome.NO_ERA, (
        "a list for another map opened it"
    )
    system.begin_driver()
    system.now += 1000
    assert system.driver.step().outcome == "moving"
    assert system.start_batch().outcome is StartOutcome.WAIT_STALENESS
    system.tell()
    system.check_all(3)
    system.learn(5)


def test_what_names_another_map_does_nothing():
    system = System()
    system.learn(20)
    before = system.members[0]
    system.scale(3)
    shard = system.members[0]
    assert system.push(shard, map_epoch=1).outcome is Outcome.WRONG_MAP
    assert (
        system.push(shard, map_epoch=1, incarnation=before.incarnation).outcome is Outcome.WRONG_MAP
    )
    assert system.push(shard, incarnation=before.incarnation).outcome is Outcome.WRONG_INCARNATION
    assert shard.pull(PullRequest("clicks", system.epoch, 1, {})).outcome is Outcome.WRONG_MAP
    system.check_all(3)


def test_another_configured_number_is_a_wish_and_voids_the_order():
    system = System()
    system.clock.set_shards("clicks", 3)
    assert system.clock.shards_ordered("clicks") == 3
    again = Clocks(2, 4, 0)
    again.load_settings(system.clocks.settings)
    assert again.shards_ordered("clicks") == 4


def test_training_rolled_back_brings_back_its_map_under_a_newer_epoch():
    system = System()
    system.learn(10)
    system.scale(3)
    system.learn(10)
    old = next(
        e.manifest
        for e in system.driver.catalogue.entries()
        if e.manifest.map_epoch == 1 and e.manifest.number
    )
    system.driver.catalogue.write_training_rollback(
        type(system.driver.catalogue.published())(old.number, old.name, old.sha256)
    )
    system.start(1)
    assert (system.ports[1].shard.slot_map.epoch, system.ports[1].shard.slot_map.shards) == (3, 2)
    system.clocks.settings.clear()
    for _ in range(3):
        system.now += 1000
        system.driver.step()
        system.tell()
    system.end = 10
    system.check_all(2)
    system.learn(3)
    system.check_all(2)
