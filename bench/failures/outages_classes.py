"""In which class every event of the site stands at the end of `bench.outages`: found by id in what
labelled, rejected, lost and quarantined it, in raw records and by none of the code that is judged.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.failures.recovery_check import Events
from everspun.audit import read_all
from stream import Partition, Record, StreamConfig, label_chain, offset_of
from stream.log import Reader


class Place(NamedTuple):
    """Where the log confirmed an event to stand."""

    partition: int
    offset: int


@dataclass
class KeptOut:
    """What `quarantine` says of `impressions`, and what chains count of it."""

    lost: list[tuple[int, int, int]] = field(default_factory=list)  # partition, offsets [from, to)
    quarantined: set[Place] = field(default_factory=set)
    lost_offsets: int = 0  # that headers of folded records count (C7)

    def read(self, record: Record, impressions: str) -> None:
        """One record of `quarantine`: an operator's word, or a record that cannot be used."""
        topic, partition = record.header("topic"), record.header("partition")
        if topic != impressions.encode() or partition is None:
            return
        if record.header("lost") is not None:
            bounds = (int(record.header(name) or b"0") for name in ("from", "to"))
            self.lost.append((int(partition), *bounds))
        elif record.header("timestamp_ms") is not None:  # words about a record, or times, have none
            position = int(record.header("position") or b"-1")
            self.quarantined.add(Place(int(partition), offset_of(position)))

    def declared_lost(self, place: Place) -> bool:
        return any(p == place.partition and a <= place.offset < b for p, a, b in self.lost)


def read_kept_out(reader: Reader, stream: StreamConfig, begin: Mapping[str, int]) -> KeptOut:
    """All of it. `begin`: where each chain began (S5)."""
    kept = KeptOut()
    for p in range(stream.partitions):
        for record in read_all(reader, Partition(stream.quarantine, p)):
            kept.read(record, stream.impressions)
        end = begin[label_chain(p)]
        for record in read_all(reader, Partition(stream.examples, p)):
            if (record.header("chain") or b"").decode() == label_chain(p):
                first, behind = (int(record.header(name) or b"-1") for name in ("start", "end"))
                if first <= end < behind:
                    kept.lost_offsets += int(record.header("lost_offsets") or b"0")
                    end = behind
    return kept


def classes(
    sent: Iterable[str], placed: Mapping[str, Place], events: Events, kept: KeptOut
) -> dict[str, int]:
    """How many events of the site stand in each class; `missing` are in none, and `doubled` in more
    than one. An event that was sent again stands where it was labelled: of the first place, which
    may be gone, nobody learned."""
    labelled, counts = events.labelled(), dict.fromkeys(_CLASSES, 0)
    for id_ in sent:
        place = placed.get(id_)
        if id_ in events.rejected:
            counts["rejected"] += 1
        elif id_ in labelled:
            counts["learned"] += 1
        elif place is not None and kept.declared_lost(place):
            counts["lost"] += 1
        elif place is not None and place in kept.quarantined:
            counts["quarantined"] += 1
        else:
            counts["missing"] += 1
    return {**counts, "doubled": len(events.doubled()), "lost_offsets": kept.lost_offsets}


_CLASSES = ("learned", "rejected", "lost", "quarantined", "missing")
