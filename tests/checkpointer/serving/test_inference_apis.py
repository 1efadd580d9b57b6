"""Clients that were written for other servers ask a replica: Triton's by HTTP and gRPC, as they
come; TensorFlow Serving's REST; Arrow."""

import json
import urllib.error
import urllib.request

import numpy as np
import pyarrow as pa
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from checkpointer.config import ServingConfig
from checkpointer.serving.arrow_request import MEDIA_TYPE
from checkpointer.serving.grpc_service import InferenceServer
from checkpointer.serving.http_server import ReplicaServer
from checkpointer.serving.replica_client import Replica
from checkpointer.store import Catalogue, Directory

ROWS = [
    {"source": "u1", "item": "i1", "features": {"colour": "red", "price": 2.5}},
    {"source": "u1", "item": "i2", "features": {"colour": "zoé", "price": 3.0}},
    {"source": "u1", "item": "?", "features": {"price": None}},
]
CONFIG = ServingConfig(poll_ms=5, request_rows_max=10)


@pytest.fixture(scope="module")
def replica(tmp_path_factory):
    from checkpoint_maker import model_config, train_checkpoint

    root = str(tmp_path_factory.mktemp("store"))
    config = model_config(categorical=("source", "item", "colour"), numeric=("price",))
    train_checkpoint(Catalogue(Directory(root), "clicks"), 4, ROWS[:2], step=0.5, config=config)
    with Replica(root, "clicks", CONFIG) as made:
        yield made


@pytest.fixture(scope="module")
def server(replica):
    with ReplicaServer(replica, CONFIG, 0) as made:
        yield made


