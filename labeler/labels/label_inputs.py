"""Whose watermarks a label waits for (L3)."""

from labeler.config import LabelerConfig
from stream import StreamConfig
from stream.internal_topics import breaker_input, input_name


def awaited_inputs(stream: StreamConfig, labeler: LabelerConfig) -> list[str]:
    """The inputs whose watermarks a label waits for (L3)."""
    partitions = range(stream.partitions)
    names: list[str] = []
    if labeler.await_verdicts:
        names += [
            input_name(topic, p)
            for topic in (stream.impressions, stream.clicks)
            for p in partitions
        ]
    if labeler.await_breaker:
        names += [breaker_input(p) for p in partitions]
    return names
