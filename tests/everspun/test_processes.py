"""Whole runs as real processes: one that is killed again and again gives what an undisturbed one
gives, bit for bit, and so does training that goes on from an older checkpoint; a paused one trains
nothing until it is resumed."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from staged_run import (
    IMPRESSIONS,
    STAGE_MS,
    STAGES,
    T0,
    WITHOUT_TORCH,
    Line,
    Run,
    heartbeat,
    play,
    stage,
)

from everspun import __main__ as front_door
from everspun.audit import of_shards
from everspun.commands.system import full_audit
from paramserver import ChainProgress
from stream import LABEL, LATE, RETRACT, Partition
from stream.internal_topics import (
    OPERATOR,
    REJECT,
    BatchHeader,
    Verdict,
    Watermark,
    breaker_input,
    decode_examples,
    encode_verdict,
)

pytestmark = [pytest.mark.kafka, pytest.mark.processes, pytest.mark.timeout(600)]


def killer(run: Run) -> Callable[[int], None]:
    """Kills in the middle of each stage: other roles, at other places."""
    plan = {
        0: [("learner", 40), ("labeler", 200)],
        1: [("shard", 150), ("labeler", 260)],
        2: [("checkpointer", 30), ("shard", 60), ("learner", 90)],
    }

    def kill(number: int) -> None:
        for role, rows in plan[number]:
            run.until(
                lambda rows=rows: run.learned(number * IMPRESSIONS + rows),
                f"stage {number} does not come to row {rows}",
            )
            run.local.launcher.kill(role, 0)

    return kill


def of_any_topic(batches: list[tuple[BatchHeader, bytes]]) -> list[tuple[BatchHeader, bytes]]:
    """Without the topics' own ids, which are others in every run (C7)."""
    return [(replace(header, topic_ids={}), value) for header, value in batches]


