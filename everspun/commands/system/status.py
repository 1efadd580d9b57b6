"""What every stage does and waits for, the model's quality, and which stated limits are broken
(exit code 1)."""

import argparse
import dataclasses
import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

from everspun.commands import options as shared
from everspun.config import Config
from everspun.launcher import read_state, role_files
from everspun.status import (
    RECENT_EVALUATIONS,
    CatchUp,
    Quality,
    Report,
    StatusFollower,
    StatusSnapshot,
    behind,
    certificates,
    feature_notes,
    input_faults,
    learning_faults,
    missing_faults,
    near_retention,
    referee,
    unanswered,
)
from stream import show_ms
from stream.log import KafkaLog, wall_clock_ms

#: Between the two looks that say how fast each stage is.
LOOK_S = 2.0
#: A broker that does not answer within this is not waited for, ms: what else is wrong is to be said
#: soon.
ASK_MS = 5_000
#: Reads of `evaluations`, which goes on while it is looked at.
READS_MAX = 20


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    hurried = min(ASK_MS, config.stream.request_timeout_ms)
    config = dataclasses.replace(
        config, stream=dataclasses.replace(config.stream, request_timeout_ms=hurried)
    )
    follower = StatusFollower(config, KafkaLog(config.stream), RECENT_EVALUATIONS)
    try:
        before = follower.look(wall_clock_ms())
        time.sleep(LOOK_S)
        shot = follower.look(wall_clock_ms(), evaluations=follower.answered)
        for _ in range(READS_MAX):
            if not follower.answered or not follower.read_evaluations(200):
                break
        late = behind(config.stream, before, shot)
        reports = follower.reports
        broken = breaches(config, shot, follower.quality, reports) + wrong(
            config, shot, late, reports
        )
        broken += near_retention(config.stream, shot)
        broken += input_faults(config.stream, wall_clock_ms())
        broken += certificates.faults(config, wall_clock_ms())
        notes = feature_notes(reports) + certificates.expiring(config, wall_clock_ms())
        if options.json:
            more = {"behind": [vars(one) for one in late], "notes": notes}
            print(json.dumps(_body(shot, follower.quality, broken) | more))
        else:
            console = shared.console()
            console.print(
                follower.panel("everspun status", "limits: see the section limits of the config")
            )
            for note in notes:
                console.print(f"note: {note}", style="yellow", soft_wrap=True, markup=False)
            for one in late:
                console.print(str(one), style="yellow")
            for line in broken:
                console.print(f"broken: {line}", style="red", soft_wrap=True)
    finally:
        follower.close()
    return 1 if broken else 0


def wrong(
    config: Config, shot: StatusSnapshot, late: list[CatchUp], reports: dict[str, Report]
) -> list[str]:
    """What the processes, the launcher and the disks of this run say, judged
    (`everspun.status.referee`)."""
    run_dir = Path(config.run.dir)
    state, files = read_state(run_dir), role_files(run_dir)
    alive = {name: _lives(said.get("pid")) for name, said in files.items()} | {
        "launcher": _lives(state.get("pid"))
    }
    found = referee.processes(config.run.dir, state, files, reports, alive, shot.now_ms)
    found += unanswered(config, reports)
    if not config.stream.replayed:
        found += referee.stream(
            state, shot.now_ms, (config.stream.impressions, config.stream.clicks)
        )
        found += referee.clocks(config, reports, shot.now_ms)
    found += referee.stages(config, shot, late, reports)
    disks: set[int] = set()
    for place in (config.run.dir, config.checkpointer.root, config.archive.root):
        path = next((p for p in (Path(place), *Path(place).parents) if p.exists()), None)
        if "://" in place or path is None or (device := path.stat().st_dev) in disks:
            continue
        disks.add(device)
        usage = shutil.disk_usage(path)
        read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
        found += referee.room(str(path), usage.free, usage.total, read_only)
    return found


