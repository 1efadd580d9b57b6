"""List checkpoints; show, verify, compare, pin or restore one; prune the others.

A `delta` holds only the rows touched since its parent; it is loaded from its base and all deltas
since, and `verify` reads each of these files.

`restore N` rolls serving back and holds it until `restore --lift`. `restore N --training` makes all
shards go on from that cut: stop the run first, start it again afterwards (X4).
"""

import argparse
import json
import time
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from checkpointer.process import operator_actions as actions
from checkpointer.store import Announcement, Catalogue, Damaged, open_store
from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from everspun.config import Config
from everspun.status import duration
from stream import Partition
from stream.log import KafkaLog, LogError, wall_clock_ms


def arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True)
    shared.config_options(commands.add_parser("list", help="all checkpoints, oldest first"))
    show = commands.add_parser("show", help="one manifest and its gates")
    show.add_argument("which", help="number, name, or 'head'")
    shared.config_options(show)
    verify = commands.add_parser(
        "verify", help="read every file of all checkpoints, or of one, down to its base"
    )
    verify.add_argument("which", nargs="?", default="", help="number, name, or 'head'; none = all")
    shared.config_options(verify)
    pin = commands.add_parser("pin", help="keep one, and what it builds on, until it is unpinned")
    pin.add_argument("which", help="number, name, or 'head'")
    pin.add_argument("--reason", default="", help="why, for whoever comes next")
    shared.config_options(pin)
    unpin = commands.add_parser("unpin", help="let retention decide again")
    unpin.add_argument("which", help="number or name")
    shared.config_options(unpin)
    diff = commands.add_parser("diff", help="what one has that another has not; loads both")
    diff.add_argument("which", help="number, name, or 'head'")
    diff.add_argument("other", nargs="?", default="head", help="the later one (default: head)")
    shared.config_options(diff)
    prune = commands.add_parser("prune", help="delete now what retention gives up")
    prune.add_argument("--dry-run", action="store_true", help="only say what would go")
    shared.config_options(prune)
    restore = commands.add_parser("restore", help="serve an older checkpoint, or train on from it")
    restore.add_argument("which", nargs="?", help="number, name, or 'head'")
    restore.add_argument(
        "--training", action="store_true", help="shards restore from it at their next start"
    )
    restore.add_argument(
        "--lift", action="store_true", help="end the hold: serve the newest published one again"
    )
    restore.add_argument("--reason", default="", help="why, for whoever comes next")
    shared.config_options(restore)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    catalogue = Catalogue(open_store(config.checkpointer.root), config.model.name)
    try:
        return ACTIONS[options.action](catalogue, config, options)
    except (ValueError, Damaged) as error:
        return refuse("checkpoints", error)


def _list(catalogue: Catalogue, config: Config, options: argparse.Namespace) -> int:
    table = Table(
        "name", "state", "marks", "age", "learned to (UTC)", "kind", "rows", "bytes", "NE", "reason"
    )
    now_s = time.time()
    for line in actions.list_checkpoints(catalogue):
        learned = (
            datetime.fromtimestamp(line.event_time_max_ms / 1_000, UTC)
            if line.event_time_max_ms
            else None
        )
        table.add_row(
            line.name,
            line.state,
            " ".join(line.marks),
            duration(now_s - line.created_ms / 1_000) if line.created_ms else "",
            f"{learned:%Y-%m-%d %H:%M:%S}" if learned else "",
            line.kind,
            f"{line.rows:,}",
            f"{line.bytes:,}",
            f"{line.entropy:.4f}" if line.entropy == line.entropy else "",
            line.reason,
        )
    shared.console().print(table)
    return 0


def _show(catalogue: Catalogue, config: Config, options: argparse.Namespace) -> int:
    manifest = actions.find(catalogue, options.which)
    body = json.loads(manifest.encode())["body"]
    gates = catalogue.gates(manifest.name)
    console = shared.console()
    console.print_json(json.dumps(body))
    if gates is not None:
        table = Table("gate", "passed", "what was found")
        for gate in gates.results:
            table.add_row(
                gate.gate, "yes" if gate.passed else "no" if gate.known else "unknown", gate.detail
            )
        console.print(f"{manifest.name}: {gates.outcome} {gates.reason}")
        console.print(table)
    return _say(console, actions.verify(catalogue, manifest.name))


