"""What stands in `verdicts`, read in order: which verdicts apply to an impression, and from when on
that is known.

L3 in numbers: let m(o) be the lowest watermark of all inputs after the record at offset o. `V(d)`
is the first o with m(o) > d. A verdict at o stands before V(d) iff m(o) <= d, so each verdict keeps
its m and is compared with deadlines: whether it applies never depends on when it was read.

One index serves all partitions of a labeler. It forgets what none of them can still need.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labeler.join import ResumePoint
from labeler.labels.verdict_records import VerdictRecord, read_verdicts
from stream import Record
from stream.columns import FEATURE_PREFIX, EntryColumns, GrowingColumns, slice_values
from stream.hashing import NO_KEY, HashKey, hash_strings, session_of
from stream.internal_topics import ALLOW, FORGET, OPERATOR, REJECT, WITHHOLD, Verdict, Watermark
from stream.kernels import I64, U64, Bools

#: Watermark of an input that has none yet.
NO_WATERMARK = 0
#: Watermarks and verdicts held, about 10 to 1,000 bytes each, above which an index is full: with 64
#: partitions some 25 minutes of a live log.
ENTRIES_MAX = 200_000
#: Of the verdicts held, so many may be needed by nobody before they are forgotten, all at once.
UNNEEDED_SHARE = 0.25


class VerdictPoint(NamedTuple):
    """Where to read `verdicts` from, and every input's watermark just before (C4)."""

    offset: int
    watermarks: Mapping[str, int]  # by input; one that is missing has none yet


class Ruling(NamedTuple):
    """Per impression: is it rejected, by which verdict (index of `VerdictIndex.verdict`, or -1),
    is it withheld; is what was to decide on it gone (C7)."""

    rejected: Bools
    by: I64
    withheld: Bools
    unknown: Bools


class _Gap(NamedTuple):
    """Offsets from `first` on that are gone (C7), and the watermarks before them. Whether a verdict
    among them stands before V(d) is not known for deadlines from `low_ms`, m before it, up to m at
    the first rise behind it."""

    first: int
    low_ms: int
    watermarks: tuple[int, ...]


@dataclass(frozen=True)
class _Held:
    """A verdict where it stands."""

    verdict: Verdict
    offset: int
    low_ms: int  # m(offset)
    watermarks: tuple[int, ...]  # just before offset


