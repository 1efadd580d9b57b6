"""Run all roles of a config on your own Kafka, each as a process, restarted when it dies, until SIGINT or SIGTERM."""

import argparse
import time

from rich.live import Live

from everspun.commands import options as shared
from everspun.follow import RECENT_EVALUATIONS, Follower
from everspun.hash_secret import with_secret_made
from everspun.launcher import ROLES, Launcher
from everspun.mistakes import MISTAKE
from everspun.model_check import check_model
from everspun.roles import has_begun
from everspun.stop_signals import stop_on_signals
from everspun.targets import write_targets
from stream.client import check_topics
from stream.kafka import KafkaLog


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no live table")
    parser.add_argument("--roles", default="", metavar="A,B", help=f"only these of {', '.join(ROLES)}")
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
    if problems:
        return MISTAKE
    try:
        config = with_secret_made(config, lambda: has_begun(config))
    except (OSError, ValueError) as error:
        console.print(str(error), markup=False)
        return MISTAKE
    stop = stop_on_signals()
    launcher = Launcher(options.config, config.run, tuple(options.set), config.governor.enabled)
    follower = Follower(config, KafkaLog(config.stream), RECENT_EVALUATIONS)
    try:
        launcher.start(roles)
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            while not stop.wait(1.0):
                try:
                    _look(launcher, follower, None if options.quiet else live, str(options.config))
                except Exception as error:  # a full disk, no more descriptors: the roles run on, and so does this
                    launcher.note("following the run", error)
    finally:
        console.print("draining ...")
        launcher.stop()
        follower.close()
    return 0


def _look(launcher: Launcher, follower: Follower, live: Live | None, config: str) -> None:
    write_targets(launcher.dir)
    follower.look(int(time.time() * 1_000))
    if live is not None:
        live.update(follower.panel("everspun", f"config {config}, logs in {launcher.dir / 'logs'}"))
