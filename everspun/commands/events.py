"""Check events before or after they are sent: field, value and fix for each bad record.

FILE: JSON lines, one event, page view or array a line. TOPIC: `impressions` or `clicks` of the config's Kafka.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.table import Table

from everspun.audit import read_all
from everspun.commands import options as shared
from everspun.config import Config
from stream.decode import BadRecord, decode_clicks, decode_impressions
from stream.kafka import KafkaLog
from stream.record import Partition, Record

CHUNK = 2_000


def arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="check")
    check = commands.add_parser("check", help="check a file or a topic")
    check.add_argument("what", help="a JSON-lines file, or impressions | clicks")
    check.add_argument("--kind", choices=("impressions", "clicks"), default="impressions", help="what the file holds")
    check.add_argument("--limit", type=int, default=20, help="bad records shown (all are counted)")
    shared.config_options(check)


def run(options: argparse.Namespace) -> int:
    path = Path(options.what)
    if path.is_file():
        config = shared.load(options) if options.config.exists() else Config()
        sources = _from_file(path, options.kind, config)
    elif options.what in ("impressions", "clicks"):
        config = shared.load(options)
        sources = _from_topic(options.what, config)
    else:
        print(f"{options.what}: neither a file nor 'impressions' or 'clicks'")
        return 2
    return _report(sources, options.limit)


#: (where, good events of this chunk, bad records of this chunk)
Chunk = tuple[str, int, list[BadRecord]]


def _check(records: list[Record], kind: str, partition: int, config: Config) -> tuple[int, list[BadRecord]]:
    arrivals = np.array([r.timestamp_ms for r in records], dtype=np.int64)
    decode = decode_impressions if kind == "impressions" else decode_clicks
    rows, bad = decode(records, partition, arrivals, config.stream)
    return len(rows), bad


def _from_file(path: Path, kind: str, config: Config) -> Iterator[Chunk]:
    """A file has no partitions: with one only, no line is misplaced. Offsets are line numbers."""
    config = replace(config, stream=replace(config.stream, partitions=1))
    with path.open("rb") as lines:
        chunk: list[Record] = []
        for number, line in enumerate(lines, 1):
            if line.strip():
                chunk.append(Record(number, 0, None, line.rstrip(b"\n")))
            if len(chunk) == CHUNK:
                yield ("line", *_check(chunk, kind, 0, config))
                chunk = []
        if chunk:
            yield ("line", *_check(chunk, kind, 0, config))


def _from_topic(kind: str, config: Config) -> Iterator[Chunk]:
    topic = config.stream.impressions if kind == "impressions" else config.stream.clicks
    reader = KafkaLog(config.stream).reader()
    try:
        for p in range(config.stream.partitions):
            chunk: list[Record] = []
            for record in read_all(reader, Partition(topic, p)):
                if not record.is_heartbeat:
                    chunk.append(record)
                if len(chunk) == CHUNK:
                    yield (f"{topic}[{p}]", *_check(chunk, kind, p, config))
                    chunk = []
            if chunk:
                yield (f"{topic}[{p}]", *_check(chunk, kind, p, config))
    finally:
        reader.close()


def _report(chunks: Iterator[Chunk], limit: int) -> int:
    good = wrong = 0
    table = Table("where", "offset or line", "field", "what is wrong, and the fix")
    for where, count, bad in chunks:
        good += count
        for one in bad:
            if wrong < limit:
                table.add_row(where, str(one.record.offset), one.field, one.reason)
            wrong += 1
    console = shared.console()
    if wrong:
        console.print(table)
    console.print(f"{good:,} good events, {wrong:,} bad records")
    return 1 if wrong else 0
