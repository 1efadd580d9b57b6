"""Run all roles of a config on your own Kafka, each as a process, restarted when it dies, until SIGINT or SIGTERM."""

import argparse
import time

from rich.live import Live

from everspun.commands import options as shared
from everspun.follow import Follower
from everspun.launcher import ROLES, Launcher, RunStopped
from everspun.model_check import check_model
from everspun.stop_signals import stop_on_signals
from everspun.targets import write_targets
from stream.client import check_topics
from stream.kafka import KafkaLog
from stream.log import Unavailable


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
    try:
        problems = check_topics(config.stream)
    except Unavailable as error:
        console.print(f"no answer from {config.stream.bootstrap_servers}: {error}. Is the broker running?")
        return 2
    for problem in problems:
        console.print(str(problem))
    if problems:
        return 2
    stop = stop_on_signals()
    launcher = Launcher(options.config, config.run, tuple(options.set), config.governor.enabled)
    follower = Follower(config, KafkaLog(config.stream))
    launcher.start(roles)
    try:
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            while not stop.wait(1.0):
                launcher.raise_if_failed()
                write_targets(launcher.dir)
                follower.look(int(time.time() * 1_000))
                if not options.quiet:
                    live.update(follower.panel("everspun", f"config {options.config}, logs in {launcher.dir / 'logs'}"))
    except RunStopped as error:
        console.print(f"[red]{error}")
        return 1
    finally:
        console.print("draining ...")
        launcher.stop()
        follower.close()
    return 0
