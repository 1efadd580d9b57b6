"""The watcher: sees everything that happens, at the moment it happens, and keeps its own account of
what must hold.

It is told of every record that lands, every read and every push of every shard, and raises
`Violation` naming the invariant. It folds `examples` itself and never asks a core what is right.
"""

from bisect import bisect_left
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sim_admitted import WORDS, AdmittedKeysByModel
from sim_bands import BandsWatch
from sim_catalogue import CatalogueWatch
from sim_counted import CountedWatch
from sim_decoded import header_of, rows_of
from sim_governor import Leased
from sim_log import Message
from sim_poison import is_junk
from sim_recount import Recount
from sim_scenario import SHARDS, TABLE, Scenario
from sim_toy import HOME_MAP, impression_of, keys_of, names_of, partition_of_chain
from sim_violation import Violation

from checkpointer.store import Files, Manifest
from checkpointer.store.manifest import FILE
from paramserver import (
    Epoch,
    MarkReply,
    Outcome,
    PullReply,
    PushReply,
    PushRequest,
    SlotMap,
    slot_of,
)
from paramserver.clocks import Clocks
from paramserver.parts import Snapshot, decode_part, weights, whole
from stream import LABEL, RETRACT, Record, kind_of, partition_of
from stream.internal_topics import BatchHeader, rows_from
from stream.internal_topics.row_hash import row_hashes
from stream.kernels import HASH_MODULUS

Slots = npt.NDArray[np.int32]


def within(positions: list[int], slots: Slots, of: Slots) -> list[int]:
    """The positions whose keys' slots are of these."""
    return [p for p, mine in zip(positions, np.isin(slots, of).tolist(), strict=True) if mine]


def places(header: BatchHeader, rows: pa.RecordBatch) -> tuple[list[int], list[int]]:
    """Where each row stands on its chain, and its name among the toy's keys."""
    names = names_of(header.chain, rows).tolist()
    if kind_of(header.chain) == RETRACT:
        return [header.end - 1] * rows.num_rows, names
    return names, names


@dataclass
class Folded:
    """One chain as it stands in the log: its records, and its rows with the running sum of their
    hashes."""

    end: int = 0
    barrier: int = 0
    records: list[tuple[int, BatchHeader, Record]] = field(
        default_factory=list
    )  # E before it, header, record
    positions: list[int] = field(default_factory=list)  # where each row stands on the chain (C1)
    names: list[int] = field(
        default_factory=list
    )  # what the toy calls it; a clean row of a retraction has none, -1
    floor: int = 0  # of a retraction: what it takes back of impressions below was never learned
    sums: list[int] = field(default_factory=lambda: [0])
    first_bytes: dict[tuple[int, int, int, str], Record] = field(default_factory=dict)
    repeats: int = 0
    trimmed: int = 0
    event_time_max_ms: int = 0

    def hash_between(self, start: int, end: int) -> tuple[int, int]:
        """(rows, h) of `[start, end)`."""
        a, b = bisect_left(self.positions, start), bisect_left(self.positions, end)
        return b - a, (self.sums[b] - self.sums[a]) % HASH_MODULUS

    def add(self, header: BatchHeader, record: Record) -> None:
        if header.start > self.end:
            raise Violation(
                "I2", f"{header.chain} [{header.start}, {header.end}) dangles above {self.end} (C5)"
            )
        same = self.first_bytes.setdefault(
            (header.start, header.end, header.barrier, header.config_hash), record
        )
        if (same.value, same.headers) != (record.value, record.headers):
            a, b = header_of(same.headers), header
            odd = {
                f: (getattr(a, f), getattr(b, f))
                for f in a.__dataclass_fields__
                if getattr(a, f) != getattr(b, f)
            }
            raise Violation(
                "I7",
                f"{header.chain} [{header.start}, {header.end}) written twice differs: "
                f"{odd or 'rows'}",
            )
        if header.start <= self.end < header.end:
            self.trimmed += header.start < self.end
            self._extend(header, record)
        elif header.start == header.end and header.barrier > self.barrier:
            self.barrier = header.barrier
            self.records.append((self.end, header, record))
        else:
            self.repeats += 1

    def _extend(self, header: BatchHeader, record: Record) -> None:
        self.records.append((self.end, header, record))
        if record.value:
            rows = rows_from(rows_of(record.value), self.floor)
            low, high = row_hashes(rows)
            for k, (position, name) in enumerate(zip(*places(header, rows), strict=True)):
                if position >= self.end:
                    self.positions.append(position)
                    self.names.append(name)
                    self.sums.append(self.sums[-1] + int(low[k]) + (int(high[k]) << 64))
        self.end = header.end