@pytest.fixture(scope="module")
def http(server):
    return f"127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def rpc_server(replica):
    made = InferenceServer(replica, CONFIG, 0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def rpc(rpc_server):
    return f"127.0.0.1:{rpc_server.port}"


@pytest.fixture
def expected(replica):
    return np.array(replica.predict_rows(ROWS)["probabilities"], np.float32)


def inputs(client, **binary):
    """The rows as tensors: of the user, whom all rows share, one value."""
    columns = {
        "source": np.array([b"u1"], np.object_),
        "item": np.array([r["item"].encode() for r in ROWS], np.object_),
        "colour": np.array(
            [r["features"].get("colour", "").encode() for r in ROWS], np.object_
        ).reshape(-1, 1),
        "price": np.array([2.5, 3.0, np.nan], np.float32),
    }
    found = []
    for name, values in columns.items():
        kind = "FP32" if name == "price" else "BYTES"
        tensor = client.InferInput(name, list(values.shape), kind)
        tensor.set_data_from_numpy(values, **binary)
        found.append(tensor)
    return found


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_http_client_asks_unchanged(http, expected, binary):
    client = tritonclient.http.InferenceServerClient(http)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("clicks")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    told = client.get_model_metadata("clicks")
    assert {one["name"]: one["datatype"] for one in told["inputs"]} == {
        "source": "BYTES", "vendor": "BYTES", "item": "BYTES", "colour": "BYTES",
        "price": "FP32", "position": "INT32",
    }  # fmt: skip
    tensors = inputs(tritonclient.http, binary_data=binary)
    if not binary:  # JSON has no NaN
        price = tritonclient.http.InferInput("price", [3], "FP32")
        price.set_data_from_numpy(np.array([2.5, 3.0, 0.0], np.float32), binary_data=False)
        tensors[-1] = price
    outputs = [tritonclient.http.InferRequestedOutput("probability", binary_data=binary)]
    for wanted in (None, outputs):
        answer = client.infer("clicks", tensors, outputs=wanted, request_id="r1")
        np.testing.assert_array_equal(answer.as_numpy("probability"), expected)
        assert answer.get_response()["model_version"] == "00000004-c"
        assert answer.get_response()["id"] == "r1"
        assert answer.get_response()["parameters"]["fallback"] is False
    client.close()


def test_tritons_grpc_client_asks_unchanged(rpc, expected):
    client = tritonclient.grpc.InferenceServerClient(rpc)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("clicks", "00000004-c")
    assert client.get_server_metadata().name == "everspun"
    assert [one.name for one in client.get_model_metadata("clicks").outputs] == ["probability"]
    answer = client.infer("clicks", inputs(tritonclient.grpc), request_id="r2")
    np.testing.assert_array_equal(answer.as_numpy("probability"), expected)
    response = answer.get_response()
    assert (response.model_version, response.id) == ("00000004-c", "r2")
    assert not response.parameters["fallback"].bool_param
    with pytest.raises(InferenceServerException, match="served is 'clicks'"):
        client.infer("other", inputs(tritonclient.grpc))
    wrong = tritonclient.grpc.InferInput("price", [2], "FP32")
    wrong.set_data_from_numpy(np.zeros(2, np.float32))
    with pytest.raises(InferenceServerException, match="price: 2 values, and others have 3"):
        client.infer("clicks", [*inputs(tritonclient.grpc)[:3], wrong])
    client.close()


def post(http, path, body, kind="application/json", **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    asked = urllib.request.Request(f"http://{http}{path}", data, {"Content-Type": kind, **headers})
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("at", ["", "/versions/4", "/versions/00000004-c", "/labels/stable"])
def test_tensorflow_servings_rest(http, expected, at):
    flat = [
        {"source": ["u1"], "item": {"b64": "aTE="}, "colour": "red", "price": 2.5},
        {"source": "u1", "item": "i2", "colour": "zoé", "price": [3]},
        {"source": "u1", "item": "?"},
    ]
    path = f"/v1/models/clicks{at}:predict"
    status, body = post(http, path, {"signature_name": "serving_default", "instances": flat})
    assert status == 200
    np.testing.assert_array_equal(np.float32(json.loads(body)["predictions"]), expected)
    columns = {"item": ["i1", "i2", "?"], "colour": ["red", "zoé", None], "price": [2.5, 3, None]}
    status, body = post(http, path, {"inputs": columns, "context": {"source": "u1"}})
    np.testing.assert_array_equal(np.float32(json.loads(body)["outputs"]), expected)
    assert json.loads(body)["model_version"] == "00000004-c"


def test_tensorflow_servings_status_and_refusals(http):
    with urllib.request.urlopen(f"http://{http}/v1/models/clicks", timeout=10) as answer:
        (one,) = json.loads(answer.read())["model_version_status"]
    assert (one["version"], one["state"]) == ("4", "AVAILABLE")
    for path, body, status, words in (
        ("/v1/models/other:predict", {"instances": []}, 404, "served is 'clicks'"),
        ("/v1/models/clicks/versions/7:predict", {"instances": []}, 404, "version '7'"),
        ("/v1/models/clicks/labels/next:predict", {"instances": []}, 404, "label 'next'"),
        ("/v1/models/clicks:predict", {"instances": [1]}, 400, "instances"),
        ("/v1/models/clicks:predict", {"instances": [{"item": 5}]}, 400, "item = 5"),
        ("/v1/models/clicks:predict", {"instances": [{}] * 11}, 400, "at most 10"),
        ("/v1/models/clicks:predict", b"{", 400, "not JSON"),
        ("/v1/models/clicks:classify", {"examples": []}, 404, "known are"),
        ("/v2/models/clicks/infer", {"inputs": [{"name": "item"}]}, 400, "shape"),
        (
            "/v2/models/clicks/infer",
            {"inputs": [{"name": "item", "shape": [2], "datatype": "BYTES", "data": ["a"]}]},
            400,
            "1 values, and shape [2]",
        ),
        (
            "/v2/models/clicks/infer",
            {"inputs": [{"name": "item", "shape": [1], "datatype": "STRING", "data": ["a"]}]},
            400,
            "allowed are BYTES",
        ),
    ):
        got, answer = post(http, path, body)
        assert (got, words in json.loads(answer)["error"]) == (status, True), answer


def stream(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_arrow_streams(http, expected):
    table = pa.table(
        {
            "source": pa.array(["u1"] * 3).dictionary_encode(),
            "item": ["i1", "i2", "?"],
            "colour": ["red", "zoé", None],
            "price": pa.array([2.5, 3, None], pa.float64()),
        }
    )
    status, body = post(http, "/predict", stream(table), MEDIA_TYPE)
    assert status == 200
    with pa.ipc.open_stream(body) as answer:
        found = answer.read_all()
    np.testing.assert_array_equal(found["probability"].to_numpy(), expected)
    assert json.loads(found.schema.metadata[b"model_version"]) == "00000004-c"
    for data, words in (
        (b"junk", "Arrow"),
        (stream(table)[:-40], "Arrow"),
        (stream(pa.table({"item": [[1]]})), "row 0, item = [1]"),
        (stream(pa.table({"item": ["x" * 1025]})), "1024 bytes"),
        (stream(pa.table({"item": ["x"] * 11})), "at most 10"),
    ):
        status, answer = post(http, "/predict", data, MEDIA_TYPE)
        assert (status, words in json.loads(answer)["error"]) == (400, True), answer


@pytest.fixture
def slow(server, rpc_server, monkeypatch):
    """Both believe that an answer takes 5 s."""
    monkeypatch.setattr(server.admission.cost, "base_s", 5.0)
    monkeypatch.setattr(rpc_server.cost, "base_s", 5.0)


PRIOR = [0.5] * 3
LATE = {"Request-Timeout-Ms": "1000"}


@pytest.mark.usefixtures("slow")
def test_who_cannot_wait_for_the_model_gets_the_fallback_by_every_api(http, rpc):
    columns = {"item": ["i1", "i2", None], "price": [2.5, 3, None]}
    status, body = post(http, "/v1/models/clicks:predict", {"inputs": columns}, **LATE)
    said = json.loads(body)
    assert (status, said["outputs"], said["reason"]) == (200, PRIOR, "no time")
    assert (said["fallback"], said["fallback_by"], said["model_version"]) == (True, "prior", "")
    status, body = post(http, "/predict", stream(pa.table(columns)), MEDIA_TYPE, **LATE)
    with pa.ipc.open_stream(body) as answer:
        found = answer.read_all()
    assert (status, found["probability"].to_pylist()) == (200, PRIOR)
    assert json.loads(found.schema.metadata[b"reason"]) == "no time"
    client = tritonclient.http.InferenceServerClient(http)
    answer = client.infer("clicks", inputs(tritonclient.http), headers=dict(LATE))
    assert answer.as_numpy("probability").tolist() == PRIOR
    assert answer.get_response()["parameters"]["reason"] == "no time"
    client.close()
    client = tritonclient.grpc.InferenceServerClient(rpc)
    answer = client.infer("clicks", inputs(tritonclient.grpc), client_timeout=2.0)
    assert answer.as_numpy("probability").tolist() == PRIOR
    assert answer.get_response().parameters["reason"].string_param == "no time"
    client.close()


@pytest.mark.usefixtures("slow")
def test_what_is_wrong_is_said_all_the_same(http):
    for path, body, status, words in (
        ("/v1/models/other:predict", {"instances": []}, 404, "served is 'clicks'"),
        ("/v1/models/clicks:predict", b"{", 400, "not JSON"),
        ("/v2/models/clicks/infer", {"inputs": [{"name": "item"}]}, 400, "shape"),
    ):
        got, answer = post(http, path, body, **LATE)
        assert (got, words in json.loads(answer)["error"]) == (status, True), answer


def test_who_can_wait_for_the_model_gets_it_by_every_api(http, rpc, expected):
    client = tritonclient.http.InferenceServerClient(http)
    headers = {"Request-Timeout-Ms": "60000"}
    answer = client.infer("clicks", inputs(tritonclient.http), headers=headers)
    np.testing.assert_array_equal(answer.as_numpy("probability"), expected)
    client.close()
    client = tritonclient.grpc.InferenceServerClient(rpc)
    answer = client.infer("clicks", inputs(tritonclient.grpc), client_timeout=60.0)
    np.testing.assert_array_equal(answer.as_numpy("probability"), expected)
    client.close()