def _lives(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def breaches(
    config: Config, shot: StatusSnapshot, quality: Quality, reports: dict[str, Report]
) -> list[str]:
    """The limits that do not hold, each with value and limit."""
    limits = config.limits
    found = []

    def check(name: str, value: float | None, limit: float) -> None:
        if limit and value is not None and value > limit:
            found.append(f"{name} {value:.1f} is above {limit:g}")

    check("served model age, s:", shot.model_age_s, limits.model_age_max_s)
    check("served data age, s:", shot.data_age_s, limits.data_age_max_s)
    check("staleness p99, updates:", shot.staleness_p99, limits.staleness_p99_max)
    if (
        limits.calibration_band
        and quality.label_sum
        and abs(quality.calibration - 1) > limits.calibration_band
    ):
        found.append(
            f"progressive calibration {quality.calibration:.3f} leaves 1 by more than "
            f"{limits.calibration_band:g}"
        )
    if shot.governor is not None and shot.governor.at_its_end:
        found.append("governor: at the slowest level, and staleness still costs more than its band")
    for name, report in reports.items():
        found += [f"{name}: {line}" for line in stops(report)]
        uncounted = report.value("everspun_labeler_uncounted_inputs")
        if uncounted:
            found.append(
                f"{name}: {uncounted:.0f} inputs are not counted any more, so labels wait (F1): "
                f"see its log"
            )
        found += [f"{name}: {line}" for line in schemas_away(report)]
        if gone := report.value("everspun_labeler_gone_verdicts"):
            found.append(
                f"{name}: {gone:.0f} verdicts are gone that rows may be taken back for: its log "
                f"names the offsets; "
                "everspun fraud ban says again what still holds"
            )
    found += learning_faults(limits, reports)
    watched = {**config.stream.components, **config.stream.catalogued}
    found += missing_faults(watched, reports)
    if not reports:
        found.append(f"no process of {config.run.dir} answers: is it running?")
    return found


def schemas_away(report: Report) -> list[str]:
    """What a schema registry does not give: since when, and what it says."""
    return [
        f"schema {dict(labels)['schema']} is waited for since {show_ms(int(1_000 * since_s))}, its "
        f"partitions with it, and nothing is quarantined: {dict(labels)['reason']}"
        for (series, labels), since_s in sorted(report.series.items())
        if series == "everspun_registry_away"
    ]


def stops(report: Report) -> list[str]:
    """Where a process stopped (L7, C7): topic, partition and offset, since when, why, and the
    command that lets it go on."""
    found = []
    for (name, labels), since_s in sorted(report.series.items()):
        if name == "everspun_partition_stopped":
            said = dict(labels)
            at = f"{said['topic']}[{said['partition']}] stopped at offset {said['offset']}"
            found.append(
                f"{at} since {show_ms(int(1_000 * since_s))}: {said['reason']}; to go on: "
                f"{said['command']}"
            )
    count = max(
        report.value(f"everspun_{role}_stopped_partitions") for role in ("labeler", "breaker")
    )
    if count and not found:
        found.append(
            f"{count:.0f} partitions stopped at a record: see its log (everspun quarantine list)"
        )
    return found


def _body(shot: StatusSnapshot, quality: Quality, broken: list[str]) -> dict[str, Any]:
    """For machines: null where there is nothing to say, never a 0 that was not measured."""
    stages = {}
    for name, stage in shot.stages.items():
        said = dataclasses.asdict(stage)
        if not stage.processes:
            said |= dict.fromkeys(("records_in", "records_out", "rate"))
        stages[name] = said | {
            "data_time_ms": stage.data_time_ms or None,
            "waiting": stage.waiting or None,
        }
    body = {
        "now_ms": shot.now_ms,
        "stages": stages,
        "progressive": {
            "rows": quality.rows,
            "log_loss": quality.log_loss if quality.rows else None,
            "normalized_entropy": quality.normalized_entropy
            if quality.rows and quality.label_sum
            else None,
            "calibration": quality.calibration if quality.label_sum else None,
        },
        "as_served": {
            "rows": quality.served_rows,
            "log_loss": quality.served_log_loss if quality.served_rows else None,
            "normalized_entropy": quality.served_normalized_entropy
            if quality.served_label_sum
            else None,
            "calibration": quality.served_calibration if quality.served_label_sum else None,
        },
        "staleness": {"p50": shot.staleness_p50, "p99": shot.staleness_p99},
        "governor": None if shot.governor is None else dataclasses.asdict(shot.governor),
        "shards": None if shot.shards is None else dataclasses.asdict(shot.shards),
        "served": {"model_age_s": shot.model_age_s, "data_age_s": shot.data_age_s},
        "broken": broken,
    }
    finite: dict[str, Any] = _finite(body)
    return finite


def _finite(tree: Any) -> Any:
    """The same with null for numbers that JSON does not have."""
    if isinstance(tree, dict):
        return {name: _finite(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
