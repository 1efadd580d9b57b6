"""The one fold of a chain (C2, E3b)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream import Chain, Fold


@pytest.mark.parametrize(
    ("start", "barrier", "kind"),
    [
        (100, 3, Fold.BARRIER),
        (90, 3, Fold.BARRIER),  # of a labeler whose ranges end earlier
        (0, 4, Fold.BARRIER),
        (90, 2, Fold.REPEAT),
        (100, 2, Fold.REPEAT),
        (90, None, Fold.REPEAT),  # a silence (J4b)
        (100, None, Fold.REPEAT),
        (101, 3, Fold.DANGLES),
    ],
)
def test_an_empty_range_is_a_barrier_if_its_number_is_above_the_last_one(start, barrier, kind):
    chain = Chain(100, 2)
    assert chain.fold(start, start, barrier) == (kind, 100)
    assert chain == Chain(100, barrier if kind is Fold.BARRIER else 2)


def test_a_range_with_positions_is_no_barrier():
    chain = Chain(100, 2)
    assert chain.fold(90, 95, 3) == (Fold.REPEAT, 100)
    assert chain == Chain(100, 2)


class Writer:
    """A labeler of one log of deadlines 0, 1, 2, ... that cuts every `size` positions, and writes
    barrier k before the first range whose last deadline is at or after `10 k`."""

    def __init__(self, size: int):
        self.size, self.at, self.barrier = size, 0, 0

    def write(self, lifted: int) -> tuple[int, int, int] | None:
        """The next record, where the log ends at the barrier behind the last one lifted."""
        end, next_at = self.at + self.size, 10 * (self.barrier + 1)
        if end > next_at:
            if self.barrier > lifted:
                return None
            self.barrier += 1
            return self.at, self.at, self.barrier
        start, self.at = self.at, end
        return start, end, 0

    def resume(self, chain: Chain) -> None:
        self.at, self.barrier = chain.end or 0, chain.barrier


@given(
    st.lists(st.integers(1, 10), min_size=2, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=120),
)
def test_no_mixture_of_writers_holds_a_barrier_back(sizes, turns):
    """Whoever writes how far, with whatever boundaries, and starts again when: no range passes the
    time of a barrier before that barrier counts, and one that any of them wrote has counted."""
    writers = [Writer(size) for size in sizes]
    chain, written = Chain(0), 0
    for who, what in turns:
        writer = writers[who % len(writers)]
        if what == 0:
            writer.resume(chain)
        record = writer.write(chain.barrier)
        if record is None:
            continue
        start, end, barrier = record
        assert chain.fold(start, end, barrier or None)[0] is not Fold.DANGLES
        written = max(written, barrier)
        assert chain.barrier == written
        assert chain.end is not None
        assert chain.end <= 10 * (chain.barrier + 1)
