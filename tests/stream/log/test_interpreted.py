"""What `everspun status` reads of a log, without compiled loops, is what all others read."""

import json
import os
import subprocess
import sys

READS = """
import hashlib, json, sys
from kafka.record.default_records import DefaultRecordBatchBuilder
from stream.log.record_batches import BatchReader, DamagedOffsets

data = b""
for batch in range(6):
    builder = DefaultRecordBatchBuilder(2, 3 if batch % 2 else 0, 0, -1, -1, -1, 1 << 20)
    for n in range(30):
        headers = [("control", b"heartbeat")] if n % 9 == 0 else [("model", b"m" * n)]
        value = None if n % 9 == 0 else b"v" * (n * n)
        builder.append(n, 1_000 + (-1) ** n * n, b"k%d" % n if n % 4 else None, value, headers)
    data += bytes(builder.build())
reader, read = BatchReader(data + data[:100], 3, [], damaged=DamagedOffsets()), []
while not reader.is_done:
    read.append(reader.read())
text = b"".join(repr(one.entries.tolist()).encode() + one.data.tobytes() for one in read)
print(json.dumps({
    "records": sum(map(len, read)), "digest": hashlib.sha256(text).hexdigest(),
    "heartbeats": int(sum(one.entries["heartbeat"].sum() for one in read)),
    "compiler": "numba.np.arraymath" in sys.modules,
}))
"""


def read(disable: str) -> "dict[str, object]":
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", READS],
        env=os.environ | {"NUMBA_DISABLE_JIT": disable},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def test_interpreted_loops_read_the_same_and_load_no_compiler():
    compiled, interpreted = read("0"), read("1")
    assert compiled.pop("compiler")
    assert not interpreted.pop("compiler")
    assert interpreted == compiled
    assert interpreted["records"] == 6 * (30 - 3)
    assert interpreted["heartbeats"] > 0
