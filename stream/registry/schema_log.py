"""A log whose records of impressions and clicks come with the schemas that they name.

A reader holds back the first record whose schema is not known yet, and all behind it, and asks for
the schema; other partitions go on. So a registry that is away costs nothing but time, what is given
out can be decoded without asking anybody, and the place where a reader stands is in front of what
it holds back (C2, L7).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from stream.log import NO_RECORDS, GroupReader, Log, Reader, RecordColumns, Writer
from stream.record import Partition, Record
from stream.registry.schema import AbsentSchema, RegisteredSchema, Schemas
from stream.registry.wire_format import framed, schema_ids

#: How long a poll waits for other partitions while one waits for a schema, ms.
HELD_POLL_MS = 50


class SchemaSource(Protocol):
    """Where schemas come from. May be asked from any thread, and does not wait."""

    def find(self, newest: Mapping[int, int]) -> Schemas:
        """What is known of these ids, each with the timestamp of the newest record that names it,
        ms; what is not is asked for, and found later."""

    def wait(self, timeout_ms: int) -> None:
        """Until a schema has come, or for this long."""


class SchemaTable:
    """Schemas in memory."""

    def __init__(self, *schemas: RegisteredSchema | AbsentSchema) -> None:
        self.schemas = {one.id: one for one in schemas}

    def find(self, newest: Mapping[int, int]) -> Schemas:
        return {id: self.schemas[id] for id in newest if id in self.schemas}

    def wait(self, timeout_ms: int) -> None:
        return


def with_schemas(records: RecordColumns, source: SchemaSource) -> RecordColumns:
    """As many of the first records as name schemas that are known, with these."""
    rows = np.flatnonzero(framed(records))
    ids = schema_ids(records, rows)
    of_id, places = np.unique(ids[ids >= 0], return_inverse=True)
    newest_ms = np.zeros(len(of_id), np.int64)
    np.maximum.at(newest_ms, places, records.timestamp_ms[rows[ids >= 0]])
    found = source.find(dict(zip(of_id.tolist(), newest_ms.tolist(), strict=True)))
    lacking = rows[(ids >= 0) & ~np.isin(ids, np.array(list(found), np.int64))]
    ready = records if not len(lacking) else records[: int(lacking[0])]
    return ready.with_schemas(found)


class SchemaLog:
    """See `stream.log.log.Log`. `topics`: of which records come with schemas."""

    def __init__(self, log: Log, source: SchemaSource, topics: Iterable[str]) -> None:
        self._log, self._source, self._topics = log, source, frozenset(topics)

    def reader(self) -> Reader:
        return SchemaReader(self._log.reader(), self._source, self._topics)

    def group_reader(self, group: str, member: str = "") -> GroupReader:
        return self._log.group_reader(group, member)

    def writer(self) -> Writer:
        return self._log.writer()

    def partitions(self, topic: str) -> int:
        return self._log.partitions(topic)


class SchemaReader:
    """See `stream.log.log.Reader`."""

    def __init__(self, reader: Reader, source: SchemaSource, topics: frozenset[str]) -> None:
        self._reader, self._source, self._topics = reader, source, topics
        self._held: dict[Partition, RecordColumns] = {}  # fetched, and not given out
        self._paused: set[Partition] = set()  # by who reads
        self._stopped: set[Partition] = set()  # by what is held back

    @property
    def waiting(self) -> list[Partition]:
        """Partitions whose next record waits for its schema."""
        return sorted(self._held)

    def assign(self, partitions: Iterable[Partition]) -> None:
        wanted = set(partitions)
        self._held = {at: held for at, held in self._held.items() if at in wanted}
        self._paused &= wanted
        self._stopped &= wanted
        self._reader.assign(wanted)

    def seek(self, partition: Partition, offset: int) -> None:
        self._let_go(partition)
        self._reader.seek(partition, offset)

    def position(self, partition: Partition) -> int:
        held = self._held.get(partition)
        return self._reader.position(partition) if held is None else int(held.offset[0])

    def poll(self, max_records: int, timeout_ms: int) -> dict[Partition, Sequence[Record]]:
        if given := self._give_held(max_records):
            return given
        if self._held:
            timeout_ms = min(timeout_ms, HELD_POLL_MS)
        out: dict[Partition, Sequence[Record]] = {}
        for at, records in self._reader.poll(max_records, timeout_ms).items():
            if at.topic not in self._topics:
                out[at] = records
                continue
            fetched = RecordColumns.concat(
                [self._held.pop(at, NO_RECORDS), RecordColumns.of(records)]
            )
            if len(ready := self._hold(at, fetched)):
                out[at] = ready
        return out

    def pause(self, partitions: Iterable[Partition]) -> None:
        paused = set(partitions)
        self._paused |= paused
        self._reader.pause(paused)

    def resume(self, partitions: Iterable[Partition]) -> None:
        resumed = set(partitions)
        self._paused -= resumed
        self._reader.resume(resumed - self._stopped)

    def beginning_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return self._reader.beginning_offsets(partitions)

    def end_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return self._reader.end_offsets(partitions)

    def topic_id(self, topic: str) -> str:
        return self._reader.topic_id(topic)

    def close(self) -> None:
        self._held.clear()
        self._reader.close()

    def _give_held(self, max_records: int) -> dict[Partition, Sequence[Record]]:
        out: dict[Partition, Sequence[Record]] = {}
        for at in [at for at in self._held if at not in self._paused]:
            held = self._held.pop(at)
            ready = self._hold(at, held[:max_records], held[max_records:])
            if len(ready):
                out[at] = ready
                max_records -= len(ready)
            if max_records <= 0:
                break
        return out

    def _hold(
        self, at: Partition, records: RecordColumns, behind: RecordColumns = NO_RECORDS
    ) -> RecordColumns:
        """The first of these records whose schemas are known; the others are held back."""
        ready = with_schemas(records, self._source)
        rest = RecordColumns.concat([records[len(ready) :], behind])
        if len(rest):
            self._held[at] = rest
            if at not in self._stopped:
                self._stopped.add(at)
                self._reader.pause([at])
        else:
            self._let_go(at)
        return ready

    def _let_go(self, at: Partition) -> None:
        self._held.pop(at, None)
        if at in self._stopped:
            self._stopped.discard(at)
            if at not in self._paused:
                self._reader.resume([at])
