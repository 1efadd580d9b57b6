"""Check the promise from logs, archive, shards and checkpoints: every impression in one class, no
hole and no overlap, every batch once on every shard, every checkpoint at its cut. What retention
has taken is no fault: below the table stands what cannot be seen any more. Exit code 0: all right;
1: something is WRONG; 2: it could not be done."""

import argparse
import json

from rich.table import Table
from rich.text import Text

from checkpointer.archive import Archive
from checkpointer.store import open_store
from everspun.audit import Audit, audit, standings
from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from everspun.config import Config
from stream.log import KafkaLog, Log, LogError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--at-rest", action="store_true", help="nothing may be waiting, and no shard behind the log"
    )
    parser.add_argument(
        "--no-shards", action="store_true", help="only logs and checkpoints: the shards do not run"
    )
    parser.add_argument(
        "--archive",
        action="store_true",
        help="read what the log has no more from the archive (as [archive] read does)",
    )
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    try:
        log = KafkaLog(config.stream)
        result = full_audit(config, log, options.at_rest, not options.no_shards, options.archive)
    except (LogError, OSError) as error:
        return refuse("audit", f"not done: {error}")
    if options.json:
        print(json.dumps(body(result)))
    else:
        console = shared.console()
        console.print(table(result))
        for line in result.unseen:
            console.print(Text(f"not seen: {line}"))
    return 0 if result.right else 1


def body(result: Audit) -> dict[str, object]:
    """What --json says; null where nothing could be counted."""
    return {
        "right": result.right,
        "impressions": result.impressions or None,
        "clicks": result.clicks or None,
        "findings": [
            {"check": f.check, "found": f.found, "right": f.right} for f in result.findings
        ],
        "unseen": result.unseen,
    }


def full_audit(
    config: Config, log: Log, at_rest: bool, with_shards: bool = True, archived: bool = False
) -> Audit:
    """The audit over shards and checkpoints as they are now. Shards are asked first: they may
    never be ahead."""
    shards, silent = standings.of_shards(config) if with_shards else ([], [])
    claims = shards + standings.of_checkpoints(config)
    archive = Archive(open_store(config.archive.root)) if archived or config.archive.read else None
    begin = standings.begin_vector(config)
    result = audit(log, config, claims, begin, waiting_allowed=not at_rest, archive=archive)
    standings.check_parts(config, result)
    for name in silent:
        result.add(f"{name} answers", "no answer; --no-shards leaves them out", False)
    return result


def table(result: Audit) -> Table:
    out = Table("check", "found", "", title="audit")
    for finding in result.findings:
        verdict = Text("right", "green") if finding.right else Text("WRONG", "bold red")
        out.add_row(Text(finding.check), Text(finding.found), verdict)
    return out
