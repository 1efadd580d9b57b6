"""A logistic regression as a torch module that sleeps: `bench.governor --live` gives every batch
the time that it would take on a core of its own, so that learners overlap as they do where each has
one."""

import time

import torch
from torch import Tensor, nn


class Thinking(nn.Module):
    """The sum of one weight a feature, and a bias. A gradient takes `think_ms` more than its
    arithmetic."""

    def __init__(self, features: int, dim: int, numbers: int, think_ms: float = 0.0):
        super().__init__()
        self.bias = nn.Parameter(torch.full((1,), -2.2))
        self.think_ms = think_ms

    def forward(self, embeddings: Tensor, numbers: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            time.sleep(self.think_ms / 1_000)
        return embeddings.sum(dim=(1, 2)) + self.bias
