"""Run all roles of a config on your own Kafka, each as a process, restarted when it dies, until
SIGINT or SIGTERM."""

import argparse
import platform
from collections.abc import Callable, Collection
from contextlib import ExitStack
from functools import partial

from rich.console import Console
from rich.live import Live

from checkpointer.store import open_store
from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from everspun.config import Config, ConfigError, read_text
from everspun.hash_secret import with_secret_made
from everspun.hosts import ALL, ROLES, Placement, beyond, parse_roles, unreached
from everspun.launcher import ConfigWatch, Launcher, LauncherMetrics, OrderWatch, write_targets
from everspun.log_format import set_up_logs
from everspun.roles import (
    OtherSystem,
    StoredState,
    check_files,
    check_model,
    has_begun,
    refuse_other_system,
    shards_of_map,
    stop_on_signals,
)
from everspun.status import (
    RECENT_EVALUATIONS,
    InputWatch,
    RateFile,
    StatusFollower,
    configured_places,
    follow_rate,
)
from stream.log import KafkaLog, LogError, check_topics, wall_clock_ms


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no live table")
    parser.add_argument(
        "--roles",
        metavar="A,B:0,C:0-1",
        help=f"only these processes: ROLE, ROLE:INDEX or ROLE:FIRST-LAST of {', '.join(ROLES)}",
    )
    parser.add_argument(
        "--host",
        help="run what [hosts] roles says of this host (the machine's name)",
    )
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    text = read_text(options.config)  # once: it may be a pipe
    config = shared.load(options, text=text)
    check_model(config)
    try:
        placement = _placed_and_checked(config, options)
    except ValueError as error:
        return refuse("run", error)
    roles = set(ROLES) if placement.chosen is None else set(placement.chosen)
    console = shared.console()
    try:
        config = _checked(config, console, roles)
    except (OSError, ValueError, OtherSystem) as error:
        return refuse("run", error)
    if config.run.log_format != "text":
        set_up_logs(config.run.log_format, "INFO", "launcher-0", config.model.name)
    stop = stop_on_signals()
    sets = tuple(options.set)
    launcher = Launcher(options.config, config.run, sets, config.governor.enabled, placement, text)
    changed = ConfigWatch(launcher, partial(check_changed, placement))
    follower = StatusFollower(config, KafkaLog(config.stream), RECENT_EVALUATIONS)
    rate_file = RateFile(launcher.dir)
    usual = rate_file.read()
    launcher.stream_said = usual.said
    inputs = InputWatch.of(config.stream, launcher.note)
    orders = _watch_orders(config, launcher)
    elsewhere = _elsewhere(config)
    note = f"config {options.config}, logs in {launcher.dir / 'logs'}"
    try:
        launcher.start(roles)
        metrics = LauncherMetrics(launcher.said, lambda: inputs.count)
        tasks: dict[str, Callable[[], object]] = {
            "exporting metrics": lambda: metrics.export(config.run),
            "writing the targets of Prometheus": lambda: write_targets(launcher.dir, elsewhere),
            "following the run": lambda: follow_rate(
                follower, usual, wall_clock_ms(), shown=not options.quiet
            ),
            changed.doing: changed.look,
            "keeping the usual rate": lambda: rate_file.write(usual, wall_clock_ms()),
        }
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            if not options.quiet:
                tasks["showing the run"] = lambda: _show(live, follower, note)
            while not stop.wait(1.0):
                for doing, act in tasks.items():
                    launcher.attempt(doing, act)
    finally:
        with ExitStack() as ending:  # each of them, whatever becomes of the others
            ending.callback(follower.close)
            ending.callback(launcher.stop)
            if orders is not None:
                ending.callback(orders.close)
            ending.callback(inputs.close)
            console.print("draining ...")
    return 0


def _placed_and_checked(config: Config, options: argparse.Namespace) -> Placement:
    """Raises ValueError, and ConfigError for a file that a role here could not read."""
    placement = placed(config, options.roles, options.host)
    _check_files(placement, config, ROLES)
    return placement


