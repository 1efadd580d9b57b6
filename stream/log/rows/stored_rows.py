"""Rows by key on disk, with a bounded cache of them in memory.

What is put is seen at once, and written with the next `commit`, in one batch with the position in
the log that it was read to: so after a crash rows and position fit. Rows that were asked for or put
lately stand in memory, in two halves: once the younger one is full, the older one is dropped.
"""

from collections.abc import Sequence

from stream.log.rows.storage import RowStorage

#: What a row takes in memory beside its key and its value, about.
ROW_BYTES = 180
#: No row has this key: where the position lies.
_POSITION = b"\xffposition"


class StoredRows:
    """Keys and values are bytes, values not empty. One thread writes; others may `get`. Raises
    RowsFailed."""

    def __init__(self, storage: RowStorage, bytes_max: int) -> None:
        """`bytes_max`: of the rows in memory, about; what came last may exceed it."""
        self.storage, self._half = storage, bytes_max // 2
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._young_bytes = self._old_bytes = 0
        self._pending: dict[bytes, bytes] = {}
        self.hits = self.misses = 0  # rows that were asked for and in memory, and not

    @property
    def memory_bytes(self) -> int:
        """Memory that rows take, about."""
        return self._young_bytes + self._old_bytes

    @property
    def pending(self) -> int:
        """Rows that were put and not written yet."""
        return len(self._pending)

    @property
    def in_memory(self) -> int:
        """Rows that stand in memory."""
        return len(self._young) + len(self._old)

    def __len__(self) -> int:
        """Rows, about."""
        return self.storage.count() + len(self._pending)

    def get(self, keys: Sequence[bytes], *, hold: bool = True) -> list[bytes]:
        """The row of each key, b"" where there is none. `hold`: in memory; otherwise they never
        are, and `put` says the same of them."""
        if not hold:
            return self._unheld(keys)
        # Held on to: who reads beside the writer must not put an older row above a newer one.
        young, old, pending = self._young, self._old, self._pending
        found = list(map(young.get, keys))
        if None not in found:
            self.hits += len(found)
            return found  # type: ignore[return-value]
        ask: list[bytes] = []
        places: list[int] = []
        taken = 0
        for i, value in enumerate(found):
            if value is not None:
                continue
            key = keys[i]
            value = pending.get(key)
            if value is None:
                value = old.get(key)
            if value is None:
                ask.append(key)
                places.append(i)
                continue
            found[i] = young.setdefault(key, value)
            taken += len(key) + len(value) + ROW_BYTES
        for i, key, row in zip(places, ask, self.storage.get(ask), strict=True):
            value = young.setdefault(key, row or b"")
            found[i] = value
            taken += len(key) + len(value) + ROW_BYTES
        self.hits += len(found) - len(ask)
        self.misses += len(ask)
        self._took(taken)
        return found  # type: ignore[return-value]

    def _unheld(self, keys: Sequence[bytes]) -> list[bytes]:
        found = list(map(self._pending.get, keys))
        places = [i for i, value in enumerate(found) if value is None]
        self.misses += len(places)
        self.hits += len(keys) - len(places)
        for i, row in zip(places, self.storage.get([keys[i] for i in places]), strict=True):
            found[i] = row or b""
        return found  # type: ignore[return-value]

    def put(self, keys: Sequence[bytes], values: Sequence[bytes], *, hold: bool = True) -> None:
        """These in the place of those that there are; b"" deletes."""
        self._pending.update(zip(keys, values, strict=True))
        if not hold:
            return
        self._young.update(zip(keys, values, strict=True))
        self._took(sum(map(len, keys)) + sum(map(len, values)) + ROW_BYTES * len(keys))

    def items(self, prefix: bytes) -> tuple[list[bytes], list[bytes]]:
        """Keys that begin so, rising, and their rows."""
        keys, values = self.storage.items(prefix)
        said = {key: row for key, row in self._pending.items() if key.startswith(prefix)}
        if said:
            rows = dict(zip(keys, values, strict=True)) | said
            keys = sorted(key for key, row in rows.items() if row)
            values = [rows[key] for key in keys]
        return keys, values

    @property
    def position(self) -> bytes:
        """What the last `commit` said; b"" before the first."""
        return self.storage.get([_POSITION])[0] or b""

    def commit(self, position: bytes = b"") -> None:
        """Write what was put, and where the log was read to."""
        pending = self._pending
        values: list[bytes | None] = [value or None for value in pending.values()]
        self.storage.write([*pending, _POSITION], [*values, position or None])
        self._pending = {}

    def clear(self) -> None:
        """Delete everything, the position too."""
        self._young, self._old, self._pending = {}, {}, {}
        self._young_bytes = self._old_bytes = 0
        self.storage.clear()

    def close(self) -> None:
        """What was not written is lost."""
        self.storage.close()

    def _took(self, taken: int) -> None:
        self._young_bytes += taken
        if self._young_bytes > self._half:
            self._old, self._old_bytes = self._young, self._young_bytes
            self._young, self._young_bytes = {}, 0
