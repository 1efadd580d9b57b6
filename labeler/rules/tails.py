"""How surprising a count is, when people differ.

Among honest sources a share (of views that are clicked, of activity that goes to one vendor) is not one number: some
people click on nearly everything, some look at one vendor only. So a source's own share is taken as drawn from a beta
distribution around the population's mean m, with the weight of `weight` observations; its count is then beta-binomial
(Skellam 1948). Its tails fall as a power of n, not exponentially: no honest lover of one genre becomes impossible.
"""

from math import exp, lgamma

#: Means are kept this far from 0 and 1, where a beta distribution has no meaning.
MEAN_EDGE = 1e-6


def upper_tail(count: int, total: int, mean: float, weight: float) -> float:
    """P(X >= count) of `total` trials."""
    return _mass(range(count, total + 1), total, mean, weight)


def lower_tail(count: int, total: int, mean: float, weight: float) -> float:
    """P(X <= count) of `total` trials."""
    return _mass(range(min(count, total) + 1), total, mean, weight)


def _mass(counts: range, total: int, mean: float, weight: float) -> float:
    mean = min(max(mean, MEAN_EDGE), 1 - MEAN_EDGE)
    a, b = weight * mean, weight * (1 - mean)
    fixed = lgamma(total + 1) - lgamma(total + a + b) + lgamma(a + b) - lgamma(a) - lgamma(b)
    return min(
        1.0,
        sum(exp(fixed + lgamma(k + a) - lgamma(k + 1) + lgamma(total - k + b) - lgamma(total - k + 1)) for k in counts),
    )
