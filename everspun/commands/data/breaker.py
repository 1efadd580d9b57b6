"""The circuit breaker: what is withheld from training, and an operator's override on it (L8)."""

import argparse

from rich.table import Table

from everspun.audit import read_all
from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from everspun.config import Config
from labeler import VENDOR, sliceable
from labeler.breaker import Scope, open_scopes, scope_of
from stream import Partition, StreamConfig, show_ms
from stream.internal_topics import (
    OPERATOR,
    RELEASE,
    WITHHOLD,
    Verdict,
    decode_verdict,
    encode_verdict,
)
from stream.log import KafkaLog, wall_clock_ms

EVERYTHING = "everything"


def arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True)
    listing = commands.add_parser("list", help="what is withheld now, and the last decisions")
    listing.add_argument(
        "--limit", type=shared.natural, default=20, help="how many decisions are shown"
    )
    shared.config_options(listing)
    helps = {
        WITHHOLD: "take a scope out of training",
        RELEASE: "say that a scope is healthy as it is",
    }
    for name, help_line in helps.items():
        one = commands.add_parser(name, help=help_line)
        one.add_argument("scope", help="everything, vendor=NAME, source=NAME, or FEATURE=VALUE")
        one.add_argument(
            "--from-ms",
            type=shared.moment_ms,
            help="event time, ms; default: where it is withheld from, or now",
        )
        one.add_argument(
            "--to-ms",
            type=shared.moment_ms,
            help="event time, ms, excluded; default: verdict_max_ms from now",
        )
        one.add_argument("--reason", default="an operator says so", help="why")
        shared.config_options(one)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    said = _decisions(config)
    if options.action == "list":
        return listed(said, options.limit)
    try:
        verdict = order(options, said, config.stream, wall_clock_ms())
    except ValueError as error:
        return refuse("breaker", f"nothing was decided: {error}")
    writer = KafkaLog(config.stream).writer()
    try:
        where = Partition(config.stream.verdicts, 0)
        writer.append(where, encode_verdict(verdict), verdict.id.encode(), (), wall_clock_ms())
        writer.flush(config.stream.request_timeout_ms)
    finally:
        writer.close()
    print(
        f"{verdict.decision}: {named(verdict)}, event time {_time(verdict.from_ms)} to "
        f"{_time(verdict.to_ms)}"
    )
    return 0


def order(
    options: argparse.Namespace, said: list[Verdict], stream: StreamConfig, now_ms: int
) -> Verdict:
    """The operator's verdict. Raises ValueError naming what is wrong with it."""
    scope = parse_scope(options.scope, stream)
    to_ms = now_ms + stream.verdict_max_ms if options.to_ms is None else options.to_ms
    from_ms = options.from_ms
    if from_ms is None:
        same = [v for v in said if _scope(v) == scope and v.decision == WITHHOLD]
        earliest = min((v.from_ms for v in _unbroken(same)), default=now_ms)
        from_ms = earliest if options.action == RELEASE else now_ms
    kind, value = scope
    names = {"source": None, "vendor": None, "feature": None, "value": None} | {
        "source": {"source": value},
        VENDOR: {"vendor": value},
        "": {},
    }.get(kind, {"feature": kind, "value": value})
    id = f"{OPERATOR}/{options.action}/{kind}={value}/{from_ms}/{to_ms}/{now_ms}"
    verdict = Verdict(
        id,
        OPERATOR,
        options.action,
        names["source"],
        names["vendor"],
        from_ms,
        to_ms,
        options.reason,
        {},
        names["feature"],
        names["value"],
    )
    verdict.check()
    return verdict


def parse_scope(text: str, stream: StreamConfig) -> Scope:
    """Raises ValueError naming what is allowed."""
    if text == EVERYTHING:
        return ("", "")
    kind, equals, value = text.partition("=")
    known = ("source", *sliceable(stream))
    if not equals or kind not in known:
        raise ValueError(
            f"scope {text!r}: allowed are {EVERYTHING}, and NAME=VALUE with NAME of "
            f"{', '.join(known)}"
        )
    return (kind, value)


def named(said: Verdict) -> str:
    """A scope as the command line takes it."""
    kind, value = _scope(said)
    return f"{kind}={value}" if kind else EVERYTHING


def _scope(said: Verdict) -> Scope:
    return ("source", said.source) if said.source is not None else scope_of(said)


def _unbroken(said: list[Verdict]) -> list[Verdict]:
    """Of intervals in the order of the log, the last ones that follow each other without a gap."""
    out: list[Verdict] = []
    for verdict in reversed(said):
        if out and verdict.to_ms < out[-1].from_ms:
            break
        out.append(verdict)
    return out


def _decisions(config: Config) -> list[Verdict]:
    """All words on withholding, in the order of the log."""
    reader = KafkaLog(config.stream).reader()
    try:
        out = []
        for record in read_all(reader, Partition(config.stream.verdicts, 0)):
            try:
                said = decode_verdict(record.value)
            except ValueError:
                continue  # every reader passes it over
            if isinstance(said, Verdict) and said.decision in (WITHHOLD, RELEASE):
                out.append(said)
        return out
    finally:
        reader.close()


def listed(said: list[Verdict], limit: int) -> int:
    """Print what is withheld, and the last decisions. Exit code 1 while anything is."""
    console = shared.console()
    newest = max((v.to_ms for v in said if v.rule != OPERATOR), default=0)
    withheld = open_scopes(said, newest - 1)
    table = Table("withheld now", "rule", "event time to", "reason")
    for _, verdict in sorted(withheld.items()):
        table.add_row(named(verdict), verdict.rule, _time(verdict.to_ms), verdict.reason)
    console.print(table)
    history = Table("decision", "scope", "rule", "from", "to", "reason", "evidence")
    for verdict in shared.newest(said, limit):
        evidence = ", ".join(f"{name} {value:g}" for name, value in verdict.evidence.items())
        history.add_row(
            verdict.decision,
            named(verdict),
            verdict.rule,
            _time(verdict.from_ms),
            _time(verdict.to_ms),
            verdict.reason,
            evidence,
        )
    console.print(history)
    console.print(f"{len(said):,} decisions")
    return 1 if withheld else 0


def _time(ms: int) -> str:
    return show_ms(ms).replace("T", " ")
