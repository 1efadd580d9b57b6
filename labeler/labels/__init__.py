"""From impressions, clicks and verdicts of one partition to labelled batches (L1 to L7).

- `label_inputs`: whose watermarks a label waits for (L3)
- `batching`: where a batch ends
- `claimed_ends`: how far the logs of watermarks' inputs go, as far as it is known
- `clicks`: the joining reader's side of `clicks[p]`
- `emission`: what a labeler wants written
- `emitter`: what a labelled range becomes in the log
- `folding`: where the chain of each partition ends in the log
- `verdict_records`: records of `verdicts` as they were read
- `impressions`: impressions that were read and not yet labelled, and the ids of those before them
  (L2, L5)
- `lost_range`: ranges of input that are gone, on an operator's override, and where one stopped
- `partition`: the labeler of one partition
- `range_labels`: which impressions of a range become rows, by one strategy
- `remade_topics`: topics that were deleted and made anew while a labeler was not looking (C7)
- `runner`: the partitions that one process labels
- `verdict_queue`: records of `verdicts` between the log and the index of verdicts, in log order
- `verdict_index`: what stands in `verdicts`, read in order
- `operator_overrides`: what operators said of partitions, as it stands in `quarantine` (L7, C7, T3)
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from labeler.labels.claimed_ends import ClaimedEnds
    from labeler.labels.clicks import ClickBuffer, Passed
    from labeler.labels.emission import Emission, rejected_ids
    from labeler.labels.emitter import ExamplesEmitter, Reading
    from labeler.labels.label_inputs import awaited_inputs
    from labeler.labels.lost_range import (
        LostRange,
        PartitionStop,
        lost_command,
        lost_headers,
        lost_key,
        lost_ranges,
    )
    from labeler.labels.operator_overrides import OverrideSearch
    from labeler.labels.partition import PartitionLabeler
    from labeler.labels.runner import Labelling
    from labeler.labels.verdict_index import NO_WATERMARK, VerdictIndex, VerdictPoint
    from labeler.labels.verdict_records import (
        VerdictRecord,
        claims,
        read_verdicts,
        without_contradictions,
    )
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "NO_WATERMARK",
    "ClaimedEnds",
    "ClickBuffer",
    "Emission",
    "ExamplesEmitter",
    "Labelling",
    "LostRange",
    "OverrideSearch",
    "PartitionLabeler",
    "PartitionStop",
    "Passed",
    "Reading",
    "VerdictIndex",
    "VerdictPoint",
    "VerdictRecord",
    "awaited_inputs",
    "claims",
    "lost_command",
    "lost_headers",
    "lost_key",
    "lost_ranges",
    "read_verdicts",
    "rejected_ids",
    "without_contradictions",
]
