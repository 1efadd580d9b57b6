"""What a labeler wants written: a batch, and the records about single events that go before it
(C6)."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt

from stream import Record, position
from stream.columns import Impressions
from stream.decoding import BadRecord
from stream.internal_topics import BatchHeader, Verdict, cuts, json_object, shown, string_lengths
from stream.log import Headers

REJECTED = "rejected"
QUARANTINE = "quarantine"


@dataclass(frozen=True)
class SideRecord:
    """A record of `rejected` or `quarantine`. Its key names what it is about,
    `topic/partition/position`, so that a repeat after a restart is recognised."""

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


#: What of a bad record's field, reason and producer, and of its key, stands in quarantine, bytes.
TEXT_BYTES_MAX, KEY_BYTES_MAX = 2_048, 16_384


def quarantine_records(
    topic: str, partition: int, bad: Iterable[BadRecord], bytes_max: int
) -> list[SideRecord]:
    """The original bytes, where they stand, and why they cannot be used.

    Of a record above `bytes_max` the first so many bytes, with its length and SHA-256: the rest
    stands where it was found, and a few KB that unpack to many MB are not to be written out whole
    (a record costs at most itself).
    """
    return [quarantine_record(topic, partition, one, bytes_max) for one in bad]


def rows_quarantined(
    bad: Mapping[str, Iterable[BadRecord]], bytes_max: int
) -> tuple[SideRecord, ...]:
    """The same of rows of catalogues, by topic (A1)."""
    by_topic = (quarantine_records(topic, 0, some, bytes_max) for topic, some in bad.items())
    return tuple(chain.from_iterable(by_topic))


def quarantine_record(topic: str, partition: int, one: BadRecord, bytes_max: int) -> SideRecord:
    """The same, of one."""
    at, value = position(one.record.offset), one.record.value or b""
    headers = (
        *_origin(topic, partition, at),
        ("field", _text(one.field)),
        ("reason", _text(one.reason)),
        ("timestamp_ms", str(one.record.timestamp_ms).encode()),
        ("key", (one.record.key or b"")[:KEY_BYTES_MAX]),
        ("producer", (one.record.header("producer") or b"")[:TEXT_BYTES_MAX]),
    )
    if len(value) > bytes_max:
        digest = hashlib.sha256(value).hexdigest()
        headers += (("value_bytes", str(len(value)).encode()), ("value_sha256", digest.encode()))
    return SideRecord(QUARANTINE, _identity(topic, partition, at), value[:bytes_max], headers)


def _text(text: str) -> bytes:
    return text.encode(errors="backslashreplace")[:TEXT_BYTES_MAX].decode(errors="ignore").encode()


def rejected_records(
    topic: str,
    partition: int,
    impressions: Impressions,
    by: npt.NDArray[np.int64],
    verdict: Callable[[int], Verdict],
    bytes_max: int,
) -> list[SideRecord]:
    """One record a verdict: its rule, reason and evidence, and the impressions that it took out of
    the range. Several, of rows that follow each other, where one would be longer than `bytes_max`.

    `by[i]` is the index of impression i's verdict, -1 = none; `verdict` answers it.
    """
    out: list[SideRecord] = []
    for index in np.unique(by[by >= 0]):
        rows = impressions.filter(by == index)
        size = sum(
            (string_lengths(rows.table.column(name)) for name in _NAMED),
            np.zeros(len(rows), np.int64),
        )
        for start, end in pairwise(cuts(_ESCAPED * size + _ROW_BYTES, len(rows), bytes_max)):
            out.append(_rejected(topic, partition, rows.slice(start, end), verdict(int(index))))
    return out


#: Columns of impressions that a rejection names; a byte of them is at most so many in JSON, and the
#: rest of a row this.
_NAMED = ("id", "source", "vendor", "item")
_ESCAPED, _ROW_BYTES = 6, 64


def _rejected(topic: str, partition: int, rows: Impressions, verdict: Verdict) -> SideRecord:
    body = {
        "topic": topic,
        "partition": partition,
        "verdict": verdict.id,
        "rule": verdict.rule,
        "reason": verdict.reason,
        "evidence": verdict.evidence,
        "positions": rows.position.tolist(),
        "ts_ms": rows.ts_ms.tolist(),
        **{name: rows.table.column(name).to_pylist() for name in _NAMED},
    }
    first = int(rows.position[0])
    value = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return SideRecord(
        REJECTED, _identity(topic, partition, first), value, _origin(topic, partition, first)
    )


def rejected_ids(record: Record) -> list[str]:
    """The ids that a record of `rejected` names. Raises MalformedRecord."""
    said = json_object(REJECTED, record.value)
    ids = said.body.get("id")
    if not isinstance(ids, list) or not all(type(one) is str for one in ids):
        said.wrong("id", f"{shown(ids)}, expected a list of strings")
    return ids


def _identity(topic: str, partition: int, at: int) -> bytes:
    return f"{topic}/{partition}/{at}".encode()


def _origin(topic: str, partition: int, at: int) -> Headers:
    return (
        ("topic", topic.encode()),
        ("partition", str(partition).encode()),
        ("position", str(at).encode()),
    )
