"""Where a learner stands in a partition: each chain is folded on its own."""

from learners.pacing.events import Batch
from learners.pacing.position import Position
from paramserver.messages import ChainProgress, Progress
from paramserver.ports import ProgressReply
from paramserver.slots import SlotMap
from stream.chain import Fold


def test_chains_of_a_partition_are_folded_each_on_its_own_and_only_labels_are_scored():
    at = {chain: ChainProgress(10) for chain in ("label/0", "late/0", "retract/0")}
    told = {
        0: ProgressReply(1, 1, Progress(at, {0: 4}), {"label/0": 10, "late/0": 10, "retract/0": 0})
    }
    position = Position.sought(0, 1, told, SlotMap.even(1))
    label, late, back = (Batch(0, c, 10, 20, n, n + 1, 3) for n, c in enumerate(at, 4))
    assert [position.fold(batch) for batch in (label, late, back)] == [Fold.EXTENDS] * 3
    assert [position.scored(batch) for batch in position.queue] == [True, True, False]
    assert [batch.floor for batch in position.queue] == [0, 0, 10], (
        "a retraction may name what was never learned"
    )
    assert {batch.record_end for batch in position.queue} == {20}
    assert position.fold(late) is Fold.REPEAT
