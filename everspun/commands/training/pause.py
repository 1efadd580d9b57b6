"""Stop training (`pause`) and start it again (`resume`). Labels, checkpoints and serving go on;
batches that were started are finished. The word holds until the other is given, whatever restarts
meanwhile."""

import argparse

from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from paramserver import PortRefused, PortUnreachable
from paramserver.wire import connect


def arguments(parser: argparse.ArgumentParser) -> None:
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    shards, clock = connect(config.paramserver, config.run.dir, config.run.shards)
    try:
        clock.set_paused(config.model.name, options.command == "pause")
    except (PortUnreachable, PortRefused) as error:
        return refuse(options.command, f"nothing was changed, or nobody knows: {error}")
    finally:
        clock.close()
        for port in shards.values():
            port.close()
    said = (
        "is paused: `everspun resume` starts it again" if options.command == "pause" else "goes on"
    )
    print(f"training of {config.model.name} {said}")
    return 0
