"""Which schemas are known, which are wanted, and which are known to nobody.

A core: it asks nobody and has no clock. Who reads asks it for ids; who fetches asks it what to
fetch, and tells it what came of that. An id is believed to be unknown once the registry has said so
twice, `unknown_ms` apart, and for `UNKNOWN_KEPT_MS`: until then, and while the registry is away,
records wait.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from stream.registry.schema import AbsentSchema, RegisteredSchema

#: Ids that are asked for at once; others wait for room.
WANTED_MAX = 4_096
#: Ids that are remembered to be unknown, and for how long.
UNKNOWN_MAX, UNKNOWN_KEPT_MS = 65_536, 60_000
#: Bytes of all schemas that are kept, as the registry gave them.
BYTES_MAX = 16 << 20
#: An id that no reader has asked for again for so long is not fetched any more.
FORGOTTEN_MS = 30_000


class Away(NamedTuple):
    """The registry does not give the schema `id`: since when, ms, and what it says."""

    id: int
    since_ms: int
    reason: str


class _Wanted:
    def __init__(self, now_ms: int) -> None:
        self.asked_ms = now_ms  # by a reader, last
        self.due_ms = now_ms
        self.absent_ms: int | None = None  # when the registry first said that it is unknown
        self.away: Away | None = None


class KnownSchemas:
    """What is known of a registry's schemas. Belongs to whoever holds its lock."""

    def __init__(self, schemas_max: int, unknown_ms: int) -> None:
        self._schemas_max, self._unknown_ms = schemas_max, unknown_ms
        self._known: OrderedDict[int, RegisteredSchema] = OrderedDict()
        self._bytes = 0
        self._unknown: OrderedDict[int, int] = OrderedDict()  # until when, ms
        self._wanted: OrderedDict[int, _Wanted] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def away(self) -> Away | None:
        """What is waited for since the longest, because the registry does not answer as it must."""
        found = [one.away for one in self._wanted.values() if one.away is not None]
        return min(found, key=lambda one: one.since_ms, default=None)

    def find(self, ids: Iterable[int], now_ms: int) -> dict[int, RegisteredSchema | AbsentSchema]:
        """What is known of these; the others are wanted from now on."""
        found: dict[int, RegisteredSchema | AbsentSchema] = {}
        for id in ids:
            if id in self._known:
                self._known.move_to_end(id)
                found[id] = self._known[id]
            elif self._unknown.get(id, now_ms) > now_ms:
                found[id] = AbsentSchema(id)
            elif id in self._wanted:
                self._wanted[id].asked_ms = now_ms
            elif len(self._wanted) < WANTED_MAX:
                self._wanted[id] = _Wanted(now_ms)
        return found

    def next(self, now_ms: int) -> int | None:
        """The id to fetch now, if there is one."""
        for id in [id for id, one in self._wanted.items() if now_ms - one.asked_ms > FORGOTTEN_MS]:
            del self._wanted[id]
        return next((id for id, one in self._wanted.items() if one.due_ms <= now_ms), None)

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

    def on_absent(self, id: int, now_ms: int) -> None:
        """The registry says that it knows no such id."""
        wanted = self._wanted.get(id)
        if wanted is None:
            return
        wanted.away = None
        if wanted.absent_ms is None:
            wanted.absent_ms = now_ms
        if now_ms - wanted.absent_ms < self._unknown_ms:
            wanted.due_ms = wanted.absent_ms + self._unknown_ms
            return
        del self._wanted[id]
        self._unknown[id] = now_ms + UNKNOWN_KEPT_MS
        while len(self._unknown) > UNKNOWN_MAX:
            self._unknown.popitem(last=False)

    def on_failed(self, id: int, now_ms: int, again_ms: int, reason: str) -> None:
        """It did not answer, or not as a registry does: asked again in `again_ms`, as is all else
        that is wanted."""
        wanted = self._wanted.get(id)
        if wanted is not None:
            since_ms = wanted.away.since_ms if wanted.away is not None else now_ms
            wanted.away = Away(id, since_ms, reason)
        for one in self._wanted.values():
            one.due_ms = max(one.due_ms, now_ms + again_ms)
