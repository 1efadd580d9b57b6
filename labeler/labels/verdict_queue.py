"""Records of `verdicts` between the log and the index of verdicts, in log order: what claims more
than its input's log is known to hold waits, and what stands behind it with it, until it is known
for certain (F3)."""

from collections import deque
from collections.abc import Callable, Iterable

from labeler.io import LookRest
from labeler.labels.claimed_ends import ClaimedEnds, Ends
from labeler.labels.verdict_records import (
    VerdictRecord,
    claims,
    read_verdicts,
    without_contradictions,
)
from stream import Record, StreamConfig

#: A claim beyond the end of its input's log is looked at again after this: the end of a log may be
#: known late.
DOUBT_MS = 1_000
#: After a look at the ends, the next is so many times later than that one took, and this much at
#: most: where a broker is slow, labels do not wait for looks alone.
LOOK_REST, LOOK_REST_MAX_S = 3.0, 0.5
#: So much may wait; above it `verdicts` is not read on.
WAITING_MAX, WAITING_BYTES_MAX = 16_384, 8 << 20


class VerdictQueue:
    """Each claim has a second of its own, so that however many false ones come, nothing waits
    longer for them."""

    def __init__(self, stream: StreamConfig, elapsed_s: Callable[[], float] = lambda: 0.0):
        """`elapsed_s`: tells what a look costs, in seconds since any moment; without, it costs
        nothing."""
        self._claimed, self._ahead_ms = ClaimedEnds(stream), stream.watermark_ahead_ms
        # each with when it was read, and how many looks there were before
        self._waiting: deque[tuple[VerdictRecord, int, int]] = deque()
        self._bytes = self._looked_ms = self._looks = 0
        self._rest = LookRest(LOOK_REST, LOOK_REST_MAX_S, elapsed_s)
        self._looked = True  # since the last was put

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        return len(self._waiting) >= WAITING_MAX or self._bytes >= WAITING_BYTES_MAX

    def forget(self) -> None:
        """What waits is read again."""
        self._waiting.clear()
        self._bytes = 0

    def put(self, records: Iterable[Record], now_ms: int) -> None:
        """The next records of `verdicts`, read now."""
        for one in read_verdicts(records):
            self._waiting.append((one, now_ms, self._looks))
            self._bytes += len(one.record.value or b"")
            self._looked = False

    def take(self, log: Ends, now_ms: int) -> list[VerdictRecord]:
        """The next ones, up to the first that is in doubt; with those set aside that contradict the
        log. Raises Unavailable."""
        if self._wants_look(now_ms) and self._rest.over:
            with self._rest.look():
                self._claimed.look(log)
            self._looked, self._looked_ms, self._looks = True, now_ms, self._looks + 1
        taken: list[VerdictRecord] = []
        while self._waiting and not self._in_doubt(*self._waiting[0]):
            one, _, _ = self._waiting.popleft()
            self._bytes -= len(one.record.value or b"")
            taken.append(one)
        return without_contradictions(taken, self._claimed.ends, self._ahead_ms)

    def _wants_look(self, now_ms: int) -> bool:
        """Whether a claim was read since the last look, or has waited for its second one."""
        if not self._claimed.exceeded_by(claims(one for one, _, _ in self._waiting)):
            return False
        _, read_ms, _ = self._waiting[0]
        return (
            not self._looked or self._looked_ms < read_ms + DOUBT_MS <= now_ms or now_ms < read_ms
        )

    def _in_doubt(self, one: VerdictRecord, read_ms: int, looks: int) -> bool:
        """A clock that was set back ends all doubt: it must not prolong it."""
        known = self._looks > looks and not 0 <= self._looked_ms - read_ms < DOUBT_MS
        return not known and self._claimed.exceeded_by(claims([one]))
