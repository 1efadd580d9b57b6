"""Replicas: follow published checkpoints and answer requests.

- `admission`: which predictions wait, and which are told 503 at once
- `answer`: from the values of a request to probabilities in one piece of compiled code
- `arrow_request`: requests and answers as Arrow IPC streams
- `explanation`: why a row is answered as it is
- `grpc_service`: the Open Inference Protocol by gRPC
- `http_api`: what a replica answers to each path
- `http_connection`: HTTP/1.1 of one connection
- `http_server`: the HTTP server of a replica: who is let in, and whose turn it is
- `inference_messages`: its protobuf messages
- `loading`: from the store to something that answers
- `open_inference`: the Open Inference Protocol: tensors in, tensors out
- `replica`: which checkpoint a replica should hold
- `replica_client`: A replica as a library
- `request`: A prediction request
- `request_decoder`: from the bytes of a `POST /predict` to the hashes of its values
- `serving`: A checkpoint as something that answers
- `tensorflow_serving`: TensorFlow Serving's REST API of predictions
"""

from typing import TYPE_CHECKING

from stream.on_demand import on_demand

if TYPE_CHECKING:
    from checkpointer.serving import http_server
    from checkpointer.serving.explanation import Explanation, explain
    from checkpointer.serving.grpc_service import InferenceServer
    from checkpointer.serving.http_api import Api
    from checkpointer.serving.http_connection import HttpRequest, Response
    from checkpointer.serving.http_server import ReplicaServer, bound, url_of
    from checkpointer.serving.loading import bring, load, rehearse, served_at
    from checkpointer.serving.replica import Following
    from checkpointer.serving.replica_client import Replica
    from checkpointer.serving.request import BadRequest, of_rows
    from checkpointer.serving.serving import ServedModel, probe, warm
else:
    __getattr__ = on_demand(__name__)

__all__ = [
    "Api",
    "BadRequest",
    "Explanation",
    "Following",
    "HttpRequest",
    "InferenceServer",
    "Replica",
    "ReplicaServer",
    "Response",
    "ServedModel",
    "bound",
    "bring",
    "explain",
    "http_server",
    "load",
    "of_rows",
    "probe",
    "rehearse",
    "served_at",
    "url_of",
    "warm",
]
