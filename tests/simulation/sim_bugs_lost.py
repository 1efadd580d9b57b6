"""Planted bugs about input that is gone (C7), and about what stands in a log and is no record
(T6)."""

from typing import Any

import numpy as np
from sim_bug import Patch, bug, replaced
from sim_log import Broker

from labeler.labels import ClickBuffer, Labelling, Passed
from stream.log import OffsetOutOfRange


@bug(
    "retention passed over in silence",
    "what is gone is read on behind, without a word (C7)",
    first=24,
    step=2,
)
def passed_over_in_silence() -> list[Patch]:
    def bad(self: Labelling, error: OffsetOutOfRange) -> None:
        self._reader.seek(error.partition, error.first)

    return [replaced(Labelling._on_gone, bad)]


@bug(
    "clicks gone are negatives",
    "an impression whose click may be gone is labelled (C7)",
    first=24,
    step=2,
)
def gone_clicks_are_negatives() -> list[Patch]:
    def bad(self: ClickBuffer, arrival_ms: Any, strategy: Any) -> Any:
        return np.zeros(len(arrival_ms), np.bool_)

    return [replaced(ClickBuffer.lost, bad)]


@bug(
    "gone clicks not met again",
    "a resume point stands behind clicks that are gone (C7)",
    first=24,
    step=2,
)
def gone_clicks_not_met_again() -> list[Patch]:
    passed = ClickBuffer.passed

    def bad(self: ClickBuffer, arrival_max_ms: int) -> Passed:
        said = passed(self, arrival_max_ms)
        return said._replace(offset=max(said.offset, int(self._seen.records["offset"][0])))

    return [replaced(ClickBuffer.passed, bad)]


@bug(
    "aborted records are read",
    "what a transaction wrote and took back is read (T6)",
    first=4,
    step=9,
)
def aborted_records_are_read() -> list[Patch]:
    def bad(self: Broker, reader: Any, topic: str, partition: int, offset: int, limit: int) -> Any:
        if not self._serves(reader):
            return [], offset
        found = self.records(topic, partition)[offset : offset + limit]
        return found, offset + len(found)

    return [replaced(Broker.fetch_to, bad)]
