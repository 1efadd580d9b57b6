"""The state of a model at one moment, copied while pushes go on (X1): what a mark holds until its
part is written.

To begin one costs the dense arrays and nothing that grows with the tables. Rows are copied a few at
a time by whoever writes the part, between pushes, and each row that a push is about to change is
copied first (`copying`).
"""

from collections.abc import Mapping
from dataclasses import replace

from paramserver.parts import CutChanges, Snapshot
from paramserver.tables import Copy, Table, TableRows


class StateCopy:
    """One moment of all tables. `advance` and `drop` belong to the shard's one writer, `snapshot`
    once done to anybody.

    A copy may be narrowed to what was touched after a version, so that a delta costs what it holds.
    """

    def __init__(self, head: Snapshot, tables: Mapping[str, Table]) -> None:
        """`head`: everything but the rows, copied already."""
        self.head = head
        self.dropped = False
        self._parent: str | None = None
        self._since_version = -1
        self._last: tuple[str, int] | None = None
        self._tables = dict(tables)
        self._copies: dict[str, Copy] = {name: table.copy() for name, table in tables.items()}
        self._snapshot: Snapshot | None = None

    @property
    def version(self) -> int:
        """The shard's version at that moment."""
        return self.head.progress.version

    @property
    def parent(self) -> str | None:
        """The manifest that it was narrowed upon; None: all rows."""
        return self._parent

    @property
    def begun(self) -> bool:
        """Rows have been copied because they were asked for: it cannot be narrowed any more."""
        return self._snapshot is not None or any(copy.advanced for copy in self._copies.values())

    def knows_since(self, version: int) -> bool:
        """Whether what was evicted after a version is known, so that a delta since then can be
        told (X3)."""
        return all(copy.knows_since(version) for copy in self._copies.values())

    def narrow(self, parent: str, since_version: int) -> None:
        """From now on a delta upon the manifest with this checksum: rows touched after that
        version, and tombstones."""
        assert not self.begun
        self._parent, self._since_version = parent, since_version
        for copy in self._copies.values():
            copy.narrow(since_version)

    def know(self, parent: str, since_version: int) -> None:
        """The shard's last cut: of a full copy, too, `snapshot` says what has changed since."""
        self._last = (parent, since_version)

    @property
    def done(self) -> bool:
        return all(copy.done for copy in self._copies.values())

    def advance(self, rows: int) -> bool:
        """Look at the next so many rows. True when all are copied, and the tables need not know
        of it any more."""
        assert not self.dropped
        for name, copy in self._copies.items():
            if not copy.done:
                if self._tables[name].advance_copy(copy, rows):
                    self._tables[name].drop_copy(copy)
                break
        return self.done

    def drop(self) -> None:
        """Nobody wants it: pushes stop saving rows for it."""
        self.dropped = True
        for name, copy in self._copies.items():
            self._tables[name].drop_copy(copy)

    def snapshot(self) -> Snapshot:
        """It all as a value, rows rising by key; kept, and the columns let go. Only when done."""
        if self._snapshot is None:
            tables: dict[str, TableRows] = {
                name: self._tables[name].copied(c) for name, c in self._copies.items()
            }
            gone = (
                {}
                if self._parent is None
                else {name: copy.tombstones() for name, copy in self._copies.items()}
            )
            seen = {
                name: s.take(s.version > self._since_version)
                for name, s in self.head.sightings.items()
            }
            self._snapshot = replace(
                self.head,
                tables=tables,
                parent=self._parent,
                tombstones=gone,
                sightings=seen,
                changes=self._changes(),
            )
            self._copies = {}
        return self._snapshot

    def _changes(self) -> CutChanges | None:
        if self._parent is not None or self._last is None:
            return None
        parent, since = self._last
        gone = {name: copy.tombstones(since) for name, copy in self._copies.items()}
        return CutChanges(parent, since, gone)
