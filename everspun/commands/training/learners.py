"""Start or stop learner processes of a system that `everspun run` runs. Learners that are to go
drain first and their partitions move to the others; those that come take their share. The word
holds until the launcher ends; with `[hosts]` it is kept in the store, counts on all hosts, and
holds until another number is configured."""

import argparse
import time
from pathlib import Path

from checkpointer.store import open_store
from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from everspun.config import Config
from everspun.hosts import PROCESSES_MAX
from everspun.launcher import SCALABLE, order_scale, role_files, store_order
from everspun.roles import StoredState
from everspun.status import scrape_all

WAIT_S = 60.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["scale"])
    parser.add_argument("count", type=shared.whole, help="how many learner processes are to run")
    parser.add_argument(
        "--wait-s", type=shared.finite, default=WAIT_S, help="seconds to wait until they do"
    )
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    run_dir = Path(config.run.dir)
    role = SCALABLE[0]
    if not 1 <= options.count <= PROCESSES_MAX:
        why = f"{options.count} learners; allowed is 1 to {PROCESSES_MAX}, or `everspun pause`"
        return refuse("learners", f"nothing was changed: {why}")
    if config.hosts.roles:
        store = StoredState(open_store(config.checkpointer.root), config.model.name)
        store_order(store, role, options.count, config.counts()[role])
        if run_dir.is_dir():
            order_scale(run_dir, role, options.count)
    elif not (run_dir / "roles").is_dir():
        return refuse(
            "learners",
            f"nothing was changed: {run_dir} is no folder of a run; does `everspun run` run with "
            f"this config, here?",
        )
    else:
        order_scale(run_dir, role, options.count)
    where = "on the hosts of [hosts]" if config.hosts.roles else f"in {run_dir}"
    end = time.monotonic() + options.wait_s
    while (running := _running(config, run_dir, role, options.count)) != options.count:
        if time.monotonic() > end:
            return refuse(
                "learners",
                f"{running} learners run, {options.count} were ordered: does `everspun run` run "
                f"{where}?",
                1,
            )
        time.sleep(0.1)
    print(f"{options.count} learners of {config.model.name} run")
    return 0


def _running(config: Config, run_dir: Path, role: str, count: int) -> int:
    """How many processes of a role there are: on this host by their files, on others by whether
    they answer."""
    if not config.hosts.roles:
        return sum(name.startswith(f"{role}-") for name in role_files(run_dir))
    asked = {role: max(count, config.counts()[role])}
    return sum(name.startswith(f"{role}-") for name in scrape_all(config, asked))
