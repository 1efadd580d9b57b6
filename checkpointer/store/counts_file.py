"""The totals of counters, and sequences, in the store, beside the checkpoints of a model, for its
replicas (J5, J6).

Two Arrow streams behind each other: of totals, and, where any is declared, of sequences.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from checkpointer.store.manifest import Damaged
from stream.columns import measure
from stream.columns.counters import CounterTotals, Sequences
from stream.hashing import HashKey
from stream.internal_topics import (
    read_rows,
    sequences_batch,
    sequences_of,
    totals_batch,
    totals_of,
)

#: The newest totals; replaced as a whole.
COUNTS_FILE = "counters.arrow"
_SAID = b"everspun"


@dataclass(frozen=True)
class CountsFile:
    """Totals as of the end of a bucket, and what a replica needs to know to read them."""

    bucket: int
    bucket_ms: int
    negative_rate: float
    hash_keys: Mapping[str, HashKey]  # feature -> what its values are hashed with
    totals: Mapping[str, CounterTotals]  # by name of what is counted
    sequences: Mapping[str, Sequences] = field(default_factory=dict)  # of what is given of clicks

    @classmethod
    def empty(cls) -> "CountsFile":
        """Of nothing: nobody was ever shown anything."""
        return cls(-1, 1, 1.0, {}, {})

    @property
    def until_ms(self) -> int:
        """Impressions that arrived below this are counted."""
        return (self.bucket + 1) * self.bucket_ms


def encode_counts_file(file: CountsFile) -> bytes:
    """The bytes of a file that `decode_counts_file` reads: the same counts give the same bytes."""
    names = sorted(file.totals)
    batch = totals_batch([file.totals[name].rows for name in names])
    said = {
        "bucket": file.bucket,
        "bucket_ms": file.bucket_ms,
        "negative_rate": file.negative_rate,
        "hash_keys": {name: f"{key:032x}" for name, key in sorted(file.hash_keys.items())},
        "counted": names,
    }
    if not file.sequences:
        return _stream(batch, said)
    kept = sorted(file.sequences)
    clicks = sequences_batch([file.sequences[name].rows for name in kept])
    first = _stream(batch, said | {"kept": kept})
    return first + _stream(clicks, {})


def _stream(batch: pa.RecordBatch, said: Mapping[str, object]) -> bytes:
    batch = batch.replace_schema_metadata({_SAID: json.dumps(said, sort_keys=True).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


#: What is raised of a file that says something else.
_OTHER_CONTENT = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    RecursionError,
)


def decode_counts_file(value: bytes) -> CountsFile:
    """Raises Damaged."""
    try:
        batch = read_rows("counts", value)
        said = json.loads((batch.schema.metadata or {}).get(_SAID, b"null"))
        totals = {
            name: CounterTotals(rows) for name, rows in totals_of(batch, said["counted"]).items()
        }
        keys = {name: int(key, 16) for name, key in said["hash_keys"].items()}
        bucket, bucket_ms = int(said["bucket"]), int(said["bucket_ms"])
        clicks: dict[str, Sequences] = {}
        if kept := said.get("kept"):
            behind = value[len(value) - measure(value).bytes_behind :]
            found = sequences_of(read_rows("counts", behind), kept)
            clicks = {name: Sequences(rows) for name, rows in found.items()}
        return CountsFile(bucket, bucket_ms, float(said["negative_rate"]), keys, totals, clicks)
    except _OTHER_CONTENT as error:
        raise Damaged(f"{COUNTS_FILE}: {error}") from error
