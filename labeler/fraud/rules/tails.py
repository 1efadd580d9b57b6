"""How surprising a count is, when people differ.

Among honest sources a share (of views that are clicked, of activity that goes to one vendor) is not
one number: some people click on nearly everything, some look at one vendor only. So a source's own
share is taken as drawn from a beta distribution around the population's mean m, with the weight of
`weight` observations; its count is then beta-binomial (Skellam 1948). Its tails fall as a power of
n, not exponentially: no honest lover of one genre becomes impossible.
"""

from math import exp, lgamma, log

from stream.kernels import F64, I64, kernel

#: Means are kept this far from 0 and 1, where a beta distribution has no meaning.
MEAN_EDGE = 1e-6
#: A running sum is scaled down above this.
_LARGE = 1e250


def upper_tail(count: int, total: int, mean: float, weight: float) -> float:
    """P(X >= count) of `total` trials."""
    return float(_mass(count, total + 1, total, float(mean), float(weight)))


def lower_tail(count: int, total: int, mean: float, weight: float) -> float:
    """P(X <= count) of `total` trials."""
    return float(_mass(0, min(count, total) + 1, total, float(mean), float(weight)))


@kernel
def _mass(first: int, end: int, total: int, mean: float, weight: float) -> float:
    """P(first <= X < end). The first term by its logarithm, each later one by its ratio to the
    one before."""
    if first >= end:
        return 0.0
    mean = min(max(mean, MEAN_EDGE), 1 - MEAN_EDGE)
    a, b = weight * mean, weight * (1 - mean)
    scale = lgamma(total + 1) - lgamma(total + a + b) + lgamma(a + b) - lgamma(a) - lgamma(b)
    scale += (
        lgamma(first + a)
        - lgamma(first + 1)
        + lgamma(total - first + b)
        - lgamma(total - first + 1)
    )
    term, summed = 1.0, 1.0
    for k in range(first, end - 1):
        term *= (k + a) * (total - k) / ((k + 1) * (total - k - 1 + b))
        summed += term
        if summed > _LARGE:
            term, summed, scale = term / _LARGE, summed / _LARGE, scale + log(_LARGE)
    return min(1.0, exp(min(0.0, scale + log(summed))))


@kernel
def upper_tails(counts: I64, totals: I64, means: F64, weight: float, out: F64) -> None:
    """P(X >= count) of each, all (n,), into `out`."""
    for i in range(len(counts)):
        out[i] = _mass(counts[i], totals[i] + 1, totals[i], means[i], weight)
