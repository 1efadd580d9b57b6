"""A look for operators' overrides that takes long is followed by a longer rest."""

import logging

import pytest

from labeler.labels.operator_overrides import LOOK_REST, LOOK_REST_MAX_S, OverrideSearch
from stream import Partition, StreamConfig
from stream.internal_topics import PassedOver
from stream.log import MemoryLog, Unavailable


class SlowReader:
    """Each look at the ends takes so long, or fails."""

    def __init__(self, takes_s: float) -> None:
        self.now_s, self.takes_s, self.away = 0.0, takes_s, False

    def end_offsets(self, partitions: list[Partition]) -> dict[Partition, int]:
        self.now_s += self.takes_s
        if self.away:
            raise Unavailable("no broker")
        return dict.fromkeys(partitions, 0)


def search_of(slow: SlowReader) -> OverrideSearch:
    passed_over = PassedOver(logging.getLogger(__name__))
    return OverrideSearch(MemoryLog(int), StreamConfig(), 10, passed_over, lambda: slow.now_s)


@pytest.mark.parametrize(
    ("takes_s", "rest_s"),
    [(0.0, 0.0), (0.125, 0.125 * LOOK_REST), (60.0, LOOK_REST_MAX_S)],
)
def test_the_rest_follows_what_the_look_took_up_to_a_limit(takes_s: float, rest_s: float):
    slow = SlowReader(takes_s)
    search = search_of(slow)
    assert search.rested
    assert search.more(slow, [0, 1], ()) is None
    ended_s = slow.now_s
    for later_s in (0.0, rest_s / 2, rest_s, 2 * rest_s):
        slow.now_s = ended_s + later_s
        assert search.rested == (later_s >= rest_s)


def test_a_look_that_fails_is_followed_by_no_rest():
    slow = SlowReader(60.0)
    slow.away, search = True, search_of(slow)
    assert search.more(slow, [0], ()) is None
    assert search.rested
