"""The highest watermark of each input that stands in `verdicts`: what a filter that begins may
not go below (F3)."""

from labeler.io import TailReader
from labeler.labels import ClaimedEnds, read_verdicts, without_contradictions
from stream import Partition, Record, StreamConfig
from stream.internal_topics import Watermark, input_name
from stream.log import Log, Reader

#: Records of `verdicts` read back at first, and at most: an input that is silent for longer has no
#: floor.
FIRST_RECORDS, RECORDS_MAX = 2_000, 200_000


def sent_watermarks(log: Log, stream: StreamConfig) -> dict[str, int]:
    """By input, ms; as the last records say, those aside that contradict the log. Raises
    Unavailable."""
    verdicts = Partition(stream.verdicts, 0)
    inputs = {
        input_name(topic, p)
        for topic in (stream.impressions, stream.clicks)
        for p in range(stream.partitions)
    }
    claimed = ClaimedEnds(stream)
    tail = TailReader(log, stream.poll_records_max)
    try:
        claimed.look(tail)
        count = FIRST_RECORDS
        while True:
            found: dict[str, int] = {}

            def take(records: list[Record], found: dict[str, int] = found) -> None:
                heard = without_contradictions(
                    read_verdicts(records), claimed.ends, stream.watermark_ahead_ms
                )
                for said in (one.said for one in heard):
                    if isinstance(said, Watermark) and said.input in inputs:
                        found[said.input] = max(found.get(said.input, 0), said.watermark_ms)

            tail.read(verdicts, count, take)
            start, _ = tail.span(verdicts, count)
            if len(found) == len(inputs) or count >= RECORDS_MAX or start == tail.first(verdicts):
                return found
            count *= 10
    finally:
        tail.close()


class InputEnds:
    """Looks up how far the inputs' logs go. Its reader is kept: a filter asks at most batches, and
    over TLS a connection costs more than many questions. One look at a time."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._reader: Reader | None = None

    def look(self, claimed: ClaimedEnds) -> None:
        """Raises Unavailable."""
        if self._reader is None:
            self._reader = self._log.reader()
        claimed.look(self._reader)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
