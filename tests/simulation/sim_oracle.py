"""The oracle: what every impression's class and label must be, and where every batch must end, in
slow plain Python.

It reads the logs of one partition from their beginning, after the fact, and shares no code with the
labeler. Where the labeler streams, holds and resumes, the oracle sorts and searches whole lists.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

import pyarrow as pa
from sim_poison import is_junk
from sim_time import step_of_time, timely

from stream import Record, StreamConfig
from stream.hashing import HashKey, hash_strings

LABELLED, REJECTED, DUPLICATE, WITHHELD, QUARANTINED, LOST, WAITING = (
    "labelled", "rejected", "duplicate", "withheld", "quarantined", "lost", "waiting",
)  # fmt: skip
SILENT = "silent"  # of a later reading: it has nothing to say of this impression


def murmur2_partition(key: bytes, partitions: int) -> int:
    """Kafka's default partitioner, after its Java source."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(key[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    rest = key[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return ((h ^ h >> 15) & 0x7FFFFFFF) % partitions


@dataclass
class Row:
    """One impression, or one that could not be read."""

    position: int
    arrival_ms: int
    cls: str = WAITING
    ts_ms: int = 0
    key: str = ""
    id: str = ""
    session: int = -1  # 16 bits of its hash: a verdict may spare it
    source: str = ""
    vendor: str = ""
    features: dict[str, Any] = field(default_factory=dict)
    label: int = 0
    delay_ms: int = -1
    clicks: int = 0  # how many count for it (L1)


@dataclass
class Seen:
    """One record with its arrival, and whether its stamp was believed (T1, T3). A held one has
    neither yet."""

    record: Record
    arrival_ms: int
    believed: bool


@dataclass
class Click:
    position: int
    arrival_ms: int
    ts_ms: int
    key: str
    id: str


def arrivals(records: list[Record], c: StreamConfig, top: int = 0) -> list[Seen]:
    """T1 and T3, from a time on. Records after one whose time is not known yet are not there
    yet."""
    seen: list[Seen] = []
    for i, record in enumerate(records):
        step = step_of_time(records, i, top, c)
        if step is None:
            break  # what stands behind it waits with it
        top, believed = step
        seen.append(Seen(record, top, believed))
    return seen


# --- decoding
# --------------------------------------------------------------------------------------------------


def _text(body: dict[str, Any], name: str) -> str:
    value = body[name]
    if not isinstance(value, str) or not value:
        raise ValueError(name)
    return value


def _number(body: dict[str, Any], name: str) -> int:
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 10**11 <= value < 10**14:
        raise ValueError(name)
    return value


def bodies(record: Record) -> list[dict[str, Any]]:
    """The events of one record, page views spread out. Raises if the record as a whole cannot be
    read."""
    whole = json.loads((record.value or b"").decode())
    out: list[dict[str, Any]] = []
    for body in whole if isinstance(whole, list) else [whole]:
        if not isinstance(body, dict):
            raise ValueError("not an object")
        if "impressions" in body:
            shared = {k: v for k, v in body.items() if k != "impressions"}
            out.extend(
                {
                    **shared,
                    **one,
                    "features": {**shared.get("features", {}), **one.get("features", {})},
                }
                for one in body["impressions"]
            )
        else:
            out.append(body)
    return out


def impression_rows(seen: Seen, partition: int, c: StreamConfig) -> list[Row]:
    """The impressions of one record: a record with a fault that is not a single row's is one
    quarantined row."""
    record = seen.record
    at = record.offset << 20
    if record.is_heartbeat:
        return []
    try:
        key = (record.key or b"").decode()
        if murmur2_partition(record.key or b"", c.partitions) != partition:
            raise ValueError("placed wrongly")
        rows = []
        for k, body in enumerate(bodies(record)):
            row = Row(
                at | k, seen.arrival_ms, WAITING, _number(body, "ts_ms"), key, _text(body, "id")
            )
            row.session = session_bits(key, c.hash_key)
            row.source, row.vendor = _text(body, "source"), _text(body, "vendor")
            row.features = body.get("features", {})
            _text(body, "item")
            if not timely(row.ts_ms, seen.arrival_ms, record.timestamp_ms, c):
                raise ValueError("ts_ms")
            rows.append(row)
        return rows
    except (ValueError, KeyError, TypeError):
        return [Row(at, seen.arrival_ms, QUARANTINED)]


def click_rows(seen: Seen, partition: int, c: StreamConfig) -> list[Click]:
    record = seen.record
    if record.is_heartbeat:
        return []
    try:
        key = (record.key or b"").decode()
        if murmur2_partition(record.key or b"", c.partitions) != partition:
            raise ValueError("placed wrongly")
        out = []
        for k, body in enumerate(bodies(record)):
            ts = _number(body, "ts_ms")
            if not timely(ts, seen.arrival_ms, record.timestamp_ms, c):
                raise ValueError("ts_ms")
            out.append(Click(record.offset << 20 | k, seen.arrival_ms, ts, key, _text(body, "id")))
        return out
    except (ValueError, KeyError, TypeError):
        return []


