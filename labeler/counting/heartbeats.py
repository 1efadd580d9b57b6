"""When a live partition needs its heartbeat (T2)."""

from collections.abc import Iterable

from stream import CLOCK_MS, CONTROL, HEARTBEAT, Partition, StreamConfig
from stream.decoding.catalogues import HEARTBEAT_KEY
from stream.log import Headers


class Heartbeats:
    """Every partition of `impressions` and `clicks` that this labeler owns, used or not, each
    `heartbeat_ms`; and with partition 0 the catalogues (A2).

    They keep time moving where nobody shops, so that ranges, buckets and watermarks close. Only the
    owner of a live partition writes them: a replayed topic has history's own, and a heartbeat of
    now would end its past (T2).
    """

    def __init__(self, stream: StreamConfig):
        """Raises ValueError for a replayed topic."""
        if stream.replayed:
            raise ValueError(
                "stream.replayed = true: only the replayer writes heartbeats to a replayed topic "
                "(T2)"
            )
        self._topics = (stream.impressions, stream.clicks)
        self._catalogues = [Partition(topic, 0) for topic in stream.catalogues.values()]
        self._heartbeat_ms = stream.heartbeat_ms
        self._last_ms: dict[Partition, int] = {}

    def due(self, partitions: Iterable[int], now_ms: int) -> list[Partition]:
        """Those to be written now; they count as written."""
        mine = list(partitions)
        owned = [Partition(topic, p) for p in mine for topic in self._topics]
        owned += self._catalogues if 0 in mine else ()
        self._last_ms = {at: self._last_ms[at] for at in owned if at in self._last_ms}
        due = [
            at
            for at in owned
            if not 0 <= now_ms - self._last_ms.get(at, -self._heartbeat_ms) < self._heartbeat_ms
        ]
        self._last_ms.update(dict.fromkeys(due, now_ms))
        return due

    def key(self, at: Partition) -> bytes | None:
        """Of a heartbeat there: a compacted topic takes none without (A2)."""
        return HEARTBEAT_KEY if at in self._catalogues else None


def heartbeat_headers(now_ms: int) -> Headers:
    """The headers of a heartbeat whose writer's clock says `now_ms`."""
    return ((CONTROL, HEARTBEAT.encode()), (CLOCK_MS, str(now_ms).encode()))
