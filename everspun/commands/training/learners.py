"""Start or stop learner processes of a system that `everspun run` runs here. Learners that are to
go drain first and their partitions move to the others; those that come take their share. The word
holds until the launcher ends."""

import argparse
import time
from pathlib import Path

from everspun.commands import options as shared
from everspun.launcher.launcher import SCALABLE, order_scale, role_files

WAIT_S = 60.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["scale"])
    parser.add_argument("count", type=int, help="how many learner processes are to run")
    parser.add_argument(
        "--wait-s", type=float, default=WAIT_S, help="seconds to wait until they do"
    )
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    run_dir = Path(config.run.dir)
    role = SCALABLE[0]
    if options.count < 1:
        print(f"nothing was changed: {options.count} learners; at least 1, or `everspun pause`")
        return 2
    if not (run_dir / "roles").is_dir():
        print(
            f"nothing was changed: {run_dir} is no folder of a run; does `everspun run` run with "
            f"this config, here?"
        )
        return 1
    order_scale(run_dir, role, options.count)
    end = time.monotonic() + options.wait_s
    while (
        running := sum(name.startswith(f"{role}-") for name in role_files(run_dir))
    ) != options.count:
        if time.monotonic() > end:
            print(
                f"{running} learners run, {options.count} were ordered: does `everspun run` run "
                f"in {run_dir}?"
            )
            return 1
        time.sleep(0.1)
    print(f"{options.count} learners of {config.model.name} run")
    return 0
