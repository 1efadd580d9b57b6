"""What the archive of examples holds: how far each partition is archived, its files, and whether
they read as they were written. `[run] archivers = 1` keeps it; `[archive] read = true` lets
learners read it. `backfill` makes a copy in which older examples have a feature that was declared
later."""

import argparse
import importlib
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, json, parquet
from rich.progress import track
from rich.table import Table

from checkpointer.archive import Archive, Backfill, BackfillError, joined_with
from checkpointer.store import Damaged, open_store
from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from everspun.config import Config
from stream import show_ms
from stream.columns import Features


def arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True)
    for name, help_line in (
        ("status", "how far each partition is archived"),
        ("list", "all files: event times, rows, records' offsets"),
        (
            "verify",
            "read every file and compare with the digests; exit 1 if one is damaged or records "
            "are missing",
        ),
    ):
        shared.config_options(commands.add_parser(name, help=help_line))
    fill = commands.add_parser("backfill", help="a copy with a feature that older examples lack")
    fill.add_argument("feature", help="a declared feature")
    fill.add_argument("--to", required=True, metavar="ROOT", help="where the copy is made")
    how = fill.add_mutually_exclusive_group(required=True)
    how.add_argument(
        "--by", metavar="MODULE:FUNCTION", help="called with the rows of a record (Arrow)"
    )
    how.add_argument("--join", type=Path, metavar="FILE", help=".parquet, .csv or .jsonl")
    fill.add_argument("--on", default="item", help="with --join: the column of both (item)")
    shared.config_options(fill)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    archive = Archive(open_store(config.archive.root))
    partitions = range(config.stream.partitions)
    try:
        if options.action == "backfill":
            return _backfill(config, archive, partitions, options)
        if options.action == "status":
            return _status(archive, partitions, config.archive.file_age_max_ms)
        if options.action == "verify":
            return _verify(archive, partitions, config.archive.root)
        return _list(archive, partitions)
    except Damaged as error:
        return refuse("archive", f"{error}; `everspun archive verify` reads every file", 1)


def _backfill(
    config: Config, archive: Archive, partitions: range, options: argparse.Namespace
) -> int:
    try:
        columns = _columns_of(config, options.feature)
        give = _function(options.by) if options.by else _joined(options.join, columns, options.on)
        if options.to == config.archive.root:
            raise BackfillError(f"--to {options.to}: is the archive itself; take another folder")
        work = Backfill(archive, Archive(open_store(options.to)), columns, give)
        total = sum(len(archive.paths(p)) for p in partitions)
        counts: Counter[str] = Counter()
        for one in track(work.run(partitions), "files", total, console=shared.console()):
            counts.update({one.outcome: 1, "rows": one.rows})
    except BackfillError as error:
        return refuse("archive backfill", error)
    said = ", ".join(f"{counts[name]} {name}" for name in ("filled", "had it", "was there"))
    shared.console().print(
        f"{total} files, {counts['rows']:,} rows: {said}. To train from it: "
        f"archive.root = {options.to!r}, archive.read = true"
    )
    return 0


def _columns_of(config: Config, name: str) -> Features:
    declared = config.stream.declared.get(name)
    if declared is None:
        known = [f for f in config.stream.features if f.name == name]
        if not known:
            raise BackfillError(f"{name}: is not declared; say [features.{name}]")
        return tuple(known)
    columns = (*declared.columns(name), *declared.catalogue_columns(name))
    if not columns:
        raise BackfillError(f"{name}: is a {declared.kind} that nothing sends; nothing to fill")
    return columns


def _function(name: str) -> Callable[[pa.RecordBatch], dict[str, pa.Array]]:
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Callable[[pa.RecordBatch], dict[str, pa.Array]] = getattr(
            importlib.import_module(module), function
        )
    except Exception as error:  # whatever a module of the user's own raises
        why = f"{type(error).__name__}: {error}"
        raise BackfillError(f"--by {name}: {why}; expected MODULE:FUNCTION") from error
    if not callable(found):
        raise BackfillError(f"--by {name}: is no function; expected MODULE:FUNCTION")
    return found


def _joined(
    path: Path, columns: Features, on: str
) -> Callable[[pa.RecordBatch], Mapping[str, pa.Array]]:
    readers = {".parquet": parquet.read_table, ".csv": csv.read_csv, ".jsonl": json.read_json}
    if path.suffix not in readers:
        raise BackfillError(f"--join {path}: expected {', '.join(readers)}")
    try:
        return joined_with(readers[path.suffix](str(path)), columns, on)
    except (OSError, pa.ArrowException) as error:
        raise BackfillError(f"--join {path}: {error}") from error


def _status(archive: Archive, partitions: range, age_max_ms: int) -> int:
    table = Table(
        "partition", "files", "first record", "next record", "lost to retention", "chains"
    )
    for p in partitions:
        head, paths = archive.head(p), archive.paths(p)
        if head is None:
            within = f"no file yet: records wait for theirs, at most {age_max_ms / 1000:.0f} s"
            table.add_row(str(p), "0", "", "", "", within + " ([archive] file_age_max_ms)")
            continue
        first = str(archive.describe(paths[0]).first_offset) if paths else ""
        chains = ", ".join(f"{chain} {end}" for chain, (end, _) in sorted(head.ends.items()))
        table.add_row(str(p), str(len(paths)), first, str(head.next_offset), str(head.lost), chains)
    shared.console().print(table)
    return 0


def _list(archive: Archive, partitions: range) -> int:
    table = Table("file", "records from", "to", "rows", "events from (UTC)", "to", "code")
    for p in partitions:
        for path in archive.paths(p):
            file = archive.describe(path)
            moments = (show_ms(file.ts_ms_min), show_ms(file.ts_ms_max))
            numbers = (str(file.first_offset), str(file.next_offset), f"{file.rows:,}")
            table.add_row(path, *numbers, *moments, file.code_version)
    shared.console().print(table)
    return 0


def _verify(archive: Archive, partitions: range, root: str) -> int:
    console = shared.console()
    paths = [(p, path) for p in partitions for path in archive.paths(p)]
    if not paths and all(archive.head(p) is None for p in partitions):
        return refuse("archive", f"no file of an archive under {root}; is that archive.root?", 1)
    records, wrong = 0, 0
    for _, path in track(paths, "reading files", console=console):
        try:
            records += len(archive.records(path))
        except Damaged as error:
            wrong += 1
            console.print(str(error), style="red", soft_wrap=True)
    lost = sum(head.lost for p in partitions if (head := archive.head(p)) is not None)
    if lost:
        console.print(
            f"{lost} records were lost to retention before they were archived", style="red"
        )
    console.print(f"{len(paths)} files, {records:,} records: {wrong} damaged")
    return 1 if wrong or lost else 0
