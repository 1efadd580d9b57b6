"""Train another model from history, in order, beside the live one: the config names it (model.name), gives it a run
folder of its own (run.dir), and the topics of the live system.

Without --to it catches up and goes on until stopped; `everspun models promote` lets it take over. With --to it learns
up to that time, takes a last checkpoint, says how it compares, and ends. Cut short, it goes on where it stood.
"""

import argparse
import json
import os
import threading
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from checkpointer.catalogue import Catalogue
from checkpointer.span import find_spans, vector_at
from checkpointer.store import open_store
from everspun.commands import options as shared
from everspun.commands.models import begun_models, comparison
from everspun.config import Config
from everspun.launcher import Launcher, RunStopped, role_files
from everspun.model_check import check_model
from everspun.roles import examples_log
from everspun.standings import of_shards
from everspun.stop_signals import stop_on_signals
from stream.chain import LABEL, kind_of
from stream.log import Reader
from stream.moment import parse_ms, show_ms
from stream.record import Partition

ROLES = ("shard", "checkpointer", "learner", "governor", "replica")
LOOK_S = 0.5
CUT_EVERY_MS = 5_000


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="begin", default="", metavar="T", help="first arrival to learn (the beginning)")
    parser.add_argument("--to", dest="until", default="", metavar="T", help="learn what arrived before; UTC")
    parser.add_argument("--archive", action="store_true", help="take from the archive what the broker no longer holds")
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    overrides = (*options.set, *_overrides(options))
    options.set = list(overrides)
    try:
        for moment in filter(None, (options.begin, options.until)):
            parse_ms(moment)
    except ValueError as error:
        print(error)
        return 2
    config = shared.load(options)
    check_model(config)
    if problem := _in_use(Path(config.run.dir)):
        print(problem)
        return 2
    console = shared.console()
    retraining = Retraining(config, options.until, console)  # may read for a while; SIGINT ends that at once
    stop = stop_on_signals()
    launcher = Launcher(options.config, config.run, overrides, config.governor.enabled)
    launcher.start(ROLES)
    try:
        done = retraining.follow(launcher, stop)
    except RunStopped as error:
        console.print(f"[red]{error}")
        return 1
    finally:
        console.print("draining ...")
        launcher.stop()
        retraining.close()
    if done:
        names = begun_models(open_store(config.checkpointer.root))
        console.print(comparison(config, names, retraining.covers))
    return 0 if done or not options.until else 1


def _overrides(options: argparse.Namespace) -> list[str]:
    said = []
    if options.begin:
        said.append(f"checkpointer.begin={json.dumps(options.begin)}")
    if options.until:
        said += [f"learners.until={json.dumps(options.until)}", f"checkpointer.interval_ms={CUT_EVERY_MS}"]
    if options.archive:
        said.append("archive.read=true")
    return said


def _in_use(run_dir: Path) -> str:
    """Whether another system runs in this folder: two models there would be one."""
    for name, said in role_files(run_dir).items():
        pid = int(str(said.get("pid", 0)))
        if pid and _runs(pid):
            return f"run.dir = {str(run_dir)!r}: {name} (pid {pid}) runs there; give the new model a folder of its own"
    return ""


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


class Retraining:
    """How far the new model is, and whether it is done."""

    def __init__(self, config: Config, until: str, console: Console) -> None:
        self.config, self.until, self.console = config, until, console
        self.catalogue = Catalogue(open_store(config.checkpointer.root), config.model.name)
        self.partitions = [Partition(config.stream.examples, p) for p in range(config.stream.partitions)]
        self.reader: Reader = examples_log(config).reader()
        self.first = self.reader.beginning_offsets(self.partitions)
        self.ends: dict[str, int] = {}  # label chains at `until`
        self.offsets: dict[Partition, int] = {}
        if until:
            self._find_end()

    def _find_end(self) -> None:
        with self.console.status(f"looking for {self.until} in {self.config.stream.examples} ..."):
            spans = find_spans(self.reader, self.config.stream, parse_ms(self.until), lambda: None)
        vector = vector_at(spans, {span.partition: 0 for span in spans})
        self.ends = {chain: end for chain, end in vector.items() if kind_of(chain) == LABEL}
        self.offsets = {Partition(self.config.stream.examples, s.partition): s.offset for s in spans}

    def covers(self, chain: str, start: int, end: int) -> bool:
        """Whether a range of a chain was to be learned here."""
        first = (self.catalogue.begun() or {}).get(chain, 0)
        return kind_of(chain) == LABEL and start >= first and (not self.ends or end <= self.ends.get(chain, 0))

    def follow(self, launcher: Launcher, stop: threading.Event) -> bool:
        """Until a checkpoint holds all up to `until`, or `stop`; True for the former."""
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        said = False
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(f"{self.config.model.name}: starting", total=1)
            while not stop.wait(LOOK_S):
                launcher.raise_if_failed()
                if self.ends and self._checkpointed():
                    return True
                read, total, learned_ms = self._standing()
                moment = f" to {show_ms(learned_ms)}" if learned_ms else ""
                progress.update(
                    task, completed=read, total=max(1, total), description=f"{self.config.model.name}: learned{moment}"
                )
                if not self.ends and total and read >= total and not said:
                    said = True
                    progress.console.print(
                        f"caught up, and going on; `everspun models promote {self.config.model.name} --of LIVE` "
                        "lets it take over"
                    )
        return False

    def _standing(self) -> tuple[int, int, int]:
        """Records of `examples` that every shard has behind it, of how many, and the newest event learned."""
        shards, _ = of_shards(self.config)
        ends = self.offsets or self.reader.end_offsets(self.partitions)
        total = sum(ends[p] - self.first[p] for p in self.partitions)
        if not shards:
            return 0, total, 0
        read = 0
        for p in self.partitions:
            at = min(s.progress.next_record.get(p.partition, self.first[p]) for s in shards)
            read += max(0, min(at, ends[p]) - self.first[p])
        return read, total, max(s.progress.event_time_max_ms for s in shards)

    def _checkpointed(self) -> bool:
        published = self.catalogue.published()
        if published is None:
            return False
        vector = self.catalogue.manifest(published.name).vector
        return all(vector.get(chain, -1) >= end for chain, end in self.ends.items())

    def close(self) -> None:
        self.reader.close()
