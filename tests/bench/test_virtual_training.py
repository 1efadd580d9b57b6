"""Virtual time changes when things happen, and nothing else: what is trained is what the cores
train."""

import numpy as np
import pytest

from bench.learning.virtual_training import Setting, VirtualTraining, differentiate, draw_work
from learners import ModelConfig
from learners.models import make_model
from paramserver import AllowRequest, Epoch, PullRequest, PushRequest, SlotMap
from paramserver.shard import Shard

MODEL = make_model(
    ModelConfig(
        kind="lr",
        categorical=("source", "item"),
        bias=True,
        table_optimizer="adagrad",
        table_options={"rate": 0.2, "accumulator": 0.1},
    )
)
WORKS = draw_work(MODEL, examples=6_000, batch_rows=100, seed=3)


def replayed(run: VirtualTraining) -> float:
    """Log loss of the same batches in the order in which that run applied them, one after the
    other."""
    shard, epoch = Shard(0, 1, SlotMap.even(1)), Epoch(1, 1)
    shard.begin(MODEL.spec, {w.batch.chain: 0 for w in WORKS}, dict(MODEL.initial_dense()))
    shard.allow(AllowRequest(1, 1, (epoch,)))
    total = 0.0
    for trained in run.trained:
        work = trained.work
        pulled = shard.pull(PullRequest(MODEL.name, epoch, 1, work.prepared.keys))
        content, loss = differentiate(MODEL, work, pulled.rows, pulled.dense)
        total += loss
        b = work.batch
        reply = shard.push(
            PushRequest(
                MODEL.name,
                epoch,
                1,
                1,
                b.chain,
                b.start,
                b.end,
                b.partition,
                b.next_record,
                pulled.version,
                **content,
            )
        )
        assert reply.staleness == 0
    return total / sum(t.work.batch.rows for t in run.trained)


def test_one_learner_in_step_is_the_sequence():
    run = VirtualTraining(MODEL, WORKS, Setting(1, 0)).run()
    assert {t.staleness for t in run.trained} == {0}
    assert run.log_loss == pytest.approx(replayed(run), rel=1e-6)


def test_several_learners_lose_against_the_same_order_in_sequence():
    run = VirtualTraining(MODEL, WORKS, Setting(8, 4)).run()
    assert np.mean([t.staleness for t in run.trained]) > 10
    assert run.log_loss > 1.005 * replayed(run)


@pytest.mark.parametrize("learners", [2, 4, 8])
def test_in_step_no_push_is_staler_than_the_others_one_batch(learners: int):
    run = VirtualTraining(MODEL, WORKS, Setting(learners, 0)).run()
    assert max(t.staleness for t in run.trained) == learners - 1


def test_every_batch_is_trained_once_and_a_run_is_a_function_of_its_setting():
    once, again = (VirtualTraining(MODEL, WORKS, Setting(4, 1)).run() for _ in range(2))
    ranges = sorted((t.work.batch.partition, t.work.batch.start) for t in once.trained)
    assert ranges == sorted((w.batch.partition, w.batch.start) for w in WORKS)
    assert (once.log_loss, once.now_ms) == (again.log_loss, again.now_ms)
