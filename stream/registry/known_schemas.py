"""Which schemas are known, which are wanted, and which are known to nobody.

A core: it asks nobody and has no clock; `now_ms` is of one that is never set, so that a host whose
clock is set back waits no longer, and `wall_ms` of the one by which records are stamped. Who reads
asks it for ids; who fetches asks it what to fetch, and tells it what came of that. An id is unknown
to a record once the registry has said so twice, `unknown_ms` apart, since the record was read; or
once, where the record had then stood in the log for long (T5a). Until then, and while the registry
is away, records wait. So whatever ids somebody makes up, a partition is held back by no more than
that and a request for each id; and a record whose schema was registered after such a word was said
is not judged by it.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from stream.registry.schema import AbsentSchema, RegisteredSchema

#: Ids that are asked for at once; others wait for room.
WANTED_MAX = 4_096
#: Ids that are remembered to be unknown, and for how long.
UNKNOWN_MAX, UNKNOWN_KEPT_MS = 65_536, 60_000
#: The clocks by which records are stamped, and this process's own, may differ by so much.
CLOCKS_MS = 5_000
#: Bytes of all schemas that are kept, as the registry gave them.
BYTES_MAX = 16 << 20
#: An id that no reader has asked for again for so long is not fetched any more.
FORGOTTEN_MS = 30_000


class Away(NamedTuple):
    """The registry does not give the schema `id`: since when, ms of the wall clock, and what it
    says."""

    id: int
    since_ms: int
    reason: str


class _Wanted:
    def __init__(self, now_ms: int, newest_ms: int) -> None:
        self.asked_ms = now_ms  # by a reader, last
        self.newest_ms = newest_ms  # arrival of the newest record before the registry first said no
        self.due_ms = now_ms
        self.absent_ms: int | None = None  # when the registry first said that it is unknown
        self.away: Away | None = None


class KnownSchemas:
    """What is known of a registry's schemas. Belongs to whoever holds its lock."""

    def __init__(self, schemas_max: int, unknown_ms: int) -> None:
        self._schemas_max, self._unknown_ms = schemas_max, unknown_ms
        self._known: OrderedDict[int, RegisteredSchema] = OrderedDict()
        self._bytes = 0
        #: until when that is remembered, and to records of which arrivals the id is unknown, ms
        self._unknown: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self._wanted: OrderedDict[int, _Wanted] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def ids(self) -> tuple[int, int]:
        """How many are wanted, and how many are remembered to be unknown."""
        return len(self._wanted), len(self._unknown)

    @property
    def away(self) -> Away | None:
        """What is waited for since the longest, because the registry does not answer as it must."""
        found = [one.away for one in self._wanted.values() if one.away is not None]
        return min(found, key=lambda one: one.since_ms, default=None)

    def find(
        self, newest: Mapping[int, int], now_ms: int
    ) -> dict[int, RegisteredSchema | AbsentSchema]:
        """What is known of these ids, each with the arrival of the newest record that names it, ms;
        the others are wanted from now on."""
        found: dict[int, RegisteredSchema | AbsentSchema] = {}
        for id, newest_ms in newest.items():
            kept_ms, unknown_ms = self._unknown.get(id, (now_ms, 0))
            wanted = self._wanted.get(id)
            if id in self._known:
                self._known.move_to_end(id)
                found[id] = self._known[id]
            elif kept_ms > now_ms and newest_ms <= unknown_ms:
                found[id] = AbsentSchema(id)
            elif wanted is not None:
                wanted.asked_ms = now_ms
                if wanted.absent_ms is None:
                    wanted.newest_ms = max(wanted.newest_ms, newest_ms)
            elif len(self._wanted) < WANTED_MAX:
                self._wanted[id] = _Wanted(now_ms, newest_ms)
        return found

    def next(self, now_ms: int) -> int | None:
        """The id to fetch now, if there is one; of several one that nothing was said of yet."""
        for id in [id for id, one in self._wanted.items() if now_ms - one.asked_ms > FORGOTTEN_MS]:
            del self._wanted[id]
        due = [id for id, one in self._wanted.items() if one.due_ms <= now_ms]
        return min(due, key=lambda id: self._wanted[id].absent_ms is not None, default=None)

    def on_schema(self, schema: RegisteredSchema) -> None:
        """The registry gave it."""
        self._wanted.pop(schema.id, None)
        self._unknown.pop(schema.id, None)
        if schema.id not in self._known:
            self._bytes += schema.size
        self._known[schema.id] = schema
        while len(self._known) > self._schemas_max or (
            self._bytes > BYTES_MAX and len(self._known) > 1
        ):
            self._bytes -= self._known.popitem(last=False)[1].size

    def on_absent(self, id: int, now_ms: int, wall_ms: int) -> None:
        """The registry says that it knows no such id."""
        wanted = self._wanted.get(id)
        if wanted is None:
            return
        wanted.away = None
        if wanted.absent_ms is None:
            wanted.absent_ms = now_ms
        long_since_ms = wall_ms - self._unknown_ms - CLOCKS_MS
        is_twice = now_ms - wanted.absent_ms >= self._unknown_ms
        if not is_twice and wanted.newest_ms > long_since_ms:
            wanted.due_ms = wanted.absent_ms + self._unknown_ms
            return
        del self._wanted[id]
        known_ms = max(wanted.newest_ms, long_since_ms)
        self._unknown[id] = now_ms + UNKNOWN_KEPT_MS, known_ms
        self._unknown.move_to_end(id)
        while len(self._unknown) > UNKNOWN_MAX:
            self._unknown.popitem(last=False)

    def on_failed(self, id: int, now_ms: int, wall_ms: int, again_ms: int, reason: str) -> None:
        """It did not answer, or not as a registry does: asked again in `again_ms`, as is all else
        that is wanted."""
        wanted = self._wanted.get(id)
        if wanted is not None:
            since_ms = wanted.away.since_ms if wanted.away is not None else wall_ms
            wanted.away = Away(id, since_ms, reason)
        for one in self._wanted.values():
            one.due_ms = max(one.due_ms, now_ms + again_ms)
