"""The replay of a log of a user's own: its records as they stand, in order, with history's own
time.

Nothing is planted, joined or changed: what the file says is written, and the labeler does the rest.
Every record names its number in the file's order (header `replayed`), so that a replay that was cut
short goes on where the topics end.
"""

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from everspun.audit import read_from
from everspun.config import Config
from everspun.replay.own_log import CLICKS, IMPRESSIONS, Event, OwnFile, OwnLogError, merged
from everspun.replay.plan import PRODUCER
from everspun.replay.writer import AnnouncedCuts, ReplayWriter, wait_until
from stream import Partition, Record, show_ms
from stream.decoding import decode_clicks, decode_impressions
from stream.decoding.catalogues import CatalogueColumns, WrongRow
from stream.hashing import partition_of_key
from stream.log import Log

NUMBER = "replayed"  # header of a record: which one of the file's order it is, from 1
CHUNK = 2_000
#: A place to go on from is written after so many records.
SAVE_EVERY = 20_000
REASONS_MAX = 50


@dataclass
class OwnProgress:
    """Where the replay stands, for the live line and the summary."""

    records: int = 0  # written, those of earlier runs included
    passed_over: int = 0  # of earlier runs
    impressions: int = 0
    clicks: int = 0
    rows: int = 0  # of catalogues
    bad: Counter[tuple[str, str, str]] = field(
        default_factory=Counter
    )  # (kind, field, reason) -> records
    first_line: dict[tuple[str, str, str], int] = field(default_factory=dict)
    now_ms: int = 0
    periods: int = 0
    doing: str = "reading"
    done: bool = False


@dataclass
class _Place:
    """What the state file holds: everything up to `number` is in the log, and the topics ended
    there."""

    files: str
    number: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    done: bool = False


