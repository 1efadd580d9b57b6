"""What a labeler must write for one partition, computed from whole logs in slow plain Python (L,
C and E3 rules)."""

import json
from dataclasses import dataclass, field

from sim_time import step_of_time, timely

W = 20  # position of a row = offset << W | row


@dataclass
class Row:
    position: int
    arrival: int
    ts: int = 0
    id: str = ""
    source: str = ""
    vendor: str = ""
    features: dict = field(default_factory=dict)
    bad: bool = False
    duplicate: bool = False


@dataclass
class Seen:
    """A record with its arrival; `top` is the arrival maximum just before it."""

    offset: int
    arrival: int
    top: int
    rows: list[Row]
    heartbeat: bool
    barrier: int


@dataclass
class Range:
    start: int
    end: int
    records: list[Seen]
    rows: list[Row] = field(default_factory=list)

    @property
    def deadline_arrival(self):
        return self.rows[-1].arrival if self.rows else self.records[-1].arrival

    @property
    def arrival_max(self):
        return self.records[-1].arrival


def see(records, config, is_click):
    """T1, T3: arrivals, and the rows of each record; stops before a record whose time is not yet
    known."""
    seen, top = [], 0
    for n, record in enumerate(records):
        step = step_of_time(records, n, top, config)
        if step is None:
            break
        before, (top, believed) = top, step
        rows = []
        if not record.is_heartbeat:
            rows = read_rows(record, top, config, is_click)
            if rows is None:
                rows = [Row(record.offset << W, top, bad=True)]
        seen.append(
            Seen(
                record.offset,
                top,
                before,
                rows,
                record.is_heartbeat,
                (believed and record.barrier) or 0,
            )
        )
    return seen


def read_rows(record, arrival, config, is_click):
    try:
        bodies = json.loads(record.value)
    except ValueError:
        return None
    rows = []
    for k, body in enumerate(bodies if isinstance(bodies, list) else [bodies]):
        if not timely(body["ts_ms"], arrival, record.timestamp_ms, config):
            return None
        rows.append(Row(record.offset << W | k, arrival, body["ts_ms"], body["id"]))
        if not is_click:
            rows[-1].source, rows[-1].vendor = body["source"], body["vendor"]
            rows[-1].features = body.get("features", {})
    return rows


def mark_duplicates(seen, config):
    last = {}
    for record in seen:
        for row in record.rows:
            if not row.bad:
                row.duplicate = row.id in last and last[row.id] >= row.arrival - config.dedup_ms
                last[row.id] = row.arrival


@dataclass
class Plan:
    """A reading: how long it waits and which clicks count; for a later one also what the first
    one was."""

    window: int
    wait: int
    first: "Plan | None" = None
    click_wait: int | None = None  # where clicks are waited for less long than verdicts

    def start(self, seen):
        return seen[0].offset << W if seen and self.first is None else 0


def ranges(seen, config, start):
    """C3: every range that the log has closed."""
    out, items = [], []

    def close(end):
        nonlocal start, items
        records = [
            record for n, (record, _) in enumerate(items) if n == 0 or record is not items[n - 1][0]
        ]
        out.append(Range(start, end, records, [row for _, row in items if row]))
        start, items = end, []

    for record in seen:
        for row in record.rows or [None]:
            if items and record.arrival // config.flush_ms > items[0][0].arrival // config.flush_ms:
                close(record.offset << W)
            items.append((record, row))
            if sum(row is not None for _, row in items) == config.batch_rows_max:
                close(row.position + 1)
    return out


