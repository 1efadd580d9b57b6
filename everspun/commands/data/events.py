"""Check events before or after they are sent: field, value and fix for each bad record.

FILE: JSON lines, one event, page view or array a line. TOPIC: `impressions` or `clicks` of the
config's Kafka, or one of its catalogues. In a file of a catalogue, a line is a row: an object of
the key, as `key`, and of attributes.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import orjson
from rich.table import Table

from everspun.audit import read_all
from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from everspun.config import Config, loads
from stream import Partition, Record, StreamConfig
from stream.decoding import count_undeclared, decode_clicks, decode_impressions
from stream.decoding.catalogues import CatalogueColumns, WrongRow
from stream.log import KafkaLog, RecordColumns
from stream.registry import RegistryAway, RegistryConfig, registry_client, with_schemas

#: Records that are decoded together: so many, or of so many bytes.
CHUNK, CHUNK_BYTES = 2_000, 16_777_216
UNDECLARED_SHOWN = 20
#: Between two looks at whether a schema has come.
WAIT_MS = 100


def arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="check")
    check = commands.add_parser("check", help="check a file or a topic")
    check.add_argument("what", help="a JSON-lines file, or impressions | clicks | a catalogue")
    check.add_argument(
        "--kind",
        default="impressions",
        help="what the file holds: impressions, clicks, a catalogue",
    )
    check.add_argument(
        "--limit", type=shared.natural, default=20, help="bad records shown (all are counted)"
    )
    shared.config_options(check)


def run(options: argparse.Namespace) -> int:
    path, checked = Path(options.what), Checked(options.limit)
    if path.is_file():
        config = _config(options)
        known = ("impressions", "clicks", *config.stream.catalogues)
        if options.kind not in known:
            return refuse("events", f"--kind {options.kind}: allowed are {', '.join(known)}")
        _check_file(path, options.kind, config.stream, checked)
    elif options.what in ("impressions", "clicks") or options.config.exists():
        config = shared.load(options)
        if options.what not in ("impressions", "clicks", *config.stream.catalogues):
            known_topics = "'impressions', 'clicks' or a catalogue"
            return refuse("events", f"{options.what}: neither a file nor {known_topics}")
        try:
            _check_topic(options.what, config.stream, config.registry, checked)
        except RegistryAway as error:
            return refuse("events", f"the schema registry does not answer as one: {error}")
    else:
        return refuse("events", f"{options.what}: neither a file nor 'impressions' or 'clicks'")
    return _report(checked)


def _config(options: argparse.Namespace) -> Config:
    """That of --config; a file can be checked without one, where none is named and none is
    here."""
    if options.config.exists() or options.config != shared.CONFIG:
        return shared.load(options)
    return loads("", options.set)


@dataclass
class Checked:
    """What was found so far. Bad records are counted, and of the first a few are kept to be
    shown."""

    limit: int
    good: int = 0
    bad: int = 0
    shown: list[tuple[str, int, str, str]] = field(default_factory=list)
    undeclared: Counter[str] = field(default_factory=Counter)

    def add(
        self, where: str, records: Sequence[Record], kind: str, partition: int, config: StreamConfig
    ) -> None:
        """The decoder of the labeler, on these records."""
        if kind in config.catalogues:
            return self._add_rows(where, records, kind, config)
        arrivals = np.array([r.timestamp_ms for r in records], dtype=np.int64)
        decode = decode_impressions if kind == "impressions" else decode_clicks
        rows, bad = decode(records, partition, arrivals, config)
        self.good += len(rows)
        for one in bad:
            self.add_bad(where, one.record.offset, one.field, one.reason)
        if kind == "impressions":
            count_undeclared(self.undeclared, records, config)

    def _add_rows(
        self, where: str, records: Sequence[Record], name: str, config: StreamConfig
    ) -> None:
        limits = (config.record_bytes_max, config.catalogue_row_bytes_max)
        reader = CatalogueColumns(config.declared, *limits).readers[name]
        for record in records:
            try:
                self.good += reader.read(record) is not None
            except WrongRow as error:
                self.add_bad(where, record.offset, error.name, error.reason)

    def add_bad(self, where: str, at: int, name: str, reason: str) -> None:
        self.bad += 1
        if len(self.shown) < self.limit:
            self.shown.append((where, at, name, reason))


class Registered:
    """Schemas that records name, asked of the registry and waited for."""

    def __init__(self, config: RegistryConfig) -> None:
        self._client = registry_client(config)

    def of(self, records: Sequence[Record]) -> Sequence[Record]:
        """The records with their schemas. Raises RegistryAway."""
        if self._client is None:
            return records
        laid_out = RecordColumns.of(records)
        while len(ready := with_schemas(laid_out, self._client)) < len(laid_out):
            if (away := self._client.away()) is not None:
                raise RegistryAway(f"schema {away.id}: {away.reason}")
            self._client.wait(WAIT_MS)
        return ready


def _check_file(path: Path, kind: str, config: StreamConfig, checked: Checked) -> None:
    """A file has no partitions: with one only, no line is misplaced. Offsets are line numbers."""
    config = replace(config, partitions=1)
    chunk, size = [], 0
    for number, line in _lines(path, config.record_bytes_max):
        if line is None:
            text = (
                f"has more than {config.record_bytes_max} bytes; send less a record "
                f"(record_bytes_max)"
            )
            checked.add_bad("line", number, "value", text)
        elif line.strip():
            chunk.append(
                Record(number, 0, _key_of(line) if kind in config.catalogues else None, line)
            )
            size += len(line)
        if len(chunk) == CHUNK or size > CHUNK_BYTES:
            checked.add("line", chunk, kind, 0, config)
            chunk, size = [], 0
    if chunk:
        checked.add("line", chunk, kind, 0, config)


def _key_of(line: bytes) -> bytes | None:
    """Of a row in a file; None = it says none."""
    try:
        key = orjson.loads(line)["key"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return key.encode() if isinstance(key, str) else None


def _lines(path: Path, bytes_max: int) -> Iterator[tuple[int, bytes | None]]:
    """Lines by number, without their ends; None for one that is too long, which is not held in
    memory."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(bytes_max + 2):
            number += 1
            if len(line.rstrip(b"\n")) <= bytes_max:
                yield number, line.rstrip(b"\n")
                continue
            while line and not line.endswith(b"\n"):
                line = file.readline(bytes_max)
            yield number, None


