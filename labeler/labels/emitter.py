"""What a labelled range becomes in the log: a training batch, or in the early join counts of it.

Both are labelled by the same core, along chains with the same resume points (C1-C4).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from labeler.join import LabelStrategy
from stream import StreamConfig
from stream.columns import Impressions
from stream.internal_topics import BatchHeader, encode_examples, example_batch
from stream.log.rows import RowStorage


class Emitter(Protocol):
    """What `labeler.labels.partition.PartitionLabeler` writes, and where."""

    @property
    def topic(self) -> str:
        """Where ranges are written, with the prefix."""

    @property
    def begins_at_zero(self) -> bool:
        """Whether the first chain begins at the first record that ever was, so that nothing is
        missed before it (C7)."""

    @property
    def writes_side_records(self) -> bool:
        """Whether what is rejected or quarantined is written before the range that counts it (C6);
        of two that label the same impressions, one does."""

    def value(
        self,
        rows: Impressions,
        label: npt.NDArray[np.int8],
        delay_ms: npt.NDArray[np.int64],
        late: npt.NDArray[np.bool_] | None,
    ) -> bytes:
        """What a range says of its n >= 1 rows. `label`, `delay_ms` (0 without a click) and `late`
        (a late reading's clicks, None in the first one) are (n,)."""

    def barrier(self, header: BatchHeader, arrival_ms: int) -> BatchHeader:
        """The header of the empty range of a barrier at this time (E3)."""


@dataclass(frozen=True)
class Reading:
    """One reading of a partition: which labels it gives, what a range of them becomes, and where
    the local copy of waiting clicks lies (C4); without, they wait in memory."""

    strategy: LabelStrategy
    emitter: Emitter
    pages: RowStorage | None = None


class ExamplesEmitter:
    """Training batches in `examples`."""

    begins_at_zero = True
    writes_side_records = True

    def __init__(self, stream: StreamConfig) -> None:
        self.topic = stream.examples
        self._stream = stream

    def value(
        self,
        rows: Impressions,
        label: npt.NDArray[np.int8],
        delay_ms: npt.NDArray[np.int64],
        late: npt.NDArray[np.bool_] | None,
    ) -> bytes:
        return encode_examples(example_batch(rows, label, delay_ms, self._weights(label, late)))

    def barrier(self, header: BatchHeader, arrival_ms: int) -> BatchHeader:
        return header

    def _weights(
        self, label: npt.NDArray[np.int8], late: npt.NDArray[np.bool_] | None
    ) -> npt.NDArray[np.float32]:
        """A negative stands for all those of its kind that were left out, unless answers are
        corrected instead; a late click that is only counted weighs nothing."""
        weight = np.ones(len(label), np.float32)
        if late is not None and self._stream.late_clicks == "count":
            weight[late] = 0.0
        if self._stream.negative_correction == "weights":
            weight[label == 0] = 1.0 / self._stream.negative_rate
        return weight
