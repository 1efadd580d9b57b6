"""The rows of a catalogue, by key, within a limit of memory; beyond it they lie on disk."""

from typing import Protocol

#: What a row takes in memory beside its key and its value, about.
ROW_BYTES = 180


class CatalogueFailed(Exception):
    """Rows cannot be held or read; the message says why, and what to do."""


class MoreRows(Protocol):
    """Where rows lie that memory has no room for. Raises CatalogueFailed."""

    def get(self, key: bytes) -> bytes | None:
        """None = there is no such row."""

    def put(self, key: bytes, value: bytes) -> None:
        """In the place of the row that there was."""

    def delete(self, key: bytes) -> None:
        """Also where there is none."""

    def close(self) -> None:
        """It is used no more."""


class HeldRows:
    """A row stays where it was put first: in memory while there was room. One thread writes; others
    may read."""

    def __init__(self, name: str, bytes_max: int, more: MoreRows | None = None) -> None:
        """`bytes_max`: of memory; `more`: None = there is nothing else."""
        self._name, self._bytes_max, self._more = name, bytes_max, more
        self._rows: dict[bytes, bytes] = {}
        self.bytes = 0  # of memory
        self.on_disk = 0  # rows

    def __len__(self) -> int:
        """Rows."""
        return len(self._rows) + self.on_disk

    def get(self, key: bytes) -> bytes | None:
        """None = there is no such row. Raises CatalogueFailed."""
        found = self._rows.get(key)
        if found is None and self.on_disk:
            assert self._more is not None
            found = self._more.get(key)
        return found

    def put(self, key: bytes, value: bytes | None) -> None:
        """The row of this key now; None = none. Raises CatalogueFailed."""
        held = self._rows.get(key)
        if held is not None:
            if value is None:
                del self._rows[key]
                self.bytes -= _size(key, held)
            else:
                self._rows[key] = value
                self.bytes += len(value) - len(held)
        elif self.on_disk and self._put_beyond(key, value):
            return
        elif value is not None:
            self._put_new(key, value)

    def _put_beyond(self, key: bytes, value: bytes | None) -> bool:
        """Whether it lay on disk, and does so, or is gone."""
        assert self._more is not None
        if self._more.get(key) is None:
            return False
        if value is None:
            self._more.delete(key)
            self.on_disk -= 1
        else:
            self._more.put(key, value)
        return True

    def _put_new(self, key: bytes, value: bytes) -> None:
        size = _size(key, value)
        if self.bytes + size <= self._bytes_max:
            self._rows[key] = value
            self.bytes += size
            return
        if self._more is None:
            raise CatalogueFailed(
                f"catalogue {self._name}: {len(self._rows)} rows take {self.bytes} bytes, no more "
                f"than {self._bytes_max} are allowed, and there is no disk for the rest; raise "
                f"catalogue_bytes_max"
            )
        self._more.put(key, value)
        self.on_disk += 1

    def close(self) -> None:
        if self._more is not None:
            self._more.close()


def _size(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + ROW_BYTES
