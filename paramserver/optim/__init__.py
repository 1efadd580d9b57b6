"""Optimizers, over rows and over dense arrays.

- `kernels`: the arithmetic of the optimizers, a row at a time
- `moments`: running sums of what the stream has shown, in the place of weights
- `optimizers`: the optimizers that run on a shard
"""
