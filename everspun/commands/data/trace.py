"""What became of one event: its window, its label, who learned it, which checkpoint holds it, when
that was published.

OFFSET is that of `impressions`, as the producer was told and Kafka's own tools show it; with --row
one of several impressions in one record. With --otlp the steps are sent as spans to a collector of
OpenTelemetry, such as http://localhost:4318/v1/traces, one trace for each labelled range. Times are
those of the log and of the checkpoint; where a history is replayed, of that history.
"""

import argparse
import json
from dataclasses import asdict, replace

from rich.table import Table

from checkpointer.store import Catalogue, open_store
from everspun.commands import options as shared
from everspun.commands.mistakes import refuse, say
from everspun.config import Config
from everspun.trace import (
    EventPlace,
    EventTrace,
    NotThere,
    checkpoint_of,
    event_trace,
    find,
    published_of,
)
from stream import ROWS_PER_RECORD_MAX, Partition, label_chain, show_ms
from stream.log import KafkaLog, wall_clock_ms

#: The longest that a collector is waited for, with all tries, s.
SEND_S = 10.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("partition", type=shared.whole)
    parser.add_argument("offset", type=shared.whole)
    parser.add_argument(
        "--row", type=shared.whole, default=0, help="which impression of the record (0)"
    )
    parser.add_argument("--otlp", metavar="URL", default="", help="send it to a collector, too")
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    place = EventPlace(options.partition, options.offset, options.row)
    if wrong := fault(config, place):
        return refuse("trace", wrong)
    try:
        found = traced(config, place)
    except NotThere as error:
        return refuse("trace", error)
    if options.json:
        print(json.dumps(asdict(found)))
    else:
        _show(found)
    return _sent(found, config.model.name, options.otlp) if options.otlp else 0


def fault(config: Config, place: EventPlace) -> str:
    """What is wrong with a place by itself; "" if nothing is."""
    if not 0 <= place.partition < config.stream.partitions:
        return f"partition {place.partition}: impressions has 0 to {config.stream.partitions - 1}"
    if place.offset < 0:
        return f"offset {place.offset}: 0 or more"
    if not 0 <= place.row < ROWS_PER_RECORD_MAX:
        return f"--row {place.row}: allowed is 0 to {ROWS_PER_RECORD_MAX - 1}"
    return ""


def traced(config: Config, place: EventPlace) -> EventTrace:
    """Raises NotThere, and what logs and stores raise."""
    log, stream, model = KafkaLog(config.stream), config.stream, config.model.name
    chain, partitions = label_chain(place.partition), log.partitions(stream.evaluations)
    reader = log.reader()
    try:
        evaluations = Partition(stream.evaluations, place.partition % max(1, partitions))
        found = find(reader, stream, model, place, evaluations)
        if found.evaluation is not None:
            catalogue = Catalogue(open_store(config.checkpointer.root), model)
            checkpoint = checkpoint_of(catalogue, chain, found.position)
            found = replace(found, checkpoint=checkpoint)
            said = published_of(reader, stream.checkpoints, model, chain, found.position)
            if said is not None:
                found = replace(found, published=said[0], published_ms=said[1])
    finally:
        reader.close()
    return event_trace(found, chain, stream.window_ms + stream.grace_ms, wall_clock_ms())


def _show(found: EventTrace) -> None:
    console = shared.console()
    table = Table("step", "by", "ended (UTC)", "took", "what")
    for step in found.steps:
        what = "  ".join(f"{name} {value}" for name, value in step.detail.items())
        table.add_row(step.name, step.role, show_ms(step.ended_ms), f"{step.took_s:,.1f} s", what)
    console.print(table)
    if found.waits_for:
        console.print(f"waits for {found.waits_for}")


def _sent(found: EventTrace, model: str, url: str) -> int:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        from everspun.trace import NotSent, send
    except ImportError:
        return refuse("trace", "--otlp needs OpenTelemetry: pip install 'everspun[traces]'")
    try:
        count = send(found, model, OTLPSpanExporter(endpoint=url, timeout=SEND_S))
    except NotSent as error:
        return refuse("trace", f"not sent to {url}: {error}", 1)
    except ValueError as error:  # no URL
        return refuse("trace", f"--otlp {url}: {error}")
    say(f"{count} spans sent to {url}", 0)
    return 0
