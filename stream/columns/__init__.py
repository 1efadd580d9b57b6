"""Columns in memory: events, values given and missing, and pointers for kernels.

- `arrow_messages`: what an Arrow IPC stream is going to take, read off its messages before anything
  is unpacked
- `column_pointers`: where the columns of a batch lie in memory, so that one call of a kernel reads
  all of them
- `column_kinds`: kinds of columns: types, what is missing, what is wrong
- `counters`: what the pipeline itself keeps: counters and sequences
- `declaration`: the registry of features
- `declared_catalogues`: the features of catalogues that a configuration declares
- `declared_features`: the features that a configuration declares, and events send
- `derived`: what a model reads of a declared feature's column
- `events`: impressions and clicks in memory
- `feature_names`: which names features may have
- `growing_columns`: columns of entries that come one after the other
- `kept_options`: what counters and sequences may be declared with
- `picture_files`: what of a picture's file no pixel needs
- `picture_store`: files of pictures by their content, in a folder or at an fsspec URL
- `pictures`: a picture's file to 32 x 32 pixels, under limits
- `value_faults`: what is wrong with one value, in words
- `values`: what stands in a column for a value that was given, or not
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from stream.columns.arrow_messages import MalformedStream, StreamSize, measure
    from stream.columns.column_kinds import (
        CATEGORICAL,
        IMAGE,
        LIST,
        LIST_VALUES_MAX,
        NUMERIC,
        TEXT,
        TEXT_BYTES_MAX,
        TIME,
        VECTOR,
        WEIGHTS,
    )
    from stream.columns.column_pointers import (
        FLOAT32,
        HASHED,
        INT32,
        INT64,
        STRING,
        Placed,
        check_offsets,
        placed,
        placed_hashes,
        pointer,
    )
    from stream.columns.declaration import (
        CHARACTERS,
        COMPONENT,
        COUNTER,
        DESCRIBES,
        DIGITS,
        INTEGER,
        PAIRS,
        SEQUENCE,
        Feature,
    )
    from stream.columns.declared_catalogues import KEYS, DeclaredCatalogues, catalogued
    from stream.columns.declared_features import DeclaredFeatures
    from stream.columns.derived import (
        categories,
        list_values,
        normalised,
        or_default,
        pieces,
        pooled_weights,
        vectors,
    )
    from stream.columns.events import (
        FEATURE_PREFIX,
        WEIGHTS_SUFFIX,
        Clicks,
        FeatureColumn,
        Features,
        Impressions,
        click_schema,
        impression_schema,
    )
    from stream.columns.feature_names import check_aliases, check_names
    from stream.columns.growing_columns import EntryColumns, GrowingColumns
    from stream.columns.kept_options import TS_MS
    from stream.columns.picture_store import PictureStore
    from stream.columns.pictures import (
        COLOUR_MAX,
        DIGEST,
        GIVEN_BYTES_MAX,
        SIDE,
        SQUARED_BYTES,
        WORK_MAX,
        PictureFiles,
        pixels,
        squared,
        tensors,
        too_much_work,
    )
    from stream.columns.value_faults import (
        DIGITS_MAX,
        FIELD_CHARS_MAX,
        REASON_CHARS_MAX,
        STRING_BYTES_MAX,
        TS_MS_MAX,
        TS_MS_MIN,
        Fault,
        ManyDigits,
        fault,
        is_nan,
        shown,
        string_faults,
        time_faults,
    )
    from stream.columns.values import (
        NO_POSITION,
        floats,
        is_missing,
        list_lengths,
        positions,
        rounded,
        slice_values,
        strings,
        unequal_lengths,
    )
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "CATEGORICAL",
    "CHARACTERS",
    "COLOUR_MAX",
    "COMPONENT",
    "COUNTER",
    "DESCRIBES",
    "DIGEST",
    "DIGITS",
    "DIGITS_MAX",
    "FEATURE_PREFIX",
    "FIELD_CHARS_MAX",
    "FLOAT32",
    "GIVEN_BYTES_MAX",
    "HASHED",
    "IMAGE",
    "INT32",
    "INT64",
    "INTEGER",
    "KEYS",
    "LIST",
    "LIST_VALUES_MAX",
    "NO_POSITION",
    "NUMERIC",
    "PAIRS",
    "REASON_CHARS_MAX",
    "SEQUENCE",
    "SIDE",
    "SQUARED_BYTES",
    "STRING",
    "STRING_BYTES_MAX",
    "TEXT",
    "TEXT_BYTES_MAX",
    "TIME",
    "TS_MS",
    "TS_MS_MAX",
    "TS_MS_MIN",
    "VECTOR",
    "WEIGHTS",
    "WEIGHTS_SUFFIX",
    "WORK_MAX",
    "Clicks",
    "DeclaredCatalogues",
    "DeclaredFeatures",
    "EntryColumns",
    "Fault",
    "Feature",
    "FeatureColumn",
    "Features",
    "GrowingColumns",
    "Impressions",
    "MalformedStream",
    "ManyDigits",
    "PictureFiles",
    "PictureStore",
    "Placed",
    "StreamSize",
    "catalogued",
    "categories",
    "check_aliases",
    "check_names",
    "check_offsets",
    "click_schema",
    "fault",
    "floats",
    "impression_schema",
    "is_missing",
    "is_nan",
    "list_lengths",
    "list_values",
    "measure",
    "normalised",
    "or_default",
    "pieces",
    "pixels",
    "placed",
    "placed_hashes",
    "pointer",
    "pooled_weights",
    "positions",
    "rounded",
    "shown",
    "slice_values",
    "squared",
    "string_faults",
    "strings",
    "tensors",
    "time_faults",
    "too_much_work",
    "unequal_lengths",
    "vectors",
]
