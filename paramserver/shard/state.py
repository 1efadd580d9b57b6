"""All that one shard knows of one model: tables, dense arrays, and the progress that changes
together with them (S1).

`Snapshot` is that as a value: what a cut keeps, what a part of a checkpoint holds, what a shard
restores from.
"""

from zlib import crc32

import numpy as np
import numpy.typing as npt

from paramserver.compensation import NO_COMPENSATION, Compensation
from paramserver.kernel import plain
from paramserver.messages import (
    ChainProgress,
    Keys,
    ModelSpec,
    Progress,
    PushRequest,
    Rows,
)
from paramserver.parts import Snapshot
from paramserver.shard.delay_compensation import GRADIENT_MAX, Compensator
from paramserver.shard.state_copy import StateCopy
from paramserver.slots import SLOT_SHIFT, SlotMap, slot_of
from paramserver.tables import Dense, Table
from stream.kernels import HASH_MODULUS, kernel, mix64

#: Rows of one step of a copy: about a millisecond.
COPY_ROWS = 16_384

_NOT_RISING, _FOREIGN, _NOT_FINITE = 1, 2, 3


@kernel
def _sound(
    keys: Keys,
    words: npt.NDArray[np.uint32],
    owner: npt.NDArray[np.int32],
    shard: int,
    limit: np.uint32,
) -> bool:
    """Whether nothing is wrong with any key or gradient, without a branch in a loop, so that they
    are vectorised.

    `words` are the gradients' bits, flat. Without its sign a float32 compares as an integer does,
    and infinity and NaN are above all others.
    """
    falling, foreign = 0, 0
    for i in range(1, len(keys)):
        falling += keys[i] <= keys[i - 1]
    for i in range(len(keys)):
        foreign += owner[np.int64(mix64(keys[i]) >> SLOT_SHIFT)] != shard
    largest = np.uint32(0)
    for i in range(len(words)):
        word = np.uint32(
            words[i] & np.uint32(0x7FFFFFFF)
        )  # cut at once, or the compiler works in 64 bits
        if word > largest:
            largest = word
    return bool(falling == 0 and foreign == 0 and largest <= limit)


@kernel
def _first_fault(
    keys: Keys, gradients: Rows, owner: npt.NDArray[np.int32], shard: int, limit: np.float32
) -> tuple[int, int]:
    """What is wrong with the first bad key, and its index; (0, 0) if there is none."""
    dim = gradients.shape[1]
    for i in range(len(keys)):
        if i > 0 and keys[i] <= keys[i - 1]:
            return 1, i
        if owner[np.int64(mix64(keys[i]) >> SLOT_SHIFT)] != shard:
            return 2, i
        for j in range(dim):
            if not abs(gradients[i, j]) <= limit:
                return 3, i
    return 0, 0


def range_seed(request: PushRequest) -> int:
    """What a push draws by, unsigned 64 bits: a function of its range, so that the same log
    draws the same."""
    return (crc32(request.chain.encode()) << 32 ^ request.start) & 0xFFFFFFFFFFFFFFFF


