"""Events of one partition that go into one record."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from stream.columns import IMAGE
from stream.decoding import Shape, too_many_pixels
from stream.record import Partition

ROW_OVERHEAD_BYTES = 64


@dataclass
class OpenBatch:
    """Rows are added until it is sent."""

    partition: Partition
    shape: Shape
    due: float  # monotonic seconds
    flushes: int  # that were asked for before it began
    rows: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0  # bytes, about
    too_large: bool = False  # the log has said so

    def encode(self) -> bytes:
        """As Arrow IPC. Raises ArrowException."""
        schema = pa.schema(list(self.shape.wire.items()))
        batch = pa.RecordBatch.from_pylist(self.rows, schema=schema)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_batch(batch)
        return bytes(sink.getvalue())

    @property
    def is_heavy(self) -> bool:
        """Whether its pictures are too many pixels for one record."""
        return too_many_pixels(pictures(self.rows, self.shape), "record") is not None

    def halves(self) -> "tuple[OpenBatch, OpenBatch]":
        """The same rows, in two."""
        middle = len(self.rows) // 2
        size = self.size * middle // len(self.rows)
        return (
            replace(self, rows=self.rows[:middle], size=size, too_large=False),
            replace(self, rows=self.rows[middle:], size=self.size - size, too_large=False),
        )


def value_bytes(value: Any) -> int:
    """Of a string, of bytes, or of a list with what it holds; others are counted with their row."""
    if isinstance(value, list):
        return sum(8 + value_bytes(one) for one in value)
    if isinstance(value, bytes):
        return len(value)
    return len(value.encode()) if isinstance(value, str) else 0


def pictures(rows: list[dict[str, Any]], shape: Shape) -> Iterator[Any]:
    """The pictures' files that these rows hold."""
    images = (f for f in shape.features if f.kind == IMAGE and not f.stored)
    return (row[f.column] for f in images for row in rows)
