"""From records to what a labeler works on: arrivals, columns, and what goes to quarantine (T1,
T3)."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from stream import ROW_BITS, Record, StreamConfig, offset_of
from stream.columns import Clicks, Impressions
from stream.decoding import (
    TIME_FINE,
    Arrived,
    BadRecord,
    MissingShares,
    arrival_clock,
    count_undeclared,
    decode_clicks,
    decode_impressions,
    event_time_reason,
    judge_event_times,
)
from stream.internal_topics import ClockOverride
from stream.kernels import I32, I64
from stream.log import RecordColumns

#: Why a record is in quarantine that an operator named (L7).
SET_ASIDE = "set aside by an operator"

#: A record of each poll is looked at for features that nobody declared, unless it is larger than
#: this.
SAMPLED_BYTES_MAX = 65_536

Rows = TypeVar("Rows", Impressions, Clicks)
Decode = Callable[[Sequence[Record], int, I64, StreamConfig], tuple[Rows, list[BadRecord]]]


class Unreadable(NamedTuple):
    """The record that makes the decoder raise (L7)."""

    offset: int
    reason: str


@dataclass(frozen=True)
class Read(Generic[Rows]):
    """Records whose arrival is known, in log order. A quarantined record is bad as a whole and
    counts as one row."""

    offset: I64
    arrival_ms: I64
    rows: I32  # events of any class per record; a bad record is one
    events: Rows
    bad: list[BadRecord]
    barriers: list[tuple[int, int]]  # (period, arrival) of barrier heartbeats (E3)
    unreadable: Unreadable | None = None  # everything before it was read, nothing from it on


class Intake(Generic[Rows]):
    """One reader's way into one partition of `impressions` or `clicks`."""

    def __init__(
        self,
        decode: Decode[Rows],
        partition: int,
        config: StreamConfig,
        maximum_ms: int,
        set_aside: Collection[int],
        overrides: Collection[ClockOverride] = (),
    ):
        """`maximum_ms`: the arrival maximum before the first record to come; 0 = none. `set_aside`:
        offsets that an operator has sent to quarantine unread (L7). `words`: what operators said of
        this partition's times (T3)."""
        self._decode: Decode[Rows] = decode
        self._partition, self._config = partition, config
        self.clock = arrival_clock(config, maximum_ms, overrides)
        self._set_aside = set_aside
        self.undeclared: Counter[str] = (
            Counter()
        )  # features that a sample of records holds, undeclared, by name
        self.missing = MissingShares(config.components)

    @property
    def held(self) -> int:
        """Records that wait for a jump of time to be confirmed or contradicted (T3)."""
        return self.clock.held

    def read(self, records: Sequence[Record]) -> Read[Rows]:
        """The next records of the partition. Behind an unreadable one this intake is of no more
        use."""
        arrived = self.clock.admit(records)
        if len(records) and len(records[0].value or b"") <= SAMPLED_BYTES_MAX:
            count_undeclared(self.undeclared, RecordColumns.of(records)[:1], self._config)
        try:
            read = self._columns(arrived)
        except MemoryError:  # no record's fault: the caller's to answer
            raise
        except Exception as error:
            return self._isolate(arrived, error)
        if isinstance(read.events, Impressions):
            self.missing.add(read.events)
        return read

    def _isolate(self, arrived: Arrived, together: Exception) -> Read[Rows]:
        """What stands before the first record that cannot be read by itself; nothing, if only
        together they fail."""
        for i, record in enumerate(arrived.records):
            try:
                self._columns(_part(arrived, i, i + 1))
            except MemoryError:
                raise
            except Exception as error:
                return replace(
                    self._columns(_part(arrived, 0, i)),
                    unreadable=Unreadable(record.offset, repr(error)),
                )
        first = arrived.records[0].offset
        return replace(
            self._columns(_part(arrived, 0, 0)), unreadable=Unreadable(first, repr(together))
        )

    def _columns(self, arrived: Arrived) -> Read[Rows]:
        records, arrival_ms, refused = arrived
        offset = records.offset
        given, given_arrival = records, arrival_ms
        aside = np.flatnonzero(np.isin(offset, list(self._set_aside))) if self._set_aside else ()
        if len(aside):
            readable = np.ones(len(records), np.bool_)
            readable[aside] = False
            given, given_arrival = records.take(readable), arrival_ms[readable]
        events, bad = self._decode(given, self._partition, given_arrival, self._config)
        bad += [
            BadRecord(one, "record", SET_ASIDE)
            for i in aside
            if not (one := records[int(i)]).is_heartbeat
        ]
        events, untimely = self._judge_times(events, offset, records)
        bad += untimely
        bad.sort(key=lambda b: b.record.offset)
        firsts = np.searchsorted(events.position, offset << ROW_BITS)
        rows = (np.append(firsts, len(events))[1:] - firsts).astype(np.int32)
        if bad:
            rows[np.searchsorted(offset, [b.record.offset for b in bad])] += 1
        beats = [i for i in np.flatnonzero(records.heartbeat).tolist() if i not in refused]
        barriers = [(period, int(arrival_ms[i])) for i in beats if (period := records[i].barrier)]
        return Read(offset, arrival_ms, rows, events, bad, barriers)

    def _judge_times(
        self, events: Rows, offset: I64, records: RecordColumns
    ) -> tuple[Rows, list[BadRecord]]:
        """T3: one event time that is not to be believed sends its whole record to quarantine."""
        if not len(events):
            return events, []
        stamp_ms = records.timestamp_ms[np.searchsorted(offset, events.position >> ROW_BITS)]
        limits = (self._config.skew_ms, self._config.age_max_ms)
        judged = judge_event_times(events.ts_ms, events.arrival_ms, *limits, stamp_ms)
        wrong = np.flatnonzero(judged != TIME_FINE)
        if not len(wrong):
            return events, []
        bad: dict[int, BadRecord] = {}
        for row in wrong:
            at = offset_of(int(events.position[row]))
            if at not in bad:
                reason = event_time_reason(
                    int(judged[row]), int(events.ts_ms[row]), int(events.arrival_ms[row])
                )
                bad[at] = BadRecord(records[int(np.searchsorted(offset, at))], "ts_ms", reason)
        return events.filter(~np.isin(events.position >> ROW_BITS, list(bad))), list(bad.values())


def _part(arrived: Arrived, start: int, end: int) -> Arrived:
    refused = {i - start: why for i, why in arrived.refused.items() if start <= i < end}
    return Arrived(arrived.records[start:end], arrived.arrival_ms[start:end], refused)


def impressions_intake(
    partition: int,
    config: StreamConfig,
    maximum_ms: int,
    set_aside: Collection[int] = (),
    overrides: Collection[ClockOverride] = (),
) -> Intake[Impressions]:
    """Of impressions: time begins at `maximum_ms`; offsets `set_aside` are not decoded."""
    return Intake(decode_impressions, partition, config, maximum_ms, set_aside, overrides)


def clicks_intake(
    partition: int,
    config: StreamConfig,
    maximum_ms: int,
    set_aside: Collection[int] = (),
    overrides: Collection[ClockOverride] = (),
) -> Intake[Clicks]:
    """Of clicks: time begins at `maximum_ms`; offsets `set_aside` are not decoded."""
    return Intake(decode_clicks, partition, config, maximum_ms, set_aside, overrides)
