"""Check the promise from logs, shards and checkpoints: every impression in one class, no hole and no overlap, every
batch once on every shard, every checkpoint at its cut. Exit code 1 when one of these is off."""

import argparse
import json

from rich.table import Table

from everspun import standings
from everspun.audit import Audit, audit
from everspun.commands import options as shared
from everspun.config import Config
from stream.kafka import KafkaLog
from stream.log import Log


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--at-rest", action="store_true", help="nothing may be waiting, and no shard behind the log")
    parser.add_argument("--no-shards", action="store_true", help="only logs and checkpoints: the shards do not run")
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    result = full_audit(config, KafkaLog(config.stream), options.at_rest, not options.no_shards)
    if options.json:
        findings = [{"check": f.check, "found": f.found, "right": f.right} for f in result.findings]
        print(
            json.dumps(
                {
                    "right": result.right,
                    "impressions": result.impressions,
                    "clicks": result.clicks,
                    "findings": findings,
                }
            )
        )
    else:
        shared.console().print(table(result))
    return 0 if result.right else 1


def full_audit(config: Config, log: Log, at_rest: bool, with_shards: bool = True) -> Audit:
    """The audit over shards and checkpoints as they are now. Shards are asked first: they may never be ahead."""
    shards, silent = standings.of_shards(config) if with_shards else ([], [])
    claims = shards + standings.of_checkpoints(config)
    result = audit(log, config, claims, standings.begin_vector(config), waiting_allowed=not at_rest)
    standings.check_parts(config, result)
    for name in silent:
        result.add(f"{name} answers", "no answer; --no-shards leaves them out", False)
    return result


def table(result: Audit) -> Table:
    out = Table("check", "found", "", title="audit")
    for finding in result.findings:
        out.add_row(finding.check, finding.found, "[green]right" if finding.right else "[bold red]WRONG")
    return out
