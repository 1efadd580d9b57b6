"""Over HTTP: who cannot wait gets what the config says, and is told what it is."""

import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from checkpointer.config import ServingConfig
from checkpointer.fallback.item_rates import STRENGTH, ItemRates
from checkpointer.fallback.popularity_reader import PopularityReader
from checkpointer.serving import Replica, ReplicaServer
from checkpointer.store import Catalogue, Directory
from stream import Partition, position
from stream.internal_topics import BatchHeader, encode_examples, examples_schema
from stream.log import MemoryLog
from stream.monitoring import TimeLimit

NOW = 1_700_000_000_000
PRIOR = 0.07
ROWS = b'{"rows": [{"item": "i1", "source": "u1"}, {"item": "never"}, {}]}'


def ask(server: ReplicaServer, body: bytes = ROWS, timeout_ms: int = 0) -> dict[str, Any]:
    headers = {"Request-Timeout-Ms": str(timeout_ms)} if timeout_ms else {}
    asked = urllib.request.Request(f"http://127.0.0.1:{server.port}/predict", body, headers)
    with urllib.request.urlopen(asked, timeout=30) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


def late(server: ReplicaServer, body: bytes = ROWS) -> dict[str, Any]:
    """The answer of a replica that believes to take longer than the request waits."""
    usual, server.admission.cost.base_s = server.admission.cost.base_s, 5.0
    try:
        return ask(server, body, timeout_ms=1_000)
    finally:
        server.admission.cost.base_s = usual


def wait(reached: Callable[[], bool]) -> None:
    limit = TimeLimit(60)
    while not reached():
        assert not limit.over, "never"
        time.sleep(0.01)


def batch(items: list[str], labels: list[int], weight: float = 1.0) -> bytes:
    n = len(items)
    given = {"item": pa.array(items), "label": pa.array(labels, pa.int8())}
    given["weight"] = pa.array(np.full(n, weight, np.float32))
    filled = {pa.string(): "", pa.float32(): 0.5}
    columns = [
        given.get(f.name, pa.array([filled.get(f.type, 0)] * n, f.type))
        for f in examples_schema(())
    ]
    return encode_examples(pa.record_batch(columns, schema=examples_schema(())))


def header(at: int, rows: int, chain: str = "label/0") -> Any:
    return BatchHeader(chain, position(at), position(at + 1), "s", "c", labelled=rows).to_headers()


@pytest.fixture
def examples() -> MemoryLog:
    log = MemoryLog(lambda: NOW)
    log.create("examples", 2)
    return log


def append(log: MemoryLog, at: int, value: bytes | None, rows: int, chain: str = "label/0") -> None:
    log.append(Partition("examples", int(chain[-1])), value, None, header(at, rows, chain), NOW)


def test_popularity_is_kept_from_the_stream_and_answers_by_item(tmp_path, examples, train):
    append(examples, 0, batch(["i1"] * 60 + ["i2"] * 40, [1] * 30 + [0] * 70), 100)
    append(examples, 1, b"no examples", 1)
    append(examples, 2, None, 0)
    append(examples, 3, batch(["i1"] * 90, [1] * 90), 90, "late/0")  # the same rows, labelled again
    config = ServingConfig(poll_ms=5, fallback="popularity")
    train(Catalogue(Directory(str(tmp_path)), "clicks"), 1, [{"source": "u1", "item": "i1"}])
    with Replica(str(tmp_path), "clicks", config, fallback=PRIOR) as replica:
        rates = replica.by_item
        assert isinstance(rates, ItemRates)
        with (
            PopularityReader(examples, "examples", rates),
            ReplicaServer(replica, config, 0) as server,
        ):
            wait(lambda: len(rates) == 2)
            answer = late(server)
            expected = (30 + PRIOR * STRENGTH) / (60 + STRENGTH)
            assert answer["probabilities"] == pytest.approx([expected, PRIOR, PRIOR])
            assert (answer["fallback"], answer["reason"]) == (True, "no time")
            assert (answer["fallback_by"], answer["model_version"]) == ("popularity", "")
            assert ask(server)["fallback"] is False, "who can wait gets the model"
            append(examples, 4, batch(["never"] * 10, [1] * 10, weight=10.0), 10, "label/1")
            wait(lambda: len(rates) == 3)
            columns = b'{"columns": {"item": ["never", null]}, "context": {"item": "i1"}}'
            again = late(server, columns)["probabilities"]
            often = (100 + PRIOR * STRENGTH) / (100 + STRENGTH)
            assert again == pytest.approx([often, expected])


