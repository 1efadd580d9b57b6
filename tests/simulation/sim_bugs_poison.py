"""Planted bugs about junk on internal topics (C8, F3)."""

from typing import Any

from sim_bug import Patch, bug, replaced

from labeler.labels import verdict_queue as verdict_queue
from labeler.retraction import runner as retracting
from stream.internal_topics import PassedOver


@bug(
    "watermark beyond its input counts",
    "labels close by a watermark that claims more than its input's log holds (F3)",
    first=2,
    step=5,
)
def contradiction_counts() -> list[Patch]:
    def bad(heard: list[Any], ends: Any, ahead_ms: int) -> list[Any]:
        return heard

    return [
        replaced(module.without_contradictions, bad, of=module)
        for module in (verdict_queue, retracting)
    ]


@bug(
    "malformed internal record ends the reader",
    "a record that says nothing is not passed over (C8)",
    first=2,
    step=5,
)
def junk_ends_the_reader() -> list[Patch]:
    def bad(self: PassedOver, at: Any, record: Any, error: Exception) -> None:
        raise error

    return [replaced(PassedOver.add, bad)]
