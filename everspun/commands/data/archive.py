"""What the archive of examples holds: how far each partition is archived, its files, and whether
they read as they were written. `[run] archivers = 1` keeps it; `[archive] read = true` lets
learners read it."""

import argparse
import sys

from rich.progress import track
from rich.table import Table

from checkpointer.archive import Archive
from checkpointer.store import Damaged, open_store
from everspun.commands import options as shared
from stream import show_ms


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


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    archive = Archive(open_store(config.archive.root))
    partitions = range(config.stream.partitions)
    try:
        if options.action == "status":
            return _status(archive, partitions, config.archive.file_age_max_ms)
        return {"list": _list, "verify": _verify}[options.action](archive, partitions)
    except Damaged as error:
        print(
            f"everspun archive: {error}; `everspun archive verify` reads every file",
            file=sys.stderr,
        )
        return 1


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


def _verify(archive: Archive, partitions: range) -> int:
    console = shared.console()
    paths = [(p, path) for p in partitions for path in archive.paths(p)]
    records, wrong = 0, 0
    for _, path in track(paths, "reading files", console=console):
        try:
            records += len(archive.records(path))
        except Damaged as error:
            wrong += 1
            console.print(f"[red]{error}")
    lost = sum(head.lost for p in partitions if (head := archive.head(p)) is not None)
    if lost:
        console.print(f"[red]{lost} records were lost to retention before they were archived")
    console.print(f"{len(paths)} files, {records:,} records: {wrong} damaged")
    return 1 if wrong or lost else 0
