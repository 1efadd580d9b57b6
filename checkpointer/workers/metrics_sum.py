"""The metrics of all processes of a replica as those of one: what is counted adds up, and what a
gauge says is the follower's, the workers' sum, or the worst of them.

What a worker had counted when it ended goes on counting (`EndedTotals`), so counters do not fall.
What was taken over from it names its process, so it does not count twice meanwhile.
"""

import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, Labels]

#: The supervisor's own.
SUPERVISED = "everspun_replica_workers"
#: Gauges that workers have of their own; all others are the follower's.
GAUGES: Mapping[str, Callable[[Iterable[float]], float]] = {
    "everspun_replica_connections": sum,
    "everspun_replica_requests_waiting": sum,
    "everspun_served_version": min,
    "everspun_served_barrier": min,
    "everspun_data_time_ms": min,
    "everspun_replica_ready": min,
    "everspun_replica_failing_s": max,
    "everspun_served_model_age_s": max,
    "everspun_served_data_age_s": max,
}


class Series(NamedTuple):
    """One metric of one process. `samples`: (name, labels) -> value."""

    name: str
    help: str
    type: str
    samples: dict[Key, float]


class ProcessMetrics(NamedTuple):
    """What one process says. `taken`: processes that have ended, whose counters are in it."""

    pid: int
    series: tuple[Series, ...]
    taken: tuple[int, ...] = ()

    def encode(self) -> bytes:
        return zlib.compress(pickle.dumps(tuple(self), pickle.HIGHEST_PROTOCOL), 1)


def decode_metrics(data: bytes) -> ProcessMetrics | None:
    """Only of a process of one's own; None of nothing."""
    return ProcessMetrics(*pickle.loads(zlib.decompress(data))) if data else None


@dataclass
class EndedTotals:
    """What processes that have ended had counted."""

    counted: dict[str, Series] = field(default_factory=dict)
    taken: tuple[int, ...] = ()

    def take(self, ended: ProcessMetrics, known_max: int = 256) -> None:
        """Once of each process. The last `known_max` are named: more than may be on the board."""
        for series in ended.series:
            if series.type != "gauge":
                there = self.counted.setdefault(series.name, series._replace(samples={}))
                _add(there.samples, series.samples)
        self.taken = (*self.taken, ended.pid)[-known_max:]

    def with_them(self, supervisor: ProcessMetrics) -> ProcessMetrics:
        """What the supervisor says, their counters included."""
        ended = tuple(self.counted.values())
        return supervisor._replace(series=(*supervisor.series, *ended), taken=self.taken)


def summed(
    follower: ProcessMetrics | None,
    workers: Sequence[ProcessMetrics],
    supervisor: ProcessMetrics | None,
) -> Iterator[Series]:
    """Of the whole replica. `supervisor`: its gauges and counters, and those of who has ended."""
    taken = () if supervisor is None else supervisor.taken
    workers = [one for one in workers if one.pid not in taken]
    if follower is not None and follower.pid in taken:
        follower = None
    everybody = [one for one in (follower, supervisor, *workers) if one is not None]
    found: dict[str, Series] = {}
    for one in everybody:
        for series in one.series:
            if series.type != "gauge":
                there = found.setdefault(series.name, series._replace(samples={}))
                _add(there.samples, series.samples)
            elif series.name not in found or (series.name == SUPERVISED and one is supervisor):
                found[series.name] = series
    for name, join in GAUGES.items():
        said = [series for one in workers for series in one.series if series.name == name]
        if said:
            keys = {key for series in said for key in series.samples}
            joined = {key: join([s.samples[key] for s in said if key in s.samples]) for key in keys}
            found[name] = said[0]._replace(samples=joined)
    yield from found.values()


def _add(sums: dict[Key, float], more: Mapping[Key, float]) -> None:
    for key, value in more.items():
        sums[key] = sums.get(key, 0.0) + value
