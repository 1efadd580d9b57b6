"""Topics that were deleted and made anew while a labeler was not looking (C7): told by the ids that
brokers give them.

A chain's positions are of the topic that it has read, and cannot begin again: so of the new
impressions those are read whose offsets lie behind what was read of the former ones, once an
operator has said so. Clicks have no such chain: the new ones are read from their second record on,
the first one standing for the place where some are missing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from labeler.join import ResumePoint
from labeler.labels.lost_range import LostRange, accepted
from stream import offset_of, row_of


@dataclass(frozen=True)
class Remade:
    """A topic that was deleted and made anew since it was last read: of what stood in the former
    one and was not read nothing is left, and what stands below offset `end` of this one stays
    unread."""

    topic: str
    partition: int
    end: int
    was: str
    topic_id: str

    @property
    def range(self) -> LostRange:
        """What an operator has to declare lost."""
        return LostRange(self.topic, self.partition, 0, self.end)

    def skipped(self, overrides: Iterable[LostRange]) -> LostRange | None:
        """What is passed over on these words; None if they say nothing of it."""
        end = accepted(overrides, self.topic, self.partition, self.topic_id)
        return self.range._replace(end=end) if end >= self.end else None

    def __str__(self) -> str:
        return (
            f"the topic was deleted and made anew (id {self.was}, now {self.topic_id}): what "
            f"stood in it unread is "
            f"gone, and its offsets 0 to {self.end - 1} would not be read (or begin anew with "
            f"another topic_prefix)"
        )


class Identified(NamedTuple):
    """Where a partition goes on in the topics that are there now."""

    point: ResumePoint
    remade: list[Remade]  # that nobody has accepted yet
    never_read: int  # offsets of new impressions that stay unread, on an operator's override


def identify(
    point: ResumePoint,
    partition: int,
    inputs: tuple[str, str],
    ids: Mapping[str, str],
    lost: Iterable[LostRange],
    read_to: int,
) -> Identified:
    """`inputs`: the topics of impressions and clicks. `ids`: what they are now, "" or missing where
    it is not known. `read_to`: the position up to which the former impressions were read by any
    chain."""
    impressions, _ = inputs
    known, remade, never_read = dict(point.topic_ids), [], 0
    for topic in inputs:
        was, now = known.get(topic, ""), ids.get(topic, "")
        if not now or was == now:
            continue
        end = offset_of(read_to) + bool(row_of(read_to)) if topic == impressions else 1
        if was and end:
            said = accepted(lost, topic, partition, now)
            if said < end:
                remade.append(Remade(topic, partition, end, was, now))
                continue
            if topic == impressions:
                never_read = said
                point = replace(point, ids_offset=said, ids_arrival_max_ms=point.arrival_max_ms)
            else:
                point = replace(point, clicks_offset=0)
        known[topic] = now
    return Identified(replace(point, topic_ids=known), remade, never_read)
