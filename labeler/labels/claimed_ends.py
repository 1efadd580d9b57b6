"""How far the logs of watermarks' inputs go, as far as it is known: what watermarks claim is
compared with it (F3)."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from stream import Partition, StreamConfig, position
from stream.internal_topics import breaker_input, input_name


class Ends(Protocol):
    """A reader, as far as it is needed here."""

    def end_offsets(self, partitions: Iterable[Partition], /) -> dict[Partition, int]: ...


class ClaimedEnds:
    """Input -> the position behind the last record of its log that is known of. Logs grow, so it
    only rises; it is looked up again when a watermark claims more."""

    def __init__(self, stream: StreamConfig):
        self._sources: dict[str, Partition] = {}
        for p in range(stream.partitions):
            for topic in (stream.impressions, stream.clicks):
                self._sources[input_name(topic, p)] = Partition(topic, p)
            self._sources[breaker_input(p)] = Partition(stream.impressions, p)
        self.ends: Mapping[str, int] = dict.fromkeys(self._sources, 0)

    def exceeded_by(self, claims: Mapping[str, int]) -> bool:
        """Whether one of these claims goes further."""
        return any(end > self.ends[name] for name, end in claims.items() if name in self.ends)

    def look(self, reader: Ends) -> None:
        """Ask for the ends as they are now. Raises Unavailable."""
        found = reader.end_offsets(set(self._sources.values()))
        self.ends = {
            name: max(self.ends[name], position(found[at])) for name, at in self._sources.items()
        }