def test_kills_change_no_label_no_byte_and_no_parameter(
    start_run: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("EVERSPUN_HASH_SECRET", "the same in both runs, or their keys would differ")
    undisturbed = start_run("calm.", "checkpointer.deltas_max=0")
    play(undisturbed, lambda number: None)
    batches = of_any_topic(undisturbed.batches())
    parameters = [undisturbed.parameters(k) for k in range(1, STAGES + 1)]
    undisturbed.close()

    killed = start_run("killed.")
    play(killed, killer(killed))
    manifests = [killed.checkpoint(k) for k in range(1, STAGES + 1)]
    assert not any(m is None or m.is_full for m in manifests), (
        "shards restored from a base and deltas (X2)"
    )
    assert killed.local.launcher.processes["shard-0"].restarts == 2
    assert killed.local.launcher.processes["labeler-0"].restarts == 2
    assert killed.local.launcher.processes["learner-0"].restarts == 2
    again = of_any_topic(killed.batches())
    assert [header for header, _ in again] == [header for header, _ in batches]
    assert again == batches
    for k, expected in enumerate(parameters, start=1):
        found = killed.parameters(k)
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            assert array.tobytes() == found[name].tobytes(), f"checkpoint {k}: {name} differs"
    assert sum(header.labelled for header, _ in batches) == STAGES * IMPRESSIONS
    audit = full_audit(killed.config, killed.local.log(), at_rest=True)
    assert audit.right, audit.findings
    goes_on_from_a_delta(killed, parameters[-1], capsys)
    undisturbed.forget()
    killed.forget()


def goes_on_from_a_delta(
    run: Run, last_parameters: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    """The last stage is learned once more, from the checkpoint before it: bit for bit what was
    learned first."""
    back, last, labels = run.checkpoint(STAGES - 1), run.checkpoint(STAGES), run.batches()
    assert back is not None
    assert last is not None
    assert len(run.catalogue.chain(back)) > 2, "a base and more than one delta (X2)"
    run.close()
    assert front_door.main(["checkpoints", "restore", back.name, "--training", *run.command()]) == 0
    assert f"training goes on from {back.name}" in capsys.readouterr().out
    run.start_again()
    run.until(
        lambda: (found := run.checkpoint(STAGES)) and found.name != last.name,
        "the last stage is not cut again",
    )
    again = run.checkpoint(STAGES)
    assert again is not None
    assert again.number > last.number
    assert run.catalogue.chain(again)[:-1] == run.catalogue.chain(back), (
        "its parent is not what was restored"
    )
    assert again.chains == last.chains
    found = run.parameters(STAGES)
    assert found.keys() == last_parameters.keys()
    for name, array in last_parameters.items():
        assert array.tobytes() == found[name].tobytes(), f"{name} differs"
    assert run.batches() == labels, "labels are written once"
    audit = full_audit(run.config, run.local.log(), at_rest=True)
    assert audit.right, audit.findings


def rows_of(run: Run, kind: str) -> list[tuple[int, int]]:
    """(position, label) of every row of one chain."""
    values = [decode_examples(value) for _, value in run.batches(kind) if value]
    return [
        (row["position"], row["label"])
        for v in values
        for row in v.select(["position", "label"]).to_pylist()
    ]


def test_a_late_verdict_is_taken_back_on_the_shard(
    start_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
):
    """Labels wait for a judge, whose watermarks are written here; its verdict comes when all has
    been learned."""
    run = start_run(
        "late.", WITHOUT_TORCH, "labeler.await_breaker=true", "labeler.retract_share_min=0"
    )
    verdicts = Partition(run.config.stream.verdicts, 0)
    writer = run.local.log().writer()

    def judged(stages: float) -> None:
        said = Watermark(breaker_input(0), T0 + int(stages * STAGE_MS), 0)
        writer.append(verdicts, encode_verdict(said))

    judged(2)
    run.write(stage(0))
    run.until(lambda: run.learned(IMPRESSIONS), "stage 0 is not learned")
    late = Verdict("late/u1", OPERATOR, REJECT, "u1", None, T0, T0 + STAGE_MS, "found late")
    writer.append(verdicts, encode_verdict(late))
    judged(3)

    def chain() -> ChainProgress | None:
        standing, _ = of_shards(run.config)
        return standing[0].progress.chains.get("retract/0") if standing else None

    run.write(
        [
            Line(topic, T0 + 2 * STAGE_MS, None, heartbeat(T0 + 2 * STAGE_MS))
            for topic in ("impressions", "clicks")
        ]
    )
    run.until(lambda: (at := chain()) is not None and at.rows, "nothing is taken back")
    writer.close()
    rows = {
        kind: [decode_examples(v) for _, v in run.batches(kind) if v] for kind in (LABEL, RETRACT)
    }
    learned = [
        row["position"] for part in rows[LABEL] for row in part.to_pylist() if row["source"] == "u1"
    ]
    back = [
        row["position"]
        for part in rows[RETRACT]
        for row in part.to_pylist()
        if row["position"] >= 0
    ]
    assert back == learned != []
    audit = full_audit(run.config, run.local.log(), at_rest=False)
    assert audit.right, audit.findings
    assert front_door.main(["fraud", "show", "u1", *run.command()]) == 0
    assert f"still in the log: {len(back)} rows" in capsys.readouterr().out
    run.forget()


@pytest.mark.soak
@pytest.mark.parametrize(
    "strategy",
    [
        ('stream.label_strategy="eager"',),
        ('stream.label_strategy="window+correct"', "stream.late_window_ms=80_000"),
    ],
    ids=["eager", "window+correct"],
)
def test_a_run_that_reads_twice_learns_each_click_once(
    start_run: Callable[..., Run], strategy: tuple[str, ...]
):
    """One stage: a row for every impression and one more for every click that the first reading
    did not know."""
    run = start_run("twice.", *strategy)
    run.write(stage(0))
    run.until(lambda: run.checkpoint(1), "no checkpoint of barrier 1")
    first, late = (rows_of(run, kind) for kind in (LABEL, LATE))
    clicked = {at for at, label in [*first, *late] if label}
    assert len(first) == len(set(first)) == IMPRESSIONS
    assert {label for _, label in late} == {1}
    assert sum(label for _, label in [*first, *late]) == len(clicked)
    assert {at for at, _ in late} <= {at for at, label in first if not label}
    standing, _ = of_shards(run.config)
    for kind, rows in ((LABEL, first), (LATE, late)):
        assert standing[0].progress.chains[f"{kind}/0"].rows == len(rows)
    audit = full_audit(run.config, run.local.log(), at_rest=True)
    assert audit.right, audit.findings
    run.forget()


def test_a_paused_run_labels_and_does_not_train_until_it_is_resumed(start_run: Callable[..., Run]):
    run = start_run("paused.", WITHOUT_TORCH)
    command = run.command()
    run.until(lambda: run.progress(), "the model does not begin")
    assert front_door.main(["pause", *command]) == 0
    run.write(stage(0))
    run.until(lambda: sum(h.labelled for h, _ in run.batches()) == IMPRESSIONS, "labels stop")
    run.local.launcher.kill("shard", 0)  # it holds the clocks
    run.until(
        lambda: run.local.launcher.processes["shard-0"].restarts == 1,
        "the shard is not started again",
    )
    run.until(lambda: run.progress(), "the shard does not come back")
    time.sleep(2.0)
    assert run.progress() == ChainProgress(0)
    assert front_door.main(["resume", *command]) == 0
    run.until(lambda: run.checkpoint(1), "training does not go on")
    run.forget()
