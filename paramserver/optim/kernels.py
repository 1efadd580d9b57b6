"""The arithmetic of the optimizers, a row at a time.

Every kernel takes `row store` (n, head + stride) float32, of which a row's weights begin at column
`head` with its state behind them, and `rows` (m,) int64, -1 = none. Each row stands in `rows` at
most once.

Rows and columns are indexed by unsigned numbers, once a row is known to be one: a signed index may
be negative, which the compiler would provide for at each element, and it would vectorise no loop
(element-wise Adagrad: 39 ns a row of 16 then, 6 now). Beware: a signed number and an unsigned one
make a float64.
"""

import numpy as np
import numpy.typing as npt

from paramserver.messages import Rows
from stream.kernels import kernel

RowNumbers = npt.NDArray[np.int64]
#: (m,) how often the accumulators of each row are due to decay
Periods = npt.NDArray[np.int64]


@kernel
def gather(row_store: Rows, head: int, rows: RowNumbers, out: Rows) -> None:
    first, dim = np.uint64(head), np.uint64(out.shape[1])
    for i in range(len(rows)):
        if rows[i] >= 0:
            r = np.uint64(rows[i])
            for j in range(dim):
                out[i, j] = row_store[r, first + j]


@kernel
def sgd(row_store: Rows, head: int, rows: RowNumbers, gradients: Rows, rate: np.float32) -> None:
    first, dim = np.uint64(head), np.uint64(gradients.shape[1])
    for i in range(len(rows)):
        if rows[i] >= 0:
            r = np.uint64(rows[i])
            for j in range(dim):
                row_store[r, first + j] -= rate * gradients[i, j]


@kernel
def moments(row_store: Rows, head: int, rows: RowNumbers, gradients: Rows, keeps: float) -> None:
    """Behind each sum stands what float32 has rounded off it."""
    first, dim = np.uint64(head), np.uint64(gradients.shape[1])
    for i in range(len(rows)):
        if rows[i] >= 0:
            r = np.uint64(rows[i])
            for j in range(dim):
                exact = np.float64(row_store[r, first + j])
                exact += np.float64(row_store[r, first + dim + j])
                exact = exact * keeps + np.float64(gradients[i, j])
                kept = np.float32(exact)
                row_store[r, first + j] = kept
                row_store[r, first + dim + j] = np.float32(exact - np.float64(kept))


@kernel
def adagrad(
    row_store: Rows,
    head: int,
    rows: RowNumbers,
    gradients: Rows,
    rate: np.float32,
    epsilon: np.float32,
) -> None:
    first, dim = np.uint64(head), np.uint64(gradients.shape[1])
    for i in range(len(rows)):
        if rows[i] >= 0:
            r = np.uint64(rows[i])
            for j in range(dim):
                g = gradients[i, j]
                total = row_store[r, first + dim + j] + g * g
                row_store[r, first + dim + j] = total
                row_store[r, first + j] -= rate * g / (np.sqrt(total) + epsilon)


@kernel
def rowwise_adagrad(
    row_store: Rows,
    head: int,
    rows: RowNumbers,
    gradients: Rows,
    rate: np.float32,
    epsilon: np.float32,
) -> None:
    first, dim = np.uint64(head), np.uint64(gradients.shape[1])
    for i in range(len(rows)):
        if rows[i] >= 0:
            r = np.uint64(rows[i])
            square = np.float64(0)
            for j in range(dim):
                square += np.float64(gradients[i, j]) * np.float64(gradients[i, j])
            total = np.float32(np.float64(row_store[r, first + dim]) + square / np.float64(dim))
            row_store[r, first + dim] = total
            step = rate / (np.sqrt(total) + epsilon)
            for j in range(dim):
                row_store[r, first + j] -= step * gradients[i, j]


@kernel
def decay_accumulators(
    row_store: Rows,
    first: int,
    last: int,
    rows: RowNumbers,
    periods: Periods,
    share: float,
    least: np.float32,
) -> None:
    """G <- max(share * G, least), once for each period, for the floats of columns [first, last)."""
    for i in range(len(rows)):
        r = rows[i]
        if r >= 0 and periods[i] > 0:
            left = share ** np.float64(periods[i])
            for j in range(first, last):
                row_store[r, j] = max(np.float32(left * np.float64(row_store[r, j])), least)


