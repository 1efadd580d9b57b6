"""The highest watermark of each input that stands in `verdicts`: what a filter that begins may not go below (F3)."""

from collections.abc import Collection

from labeler.tail import TailReader
from stream.log import Log
from stream.record import Partition, Record
from stream.verdicts import Watermark, decode_verdict

#: Records of `verdicts` read back at first, and at most: an input that is silent for longer has no floor.
FIRST_RECORDS, RECORDS_MAX = 2_000, 200_000


def sent_watermarks(log: Log, verdicts: Partition, inputs: Collection[str], poll_records_max: int) -> dict[str, int]:
    """By input, ms; what the last records say. Raises Unavailable."""
    tail = TailReader(log, poll_records_max)
    try:
        count = FIRST_RECORDS
        while True:
            found: dict[str, int] = {}

            def take(records: list[Record], found: dict[str, int] = found) -> None:
                for record in records:
                    try:
                        said = decode_verdict(record.value or b"")
                    except ValueError:
                        continue
                    if isinstance(said, Watermark) and said.input in inputs and isinstance(said.watermark_ms, int):
                        found[said.input] = max(found.get(said.input, 0), said.watermark_ms)

            tail.read(verdicts, count, take)
            start, _ = tail.span(verdicts, count)
            if len(found) == len(inputs) or count >= RECORDS_MAX or start == tail.first(verdicts):
                return found
            count *= 10
    finally:
        tail.close()
