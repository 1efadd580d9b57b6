"""What became of the bad records, and how late the labels of the good ones were, for
`bench.poison`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bench.attacks.poison_writer import Written, digest
from everspun.audit import read_all
from stream import Partition, Record, StreamConfig, label_chain, offset_of
from stream.log import Reader

#: Quarantine keeps so many bytes of a value; of a longer one, what makes it known again.
SHOWN_MAX = 5


@dataclass
class Quarantine:
    """The bad events against what stands in `quarantine`."""

    expected: int = 0  # records that are bad for certain
    found: int = 0  # of them, with their bytes and a reason
    missing: list[str] = field(default_factory=list)
    bytes_wrong: list[str] = field(default_factory=list)
    beside: int = (
        0  # quarantined, and neither bad for certain nor made as fuzzers make them: good ones
    )
    fuzz: int = 0  # of those that may be good, quarantined
    without_reason: int = 0

    @property
    def wrong(self) -> int:
        return len(self.missing) + len(self.bytes_wrong) + self.beside + self.without_reason


def check_quarantine(
    reader: Reader, stream: StreamConfig, written: Mapping[Partition, Mapping[int, Written]]
) -> Quarantine:
    """Every bad event stands in quarantine once and whole, and nothing else does."""
    result, seen = Quarantine(), set[tuple[Partition, int]]()
    for p in range(stream.partitions):
        at = Partition(stream.quarantine, p)
        planted = written.get(at, {})
        for record in read_all(reader, at):
            if record.offset not in planted:
                _judge(result, record, written, seen)
    for partition in _inputs(stream):
        for offset, one in written.get(partition, {}).items():
            if one.certain:
                result.expected += 1
                if (partition, offset) not in seen:
                    result.missing.append(
                        f"{one.kind} at {partition.topic}[{partition.partition}] {offset}"
                    )
    return result


def _inputs(stream: StreamConfig) -> list[Partition]:
    return [
        Partition(t, p)
        for t in (stream.impressions, stream.clicks)
        for p in range(stream.partitions)
    ]


def _judge(
    result: Quarantine,
    record: Record,
    written: Mapping[Partition, Mapping[int, Written]],
    seen: set[tuple[Partition, int]],
) -> None:
    topic, number, at = (record.key or b"").decode().split("/")
    partition, offset = Partition(topic, int(number)), offset_of(int(at))
    if (partition, offset) in seen:
        return  # C6: a repeat after a restart
    seen.add((partition, offset))
    one = written.get(partition, {}).get(offset)
    if one is None:
        result.beside += 1
        return
    result.without_reason += not record.header("reason")
    if not one.certain:
        result.fuzz += 1
        return
    result.found += 1
    whole = record.header("value_sha256") is None
    if whole and not one.alone and digest(record.value or b"") != one.digest:
        result.bytes_wrong.append(
            f"{one.kind} at {partition.topic}[{partition.partition}] {offset}"
        )


# --- how late the labels were
# -------------------------------------------------------------------------------------


def label_lags(
    reader: Reader,
    stream: StreamConfig,
    begin: Mapping[str, int],
    planted: Mapping[Partition, Mapping[int, Written]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of every labelled row: its arrival, and how long after its deadline it stood in
    `examples`, ms, both (n,)."""
    arrivals, lags = [], []
    for p in range(stream.partitions):
        at = Partition(stream.examples, p)
        end = begin[label_chain(p)]
        for record in read_all(reader, at):
            if record.offset in planted.get(at, {}) or (
                record.header("chain") or b""
            ).decode() != label_chain(p):
                continue
            start, stop = (int(record.header(name) or b"-1") for name in ("start", "end"))
            if not start <= end < stop:
                continue
            end = stop
            if record.value:
                arrived = (
                    pa.ipc.open_stream(record.value).read_all().column("arrival_ms").to_numpy()
                )
                arrivals.append(arrived)
                lags.append(record.timestamp_ms - (arrived + stream.wait_ms))
    nothing = np.zeros(0, np.int64)
    return np.concatenate([nothing, *arrivals]), np.concatenate([nothing, *lags])


def p99_s(
    lags_ms: npt.NDArray[np.int64], arrival_ms: npt.NDArray[np.int64], span: Sequence[int]
) -> float:
    """Seconds, of the arrivals within `[span[0], span[1])`; 0 without any."""
    within = lags_ms[(arrival_ms >= span[0]) & (arrival_ms < span[1])]
    return round(float(np.percentile(within, 99)) / 1_000, 3) if len(within) else 0.0
