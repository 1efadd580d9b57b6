"""What is served means what was scored: the mean answer is the mean label, whatever labels left
out (labels.md)."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from checkpointer.gates.evaluations import Evaluations
from checkpointer.process.process import definition
from checkpointer.serving import load, of_rows, probe
from checkpointer.store import Catalogue, Damaged, Manifest, TakenCut, assemble, open_store
from checkpointer.store.manifest import decode
from learners import ModelConfig
from learners.models import Model, make_model, stated_correction
from learners.training import gradient
from paramserver import AllowRequest, Epoch, PullRequest, PushRequest, SlotMap
from paramserver.parts import encode_part, part_info
from paramserver.shard import Shard
from stream import StreamConfig

CONFIG = ModelConfig(categorical=("item",), prior_rate=0.1)
IMPRESSIONS, LATE = 40_000, 0.4
SAMPLED = StreamConfig(negative_rate=0.2, negative_correction="log_odds")
EAGER = StreamConfig(label_strategy="eager", delay_correction="calibration")
CORRECTED = StreamConfig(
    label_strategy="window+correct", late_window_ms=7_200_000, delay_correction="calibration"
)
COUNTED = replace(CORRECTED, late_clicks="count")


def traffic(rng):
    item = rng.integers(0, 8, IMPRESSIONS)
    return item, (rng.random(IMPRESSIONS) < 0.04 + 0.02 * item).astype(np.int8)


def as_learned(stream, rng, item, label):
    """(item, label, weight) of the rows that a labeler of this configuration writes for these
    impressions."""
    late = (rng.random(IMPRESSIONS) < LATE) & (label == 1)
    if stream.label_strategy == "eager":
        known, more = np.zeros_like(label), label == 1
    elif stream.corrects:
        known, more = np.where(late, 0, label), late
    else:
        known, more = label, np.zeros(IMPRESSIONS, bool)
    kept = (known == 1) | (rng.random(IMPRESSIONS) < stream.negative_rate)
    weight = 0.0 if stream.late_clicks == "count" else 1.0
    order = rng.permutation(int(kept.sum()) + int(more.sum()))
    columns = (
        np.concatenate([item[kept], item[more]]),
        np.concatenate([known[kept], np.ones(int(more.sum()), np.int8)]),
        np.concatenate([np.ones(int(kept.sum())), np.full(int(more.sum()), weight)]).astype(
            np.float32
        ),
    )
    return tuple(column[order] for column in columns)


def trained(model: Model, item, label, weight) -> Shard:
    """A shard that has learned these rows."""
    shard, at = Shard(0, 1, SlotMap.even(1)), 0
    shard.begin(model.spec, {"label/0": 0}, model.initial_dense())
    shard.allow(AllowRequest(1, 1, (Epoch(1, 1),)))
    for batch, rows in enumerate(np.array_split(np.arange(len(item)), 60), 1):
        columns = {
            "item": pa.array([f"i{x}" for x in item[rows]]),
            "label": label[rows],
            "weight": weight[rows],
            "position": np.arange(at, at + len(rows)),
            "ts_ms": np.full(len(rows), batch),
        }
        prepared = gradient.prepare(model, pa.record_batch(columns))
        pull = shard.pull(
            PullRequest(model.name, Epoch(1, 1), 1, {"weights": prepared.keys["weights"]})
        )
        computed = gradient.compute(model, prepared, pull.rows, {})
        push = PushRequest(
            model.name,
            Epoch(1, 1),
            1,
            1,
            "label/0",
            at,
            at + len(rows),
            0,
            1,
            0,
            batch,
            len(rows),
            batch,
            keys=computed.keys,
            gradients=computed.gradients,
        )
        assert shard.push(push).outcome.value == "applied"
        at += len(rows)
    return shard


def checkpoint(
    catalogue: Catalogue, model: Model, shard: Shard, stream: StreamConfig, late_share: float | None
) -> Manifest:
    snapshot = shard.snapshot(model.name)
    data = encode_part(snapshot)
    path = f"{model.name}/00000000-c/part-0.safetensors"
    catalogue.files.write(path, data)
    info = part_info(snapshot, catalogue.files.url(path), data)
    what = definition(model, correction=stated_correction(stream))
    vector = {"label/0": snapshot.progress.chains["label/0"].end}
    evaluation = Evaluations(model.name).sums({})
    taken = TakenCut(0, "c", vector, 1, "0")
    made = assemble(what, taken, [info], None, evaluation, late_share=late_share)
    catalogue.write_manifest(made)
    return made


@pytest.mark.parametrize(
    "stream", [SAMPLED, EAGER, CORRECTED, COUNTED], ids=["log_odds", "eager", "late", "counted"]
)
def test_the_mean_answer_is_the_mean_label(tmp_path, stream):
    rng = np.random.default_rng(3)
    item, label = traffic(rng)
    model = make_model(CONFIG)
    shard = trained(model, *as_learned(stream, rng, item, label))
    catalogue = Catalogue(open_store(str(tmp_path)), model.name)
    made = checkpoint(catalogue, model, shard, stream, LATE if stream.corrects else None)
    served = load(catalogue, made.name)
    answers = served.predict(
        of_rows([{"item": f"i{x}"} for x in range(8)], served.features).columns
    )
    by_item = np.array([label[item == x].mean() for x in range(8)])
    assert answers[item].mean() == pytest.approx(label.mean(), rel=0.05)
    assert np.abs(answers - by_item).max() < 0.05
    gates = probe(served, [{"item": f"i{x}"} for x in range(8)])
    assert gates[1:] == [float(p) for p in answers], "gates ask what replicas answer"
    plain = load(catalogue, made.name).scorer
    plain.corrects = type(plain.corrects)()
    raw = plain.predict(of_rows([{"item": f"i{x}"} for x in range(8)], served.features).columns)
    assert abs(raw[item].mean() / label.mean() - 1) > 0.05, "without the correction it is not"


def test_a_manifest_keeps_its_correction_and_one_without_has_no_word_of_it(tmp_path, make):
    correction = stated_correction(SAMPLED)
    assert correction["negative_rate"] == 0.2
    made = make(correction=correction)
    assert decode(made.encode()).correction == correction
    assert b"correction" not in make().encode()
    assert decode(make().encode()).correction == {}
    assert (
        stated_correction(StreamConfig())
        == stated_correction(replace(EAGER, delay_correction="weights"))
        == {}
    )


def test_a_correction_that_cannot_be_is_refused_by_name(tmp_path):
    model, catalogue = make_model(CONFIG), Catalogue(open_store(str(tmp_path)), "clicks")
    shard = trained(model, np.zeros(60, np.int64), np.zeros(60, np.int8), np.ones(60, np.float32))
    made = checkpoint(catalogue, model, shard, SAMPLED, None)
    catalogue.delete(made.name)
    shard = trained(model, np.zeros(60, np.int64), np.zeros(60, np.int8), np.ones(60, np.float32))
    wrong = replace(
        checkpoint(catalogue, model, shard, SAMPLED, None),
        correction={**made.correction, "share": 3.0},
    )
    catalogue.write_manifest(wrong)
    catalogue._manifests.clear()
    with pytest.raises(Damaged, match="share"):
        load(catalogue, wrong.name)


def test_the_late_share_of_a_manifest_is_that_of_the_rows_it_counts():
    sums = Evaluations("clicks")
    assert sums.late_share({}) is None
    common = {"model": "clicks", "chain": "label/0", "log_loss_sum": 1.0}
    for start, end, rows, said in (
        (0, 10, 30, {"share": 0.2}), (10, 20, 10, {"share": 0.6}), (20, 30, 99, {"share": 1.0}),
        (12, 13, 5, {"share": 9}), (13, 14, 5, "x"),
    ):  # fmt: skip
        sums.add({**common, "start": start, "end": end, "rows": rows, "correction": said})
    assert sums.late_share({"label/0": 20}) == pytest.approx((30 * 0.2 + 10 * 0.6) / 40)
    sums.take({"label/0": 20})
    assert sums.late_share({"label/0": 20}) is None
    assert sums.late_share({"label/0": 30}) == 1.0


def test_a_late_share_holds_until_learners_say_another(make):
    model = make_model(CONFIG)
    what = definition(model, correction=stated_correction(CORRECTED))
    from checkpointer.store.manifest import _correction

    assert _correction(what, None, None)["share"] == CORRECTED.late_share_prior
    assert (
        _correction(what, make(correction={**what.correction, "share": 0.33}), None)["share"]
        == 0.33
    )
    assert (
        _correction(what, make(correction={**what.correction, "share": 0.33}), 0.5)["share"] == 0.5
    )
    assert _correction(definition(model), make(correction={"share": 0.33}), 0.5) == {}
