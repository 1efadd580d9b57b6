"""The archive of `examples`: what the log no longer holds.

- `archive`: the archive of `examples`
- `archive_file`: one file of the archive
- `archived_log`: the log whose topic `examples` goes on below what the broker still holds
- `archiver`: the archiver process
- `backfill`: a copy of the archive with a feature that was declared later
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from checkpointer.archive import archiver
    from checkpointer.archive.archive import Archive, RowsOfSources, first_offset_of
    from checkpointer.archive.archive_file import FORGOTTEN
    from checkpointer.archive.archived_log import ArchivedLog
    from checkpointer.archive.backfill import Backfill, BackfillError, joined_with
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "FORGOTTEN",
    "Archive",
    "ArchivedLog",
    "Backfill",
    "BackfillError",
    "RowsOfSources",
    "archiver",
    "first_offset_of",
    "joined_with",
]
