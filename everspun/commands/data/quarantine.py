"""Records that could not be used: list them, show one with its bytes, or add one that stops a
partition (L7)."""

import argparse
from collections import deque
from collections.abc import Iterator

from rich.table import Table

from everspun.audit import read_all
from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from everspun.config import Config
from labeler.io import SetAside, set_aside_headers, set_aside_key
from stream import OFFSET_MAX, Partition, Record, offset_of
from stream.internal_topics import HeaderFields, MalformedRecord
from stream.log import KafkaLog, Log, wall_clock_ms

#: Records that one command sets aside.
ORDERS_MAX = 5_000


def arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True)
    listing = commands.add_parser("list", help="all of them, newest last")
    listing.add_argument(
        "--limit", type=shared.natural, default=50, help="how many are shown (all are counted)"
    )
    shared.config_options(listing)
    for name, help_line in (
        ("show", "one, with its original bytes"),
        ("add", "let a labeler pass a record"),
    ):
        one = commands.add_parser(name, help=help_line)
        one.add_argument("topic", help="impressions or clicks")
        one.add_argument("partition", type=shared.whole)
        one.add_argument("offset", type=shared.whole)
        if name == "add":
            one.add_argument(
                "--to",
                type=shared.whole,
                default=None,
                help="the last offset, where several are meant",
            )
            one.add_argument("--reason", default="added by an operator", help="why")
        shared.config_options(one)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    act = {"list": _list, "show": _show, "add": _add}[options.action]
    return act(config, options)


def _entries(config: Config, log: Log) -> Iterator[tuple[Record, dict[str, str]]]:
    """Each quarantined record once (C6: its key is its identity), with its headers as text."""
    seen: set[bytes] = set()
    reader = log.reader()
    try:
        for p in range(config.stream.partitions):
            for record in read_all(reader, Partition(config.stream.quarantine, p)):
                if (record.key or b"") not in seen:
                    seen.add(record.key or b"")
                    yield (
                        record,
                        {
                            name: (value or b"").decode(errors="replace")
                            for name, value in record.headers
                        },
                    )
    finally:
        reader.close()


def _offset(record: Record) -> int:
    """Of the record that is meant. Raises MalformedRecord (C8)."""
    return offset_of(HeaderFields("quarantine", record.headers).integer("position"))


def _list(config: Config, options: argparse.Namespace) -> int:
    return listed(config, KafkaLog(config.stream), options.limit)


def listed(config: Config, log: Log, limit: int) -> int:
    """Over any log: print the last of them. Returns the exit code."""
    last: deque[tuple[int, dict[str, str]]] = deque(maxlen=limit)
    count = malformed = 0
    for record, said in _entries(config, log):
        try:
            last.append((_offset(record), said))
            count += 1
        except MalformedRecord:
            malformed += 1
    table = Table("topic", "partition", "offset", "producer", "field", "what is wrong, and the fix")
    for at, said in last:
        table.add_row(
            said.get("topic", ""),
            said.get("partition", ""),
            str(at),
            said.get("producer", ""),
            said.get("field", ""),
            said.get("reason", ""),
        )
    console = shared.console()
    console.print(table)
    console.print(f"{count:,} quarantined records")
    if malformed:
        console.print(f"{malformed:,} malformed records are passed over: no role wrote them (C8)")
    return 0


def _show(config: Config, options: argparse.Namespace) -> int:
    return shown(config, KafkaLog(config.stream), options.topic, options.partition, options.offset)


def shown(config: Config, log: Log, topic: str, partition: int, offset: int) -> int:
    """Over any log: print one. Returns the exit code."""
    for record, said in _entries(config, log):
        named = (
            said.get("topic", "").removeprefix(config.stream.topic_prefix),
            said.get("partition"),
        )
        try:
            is_it = named == (topic, str(partition)) and _offset(record) == offset
        except MalformedRecord:
            continue
        if is_it:
            for name, value in said.items():
                print(f"{name}: {shared.shown(value)}")
            print(f"value: {record.value!r}")
            return 0
    print(f"{topic}[{partition}] offset {offset} is not in quarantine")
    return 1


def _add(config: Config, options: argparse.Namespace) -> int:
    """An order in `quarantine[p]`, which every labeler of the partition obeys (L7)."""
    stream = config.stream
    known = {"impressions": stream.impressions, "clicks": stream.clicks}
    topic = known.get(options.topic.removeprefix(stream.topic_prefix))
    if topic is None or not 0 <= options.partition < stream.partitions:
        given = f"{options.topic}[{options.partition}] offset {options.offset}"
        return refuse("quarantine", f"{given}: a record of impressions or clicks is meant")
    if not 0 <= options.offset <= OFFSET_MAX:
        return refuse("quarantine", f"offset {options.offset}: allowed is 0 to {OFFSET_MAX}")
    last = options.offset if options.to is None else options.to
    if not options.offset <= last < options.offset + ORDERS_MAX:
        allowed = f"{options.offset} up to {options.offset + ORDERS_MAX - 1}"
        return refuse("quarantine", f"--to {last}: allowed is {allowed}")
    log = KafkaLog(stream)
    if wrong := not_there(log, Partition(topic, options.partition), last):
        return refuse("quarantine", f"nothing was set aside: {wrong}")
    writer = log.writer()
    try:
        now_ms = wall_clock_ms()
        where = Partition(stream.quarantine, options.partition)
        for offset in range(options.offset, last + 1):
            order = SetAside(topic, options.partition, offset)
            writer.append(
                where, b"", set_aside_key(order), set_aside_headers(order, options.reason), now_ms
            )
        writer.flush(stream.request_timeout_ms)
    finally:
        writer.close()
    named = f"offset {last}" if last == options.offset else f"offsets {options.offset} to {last}"
    print(f"{topic}[{options.partition}] {named} set aside; its labeler goes on within seconds")
    return 0


def not_there(log: Log, at: Partition, last: int) -> str:
    """Why an offset names no record yet: an order about it would set aside a good one to come. ""
    if it does. Raises what logs raise."""
    reader = log.reader()
    try:
        end = reader.end_offsets([at])[at]
    finally:
        reader.close()
    there = f"the log has 0 to {end - 1}" if end else "the log has none yet"
    return "" if last < end else f"offset {last} of {at.topic}[{at.partition}]: {there}"