def _verify(catalogue: Catalogue, config: Config, options: argparse.Namespace) -> int:
    found = actions.verify(catalogue, options.which)
    if not found:
        where = f"no checkpoint of model {config.model.name!r} under {config.checkpointer.root}"
        why = f"{where}; is that checkpointer.root, and that model.name?"
        return refuse("checkpoints", why, 1)
    return _say(shared.console(), found)


def _say(console: Console, found: list[actions.Verified]) -> int:
    """One line a checkpoint; 1 if anything is wrong."""
    for one in found:
        way = (
            f"from {one.chain[0]} by {len(one.chain) - 1} deltas" if len(one.chain) > 1 else "full"
        )
        console.print(
            f"{one.name}: {'; '.join(one.problems) or f'{way}, every part has its checksum'}"
        )
    return 1 if any(one.problems for one in found) else 0


def _restore(catalogue: Catalogue, config: Config, options: argparse.Namespace) -> int:
    now_ms = wall_clock_ms()
    if options.lift and (options.which is not None or options.training):
        given = "--training" if options.which is None else options.which
        why = f"nothing was done: restore {given} --lift: --lift ends the hold, whatever it is on"
        return refuse("checkpoints", f"{why}; give one of both")
    if options.lift:
        announcement = actions.lift(catalogue, now_ms)
        if announcement is None:
            return refuse("checkpoints", "nothing is held")
        if unheard := _announced(announcement, config):
            return refuse("checkpoints", f"lifted in the store: {unheard}", 1)
        print(f"lifted: replicas go on to {announcement.name}")
        return 0
    if not options.which:
        return refuse("checkpoints", "restore which? give a number, a name, 'head', or --lift")
    if options.training:
        manifest = actions.restore_training(catalogue, options.which)
        print(f"training goes on from {manifest.name} once all shards start again")
        return 0
    announcement = actions.restore(catalogue, options.which, options.reason, now_ms)
    if unheard := _announced(announcement, config):
        return refuse("checkpoints", f"{announcement.name} is held in the store: {unheard}", 1)
    print(f"replicas serve {announcement.name} until `everspun checkpoints restore --lift`")
    return 0


def _pin(catalogue: Catalogue, config: Config, options: argparse.Namespace) -> int:
    manifest = actions.pin(catalogue, options.which, options.reason)
    print(f"{manifest.name} stays until `everspun checkpoints unpin {manifest.number}`")
    return 0


def _unpin(catalogue: Catalogue, config: Config, options: argparse.Namespace) -> int:
    print(f"{actions.unpin(catalogue, options.which)} stays for as long as retention says")
    return 0


def _diff(catalogue: Catalogue, config: Config, options: argparse.Namespace) -> int:
    found = actions.diff(catalogue, options.which, options.other)
    span_ms = found.event_time_ms
    span = "one of them has learned no event yet"
    if span_ms is not None:
        span = f"{'-' if span_ms < 0 else ''}{duration(abs(span_ms) / 1_000)} of event time"
    print(
        f"{found.number} checkpoints, {found.rows_learned:,} rows learned, {span}; keys: "
        f"{found.created:,} new, {found.evicted:,} gone, {found.changed:,} changed, weights by "
        f"{found.weight_change:.4g} (root mean square)"
    )
    return 0


def _prune(catalogue: Catalogue, config: Config, options: argparse.Namespace) -> int:
    names = catalogue.sweep(config.checkpointer.kept, only_look=options.dry_run)
    for name in names:
        print(name)
    print(f"{len(names)} checkpoints {'would go' if options.dry_run else 'deleted'}")
    return 0


ACTIONS = {
    "list": _list,
    "show": _show,
    "verify": _verify,
    "pin": _pin,
    "unpin": _unpin,
    "diff": _diff,
    "prune": _prune,
    "restore": _restore,
}


def _announced(announcement: Announcement, config: Config) -> str:
    """Say in the log what the store says already. Returns what is to be told where the log does not
    take it, which undoes nothing (X4)."""
    try:
        _announce(announcement, config)
    except LogError as error:
        within = f"serving.poll_ms = {config.serving.poll_ms}"
        return f"replicas see it within {within}; not announced: {error}"
    return ""


def _announce(announcement: Announcement, config: Config) -> None:
    """Raises LogError."""
    writer = KafkaLog(config.stream).writer()
    try:
        writer.append(
            Partition(config.stream.checkpoints, 0),
            announcement.encode(),
            timestamp_ms=announcement.created_ms,
        )
        writer.flush(config.stream.request_timeout_ms)
    finally:
        writer.close()
