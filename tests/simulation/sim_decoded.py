"""Records of `examples` as the simulator reads them: each decoded once, for all who look at it.

What a decoder says is a function of the bytes, and nobody changes what it gave: the watcher, the
oracle and the learners' shells share it. What the product decodes by itself is decoded there.
"""

from functools import lru_cache

import pyarrow as pa

from stream.internal_topics import BatchHeader, decode_examples
from stream.log import Headers

#: Records that are kept decoded; a seed writes a few hundred.
KEPT_MAX = 1024


@lru_cache(maxsize=KEPT_MAX)
def rows_of(value: bytes) -> pa.RecordBatch:
    """`decode_examples` of a record's value. Raises as it does."""
    return decode_examples(value)


@lru_cache(maxsize=KEPT_MAX)
def header_of(headers: Headers) -> BatchHeader:
    """`BatchHeader.from_headers` of a record's headers. Raises as it does."""
    return BatchHeader.from_headers(headers)


def forget() -> None:
    """Another run begins, perhaps of other code: a planted bug may be in a decoder."""
    rows_of.cache_clear()
    header_of.cache_clear()
