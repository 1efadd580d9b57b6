"""Run one process of one role. `everspun run` starts these; start them yourself under your own
supervisor."""

import argparse
import faulthandler
import logging
import platform
import signal
import socket
import zlib
from pathlib import Path

from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from everspun.config import Config, ConfigError
from everspun.hash_secret import missing
from everspun.hosts import INDEX_MAX, ROLES, own_ports, unreached
from everspun.launcher import AlreadyLocked, die_with_launcher, lock_file
from everspun.log_format import set_up_logs
from everspun.roles import (
    CLOSING_S,
    check_role,
    end_within,
    keep_freed_memory,
    roles,
    stop_on_signals,
)
from everspun.status import configured_places, fetch
from stream import listen
from stream.log import receive_in_large_pieces

logger = logging.getLogger(__name__)

#: Indices of 'auto': so many that two hosts hardly ever share one.
AUTO_FIRST = 1 << 30
#: Another host that does not answer within this is taken for gone, s.
LOOK_S = 1.0
#: Roles that write, in a group or alone, what two systems would mix up (C9).
WRITERS = ("labeler", "fraud", "breaker", "learner", "checkpointer")
#: Roles that hash what events name.
HASHING = ("labeler", "fraud", "breaker", "learner", "governor", "checkpointer")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("role", choices=ROLES)
    parser.add_argument(
        "--index",
        type=index_of,
        default=0,
        help="which of the processes of this role, from 0; 'auto' = one of its own for each host "
        "name, where an orchestrator starts as many as it likes",
    )
    parser.add_argument(
        "--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR")
    )
    parser.add_argument(
        "--in-force",
        type=Path,
        metavar="FILE",
        help="read the configuration here, where --config may have changed since the run began; "
        "modules are found beside --config all the same",
    )
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    """Returns when told to stop (SIGTERM, SIGINT) and drained; ends undrained where that takes
    too long."""
    keep_freed_memory()
    receive_in_large_pieces()
    config = shared.load(options, options.role)
    check_role(config, options.role)
    if options.role in HASHING and not config.stream.hash_secret:
        return refuse("role", missing(config))
    process = f"{options.role}-{options.index}"
    set_up_logs(config.run.log_format, options.log_level, process, config.model.name)
    # While a broker is away, clients say so many times a second; what the roles make of it, they
    # say themselves.
    for client in ("kafka", "aiokafka", "mode", "faust"):
        logging.getLogger(client).setLevel(
            logging.DEBUG if options.log_level == "DEBUG" else logging.CRITICAL
        )
    faulthandler.enable()  # SIGBUS and SIGSEGV leave what every thread did in the log
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1)  # kill -USR1: what every thread does, into the log
    stop = stop_on_signals()
    end_within(stop, max(config.labeler.drain_ms, config.learners.drain_ms) / 1_000 + CLOSING_S)
    die_with_launcher()
    refuse_beyond(config, options.role, options.index)
    port = config.run.port_of(options.role, options.index)
    own = listen(config.run.metrics_host, port, process, config.run.turn_max_s)
    refuse_second(config, options.role, options.index, own.instance)
    folder = Path(config.run.dir) / "roles"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock_file(folder / f"{process}.lock", f"{process} of {config.run.dir}")
    except OSError as error:
        return refuse("role", f"run.dir: {folder}: {error.strerror or error}; nothing was started")
    if options.role in WRITERS:
        from everspun.roles import look_for_other_system  # of shards and replicas it loads too much

        look_for_other_system(config, options.role, stop)
    work: roles.Role = getattr(roles, options.role)  # a function for each of ROLES
    work(config, options.index, stop)
    return 0


def index_of(text: str, host: str = "") -> int:
    """An index; of 'auto' one above all others, the same for each start on a host of this name.
    Raises ArgumentTypeError."""
    if text == "auto":
        return AUTO_FIRST + zlib.crc32((host or platform.node()).encode()) % AUTO_FIRST
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number is meant, or 'auto'") from None


def refuse_beyond(config: Config, role: str, index: int) -> None:
    """Raises ConfigError for an index that has no place."""
    addresses = config.paramserver.addresses
    if index >= AUTO_FIRST and role == "shard":
        raise ConfigError("--index auto: a shard's index says which slots it holds; give a number")
    if index < 0 or INDEX_MAX < index < AUTO_FIRST:
        raise ConfigError(f"--index {index}: allowed is 0 to {INDEX_MAX}, or 'auto'")
    if role == "shard" and addresses and index >= len(addresses):
        raise ConfigError(
            f"--index {index}: paramserver.addresses names {len(addresses)} shards, 0 to "
            f"{len(addresses) - 1}"
        )
    for one in own_ports(config, role, index):
        if one.fault:
            raise ConfigError(f"--index {index}: {one.fault}")
    if role == "shard" and (wrong := unreached(config, index)):
        raise ConfigError(wrong)


def refuse_second(config: Config, role: str, index: int, instance: str) -> None:
    """Raises AlreadyLocked where this very process runs already at the place that the configuration
    gives it: two would take turns at fencing each other (S2, K3)."""
    name = f"{role}-{index}"
    places = configured_places(config)
    answer = fetch((places[name].address, places[name].port)) if name in places else None
    if answer is not None and answer.process == name and answer.instance != instance:
        raise AlreadyLocked(
            f"{name} runs already at {places[name]}: it may run once; stop that one first"
        )
    if role == "shard" and config.paramserver.addresses:
        address = config.paramserver.addresses[index]
        if _is_shard(config, address):
            raise AlreadyLocked(
                f"{name} runs already at {address} (paramserver.addresses): it may run once; stop "
                "that one first"
            )


def _is_shard(config: Config, address: str) -> bool:
    """Whether a shard answers there: who takes the connection may be a proxy before nobody."""
    from paramserver import PortRefused, PortUnreachable
    from paramserver.wire import ShardClient, with_token

    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK_S).close()
        shard = ShardClient(address, with_token(config.paramserver, config.run.dir))
    except (OSError, ValueError):
        return False  # nobody there
    try:
        shard.progress(config.model.name)
    except PortRefused:
        return True
    except PortUnreachable as error:
        logger.info("no shard answers at %s yet: %s", address, error)
        return False
    finally:
        shard.close()
    return True
