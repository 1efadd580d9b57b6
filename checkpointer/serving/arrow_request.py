"""Requests and answers as Arrow IPC streams: a column a feature, by name as in `{"columns": ...}`.

Media type `application/vnd.apache.arrow.stream`. Strings may be dictionaries; numbers any number
type; nulls are missing values. The answer has one column, `probability`, and its schema's metadata
says the rest.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from checkpointer.serving.request import BadRequest, Given, given_columns
from stream.columns import (
    FEATURE_PREFIX,
    GIVEN_BYTES_MAX,
    IMAGE,
    TEXT_BYTES_MAX,
    Features,
    check_offsets,
    measure,
)

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
OUTPUT = "probability"


def read_table(body: bytes, features: Features, rows_max: int, bytes_max: int) -> Given:
    """`bytes_max`: of what it takes when unpacked. Raises BadRequest."""
    try:
        size = measure(body)
        if size.rows > rows_max:
            raise BadRequest(f"body: {size.rows} rows; send at most {rows_max} in one request")
        if size.unpacked_bytes > bytes_max:
            raise BadRequest(f"body: unpacks to {size.unpacked_bytes} bytes; at most {bytes_max}")
        with pa.ipc.open_stream(pa.py_buffer(body)) as stream:
            # nobody validates an offset of a list behind which no row stands, and who follows it
            # aborts
            batches = [batch for batch in stream if batch.num_rows]
            table = pa.Table.from_batches(batches, stream.schema)
        table.validate(full=True)
        most = {f.name: GIVEN_BYTES_MAX for f in features if f.kind == IMAGE}
        columns = {
            name: _values(name, table[name], most.get(name.removeprefix(FEATURE_PREFIX), 0))
            for name in table.column_names
        }
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        if isinstance(error, BadRequest):
            raise
        raise BadRequest(f"body: no Arrow IPC stream ({error})") from error
    return given_columns(columns, features, rows_max)


def _values(name: str, column: pa.ChunkedArray, picture_bytes_max: int) -> list[Any]:
    """As JSON would have them. `picture_bytes_max`: 0 = it is no picture."""
    found: list[Any] = []
    for chunk in column.chunks:
        values = chunk.flatten() if pa.types.is_list(chunk.type) else chunk
        if values is not chunk and pa.types.is_dictionary(values.type):
            raise BadRequest(f"column {name} is {column.type}: send lists without a dictionary")
        texts = values.dictionary if pa.types.is_dictionary(values.type) else values
        if pa.types.is_string(texts.type) or (picture_bytes_max and pa.types.is_binary(texts.type)):
            check_offsets([texts.fill_null("" if pa.types.is_string(texts.type) else b"")])
            bytes_max = picture_bytes_max or TEXT_BYTES_MAX
            if (pc.max(pc.binary_length(texts)).as_py() or 0) > bytes_max:
                raise BadRequest(f"column {name}: a string above {bytes_max} bytes")
        elif not (pa.types.is_integer(texts.type) or pa.types.is_floating(texts.type)):
            raise BadRequest(
                f"column {name} is {column.type}: send strings, numbers, or lists of them; "
                f"binary where a picture is declared"
            )
        found += [None if value != value else value for value in chunk.to_pylist()]
    return found


def write_table(answer: Mapping[str, Any]) -> bytes:
    said = {name: value for name, value in answer.items() if name != "probabilities"}
    metadata = {name: orjson.dumps(value) for name, value in said.items()}
    schema = pa.schema([(OUTPUT, pa.float32())], metadata)
    column = pa.array(np.asarray(answer["probabilities"], np.float32))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(pa.record_batch([column], schema=schema))
    data: bytes = sink.getvalue().to_pybytes()
    return data
