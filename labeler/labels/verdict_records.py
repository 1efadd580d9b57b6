"""Records of `verdicts` as they were read: what each says, or why it says nothing (F3).

A watermark says how far its input was read. One that claims a position that its input's log does
not hold, or a time far ahead of its own record, contradicts the log: it is set aside with an alarm
and counts for nothing, as is a record that cannot be read. An honest one never is: what it claims
was read before it was written.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from stream import Record
from stream.internal_topics import MalformedRecord, Verdict, Watermark, decode_verdict


class VerdictRecord(NamedTuple):
    """One record. `said` is None where it says nothing, and `error` then says why."""

    record: Record
    said: Verdict | Watermark | None
    error: MalformedRecord | None = None


def read_verdicts(records: Iterable[Record]) -> list[VerdictRecord]:
    """What these records say."""
    return [_read_verdict(record) for record in records]


def _read_verdict(record: Record) -> VerdictRecord:
    try:
        return VerdictRecord(record, decode_verdict(record.value))
    except MalformedRecord as error:
        return VerdictRecord(record, None, error)


def claims(heard: Iterable[VerdictRecord]) -> dict[str, int]:
    """Input -> the highest position up to which a watermark says that it was read."""
    found: dict[str, int] = {}
    for one in heard:
        if isinstance(one.said, Watermark):
            found[one.said.input] = max(found.get(one.said.input, 0), one.said.end)
    return found


def without_contradictions(
    heard: Iterable[VerdictRecord], ends: Mapping[str, int], ahead_ms: int
) -> list[VerdictRecord]:
    """The same, with watermarks that contradict the log set aside.

    `ends`: input -> the position behind the last record of its log, looked up after `heard` was
    read; a watermark of an input that is not there says nothing. `ahead_ms`: how far one may be
    ahead of its own record's time (T3: an arrival may have jumped by so much unjudged).
    """
    return [_judged(one, ends, ahead_ms) for one in heard]


def _judged(one: VerdictRecord, ends: Mapping[str, int], ahead_ms: int) -> VerdictRecord:
    said = one.said
    if not isinstance(said, Watermark):
        return one
    if said.input not in ends:
        return _contradicts(one, "input", f"{said.input!r:.80} is no input")
    if said.end > ends[said.input]:
        return _contradicts(
            one, "end", f"{said.end} of {said.input}, whose log ends at {ends[said.input]} (F3)"
        )
    stamp_ms = one.record.timestamp_ms
    if stamp_ms > 0 and said.watermark_ms > stamp_ms + ahead_ms:
        ahead = (
            f"{said.watermark_ms - stamp_ms} ms ahead of its own record, allowed are "
            f"{ahead_ms} (F3)"
        )
        return _contradicts(one, "watermark_ms", ahead)
    return one


def _contradicts(one: VerdictRecord, field: str, reason: str) -> VerdictRecord:
    return VerdictRecord(one.record, None, MalformedRecord("verdicts", field, reason))
