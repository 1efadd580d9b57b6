"""The metrics of a process, and of all processes of a board, as a registry of prometheus_client
holds them (shell)."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric

from checkpointer.workers.board import Board, BoardRow
from checkpointer.workers.metrics_sum import ProcessMetrics, Series, decode_metrics, summed

#: When a series began is no quantity.
_PASSED_OVER = "_created"


def metrics_of(registry: CollectorRegistry, pid: int) -> ProcessMetrics:
    """What a registry holds now."""
    series = []
    for metric in registry.collect():
        samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
            for sample in metric.samples
            if not sample.name.endswith(_PASSED_OVER)
        }
        series.append(Series(metric.name, metric.documentation, metric.type, samples))
    return ProcessMetrics(pid, tuple(series))


class ReplicaCollector:
    """For a registry of prometheus_client: the series of all processes of a board."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        def said(process: BoardRow) -> ProcessMetrics | None:
            return decode_metrics(self._board.read_metrics(process))

        workers = [one for one in map(said, self._board.workers) if one is not None]
        follower, supervisor = said(self._board.follower), said(self._board.supervisor)
        for series in summed(follower, workers, supervisor):
            metric = Metric(series.name, series.help, series.type)
            for (name, labels), value in series.samples.items():
                metric.add_sample(name, dict(labels), value)
            yield metric


def registry_of(board: Board) -> CollectorRegistry:
    """All series of a replica, as they stand whenever somebody asks."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ReplicaCollector(board))
    return registry
