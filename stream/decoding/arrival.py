"""When a record arrived (T1), and which stamps and event times are believed (T3).

One clock a reader and partition. Its state is one number, the largest believed stamp, so that a
reader that goes on elsewhere in the log needs that number and nothing else (C4).
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.config import StreamConfig
from stream.internal_topics import ClockOverride, set_back
from stream.kernels import I64, kernel
from stream.log import NO_RECORDS, RecordColumns
from stream.record import CLOCK_MS, Record, decimal

#: What `judge_event_times` says of a row.
TIME_FINE, TIME_AHEAD, TIME_BEHIND = 0, 1, 2


class Arrived(NamedTuple):
    """Records in log order with their arrivals (n,), ms. `refused[i]` says why record i's timestamp
    is not believed: it moved nothing, and the record has the arrival of what stood before it."""

    records: RecordColumns
    arrival_ms: I64
    refused: dict[int, str]


#: Records behind a jump that wait for its confirmation; one with more behind it, and none against
#: it, is believed.
HELD_MAX = 65_536


class ArrivalClock:
    """Arrival = the running maximum of the times that are believed (T1).

    A heartbeat has two times, by two clocks: its timestamp, and the one that its writer read. A
    time at most `jump_max_ms` above the maximum is believed as it stands. A timestamp further above
    is a *jump*: what stands behind it waits with it until heartbeats contradict or confirm it (T3).
    Where timestamps are off, by a jump or by standing back, the writer's clock carries the time on.
    Deterministic: the answers depend on the records alone, not on how they were polled.
    """

    def __init__(
        self,
        jump_max_ms: int,
        skew_ms: int,
        maximum_ms: int = 0,
        *,
        confirm_ms: int = 60_000,
        overrides: Collection[ClockOverride] = (),
    ):
        """`maximum_ms` is that of a `snapshot` taken just before the first record to come; 0 = none
        was seen. `confirm_ms` below 0: a heartbeat confirms itself too, and what lies no further
        above it (a replayed topic, whose heartbeats carry history's own time). `words`: what
        operators said of this partition's times (`overrides_of`)."""
        self._limits = (jump_max_ms, skew_ms, confirm_ms)
        self._maximum_ms = maximum_ms
        self._held: list[RecordColumns] = []
        self._overrides = overrides
        self._apart_ms = self._ahead_ms = 0  # by the newest heartbeat seen, held ones too
        self._fell_ms = 0  # the most that arrivals have led heartbeats by since they stand

    @property
    def apart_ms(self) -> int:
        """By how much the newest heartbeat's timestamp leads its writer's clock: the broker's clock
        and the labeler's, where topics keep LogAppendTime. 0 before the first."""
        return self._apart_ms

    @property
    def ahead_ms(self) -> int:
        """By how much the arrival of the newest heartbeat leads both its times: nothing is labelled
        for so long. 0 where it does not."""
        return self._ahead_ms

    @property
    def fell_ms(self) -> int:
        """By how much all clocks fell when what had been ahead was put right; 0 while time does
        not stand."""
        return self._fell_ms

    @property
    def maximum_ms(self) -> int:
        """The arrival of the last record given out; 0 before the first believed one."""
        return self._maximum_ms

    @property
    def held(self) -> int:
        """Records that wait for a jump to be confirmed or contradicted: HELD_MAX and one poll at
        most."""
        return sum(map(len, self._held))

    def snapshot(self) -> int:
        """All there is to keep. What is held is read again from the log."""
        return self._maximum_ms

    def restore(self, maximum_ms: int) -> None:
        self._maximum_ms = maximum_ms
        self._held = []

    def admit(self, records: Iterable[Record]) -> Arrived:
        """The next records of the partition in; out, in order, those whose arrival is now known."""
        coming = self._set_back(RecordColumns.of(records))
        clock_ms = self._clocks(coming)
        if self._held:
            jump_ms = self._held[0].timestamp_ms[0]
            self._held.append(coming)
            index, _ = _decide(
                coming.timestamp_ms, clock_ms, 0, jump_ms, self._maximum_ms, *self._limits
            )
            if index < 0 and self.held <= HELD_MAX:
                self._look(coming, clock_ms, np.full(len(coming), self._maximum_ms))
                return Arrived(NO_RECORDS, np.empty(0, np.int64), {})
            coming = RecordColumns.concat(self._held)
            clock_ms = self._clocks(coming)
        arrival_ms, against_ms = np.empty(len(coming), np.int64), np.zeros(len(coming), np.int64)
        stamp_ms = coming.timestamp_ms
        at, self._maximum_ms = _run(
            stamp_ms, clock_ms, arrival_ms, against_ms, self._maximum_ms, *self._limits
        )
        self._held = [coming[at:]] if at < len(coming) else []
        arrival_ms[at:] = self._maximum_ms
        self._look(coming, clock_ms, arrival_ms)
        refused = {
            i: _jump_reason(int(stamp_ms[i]), int(against_ms[i]))
            for i in np.flatnonzero(against_ms[:at]).tolist()
        }
        return Arrived(coming[:at], arrival_ms[:at], refused)

    def _set_back(self, records: RecordColumns) -> RecordColumns:
        """The records with timestamps as operators' words say."""
        return (
            records.stamped(set_back(self._overrides, records.offset, records.timestamp_ms))
            if self._overrides
            else records
        )

    def _clocks(self, records: RecordColumns) -> I64:
        """What each heartbeat's writer read, as words say, ms, int64 (n,); 0 for every other
        record."""
        return set_back(self._overrides, records.offset, _clocks(records))

    def _look(self, records: RecordColumns, clock_ms: I64, arrival_ms: I64) -> None:
        """Take from the newest heartbeat how far clocks are apart, and from all how far they
        fell."""
        beats = np.flatnonzero(clock_ms)
        if not len(beats):
            return
        stamp_ms, writer_ms = records.timestamp_ms[beats], clock_ms[beats]
        ahead_ms = arrival_ms[beats] - np.maximum(stamp_ms, writer_ms)
        self._apart_ms = int(stamp_ms[-1]) - int(writer_ms[-1])
        self._ahead_ms = max(0, int(ahead_ms[-1]))
        follows = np.flatnonzero(ahead_ms <= self._limits[1])  # here time does not stand
        standing = ahead_ms[int(follows[-1]) + 1 :] if len(follows) else ahead_ms
        before_ms = 0 if len(follows) else self._fell_ms
        self._fell_ms = max(before_ms, int(standing.max())) if len(standing) else 0


def arrival_clock(
    config: StreamConfig, maximum_ms: int = 0, overrides: Collection[ClockOverride] = ()
) -> ArrivalClock:
    """The clock of one reader, as this deployment is configured."""
    confirm_ms = -config.skew_ms if config.replayed else config.jump_confirm_ms
    return ArrivalClock(
        config.jump_max_ms, config.skew_ms, maximum_ms, confirm_ms=confirm_ms, overrides=overrides
    )


def _clocks(records: RecordColumns) -> I64:
    """What each heartbeat's writer read, ms, int64 (n,); 0 for every other record, and for one
    that does not say."""
    clock_ms = np.zeros(len(records), np.int64)
    for i in np.flatnonzero(records.heartbeat).tolist():
        clock_ms[i] = decimal(records[i].header(CLOCK_MS)) or 0
    return clock_ms


def _jump_reason(stamp_ms: int, against_ms: int) -> str:
    return (
        f"timestamp {stamp_ms} is {abs(stamp_ms - against_ms)} ms "
        f"{'ahead of' if stamp_ms > against_ms else 'behind'} "
        "what heartbeats say; set the clock that stamps this topic: the broker's, or the "
        "producer's where the topic "
        "keeps CreateTime"
    )


@kernel
def _run(
    stamp_ms: I64,
    clock_ms: I64,
    arrival_ms: I64,
    against_ms: I64,
    maximum_ms: int,
    jump_max_ms: int,
    skew_ms: int,
    confirm_ms: int,
) -> tuple[int, int]:
    """Arrivals, up to the first record that must wait; its index, and the maximum before it.

    `against_ms` becomes, for a timestamp that is not believed, the time that speaks against it.
    """
    for at in range(len(stamp_ms)):
        time_ms, writer_ms = stamp_ms[at], clock_ms[at]
        jumps = maximum_ms == 0 or time_ms > maximum_ms + jump_max_ms
        back = time_ms < maximum_ms - skew_ms
        if maximum_ms > 0 and maximum_ms - skew_ms <= writer_ms <= maximum_ms + jump_max_ms:
            if jumps or back:  # the writer's clock goes on where time stood
                time_ms = writer_ms
            elif (
                maximum_ms + skew_ms // 2 < writer_ms <= maximum_ms + skew_ms
            ):  # timestamps fall behind, bit by bit
                time_ms = max(time_ms, writer_ms - skew_ms // 2)
        elif jumps:
            start = at if maximum_ms == 0 or confirm_ms < 0 else at + 1
            decider, against = _decide(
                stamp_ms, clock_ms, start, time_ms, maximum_ms, jump_max_ms, skew_ms, confirm_ms
            )
            if decider < 0 and len(stamp_ms) - at <= HELD_MAX:
                return at, maximum_ms
            if decider >= 0 and against > 0:
                against_ms[at] = against
                time_ms = maximum_ms if maximum_ms > 0 else against
        maximum_ms = max(maximum_ms, time_ms)
        arrival_ms[at] = maximum_ms
    return len(stamp_ms), maximum_ms


@kernel
def _decide(
    stamp_ms: I64,
    clock_ms: I64,
    start: int,
    jump_ms: int,
    maximum_ms: int,
    jump_max_ms: int,
    skew_ms: int,
    confirm_ms: int,
) -> tuple[int, int]:
    """(index, time against it) of the first heartbeat from `start` on that decides about a jump;
    the time is 0 where it is confirmed, the index -1 where none decides."""
    low_ms, high_ms = maximum_ms - skew_ms, maximum_ms + jump_max_ms
    ahead_ms, first_ms = (
        0,
        0,
    )  # writers' clocks ahead of their timestamps, and behind them, when the partition began
    for k in range(start, min(len(stamp_ms), start + HELD_MAX)):
        writer_ms = clock_ms[k]
        if writer_ms == 0:
            continue
        latest_ms = max(stamp_ms[k], writer_ms)
        if maximum_ms > 0:
            if low_ms <= stamp_ms[k] <= high_ms:
                return k, stamp_ms[k]
            if low_ms <= writer_ms <= high_ms:
                return k, writer_ms
        if maximum_ms == 0 and abs(stamp_ms[k] - writer_ms) > jump_max_ms:
            # One of the two is wrong, and nothing before says which: a later one tells.
            if ahead_ms == 0:
                ahead_ms = writer_ms if writer_ms > stamp_ms[k] else 0
            if first_ms == 0:
                first_ms = writer_ms if writer_ms < stamp_ms[k] else 0
            continue
        if jump_ms > latest_ms + skew_ms:
            return k, first_ms if 0 < first_ms <= latest_ms else latest_ms
        if 0 < ahead_ms <= latest_ms + skew_ms:
            return k, ahead_ms  # timestamps stood back when the partition began
        agreed = writer_ms >= jump_ms - jump_max_ms or writer_ms < low_ms
        if maximum_ms == 0 or (agreed and stamp_ms[k] >= jump_ms + confirm_ms):
            return k, 0
    return -1, 0


def judge_event_times(
    ts_ms: I64, arrival_ms: I64, skew_ms: int, age_max_ms: int, stamp_ms: I64 | None = None
) -> npt.NDArray[np.int8]:
    """TIME_FINE, TIME_AHEAD (of its arrival by more than `skew_ms`) or TIME_BEHIND (by more than
    `age_max_ms`) for every row (T3), int8 (n,).

    `stamp_ms` (n,): the timestamps of the rows' records. One that stands back behind its arrival by
    more than `skew_ms`, or ahead of it since it was not believed, says that the log's own clock is
    or was wrong: then nobody is refused who is right by the timestamp that stands back, and nobody
    who is ahead by less than `age_max_ms`.
    """
    ahead_ms = ts_ms - arrival_ms
    allowed_ms, behind_ms = np.full(len(ts_ms), skew_ms, np.int64), -ahead_ms
    if stamp_ms is not None:
        wrong = (stamp_ms < arrival_ms - skew_ms) | (stamp_ms > arrival_ms)
        allowed_ms[wrong] = max(skew_ms, age_max_ms)
        behind_ms = np.minimum(arrival_ms, stamp_ms) - ts_ms
    verdict = np.where(
        ahead_ms > allowed_ms, TIME_AHEAD, np.where(behind_ms > age_max_ms, TIME_BEHIND, TIME_FINE)
    )
    return verdict.astype(np.int8)


def event_time_reason(verdict: int, ts_ms: int, arrival_ms: int) -> str:
    """What to tell the producer of a row that `judge_event_times` refused."""
    if verdict == TIME_AHEAD:
        return (
            f"ts_ms {ts_ms} is {ts_ms - arrival_ms} ms ahead of its arrival {arrival_ms}; set "
            f"the producer's clock"
        )
    return (
        f"ts_ms {ts_ms} is {arrival_ms - ts_ms} ms behind its arrival {arrival_ms}; too old to "
        f"be labelled"
    )