class VerdictTimes:
    """L3: the verdicts, and V."""

    def __init__(self, records, inputs):
        marks = dict.fromkeys(inputs, 0)
        self.before, self.low, self.verdicts, ids = [], [], [], set()
        for record in records:
            self.before.append(dict(marks))
            body = json.loads(record.value)
            if body["kind"] == "watermark":
                marks[body["input"]] = max(marks[body["input"]], body["watermark_ms"])
            elif body["id"] not in ids:
                ids.add(body["id"])
                self.verdicts.append((record.offset, body))
            self.low.append(min(marks.values()))
        self.before.append(dict(marks))

    def v(self, deadline):
        return next((o for o, low in enumerate(self.low) if low > deadline), None)

    def decisions(self, row, deadline):
        """{"reject"}, {"withhold"}, both or none: the last word of an operator on withholding
        beats the breaker's."""
        v = self.v(deadline)
        said = [
            b
            for o, b in self.verdicts
            if o < v
            and b["from_ms"] <= row.ts < b["to_ms"]
            and b["source"] in (None, row.source)
            and b["vendor"] in (None, row.vendor)
            and ("feature" not in b or row.features.get(b["feature"], "") == b["value"])
        ]
        out = {b["decision"] for b in said}
        out = {"reject"} if "reject" in out and "allow" not in out else set()
        words = [b for b in said if b["decision"] in ("withhold", "release")]
        words = [b for b in words if b["rule"] == "operator"] or words
        return out | {b["decision"] for b in words[-1:]} - {"release"}

    def point(self, deadline, covers_from):
        last = self.v(deadline)
        offset = min(
            [o for o, b in self.verdicts if o <= last and b["to_ms"] > covers_from],
            default=last + 1,
        )
        return offset, self.before[offset]


def barriers_of(clicked):
    """(period, arrival) of the heartbeats that begin a period."""
    barriers, last = [], 0
    for record in clicked:
        if record.heartbeat and record.barrier > last:
            last = record.barrier
            barriers.append((record.barrier, record.arrival))
    return barriers


