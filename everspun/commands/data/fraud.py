"""What the fraud filter decided: list it, show a source with the reasons and the numbers they rest
on, or decide yourself. `allow` and `ban` write a verdict of rule `operator`: it applies to
impressions whose labels are not closed yet, and to those to come, by their event time. An allowance
beats every rejection over its interval, a ban included. docs/fraud.md says more."""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.table import Table

from everspun.audit import read_all
from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from everspun.config import Config
from everspun.forgetting import taken_back
from labeler.fraud import pair_key
from stream import Partition, parse_ms, show_ms
from stream.internal_topics import ALLOW, OPERATOR, REJECT, Verdict, decode_verdict, encode_verdict
from stream.log import KafkaLog, wall_clock_ms

HOUR_MS = 3_600_000


@dataclass
class Case:
    """Verdicts of one rule and decision on one (source, vendor), whose intervals touch or
    overlap."""

    first: Verdict
    last: Verdict
    count: int

    @property
    def from_ms(self) -> int:
        return self.first.from_ms

    @property
    def to_ms(self) -> int:
        return self.last.to_ms


def cases(verdicts: Iterable[Verdict]) -> list[Case]:
    """Each verdict once (F3), those that go on from one another together, by the end of their
    intervals."""
    found: list[Case] = []
    open_: dict[tuple[str, str, str | None, str | None], Case] = {}
    seen: set[str] = set()
    for one in sorted(verdicts, key=lambda verdict: (verdict.from_ms, verdict.to_ms)):
        if one.id in seen:
            continue
        seen.add(one.id)
        key = (one.rule, one.decision, one.source, one.vendor)
        case = open_.get(key)
        if case is not None and one.from_ms <= case.to_ms:
            case.count += 1
            case.last = one if one.to_ms >= case.to_ms else case.last
        else:
            case = open_[key] = Case(one, one, 1)
            found.append(case)
    return sorted(found, key=lambda case: (case.to_ms, case.last.id))


def order(
    decision: str,
    source: str,
    vendor: str | None,
    from_ms: int,
    to_ms: int,
    reason: str,
    longest_ms: int,
) -> Verdict:
    """An operator's verdict. Raises ValueError where it would say nothing, or is longer than
    `longest_ms` (C4)."""
    if to_ms - from_ms > longest_ms:
        raise ValueError(
            f"an interval of {(to_ms - from_ms) / HOUR_MS:.1f} hours: allowed are at most "
            f"{longest_ms / HOUR_MS:.1f}"
            " (stream.verdict_max_ms); give another order when it has passed"
        )
    pair = pair_key(source, "*" if vendor is None else "v" + vendor)
    id = f"{OPERATOR}/{decision}/{from_ms}/{to_ms}/{pair}"
    verdict = Verdict(id, OPERATOR, decision, source, vendor, from_ms, to_ms, reason)
    verdict.check()
    return verdict


def arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True)
    listing = commands.add_parser("list", help="rejections and allowances, newest last")
    listing.add_argument(
        "--limit", type=shared.natural, default=50, help="how many are shown (all are counted)"
    )
    listing.add_argument("--rule", help="of this rule only")
    shared.config_options(listing)
    showing = commands.add_parser(
        "show", help="all verdicts on a source, with reasons and evidence"
    )
    showing.add_argument("source", help="as `list` shows it")
    shared.config_options(showing)
    for name, help_line in (
        ("allow", "take back rejections of a source"),
        ("ban", "reject a source"),
    ):
        one = commands.add_parser(name, help=help_line)
        one.add_argument(
            "source", help="as it stands in the events (pseudonymised where your producer does so)"
        )
        one.add_argument("--vendor", help="only what it does there; without, everything it does")
        one.add_argument(
            "--from", dest="begin", help="event time, UTC or ms (now, less window and grace)"
        )
        one.add_argument(
            "--hours",
            type=shared.finite,
            help="how long (until stream.verdict_max_ms after the begin)",
        )
        one.add_argument("--reason", default="an operator's decision", help="why")
        shared.config_options(one)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    if options.action == "list":
        return _list(config, options)
    return _show(config, options.source) if options.action == "show" else _decide(config, options)


def _verdicts(config: Config) -> Iterator[Verdict]:
    """The verdicts still in the log that reject or allow."""
    reader = KafkaLog(config.stream).reader()
    try:
        for record in read_all(reader, Partition(config.stream.verdicts, 0)):
            try:
                said = decode_verdict(record.value)
            except ValueError:
                continue
            if isinstance(said, Verdict) and said.decision in (REJECT, ALLOW):
                yield said
    finally:
        reader.close()


def _list(config: Config, options: argparse.Namespace) -> int:
    found = [case for case in cases(_verdicts(config)) if options.rule in (None, case.last.rule)]
    table = Table(
        "rule", "decision", "source", "vendor", "from (UTC)", "to", "verdicts", "why (the last)"
    )
    for case in shared.newest(found, options.limit):
        last = case.last
        table.add_row(
            last.rule,
            last.decision,
            last.source or "any",
            last.vendor if last.vendor is not None else "any",
            show_ms(case.from_ms),
            show_ms(case.to_ms),
            str(case.count),
            last.reason,
        )
    console = shared.console()
    console.print(table)
    sources = {case.last.source for case in found if case.last.decision == REJECT}
    console.print(f"{len(found):,} cases; {len(sources):,} sources were rejected somewhere")
    return 0


def _show(config: Config, source: str) -> int:
    found = [case for case in cases(_verdicts(config)) if case.last.source == source]
    for case in found:
        last = case.last
        where = "everywhere" if last.vendor is None else f"on {shared.shown(last.vendor)}"
        print(
            f"{show_ms(case.from_ms)} to {show_ms(case.to_ms)}: {last.decision} {where}, "
            f"{case.count} verdicts"
        )
        print(f"  {last.rule}: {shared.shown(last.reason)}")
        for name, value in last.evidence.items():
            print(f"  {shared.shown(name)} = {value:.6g}")
    if found:
        reader = KafkaLog(config.stream).reader()
        try:
            count = taken_back(reader, config.stream, source)
        finally:
            reader.close()
        print(f"taken back after training, of what is still in the log: {count:,} rows")
    if not found:
        print(f"no verdict names {source!r}; those still in the log are in `everspun fraud list`")
    return 0 if found else 1


def _decide(config: Config, options: argparse.Namespace) -> int:
    stream = config.stream
    now_ms = wall_clock_ms()
    decision = ALLOW if options.action == "allow" else REJECT
    if "" in (options.source, options.vendor):
        which = "name" if not options.source else "--vendor"
        why = f"the {which} is empty, which is everybody who has none"
        return refuse("fraud", f"nothing was decided: {why}")
    try:
        begin = now_ms - stream.wait_ms if options.begin is None else parse_ms(options.begin)
        length = stream.verdict_max_ms if options.hours is None else int(options.hours * HOUR_MS)
        verdict = order(
            decision,
            options.source,
            options.vendor,
            begin,
            begin + length,
            options.reason,
            stream.verdict_max_ms,
        )
    except ValueError as error:
        return refuse("fraud", f"nothing was decided: {error}")
    writer = KafkaLog(stream).writer()
    try:
        writer.append(
            Partition(stream.verdicts, 0), encode_verdict(verdict), verdict.id.encode(), (), now_ms
        )
        writer.flush(stream.request_timeout_ms)
    finally:
        writer.close()
    said = "is allowed" if decision == ALLOW else "is rejected"
    print(
        f"{options.source} {said} from {show_ms(verdict.from_ms)} to {show_ms(verdict.to_ms)} of "
        f"event time"
    )
    return 0
