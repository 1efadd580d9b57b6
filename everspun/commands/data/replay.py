"""Replay a history into the topics of a running system, in accelerated event time (T1: CreateTime
topics).

FILE is a log of your own as docs/events.md has it (JSON lines, .gz too; impressions and clicks in
one file, or clicks in --clicks): it is read as a stream, written as it stands, and goes on after an
interrupt; docs/replay.md tells how.
"""

import argparse
import dataclasses
import os
import threading
from collections.abc import Callable
from pathlib import Path

from rich.live import Live
from rich.table import Table
from rich.text import Text

from everspun.commands import options as shared
from everspun.commands.mistakes import MISTAKE, refuse
from everspun.config import Config
from everspun.replay import (
    CLICKS,
    IMPRESSIONS,
    OwnFile,
    OwnLogError,
    OwnProgress,
    OwnReplay,
    Replayer,
    Stuck,
    attacks,
    history,
)
from everspun.roles import stop_on_signals
from everspun.status import duration
from stream import show_ms
from stream.log import KafkaLog, LogError, check_topics


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        nargs="?",
        help="a file of your own, 'movielens', or an EB-NeRD folder (replay.source)",
    )
    parser.add_argument(
        "--clicks",
        type=Path,
        metavar="FILE",
        help="the clicks, where they stand in a file of their own",
    )
    parser.add_argument(
        "--catalogue",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="rows of a catalogue: JSON lines of key, ts_ms (from when on it holds), attributes, "
        "or key, ts_ms and deleted; may be given again for another",
    )
    parser.add_argument(
        "--disorder-s",
        type=shared.finite,
        default=300.0,
        help="how far lines may be from the order of their times (300)",
    )
    parser.add_argument(
        "--attacks",
        action="store_true",
        help="plant one fraud attack of each direction (not into a file of your own)",
    )
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    config = shared.load(options)
    if not config.stream.replayed:
        why = "these topics carry the broker's clock, a replay its own (T1)"
        return refuse("replay", f"stream.replayed = false: {why}")
    if options.source == "":
        why = "expected a file, 'movielens' or a folder; without it, replay.source is replayed"
        return refuse("replay", f"source '': {why}")
    if options.source is not None:
        config = dataclasses.replace(
            config, replay=dataclasses.replace(config.replay, source=options.source)
        )
    try:
        files = own_files(config.replay.source, options.clicks, options.attacks)
        files = [*catalogue_files(options.catalogue, config, bool(files)), *files]
        if problems := check_topics(config.stream):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise OwnLogError(
                f"{problems[0]}{more}; `everspun topics create --config {options.config}` makes "
                f"them"
            )
        if files:
            return _own(config, files, int(options.disorder_s * 1_000))
        return _recorded(config, options.attacks)
    except (OwnLogError, Stuck, LogError) as error:
        return refuse("replay", error, 1 if isinstance(error, Stuck) else MISTAKE)


def own_files(source: str, clicks: Path | None, planted: bool) -> list[OwnFile]:
    """The user's own files; empty where the source is another history. Raises OwnLogError."""
    path = Path(source)
    if source == "movielens" or (path.is_dir() and (path / "impressions.csv.gz").exists()):
        if clicks is not None:
            raise OwnLogError(f"--clicks {clicks}: {source} has clicks of its own")
        return []
    for one in filter(None, (path, clicks)):
        if not one.is_file():
            raise OwnLogError(
                f"{one}: "
                f"{'a folder without impressions.csv.gz' if one.is_dir() else 'no such file'}; "
                f"expected a "
                "JSON-lines file (docs/events.md), 'movielens', or a folder with impressions.csv.gz"
            )
    if planted:
        raise OwnLogError(
            "--attacks: nothing is planted into a file of your own; `everspun simulate --attacks` "
            "has some"
        )
    if clicks is None:
        return [OwnFile(path)]
    return [OwnFile(path, IMPRESSIONS), OwnFile(clicks, CLICKS)]


