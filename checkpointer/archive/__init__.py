"""The archive of `examples`: what the log no longer holds.

- `archive`: the archive of `examples`
- `archive_file`: one file of the archive
- `archived_log`: the log whose topic `examples` goes on below what the broker still holds
- `archiver`: the archiver process
"""
