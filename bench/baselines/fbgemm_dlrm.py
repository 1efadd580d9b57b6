"""The same model with fbgemm's table-batched embedding on the CPU: forward, backward and Adagrad of
all tables fused.

    python -m bench.baselines.fbgemm_dlrm FOLDER [--threads 1] [--kind dlrm|mlp]

Needs `pip install fbgemm-gpu-cpu` (`SplitTableBatchedEmbeddingBagsCodegen`, exact Adagrad,
float32). Its Adagrad takes no initial accumulator, so its first steps are larger; its speed is what
is compared. Says why and exits with code 3 where fbgemm is not installed or does not load beside
this torch.
"""

import json
import sys

import numpy as np
import torch
from torch import Tensor, nn

from bench.baselines.torch_dlrm import EPSILON, RATE, Dlrm, Trainer, options
from bench.baselines.turns import serve

MISSING = 3


class Tables(nn.Module):
    """All features in one operator; a bag is one id."""

    def __init__(self, rows: np.ndarray, features: int):
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )

        super().__init__()
        self.values, dim = len(rows) // features, rows.shape[1]
        self.operator = SplitTableBatchedEmbeddingBagsCodegen(
            [(self.values, dim, EmbeddingLocation.HOST, ComputeDevice.CPU)] * features,
            optimizer=EmbOptimType.EXACT_ADAGRAD,
            learning_rate=RATE,
            eps=EPSILON,
            device=torch.device("cpu"),
        )
        for feature, weights in enumerate(self.operator.split_embedding_weights()):
            weights.data.copy_(
                torch.from_numpy(rows[feature * self.values : (feature + 1) * self.values])
            )

    def forward(self, ids: Tensor) -> Tensor:
        count, features = ids.shape
        local = (ids - torch.arange(features) * self.values).T.reshape(
            -1
        )  # feature by feature, as the operator reads
        out: Tensor = self.operator(local, torch.arange(count * features + 1)).view(
            count, features, -1
        )
        return out


def main() -> None:
    given = options().parse_args()
    try:
        import fbgemm_gpu
    except (ImportError, OSError) as error:
        print(json.dumps({"missing": " ".join(str(error).split())}))
        sys.exit(MISSING)
    torch.set_num_threads(given.threads)
    trainer = Trainer(given.folder, given.kind)
    model: Dlrm = trainer.model
    model.embedding = Tables(np.load(given.folder / "rows.npy"), trainer.ids.shape[2])  # type: ignore[assignment]
    trainer.optimizers = trainer.optimizers[1:]  # the tables' optimizer is in their backward
    facts = {
        "fbgemm": getattr(fbgemm_gpu, "__version__", ""),
        "torch": torch.__version__,
        "threads": given.threads,
    }
    serve(trainer.step, facts, lambda: {"losses": trainer.losses, "sample": []})


if __name__ == "__main__":
    main()
