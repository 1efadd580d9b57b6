"""Evaluation sums by cut: which scored batches belong to a checkpoint, each counted once (E1)."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from checkpointer.store import SUM_MAX, Evaluation, read
from stream import KINDS, kind_of, partition_of
from stream.internal_topics import Fields, MalformedRecord

#: The sums that a record carries, and of what type they are.
_SUMS = {f.name: type(f.default) for f in fields(Evaluation) if f.name not in ("batches", "slices")}


def _read(record: Mapping[str, Any]) -> tuple[str, int, int, Evaluation]:
    """Chain, start, end and sums. Raises MalformedRecord, also for a chain that no model has
    (C1)."""
    said = Fields.of("evaluations", dict(record))
    chain, start = said.text("chain"), said.integer("start", low=0)
    end = said.integer("end", low=start)
    try:
        partition_of(chain)
        by_slice = read(said.mapping("slices"))
    except (AttributeError, TypeError, ValueError) as error:
        raise MalformedRecord("evaluations", "chain or slices", str(error)) from error
    if kind_of(chain) not in KINDS:
        said.wrong("chain", f"{chain!r:.80}, expected one of {', '.join(KINDS)}, and a partition")
    sums: dict[str, Any] = {
        name: said.integer(name, 0, -SUM_MAX, SUM_MAX) if kind is int else said.number(name, 0.0)
        for name, kind in _SUMS.items()
    }
    if max(map(abs, sums.values())) > SUM_MAX:
        said.wrong("sums", f"{max(map(abs, sums.values()))}, allowed is up to {SUM_MAX}")
    return chain, start, end, Evaluation(1, **sums, slices=by_slice)


@dataclass
class Evaluations:
    """Folds the records of `evaluations` of one model. Keyed (model, chain, start); the first
    counts (E1).

    A record counts to the first cut taken after it was read whose vector has reached its end. So
    sums may lag by what had not been read when a manifest was written, and no record counts twice
    or, while this lives, never.
    """

    model: str
    #: starts remembered per chain; a repeat of an older one, below what was taken, is told by being
    #: below them all, and of those beyond it the farthest is forgotten
    starts_max: int = 65_536
    records_bad: int = 0
    last_bad: str = ""  # why the last of them is
    forgotten: int = 0  # evaluations that waited for a cut while so many others came
    _chains: frozenset[str] = frozenset()  # those of the model; none = not known yet
    _waiting: dict[str, dict[int, tuple[int, Evaluation]]] = field(default_factory=dict)
    _late: dict[str, dict[int, float]] = field(
        default_factory=dict
    )  # chain -> start -> late share that it had
    _starts: dict[str, list[int]] = field(default_factory=dict)  # in order
    _floor: dict[str, int] = field(default_factory=dict)
    _taken: dict[str, int] = field(default_factory=dict)  # the last cut's vector

    def skip(self, vector: Mapping[str, int]) -> None:
        """What starts below this vector was counted by a checkpoint that is there already."""
        self._chains, self._taken = frozenset(vector), dict(vector)
        for chain, end in vector.items():
            self._floor[chain] = max(end, self._floor.get(chain, 0))

    def add(self, record: Mapping[str, Any]) -> bool:
        """Whether this record is the first of its key. One that cannot be read is counted in
        `records_bad`."""
        if record.get("model") != self.model:
            return False
        try:
            chain, start, end, sums = _read(record)
            if self._chains and chain not in self._chains:
                raise MalformedRecord(
                    "evaluations", "chain", f"the model has none of name {chain!r:.80}"
                )
        except MalformedRecord as error:
            self.records_bad += 1
            self.last_bad = str(error)
            return False
        if not self._is_first(chain, start):
            return False
        waiting = self._waiting.setdefault(chain, {})
        if (
            len(waiting) >= self.starts_max
        ):  # of a chain that nobody learns, or far beyond what is learned
            self._forget(chain, next(iter(waiting)))
        waiting[start] = (end, sums)
        if (share := _late_share(record)) is not None:
            self._late.setdefault(chain, {})[start] = share
        return True

    def rows_within(self, vector: Mapping[str, int]) -> int:
        """Scored rows that `take` would count."""
        return sum(
            s.rows
            for c, w in self._waiting.items()
            for end, s in w.values()
            if end <= vector.get(c, -1)
        )

    def sums(self, vector: Mapping[str, int]) -> Evaluation:
        """The sums of all that waits and ended at or before this vector (chain -> E)."""
        total = Evaluation()
        for chain, waiting in self._waiting.items():
            for end, sums in waiting.values():
                if end <= vector.get(chain, -1):
                    total += sums
        return total

    def late_share(self, vector: Mapping[str, int]) -> float | None:
        """The share of late clicks that answers were corrected by, over the rows that `sums`
        counts; None = by none."""
        rows = total = 0.0
        for chain, shares in self._late.items():
            for start, share in shares.items():
                end, sums = self._waiting[chain][start]
                if end <= vector.get(chain, -1):
                    rows += sums.rows
                    total += sums.rows * share
        return total / rows if rows > 0 else None

    def take(self, vector: Mapping[str, int]) -> Evaluation:
        """`sums`, which are then forgotten: a manifest carries them."""
        total = self.sums(vector)
        self._taken = dict(vector)
        for chain, waiting in self._waiting.items():
            for start in [s for s, (end, _) in waiting.items() if end <= vector.get(chain, -1)]:
                del waiting[start]
                self._late.get(chain, {}).pop(start, None)
        return total

    def _is_first(self, chain: str, start: int) -> bool:
        starts = self._starts.setdefault(chain, [])
        at = bisect_left(starts, start)
        if start < self._floor.get(chain, 0) or starts[at : at + 1] == [start]:
            return False
        starts.insert(at, start)
        if len(starts) <= self.starts_max:
            return True
        if starts[0] < self._taken.get(chain, 0):
            self._floor[chain] = max(starts.pop(0) + 1, self._floor.get(chain, 0))
            return True
        farthest = starts.pop()
        self._forget(chain, farthest)
        return farthest != start

    def _forget(self, chain: str, start: int) -> None:
        self._waiting.get(chain, {}).pop(start, None)
        self._late.get(chain, {}).pop(start, None)
        self.forgotten += 1


def _late_share(record: Mapping[str, Any]) -> float | None:
    """What a record says of how its answers were corrected; None = nothing that can be."""
    said = record.get("correction")
    share = said.get("share") if isinstance(said, Mapping) else None
    return float(share) if isinstance(share, int | float) and 0.0 <= share <= 1.0 else None
