"""Whether the topics of a config are this system's, asked before a process begins (C9, shell)."""

import logging
import random
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from everspun.config import Config
from everspun.roles.other_system import (
    OtherSystem,
    other_inputs,
    other_labels,
    other_model,
    root_of,
)
from labeler.io import TailReader
from stream import SIGNALS_PARTITIONS, Backoff, Partition, Record
from stream.hashing import key_id
from stream.internal_topics import MalformedRecord
from stream.log import KafkaLog, Log, LogError, OffsetOutOfRange, Unavailable
from stream.monitoring import TimeLimit

if TYPE_CHECKING:
    from checkpointer.store import Announcement
_log = logging.getLogger(__name__)

#: A broker or store that does not say whose the topics are is asked for so long, s.
ASKED_S = 15.0
#: The last records of partitions are waited for so long, s.
LAST_S = 10.0
POLL_MS = 200
#: How many of the last records of `checkpoints` are looked at first, how many times more after
#: those, and how many without a word of this model are enough.
FIRST, MORE, SILENT_MAX = 64, 16, 16_384


def look_for_other_system(config: Config, role: str, stop: threading.Event) -> None:
    """Raises OtherSystem. What cannot be told within ASKED_S, or may not be read, keeps nobody from
    working: a labeler needs no store, and a checkpointer waits for its own."""
    limit, backoff = TimeLimit(ASKED_S), Backoff(200, 2_000)
    while not stop.is_set():
        try:
            refuse_other_system(config, (role,), KafkaLog(config.stream))
            return
        except (Unavailable, OffsetOutOfRange, OSError) as error:
            fault: Exception = error
            if not limit.over:
                stop.wait(backoff.failed(random.random()) / 1_000)
                continue
        except LogError as error:
            fault = error
        _log.warning("%s begins without knowing whose the topics are (C9): %s", role, fault)
        return


def refuse_other_system(config: Config, roles: Collection[str], log: Log) -> None:
    """Raises OtherSystem where processes of these roles would mix two systems up; LogError and
    OSError where log or store do not say."""
    stream, own = config.stream, key_id(config.stream.hash_secret)
    written = {
        "labeler": (stream.examples, stream.partitions),
        "fraud": (stream.signals, SIGNALS_PARTITIONS),
        "breaker": (stream.tallies, stream.partitions),
    }
    for role, (topic, count) in written.items():
        if own and role in roles:
            last = last_records(log, [Partition(topic, p) for p in range(count)])
            _refuse(other_labels(topic, last, own, config.labeler.takes_over))
    if "checkpointer" in roles:
        _refuse(_other_model(config, log, _in_store(config)))
        _refuse(_other_inputs(config, log))
    elif "learner" in roles:
        # A learner needs no store, and one at the same address is not asked.
        in_store = _in_store(config)
        here = _address(config.checkpointer.root)
        _refuse(_other_model(config, log, lambda said: root_of(said) == here or in_store(said)))


def last_records(log: Log, partitions: Sequence[Partition]) -> list[Record]:
    """The last record of each partition that has any. Raises LogError."""
    reader = log.reader()
    try:
        first, end = (ask(partitions) for ask in (reader.beginning_offsets, reader.end_offsets))
        wanted = [p for p in end if end[p] > first[p]]
        reader.assign(wanted)
        for p in wanted:
            reader.seek(p, end[p] - 1)
        found: dict[Partition, Record] = {}
        limit = TimeLimit(LAST_S)
        while any(reader.position(p) < end[p] for p in wanted):
            if limit.over:
                raise Unavailable(f"{wanted[0].topic}: its last records are not read within time")
            for p, records in reader.poll(len(wanted), POLL_MS).items():
                found[p] = records[-1]
        return list(found.values())
    finally:
        reader.close()


def _other_model(config: Config, log: Log, is_here: "Callable[[Announcement], bool]") -> str:
    at, size = Partition(config.stream.checkpoints, 0), FIRST
    checkpointer = config.checkpointer
    tail = TailReader(log, 1_000)
    try:
        while True:
            start, end = tail.span(at, size)
            announced: list[Announcement] = []
            tail.read_between(at, start, end, _taker(announced, config.model.name))
            said = other_model(announced[::-1], is_here, checkpointer.root, checkpointer.takes_over)
            silent = not announced and size >= SILENT_MAX
            if (announced and not said) or silent or start == tail.first(at):
                return said
            size *= MORE
    finally:
        tail.close()


def _other_inputs(config: Config, log: Log) -> str:
    from checkpointer.store import Catalogue, open_store

    topic, root, model = config.stream.impressions, config.checkpointer.root, config.model.name
    head = Catalogue(open_store(root), model).head()
    if head is None:
        return ""
    reader = log.reader()
    try:
        ends = reader.end_offsets([Partition(topic, p) for p in range(config.stream.partitions)])
    finally:
        reader.close()
    return other_inputs(
        head.vector, {p.partition: end for p, end in ends.items()}, topic, model, root
    )


def _taker(announced: "list[Announcement]", model: str) -> Callable[[list[Record]], None]:
    from checkpointer.store import decode

    def take(records: list[Record]) -> None:
        for record in records:
            try:
                said = decode(record.value)
            except MalformedRecord:  # passed over (C8)
                continue
            if said.model == model:
                announced.append(said)

    return take


def _in_store(config: Config) -> "Callable[[Announcement], bool]":
    """Whether the store holds a checkpoint. It is opened when it is first asked."""
    from checkpointer.store import Catalogue, Damaged, open_store

    names: set[str] | None = None

    def ask(said: "Announcement") -> bool:
        nonlocal names
        catalogue = Catalogue(open_store(config.checkpointer.root), config.model.name)
        if names is None:
            names = set(catalogue.names())
        if said.name not in names:
            return False
        try:
            catalogue.manifest(said.name, said.manifest_sha256)
        except Damaged:
            return False
        return True

    return ask


def _address(root: str) -> str:
    """A root as announcements name it."""
    plain = root.removeprefix("file://")
    return (plain if "://" in plain else str(Path(plain).absolute())).rstrip("/")


def _refuse(why: str) -> None:
    if why:
        raise OtherSystem(why)
