"""Set how far learners may run ahead of each other, while they run: the bound (0 = in step, -1 = unbounded), how many
batches may be under way at once, and what shards do about stale gradients. What is given here holds over restarts,
the bound until another one is configured. docs/staleness.md says what the numbers mean."""

import argparse

from everspun.commands import options as shared
from paramserver.client import connect
from paramserver.compensation import WAYS
from paramserver.ports import Refused, Unreachable


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bound", type=int, nargs="?", help="0, 1, 2, ... batches ahead of the slowest, or -1")
    parser.add_argument("--concurrency", type=int, metavar="N", help="batches under way at once; 0 = no limit")
    parser.add_argument("--compensation", choices=[*WAYS, "configured"], help="what shards do about stale gradients")
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    if options.bound is None and options.concurrency is None and options.compensation is None:
        print("nothing was changed: give a bound, --concurrency or --compensation")
        return 2
    config = shared.load(options)
    model, way = config.model.name, options.compensation
    if way == "adaptive_revision" and config.model.table_optimizer != way:
        print(f"nothing was changed: {way} needs model.table_optimizer = {way!r}")
        return 2
    shards, clock = connect(config.paramserver, config.run.dir, config.run.shards)
    try:
        if options.bound is not None:
            clock.set_staleness(model, options.bound)
            configured = config.paramserver.staleness
            print(f"learners of {model} may run {options.bound} batches ahead (configured: {configured})")
        if options.concurrency is not None:
            clock.set_concurrency(model, options.concurrency)
            print(f"batches of {model} under way at once: {options.concurrency or 'no limit'}")
        if way is not None:
            clock.set_compensation(model, "" if way == "configured" else way)
            print(f"stale gradients of {model}: {way}")
    except (Unreachable, Refused) as error:
        print(f"not changed, or nobody knows: {error}")
        return 1
    finally:
        clock.close()
        for port in shards.values():
            port.close()
    return 0
