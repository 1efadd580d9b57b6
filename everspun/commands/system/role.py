"""Run one process of one role. `everspun run` starts these; start them yourself under your own
supervisor."""

import argparse
import faulthandler
import logging
import signal
import sys
from pathlib import Path

from everspun.commands import options as shared
from everspun.hash_secret import missing
from everspun.launcher.launcher import ROLES, die_with_launcher
from everspun.launcher.locks import lock_file
from everspun.roles import roles
from everspun.roles.heap import keep_freed_memory
from everspun.roles.stop_signals import CLOSING_S, end_within, stop_on_signals

#: Roles that hash what events name.
HASHING = ("labeler", "fraud", "breaker", "learner", "governor", "checkpointer")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("role", choices=ROLES)
    parser.add_argument(
        "--index", type=int, default=0, help="which of the processes of this role, from 0"
    )
    parser.add_argument(
        "--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR")
    )
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    """Returns when told to stop (SIGTERM, SIGINT) and drained; ends undrained where that takes
    too long."""
    keep_freed_memory()
    config = shared.load(options)
    if options.role in HASHING and not config.stream.hash_secret:
        print(missing(config), file=sys.stderr)
        return 2
    logging.basicConfig(
        level=options.log_level,
        format=f"%(asctime)s {options.role}-{options.index} %(levelname)s %(message)s",
    )
    # While a broker is away, clients say so many times a second; what the roles make of it, they
    # say themselves.
    for client in ("kafka", "aiokafka", "mode", "faust"):
        logging.getLogger(client).setLevel(
            logging.DEBUG if options.log_level == "DEBUG" else logging.CRITICAL
        )
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1)  # kill -USR1: what every thread does, into the log
    stop = stop_on_signals()
    end_within(stop, max(config.labeler.drain_ms, config.learners.drain_ms) / 1_000 + CLOSING_S)
    die_with_launcher()
    folder = Path(config.run.dir) / "roles"
    folder.mkdir(parents=True, exist_ok=True)
    lock_file(
        folder / f"{options.role}-{options.index}.lock",
        f"{options.role}-{options.index} of {config.run.dir}",
    )
    roles.ROLES[options.role](config, options.index, stop)
    return 0
