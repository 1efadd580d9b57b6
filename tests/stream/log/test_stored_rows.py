"""Rows by key on disk, with a bounded cache of them in memory: whatever is in memory, the same rows
are found, and after a crash those of the last `commit` with its position."""

import random
import subprocess
import sys

import pytest

from stream.log.rows import MemoryStorage, RocksStorage, RowsFailed, StoredRows


@pytest.fixture(params=["memory", "rocksdict"])
def storage(request, tmp_path):
    made = MemoryStorage() if request.param == "memory" else RocksStorage(tmp_path / "a" / "rows")
    yield made
    made.close()


def test_values_lie_by_key(storage):
    storage.write([b"b/2", b"a/1", b"b/1", b"c/1"], [b"2", b"1", b"3", b"4"])
    storage.write([b"b/1", b"c/1", b"none"], [b"again", None, None])
    assert storage.keys(b"b/") == [b"b/1", b"b/2"]
    assert storage.items(b"b/") == ([b"b/1", b"b/2"], [b"again", b"2"])
    assert storage.get([b"b/1", b"a/1", b"c/1", b""]) == [b"again", b"1", None, None]
    assert storage.get([]) == []
    storage.clear()
    assert storage.keys(b"") == []
    assert storage.count() == 0


def test_a_folder_is_there_again_and_a_damaged_one_is_begun_anew(tmp_path):
    def opened(**more):
        return RocksStorage(tmp_path / "rows", **more)

    first = opened()
    first.write([b"k"], [b"v"])
    with pytest.raises(RowsFailed, match="rows"):  # another process has it
        opened().get([b"k"])
    first.close()
    again = opened()
    assert again.get([b"k"]) == [b"v"]
    again.close()
    for path in (tmp_path / "rows").glob("*"):
        path.write_bytes(b"not this")
    anew = opened()
    assert anew.keys(b"") == []
    anew.write([b"k"], [b"v"])
    anew.close()
    passing = opened(lasting=False)
    assert passing.get([b"k"]) == [None]
    passing.close()


def test_rows_of_a_damaged_block_are_begun_anew(tmp_path):
    """RocksDB says "block checksum mismatch" of it; and the folder of a clock has "lock" in it."""
    dir = tmp_path / "clock" / "rows"
    first = RocksStorage(dir)
    first.write([b"%06d" % i for i in range(1_000)], [b"v" * 100] * 1_000)
    first._db.flush()
    first.close()
    for file in dir.glob("*.sst"):
        whole = file.read_bytes()
        damaged = bytes(byte ^ 0x55 for byte in whole[-1_500:-60])
        file.write_bytes(whole[:-1_500] + damaged + whole[-60:])
    anew = RocksStorage(dir)
    assert anew.get([b"000001"]) == [None]
    anew.write([b"000001"], [b"v"])
    assert anew.get([b"000001"]) == [b"v"]
    anew.close()


def test_rows_that_another_process_has_open_are_not_thrown_away(tmp_path):
    own = RocksStorage(tmp_path / "rows")
    own.write([b"k"], [b"v"])
    code = (
        "import sys\nfrom pathlib import Path\nfrom stream.log.rows import RocksStorage\n"
        "RocksStorage(Path(sys.argv[1])).get([b'k'])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "rows")]
    other = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "While lock file" in other.stderr
    assert own.get([b"k"]) == [b"v"]
    own.close()


@pytest.mark.parametrize("limit", ["RLIMIT_FSIZE", "RLIMIT_NOFILE"])
def test_rows_that_a_full_disk_or_process_cannot_open_stay(limit: str, tmp_path):
    own = RocksStorage(tmp_path / "rows")
    own.write([b"k"], [b"v"])
    own.close()
    code = (
        "import os, resource, signal, sys\nfrom pathlib import Path\n"
        "from stream.log.rows import RocksStorage\n"
        "RocksStorage(Path(sys.argv[1] + '-warm')).get([b'k'])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "files = len(os.listdir('/proc/self/fd')) + 1\n"
        f"most = 0 if {limit!r} == 'RLIMIT_FSIZE' else files\n"
        f"resource.setrlimit(resource.{limit}, (most, most))\n"
        "RocksStorage(Path(sys.argv[1])).get([b'k'])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "rows")]
    other = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "RowsFailed" in other.stderr
    assert own.get([b"k"]) == [b"v"]
    own.close()


def test_a_disk_that_fails_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    rows = StoredRows(RocksStorage(tmp_path / "file" / "rows"), 1 << 20)
    rows.put([b"a"], [b"1"])
    with pytest.raises(RowsFailed, match="free its disk"):
        rows.commit()


def test_a_room_is_zeros_that_nobody_finds_again(storage):
    one, other = storage.room(10_000), storage.room(10_000)
    assert not one.bytes.any()
    one.bytes[7_000] = 3
    one.rest()
    assert (one.bytes[7_000], other.bytes.any()) == (3, False)
    storage.write([b"k"], [b"v"])
    assert storage.get([b"k"]) == [b"v"]
    storage.clear()
    assert one.bytes[7_000] == 3


def test_a_disk_without_room_is_said_at_once(tmp_path):
    storage = RocksStorage(tmp_path / "rows")
    with pytest.raises(RowsFailed, match="make room"):
        storage.room(1 << 60)
    storage.close()
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


@pytest.mark.parametrize("bytes_max", [0, 2_000, 1 << 20])
def test_what_is_in_memory_changes_nothing(storage, bytes_max):
    rng, truth, rows = random.Random(1), {}, StoredRows(storage, bytes_max)
    for n in range(100):
        keys = [f"k{rng.randrange(60)}".encode() for _ in range(5)]
        found = dict(zip(keys, (rng.choice((b"", b"%d" % n)) for _ in keys), strict=True))
        truth |= found
        rows.put(list(found), list(found.values()))
        if rng.random() < 0.3:
            rows.commit(b"%d" % n)
        asked = [f"k{rng.randrange(70)}".encode() for _ in range(9)]
        assert rows.get(asked) == [truth.get(key, b"") for key in asked]
        assert rows.memory_bytes <= bytes_max + 14 * 200  # and what came last
        here = sorted((key, row) for key, row in truth.items() if row and key >= b"k3")
        here = [one for one in here if one[0].startswith(b"k3")]
        assert rows.items(b"k3") == ([key for key, _ in here], [row for _, row in here])
    assert rows.hits + rows.misses == 900
    assert rows.misses <= 70 if bytes_max > 2_000 else rows.misses > 200


COMMITS = """
import sys
from pathlib import Path
from stream.log.rows import RocksStorage, StoredRows
rows = StoredRows(RocksStorage(Path(sys.argv[1])), 1_000)
for turn in range(1 << 30):
    rows.put([b"%d" % key for key in range(200)], [b"%d" % turn] * 200)
    rows.commit(b"%d" % turn)
    print(turn, flush=True)
"""


@pytest.mark.long
def test_after_a_kill_rows_and_position_fit(tmp_path):
    dir = tmp_path / "rows"
    command = [sys.executable, "-c", COMMITS, str(dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        turns = [int(process.stdout.readline()) for _ in range(50)]
        process.kill()
    rows = StoredRows(RocksStorage(dir), 1_000)
    assert int(rows.position) >= turns[-1]
    assert set(rows.get([b"%d" % key for key in range(200)])) == {rows.position}
    rows.close()