def open_range_arrival(seen, end, flush_ms):
    """When the last record of the range from `end` on, which nothing has closed, arrived; None
    without one. Records that hold rows count before those that hold none."""
    left = [s for s in seen if (s.offset << W) >= end or any(row.position >= end for row in s.rows)]
    if not left:
        return None
    left = [s for s in left if s.arrival // flush_ms == left[0].arrival // flush_ms]
    return ([s.arrival for s in left if s.rows][-1:] or [s.arrival for s in left][-1:])[0]


def expected(impressions, clicks, verdicts, config, inputs, plan=None, kept=lambda row: True):
    """Per batch a dict of header fields and rows (position, label, delay). `verdicts` None =
    fraud filter off."""
    plan = plan or Plan(config.window_ms, config.wait_ms)
    seen, clicked = see(impressions, config, False), see(clicks, config, True)
    mark_duplicates(seen, config)
    verdict_index = None if verdicts is None else VerdictTimes(verdicts, inputs)
    all_clicks = [row for record in clicked for row in record.rows if not row.bad]
    top = clicked[-1].arrival if clicked else 0
    barriers = barriers_of(clicked)
    out, clicks_at = [], 0
    point = {
        "arrival_max_ms": 0,
        "clicks_offset": clicks[0].offset if clicks else 0,
        "clicks_arrival_max_ms": 0,
        "ids_offset": impressions[0].offset if impressions else 0,
        "ids_arrival_max_ms": 0,
        "verdicts_offset": 0,
        "watermarks": {},
        "late_micro": 0,
        "on_time_micro": 0,
    }
    closed = ranges(seen, config, plan.start(seen))
    for r in [*closed, None]:
        if r is None:  # the open end of the log: what is known of the next range's deadline
            known = open_range_arrival(
                seen, closed[-1].end if closed else plan.start(seen), config.flush_ms
            )
            if known is None:
                break
            deadline = known + plan.wait
        else:
            deadline = r.deadline_arrival + plan.wait
        while barriers and barriers[0][1] <= deadline:
            if verdict_index and not (
                verdict_index.low and verdict_index.low[-1] >= barriers[0][1]
            ):
                return out
            at = r.start if r else (closed[-1].end if closed else plan.start(seen))
            out.append({"start": at, "end": at, "barrier": barriers.pop(0)[0], "rows": [], **point})
        if r is None or top <= deadline or top < r.arrival_max - config.early_ms:
            break
        if verdict_index and verdict_index.v(deadline) is None:
            break
        sums = [point["late_micro"], point["on_time_micro"]]
        batch, point, clicks_at, more = one_batch(
            r, all_clicks, clicked, clicks_at, seen, verdict_index, config, plan, kept
        )
        point["late_micro"], point["on_time_micro"] = (
            a + 1_000_000 * b for a, b in zip(sums, more, strict=True)
        )
        out.append({**batch, **point})
    return out


CLASSES = ("rejected", "duplicate", "withheld", "quarantined")


def is_late(row, counting, all_clicks, verdict_index, config, plan, kept, count):
    """Whether a later reading has something to say of an impression that it labels."""
    said = verdict_index.decisions(row, row.arrival + plan.first.wait) if verdict_index else set()
    if "reject" in said:
        return False
    if "withhold" in said:
        return bool(counting) or kept(row)
    on_time = bool(counting_clicks(row, all_clicks, config, plan.first))
    count["on_time"] += on_time
    count["late"] += bool(counting) and not on_time
    return bool(counting) and not on_time


def counting_clicks(row, all_clicks, config, plan, too_early=False):
    """Those that count, or those that would but for being too long before their impression."""
    return [
        c
        for c in all_clicks
        if c.id == row.id
        and plan.window >= 0
        and (-config.early_click_ms <= c.ts - row.ts) is not too_early
        and c.ts - row.ts <= plan.window
        and row.arrival - config.early_ms
        <= c.arrival
        <= row.arrival + (plan.wait if plan.click_wait is None else plan.click_wait)
    ]


def one_batch(r, all_clicks, clicked, clicks_at, seen, verdict_index, config, plan, kept):
    count = dict.fromkeys(("labelled", "sampled", *CLASSES, "positives", "late", "on_time"), 0)
    joined = repeated = early = 0
    rows, times = [], []
    for row in r.rows:
        deadline = row.arrival + plan.wait
        if row.bad:
            count["quarantined"] += 1
            continue
        if row.duplicate:
            count["duplicate"] += 1
            continue
        counting = counting_clicks(row, all_clicks, config, plan)
        joined += bool(counting)
        early += len(counting_clicks(row, all_clicks, config, plan, too_early=True))
        repeated += max(0, len(counting) - 1)
        said = verdict_index.decisions(row, deadline) if verdict_index else set()
        if "reject" in said:
            count["rejected"] += 1
        elif "withhold" in said:
            count["withheld"] += 1
        elif plan.first and not is_late(
            row, counting, all_clicks, verdict_index, config, plan, kept, count
        ):
            continue
        elif not counting and not kept(row):
            count["sampled"] += not plan.first
        else:
            count["labelled"] += 1
            count["positives"] += bool(counting)
            times.append(row.ts)
            delay_ms = max(counting[0].ts - row.ts, 0) if counting else -1
            rows.append((row.position, int(bool(counting)), delay_ms))
    late, on_time = count.pop("late"), count.pop("on_time")
    if plan.first:  # the other classes are counted by the first reading
        count |= dict.fromkeys((*CLASSES, "sampled"), 0)
    cut = next(n for n, s in enumerate(clicked) if s.arrival >= r.arrival_max - config.early_ms)
    gone = [row for s in clicked[clicks_at:cut] for row in s.rows]
    ids = next(s for s in seen if s.arrival >= r.arrival_max - config.dedup_ms)
    verdicts_offset, watermarks = 0, {}
    if verdict_index:
        verdicts_offset, watermarks = verdict_index.point(
            r.deadline_arrival + plan.wait, r.arrival_max - config.age_max_ms
        )
    batch = {
        "start": r.start, "end": r.end, "barrier": 0, "rows": rows, **count,
        "clicks_read": len(gone), "clicks_joined": joined, "clicks_duplicate": repeated,
        "clicks_quarantined": sum(row.bad for row in gone), "clicks_too_early": early,
        "ts_ms_min": min(times, default=0), "ts_ms_max": max(times, default=0),
    }  # fmt: skip
    point = {
        "arrival_max_ms": r.arrival_max,
        "clicks_offset": clicked[cut].offset, "clicks_arrival_max_ms": clicked[cut].top,
        "ids_offset": ids.offset, "ids_arrival_max_ms": ids.top,
        "verdicts_offset": verdicts_offset, "watermarks": watermarks,
    }  # fmt: skip
    return batch, point, cut, (late, on_time)