def test_without_a_model_popularity_answers_too(tmp_path, examples):
    append(examples, 0, batch(["i1"] * 60, [1] * 60), 60)
    config = ServingConfig(poll_ms=5, fallback="popularity")
    with Replica(str(tmp_path), "clicks", config, fallback=PRIOR) as replica:
        assert isinstance(replica.by_item, ItemRates)
        with PopularityReader(examples, "examples", replica.by_item):
            wait(lambda: len(replica.by_item or ()) == 1)
        answer = replica.predict_rows([{"item": "i1"}, {"item": "i9"}])
    expected = (60 + PRIOR * STRENGTH) / (60 + STRENGTH)
    assert answer["probabilities"] == pytest.approx([expected, PRIOR])
    assert (answer["reason"], answer["fallback_by"]) == ("no model", "popularity")


def test_a_log_that_is_away_is_tried_again_and_read_on(tmp_path):
    log, rates = MemoryLog(lambda: NOW), ItemRates(PRIOR, 10, 1_000)
    with PopularityReader(log, "examples", rates):
        time.sleep(0.05)
        log.create("examples", 2)
        append(log, 0, batch(["i1"], [1]), 1)
        wait(lambda: len(rates) == 1)


def test_the_previous_answers_are_given_with_their_version(tmp_path, train):
    catalogue = Catalogue(Directory(str(tmp_path)), "clicks")
    first = train(catalogue, 1, [{"source": "u1", "item": "i1"}])
    config = ServingConfig(poll_ms=5, fallback="previous")
    with (
        Replica(str(tmp_path), "clicks", config, fallback=PRIOR) as replica,
        ReplicaServer(replica, config, 0) as server,
    ):
        assert late(server)["probabilities"] == [PRIOR] * 3, "nothing was answered before"
        said = ask(server)["probabilities"][0]
        second = train(catalogue, 2, [{"source": "u1", "item": "i1"}])
        wait(lambda: replica.served is not None and replica.served.version == second.name)
        answer = late(server)
        assert answer["probabilities"][0] == pytest.approx(said)
        assert answer["probabilities"][2] == PRIOR
        assert answer["fallback_by"] == "previous"
        assert answer["model_version"] == first.name, "the one that said so"
        for _ in range(16):
            newer = ask(server)
        assert late(server)["model_version"] == newer["model_version"] == second.name


def test_items_of_another_type_get_the_prior_and_no_rows_none(tmp_path):
    config = ServingConfig(poll_ms=5, fallback="previous")
    with (
        Replica(str(tmp_path), "clicks", config, fallback=PRIOR) as replica,
        ReplicaServer(replica, config, 0) as server,
    ):
        assert late(server, b'{"rows": [{"item": 5}, {}]}')["probabilities"] == [PRIOR] * 2
        assert late(server, b'{"columns": {"item": [5]}}')["probabilities"] == [PRIOR]
        assert late(server, b'{"rows": []}')["probabilities"] == []
        assert late(server, b'{"columns": {"source": ["a", "b"]}}')["probabilities"] == [PRIOR] * 2


def test_a_fallback_that_is_none_is_named():
    with pytest.raises(ValueError, match="'prior', 'popularity', 'previous'"):
        ServingConfig(fallback="newest")
