"""Baseline of `bench.pushpull`: a dense table behind torch RPC over TCP, as its users write one.

    python -m bench.baselines.torch_rpc SEED PORT RANK THREADS      RANK 0 serves, 1 and 2 drive

`torch.distributed.rpc` with TensorPipe over TCP (`_transports=["uv"]`; its shared-memory transport
is half as fast on the machines tried, and no peer of ours leaves the host anyway), rows read by
`index_select`, written by sparse `torch.optim.Adagrad`. Ids are dense, so there is no index to
probe; gradients come unique and sorted and are declared coalesced, so nothing is sorted again.
"""

import sys
import threading
import warnings
from typing import Any

import numpy as np
import torch
from torch.distributed import rpc

from bench.parameters.pushpull_peer import answer, timed
from bench.parameters.pushpull_work import ACCUMULATOR, DIM, EPSILON, RATE, ROWS, Work, gradients_of

WORLD = 3
TIMEOUT_S = 60


class Served:
    """The table, on the server."""

    def __init__(self) -> None:
        self.weight = torch.zeros(ROWS, DIM)
        self.lock = threading.Lock()
        self.optimizer = torch.optim.Adagrad(
            [self.weight], lr=RATE, initial_accumulator_value=ACCUMULATOR, eps=EPSILON
        )

    def push(self, ids: torch.Tensor, gradients: torch.Tensor) -> None:
        gradients = gradients.float()
        sparse = torch.sparse_coo_tensor(
            ids[None], gradients, (ROWS, DIM), is_coalesced=True, check_invariants=False
        )
        with self.lock:
            self.weight.grad = sparse
            self.optimizer.step()
            self.weight.grad = None


_served: Served | None = None


def pull(ids: torch.Tensor, bits: int = 32) -> torch.Tensor:
    assert _served is not None
    rows = _served.weight.index_select(0, ids)
    return rows.bfloat16() if bits == 16 else rows


def push(ids: torch.Tensor, gradients: torch.Tensor) -> None:
    assert _served is not None
    _served.push(ids, gradients)


def main() -> None:
    global _served
    seed, port, rank, threads = map(int, sys.argv[1:])
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", category=UserWarning)  # of torch about torch
    options = rpc.TensorPipeRpcBackendOptions(
        _transports=["uv"], init_method=f"tcp://127.0.0.1:{port}", rpc_timeout=TIMEOUT_S
    )
    if rank == 0:
        _served = Served()
    rpc.init_rpc(f"peer{rank}", rank=rank, world_size=WORLD, rpc_backend_options=options)
    if rank:
        _drive(Work.drawn(seed), rank - 1)
    else:
        sys.stdin.read()  # serves until whoever started us closes it
    rpc.shutdown(graceful=False)  # whoever started us ends the clients first


def _drive(work: Work, client: int) -> None:
    ids = [torch.from_numpy(i) for i in work.ids]
    gradients = {32: [torch.from_numpy(gradients_of(i)) for i in work.ids]}
    gradients[16] = [g.bfloat16() for g in gradients[32]]

    def round_of(clients: int, bits: int) -> int:
        rows = 0
        for batch in work.share(client, clients):
            pulled = rpc.rpc_sync("peer0", pull, args=(ids[batch], bits))
            if pulled.shape != (len(ids[batch]), DIM):
                raise RuntimeError(f"pulled {tuple(pulled.shape)} for {len(ids[batch])} ids")
            rpc.rpc_sync("peer0", push, args=(ids[batch], gradients[bits][batch]))
            rows += len(ids[batch])
        return rows

    def handle(order: dict[str, Any]) -> dict[str, Any]:
        if order["do"] == "fill":
            return {}
        if order["do"] == "weights":
            found = rpc.rpc_sync("peer0", pull, args=(torch.from_numpy(np.array(order["ids"])),))
            return {"weights": found.tolist()}
        bits = 16 if order.get("wire") == "bfloat16" else 32
        return timed(lambda: round_of(order["clients"], bits))

    answer(handle)


if __name__ == "__main__":
    from bench.baselines import torch_rpc

    torch_rpc.main()  # of the module that callers name, not of its copy under `__main__`
