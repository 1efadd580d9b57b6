"""The process that `bench.serving` asks: a replica, or other software behind the same server.

    ROOT replica|onnx|vw [--kind lr|dlrm] [--rows N] [--workers N]

Prints its port, and ends with its standard input.
"""

import argparse
import contextlib
import os
import threading

from bench.replicas.serving_model import FEATURES, Site, model_of
from checkpointer import ServingConfig, workers
from checkpointer.serving import Replica, ReplicaServer, rehearse


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("software", choices=("replica", "onnx", "vw"))
    parser.add_argument("--kind", default="lr")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queue-ms", type=float, default=10_000.0)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    config = ServingConfig(poll_ms=200, queue_ms_max=given.queue_ms, workers=given.workers)
    stop = threading.Event()
    threading.Thread(target=until_input_ends, args=(stop,), daemon=True).start()
    if given.workers > 1:
        serve_by_workers(given.root, given.kind, config, stop)
        return
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
        stop.wait()
    replica.close()


def until_input_ends(stop: threading.Event) -> None:
    """Without the lock of `sys.stdin`, which a fork would copy as it is."""
    while os.read(0, 1_024):
        pass
    stop.set()


def serve_by_workers(root: str, kind: str, config: ServingConfig, stop: threading.Event) -> None:
    model = model_of(kind)
    site = workers.Site(
        config,
        lambda: Replica(root, "clicks", config),
        lambda: workers.FedReplica(root, "clicks", config),
        lambda _: contextlib.nullcontext(),
        lambda: rehearse(model.spec, model.config.to_dict()) and None,
    )
    workers.run(site, stop, up=lambda port: print(port, flush=True))


if __name__ == "__main__":
    main()
