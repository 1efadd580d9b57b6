"""One embedding table of one shard: key -> row of weights and optimizer state.

A `RowStore` keeps the rows; here is what a pull and a push do with them. Both go through their keys
in chunks that fit the processor's cache, so that a row is fetched from memory once: found, checked,
updated and stamped while it is there. A push starts from the row numbers that a pull of the same
keys found, and looks up only those that hold no more.
"""

from collections import deque
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from paramserver.encoding import Encoding, encode_into
from paramserver.kernel import plain
from paramserver.messages import Keys, Rows, TableSpec
from paramserver.optim import make_optimizer
from paramserver.slots import slot_of
from paramserver.tables.admission import NO_SIGHTINGS, Admission, Mask, Sightings
from paramserver.tables.cow_copy import Copy
from paramserver.tables.initializer import fill_unknown
from paramserver.tables.policy import make_policy
from paramserver.tables.row_header import HEAD, SECONDS_MAX, VERSION, RowNumbers, Words
from paramserver.tables.row_layout import make_layout
from paramserver.tables.row_store import ROWS_MIN, RowStore

#: Rows of one pass: some 300 KB of records.
CHUNK = 2048
#: Pulls whose row numbers are remembered, each for the push that follows it.
RECENT_MAX = 8
#: Of the index for each row, at most, bytes.
INDEX_BYTES = 15
#: What is evicted at once from a full table: this part of its rows.
EVICTED_PART = 16
_NO_KEYS: Keys = np.zeros(0, np.uint64)


