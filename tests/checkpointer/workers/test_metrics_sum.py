"""Metrics of several processes as those of one."""

from prometheus_client import generate_latest

from checkpointer.metrics import ReplicaMetrics, Served
from checkpointer.workers.board import METRICS_BYTES_MAX, Board
from checkpointer.workers.metrics_registry import metrics_of, registry_of
from checkpointer.workers.metrics_sum import EndedTotals, decode_metrics

NONE = Served(-1, 0, 0, float("nan"), float("nan"), ready=False)


def metrics(number: int, requests: int, connections: int, ready: bool = True) -> ReplicaMetrics:
    made = ReplicaMetrics()
    made.served_is(lambda: Served(number, 1, 5, 10.0 - number, 2.0, ready), lambda: 0.0)
    made.requests.labels(path="/predict", status="200").inc(requests)
    for _ in range(requests):
        made.seconds.observe(0.002)
    made.connections.set(connections)
    return made


def text_of(board: Board) -> str:
    return generate_latest(registry_of(board)).decode()


def write(board: Board, process, made: ReplicaMetrics, pid: int, totals: EndedTotals | None = None):
    said = metrics_of(made.registry, pid)
    said = said if totals is None else totals.with_them(said)
    assert board.write_metrics(process, said.encode())


def test_counts_add_up_and_gauges_are_the_followers_the_sum_or_the_worst():
    board, follower = Board(2), ReplicaMetrics()
    follower.held.set(1)
    follower.swaps.inc(3)
    write(board, board.follower, follower, 10)
    write(board, board.workers[0], metrics(4, 7, 2), 11)
    write(board, board.workers[1], metrics(5, 8, 3, ready=False), 12)
    own = ReplicaMetrics()
    own.served_is(lambda: None, lambda: 0.0)
    own.workers.set(2)
    write(board, board.supervisor, own, 9)
    text = text_of(board)
    for line in (
        'everspun_replica_requests_total{path="/predict",status="200"} 15.0',
        "everspun_replica_request_seconds_count 15.0",
        'everspun_replica_request_seconds_bucket{le="0.0025"} 15.0',
        "everspun_replica_connections 5.0",
        "everspun_served_version 4.0",
        "everspun_served_model_age_s 6.0",
        "everspun_replica_ready 0.0",
        "everspun_served_held 1.0",
        "everspun_replica_swaps_total 3.0",
        "everspun_replica_workers 2.0",
    ):
        assert f"\n{line}\n" in text, line
    assert "# TYPE everspun_replica_request_seconds histogram" in text


def test_what_who_has_ended_counted_goes_on_counting_and_once():
    board, totals = Board(1), EndedTotals()
    worker = board.workers[0]
    requests = 'everspun_replica_requests_total{path="/predict",status="200"}'
    for life in range(3):
        write(board, worker, metrics(1, 10, 4), 100 + life)
        assert f"{requests} {10.0 * (life + 1)}" in text_of(board)
        said = decode_metrics(board.read_metrics(worker))
        assert said is not None
        totals.take(said)
        write(board, board.supervisor, ReplicaMetrics(), 9, totals)
        text = text_of(board)
        assert f"{requests} {10.0 * (life + 1)}" in text
        assert "everspun_replica_connections 0.0" in text
        assert "everspun_replica_ready 0.0" in text


def test_what_was_written_half_is_not_read():
    board = Board(1)
    worker = board.workers[0]
    assert board.read_metrics(worker) == b""
    assert board.write_metrics(worker, b"one" * 1_000)
    assert board.write_metrics(worker, b"two" * 1_000)
    assert board.read_metrics(worker) == b"two" * 1_000
    assert not board.write_metrics(worker, bytes(METRICS_BYTES_MAX))
    assert board.read_metrics(worker) == b"two" * 1_000
    board._metrics[:] = b"x" * len(board._metrics)
    assert board.read_metrics(worker) == b""


def test_the_board_says_who_lives():
    board = Board(2)
    first, second = board.workers
    assert board.silent_s(first) is None
    board.beat(first)
    assert board.silent_s(second) is None
    silent_s = board.silent_s(first)
    assert silent_s is not None
    assert 0 <= silent_s < 60
    board.epochs.enter(0)
    assert board.epochs.oldest(1) == 0
    board.ended(first)
    assert board.silent_s(first) is None
    assert board.epochs.oldest(1) > 0
    assert (board.new_generation(), board.new_generation()) == (1, 2)