class ModelState:
    """The tables, dense arrays and progress of one model on one shard. One writer; `apply`
    changes them together."""

    def __init__(
        self,
        spec: ModelSpec,
        shard: int,
        slot_map: SlotMap,
        begun: dict[str, int],
        compensation: Compensation = NO_COMPENSATION,
        memory_bytes_max: int = 0,
        index_secret: int = 0,
    ) -> None:
        """Empty tables, zero dense arrays, progress at `begun`. ValueError for a spec that cannot
        be.

        `memory_bytes_max`: what rows may take; 0 = no limit. `index_secret`: of the tables'
        indices."""
        self._memory_bytes_max = memory_bytes_max
        self.spec, self.shard, self.slot_map, self.begun = spec, shard, slot_map, dict(begun)
        self.tables = {table.name: Table(table, secret=index_secret) for table in spec.tables}
        if len(self.tables) != len(spec.tables):
            raise ValueError(f"model {spec.name!r}: two tables share a name")
        self.dense = Dense(
            spec.dense, [n for n in sorted(spec.dense.shapes) if slot_map.owner_of_name(n) == shard]
        )
        self.chains = {chain: ChainProgress(end) for chain, end in begun.items()}
        self.next_record: dict[int, int] = {}
        self.version = 0
        self.event_time_max_ms = 0
        self.refused = 0
        self.compensator = Compensator(compensation, self.version)

    def compensate(self, settings: Compensation) -> None:
        """How stale gradients are met from the next push on; what was kept for another way is
        forgotten."""
        if settings != self.compensator.settings:
            before, self.compensator = self.compensator, Compensator(settings, self.version)
            self.compensator.beyond_history = before.beyond_history

    @property
    def progress(self) -> Progress:
        return Progress(
            dict(self.chains), dict(self.next_record), self.version, self.event_time_max_ms
        )

    @property
    def vector(self) -> dict[str, int]:
        """chain -> E."""
        return {chain: at.end for chain, at in self.chains.items()}

    def refusal(self, request: PushRequest) -> str:
        """Why the content of a push cannot be applied, naming table or array and key; "" if it
        can. Changes nothing."""
        if request.start == request.end and (request.keys or request.dense):
            return "an empty range carries no gradients"
        if request.keys.keys() != request.gradients.keys():
            return (
                f"keys of tables {sorted(request.keys)}, gradients of {sorted(request.gradients)}"
            )
        for name, keys in request.keys.items():
            table = self.tables.get(name)
            if table is None:
                return f"table {name!r} is not in model {self.spec.name!r}"
            fault = self._table_fault(table, keys, request.gradients[name], request.rewrites)
            if fault:
                return f"table {name!r}: {fault}"
        if request.rewrites and request.dense:
            return "a push that rewrites rows carries no dense arrays"
        for name, gradient in request.dense.items():
            fault = self.dense.refusal(name, gradient)
            if fault:
                return fault
            if not (np.abs(gradient) <= GRADIENT_MAX).all():
                return f"dense array {name!r}: gradient is not finite, or beyond {GRADIENT_MAX}"
        return ""

    def _table_fault(self, table: Table, keys: Keys, gradients: Rows, whole: bool) -> str:
        what = "row" if whole else "gradient"
        if keys.dtype != np.uint64 or keys.ndim != 1:
            return f"keys are {keys.dtype} {keys.shape}, expected uint64 (n,)"
        expected = (len(keys), table.layout.wide if whole else table.spec.dim)
        if gradients.dtype != np.float32 or gradients.shape != expected:
            return f"{what}s are {gradients.dtype} {gradients.shape}, expected float32 {expected}"
        keys, gradients, owner = plain(keys), plain(gradients), self.slot_map.owner
        if _sound(
            keys,
            gradients.reshape(-1).view(np.uint32),
            owner,
            self.shard,
            GRADIENT_MAX.view(np.uint32),
        ):
            return ""
        fault, i = _first_fault(keys, gradients, owner, self.shard, GRADIENT_MAX)
        if fault == _NOT_RISING:
            return f"key {keys[i]} stands after {keys[i - 1]}: keys must be unique and rising"
        if fault == _FOREIGN:
            return f"key {keys[i]} belongs to another shard"
        if fault == _NOT_FINITE:
            return f"{what} of key {keys[i]} is not finite, or beyond {GRADIENT_MAX}"
        return ""

    def reserve(self, request: PushRequest) -> None:
        """Make room for every table's rows before any is changed (S4). MemoryError leaves the
        model as it was."""
        for name, keys in request.keys.items() if not request.rewrites else ():
            self.tables[name].reserve(keys)

    def apply(self, request: PushRequest, empty: bool) -> None:
        """Apply a push that starts at E, was not refused and has room; `empty` moves progress only
        (S4).

        Parameters and progress change here and nowhere else, and nothing here raises half-way.
        """
        self.version += 1
        now_ms = max(self.event_time_max_ms, request.event_time_max_ms)
        self.dense.advance(self.event_time_max_ms, now_ms)
        seed = range_seed(request)
        for name, table in self.tables.items():
            table.advance(
                self.version, now_ms, len(request.keys.get(name, ())), self.event_time_max_ms, seed
            )
        if self._memory_bytes_max:
            self._leave_room(request)
        if empty:
            self.refused += 1
        elif request.rewrites:
            for name, keys in request.keys.items():
                self.tables[name].rewrite(keys, request.gradients[name], self.version, now_ms)
        else:
            self.compensator.apply(self.tables, self.dense, request, self.version, now_ms)
        at = self.chains[request.chain]
        self.chains[request.chain] = ChainProgress(
            end=request.end,
            row_hash=(at.row_hash + request.row_hash) % HASH_MODULUS,
            barrier=max(at.barrier, request.barrier),
            rows=at.rows + request.rows,
        )
        # Set, not raised: where the chains of a partition interleave, reading a record again is
        # harmless and skipping one is not.
        self.next_record[request.partition] = request.next_record
        self.event_time_max_ms = now_ms

    @property
    def rows_bytes(self) -> int:
        """What the living rows take: a function of the pushes applied, unlike what is reserved
        for them."""
        return sum(len(table) * table.row_bytes for table in self.tables.values())

    @property
    def dropped(self) -> dict[str, int]:
        """Gradients of keys that got no row, in this incarnation, by why."""
        tables = self.tables.values()
        return {
            "room": sum(t.refused for t in tables),
            "admission": sum(t.unadmitted for t in tables),
        }

    @property
    def reseeded(self) -> int:
        """How often an index was made anew, in this incarnation, for keys that crowd together."""
        return sum(table.reseeded for table in self.tables.values())

    def _leave_room(self, request: PushRequest) -> None:
        """What is left of the memory, in equal shares for this push's tables: at the limit they
        evict or refuse."""
        left = max(0, self._memory_bytes_max - self.rows_bytes)
        for name in request.keys:
            if name in self.tables:
                table = self.tables[name]
                table.leave(left // len(request.keys) // table.row_bytes)

    def copy(self) -> StateCopy:
        """Begin an exact copy of this moment, which takes its rows while pushes go on (X1)."""
        head = Snapshot(
            spec=self.spec,
            begun=dict(self.begun),
            progress=self.progress,
            shard=self.shard,
            map_epoch=self.slot_map.epoch,
            slots=self.slot_map.owned(self.shard),
            tables={},
            dense=self.dense.items(),
            refused=self.refused,
            sightings={
                name: table.sightings()
                for name, table in self.tables.items()
                if table.policy.counts
            },
        )
        return StateCopy(head, self.tables)

    def snapshot(self) -> Snapshot:
        """An exact copy at once: O(rows) memory and time while the writer waits."""
        copy = self.copy()
        while not copy.advance(COPY_ROWS):
            pass
        snapshot = copy.snapshot()
        copy.drop()
        return snapshot

    def forget(self, version: int) -> None:
        """Nobody will ask for what was evicted up to this version."""
        for table in self.tables.values():
            table.forget(version)

    def load(self, snapshot: Snapshot) -> None:
        """Become the snapshot, which covers exactly this shard's slots. For a state that nothing
        was applied to."""
        self.follow(snapshot, snapshot.slots[:0])

    def follow(self, cut: Snapshot, anew: npt.NDArray[np.int32]) -> None:
        """Become what one more cut makes of this: what was evicted goes first, and all that is of
        the slots `anew` (X3). For a state that nothing was applied to."""
        for name, table in self.tables.items():
            if len(anew):
                table.clear(anew)
            if name in cut.tombstones:
                table.remove(cut.tombstones[name])
            table.load(cut.tables[name], cut.progress.version)
            if name in cut.sightings:
                table.load_sightings(cut.sightings[name])
        self._stand_at(cut)

    def _stand_at(self, snapshot: Snapshot) -> None:
        """All but tables: dense arrays, progress, counts."""
        self.dense.load(snapshot.dense)
        self.chains, self.next_record = (
            dict(snapshot.progress.chains),
            dict(snapshot.progress.next_record),
        )
        self.version, self.event_time_max_ms = (
            snapshot.progress.version,
            snapshot.progress.event_time_max_ms,
        )
        self.refused = snapshot.refused
        self.compensator = Compensator(self.compensator.settings, self.version)

    def validate(self) -> None:
        """AssertionError if an invariant does not hold. Reads everything; for tests."""
        for name, table in self.tables.items():
            table.validate()
            items = table.items()
            assert (items.version <= self.version).all(), (
                f"table {name!r} knows a version that has not been"
            )
            assert (items.touched_ms <= self.event_time_max_ms).all(), (
                f"table {name!r} is younger than its shard"
            )
            assert (self.slot_map.owner[slot_of(items.keys)] == self.shard).all(), (
                f"table {name!r}: foreign key"
            )
        self.dense.validate()
        assert self.chains.keys() == self.begun.keys(), "begin names all chains (S5)"
        for chain, at in self.chains.items():
            assert at.end >= self.begun[chain], f"chain {chain!r} went back"
            assert 0 <= at.row_hash < HASH_MODULUS
