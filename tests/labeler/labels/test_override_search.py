"""A look for operators' overrides that takes long is followed by a longer rest."""

import logging

from labeler.labels.operator_overrides import LOOK_REST, LOOK_REST_MAX_MS, OverrideSearch
from stream import Partition, StreamConfig
from stream.internal_topics import PassedOver
from stream.log import MemoryLog


class SlowReader:
    """Each look at the ends takes so long."""

    def __init__(self, takes_s: float) -> None:
        self.now_s, self.takes_s = 0.0, takes_s

    def end_offsets(self, partitions: list[Partition]) -> dict[Partition, int]:
        self.now_s += self.takes_s
        return dict.fromkeys(partitions, 0)


def test_the_rest_follows_what_the_look_took_up_to_a_limit():
    for takes_s, rest_ms in ((0.0, 0), (0.125, 125 * LOOK_REST), (60.0, LOOK_REST_MAX_MS)):
        slow = SlowReader(takes_s)
        search = OverrideSearch(
            MemoryLog(int),
            StreamConfig(),
            10,
            PassedOver(logging.getLogger(__name__)),
            lambda slow=slow: slow.now_s,
        )
        assert search.more(slow, [0, 1], ()) is None
        assert search.rest_ms == rest_ms
