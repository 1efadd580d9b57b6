"""Thinner rows and fewer of them: what 16 bits and late admission cost in log loss, and what they
save in bytes.

    python -m bench.thin_rows [--json]

One log, 200,000 simulated impressions in batches of 512 with a long tail of pairs of user and
vendor, is trained in sequence by each model once with rows in float32 for every key, then with each
other storage and admission. `logloss_ratio` is the progressive log loss to that of float32, over
the whole log and over its last half; `bytes_ratio` is what rows take at the end, with their place
in the index. Models: logistic regression, a factorization machine of 16 and a DLRM of 16, all with
Adagrad. Takes about 1 CPU minute and 1 GB.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from bench.learning.virtual_training import Setting, Trained, VirtualTraining, Work, draw_work
from bench.measuring.machine import machine
from learners import ModelConfig
from learners.models import make_model
from paramserver.tables import STORAGES

EXAMPLES, BATCH_ROWS, SEED = 200_000, 512, 1
FEATURES = ("source", "item", "vendor", "source*vendor")
MODELS = {
    "lr": ModelConfig(kind="lr", categorical=FEATURES, bias=True, table_optimizer="adagrad"),
    "fm": ModelConfig(kind="fm", categorical=FEATURES, bias=True, dim=16),
    "dlrm": ModelConfig(kind="dlrm", categorical=FEATURES, dim=16, hidden=(32, 16)),
}
ADMISSION: dict[str, dict[str, float]] = {
    "admit_count 2": {"admit_count": 2},
    "admit_count 3": {"admit_count": 3},
    "admit_chance 0.5": {"admit_chance": 0.5},
}


def variants(config: ModelConfig) -> Iterator[tuple[str, ModelConfig]]:
    """float32 with a row for every key first."""
    for storage in STORAGES:
        yield storage, replace(config, table_storage=storage)
    for name, policy in ADMISSION.items():
        yield name, replace(config, table_policy=policy)


def loss(trained: Sequence[Trained]) -> float:
    return sum(t.log_loss for t in trained) / sum(t.work.batch.rows for t in trained)


def compare(config: ModelConfig, examples: int) -> dict[str, Any]:
    """Every variant of one model beside float32, on one log."""
    works: list[Work] = draw_work(make_model(config), examples, BATCH_ROWS, SEED)
    found: dict[str, Any] = {}
    base: tuple[float, float, int] | None = None
    for name, variant in variants(config):
        run = VirtualTraining(make_model(variant), works, Setting(1, 0), think_ms=1.0).run()
        whole, late = loss(run.trained), loss(run.trained[len(run.trained) // 2 :])
        taken = run.shard.rows_bytes(variant.name)
        base = base or (whole, late, taken)
        found[name] = {
            "log_loss": round(whole, 5),
            "logloss_ratio": round(whole / base[0], 5),
            "logloss_ratio_last_half": round(late / base[1], 5),
            "rows": run.shard.rows(variant.name),
            "bytes_ratio": round(taken / base[2], 3),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--json", action="store_true", help="one line of JSON (default: indented)")
    arguments = parser.parse_args()
    began = time.process_time()
    found = {name: compare(config, arguments.examples) for name, config in MODELS.items()}
    body = {
        "bench": "thin_rows",
        "examples": arguments.examples,
        "batch_rows": BATCH_ROWS,
        "models": found,
        "cpu_s": round(time.process_time() - began, 1),
        "machine": machine(),
    }
    print(json.dumps(body, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
