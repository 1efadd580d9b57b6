"""The archive of `examples`: what the log no longer holds.

- `archive`: the archive of `examples`
- `archive_file`: one file of the archive
- `archived_log`: the log whose topic `examples` goes on below what the broker still holds
- `archiver`: the archiver process
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from checkpointer.archive import archiver
    from checkpointer.archive.archive import Archive, first_offset_of
    from checkpointer.archive.archive_file import FORGOTTEN
    from checkpointer.archive.archived_log import ArchivedLog
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "FORGOTTEN",
    "Archive",
    "ArchivedLog",
    "archiver",
    "first_offset_of",
]