class VerdictIndex:
    """Verdicts, watermarks and V(d), from a point of `verdicts` on."""

    def __init__(self, inputs: Sequence[str], point: VerdictPoint, hash_key: HashKey = NO_KEY):
        """`inputs` are the names of all fraud inputs
        (`stream.internal_topics.verdicts.input_name`): V waits for each of them. `hash_key` is that
        of the impressions' hashes (`StreamConfig.hash_key`)."""
        self._hash_key = hash_key
        self._inputs = tuple(inputs)
        self._numbers = {name: i for i, name in enumerate(inputs)}
        self._watermarks = tuple(point.watermarks.get(name, NO_WATERMARK) for name in inputs)
        self.next_offset = point.offset
        self.bad = 0  # records that say nothing: every reader passes them over alike
        self._held: GrowingColumns[_Held] = GrowingColumns(self._columns_of)
        self._ids: set[str] = set()
        self._features: set[str] = set()  # whose slices are named
        # where m rose: offset, m, and the watermarks after it; the first entry is the point itself
        self._step_offsets = [point.offset - 1]
        self._step_lows = [min(self._watermarks)]
        self._step_watermarks = [self._watermarks]
        self._gaps: list[_Gap] = []
        self._needs: dict[int, tuple[int, int]] = {}

    @classmethod
    def at(
        cls, inputs: Sequence[str], points: Iterable[ResumePoint], hash_key: HashKey = NO_KEY
    ) -> "VerdictIndex":
        """An index that serves all these partitions: it starts at the lowest of their offsets."""
        first = min(points, key=lambda point: point.verdicts_offset)
        return cls(inputs, VerdictPoint(first.verdicts_offset, first.watermarks), hash_key)

    @property
    def low_ms(self) -> int:
        """All arrivals below this have been judged on every input."""
        return self._step_lows[-1]

    @property
    def is_full(self) -> bool:
        """Whether it holds so much that no more should be read while nobody waits for it."""
        return len(self._step_offsets) * len(self._inputs) + len(self._held) > ENTRIES_MAX

    @property
    def watermarks(self) -> Mapping[str, int]:
        return self._named(self._watermarks)

    def verdict(self, index: int) -> Verdict:
        """Of those that are held, in the order of the log; `Ruling.by` names them so."""
        return self._held.entries[index].verdict

    def names(self, features: Collection[str]) -> bool:
        """Whether a verdict that is held is of a slice of one of these."""
        return not self._features.isdisjoint(features)

    def read(self, records: Iterable[Record]) -> None:
        """The next records of `verdicts`. What is below `next_offset` has been read and is
        passed over."""
        self.take(read_verdicts(records))

    def take(self, heard: Iterable[VerdictRecord]) -> list[VerdictRecord]:
        """The same, of what was heard already; answers the new ones that say nothing."""
        bad: list[VerdictRecord] = []
        for one in heard:
            offset = one.record.offset
            if offset < self.next_offset:
                continue
            self.next_offset = offset + 1
            if isinstance(one.said, Watermark):
                self._on_watermark(one.said, offset)
            elif one.said is not None:
                self._on_verdict(one.said, offset)
            else:
                bad.append(one)
        self.bad += len(bad)
        return bad

    def skip(self, end: int) -> None:
        """C7: the records from `next_offset` up to offset `end` are gone."""
        if end > self.next_offset:
            self._gaps.append(_Gap(self.next_offset, self.low_ms, self._watermarks))
            self.next_offset = end

    def rule(
        self,
        source_hash: U64,
        vendor_hash: U64,
        ts_ms: I64,
        deadline_ms: I64,
        table: pa.Table,
        ids: U64 | None = None,
        decides_from_ms: I64 | None = None,
    ) -> Ruling:
        """Which of these impressions verdicts take out. All deadlines must have been passed
        (`low_ms`). `table` holds the feature columns (`f_<name>`) that slices are named by; a slice
        of another feature covers nothing. Its columns `source` and `vendor` decide whom a verdict
        names: hashes only find the few that it may (F3). `ids` tell which session each belongs to;
        without them none is spared. A verdict that ends at or before `decides_from_ms`, (n,), does
        not decide: of those the index may hold none (L3)."""
        n = len(ts_ms)
        withheld, allowed, forgotten = (np.zeros(n, np.bool_) for _ in range(3))
        by = np.full(n, -1, np.int64)
        unknown = self._unknown(deadline_ms)
        if not n or not len(self._held):
            return Ruling(by >= 0, by, withheld, unknown)
        ordered = np.zeros(n, np.bool_)  # an operator has decided whether it is withheld
        sources, vendors = self._held.column("source"), self._held.column("vendor")
        begins_ms = ts_ms if decides_from_ms is None else np.maximum(ts_ms, decides_from_ms)
        near = self._overlapping(ts_ms, begins_ms, deadline_ms)
        for i in self._naming(near, source_hash, vendor_hash):
            held = self._held.entries[i]
            said = held.verdict
            covered = (ts_ms >= said.from_ms) & (begins_ms < said.to_ms)
            covered &= deadline_ms >= held.low_ms
            if said.source is not None:
                covered &= (source_hash == sources[i]) & _named(table, "source", said.source)
            if said.vendor is not None:
                covered &= (vendor_hash == vendors[i]) & _named(table, "vendor", said.vendor)
            if said.spared and ids is not None:
                covered &= ~np.isin(session_of(ids), said.spared)
            if said.feature is not None:
                covered &= _in_slice(table, said.feature, said.value or "")
            if said.decision == ALLOW:
                allowed |= covered
            elif said.decision == REJECT:
                by[covered & (by < 0)] = i
                if said.rule == FORGET:
                    forgotten |= covered
            elif (
                said.rule == OPERATOR
            ):  # of operators the last word counts, of the breaker too; operators go first
                ordered |= covered
                withheld[covered] = said.decision == WITHHOLD
            else:
                withheld[covered & ~ordered] = said.decision == WITHHOLD
        by[allowed & ~forgotten] = -1
        rejected = by >= 0
        return Ruling(rejected, by, withheld & ~rejected, unknown)

    def point(self, deadline_ms: int, covers_from_ms: int) -> VerdictPoint:
        """Where to read on from after a range whose last deadline is `deadline_ms`, if later
        impressions have event times of `covers_from_ms` or later (C4). A function of the log:
        nothing beyond V(deadline) counts."""
        at = bisect_right(self._step_lows, deadline_ms)
        if at == len(self._step_lows):
            raise ValueError(
                f"watermarks stand at {self.low_ms}, deadline {deadline_ms} has not been passed"
            )
        last = self._step_offsets[at]
        met = next(
            (gap for gap in self._gaps if gap.low_ms <= deadline_ms < self._low_behind(gap)), None
        )
        if len(self._held):
            offset = self._held.column("offset")
            alive = (self._held.column("to_ms") > covers_from_ms) & (offset <= last)
            first = int(np.argmax(alive))
            if alive[first] and (met is None or offset[first] < met.first):
                held = self._held.entries[first]
                return VerdictPoint(held.offset, self._named(held.watermarks))
        if met is not None:  # what comes may be decided there too
            return VerdictPoint(met.first, self._named(met.watermarks))
        return VerdictPoint(last + 1, self._named(self._step_watermarks[at]))

    def need(self, partition: int, deadline_ms: int, covers_from_ms: int) -> None:
        """A partition's next deadlines and event times are at or above these; what nobody needs
        is forgotten."""
        self._needs[partition] = (deadline_ms, covers_from_ms)
        deadline = min(need[0] for need in self._needs.values())
        covers_from = min(need[1] for need in self._needs.values())
        past = bisect_right(self._step_lows, deadline)
        self._gaps = [gap for gap in self._gaps if deadline < self._low_behind(gap)]
        if past > 64 and past < len(self._step_lows):
            del self._step_offsets[:past], self._step_lows[:past], self._step_watermarks[:past]
        needed = self._held.column("to_ms") > covers_from
        if len(needed) - np.count_nonzero(needed) > UNNEEDED_SHARE * len(needed):
            self._held.keep(needed)
            self._ids = {held.verdict.id for held in self._held.entries}
            self._features = {f for held in self._held.entries if (f := held.verdict.feature)}

    def done(self, partition: int) -> None:
        """A partition needs nothing for now: it stands still, or is another's."""
        self._needs.pop(partition, None)

    def _unknown(self, deadline_ms: I64) -> Bools:
        unknown = np.zeros(len(deadline_ms), np.bool_)
        for gap in self._gaps:
            unknown |= (deadline_ms >= gap.low_ms) & (deadline_ms < self._low_behind(gap))
        return unknown

    def _low_behind(self, gap: _Gap) -> int:
        """m at its first rise behind a gap; 2^62 before that."""
        at = bisect_right(self._step_lows, gap.low_ms)
        return self._step_lows[at] if at < len(self._step_lows) else 1 << 62

    def _named(self, watermarks: tuple[int, ...]) -> dict[str, int]:
        return dict(zip(self._inputs, watermarks, strict=True))

    def _on_watermark(self, said: Watermark, offset: int) -> None:
        number = self._numbers.get(said.input)
        if number is None:  # nobody waits for it here
            return
        if said.watermark_ms <= self._watermarks[number]:  # watermarks never go back (F3)
            return
        self._watermarks = (
            *self._watermarks[:number],
            said.watermark_ms,
            *self._watermarks[number + 1 :],
        )
        low = min(self._watermarks)
        if low > self._step_lows[-1]:
            self._step_offsets.append(offset)
            self._step_lows.append(low)
            self._step_watermarks.append(self._watermarks)

    def _on_verdict(self, said: Verdict, offset: int) -> None:
        if said.id in self._ids:  # a repeat changes nothing (F3)
            return
        self._ids.add(said.id)
        self._held.append(_Held(said, offset, self.low_ms, self._watermarks))
        if said.feature:
            self._features.add(said.feature)

    def _columns_of(self, held: Sequence[_Held]) -> EntryColumns:
        said = [one.verdict for one in held]
        sources, vendors = [one.source for one in said], [one.vendor for one in said]
        return {
            "offset": np.array([one.offset for one in held], np.int64),
            "low_ms": np.array([one.low_ms for one in held], np.int64),
            "from_ms": np.array([one.from_ms for one in said], np.int64),
            "to_ms": np.array([one.to_ms for one in said], np.int64),
            "source": self._hashed(sources),
            "vendor": self._hashed(vendors),
            "any_source": np.array([name is None for name in sources], np.bool_),
            "any_vendor": np.array([name is None for name in vendors], np.bool_),
        }

    def _hashed(self, names: Sequence[str | None]) -> U64:
        return hash_strings(pa.array([name or "" for name in names], pa.string()), self._hash_key)

    def _overlapping(self, ts_ms: I64, begins_ms: I64, deadline_ms: I64) -> I64:
        """Verdicts that overlap the range in time, rising."""
        to_ms, from_ms = self._held.column("to_ms"), self._held.column("from_ms")
        overlap = (to_ms > begins_ms.min()) & (from_ms <= ts_ms.max())
        return np.flatnonzero(overlap & (self._held.column("low_ms") <= deadline_ms.max()))

    def _naming(self, which: I64, source_hash: U64, vendor_hash: U64) -> list[int]:
        """Those of these verdicts that name something in the range."""
        if not len(which):
            return []
        column = self._held.column
        named = column("any_source")[which] | np.isin(column("source")[which], source_hash)
        named &= column("any_vendor")[which] | np.isin(column("vendor")[which], vendor_hash)
        found: list[int] = which[named].tolist()
        return found


def _named(table: pa.Table, column: str, name: str) -> Bools | np.bool_:
    """Which rows are this source's or vendor's; all, where the table does not say."""
    if column not in table.column_names:
        return np.bool_(True)
    same: Bools = pc.equal(table.column(column), name).to_numpy(zero_copy_only=False)
    return same


def _in_slice(table: pa.Table, feature: str, value: str) -> Bools:
    name = FEATURE_PREFIX + feature
    if name not in table.column_names:
        return np.zeros(len(table), np.bool_)
    values = slice_values(table.column(name).combine_chunks())
    same: Bools = pc.equal(values, value).to_numpy(zero_copy_only=False)
    return same
