"""Records of the project's own topics: how each is written, and how it is read back.

- `clock_override`: clock overrides
- `counts`: a record of `counts`
- `counts_folding`: the records of `counts`, folded into totals, as every reader folds them
- `examples`: A training batch as it stands in `examples`
- `malformed`: what a record of the project's own topics must be to say anything, whoever wrote it
- `passed_over`: records of internal topics that a reader passed over, since they say nothing
- `retracted`: what a record of `retract/p` says beside its rows
- `sequence_rows`: sequences as rows of a record of `counts`, or of a file
- `row_sizes`: how large rows are when they are written out
- `row_hash`: the hash by which shards and audit know that they saw the same rows (S7)
- `verdicts`: what travels on `verdicts`
- `watermarks`: watermarks of all inputs as one short text, for the header of a batch (C4)
- `whole_topic`: all partitions of one topic, read on and on, whatever becomes of it
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from stream.internal_topics.clock_override import (
        ClockOverride,
        clock_overrides,
        maximum_set_back,
        override_headers,
        override_key,
        overrides_of,
        set_back,
    )
    from stream.internal_topics.counts import (
        CountRecord,
        ReadPoint,
        decode_counts,
        encode_counts,
        totals_batch,
        totals_of,
    )
    from stream.internal_topics.counts_folding import CountParts, apply, apply_sequences
    from stream.internal_topics.examples import (
        FIXED_BYTES,
        NO_CLICK,
        BatchHeader,
        decode_examples,
        encode_examples,
        example_batch,
        examples_schema,
        rows_from,
        rows_of,
        schema_id,
        trim,
    )
    from stream.internal_topics.malformed import (
        INT64_MAX,
        INT64_MIN,
        Fields,
        HeaderFields,
        MalformedRecord,
        OnMalformed,
        json_object,
        read_rows,
        shown,
    )
    from stream.internal_topics.passed_over import PassedOver
    from stream.internal_topics.retracted import NAMED, Again, taken
    from stream.internal_topics.row_hash import row_hash_sum
    from stream.internal_topics.row_sizes import cuts, row_bytes, string_lengths
    from stream.internal_topics.sequence_rows import sequences_batch, sequences_of
    from stream.internal_topics.verdicts import (
        ALLOW,
        FORGET,
        OPERATOR,
        REJECT,
        RELEASE,
        WITHHOLD,
        Verdict,
        Watermark,
        breaker_input,
        decode_verdict,
        encode_verdict,
        input_name,
    )
    from stream.internal_topics.whole_topic import WholeTopic
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "ALLOW",
    "FIXED_BYTES",
    "FORGET",
    "INT64_MAX",
    "INT64_MIN",
    "NAMED",
    "NO_CLICK",
    "OPERATOR",
    "REJECT",
    "RELEASE",
    "WITHHOLD",
    "Again",
    "BatchHeader",
    "ClockOverride",
    "CountParts",
    "CountRecord",
    "Fields",
    "HeaderFields",
    "MalformedRecord",
    "OnMalformed",
    "PassedOver",
    "ReadPoint",
    "Verdict",
    "Watermark",
    "WholeTopic",
    "apply",
    "apply_sequences",
    "breaker_input",
    "clock_overrides",
    "cuts",
    "decode_counts",
    "decode_examples",
    "decode_verdict",
    "encode_counts",
    "encode_examples",
    "encode_verdict",
    "example_batch",
    "examples_schema",
    "input_name",
    "json_object",
    "maximum_set_back",
    "override_headers",
    "override_key",
    "overrides_of",
    "read_rows",
    "row_bytes",
    "row_hash_sum",
    "rows_from",
    "rows_of",
    "schema_id",
    "sequences_batch",
    "sequences_of",
    "set_back",
    "shown",
    "string_lengths",
    "taken",
    "totals_batch",
    "totals_of",
    "trim",
]