# --- labels
# --------------------------------------------------------------------------------------------------


class When(NamedTuple):
    """A reading: which clicks count, by event time, and how long after an impression's arrival
    it is decided (L1)."""

    window_ms: int
    wait_ms: int
    click_wait_ms: int | None = None  # where clicks are waited for less long than verdicts


def first_and_last(c: StreamConfig) -> tuple[When, When]:
    """When `label/p` reads and when `late/p` does, after docs/labels.md; the same twice where
    there is but one."""
    whole = When(c.window_ms, c.window_ms + c.grace_ms)
    if c.label_strategy == "eager":
        return When(-1, 0), whole
    if c.label_strategy == "window+correct":
        return whole, When(c.late_window_ms, c.late_window_ms + c.grace_ms)
    if c.release_ms:
        return whole, When(c.window_ms, c.release_ms + c.grace_ms, whole.wait_ms)
    return whole, whole


@dataclass
class Truth:
    """Everything the oracle knows of one partition."""

    rows: list[Row]
    #: where batches end (C3), rising
    ends: list[int]
    #: first position whose arrival is not known yet
    known_to: int
    by_position: dict[int, Row] = field(default_factory=dict)
    #: the records, with their arrivals
    seen: list[Seen] = field(default_factory=list)


class Verdicts:
    """`verdicts`, parsed once: when all inputs had been judged up to a time (L3), and who was
    ruled against."""

    def __init__(self, records: list[Record], inputs: list[str]) -> None:
        marks: dict[str, int] = {}
        self.lows: list[int] = []  # after each record, the lowest watermark of all inputs
        self.verdicts: list[
            tuple[int, dict[str, Any]]
        ] = []  # where each was first said: a repeat is no later word
        said: set[str] = set()
        for record in records:
            body = {} if is_junk(record) else json.loads(record.value or b"{}")
            if body.get("kind") == "watermark":
                marks[body["input"]] = max(marks.get(body["input"], 0), body["watermark_ms"])
            elif body.get("kind") == "verdict" and body["id"] not in said:
                said.add(body["id"])
                self.verdicts.append((record.offset, body))
            self.lows.append(min(marks.get(name, 0) for name in inputs))

    def offset_past(self, deadline_ms: int) -> int | None:
        """V(i): the first offset at which every input's watermark has passed the deadline (L3)."""
        return next((o for o, low in enumerate(self.lows) if low > deadline_ms), None)

    def ruling(self, before: int, row: Row, age_max_ms: int) -> str | None:
        """What the verdicts that stand before an offset decide of a row: 'allow' takes back
        'reject'; of withholding, the last word counts, an operator's before the breaker's."""
        said = [v for offset, v in self.verdicts if offset < before and covers(v, row)]
        said = [v for v in said if v["to_ms"] > row.arrival_ms - age_max_ms]
        found = {v["decision"] for v in said}
        if "reject" in found and "allow" not in found:
            return "reject"
        words = [v for v in said if v["decision"] in ("withhold", "release")]
        words = [v for v in words if v["rule"] == "operator"] or words
        return "withhold" if words and words[-1]["decision"] == "withhold" else None


@cache
def session_bits(key: str, hash_key: HashKey) -> int:
    """The session as verdicts name it."""
    return int(hash_strings(pa.array([key]), hash_key)[0]) >> 48


def covers(v: dict[str, Any], row: Row) -> bool:
    """Whether a verdict's interval and scope hold a row."""
    if not v["from_ms"] <= row.ts_ms < v["to_ms"]:
        return False
    if row.session in v.get("spared", ()):
        return False
    if (v["source"] or row.source) != row.source or (v["vendor"] or row.vendor) != row.vendor:
        return False
    return "feature" not in v or row.features.get(v["feature"], "") == v["value"]


class Since(NamedTuple):
    """Where labelling goes on: what was read before is known by time only."""

    position: int = 0
    impressions_ms: int = 0
    clicks_ms: int = 0
    clicks_gone: bool = False  # whether clicks are missing before those that are given (C7)


BEGINNING = Since()


