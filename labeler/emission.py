"""What a labeler wants written: a batch, and the records about single events that go before it (C6)."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream.decode import BadRecord
from stream.events import Impressions
from stream.examples import BatchHeader
from stream.log import Headers
from stream.record import position
from stream.verdicts import Verdict

REJECTED = "rejected"
QUARANTINE = "quarantine"


@dataclass(frozen=True)
class SideRecord:
    """A record of `rejected` or `quarantine`. Its key names what it is about, `topic/partition/position`, so that a
    repeat after a restart is recognised."""

    topic: str  # REJECTED or QUARANTINE: the shell knows the prefixed name
    key: bytes
    value: bytes
    headers: Headers


@dataclass(frozen=True)
class Emission:
    """One record of `examples[p]`. All of `before` must be in the log before it is sent (C6)."""

    header: BatchHeader
    value: bytes
    before: tuple[SideRecord, ...] = ()
    arrival_ms: int = 0  # how far the labeler has got


def quarantine_records(topic: str, partition: int, bad: Iterable[BadRecord]) -> list[SideRecord]:
    """The original bytes, where they stand, and why they cannot be used."""
    return [
        SideRecord(
            QUARANTINE,
            _identity(topic, partition, position(one.record.offset)),
            one.record.value or b"",
            (
                *_origin(topic, partition, position(one.record.offset)),
                ("field", one.field.encode()),
                ("reason", one.reason.encode()),
                ("timestamp_ms", str(one.record.timestamp_ms).encode()),
                ("key", one.record.key or b""),
                ("producer", one.record.header("producer") or b""),
            ),
        )
        for one in bad
    ]


def rejected_records(
    topic: str, partition: int, impressions: Impressions, by: npt.NDArray[np.int64], verdicts: Sequence[Verdict]
) -> list[SideRecord]:
    """One record a verdict: its rule, reason and evidence, and the impressions that it took out of the range.

    `by[i]` is the index of impression i's verdict, -1 = none.
    """
    out: list[SideRecord] = []
    for index in np.unique(by[by >= 0]):
        verdict, rows = verdicts[index], impressions.filter(by == index)
        body = {
            "topic": topic,
            "partition": partition,
            "verdict": verdict.id,
            "rule": verdict.rule,
            "reason": verdict.reason,
            "evidence": verdict.evidence,
            "positions": rows.position.tolist(),
            "ts_ms": rows.ts_ms.tolist(),
            **{name: rows.table.column(name).to_pylist() for name in ("id", "source", "vendor", "item")},
        }
        first = int(rows.position[0])
        value = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        out.append(SideRecord(REJECTED, _identity(topic, partition, first), value, _origin(topic, partition, first)))
    return out


def _identity(topic: str, partition: int, at: int) -> bytes:
    return f"{topic}/{partition}/{at}".encode()


def _origin(topic: str, partition: int, at: int) -> Headers:
    return (
        ("topic", topic.encode()),
        ("partition", str(partition).encode()),
        ("position", str(at).encode()),
    )
