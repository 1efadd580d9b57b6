"""A driver over two local shards and a store in memory, for the tests of the driver."""

import numpy as np

from checkpointer.config import CheckpointerConfig
from checkpointer.cuts import Driver
from checkpointer.gates import Findings
from checkpointer.store import Announcement, Catalogue, Definition, model_state
from checkpointer.store.files import MemoryFiles
from paramserver import DenseSpec, ModelSpec, Outcome, PushRequest, SlotMap, TableSpec
from paramserver.clocks import Clocks
from paramserver.server import LocalClock, LocalShard
from paramserver.shard import Shard

SPEC = ModelSpec(
    "clicks",
    "d1",
    (TableSpec("w", 1, "sgd", {"rate": 1.0}),),
    DenseSpec({"bias": (1,)}, "sgd", {"rate": 1.0}),
)
CHAINS = ("label/0", "label/1")


class Killed(BaseException):
    """kill -9: nothing of the checkpointer runs after it."""


class CrashingFiles(MemoryFiles):
    """Files whose user dies at the `steps`-th change from now, which is then not made."""

    steps = -1

    def _live(self):
        if self.steps == 0:
            raise Killed
        self.steps -= 1

    def write(self, path, data):
        self._live()
        super().write(path, data)

    def delete(self, path):
        self._live()
        super().delete(path)


class System:
    """Two local shards, one learner that pushes empty-handed or with one row, a store, and
    everything said."""

    def __init__(self, **config):
        self.now = 1_000_000
        self.files = CrashingFiles()
        self.slot_map = SlotMap.even(2)
        self.clocks = Clocks(1, 2, 0)
        self.clock = LocalClock(self.clocks, lambda: self.now)
        self.shards = {}
        for index in range(2):
            self.restart(index, incarnation=1, restore=False)
        self.announced: list[Announcement] = []
        self.findings = Findings(answers=(0.5,))
        self.evaluations: list[dict] = []
        self.first = dict.fromkeys(CHAINS, 100)
        self.config = CheckpointerConfig(
            **{"interval_ms": 1000, "evaluation_wait_ms": 50, **config}
        )
        self.driver = self.checkpointer()
        self.epoch = self.clock.join("clicks", "learner-0").epoch
        self.clock.tell(self.shards)

    def checkpointer(self, digest="d1"):
        spec = SPEC if digest == "d1" else ModelSpec("clicks", digest, SPEC.tables, SPEC.dense)
        definition = Definition(spec, {"kind": "lr"}, {"bias": np.array([0.25], np.float32)})
        driver = Driver(
            self.config,
            definition,
            self.shards,
            self.clock,
            Catalogue(self.files, "clicks"),
            self,
            self,
            "0.1.0",
        )
        driver.recover()
        return driver

    def restart(self, index, incarnation, restore=True):
        head = Catalogue(self.files, "clicks").head() if restore else None
        slot_map = (head and Catalogue(self.files, "clicks").slot_map(head)) or self.slot_map
        self.clocks.remap(slot_map.epoch, slot_map.shards)
        shard = Shard(index, incarnation, slot_map)
        if head is not None:
            shard.restore([model_state(Catalogue(self.files, "clicks"), head)], head.sha256)
        self.shards[index] = LocalShard(shard, self.files.contents)

    def push(self, chain, start, end, shards=(0, 1), barrier=0, key=None, rows=1):
        for index in shards:
            shard = self.shards[index].shard
            mine = key is not None and self._owner(key) == index
            request = PushRequest(
                "clicks",
                self.epoch,
                shard.slot_map.epoch,
                shard.incarnation,
                chain,
                start,
                end,
                0,
                end,
                0,
                row_hash=start * 7,
                rows=rows,
                event_time_max_ms=end,
                barrier=barrier,
                keys={"w": np.array([key], np.uint64)} if mine else {},
                gradients={"w": np.array([[-1.0]], np.float32)} if mine else {},
            )
            assert shard.push(request).outcome is Outcome.APPLIED

    def _owner(self, key):
        return next(
            i for i, at in enumerate(self.slot_map.split(np.array([key], np.uint64))) if len(at)
        )

    # Time and Outside
    def now_ms(self):
        return self.now

    def steady_ms(self):
        return self.now

    def sleep_ms(self, ms):
        self.now += ms

    def announce(self, announcement):
        self.announced.append(announcement)

    def check(self, ref):
        return self.findings

    def read_evaluations(self):
        new, self.evaluations = self.evaluations, []
        return new

    def first_vector(self):
        return dict(self.first)

    def each(self, call, items):
        return [call(item) for item in items]

    def begin(self):
        assert self.driver.step().outcome == "begun"
        assert self.driver.step().outcome == "published"

    def later(self, ms=1000):
        self.now += ms
        return self.driver.step()
