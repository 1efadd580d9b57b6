"""Other software behind the replica's HTTP server: ONNX Runtime with a dictionary of the values of
each feature, and Vowpal Wabbit. Each answers the JSON of its own clients; both hold weights of the
same number of values, drawn at random."""

import itertools
from typing import Any

import numpy as np
import orjson

from bench.replicas.serving_model import FEATURES, IDENTIFIERS, Site, value_of
from checkpointer.serving import Api, HttpRequest, Replica, Response


class Peer(Api):
    """Everything of the replica's but `/predict`."""

    def __init__(self, replica: Replica, peer: Any) -> None:
        super().__init__(replica)
        self._peer = peer

    def _predict(self, request: HttpRequest) -> Response:
        body = {"probabilities": self._peer.predict(request.body), "model_version": "1"}
        return Response(200, orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))


def make(software: str, replica: Replica, site: Site) -> Api:
    return Peer(replica, Onnx(site) if software == "onnx" else VowpalWabbit(site))


class Onnx:
    """orjson, a dictionary a feature, and a graph: rows of embeddings, then the model."""

    def __init__(self, site: Site) -> None:
        import onnxruntime

        self._names = site.model.config.categorical
        rows = 1  # row 0: unknown
        self._places: list[dict[str, int]] = []
        for f in range(FEATURES):
            self._places.append({value_of(f, n): rows + n for n in range(site.values)})
            rows += site.values
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        graph = logistic(rows) if site.model.config.kind == "lr" else dlrm(rows, site)
        self._session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])

    def predict(self, body: bytes) -> Any:
        asked = orjson.loads(body)
        context = asked.get("context", {})
        shared = {**context, **context.get("features", {})}
        places = np.empty((len(asked["rows"]), FEATURES), np.int64)
        for i, row in enumerate(asked["rows"]):
            bag = {**shared, **row, **row.get("features", {})} if shared else row["features"]
            for f, (name, known) in enumerate(zip(self._names, self._places, strict=True)):
                value = row[name] if not shared and name in IDENTIFIERS else bag[name]
                places[i, f] = known.get(value, 0)
        return self.compute(places)

    def compute(self, places: Any) -> Any:
        """(n,) of places (n, features)."""
        return self._session.run(None, {"places": places})[0]


def logistic(rows: int) -> bytes:
    """sigmoid(base + sum of the weights of a row's places), as an ONNX graph."""
    from onnx import TensorProto, helper, numpy_helper

    weights = 0.1 * np.random.default_rng(0).standard_normal(rows)
    held = [
        numpy_helper.from_array(weights.astype(np.float32), "weights"),
        numpy_helper.from_array(np.array([-3.0], np.float32), "base"),
        numpy_helper.from_array(np.array([1], np.int64), "axes"),
    ]
    nodes = [
        helper.make_node("Gather", ["weights", "places"], ["found"]),
        helper.make_node("ReduceSum", ["found", "axes"], ["total"], keepdims=0),
        helper.make_node("Add", ["total", "base"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    return _graph(helper, TensorProto, nodes, held)


def dlrm(rows: int, site: Site) -> bytes:
    """Embeddings, dot products of every pair, then the hidden layers of the model."""
    from onnx import TensorProto, helper, numpy_helper

    config, draw = site.model.config, np.random.default_rng(0)
    upper = np.array([i * FEATURES + j for i in range(FEATURES) for j in range(i)], np.int64)
    held = [
        numpy_helper.from_array(
            (0.1 * draw.standard_normal((rows, config.dim))).astype(np.float32), "weights"
        ),
        numpy_helper.from_array(np.array([-1, FEATURES * FEATURES], np.int64), "flat"),
        numpy_helper.from_array(upper, "pairs"),
        numpy_helper.from_array(np.array([-1], np.int64), "all"),
    ]
    nodes = [
        helper.make_node("Gather", ["weights", "places"], ["e"]),
        helper.make_node("Transpose", ["e"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["e", "t"], ["products"]),
        helper.make_node("Reshape", ["products", "flat"], ["wide"]),
        helper.make_node("Gather", ["wide", "pairs"], ["x0"], axis=1),
    ]
    widths = [len(upper), *config.hidden, 1]
    for n, (into, out) in enumerate(itertools.pairwise(widths)):
        w = (draw.standard_normal((into, out)) / into**0.5).astype(np.float32)
        held += [
            numpy_helper.from_array(w, f"w{n}"),
            numpy_helper.from_array(np.zeros(out, np.float32), f"b{n}"),
        ]
        nodes.append(helper.make_node("Gemm", [f"x{n}", f"w{n}", f"b{n}"], [f"y{n}"]))
        last = n == len(widths) - 2
        nodes.append(helper.make_node("Sigmoid" if last else "Relu", [f"y{n}"], [f"x{n + 1}"]))
    nodes.append(helper.make_node("Reshape", [f"x{len(widths) - 1}", "all"], ["probability"]))
    return _graph(helper, TensorProto, nodes, held)


def _graph(helper: Any, types: Any, nodes: list[Any], held: list[Any]) -> bytes:
    places = helper.make_tensor_value_info("places", types.INT64, ["n", FEATURES])
    out = helper.make_tensor_value_info("probability", types.FLOAT, ["n"])
    graph = helper.make_graph(nodes, "model", [places], [out], held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 10
    data: bytes = made.SerializeToString()
    return data


class VowpalWabbit:
    """Its own JSON, an example a line: `{"f": {"c00": "00-0000001", ...}}`."""

    def __init__(self, site: Site) -> None:
        import vowpalwabbit

        self._workspace = vowpalwabbit.Workspace(
            "--json --quiet --noconstant --loss_function logistic --link logistic -b 22 -t"
        )

    def predict(self, body: bytes) -> Any:
        return [self._workspace.predict(line) for line in body.decode().split("\n")]