class OwnReplay:
    """One file of both kinds, or one of each. Runs in the caller's thread; `progress` may be
    read from another."""

    def __init__(
        self, config: Config, files: list[OwnFile], log: Log, run_dir: Path, disorder_ms: int
    ) -> None:
        self.config, self.files, self.log, self.disorder_ms = config, files, log, disorder_ms
        self.progress = OwnProgress()
        stream = config.stream
        self.partitions = [
            Partition(t, p)
            for t in (stream.impressions, stream.clicks)
            for p in range(stream.partitions)
        ] + [Partition(topic, 0) for topic in stream.catalogues.values()]
        step = config.replay.barrier_ms
        if step % stream.signal_ms or step % stream.flush_ms:
            raise OwnLogError(
                f"replay.barrier_ms = {step}: 0, or a multiple of stream.signal_ms = "
                f"{stream.signal_ms} and of "
                f"stream.flush_ms = {stream.flush_ms} (E3)"
            )
        self._state = (
            run_dir / f"replay-{hashlib.sha256(_named(files).encode()).hexdigest()[:12]}.json"
        )
        self._judge = replace(
            stream, partitions=1
        )  # a file has no partitions: no line is misplaced
        self._there: dict[
            Partition, set[int]
        ] = {}  # numbers that stand behind the place to go on from
        kinds = (IMPRESSIONS, CLICKS, *stream.catalogues)
        self._waiting: dict[str, list[Event]] = {kind: [] for kind in kinds}
        limits = (stream.record_bytes_max, stream.catalogue_row_bytes_max)
        self._rows = CatalogueColumns(stream.declared, *limits).readers

    def run(self, stop: threading.Event) -> OwnProgress:
        """Replay all of it, or until `stop`. Raises OwnLogError, Stuck, and what the log raises."""
        place = self._resume()
        writer, cuts = ReplayWriter(self.config, self.log), AnnouncedCuts(self.config, self.log)
        try:
            events = merged(self.files, self.disorder_ms)
            first = next(events, None)
            if first is None:
                raise OwnLogError(f"{_named(self.files)}: no event in it")
            if not place.ends:
                self._refuse_later(first.ts_ms)
                self._save(place, 0)
            self._write(_chained(first, events), writer, cuts, place, stop)
        finally:
            writer.close()
            cuts.close()
        return self.progress

    # --- writing
    # ----------------------------------------------------------------------------------------------

    def _write(
        self,
        events: Iterator[Event],
        writer: ReplayWriter,
        cuts: AnnouncedCuts,
        place: _Place,
        stop: threading.Event,
    ) -> None:
        progress, clock = self.progress, _Clock(self.config)
        number = 0
        progress.doing = "passing over what was written before" if place.number else "writing"
        for event in events:
            if stop.is_set():
                break
            number += 1
            for at_ms, barrier in clock.beats_before(event.ts_ms):
                if number > place.number:
                    writer.heartbeat(at_ms, barrier)
                    self._step(barrier, writer, cuts, stop)
            progress.now_ms, progress.records, progress.periods = clock.now_ms, number, clock.period
            self._check(event)
            if number > place.number:
                progress.doing = "writing"
                self._send(event, number, clock.now_ms, writer)
                if number % SAVE_EVERY == 0:
                    writer.flush()
                    self._save(place, number)
            else:
                progress.passed_over = number
        if not stop.is_set():
            for at_ms, barrier in clock.last_beats():
                writer.heartbeat(at_ms, barrier)
                self._step(barrier, writer, cuts, stop)
            progress.done = True
        writer.flush()
        for kind in self._waiting:
            self._judge_waiting(kind)
        self._save(place, max(number, place.number), progress.done)
        progress.doing = "done" if progress.done else "stopped; the same command goes on"

    def _send(self, event: Event, number: int, at_ms: int, writer: ReplayWriter) -> None:
        stream = self.config.stream
        key = None if event.session is None else event.session.encode()
        topics = {IMPRESSIONS: stream.impressions, CLICKS: stream.clicks, **stream.catalogues}
        keyed = key and event.kind in (IMPRESSIONS, CLICKS)
        p = partition_of_key(key, stream.partitions) if key and keyed else 0
        partition = Partition(topics[event.kind], p)
        if key is None and event.kind in stream.catalogues:
            return  # no broker takes it; `_judge_rows` says so
        if number in self._there.get(partition, ()):
            return  # by a run that was cut short
        headers = (("producer", PRODUCER.encode()), (NUMBER, str(number).encode()))
        writer.append(partition, event.value, key, headers, at_ms)

    def _step(
        self, barrier: int, writer: ReplayWriter, cuts: AnnouncedCuts, stop: threading.Event
    ) -> None:
        """Keep step (E3): wait until the cut of this barrier is published or rejected."""
        if not barrier:
            return
        writer.flush()
        self.progress.doing = f"waiting for cut {barrier}"
        wait_until(
            lambda: barrier in cuts.read(), self.progress.doing, self.config.replay.stuck_s, stop
        )

    # --- judging
    # ----------------------------------------------------------------------------------------------

    def _check(self, event: Event) -> None:
        waiting = self._waiting[event.kind]
        waiting.append(event)
        if len(waiting) >= CHUNK:
            self._judge_waiting(event.kind)

    def _judge_waiting(self, kind: str) -> None:
        """Which records the labeler will quarantine, and why: by its own decoder, so that it can
        be said at once."""
        events, self._waiting[kind] = self._waiting[kind], []
        if kind in self._rows:
            return self._judge_rows(kind, events)
        records = [
            Record(i, 0, (one.session or "").encode(), one.value) for i, one in enumerate(events)
        ]
        decode = decode_impressions if kind == IMPRESSIONS else decode_clicks
        rows, bad = decode(records, 0, np.zeros(len(records), np.int64), self._judge)
        if kind == IMPRESSIONS:
            self.progress.impressions += len(rows)
        else:
            self.progress.clicks += len(rows)
        for one in bad:
            self._count_bad(kind, one.field, one.reason, events[one.record.offset].number)

    def _judge_rows(self, kind: str, events: list[Event]) -> None:
        """The same of rows of a catalogue."""
        for one in events:
            try:
                self._rows[kind].read(Record(0, 0, (one.session or "").encode(), one.value))
            except WrongRow as error:
                self._count_bad(kind, error.name, error.reason, one.number)
            else:
                self.progress.rows += 1

    def _count_bad(self, kind: str, field: str, reason: str, line: int) -> None:
        named = (kind, field, _general(reason))
        if named not in self.progress.bad and len(self.progress.bad) >= REASONS_MAX:
            named = (kind, "", "of other reasons")
        self.progress.bad[named] += 1
        self.progress.first_line.setdefault(named, line)

    # --- going on
    # ----------------------------------------------------------------------------------------------

    def _resume(self) -> _Place:
        """Where to go on. Raises OwnLogError for files that are others than those begun with."""
        print_ = _fingerprint(self.files)
        try:
            said = json.loads(self._state.read_text())
            place = _Place(
                str(said["files"]), int(said["number"]), dict(said["ends"]), bool(said["done"])
            )
        except FileNotFoundError:
            return _Place(print_)
        except (ValueError, KeyError, TypeError) as error:
            raise OwnLogError(
                f"{self._state}: not a place to go on from ({error}); delete it to begin anew"
            ) from error
        if place.files != print_:
            raise OwnLogError(
                f"{_named(self.files)} has changed since its replay stopped at record "
                f"{place.number}; delete "
                f"{self._state} and take topics of their own (stream.topic_prefix) to begin anew"
            )
        if place.done:
            raise OwnLogError(
                f"{_named(self.files)} was replayed into these topics already ({self._state}); to "
                f"replay it again take "
                "topics of their own (stream.topic_prefix) and another run.dir"
            )
        reader = self.log.reader()
        try:
            for partition in self.partitions:
                records = read_from(reader, partition, place.ends.get(_key(partition), 0))
                numbers = (record.header(NUMBER) for record in records)
                self._there[partition] = {int(raw) for raw in numbers if raw is not None}
        finally:
            reader.close()
        return place

    def _save(self, place: _Place, number: int, done: bool = False) -> None:
        reader = self.log.reader()
        try:
            ends = reader.end_offsets(self.partitions)
        finally:
            reader.close()
        place.number, place.ends = number, {_key(p): at for p, at in ends.items()}
        body = {"files": place.files, "number": number, "ends": place.ends, "done": done}
        self._state.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._state.with_suffix(".new")
        fresh.write_text(json.dumps(body))
        fresh.replace(self._state)

    def _refuse_later(self, first_ms: int) -> None:
        """A replay begins where the topics end: arrival never goes back (T1)."""
        reader = self.log.reader()
        try:
            ends = reader.end_offsets(self.partitions)
            for partition in (p for p in self.partitions if ends[p]):
                stamps = [r.timestamp_ms for r in read_from(reader, partition, ends[partition] - 1)]
                if stamps and max(stamps) > first_ms:
                    raise OwnLogError(
                        f"{partition.topic}[{partition.partition}] holds records up to "
                        f"{show_ms(max(stamps))}, and the "
                        f"file begins at {show_ms(first_ms)}: take topics of their own "
                        f"(stream.topic_prefix)"
                    )
        finally:
            reader.close()


