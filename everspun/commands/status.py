"""What every stage does and waits for, the model's quality, and which stated limits are broken (exit code 1)."""

import argparse
import dataclasses
import json
import time
from pathlib import Path

from everspun.catch_up import behind, near_retention
from everspun.commands import options as shared
from everspun.config import Config
from everspun.follow import Follower
from everspun.launcher import role_files
from everspun.learning_faults import learning_faults
from everspun.quality import Quality
from everspun.scrape import Report, scrape
from everspun.table import Snapshot
from stream.kafka import KafkaLog

#: Between the two looks that say how fast each stage is.
LOOK_S = 2.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for machines")
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    run_dir = Path(config.run.dir)
    follower = Follower(config, KafkaLog(config.stream))
    try:
        before = follower.look(int(time.time() * 1_000))
        time.sleep(LOOK_S)
        shot = follower.look(int(time.time() * 1_000))
        late = behind(config.stream, before, shot)
        while follower.read_evaluations(200):
            pass
        broken = breaches(config, shot, follower.quality, scrape(run_dir))
        silent = sorted(set(role_files(run_dir)) - set(scrape(run_dir)))
        broken += [f"{name} does not answer" for name in silent]
        broken += near_retention(config.stream, shot)
        if options.json:
            print(json.dumps(_body(shot, follower.quality, broken) | {"behind": [vars(one) for one in late]}))
        else:
            console = shared.console()
            console.print(follower.panel("everspun status", "limits: see the section limits of the config"))
            for one in late:
                console.print(f"[yellow]{one}")
            for line in broken:
                console.print(f"[red]broken: {line}")
    finally:
        follower.close()
    return 1 if broken else 0


def breaches(config: Config, shot: Snapshot, quality: Quality, reports: dict[str, Report]) -> list[str]:
    """The limits that do not hold, each with value and limit."""
    limits = config.limits
    found = []

    def check(name: str, value: float | None, limit: float) -> None:
        if limit and value is not None and value > limit:
            found.append(f"{name} {value:.1f} is above {limit:g}")

    check("served model age, s:", shot.model_age_s, limits.model_age_max_s)
    check("served data age, s:", shot.data_age_s, limits.data_age_max_s)
    check("staleness p99, updates:", shot.staleness_p99, limits.staleness_p99_max)
    if limits.calibration_band and quality.label_sum and abs(quality.calibration - 1) > limits.calibration_band:
        found.append(
            f"progressive calibration {quality.calibration:.3f} leaves 1 by more than {limits.calibration_band:g}"
        )
    if shot.governor is not None and shot.governor.at_its_end:
        found.append("governor: at the slowest rung, and staleness still costs more than its band")
    for name, report in reports.items():
        stopped = report.value("everspun_stopped_partitions")
        if stopped:
            found.append(f"{name}: {stopped:.0f} partitions stopped at a record (everspun quarantine list)")
    found += learning_faults(limits, reports)
    if not reports:
        found.append(f"no process of {config.run.dir} answers: is it running?")
    return found


def _body(shot: Snapshot, quality: Quality, broken: list[str]) -> dict[str, object]:
    return {
        "now_ms": shot.now_ms,
        "stages": {name: dataclasses.asdict(stage) for name, stage in shot.stages.items()},
        "progressive": {
            "rows": quality.rows,
            "log_loss": quality.log_loss,
            "normalized_entropy": quality.normalized_entropy,
            "calibration": quality.calibration,
        },
        "as_served": {
            "rows": quality.served_rows,
            "log_loss": quality.served_log_loss,
            "normalized_entropy": quality.served_normalized_entropy,
            "calibration": quality.served_calibration,
        },
        "staleness": {"p50": shot.staleness_p50, "p99": shot.staleness_p99},
        "governor": None if shot.governor is None else dataclasses.asdict(shot.governor),
        "shards": None if shot.shards is None else dataclasses.asdict(shot.shards),
        "served": {"model_age_s": shot.model_age_s, "data_age_s": shot.data_age_s},
        "broken": broken,
    }
