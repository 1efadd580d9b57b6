"""The durable copy of `Activity`: what was counted since the last write, appended as pages of one
table (F2).

Each write is a group of pages. The last page of a group says how far every input is counted with
it; a group without its last page was cut short by a crash and counts as never written, so its
signals, which come again, are counted. Pages are numbered, written in order, and never changed;
they leave from the front, once all that they hold is forgotten.
"""

import base64
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from labeler.fraud.activity import ROW_SCHEMA
from labeler.fraud.tables import Json, StateTable

#: A page holds about so many bytes of rows before they are compressed; below Kafka's 1 MiB a record
#: in any case.
PAGE_BYTES_MAX = 500_000


class Group(NamedTuple):
    """What one write wrote: rows of ROW_SCHEMA, and how far each input is counted with them."""

    rows: list[pa.RecordBatch]
    ends: dict[str, int]


class ActivityPages:
    """Pages by number. Those from `first` on count."""

    def __init__(self, table: StateTable) -> None:
        self._table = table
        self._newest: dict[int, int] = {}  # page -> its latest cell; rising page numbers
        self._leaving: list[int] = []
        self._next = 0
        self.first = 0

    def __len__(self) -> int:
        return len(self._newest)

    def load(self, first: int) -> Iterator[Group]:
        """The groups from page `first` on, up to the first page that is missing or the last
        whole group."""
        pages = {int(key): value for key, value in self._table.items()}
        self.first = self._next = first
        for group in groups_from(pages, first):
            for page in group:
                self._newest[self._next] = page["newest"]
                self._next += 1
            yield Group([decode_rows(page["rows"]) for page in group], dict(group[-1]["ends"]))
        self._leaving = sorted(number for number in pages if number not in self._newest)

    def write(self, rows: pa.RecordBatch, ends: Mapping[str, int], before: int) -> None:
        """Append a group. Pages that hold cells below `before` only are no longer `first`; they
        leave the table with the next write, when a commit that does not need them is durable."""
        for number in self._leaving:
            self._table.pop(str(number), None)
        self._leaving.clear()
        if rows.num_rows:
            self._append(rows, ends)
        while self.first in self._newest and self._newest[self.first] < before:
            del self._newest[self.first]
            self._leaving.append(self.first)
            self.first += 1

    def _append(self, rows: pa.RecordBatch, ends: Mapping[str, int]) -> None:
        step = max(1, rows.num_rows * PAGE_BYTES_MAX // max(1, rows.nbytes))
        for start in range(0, rows.num_rows, step):
            part = rows.slice(start, step)
            newest = int(part.column("cell").to_numpy().max())
            last = start + step >= rows.num_rows
            self._table[str(self._next)] = {
                "rows": encode_rows(part),
                "newest": newest,
                "ends": dict(ends) if last else None,
            }
            self._newest[self._next] = newest
            self._next += 1


def groups_from(pages: Mapping[int, Json], first: int) -> Iterator[list[Json]]:
    """Whole groups, in order, as long as no page is missing."""
    group: list[Json] = []
    while first in pages:
        group.append(pages[first])
        first += 1
        if group[-1]["ends"] is not None:
            yield group
            group = []


def counts_in(table: StateTable) -> dict[tuple[str, str, int], list[int]]:
    """(source, vendor, cell) -> [views, clicks, gaps_fast, rejected] as the table has them, from
    its first page on."""
    found: dict[tuple[str, str, int], list[int]] = {}
    pages = {int(key): value for key, value in table.items()}
    for group in groups_from(pages, min(pages, default=0)):
        for page in group:
            for row in decode_rows(page["rows"]).to_pylist():
                counts = found.setdefault((row["source"], row["vendor"], row["cell"]), [0, 0, 0, 0])
                for place, name in enumerate(("views", "clicks", "gaps_fast")):
                    counts[place] += row[name]
                counts[3] |= row["rejected"]
    return found


_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


def encode_rows(rows: pa.RecordBatch) -> str:
    """As text, since tables hold JSON."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=_COMPRESSED) as writer:
        writer.write_batch(rows)
    return base64.b64encode(memoryview(sink.getvalue())).decode()


def decode_rows(text: str) -> pa.RecordBatch:
    """What `encode_rows` made."""
    return pa.ipc.open_stream(base64.b64decode(text)).read_next_batch()


def no_rows() -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array([], field.type) for field in ROW_SCHEMA], schema=ROW_SCHEMA
    )


def rejected_rows(
    source: pa.Array, vendor: pa.Array, cell: "np.typing.NDArray[np.int64]"
) -> pa.RecordBatch:
    """Rows that say of each (source, vendor, cell) that a verdict covers it."""
    nothing = pa.array(np.zeros(len(cell), np.int64))
    columns = [
        source,
        vendor,
        pa.array(cell),
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        pa.array(np.full(len(cell), -1, np.int64)),
        pa.array(np.ones(len(cell), np.bool_)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=ROW_SCHEMA)
