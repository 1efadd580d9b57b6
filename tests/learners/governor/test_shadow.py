"""A shadow trains as the live model does when nothing is stale, and from touched rows as from
all."""

import numpy as np
import pytest

from bench.learning.virtual_training import Setting, Trained, VirtualTraining, draw_work
from learners.config import ModelConfig
from learners.governor.shadow import Shadow, touched_only
from learners.models import make_model

MODEL = make_model(
    ModelConfig(kind="lr", categorical=("source", "item"), bias=True, table_optimizer="adagrad")
)
WORKS = draw_work(MODEL, examples=6_000, batch_rows=100, seed=5)
FROM = 20


def run(learners: int, staleness: int):
    copies = []

    def copy(world: VirtualTraining, trained: Trained) -> None:
        if len(world.trained) == FROM:
            copies.append(world.shard.snapshot(MODEL.name))

    done = VirtualTraining(MODEL, WORKS, Setting(learners, staleness), on_trained=copy).run()
    return copies[0], done.trained[FROM:]


def losses(snapshot, trained):
    shadow = Shadow(MODEL, [snapshot])
    return [shadow.train(t.work.batch, t.work.prepared) for t in trained]


def test_of_a_sequence_the_shadow_repeats_every_loss():
    snapshot, trained = run(1, 0)
    assert losses(snapshot, trained) == pytest.approx([t.log_loss for t in trained], rel=1e-5)


def test_touched_rows_are_enough():
    snapshot, trained = run(4, 2)
    table = next(iter(snapshot.tables))
    some = trained[:5]
    keys = {table: np.unique(np.concatenate([t.work.prepared.keys[table] for t in some]))}
    small = touched_only(snapshot, keys)
    assert len(small.tables[table].keys) < len(snapshot.tables[table].keys)
    assert losses(small, some) == losses(snapshot, some)


def test_a_batch_that_is_not_the_next_of_its_chain_is_named():
    snapshot, trained = run(1, 0)
    work = next(t.work for t in trained[::-1] if t.work.batch.start > 0)
    with pytest.raises(ValueError, match=r"label/\d+ .*gap"):
        losses(snapshot, [Trained(work, 0.0, 0, 0.0)])
