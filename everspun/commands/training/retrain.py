"""Train another model from history, in order, beside the live one: the config names it
(model.name), gives it a run folder of its own (run.dir), and the topics of the live system.

Without --to it catches up and goes on until stopped; `everspun models promote` lets it take over.
With --to it learns up to that time, takes a last checkpoint, says how it compares, and ends. Cut
short, it goes on where it stood. Refused before anything is changed (exit code 1): a time of which
records are gone, a model that has begun otherwise. Where the gates reject the last checkpoint it
says why, and ends (exit code 1): nothing is left that could change it.
"""

import argparse
import dataclasses
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from checkpointer.archive import Archive
from checkpointer.cuts import vector_at
from checkpointer.store import Catalogue, Damaged, Files, Manifest, open_store
from everspun.audit import BEGINNING_MS, Asked, begun_otherwise, look, of_shards
from everspun.commands import options as shared
from everspun.commands.mistakes import refuse
from everspun.commands.training.models import begun_models, comparison
from everspun.config import Config
from everspun.hash_secret import with_secret_made
from everspun.launcher import Launcher, RunStopped, role_files
from everspun.roles import check_model, examples_log, has_begun, stop_on_signals
from stream import LABEL, Partition, kind_of, label_chain, parse_ms, show_ms
from stream.log import KafkaLog, LogError, Reader

ROLES = ("shard", "checkpointer", "learner", "governor", "replica")
LOOK_S = 0.5
CUT_EVERY_MS = 5_000
#: The last checkpoint was rejected and no later one has come for so long: none will.
REJECTED_FOR_S = 6 * CUT_EVERY_MS / 1_000
#: In a model's folder of the store: with which --from it was begun.
SAID = "retrain.json"
#: Exit code: nothing was trained, or not all.
REFUSED = 1


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="begin",
        default="",
        metavar="T",
        help="first arrival to learn (the beginning)",
    )
    parser.add_argument(
        "--to", dest="until", default="", metavar="T", help="learn what arrived before; UTC"
    )
    parser.add_argument(
        "--archive",
        action="store_true",
        help="take from the archive what the broker no longer holds",
    )
    shared.config_options(parser)


def run(options: argparse.Namespace) -> int:
    try:
        from_ms = parse_ms(options.begin) if options.begin else BEGINNING_MS
        to_ms = parse_ms(options.until) if options.until else None
    except ValueError as error:
        return refuse("retrain", error)
    if to_ms is not None and to_ms <= from_ms:
        return refuse("retrain", f"--to {options.until} is not after --from {options.begin}")
    overrides = (*options.set, *_overrides(options, from_ms))
    options.set = list(overrides)
    config = shared.load(options)
    check_model(config)
    try:
        asked, needs_archive = _refuse(config, from_ms, to_ms)
    except RetrainRefused as error:
        return refuse("retrain", f"refused: {error}", REFUSED)
    except (LogError, Damaged) as error:
        return refuse("retrain", error)
    if (
        config.archive.read and not needs_archive
    ):  # a hole in it would be in the way of what the log holds
        overrides = (*overrides, "archive.read=false")
        config = dataclasses.replace(
            config, archive=dataclasses.replace(config.archive, read=False)
        )
    try:
        config = with_secret_made(config, lambda: has_begun(config))
    except (OSError, ValueError) as error:
        return refuse("retrain", error)
    return _train(config, asked, options, overrides)


def _train(
    config: Config, asked: list[Asked], options: argparse.Namespace, overrides: tuple[str, ...]
) -> int:
    console = shared.console()
    retraining = Retraining(config, asked, console)
    stop = stop_on_signals()
    launcher = Launcher(options.config, config.run, overrides, config.governor.enabled)
    try:
        launcher.start(ROLES)
        done = retraining.follow(launcher, stop)
    except (RunStopped, RetrainRefused, Rejected) as error:
        return refuse("retrain", error, REFUSED)
    finally:
        console.print("draining ...")
        launcher.stop()
        retraining.close()
    if done:
        try:
            names = begun_models(open_store(config.checkpointer.root))
            console.print(comparison(config, names, retraining.covers))
        except LogError as error:
            console.print(Text(f"the model is published; no comparison: {error}"))
    return 0 if done or not options.until else REFUSED


class RetrainRefused(Exception):
    """What was asked for cannot be trained; nothing was changed."""