def check_changed(placement: Placement, config: Config, roles: Collection[str]) -> None:
    """Raises ValueError for a changed configuration that a process of `roles` here would refuse."""
    check_model(config)
    _check_files(placement, config, roles)


def _check_files(placement: Placement, config: Config, roles: Collection[str]) -> None:
    for role, count in config.counts().items():
        if role in roles and placement.indices(role, count):
            check_files(config, role)


def _checked(config: Config, console: Console, roles: Collection[str]) -> Config:
    """With its secret. Raises ValueError and OtherSystem for what stops a run, and OSError."""
    for problem in (problems := check_topics(config.stream)):
        console.print(str(problem))
    if any(problem.stops for problem in problems):
        raise ConfigError("nothing was started: see above")
    config = with_secret_made(config, lambda: has_begun(config))
    try:
        refuse_other_system(config, roles, KafkaLog(config.stream))
    except (LogError, OSError) as error:
        console.print(f"whose the topics are is not known yet, and roles ask again (C9): {error}")
    return config


def placed(config: Config, roles: str | None, host: str | None) -> Placement:
    """Which processes this launcher runs: `roles` as on the command line, else what `[hosts]` says
    of `host`, or of the machine's name. Raises ValueError for what cannot be: an unknown role, an
    index beyond the map, a shard that nobody reaches, words that say nothing."""
    placement = _chosen(config, roles, host)
    for index in placement.indices("shard", config.run.shards):
        if wrong := unreached(config, index):
            raise ValueError(wrong)
    return placement


def _chosen(config: Config, roles: str | None, host: str | None) -> Placement:
    counts, addresses = config.counts(), config.paramserver.addresses
    for name, said in (("--roles", roles), ("--host", host)):
        if said is not None and not said.strip():
            raise ValueError(f"{name} {said!r}: it says nothing; a variable that is not set?")
    if roles is not None and host is not None:
        raise ValueError(
            f"--host {host!r} with --roles {roles!r}: --roles says all that runs here; give one of "
            "them"
        )
    if host is not None and not config.hosts.roles:
        raise ValueError(
            f"--host {host!r}: the file has no [hosts] roles; say what runs here with --roles, or "
            "leave --host out"
        )
    if roles is None and config.hosts.roles:
        return config.hosts.placement(host or platform.node(), counts)
    if roles is None:
        if addresses and config.paramserver.transport == "tcp" and len(addresses) < counts["shard"]:
            raise ValueError(
                f"run.shards = {counts['shard']}: paramserver.addresses names {len(addresses)}; "
                "name host:port of every shard in order"
            )
        return ALL
    chosen = parse_roles(roles.split(","), "--roles")
    reasons = {role: f"[run] has {count} of this role" for role, count in counts.items()}
    if addresses:
        counts["shard"] = len(addresses)
        reasons["shard"] = f"paramserver.addresses names {len(addresses)} shards"
    elif any(index >= counts["shard"] for index in chosen.get("shard") or ()):
        counts["shard"] = max(counts["shard"], shards_of_map(config))
        reasons["shard"] = f"the map has {counts['shard']} shards"
    if wrong := beyond(chosen, counts, reasons):
        raise ValueError("--roles " + "; ".join(wrong))
    return Placement(chosen)


def _watch_orders(config: Config, launcher: Launcher) -> OrderWatch | None:
    """Where `[hosts]` says who runs what, an order counts on all of them."""
    if not config.hosts.roles:
        return None
    store = StoredState(open_store(config.checkpointer.root), config.model.name)
    return OrderWatch(store, launcher.dir, config.counts(), launcher.note)


def _elsewhere(config: Config) -> dict[str, str]:
    """Name of a process -> host:port, for Prometheus."""
    known = {name: f"{at.address}:{at.port}" for name, at in configured_places(config).items()}
    port = config.run.port_of("launcher", 0)
    return known | {
        f"launcher-{host}": f"{config.hosts.addresses[host]}:{port}" for host in config.hosts.roles
    }


def _show(live: Live, follower: StatusFollower, note: str) -> None:
    if follower.samples:
        live.update(follower.panel("everspun", note))