class TableRows(NamedTuple):
    """Rows as they leave and enter a table; in any order of keys."""

    keys: Keys  # (n,) unique
    #: (n, stride): weights (FTRL: z), then state, float32; of a storage in 16 bits uint32 words of
    #: both (`layout`)
    rows: Rows | Words
    touched_ms: npt.NDArray[
        np.int64
    ]  # (n,) event time of the last push that touched it, whole seconds
    version: npt.NDArray[np.int64]  # (n,) the shard's version after it

    def take(self, chosen: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> "TableRows":
        """A copy of the rows of these indices, or of this mask."""
        return TableRows(
            self.keys[chosen], self.rows[chosen], self.touched_ms[chosen], self.version[chosen]
        )


class Changes(NamedTuple):
    """What a delta says of a table: evicted keys go first, then rows replace (X3). Both rising
    by key."""

    rows: TableRows
    tombstones: Keys


class Table:
    """Rows by key. One writer; `pull` may not run beside anything else."""

    def __init__(self, spec: TableSpec, capacity: int = ROWS_MIN, secret: int = 0) -> None:
        """`secret`: 64 bits that nobody knows who chooses keys (`paramserver.tables.hash_index`).
        ValueError for a spec that cannot be: dimension, optimizer, options, policy, scale, seed."""
        if spec.dim < 1:
            raise ValueError(f"table {spec.name!r}: dim = {spec.dim}, must be at least 1")
        if not 0 <= spec.init_scale < float("inf"):
            raise ValueError(
                f"table {spec.name!r}: init_scale = {spec.init_scale}, must be 0 or above and "
                f"finite"
            )
        if not 0 <= spec.seed < 1 << 64:
            raise ValueError(
                f"table {spec.name!r}: seed = {spec.seed}, must be an unsigned 64-bit integer"
            )
        self.spec = spec
        self.optimizer = make_optimizer(spec.optimizer, spec.options)
        self.policy = make_policy(spec.name, spec.policy)
        self.layout = make_layout(spec)
        self.stride = self.layout.words
        self._seed, self._scale = np.uint64(spec.seed), np.float32(spec.init_scale)
        self._row_store = RowStore(self.stride, capacity, self.policy.mortal, secret)
        self._recent: deque[tuple[tuple[int, int, int], RowNumbers]] = deque(maxlen=RECENT_MAX)
        self._admission = Admission(self.policy) if self.policy.admits else None
        self._range_seed = 0
        self._room: int | None = None
        self.refused = 0  # keys of pushes that got no row for want of room
        self.unadmitted = 0  # and because they were not admitted yet

    def __len__(self) -> int:
        return len(self._row_store)

    @property
    def nbytes(self) -> int:
        """Memory reserved, in bytes; what no row has used yet is not taken."""
        return self._row_store.nbytes

    @property
    def reseeded(self) -> int:
        """How often its index was made anew, because keys crowded together as honest ones never
        do: an alarm."""
        return self._row_store.index.reseeded

    @property
    def row_bytes(self) -> int:
        """What a row takes, its place in the index included."""
        return 4 * (HEAD + self.stride) + INDEX_BYTES

    @property
    def limit(self) -> int | None:
        """More living rows there may not be: by the policy, and by the room that was left; None
        = any number."""
        limits = [int(self.policy.rows_max)] if self.policy.rows_max else []
        if self._room is not None:
            limits.append(len(self) + self._room)
        return min(limits, default=None)

    def leave(self, room: int | None) -> None:
        """The next push may add so many rows, whatever the policy says; None = as that says."""
        self._room = room

    def pull(self, keys: Keys, encoding: Encoding = Encoding.FLOAT32) -> npt.NDArray[Any]:
        """(n,) keys -> (n, dim) weights, new memory; unknown keys answer their initial value.
        Changes nothing (S3).

        They come as they are to travel; in 16 bits they are rounded a chunk at a time, while it is
        in the cache."""
        keys = plain(keys)
        rows, out = (
            np.empty(len(keys), np.int64),
            np.empty((len(keys), self.spec.dim), encoding.dtype),
        )
        nbytes = 4 * (HEAD + self.layout.read_words)
        wide = (
            out
            if encoding is Encoding.FLOAT32
            else np.empty((min(CHUNK, len(keys)), self.spec.dim), np.float32)
        )
        for at in range(0, len(keys), CHUNK):
            part = slice(at, at + CHUNK)
            missing = self._row_store.find(keys[part], rows[part], nbytes)
            weights = wide[part] if wide is out else wide[: len(keys) - at]
            self.layout.weights(self._row_store.words, HEAD, rows[part], weights)
            if missing:
                fill_unknown(
                    weights, keys[part], rows[part], self._seed, self._scale, self.spec.dim
                )
            if wide is not out:
                encode_into(weights, out[part], encoding)
        if len(keys):
            self._recent.appendleft((_digest(keys), rows))
        return out

    def initial(self, keys: Keys) -> Words:
        """(n, stride): the rows that these keys begin with."""
        weights = np.empty((len(keys), self.spec.dim), np.float32)
        fill_unknown(
            weights, keys, np.full(len(keys), -1, np.int64), self._seed, self._scale, self.spec.dim
        )
        return self.layout.initialize(weights)

    def reserve(self, keys: Keys) -> None:
        """Make room for all of `keys`, so that `apply` allocates no row. MemoryError leaves the
        table as it was."""
        self._row_store.reserve(len(keys))

    def advance(
        self, version: int, now_ms: int, pushed: int, before_ms: int = 0, range_seed: int = 0
    ) -> None:
        """A push of `pushed` keys of this table begins, at the shard's event time: what is too old
        by then dies.

        `before_ms`: the event time until now; `range_seed`: a hash of the push's range, which
        chance is drawn by."""
        ttl_ms = int(self.policy.ttl_ms)
        self._row_store.advance(version, _seconds(now_ms - ttl_ms) if ttl_ms else 0, pushed)
        self._range_seed = range_seed
        if self._admission is not None:
            self._admission.advance(before_ms, now_ms, version)

    def apply(
        self,
        keys: Keys,
        gradients: Rows,
        version: int,
        event_ms: int,
        scale: float = 1.0,
        meanwhile: Rows | None = None,
    ) -> None:
        """One optimizer step for each key (unique), creating unknown rows first. `reserve(keys)`
        has been called.

        Gradients of keys that are not admitted, or have no room, are dropped and counted.

        `gradients` is (n, dim) float32, finite; `scale` and `meanwhile` go to the optimizer.
        `version` (rising) and `event_ms` are kept as the rows' last touch.
        """
        keys, gradients, now_s = plain(keys), plain(gradients), _seconds(event_ms)
        self._row_store.advance_to(version)
        rows = self._recall(keys)
        if self._admission is not None:
            rows = self._look_up(keys, rows)
            chosen = self._admitted(self._admission, keys, rows, version)
            if chosen is not None:
                keys, gradients, rows = keys[chosen], gradients[chosen], rows[chosen]
                meanwhile = None if meanwhile is None else meanwhile[chosen]
        limit = self.limit
        if limit is not None and self.policy.evicts:
            rows = self._make_room(keys, rows, version, now_s, limit)
        for at in range(0, len(keys), CHUNK):
            part = slice(at, at + CHUNK)
            found = self._rows_for(keys[part], None if rows is None else rows[part], now_s, limit)
            if self.optimizer.decay_ms:
                self._decay(found, now_s)
            after = None if meanwhile is None else plain(meanwhile[part])
            self._row_store.stamp(found, version, now_s)
            self.layout.apply(
                self._row_store.words, HEAD, found, gradients[part], scale, after, self._range_seed
            )

    def rewrite(self, keys: Keys, rows: Rows, version: int, event_ms: int) -> None:
        """Whole rows (n, weights and state), float32 and finite, in the place of those that these
        keys have (S8); rounded where the storage is narrower. A key without a row gets none: it has
        its initial value already."""
        keys, rows = plain(keys), plain(rows)
        self._row_store.advance_to(version)
        found = self._look_up(keys, None)
        there = np.flatnonzero(found >= 0)
        found = found[there]
        self._row_store.stamp(found, version, _seconds(event_ms))
        self._row_store.words[found, HEAD:] = self.layout.keep(rows[there])

    def holds(self, keys: Keys) -> Mask | None:
        """Which of these keys have a row, where after a push not all of them need have one; else
        None."""
        if self._admission is None and self.limit is None:
            return None
        return np.asarray(self._look_up(plain(keys), None) >= 0)

    def sightings(self) -> Sightings:
        """A copy of the counts by which keys are admitted."""
        return NO_SIGHTINGS if self._admission is None else self._admission.items()

    def clear(self, slots: npt.NDArray[np.int32]) -> None:
        """Rows and counts of these slots go, as if they had never been: before any push."""
        keys = self._row_store.keys()
        self.remove(keys[np.isin(slot_of(keys), slots)])
        if self._admission is not None:
            self._admission.clear(slots)

    def load_sightings(self, items: Sightings) -> None:
        """Take over the counts of a table of the same policy. ValueError if they do not fit."""
        if self._admission is not None:
            self._admission.load(items)

    def items(self, since_version: int = -1) -> TableRows:
        """A copy of all rows, or of those touched after `since_version`, rising by key."""
        return self.copied(self._whole_copy(since_version))

    def changes_since(self, version: int) -> Changes:
        """What has changed after a version that the table has been at: rows touched, keys evicted.

        ValueError if evictions since then are not known (any more): the part must be a full one.
        """
        copy = self._whole_copy(version)
        return Changes(self.copied(copy), copy.tombstones())

    def forget(self, version: int) -> None:
        """Nobody will ask for changes since an earlier version than this."""
        self._row_store.tombstones.forget(version)

    # --- copies that are made while pushes go on (X1)
    # ----------------------------------------------------------

    def copy(self, since_version: int = -1) -> Copy:
        """Begin an exact copy of the table as it is now; finish it by `advance_copy`."""
        return self._row_store.copy(since_version)

    def advance_copy(self, copy: Copy, rows: int) -> bool:
        """Copy the next so many rows. True when it is done, and `copied` can be asked."""
        return self._row_store.advance_copy(copy, rows)

    def drop_copy(self, copy: Copy) -> None:
        self._row_store.drop(copy)

    def copied(self, copy: Copy) -> TableRows:
        """The rows of a copy that is done, rising by key."""
        columns, order = copy.living()
        rows = columns.payload[order].view(self.layout.dtype)
        return TableRows(
            columns.keys[order], rows, columns.touched_s[order] * 1000, columns.versions[order]
        )

    def remove(self, keys: Keys) -> None:
        """Rows of these keys (distinct) go, where there are any, as if they had never been:
        before any push."""
        self._row_store.remove(plain(keys))

    def load(self, items: TableRows, version: int = 0) -> None:
        """Put in rows, in the place of those that their keys have, as of a version of the shard:
        before any push.

        ValueError if the arrays do not fit."""
        shape, dtype = (len(items.keys), self.stride), self.layout.dtype
        if items.keys.dtype != np.uint64 or items.rows.shape != shape or items.rows.dtype != dtype:
            raise ValueError(
                f"table {self.spec.name!r}: {items.keys.dtype} keys and {items.rows.dtype} rows "
                f"{items.rows.shape}, "
                f"expected uint64 and {shape} {dtype}: dim {self.spec.dim} with "
                f"{self.spec.optimizer} state"
            )
        keys, row_store = plain(items.keys), self._row_store
        row_store.reserve(len(keys))
        row_store.advance_to(max(version, int(items.version.max(initial=0))))
        rows = row_store.put(keys, items.touched_ms // 1000)
        row_store.words[rows, VERSION] = np.maximum(items.version - row_store.base, 0)
        row_store.words[rows, HEAD:] = items.rows.view(np.uint32)
        row_store.tombstones.forget(row_store.version)

    def validate(self) -> None:
        """AssertionError if an invariant of this file does not hold. Reads everything; for
        tests."""
        self._row_store.validate()

    # --- inside
    # ----------------------------------------------------------------------------------------------

    def _recall(self, keys: Keys) -> RowNumbers | None:
        """The row numbers that a pull of these keys found, to be checked by whoever uses them."""
        for known, rows in self._recent:
            if len(keys) and known == _digest(keys):
                return rows.copy()
        return None

    def _look_up(self, keys: Keys, rows: RowNumbers | None) -> RowNumbers:
        """Row numbers of all keys, -1 where there is no living one. `rows`: what they were."""
        if rows is None:
            rows = np.empty(len(keys), np.int64)
            self._row_store.find(keys, rows, 4 * (HEAD + self.stride))
        elif self._row_store.hold(keys, rows):
            self._row_store.seek(keys, rows)
        return rows

    def _admitted(
        self, admission: Admission, keys: Keys, rows: RowNumbers, version: int
    ) -> RowNumbers | None:
        """The indices of keys that have a row or may get one; None = all. Each key is seen once
        a push."""
        unknown = np.flatnonzero(rows < 0)
        if not len(unknown):
            return None
        kept = np.ones(len(keys), np.bool_)
        kept[unknown] = admission.admits(keys[unknown], version, self._range_seed)
        chosen = np.flatnonzero(kept)
        self.unadmitted += len(keys) - len(chosen)
        return None if len(chosen) == len(keys) else chosen

    def _rows_for(
        self, keys: Keys, rows: RowNumbers | None, now_s: int, limit: int | None
    ) -> RowNumbers:
        """Row numbers of all keys, creating what is unknown with its initial value; -1 where
        there is no room."""
        row_store = self._row_store
        if rows is None:
            rows = np.empty(len(keys), np.int64)
            if not row_store.find(keys, rows, 4 * (HEAD + self.stride)):
                return rows
            unknown = np.flatnonzero(rows < 0)
        else:
            if not row_store.hold(keys, rows):
                return rows
            unknown = row_store.seek(keys, rows)
        if limit is not None:
            room = max(0, limit - len(row_store))
            self.refused += max(0, len(unknown) - room)
            unknown = unknown[:room]
        if len(unknown):
            new = keys[unknown]
            created = row_store.create(new, now_s)
            row_store.words[created, HEAD:] = self.initial(new)
            rows[unknown] = created
        return rows

    def _decay(self, rows: RowNumbers, now_s: int) -> None:
        """What accumulators have missed since each row's last touch."""
        periods = self._row_store.periods(rows, int(self.optimizer.decay_ms) // 1000, now_s)
        if periods is not None:
            self._row_store.save(rows)
            self.layout.decay(self._row_store.words, HEAD, rows, periods, self._range_seed)

    def _make_room(
        self, keys: Keys, rows: RowNumbers | None, version: int, now_s: int, rows_max: int
    ) -> RowNumbers | None:
        """Evict the longest untouched rows if the new ones would be too many. Known keys of this
        push are kept."""
        row_store = self._row_store
        if len(row_store) + len(keys) <= rows_max:
            return rows
        rows = self._look_up(keys, rows)
        new = int((rows < 0).sum())
        if len(row_store) + new > rows_max:
            row_store.stamp(rows, version, now_s)
            row_store.cull(max(0, rows_max - max(new, rows_max // EVICTED_PART)), version, now_s)
        return rows

    def _whole_copy(self, since_version: int) -> Copy:
        copy = self._row_store.copy(since_version)
        self._row_store.advance_copy(copy, len(self._row_store.words))
        self._row_store.drop(copy)
        return copy


def _digest(keys: Keys) -> tuple[int, int, int]:
    """Of one or more keys: enough to guess that two lists are one, where every row is checked."""
    return len(keys), int(keys[0]), int(keys[-1])


def _seconds(ms: int) -> int:
    return min(max(ms // 1000, 0), SECONDS_MAX)
