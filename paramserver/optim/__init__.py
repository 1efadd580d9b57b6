"""Optimizers, over rows and over dense arrays.

- `kernels`: the arithmetic of the optimizers, a row at a time
- `optimizers`: the optimizers that run on a shard
"""
