"""What the fraud filter's tables keep in memory."""

from faust.stores.rocksdb import RocksDBOptions

from labeler.fraud.faust_app import TABLE_OPTIONS


def test_what_was_written_leaves_memory_soon(tmp_path):
    """A filter writes the same few rows again and again: by Faust's own options 64 MiB of what was
    written stayed in the memory of each table, and its memory grew for hours."""
    asked = {name: value for name, value in TABLE_OPTIONS.items() if name != "driver"}
    options = RocksDBOptions(**asked)
    assert not options.extra_options, "all of them are known"
    db = options.open(tmp_path / "table.db")
    try:
        for number in range(24):  # both buffers are full long before
            db[b"page"] = bytes([number]) * (1 << 20)
        written = list((tmp_path / "table.db").glob("*.sst"))
    finally:
        db.close()
    assert written
