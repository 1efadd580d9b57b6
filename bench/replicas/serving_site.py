"""The process that `bench.serving` asks: a replica, or other software behind the same server.

    ROOT replica|onnx|vw [--kind lr|dlrm] [--rows N]

Prints its port, and ends with its standard input.
"""

import argparse
import sys
import threading

from bench.replicas.serving_model import FEATURES, Site, model_of
from checkpointer import ServingConfig
from checkpointer.serving import Replica, ReplicaServer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("software", choices=("replica", "onnx", "vw"))
    parser.add_argument("--kind", default="lr")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queue-ms", type=float, default=10_000.0)
    given = parser.parse_args()
    config = ServingConfig(poll_ms=200, queue_ms_max=given.queue_ms)
    replica = Replica(given.root, "clicks", config)
    api = None
    if given.software == "replica":
        replica.start()
        assert replica.served is not None, replica.following.fault
    else:
        from bench.replicas import serving_peers  # what a replica does not load

        site = Site(model_of(given.kind), max(1, given.rows // FEATURES), given.root)
        api = serving_peers.make(given.software, replica, site)
    with ReplicaServer(replica, config, 0, api) as server:
        print(server.port, flush=True)
        stop = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
        stop.wait()
    replica.close()


if __name__ == "__main__":
    main()
