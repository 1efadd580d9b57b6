"""The models that one store holds, side by side: what each was begun with and learned, and how well
it predicts the rows that all of them have learned. `promote NEW --of OLD`: replicas of OLD serve
NEW; promoting OLD takes it back."""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable

from rich.table import Table

from checkpointer.process import model_rows
from checkpointer.store import Catalogue, Files, open_store
from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from everspun.config import Config
from everspun.status import Quality, duration, shown
from stream import Partition, show_ms
from stream.internal_topics import MalformedRecord, json_object
from stream.log import KafkaLog, LogError, Reader, Unavailable

_RECORDS_MAX, _POLL_MS, _SILENCE_MAX_S = 5_000, 200, 30.0


def arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True)
    shared.config_options(
        commands.add_parser("list", help="all models of the config's store, compared")
    )
    promote = commands.add_parser("promote", help="serve a model in place of another")
    promote.add_argument("model", help="the model that is to answer")
    promote.add_argument(
        "--of", default="", metavar="MODEL", help="whose replicas (the config's model)"
    )
    shared.config_options(promote)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    files = open_store(config.checkpointer.root)
    if options.action == "promote":
        try:
            return promote(files, options.model, options.of or config.model.name)
        except ValueError as error:
            return refuse("models", f"nothing was promoted: {error}")
    names = begun_models(files)
    console = shared.console()
    console.print(models_table(files, names))
    try:
        console.print(comparison(config, names))
    except LogError as error:
        console.print(f"no comparison: {error}")
    return 0


def promote(files: Files, new: str, old: str) -> int:
    """Replicas of `old` serve `new` from their next look on. Raises ValueError, nothing changed,
    for a model that is not there or has no published checkpoint."""
    if old not in (begun := begun_models(files)) and begun:
        raise ValueError(f"--of {old}: no such model; this store has {', '.join(begun)}")
    ref = Catalogue(files, new).published()
    if ref is None:
        known = ", ".join(begun_models(files)) or "none"
        raise ValueError(
            f"{new} has no published checkpoint: there is nothing to serve (models of this store: "
            f"{known})"
        )
    Catalogue(files, old).write_successor(new)
    print(f"replicas of {old} serve {new}, now at {ref.name}")
    print(f"`everspun models promote {old} --of {old}` takes it back")
    return 0


def begun_models(files: Files) -> list[str]:
    return [name for name in files.names("") if "begin.json" in files.names(name)]


def models_table(files: Files, names: list[str]) -> Table:
    table = Table(
        "model", "served in its place", "published", "age", "learned events to (UTC)", "rows"
    )
    for name in names:
        catalogue = Catalogue(files, name)
        ref, successor = catalogue.published(), catalogue.successor()
        manifest = catalogue.manifest(ref.name) if ref is not None else None
        table.add_row(
            name,
            "" if successor == name else successor,
            manifest.name if manifest else "",
            duration(time.time() - manifest.created_ms / 1_000) if manifest else "",
            show_ms(manifest.event_time_max_ms) if manifest and manifest.event_time_max_ms else "",
            f"{model_rows(manifest, catalogue.gates(manifest.name)):,}" if manifest else "",
        )
    return table


def comparison(
    config: Config, names: list[str], span: Callable[[str, int, int], bool] | None = None
) -> Table:
    """Progressive loss of each model over the ranges that all of them have learned, and were asked
    for by `span` (chain, start, end). Raises LogError."""
    log = KafkaLog(config.stream)
    reader = log.reader()
    try:
        said = evaluations(
            reader, config.stream.evaluations, log.partitions(config.stream.evaluations)
        )
    finally:
        reader.close()
    by_model: dict[str, dict[tuple[str, int, int], bytes]] = defaultdict(dict)
    for value in said:
        try:
            one = json_object("evaluations", value)
            model, key = (
                one.text("model"),
                (one.text("chain"), one.integer("start"), one.integer("end")),
            )
        except MalformedRecord:
            continue  # counts for no model
        if span is None or span(*key):
            by_model[model].setdefault(key, value)
    present = [name for name in names if by_model[name]]
    common = set.intersection(*(set(by_model[name]) for name in present)) if present else set()
    table = Table(
        "model",
        "rows",
        "log loss",
        "normalized entropy",
        "calibration",
        title=f"{len(common)} common ranges",
    )
    for name in present:
        quality = Quality(name)
        for key in common:
            quality.add(by_model[name][key])
        numbers = (
            shown(quality.log_loss, quality.rows),
            shown(quality.normalized_entropy, quality.label_sum),
            shown(quality.calibration, quality.label_sum),
        )
        table.add_row(name, f"{quality.rows:,.0f}", *numbers)
    return table


def evaluations(reader: Reader, topic: str, partitions: int) -> list[bytes]:
    """All that stand in the topic now. Raises LogError."""
    wanted = [Partition(topic, p) for p in range(partitions)]
    ends, first = reader.end_offsets(wanted), reader.beginning_offsets(wanted)
    reader.assign(wanted)
    for partition in wanted:
        reader.seek(partition, first[partition])
    found: list[bytes] = []
    until = time.monotonic() + _SILENCE_MAX_S
    while any(reader.position(p) < ends[p] for p in wanted):
        if time.monotonic() > until:
            raise Unavailable(
                f"{topic}: nothing came for {_SILENCE_MAX_S:g} s, and its end was not reached"
            )
        for records in reader.poll(_RECORDS_MAX, _POLL_MS).values():
            until = time.monotonic() + _SILENCE_MAX_S
            found += [record.value for record in records if record.value]
    return found
