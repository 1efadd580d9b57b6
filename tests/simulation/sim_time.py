"""T1 and T3 a second time, in plain Python: what the oracles of the simulator and of the labeler's
own tests take time to be. Shares no code with the system."""

from stream import Record, StreamConfig


def step_of_time(
    records: list[Record], i: int, top: int, c: StreamConfig
) -> tuple[int, bool] | None:
    """T1, T3, one record at a time: (the time that record i moves its partition to, whether its own
    timestamp is believed); None if that is not known yet."""
    stamp, clock = record_times(records[i])
    low, high = top - c.skew_ms, top + c.jump_max_ms
    if top and low <= clock <= high:
        if stamp > high or stamp < low:
            return max(top, clock), True
        if top + c.skew_ms // 2 < clock <= top + c.skew_ms:
            return max(top, stamp, clock - c.skew_ms // 2), True
    if top and stamp <= high:
        return max(top, stamp), True
    ahead = first = 0
    confirm_ms = -c.skew_ms if c.replayed else c.jump_confirm_ms
    for k in range(i if top == 0 or c.replayed else i + 1, len(records)):
        beat_stamp, beat_clock = record_times(records[k])
        if not beat_clock:
            continue
        if top and (low <= beat_stamp <= high or low <= beat_clock <= high):
            return top, False
        if top == 0 and abs(beat_stamp - beat_clock) > c.jump_max_ms:
            if not ahead and beat_clock > beat_stamp:
                ahead = beat_clock
            if not first and beat_clock < beat_stamp:
                first = beat_clock
            continue
        if stamp > max(beat_stamp, beat_clock) + c.skew_ms:
            latest = max(beat_stamp, beat_clock)
            return top or (first if 0 < first <= latest else latest), False
        if 0 < ahead <= max(beat_stamp, beat_clock) + c.skew_ms:
            return ahead, False
        near = beat_clock >= stamp - c.jump_max_ms or beat_clock < low
        if top == 0 or (near and beat_stamp >= stamp + confirm_ms):
            return max(top, stamp), True
    return None


def record_times(record: Record) -> tuple[int, int]:
    """The timestamp, and what a heartbeat's writer read (0: it is none, or does not say)."""
    raw = record.header("clock_ms") if record.is_heartbeat else None
    return record.timestamp_ms, int(raw) if raw and raw.isdigit() else 0


def timely(ts_ms: int, arrival_ms: int, stamp_ms: int, c: StreamConfig) -> bool:
    right = arrival_ms - c.skew_ms <= stamp_ms <= arrival_ms
    ahead = c.skew_ms if right else max(c.skew_ms, c.age_max_ms)
    return min(arrival_ms, stamp_ms) - c.age_max_ms <= ts_ms <= arrival_ms + ahead