@kernel
def adam(
    row_store: Rows,
    head: int,
    rows: RowNumbers,
    gradients: Rows,
    rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
) -> None:
    dim = gradients.shape[1]
    for i in range(len(rows)):
        r = rows[i]
        if r < 0:
            continue
        # The step count is the last float of the row: exact to 2^24, where both corrections have
        # long been 1.
        step = np.float64(row_store[r, head + 3 * dim]) + 1.0
        row_store[r, head + 3 * dim] = np.float32(step)
        correction1 = 1.0 - beta1**step
        correction2 = np.sqrt(1.0 - beta2**step)
        for j in range(head, head + dim):
            g = np.float64(gradients[i, j - head])
            m = np.float64(row_store[r, dim + j])
            m += (1.0 - beta1) * (g - m)
            v = beta2 * np.float64(row_store[r, 2 * dim + j]) + (1.0 - beta2) * g * g
            row_store[r, dim + j] = np.float32(m)
            row_store[r, 2 * dim + j] = np.float32(v)
            step_size = rate / correction1 * m / (np.sqrt(v) / correction2 + epsilon)
            row_store[r, j] = np.float32(np.float64(row_store[r, j]) - step_size)


@kernel
def _ftrl_weight(
    z: np.float64, n: np.float64, alpha: float, beta: float, l1: float, l2: float
) -> np.float64:
    """w of (z, n), without a branch: McMahan et al. 2013, Algorithm 1."""
    shrunk = max(abs(z) - l1, 0.0)
    return np.float64(-np.copysign(shrunk, z) / ((beta + np.sqrt(n)) / alpha + l2))


@kernel
def ftrl(
    row_store: Rows,
    head: int,
    rows: RowNumbers,
    gradients: Rows,
    alpha: float,
    beta: float,
    l1: float,
    l2: float,
    scale: float,
) -> None:
    first, dim = np.uint64(head), np.uint64(gradients.shape[1])
    for i in range(len(rows)):
        if rows[i] < 0:
            continue
        r = np.uint64(rows[i])
        for j in range(first, first + dim):
            g = np.float64(gradients[i, j - first])
            z = np.float64(row_store[r, j])
            n = np.float64(row_store[r, dim + j])
            # The shard's own present w, not the one that the learner pulled: with l1 = l2 = 0 the
            # step is then exactly w - scale * rate * g, however stale the gradient.
            w = _ftrl_weight(z, n, alpha, beta, l1, l2)
            sigma = (np.sqrt(n + g * g) - np.sqrt(n)) / alpha
            row_store[r, j] = np.float32(z + scale * g - sigma * w)
            row_store[r, dim + j] = np.float32(n + g * g)


@kernel
def ftrl_gather(
    row_store: Rows,
    head: int,
    rows: RowNumbers,
    out: Rows,
    alpha: float,
    beta: float,
    l1: float,
    l2: float,
) -> None:
    first, dim = np.uint64(head), np.uint64(out.shape[1])
    for i in range(len(rows)):
        if rows[i] >= 0:
            r = np.uint64(rows[i])
            for j in range(dim):
                z = np.float64(row_store[r, first + j])
                n = np.float64(row_store[r, first + dim + j])
                out[i, j] = np.float32(_ftrl_weight(z, n, alpha, beta, l1, l2))


@kernel
def ftrl_decay(
    row_store: Rows,
    head: int,
    dim: int,
    rows: RowNumbers,
    periods: Periods,
    share: float,
    alpha: float,
    beta: float,
    l1: float,
    l2: float,
) -> None:
    """n <- share * n for each period, and z such that w stays what it is."""
    for i in range(len(rows)):
        r = rows[i]
        if r < 0 or periods[i] <= 0:
            continue
        left = share ** np.float64(periods[i])
        for j in range(head, head + dim):
            w = _ftrl_weight(
                np.float64(row_store[r, j]), np.float64(row_store[r, dim + j]), alpha, beta, l1, l2
            )
            n = np.float64(np.float32(left * np.float64(row_store[r, dim + j])))
            row_store[r, dim + j] = np.float32(n)
            if w != 0.0:
                row_store[r, j] = np.float32(
                    -w * ((beta + np.sqrt(n)) / alpha + l2) - np.copysign(l1, w)
                )


@kernel
def adaptive_revision(
    row_store: Rows,
    head: int,
    rows: RowNumbers,
    gradients: Rows,
    meanwhile: Rows,
    rate: float,
    scale: float,
) -> None:
    dim = gradients.shape[1]
    for i in range(len(rows)):
        r = rows[i]
        if r < 0:
            continue
        for j in range(head, head + dim):
            g, applied = np.float64(gradients[i, j - head]), np.float64(meanwhile[i, j - head])
            rate_before = rate / np.sqrt(np.float64(row_store[r, 2 * dim + j]))
            total = np.float64(row_store[r, dim + j]) + g * g + 2.0 * g * applied
            largest = max(total, np.float64(row_store[r, 2 * dim + j]))
            rate_now = rate / np.sqrt(largest)
            step = scale * rate_now * g - (rate_before - rate_now) * applied
            row_store[r, dim + j] = np.float32(total)
            row_store[r, 2 * dim + j] = np.float32(largest)
            row_store[r, j] = np.float32(np.float64(row_store[r, j]) - step)
