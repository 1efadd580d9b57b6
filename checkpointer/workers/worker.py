"""A process of a replica that answers (shell, X5)."""

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple

from prometheus_client import generate_latest

from checkpointer.config import ServingConfig
from checkpointer.serving import Api, InferenceServer, ReplicaServer
from checkpointer.workers.board import Board, BoardRow, StopLevel
from checkpointer.workers.fed_replica import FedReplica, Feed, wait_for_first
from checkpointer.workers.metrics_registry import metrics_of, registry_of
from stream.credentials import TokenFile

_log = logging.getLogger(__name__)
#: For so long a worker that has heard nothing answers nobody; then it answers without a model.
FIRST_S = 30.0
_TURN_S, _METRICS_S = 0.2, 1.0
#: A cut is taken, kernels compiled, within this, s.
TAKEN_S = 300.0


class WorkerPlace(NamedTuple):
    """Where workers are asked, all of them at the same ports."""

    port: int
    grpc_port: int  # 0 = none


class MetricsWriter:
    """Writes what a process says of itself to the board. Threads may share it."""

    def __init__(self, board: Board, process: BoardRow, replica: FedReplica) -> None:
        self._board, self._process, self._replica = board, process, replica
        self._lock, self._written_s = threading.Lock(), 0.0

    def write(self) -> None:
        with self._lock:
            said = metrics_of(self._replica.metrics.registry, os.getpid()).encode()
            if not self._board.write_metrics(self._process, said):
                _log.error("%d bytes of metrics have no room on the board", len(said))
            self._written_s = time.monotonic()

    def write_sometimes(self) -> None:
        if time.monotonic() - self._written_s > _METRICS_S:
            self.write()


def work(
    replica: FedReplica,
    beside: Callable[[FedReplica], AbstractContextManager[object]],
    board: Board,
    worker: BoardRow,
    address: bytes,
    place: WorkerPlace,
    answers: Callable[[Callable[[], bool]], None],
) -> None:
    """Until the supervisor says that workers are to end; then what is being answered is finished.

    `answers`: told once there is a server, how to ask whether it lives.
    """
    config: ServingConfig = replica.config
    feed = Feed(address, board, worker, replica)
    wait_for_first(feed, replica, lambda: board.stop > StopLevel.NOT, FIRST_S)
    metrics, registry = MetricsWriter(board, worker, replica), registry_of(board)

    def all_metrics() -> bytes:
        metrics.write()
        return generate_latest(registry)

    with ExitStack() as stack:
        stack.enter_context(replica)
        stack.enter_context(beside(replica))
        api = Api(replica, TokenFile.named(config.token_file, "serving.token_file"), all_metrics)
        server = ReplicaServer(replica, config, place.port, api, shares_port=True)
        stack.enter_context(server)
        if place.grpc_port:
            rpc = InferenceServer(replica, config, place.grpc_port, shares_port=True)
            stack.callback(rpc.close)
        within_s = config.request_timeout_s
        answers(lambda: server.turns_within(within_s) and feed.turns_within(TAKEN_S))
        while board.stop == StopLevel.NOT and server.is_alive:
            feed.turn(_TURN_S)
            metrics.write_sometimes()
    metrics.write()
    if board.stop == StopLevel.NOT:
        raise RuntimeError("the thread that answers requests has ended")