def catalogue_files(said: list[str], config: Config, own: bool) -> list[OwnFile]:
    """Those of `--catalogue`. Raises OwnLogError."""
    found = []
    for one in said:
        name, _, path = one.partition("=")
        if name not in config.stream.catalogues or not path:
            known = ", ".join(config.stream.catalogues) or "none: no feature says `catalogue`"
            raise OwnLogError(f"--catalogue {one}: expected NAME=FILE; declared are {known}")
        if not own:
            raise OwnLogError(f"--catalogue {one}: beside a file of your own alone")
        if not Path(path).is_file():
            raise OwnLogError(f"--catalogue {one}: no such file")
        found.append(OwnFile(Path(path), name, True))
    return found


def _own(config: Config, files: list[OwnFile], disorder_ms: int) -> int:
    console = shared.console()
    replay = OwnReplay(config, files, KafkaLog(config.stream), Path(config.run.dir), disorder_ms)
    total = max(1, sum(one.size for one in files))

    def line() -> str:
        p, share = replay.progress, sum(one.bytes_read for one in files) / total
        moment = f", at {show_ms(p.now_ms)}" if p.now_ms else ""
        bad = f", {sum(p.bad.values()):,} to quarantine" if p.bad else ""
        events = f"{p.records:,} records: {p.impressions:,} impressions, {p.clicks:,} clicks"
        events += f", {p.rows:,} rows of catalogues" if p.rows else ""
        return f"{share:.0%}  {events}{bad}{moment}: {p.doing}"

    stop = stop_on_signals()
    _watched(lambda: replay.run(stop), line, stop)
    p = replay.progress
    console.print(Text(line()))
    unknown = sum(one.unknown_clicks for one in files)
    if unknown:
        console.print(
            Text(
                f"{unknown:,} events were taken for clicks by their fields, on no impression "
                f"before them"
            )
        )
    if p.bad:
        console.print(bad_table(p))
        console.print(
            Text("they go to the topic `quarantine`, with their bytes: `everspun quarantine list`")
        )
    if p.done and not p.impressions:
        return refuse("replay", "not one impression could be read", 1)
    return 0 if p.done else 130


def bad_table(progress: OwnProgress) -> Table:
    """What was quarantined, by reason."""
    out = Table("kind", "records", "field", "reason", "first in line", title="quarantined")
    for named, count in progress.bad.most_common():
        kind, field, reason = named
        out.add_row(kind, f"{count:,}", Text(field), Text(reason), str(progress.first_line[named]))
    return out


def _recorded(config: Config, planted: bool) -> int:
    console = shared.console()
    recorded = history.load(config.replay.source, Path(config.replay.cache_dir).expanduser())
    if planted or config.replay.attacks:
        recorded = attacks.plant(recorded, config.replay.attack_seed)
    console.print(Text(recorded.note))
    replayer = Replayer(
        config, recorded, KafkaLog(config.stream), Path(config.run.dir), replay_secret()
    )
    stop = threading.Event()

    def line() -> str:
        p = replayer.progress
        return (
            f"period {p.period}/{p.periods}  {p.impressions:,} impressions  {p.clicks:,} clicks  "
            f"{duration(p.elapsed_s)}, of it {duration(p.waited_s)} at barriers: {p.doing}"
        )

    _watched(lambda: replayer.run(stop), line, stop)
    return 0


def _watched(work: Callable[[], object], line: Callable[[], str], stop: threading.Event) -> None:
    """Do the work in a thread, and show a line of it meanwhile. Raises what the work raises."""
    failure: list[Exception] = []

    def run_it() -> None:
        try:
            work()
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=run_it, name="replay")
    thread.start()
    try:
        with Live(console=shared.console(), refresh_per_second=4) as live:
            while thread.is_alive():
                live.update(Text(line()))
                thread.join(0.25)
    finally:
        stop.set()
        thread.join()
    if failure:
        raise failure[0]


def replay_secret() -> bytes:
    """The pseudonymisation key: EVERSPUN_SECRET, or for replays of public histories a fixed one."""
    return os.environ.get("EVERSPUN_SECRET", "a public history has no secrets").encode()
