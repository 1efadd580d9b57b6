"""Rows by key on disk, with a bounded cache in memory: what a process has made of a log, and where
it has read it to. Shared by all that hold more than memory may.

- `rocks`: rows by key on disk
- `rooms`: bytes of a disk that are read and written as an array
- `storage`: where rows by key lie
- `stored_rows`: rows by key on disk, with a bounded cache of them in memory
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from stream.log.rows.rocks import RocksStorage
    from stream.log.rows.rooms import Rooms
    from stream.log.rows.storage import MemoryStorage, Room, RowsFailed, RowStorage
    from stream.log.rows.stored_rows import StoredRows
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "MemoryStorage",
    "RocksStorage",
    "Room",
    "Rooms",
    "RowStorage",
    "RowsFailed",
    "StoredRows",
]
