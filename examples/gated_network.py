"""A network of one's own: each feature's embedding is scaled by a gate that looks at all of them,
then one layer.

    [model]
    kind = "gated_network:Gated"
    categorical = ["source", "item", "vendor"]
    module_options = {width = 8}

This file must be importable where the model is trained and served: beside the config, or installed.
See docs/models.md.
"""

import torch
from torch import Tensor, nn


class Gated(nn.Module):
    """`features` embeddings of width `dim` and `numbers` numeric features in, one logit a row
    out."""

    def __init__(self, features: int, dim: int, numbers: int, width: int = 8):
        super().__init__()
        self.squeeze = nn.Linear(features, width)
        self.gate = nn.Linear(width, features)
        self.norm = nn.LayerNorm(features * dim + numbers)
        self.logit = nn.Linear(features * dim + numbers, 1)

    def forward(self, embeddings: Tensor, numbers: Tensor) -> Tensor:
        gates = torch.sigmoid(self.gate(torch.relu(self.squeeze(embeddings.mean(dim=2)))))
        scaled = (embeddings * gates.unsqueeze(2)).flatten(1)
        logits: Tensor = self.logit(self.norm(torch.cat([scaled, numbers], dim=1)))
        return logits
