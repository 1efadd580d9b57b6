"""The live table: one row a stage (in, out, rate, data age, why it waits), and a line on the
model's quality."""

import math
import time
from collections import defaultdict
from dataclasses import dataclass, field

from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.table import Table

from everspun.status.governed import Governed, governed
from everspun.status.quality import Quality
from everspun.status.resharded import Resharded, resharded
from everspun.status.scraping import Report, quantile
from stream.log import wall_clock_ms

STAGES = ("fraud", "breaker", "labeler", "learner", "governor", "shard", "checkpointer", "replica")
STALENESS = "everspun_staleness_updates_bucket"


@dataclass
class Stage:
    """One role, all its processes together."""

    name: str
    processes: int = 0
    records_in: float = 0.0
    records_out: float = 0.0
    rate: float = 0.0  # rows in a second since the last look
    data_time_ms: float = 0.0  # the least of its processes
    waiting: str = ""


@dataclass
class StatusSnapshot:
    """What all stages said at one moment. `now_ms` is the clock of the data: the wall's, or the
    replay's."""

    now_ms: int
    stages: dict[str, Stage]
    staleness_p50: float | None = None
    staleness_p99: float | None = None
    model_age_s: float | None = None
    data_age_s: float | None = None
    governor: Governed | None = None
    shards: Resharded | None = None
    taken: float = field(default_factory=time.monotonic)


def snapshot(
    reports: dict[str, Report], now_ms: int, before: StatusSnapshot | None
) -> StatusSnapshot:
    """Sum the processes of each role; rates are against `before`."""
    stages = {name: Stage(name) for name in STAGES}
    buckets: dict[str, float] = defaultdict(float)
    taken = time.monotonic()
    for process, report in reports.items():
        stage = stages.get(process.rsplit("-", 1)[0])
        if stage is None:
            continue
        stage.processes += 1
        stage.records_in += report.value("everspun_records_in_total")
        stage.records_out += report.value("everspun_records_out_total")
        reached = report.value("everspun_data_time_ms")
        if reached:
            stage.data_time_ms = min(stage.data_time_ms or reached, reached)
        reason = report.waiting()
        if reason and reason != "none":
            stage.waiting = reason
        if stage.name == "shard":
            for le, count in report.by_label(STALENESS, "le").items():
                buckets[le] += count
    if before is not None:
        for name, stage in stages.items():
            seconds = max(1e-3, taken - before.taken)
            stage.rate = max(0.0, stage.records_in - before.stages[name].records_in) / seconds
    governor = next((r for name, r in reports.items() if name.startswith("governor-")), None)
    replica = next((r for name, r in reports.items() if name.startswith("replica")), None)
    return StatusSnapshot(
        now_ms=now_ms,
        stages=stages,
        staleness_p50=quantile(buckets, 0.5),
        staleness_p99=quantile(buckets, 0.99),
        model_age_s=_model_age_s(replica),
        data_age_s=_data_age_s(replica, now_ms),
        governor=None if governor is None else governed(governor, wall_clock_ms()),
        shards=resharded(reports),
        taken=taken,
    )


def _model_age_s(replica: Report | None) -> float | None:
    age_s = math.nan if replica is None else replica.value("everspun_served_model_age_s", math.nan)
    return age_s if math.isfinite(age_s) else None


def _data_age_s(replica: Report | None, now_ms: int) -> float | None:
    """Age of the newest event that the served model learned, by the data's clock."""
    learned = 0.0 if replica is None else replica.value("everspun_data_time_ms")
    return max(0.0, (now_ms - learned) / 1_000) if learned else None


def render(shot: StatusSnapshot, quality: Quality, title: str, note: str = "") -> Panel:
    table = Table(expand=True, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for column in ("stage", "processes", "in", "out", "rows/s", "data age", "waits for"):
        table.add_column(column, justify="left" if column in ("stage", "waits for") else "right")
    for stage in shot.stages.values():
        age = (shot.now_ms - stage.data_time_ms) / 1_000 if stage.data_time_ms else None
        table.add_row(
            stage.name,
            str(stage.processes),
            counted(stage.records_in),
            counted(stage.records_out),
            counted(stage.rate),
            duration(age),
            stage.waiting,
        )
    lines = [
        f"progressive loss {quality.log_loss:.4f}  normalized entropy "
        f"{quality.normalized_entropy:.4f}  "
        f"calibration {quality.calibration:.3f}  ({quality.rows:,.0f} rows)",
        f"as served loss {quality.served_log_loss:.4f}  normalized entropy "
        f"{quality.served_normalized_entropy:.4f}  "
        f"({quality.served_rows:,.0f} rows)",
        f"staleness p50 {_number(shot.staleness_p50)}  p99 {_number(shot.staleness_p99)} updates   "
        f"served model_age {duration(shot.model_age_s)}  data_age {duration(shot.data_age_s)}",
    ]
    if shot.shards is not None:
        lines.append(shot.shards.line())
    if shot.governor is not None:
        lines.append(shot.governor.line(duration(shot.governor.decided_s)))
    if note:
        lines.append(note)
    return Panel(Group(table, *lines), title=title)


def counted(value: float) -> str:
    """`9,999,999`, and beyond it `12.35 M`, `1.20 G`, `3.41 T`: at most nine characters."""
    if value < 10_000_000:
        return f"{value:,.0f}"
    for unit, size in (("M", 1e6), ("G", 1e9)):
        if value < 1_000 * size:
            return f"{value / size:,.2f} {unit}"
    return f"{value / 1e12:,.2f} T"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """`340 ms`, `12.3 s`, `4.2 min`, `3.1 h`, `6.5 d`; nothing for None."""
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds * 1_000:.0f} ms"
    for unit, size in (("s", 60.0), ("min", 60.0), ("h", 24.0)):
        if seconds < size:
            return f"{seconds:.1f} {unit}"
        seconds /= size
    return f"{seconds:.1f} d"