class _Clock:
    """The replay's clock, and the heartbeats and barriers that are due as it goes (T2, E3)."""

    def __init__(self, config: Config) -> None:
        self.stream, self.barrier_ms = config.stream, config.replay.barrier_ms
        self.now_ms, self.period = 0, 0

    def beats_before(self, ts_ms: int) -> Iterator[tuple[int, int]]:
        """(arrival, barrier or 0) of what stands before an event of this time; the clock is its
        arrival afterwards."""
        if not self.now_ms:
            self.now_ms = ts_ms
            yield ts_ms, 0  # the first stamp of a partition is believed by a heartbeat (T3)
        yield from self._beats(ts_ms)
        self.now_ms = max(self.now_ms, ts_ms)

    def _beats(self, until_ms: int) -> Iterator[tuple[int, int]]:
        step, barrier = self.stream.heartbeat_ms, self.barrier_ms
        while True:
            next_ms = (self.now_ms // step + 1) * step
            end_ms = (self.now_ms // barrier + 1) * barrier if barrier else next_ms + 1
            at_ms = min(next_ms, end_ms)
            if at_ms > until_ms:
                return
            self.now_ms = at_ms
            if at_ms == end_ms:
                self.period += 1
            yield at_ms, self.period if at_ms == end_ms else 0

    def last_beats(self) -> Iterator[tuple[int, int]]:
        """Until the log needs no more time to decide everything: a barrier, or the last heartbeat
        but one and the last one (T2)."""
        stream = self.stream
        quiet_ms = self.now_ms + stream.wait_last_ms + stream.signal_ms + stream.flush_ms + 1
        if self.barrier_ms:
            yield from self._beats(-(-quiet_ms // self.barrier_ms) * self.barrier_ms)
            return
        yield from self._beats(quiet_ms - 1)
        yield quiet_ms, 0
        self.now_ms = quiet_ms + stream.wait_ms + stream.signal_ms + stream.flush_ms
        yield self.now_ms, 0


def _chained(first: Event, rest: Iterator[Event]) -> Iterator[Event]:
    yield first
    yield from rest


def _key(partition: Partition) -> str:
    return f"{partition.topic}/{partition.partition}"


def _named(files: list[OwnFile]) -> str:
    return " and ".join(str(one.path) for one in files)


def _fingerprint(files: list[OwnFile]) -> str:
    """Of names, sizes and beginnings: enough to know a file that was changed since."""
    found = hashlib.sha256()
    for one in files:
        try:
            with one.path.open("rb") as data:
                found.update(f"{one.path.name} {one.size} {one.kind}".encode() + data.read(1 << 16))
        except OSError as error:
            raise OwnLogError(f"{one.path}: {error.strerror or error}") from error
    return found.hexdigest()


def _general(reason: str) -> str:
    """A reason without the values of one record, so that those of a kind are counted together."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|-?\d[\d.,e+-]*", "...", reason)[:160]