def _check_topic(
    kind: str, config: StreamConfig, registry: RegistryConfig, checked: Checked
) -> None:
    topics = {"impressions": config.impressions, "clicks": config.clicks, **config.catalogues}
    topic, partitions = topics[kind], 1 if kind in config.catalogues else config.partitions
    schemas = Registered(registry)
    reader = KafkaLog(config).reader()
    try:
        for p in range(partitions):
            chunk, size = [], 0
            for record in read_all(reader, Partition(topic, p)):
                if not record.is_heartbeat:
                    chunk.append(record)
                    size += len(record.value or b"")
                if len(chunk) == CHUNK or size > CHUNK_BYTES:
                    checked.add(f"{topic}[{p}]", schemas.of(chunk), kind, p, config)
                    chunk, size = [], 0
            if chunk:
                checked.add(f"{topic}[{p}]", schemas.of(chunk), kind, p, config)
    finally:
        reader.close()


def _report(checked: Checked) -> int:
    console = shared.console()
    if checked.shown:
        table = Table("where", "offset or line", "field", "what is wrong, and the fix")
        for where, at, name, reason in checked.shown:
            table.add_row(where, str(at), name, reason)
        console.print(table)
    if checked.undeclared:
        table = Table("feature that is ignored: not declared, or kept by the pipeline", "records")
        for name, count in checked.undeclared.most_common(UNDECLARED_SHOWN):
            table.add_row(name, f"{count:,}")
        console.print(table)
    console.print(f"{checked.good:,} good events, {checked.bad:,} bad records")
    return 1 if checked.bad else 0
