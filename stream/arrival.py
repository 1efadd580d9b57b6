"""When a record arrived (T1), and which stamps and event times are believed (T3).

One clock a reader and partition. Its state is one number, the largest believed stamp, so that a reader that goes on
elsewhere in the log needs that number and nothing else (C4).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.kernel import kernel
from stream.record import CLOCK_MS, Record, decimal
from stream.record_columns import NO_RECORDS, RecordColumns

I64 = npt.NDArray[np.int64]

#: What `judge_event_times` says of a row.
TIME_FINE, TIME_AHEAD, TIME_BEHIND = 0, 1, 2


class Arrived(NamedTuple):
    """Records in log order with their arrivals (n,), ms. `refused[i]` says why record i's stamp is not believed:
    it is to be quarantined, moved nothing, and has the arrival of what stood before it."""

    records: RecordColumns
    arrival_ms: I64
    refused: dict[int, str]


class ArrivalClock:
    """Arrival = the running maximum of the believed stamps (T1).

    The first stamp, and one more than `jump_max_ms` above the maximum, waits for the partition's next heartbeat and
    is believed if at most `skew_ms` above that heartbeat's clock (T3). What stands behind it waits with it. A
    heartbeat judges itself. Deterministic: the answers depend on the records alone, not on how they were polled.
    """

    def __init__(self, jump_max_ms: int, skew_ms: int, maximum_ms: int = 0):
        """`maximum_ms` is that of a `snapshot` taken just before the first record to come; 0 = none was seen."""
        self._jump_max_ms, self._skew_ms = jump_max_ms, skew_ms
        self._maximum_ms = maximum_ms
        self._held = NO_RECORDS

    @property
    def maximum_ms(self) -> int:
        """The arrival of the last record given out; 0 before the first believed one."""
        return self._maximum_ms

    @property
    def held(self) -> int:
        """Records that wait for a heartbeat: at most what comes within one `heartbeat_ms`."""
        return len(self._held)

    def snapshot(self) -> int:
        """All there is to keep. What is held is read again from the log."""
        return self._maximum_ms

    def restore(self, maximum_ms: int) -> None:
        self._maximum_ms = maximum_ms
        self._held = NO_RECORDS

    def admit(self, records: Iterable[Record]) -> Arrived:
        """The next records of the partition in; out, in order, those whose arrival is now known."""
        coming, held = RecordColumns.of(records), len(self._held)
        if held:
            coming = RecordColumns.concat([self._held, coming])
        arrival_ms = np.empty(len(coming), np.int64)
        refused: dict[int, str] = {}
        at, judged_from = 0, held  # what was held has seen no heartbeat yet
        while at < len(coming):
            if judged_from <= at:
                at = self._run(coming, arrival_ms, at)
                judged_from = at
            judge = self._next_judge(coming, judged_from)
            if judge is None:
                break
            at = judged_from = self._judge(coming, arrival_ms, at, judge, refused)
        self._held = coming[at:]
        return Arrived(coming[:at], arrival_ms[:at], refused)

    def _run(self, records: RecordColumns, arrival_ms: I64, at: int) -> int:
        """Give out the records from `at` on whose stamps are believed as they stand; the index behind them."""
        at = _run(records.timestamp_ms, arrival_ms, at, self._maximum_ms, self._jump_max_ms)
        if at:
            self._maximum_ms = max(self._maximum_ms, int(arrival_ms[at - 1]))
        return at

    def _next_judge(self, records: RecordColumns, at: int) -> tuple[int, int] | None:
        """Index and clock of the first heartbeat from `at` on that says its clock."""
        for i in np.flatnonzero(records.heartbeat[at:]) + at:
            clock_ms = decimal(records[int(i)].header(CLOCK_MS))
            if clock_ms is not None:
                return int(i), clock_ms
        return None

    def _judge(
        self, records: RecordColumns, arrival_ms: I64, at: int, judge: tuple[int, int], refused: dict[int, str]
    ) -> int:
        """Give out the records from `at` up to the heartbeat that judges them, itself included."""
        last, clock_ms = judge
        for i, stamp_ms in enumerate(records.timestamp_ms[at : last + 1].tolist(), at):
            near = self._maximum_ms > 0 and stamp_ms <= self._maximum_ms + self._jump_max_ms
            if not near and stamp_ms > clock_ms + self._skew_ms:
                refused[i] = (
                    f"timestamp {stamp_ms} is {stamp_ms - clock_ms} ms ahead of the next heartbeat's clock "
                    f"{clock_ms}; set the clock of its producer (or of the replay)"
                )
            else:
                self._maximum_ms = max(self._maximum_ms, stamp_ms)
            arrival_ms[i] = self._maximum_ms
        return last + 1


@kernel
def _run(stamp_ms: I64, arrival_ms: I64, at: int, maximum_ms: int, jump_max_ms: int) -> int:
    """Running maxima from `at` on, up to the first stamp that is not to be believed as it stands; its index."""
    while at < len(stamp_ms) and maximum_ms > 0 and stamp_ms[at] <= maximum_ms + jump_max_ms:
        maximum_ms = max(maximum_ms, stamp_ms[at])
        arrival_ms[at] = maximum_ms
        at += 1
    return at


def judge_event_times(ts_ms: I64, arrival_ms: I64, skew_ms: int, age_max_ms: int) -> npt.NDArray[np.int8]:
    """TIME_FINE, TIME_AHEAD (of its arrival by more than `skew_ms`) or TIME_BEHIND (by more than `age_max_ms`) for
    every row (T3), int8 (n,)."""
    ahead_ms = ts_ms - arrival_ms
    verdict = np.where(ahead_ms > skew_ms, TIME_AHEAD, np.where(ahead_ms < -age_max_ms, TIME_BEHIND, TIME_FINE))
    return verdict.astype(np.int8)


def event_time_reason(verdict: int, ts_ms: int, arrival_ms: int) -> str:
    """What to tell the producer of a row that `judge_event_times` refused."""
    if verdict == TIME_AHEAD:
        return f"ts_ms {ts_ms} is {ts_ms - arrival_ms} ms ahead of its arrival {arrival_ms}; set the producer's clock"
    return f"ts_ms {ts_ms} is {arrival_ms - ts_ms} ms behind its arrival {arrival_ms}; too old to be labelled"