@dataclass
class Stand:
    """What the watcher knows of one incarnation of one shard."""

    ends: dict[str, int]
    floors: dict[int, int] = field(
        default_factory=dict
    )  # era -> no older stamp may be applied, for what read here
    acknowledged: dict[Epoch, int] = field(
        default_factory=dict
    )  # -> version of the newest own update it was told of


class Watch:
    """See above."""

    def __init__(self, scenario: Scenario) -> None:
        self.examples, self.verdicts = scenario.stream.examples, scenario.stream.verdicts
        self.begin = scenario.begin
        self.staleness, self.concurrency = scenario.staleness, scenario.concurrency  # as ordered
        self.leased = Leased()
        self.turns = (
            scenario.tuning == "turns" and not scenario.mixed
        )  # pieces of a split batch follow each other
        self.bounds: dict[
            tuple[Epoch, int], int
        ] = {}  # batch (epoch, clock) -> s when it was admitted
        self.folded: dict[str, Folded] = {}
        self.stands: dict[tuple[int, int], Stand] = {}
        self.counts: dict[str, int] = {}
        self.manifests: dict[str, Manifest] = {}
        self.models: dict[str, Snapshot] = {}  # by checksum of the manifest
        self.recount = Recount()
        self.bands = BandsWatch(scenario)
        self.counted = CountedWatch(scenario)
        self.catalogue = CatalogueWatch(scenario)
        self.lexicons = AdmittedKeysByModel()
        self.holds: set[str] = set()
        self.shards = SHARDS  # as ordered
        self.maps = {HOME_MAP.epoch: HOME_MAP.encode()}  # epoch -> owners, of complete cuts (S6)
        self.stood: set[tuple[int, int]] = set()  # (shard, epoch of a map it has taken)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # --- the log ---

    def landed(self, message: Message, record: Record, writer: str) -> None:
        if is_junk(record):
            self.count("junk")
            return
        if message.topic == self.examples and record.header("forged") is None:
            header = header_of(record.headers)
            if partition_of(header.chain) != message.partition:
                raise Violation("C1", f"{header.chain} stands in partition {message.partition}")
            self.fold(header.chain).add(header, record)
            self.count(f"examples of {kind_of(header.chain)}")
            self.count("examples")
        self.bands.landed(message, record)
        self.counted.landed(message, record)
        self.catalogue.landed(message, record)
        if message.topic == self.verdicts:
            self.recount.landed(record)
            self.count("verdicts")

    def fold(self, chain: str) -> Folded:
        if chain not in self.folded:
            of_label = (
                self.begin[f"{LABEL}/{partition_of(chain)}"] if kind_of(chain) == RETRACT else 0
            )
            self.folded[chain] = Folded(floor=of_label)
        return self.folded[chain]

    # --- the shards ---

    def stands_at(self, shard: int, incarnation: int, ends: dict[str, int]) -> None:
        """An incarnation begins or is restored."""
        if any(i >= incarnation for s, i in self.stands if s == shard):
            raise Violation(
                "S2", f"shard {shard} starts as incarnation {incarnation}, which is not new"
            )
        self.stands[shard, incarnation] = Stand(dict(ends))

    def begun(self, shard: int, incarnation: int, ends: dict[str, int]) -> None:
        """S5: an incarnation that had no model has begun one."""
        if not self.stands[shard, incarnation].ends:
            self.stands[shard, incarnation].ends = dict(ends)

    def admitted(self, epoch: Epoch, clock: int, clocks: Clocks, now_ms: int) -> None:
        """The clock holder admitted a batch: the bound of this moment is its own (K2), and every
        shard of the map in force has stood at it by now (S6). A repeat of a start that runs,
        admitted under the map before, is no other."""
        if (epoch, clock) in self.bounds:
            return
        for shard in range(clocks.shards):
            if not any(s == shard and at >= clocks.map_epoch for s, at in self.stood):
                raise Violation(
                    "S6",
                    f"a start is admitted under map {clocks.map_epoch}, which shard {shard} has "
                    f"not",
                )
        self.bounds[epoch, clock] = self.leased.staleness(self.staleness, now_ms)

    def bounded(self, by: tuple[int, int], now_ms: int) -> None:
        """A start was judged by these (K6, K7)."""
        s = self.leased.staleness(self.staleness, now_ms)
        concurrency = self.leased.concurrency(self.concurrency, now_ms)
        if by != (s, concurrency):
            raise Violation(
                "K7", f"a start is judged by {tuple(by)}, and in force are {(s, concurrency)}"
            )

    def takes_map(self, shard: int, slot_map: SlotMap) -> None:
        """S6: a map comes from a complete cut, and an epoch names one map."""
        if self.maps.get(slot_map.epoch) != slot_map.encode():
            raise Violation(
                "S6",
                f"shard {shard} takes a map of epoch {slot_map.epoch} that no complete cut names",
            )
        self.stood.add((shard, slot_map.epoch))

    def mapped(self, shard: int, outcome: Outcome, named: int, stands: int) -> None:
        """S6: what names another map does nothing."""
        if outcome in (Outcome.APPLIED, Outcome.PARTLY_APPLIED) and named != stands:
            raise Violation(
                "S6", f"shard {shard} stands at map {stands}, and serves what names map {named}"
            )

    def read(self, shard: int, epoch: Epoch, clock: int, reply: PullReply) -> None:
        """A pull for batch `clock` was performed (I4)."""
        if reply.outcome is not Outcome.APPLIED:
            return
        stand = self.stands[shard, reply.incarnation]
        if (s := self.bounds[epoch, clock]) >= 0:
            stand.floors[epoch.era] = max(clock - s, stand.floors.get(epoch.era, 0))
        if reply.version < stand.acknowledged.get(epoch, 0):
            raise Violation("I4", f"{epoch} does not see its own update on shard {shard}")

    def pushed(
        self, shard: int, request: PushRequest, clock: int, reply: PushReply, told: bool
    ) -> None:
        """A push was performed; `clock` is the stamp of its batch (I3, I4), `told` whether the
        shard knows its era."""
        self.count(f"push {reply.outcome.value}")
        if reply.outcome is Outcome.OVERLAP:
            # Everyone folds the log the same way, and no shard is ever left within a range that
            # another one passed.
            raise Violation(
                "C2", f"{request.chain} [{request.start}, {request.end}) is pushed without a trim"
            )
        stand = self.stands[shard, reply.incarnation]
        at = stand.ends.get(request.chain, -1)
        if reply.outcome is Outcome.DUPLICATE and request.end > at:
            raise Violation(
                "I3",
                f"shard {shard} says it has {request.chain} up to {request.end}, and stands at "
                f"{at}",
            )
        if reply.outcome is Outcome.NO_ERA and told:
            raise Violation("X1", f"shard {shard} was told its era, and takes no push")
        if reply.outcome not in (Outcome.APPLIED, Outcome.PARTLY_APPLIED):
            return
        where = (
            f"shard {shard}.{reply.incarnation} applied {request.chain} [{request.start}, "
            f"{request.end})"
        )
        if request.start != at:
            raise Violation("I3", f"{where} while it stood at {at}")
        folded = self.fold(request.chain)
        if request.start == request.end:  # a model may begin above the barrier (E3b)
            if request.barrier > folded.barrier:
                raise Violation("E3", f"{where} for barrier {request.barrier}, which did not count")
        elif request.end > folded.end:
            raise Violation("I3", f"{where}, ahead of the folded log at {folded.end}")
        if (request.rows, request.row_hash) != folded.hash_between(request.start, request.end):
            raise Violation("I3", f"{where} with other rows than the folded log")
        if reply.outcome is Outcome.PARTLY_APPLIED:
            raise Violation("I3", f"{where} only in part: {reply.detail}")
        stand.ends[request.chain] = request.end
        words = request.keys[WORDS].tolist() if WORDS in request.keys else []
        self.lexicons.pushed(shard, reply.incarnation, words, request.event_time_max_ms)
        floor = stand.floors.get(request.epoch.era, 0)
        if clock < floor:
            raise Violation(
                "I4", f"{where}, stamped {clock}, after a read that was to see all below {floor}"
            )
        if self.turns and request.rows and reply.staleness:
            raise Violation(
                "I4",
                f"{where}, {reply.staleness} updates after its read, though learners take turns",
            )

    def told(self, shard: int, epoch: Epoch, reply: PushReply) -> None:
        """The learner received the answer."""
        stand = self.stands.get((shard, reply.incarnation))
        if stand is not None and reply.outcome is Outcome.APPLIED:
            stand.acknowledged[epoch] = max(reply.version, stand.acknowledged.get(epoch, 0))

    # --- cuts (X1) ---

    def held(self, cut: str) -> None:
        """The clock holder stops starts for this cut."""
        self.holds.add(cut)

    def marked(self, shard: int, vector: dict[str, int], reply: MarkReply) -> None:
        """A shard answered a mark."""
        ends = {chain: at.end for chain, at in reply.progress.chains.items()}
        if reply.marked and ends != vector:
            raise Violation("X1", f"shard {shard} marks {ends}, and was asked for {vector}")
        if (
            reply.marked and self.stands[shard, reply.incarnation].ends == vector
        ):  # not asked again, later
            self.lexicons.marked(shard, reply.incarnation, vector)

    def writes(self, cut: str) -> None:
        """A part of a marked cut is asked for."""
        if cut.partition(".")[0] not in self.holds:
            raise Violation("X1", f"cut {cut} was marked, and starts were never stopped for it")

    # --- parameters, read from rows ---

    def check_rows(
        self,
        rule: str,
        where: str,
        rows: dict[int, float],
        ends: dict[str, int],
        slots: Slots | None = None,
    ) -> None:
        """Each labelled impression below the ends has one row of exactly 1.0 in each half (of these
        slots, if given), and no other row exists."""
        wrong = {k: w for k, w in rows.items() if w != 1.0}
        if wrong:
            key = min(wrong)
            raise Violation(
                rule,
                f"{where}: {len(wrong)} rows are not 1.0, as {impression_of(key)} = {wrong[key]}",
            )
        found: dict[tuple[int, int], list[int]] = {}
        for key in rows:
            shard, partition, position = impression_of(key)
            found.setdefault((shard, partition), []).append(position)
        for home in range(SHARDS):
            for chain, end in ends.items():
                partition = partition_of_chain(chain)
                folded = self.fold(chain)
                a, b = (bisect_left(folded.positions, at) for at in (self.begin[chain], end))
                expected = sorted(name for name in folded.names[a:b] if name >= 0)
                if slots is not None:
                    expected = within(
                        expected,
                        slot_of(keys_of(home, partition, np.array(expected, np.int64))),
                        slots,
                    )
                if (there := sorted(found.pop((home, partition), []))) != expected:
                    odd = sorted(set(there) ^ set(expected))[:5]
                    raise Violation(
                        rule, f"{where}: rows of {chain} below {end} in half {home} differ at {odd}"
                    )
        if found:
            raise Violation(rule, f"{where}: rows of other slots or chains: {sorted(found)}")

    def check_snapshot(self, rule: str, where: str, snapshot: Snapshot) -> None:
        keys, values = weights(snapshot).tables[TABLE]
        rows = dict(zip(keys.tolist(), values[:, 0].tolist(), strict=True))
        ends = {chain: at.end for chain, at in snapshot.progress.chains.items()}
        self.check_rows(rule, where, rows, ends, snapshot.slots)
        self.check_hashes(where, snapshot)

    def check_words(self, where: str, snapshot: Snapshot, expected: dict[int, float]) -> None:
        """S3: which words have a row, and what was added to it, is a function of the pushes
        applied."""
        keys, values = weights(snapshot).tables[WORDS]
        found = dict(zip(keys.tolist(), values[:, 0].tolist(), strict=True))
        if found != expected:
            odd = sorted(found.items() ^ expected.items())[:4]
            raise Violation("S3", f"{where}: rows of words differ from what was pushed at {odd}")

    def check_hashes(self, where: str, snapshot: Snapshot) -> None:
        for chain, at in snapshot.progress.chains.items():
            if (at.rows, at.row_hash) != self.fold(chain).hash_between(self.begin[chain], at.end):
                raise Violation(
                    "I3", f"{where}: hash of {chain} at {at.end} is not that of the folded log (S7)"
                )

    def complete(self, manifest: Manifest, files: Files) -> None:
        """A manifest was written (I5)."""
        if manifest.name not in files.names(manifest.model) or FILE not in files.names(
            f"{manifest.model}/{manifest.name}"
        ):
            raise Violation("X2", f"{manifest.name} is complete, and does not stand in the store")
        self.manifests[manifest.sha256] = manifest
        self.count("cuts")
        parts = [
            decode_part(files.read(f"{manifest.model}/{manifest.name}/{part.path}"))
            for part in manifest.parts
        ]
        if not manifest.is_full and manifest.parent not in self.models:
            raise Violation("X3", f"{manifest.name} builds on a manifest that was never complete")
        before = (
            []
            if manifest.is_full
            else [(str(manifest.parent), [self.models[str(manifest.parent)]])]
        )
        try:
            model = whole([*before, (manifest.sha256, parts)])
        except ValueError as error:
            raise Violation("X3", f"{manifest.name}: {error}") from error
        self.models[manifest.sha256] = model
        for part, snapshot in zip(manifest.parts, parts, strict=True):
            self.count("full parts" if snapshot.parent is None else "delta parts")
            where = f"{manifest.name}/{part.path}"
            ends = {
                chain: (at.end, at.row_hash, at.rows)
                for chain, at in snapshot.progress.chains.items()
            }
            wanted = {
                chain: (at.end, at.row_hash, at.rows) for chain, at in manifest.chains.items()
            }
            if ends != wanted or snapshot.shard != part.shard:
                raise Violation("I5", f"{where} stands at {ends}, its manifest at {wanted}")
            self.check_hashes(where, snapshot)
        keys, values = weights(model).tables[TABLE]
        rows = dict(zip(keys.tolist(), values[:, 0].tolist(), strict=True))
        self.check_rows("I5", manifest.name, rows, manifest.vector)
        if manifest.map_epoch < max(self.maps):
            raise Violation(
                "S6", f"{manifest.name} goes back to the map of epoch {manifest.map_epoch}"
            )
        if self.maps.setdefault(manifest.map_epoch, manifest.slot_owners) != manifest.slot_owners:
            raise Violation("S6", f"{manifest.name}: another map of epoch {manifest.map_epoch}")
        words = self.lexicons.complete(
            manifest.sha256, manifest.vector, [part.shard for part in manifest.parts]
        )
        self.check_words(manifest.name, model, words)

    def serves(self, replica: str, manifest: Manifest, rows: dict[int, float]) -> None:
        """A replica swapped to this manifest's model (I6)."""
        self.count("served")
        if manifest.sha256 not in self.manifests:
            raise Violation("I6", f"{replica} serves {manifest.name}, which was never complete")
        self.check_rows("I6", f"{replica} serving {manifest.name}", rows, manifest.vector)