class Rejected(Exception):
    """All that was asked for is learned, and the gates do not let it be published."""


def _refuse(config: Config, from_ms: int, to_ms: int | None) -> tuple[list[Asked], bool]:
    """What is asked for, if all of it is there and nobody began otherwise; and whether the archive
    is needed for it. Raises Refused, Damaged, LogError."""
    if problem := _in_use(Path(config.run.dir)):
        raise RetrainRefused(problem)
    files = open_store(config.checkpointer.root)
    catalogue = Catalogue(files, config.model.name)
    begun, head = catalogue.begun(), catalogue.head()
    next_record = dict(head.next_record) if head is not None else {}
    archive = Archive(open_store(config.archive.root)) if config.archive.read else None
    reader = KafkaLog(config.stream).reader()
    try:
        with shared.console().status(
            f"looking whether {config.stream.examples} holds what is asked for ..."
        ):
            asked = look(reader, None, config.stream, from_ms, to_ms, next_record)
            needs_archive = archive is not None and any(one.lacks for one in asked)
            if needs_archive:
                asked = look(reader, archive, config.stream, from_ms, to_ms, next_record)
    finally:
        reader.close()
    name = config.model.name
    if begun is not None:
        before = _said_before(files, name)
        if before is not None and before != from_ms:
            asked_then = "the beginning" if before <= BEGINNING_MS else show_ms(before)
            raise RetrainRefused(
                f"model {name!r} has begun with --from {asked_then}; give another model.name"
            )
        if before is None and (where := begun_otherwise(begun, asked)):
            raise RetrainRefused(
                f"model {name!r} has begun otherwise ({where}); give another model.name"
            )
    if lacks := [line for one in asked for line in one.lacks]:
        raise RetrainRefused(_lacking(lacks, asked, archive is not None))
    if to_ms is not None and not sum(one.rows for one in asked):
        raise RetrainRefused(
            f"no row of {config.stream.examples} arrived between --from and --to: nothing is "
            f"there to learn"
        )
    if head is not None and (beyond := _beyond(head.vector, asked)):
        raise RetrainRefused(
            f"model {name!r} has learned more than --to asks for already ({beyond}); give another "
            f"model.name"
        )
    files.write(f"{name}/{SAID}", json.dumps({"from_ms": from_ms}).encode())
    return asked, needs_archive


