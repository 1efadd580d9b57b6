"""Whether a record of `examples` has the columns that a model reads, and as it reads them.

A record from before a feature was declared lacks its column: the encoder fills that with the
feature's missing value. One whose column has another type says something else by the same name, and
is set aside: nobody can tell what it meant.
"""

import pyarrow as pa

from stream.columns import Features
from stream.internal_topics import examples_schema

_FIXED = examples_schema(())


def wrong_column(schema: pa.Schema, features: Features) -> str:
    """What is wrong with the columns of a record, naming the first column and both types; "" =
    nothing."""
    for field in _FIXED:
        at = schema.get_field_index(field.name)
        if at < 0:
            return f"column {field.name} is missing"
        if schema.field(at).type != field.type:
            return f"column {field.name} is {schema.field(at).type}, expected {field.type}"
    for feature in features:
        at = schema.get_field_index(feature.column)
        if at < 0 and feature.alias:
            at = schema.get_field_index(feature.alias_column)
        if at >= 0 and schema.field(at).type != feature.type:
            return (
                f"feature {feature.name} is {schema.field(at).type} in this record, and declared "
                f"{feature.kind} now: "
                "a feature that changes its kind needs a new name"
            )
    return ""
