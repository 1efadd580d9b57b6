"""Set how many batches a learner may run ahead of the slowest active one, while they run: 0 = in step, -1 = unbounded.
It holds over restarts, until it is set again or another bound is configured."""

import argparse

from everspun.commands import options as shared
from paramserver.client import connect
from paramserver.ports import Refused, Unreachable


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bound", type=int, help="0, 1, 2, ... or -1")
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    shards, clock = connect(config.paramserver, config.run.dir, config.run.shards)
    try:
        clock.set_staleness(config.model.name, options.bound)
    except (Unreachable, Refused) as error:
        print(f"nothing was changed, or nobody knows: {error}")
        return 1
    finally:
        clock.close()
        for port in shards.values():
            port.close()
    configured = config.paramserver.staleness
    print(f"learners of {config.model.name} may run {options.bound} batches ahead (configured: {configured})")
    return 0