def _said_before(files: Files, model: str) -> int | None:
    """The --from that this model was begun with by this command; None = by another, or an older
    version."""
    try:
        return int(json.loads(files.read(f"{model}/{SAID}"))["from_ms"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _lacking(lacks: list[str], asked: list[Asked], archived: bool) -> str:
    whole_ms = max((one.oldest_whole_ms for one in asked if one.lacks), default=0)
    later = (
        f"--from {show_ms(whole_ms + 999)} is the earliest that is there whole" if whole_ms else ""
    )
    more = "" if archived else "--archive reads what an archive holds"
    return (
        "gone by retention: "
        + "; ".join(lacks)
        + "".join(f". {hint}" for hint in (later, more) if hint)
    )


def _beyond(vector: Mapping[str, int], asked: list[Asked]) -> str:
    for one in asked:
        chain, end = (
            label_chain(one.partition),
            one.until.label_end if one.until is not None else None,
        )
        if end is not None and vector.get(chain, 0) > end:
            return f"{chain} stands at {vector[chain]}, --to ends at {end}"
    return ""


def _overrides(options: argparse.Namespace, from_ms: int) -> list[str]:
    said = [f'checkpointer.begin="{from_ms}"']
    if options.until:
        said += [
            f"learners.until={json.dumps(options.until)}",
            f"checkpointer.interval_ms={CUT_EVERY_MS}",
        ]
        said.append(
            f"checkpointer.idle_interval_ms={CUT_EVERY_MS}"
        )  # the last ranges may hold no row
    if options.archive:
        said.append("archive.read=true")
    return said


def _in_use(run_dir: Path) -> str:
    """Whether another system runs in this folder, or still drains there: two models there would
    be one."""
    for name, said in role_files(run_dir).items():
        pid = said.get("pid")
        if isinstance(pid, int) and pid > 0 and _runs(pid):
            return (
                f"run.dir = {str(run_dir)!r}: {name} (pid {pid}) runs there, or drains; wait "
                f"until it has ended, or "
                "give the new model a folder of its own"
            )
    return ""


def _runs(pid: int) -> bool:
    """Whether a process of ours has this id; another program may have got it since."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    try:
        return b"everspun" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True  # no /proc to look at


class Retraining:
    """How far the new model is, and whether it is done."""

    def __init__(self, config: Config, asked: list[Asked], console: Console) -> None:
        self.config, self.asked, self.console = config, asked, console
        self.catalogue = Catalogue(open_store(config.checkpointer.root), config.model.name)
        self.partitions = [
            Partition(config.stream.examples, p) for p in range(config.stream.partitions)
        ]
        self.reader: Reader = examples_log(config).reader()
        self.first = self.reader.beginning_offsets(self.partitions)
        spans = [one.until for one in asked if one.until is not None]
        vector = vector_at(spans, {span.partition: 0 for span in spans})
        self.ends = {
            chain: end for chain, end in vector.items() if kind_of(chain) == LABEL
        }  # at --to
        self.offsets = {
            Partition(config.stream.examples, span.partition): span.offset for span in spans
        }
        self._begun = False
        self._rejected = ""  # the newest complete checkpoint, where the gates rejected it
        self._rejected_s = 0.0  # since when, by the monotonic clock

    def covers(self, chain: str, start: int, end: int) -> bool:
        """Whether a range of a chain was to be learned here."""
        first = (self.catalogue.begun() or {}).get(chain, 0)
        return (
            kind_of(chain) == LABEL
            and start >= first
            and (not self.ends or end <= self.ends.get(chain, 0))
        )

    def follow(self, launcher: Launcher, stop: threading.Event) -> bool:
        """Until a checkpoint holds all up to `until`, or `stop`; True for the former. Raises
        RunStopped, Refused, Rejected."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        said = False
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(f"{self.config.model.name}: starting", total=1)
            while not stop.wait(LOOK_S):
                launcher.raise_if_failed()
                self._look_at_beginning()
                if self.ends and self._checkpointed():
                    return True
                if told := self._look_at_gates(time.monotonic()):
                    progress.console.print(Text(told))
                read, total, learned_ms = self._standing()
                moment = f" to {show_ms(learned_ms)}" if learned_ms else ""
                progress.update(
                    task,
                    completed=read,
                    total=max(1, total),
                    description=f"{self.config.model.name}: learned{moment}",
                )
                if not self.ends and total and read >= total and not said:
                    said = True
                    progress.console.print(
                        f"caught up, and going on; `everspun models promote "
                        f"{self.config.model.name} --of LIVE` "
                        "lets it take over"
                    )
        return False

    def _look_at_beginning(self) -> None:
        """Once: retention may have taken records between the look at what is there and the
        model's beginning."""
        if not self._begun and (begun := self.catalogue.begun()) is not None:
            self._begun = True
            if where := begun_otherwise(begun, self.asked):
                raise RetrainRefused(
                    f"records went while the model began: it began with {where}; give another "
                    f"model.name"
                )

    def _standing(self) -> tuple[int, int, int]:
        """Records of `examples` that every shard has behind it, of how many, and the newest
        event learned."""
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
        return self._holds_all(self.catalogue.manifest(published.name))

    def _holds_all(self, manifest: Manifest) -> bool:
        """Whether it has learned all up to `until`."""
        vector = manifest.vector
        return all(vector.get(chain, -1) >= end for chain, end in self.ends.items())

    def _look_at_gates(self, now_s: float) -> str:
        """What is to be told of a checkpoint that was rejected since the last look. Raises Rejected
        if it holds all up to `until`, and no later one has come."""
        newest = self.catalogue.head()
        gates = None if newest is None else self.catalogue.gates(newest.name)
        if newest is None or gates is None or gates.passed:
            self._rejected = ""
            return ""
        told = f"checkpoint {newest.name} is rejected: {gates.reason}"
        if newest.name != self._rejected:
            self._rejected, self._rejected_s = newest.name, now_s
            return told
        if self.ends and self._holds_all(newest) and now_s - self._rejected_s >= REJECTED_FOR_S:
            raise Rejected(
                f"all is learned, and {told}. With this config `everspun checkpoints show "
                f"{newest.name}` says more, "
                f"and `everspun checkpoints restore {newest.name}` serves it all the same; or "
                f"train under another "
                "model.name, with another definition or other limits of [checkpointer]"
            )
        return ""

    def close(self) -> None:
        self.reader.close()