def truth(
    partition: int,
    impressions: list[Record],
    clicks: list[Record],
    verdicts: list[Record],
    c: StreamConfig,
    inputs: list[str],
    when: When,
    since: Since = BEGINNING,
) -> Truth:
    """Classes, labels and batch ends of one partition by one reading, as far as these logs decide
    them. `inputs` are those whose watermarks labels wait for; without any, verdicts are not looked
    at. Of what stands below `since` only the ids count."""
    seen = arrivals(impressions, c, since.impressions_ms)
    by_record = [impression_rows(s, partition, c) for s in seen]
    rows = [row for rows in by_record for row in rows]
    seen_clicks = arrivals(clicks, c, since.clicks_ms)
    all_clicks = [click for s in seen_clicks for click in click_rows(s, partition, c)]
    read_to_ms = seen_clicks[-1].arrival_ms if seen_clicks else 0
    verdict_index = Verdicts(verdicts, inputs) if inputs else None
    clicks_of: dict[tuple[str, str], list[Click]] = {}
    for click in all_clicks:
        clicks_of.setdefault((click.key, click.id), []).append(click)
    last: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.cls == QUARANTINED:
            continue
        deadline = row.arrival_ms + when.wait_ms
        before = verdict_index.offset_past(deadline) if verdict_index else 0
        counting = [k for k in clicks_of.get((row.key, row.id), ()) if counts(k, row, when, c)]
        duplicate = last.get((row.key, row.id), -1) >= row.arrival_ms - c.dedup_ms
        last[row.key, row.id] = row.arrival_ms
        if deadline >= read_to_ms or before is None:
            continue
        decision = verdict_index.ruling(before, row, c.age_max_ms) if verdict_index else None
        if duplicate:
            row.cls = DUPLICATE
        elif decision == "reject":
            row.cls = REJECTED
        elif decision == "withhold":
            row.cls = WITHHELD
        else:
            row.cls = (
                LOST
                if since.clicks_gone and may_lack_clicks(row, seen_clicks, since, when, c)
                else LABELLED
            )
            row.clicks = len(counting)
            if counting:
                row.label, row.delay_ms = 1, max(counting[0].ts_ms - row.ts_ms, 0)
    known_to = (seen[-1].record.offset + 1) << 20 if seen else 0
    ahead = [
        (s, [row for row in its if row.position >= since.position])
        for s, its in zip(seen, by_record, strict=True)
    ]
    ahead = [(s, its) for s, its in ahead if its or s.record.offset << 20 >= since.position]
    rows = [row for _, its in ahead for row in its]
    ends = batch_ends([s for s, _ in ahead], [its for _, its in ahead], c)
    return Truth(rows, ends, known_to, {row.position: row for row in rows}, seen)


def late_truth(first: Truth, last: Truth) -> Truth:
    """What `late/p` must say: the clicks that the first reading did not know, and what it withheld
    and was released. What was rejected stays so; what is taken out between the readings keeps the
    label it has (L8)."""
    rows = [
        replace(after, cls=_late_class(before, after))
        for before, after in zip(first.rows, last.rows, strict=True)
    ]
    return replace(last, rows=rows, by_position={row.position: row for row in rows})


def _late_class(before: Row, after: Row) -> str:
    if WAITING in (before.cls, after.cls):
        return WAITING
    if after.cls != LABELLED:
        return SILENT
    clicked_since = before.cls == LABELLED and after.label > before.label
    return LABELLED if clicked_since or before.cls == WITHHELD else SILENT


def counts(click: Click, row: Row, when: When, c: StreamConfig) -> bool:
    """L1."""
    wait_ms = when.wait_ms if when.click_wait_ms is None else when.click_wait_ms
    in_time = row.arrival_ms - c.grace_ms <= click.arrival_ms <= row.arrival_ms + wait_ms
    delay_ms = click.ts_ms - row.ts_ms
    return in_time and when.window_ms >= 0 and -c.early_click_ms <= delay_ms <= when.window_ms


def may_lack_clicks(
    row: Row, clicks: list[Seen], since: Since, when: When, c: StreamConfig
) -> bool:
    """C7: whether one of the clicks that are gone, which arrived up to where time is first moved
    behind them, might have counted."""
    wait_ms = when.wait_ms if when.click_wait_ms is None else when.click_wait_ms
    last_ms = next((s.arrival_ms for s in clicks if s.arrival_ms > since.clicks_ms), None)
    gone_later = last_ms is None or row.arrival_ms - c.grace_ms <= last_ms
    return gone_later and row.arrival_ms + wait_ms >= since.clicks_ms


def batch_ends(seen: Sequence[Seen], by_record: Sequence[list[Row]], c: StreamConfig) -> list[int]:
    """C3, from the beginning of these."""
    ends: list[int] = []
    held, bucket = 0, None
    for s, rows in zip(seen, by_record, strict=True):
        at = s.record.offset << 20
        its = s.arrival_ms // c.flush_ms
        if bucket is not None and its > bucket:
            if not ends or ends[-1] < at:
                ends.append(at)
            held, bucket = 0, None
        bucket = its if bucket is None else bucket
        for k, row in enumerate(rows):
            held += 1
            if held == c.batch_rows_max:
                ends.append(row.position + 1)
                held, bucket = 0, (its if k + 1 < len(rows) else None)
    return ends
