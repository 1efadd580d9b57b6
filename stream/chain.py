"""A chain of ranges over a source log, and its end, folded from the records that claim to extend it
(C1, C2).

Every reader of a chain (labeler, learner, audit, archive, fraud filter) folds it with this one
class, so they agree on which records count whatever a late or repeated writer does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

LABEL = "label"  # first labels, over `impressions[p]`
LATE = "late"  # what a later reading of `impressions[p]` adds: late clicks, released scopes
RETRACT = "retract"  # what is taken back, over `verdicts`
#: The kinds of chains that share `examples[p]` (C1). A model begins with all of them (S5), written
#: or not.
KINDS = (LABEL, LATE, RETRACT)


class Fold(Enum):
    """What a record is to a chain that stands at E."""

    EXTENDS = "extends"  # start <= E < end: rows below E are trimmed, E becomes end
    BARRIER = "barrier"  # start = end <= E with a barrier above the last one (E3b): E stays
    REPEAT = "repeat"  # anything else at or below E
    DANGLES = "dangles"  # start > E: ignored by everyone, and an alarm (C5)


@dataclass
class Chain:
    """The end E of a chain and the last barrier folded into it. `end` is None before the first
    record is seen.

    A labeler whose `examples[p]` begins after retention passes `end=None` and lets the first
    retained record set E; every other reader starts from an E of its own (C2).
    """

    end: int | None = None
    barrier: int = 0

    def judge(self, start: int, end: int, barrier: int | None = None) -> Fold:
        """What `[start, end)` would be, changing nothing."""
        if end < start:
            raise ValueError(f"range [{start}, {end}) ends before it starts")
        at = start if self.end is None else self.end
        if start > at:
            return Fold.DANGLES
        if start <= at < end:
            return Fold.EXTENDS
        if barrier is not None and start == end and barrier > self.barrier:
            return Fold.BARRIER
        return Fold.REPEAT

    def fold(self, start: int, end: int, barrier: int | None = None) -> tuple[Fold, int]:
        """Fold one record in. Returns its kind and E before it: rows at positions below that are
        trimmed."""
        kind = self.judge(start, end, barrier)
        before = start if self.end is None else self.end
        if kind is Fold.EXTENDS:
            self.end = end
        elif kind is Fold.BARRIER:
            assert barrier is not None
            self.end, self.barrier = before, barrier
        return kind, before


def label_chain(partition: int) -> str:
    """The chain of first labels over `impressions[partition]` (C1)."""
    return f"{LABEL}/{partition}"


def late_chain(partition: int) -> str:
    """The chain of corrections over `impressions[partition]`, read again at a later deadline
    (C1)."""
    return f"{LATE}/{partition}"


def retract_chain(partition: int) -> str:
    """The chain over `verdicts` of what they take back of `examples[partition]` (C1)."""
    return f"{RETRACT}/{partition}"


def begin_vector(impressions: Mapping[int, int], verdicts: int) -> dict[str, int]:
    """The first end of every chain (S5). `impressions`: partition -> the first position to learn;
    `verdicts`: the position in `verdicts` behind which verdicts may take something back."""
    first: dict[str, int] = {}
    for partition, at in sorted(impressions.items()):
        first[label_chain(partition)] = first[late_chain(partition)] = at
        first[retract_chain(partition)] = verdicts
    return first


def kind_of(chain: str) -> str:
    """The part of a chain's name before the slash."""
    return chain.partition("/")[0]


def partition_of(chain: str) -> int:
    """The partition of `examples` that a chain's records stand in: the number after the slash."""
    kind, _, number = chain.partition("/")
    if not kind or not number.isdigit():
        raise ValueError(f"chain {chain!r}: expected '<kind>/<partition>', for example 'label/0'")
    return int(number)
