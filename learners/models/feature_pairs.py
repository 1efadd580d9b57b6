"""Dot products of every pair of an example's vectors, with their gradient.

torch's way, a batched product of tiny matrices and a selection of its upper triangle, computes
every product twice and moves (vectors x vectors) numbers a row four times. On the CPU one kernel a
direction keeps an example in the cache; elsewhere torch's way stands.
"""

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from torch import Tensor
from torch.nn import functional

from learners.models.features import Floats
from stream.kernels import kernel

#: Rows taken at once, side by side, so that one vector instruction serves all of them.
LANES = 16


def pair_products(vectors: Tensor, multiple: int = 1) -> Tensor:
    """(n, v, dim) -> (n, v (v - 1) / 2): products of vectors i < j, in the order (0, 1), (0, 2),
    ..., (1, 2), ...

    Behind them stand zeros up to a `multiple` of columns."""
    count = vectors.shape[1]
    pairs = count * (count - 1) // 2
    width = -(-pairs // multiple) * multiple
    if vectors.device.type == "cpu" and vectors.dtype == torch.float32:
        products: Tensor = _PairProducts.apply(vectors, width)  # type: ignore[no-untyped-call]
        return products
    first, second = torch.triu_indices(count, count, 1, device=vectors.device)
    return functional.pad(
        torch.bmm(vectors, vectors.transpose(1, 2))[:, first, second], (0, width - pairs)
    )


def products(vectors: Floats) -> Floats:
    """`pair_products` of an array."""
    count = vectors.shape[1]
    out = np.empty((len(vectors), count * (count - 1) // 2), np.float32)
    _products(vectors, out)
    return out


class _PairProducts(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, vectors: Tensor, width: int) -> Tensor:
        context.save_for_backward(vectors)
        values = vectors.detach().contiguous().numpy()
        out = np.empty((len(values), width), np.float32)
        out[:, values.shape[1] * (values.shape[1] - 1) // 2 :] = 0.0
        _products(values, out)
        return torch.from_numpy(out)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (vectors,) = context.saved_tensors
        values = vectors.detach().contiguous().numpy()
        out = np.empty_like(values)
        _gradients(values, gradient.contiguous().numpy(), out)
        return torch.from_numpy(out), None


@intrinsic
def _add_products(typing: Any, out: Any, to: Any, a: Any, first: Any, b: Any, second: Any) -> Any:
    """out[to:to + LANES] += a[first:...] * b[second:...] on flat float32 arrays, as one vector
    instruction: written as a loop it stays scalar, since the compiler cannot know that the arrays
    do not overlap."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = ir.VectorType(ir.FloatType(), LANES).as_pointer()

        def at(which: int) -> Any:
            array = context.make_array(signature.args[which])(context, builder, arguments[which])
            return builder.bitcast(builder.gep(array.data, [arguments[which + 1]]), lanes)

        total = at(0)
        x, y, sums = (builder.load(pointer, align=4) for pointer in (at(2), at(4), total))
        product = builder.fmul(x, y, flags=("contract",))
        builder.store(builder.fadd(sums, product, flags=("contract",)), total, align=4)
        return context.get_dummy_value()

    return types.void(out, types.intp, a, types.intp, b, types.intp), build


@kernel
def _turn(vectors: Floats, start: int, across: Floats) -> int:
    """Fill `across` (v, dim, LANES) with the rows from `start` on; returns how many there are."""
    rows = min(LANES, len(vectors) - start)
    for lane in range(rows):
        for i in range(across.shape[0]):
            for d in range(across.shape[1]):
                across[i, d, lane] = vectors[start + lane, i, d]
    return rows


@kernel
def _products(vectors: Floats, out: Floats) -> None:
    count, dim = vectors.shape[1], vectors.shape[2]
    across = np.zeros((count, dim, LANES), np.float32)
    flat, line = across.reshape(-1), np.empty((out.shape[1], LANES), np.float32)
    lines = line.reshape(-1)
    for start in range(0, len(vectors), LANES):
        rows = _turn(vectors, start, across)
        line[:] = 0.0
        at = 0
        for i in range(count - 1):
            for j in range(i + 1, count):
                for d in range(dim):
                    _add_products(
                        lines, at * LANES, flat, (i * dim + d) * LANES, flat, (j * dim + d) * LANES
                    )
                at += 1
        for lane in range(rows):
            for pair in range(at):
                out[start + lane, pair] = line[pair, lane]


@kernel
def _gradients(vectors: Floats, gradient: Floats, out: Floats) -> None:
    count, dim = vectors.shape[1], vectors.shape[2]
    across = np.zeros((count, dim, LANES), np.float32)
    total, line = np.empty_like(across), np.zeros((gradient.shape[1], LANES), np.float32)
    flat, totals, lines = across.reshape(-1), total.reshape(-1), line.reshape(-1)
    for start in range(0, len(vectors), LANES):
        rows = _turn(vectors, start, across)
        total[:] = 0.0
        for lane in range(rows):
            for pair in range(gradient.shape[1]):
                line[pair, lane] = gradient[start + lane, pair]
        at = 0
        for i in range(count - 1):
            for j in range(i + 1, count):
                for d in range(dim):
                    one, other = (i * dim + d) * LANES, (j * dim + d) * LANES
                    _add_products(totals, one, lines, at * LANES, flat, other)
                    _add_products(totals, other, lines, at * LANES, flat, one)
                at += 1
        for lane in range(rows):
            for i in range(count):
                for d in range(dim):
                    out[start + lane, i, d] = total[i, d, lane]
