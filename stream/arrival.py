"""When a record arrived (T1), and which stamps and event times are believed (T3).

One clock a reader and partition. Its state is one number, the largest believed stamp, so that a reader that goes on
elsewhere in the log needs that number and nothing else (C4).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.record import CLOCK_MS, Record

I64 = npt.NDArray[np.int64]

#: What `judge_event_times` says of a row.
TIME_FINE, TIME_AHEAD, TIME_BEHIND = 0, 1, 2


class Arrived(NamedTuple):
    """Records in log order with their arrivals (n,), ms. `refused[i]` says why record i's stamp is not believed:
    it is to be quarantined, moved nothing, and has the arrival of what stood before it."""

    records: list[Record]
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
        self._held: list[Record] = []

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
        self._held.clear()

    def admit(self, records: Iterable[Record]) -> Arrived:
        """The next records of the partition in; out, in order, those whose arrival is now known."""
        out: list[Record] = []
        arrivals: list[int] = []
        refused: dict[int, str] = {}
        for record in records:
            if not self._held and self._is_near(record.timestamp_ms):
                self._give(record, out, arrivals)
                continue
            self._held.append(record)
            clock_ms = _heartbeat_clock(record)
            if clock_ms is None:
                continue
            for waiting in self._held:
                stamp_ms = waiting.timestamp_ms
                if not self._is_near(stamp_ms) and stamp_ms > clock_ms + self._skew_ms:
                    refused[len(out)] = (
                        f"timestamp {stamp_ms} is {stamp_ms - clock_ms} ms ahead of the next heartbeat's clock "
                        f"{clock_ms}; set the clock of its producer (or of the replay)"
                    )
                    out.append(waiting)
                    arrivals.append(self._maximum_ms)
                else:
                    self._give(waiting, out, arrivals)
            self._held.clear()
        return Arrived(out, np.array(arrivals, np.int64), refused)

    def _is_near(self, stamp_ms: int) -> bool:
        return self._maximum_ms > 0 and stamp_ms <= self._maximum_ms + self._jump_max_ms

    def _give(self, record: Record, out: list[Record], arrivals: list[int]) -> None:
        self._maximum_ms = max(self._maximum_ms, record.timestamp_ms)
        out.append(record)
        arrivals.append(self._maximum_ms)


def _heartbeat_clock(record: Record) -> int | None:
    """The clock of a heartbeat's writer; None for any other record, and for a heartbeat without a readable one."""
    if not record.headers or not record.is_heartbeat:
        return None
    raw = record.header(CLOCK_MS)
    return int(raw) if raw is not None and raw.isdigit() else None


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
