"""Run all roles of a config on your own Kafka, each as a process, restarted when it dies, until
SIGINT or SIGTERM."""

import argparse
import time

from rich.live import Live

from everspun.commands import options as shared
from everspun.hash_secret import with_secret_made
from everspun.launcher.launcher import ROLES, Launcher
from everspun.launcher.metrics import LauncherMetrics
from everspun.launcher.targets import write_targets
from everspun.mistakes import MISTAKE
from everspun.roles.model_check import check_model
from everspun.roles.roles import has_begun
from everspun.roles.stop_signals import stop_on_signals
from everspun.status.follow import RECENT_EVALUATIONS, Follower
from everspun.status.input_faults import InputWatch, input_faults
from everspun.status.rate_file import RateFile
from everspun.status.usual_rate import UsualRate
from stream.log.kafka import KafkaLog
from stream.log.kafka_admin import check_topics
from stream.metrics import start_metrics


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no live table")
    parser.add_argument(
        "--roles", default="", metavar="A,B", help=f"only these of {', '.join(ROLES)}"
    )
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    check_model(config)
    roles = set(options.roles.split(",")) if options.roles else set(ROLES)
    if unknown := roles - set(ROLES):
        print(f"--roles {','.join(sorted(unknown))}: allowed are {', '.join(ROLES)}")
        return 2
    console = shared.console()
    problems = check_topics(config.stream)
    for problem in problems:
        console.print(str(problem))
    if any(problem.stops for problem in problems):
        return MISTAKE
    try:
        config = with_secret_made(config, lambda: has_begun(config))
    except (OSError, ValueError) as error:
        console.print(str(error), markup=False)
        return MISTAKE
    stop = stop_on_signals()
    launcher = Launcher(options.config, config.run, tuple(options.set), config.governor.enabled)
    follower = Follower(config, KafkaLog(config.stream), RECENT_EVALUATIONS)
    rate_file = RateFile(launcher.dir)
    usual = rate_file.read()
    launcher.stream_said = usual.said
    inputs = InputWatch(
        lambda: input_faults(config.stream, int(time.time() * 1_000)), launcher.note
    )
    note = f"config {options.config}, logs in {launcher.dir / 'logs'}"
    try:
        launcher.start(roles)
        metrics = LauncherMetrics(launcher.said, lambda: inputs.count)
        launcher.attempt(
            "exporting metrics", lambda: start_metrics(launcher.dir, "launcher", 0, metrics)
        )
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            while not stop.wait(1.0):
                launcher.attempt("exporting metrics", metrics.look)
                launcher.attempt(
                    "writing the targets of Prometheus", lambda: write_targets(launcher.dir)
                )
                launcher.attempt("following the run", lambda: _look(follower, usual))
                launcher.attempt(
                    "keeping the usual rate",
                    lambda: rate_file.write(usual, int(time.time() * 1_000)),
                )
                if not options.quiet and follower.samples:
                    launcher.attempt(
                        "showing the run", lambda: live.update(follower.panel("everspun", note))
                    )
    finally:
        console.print("draining ...")
        inputs.close()
        launcher.stop()
        follower.close()
    return 0


def _look(follower: Follower, usual: UsualRate) -> None:
    now_ms = int(time.time() * 1_000)
    seen = follower.samples[-1].stages["labeler"].records_in if follower.samples else 0.0
    rows = follower.look(now_ms).stages["labeler"].records_in
    usual.look(now_ms, max(0.0, rows - seen))
